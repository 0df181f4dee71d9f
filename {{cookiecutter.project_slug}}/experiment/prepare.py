"""Get the data, check them, split them, write a manifest. The same bytes every time.

examples:
  python -m experiment.prepare
  python -m experiment.prepare dataset=digits seed=7 data_dir=/scratch/data
"""

import sys

from experiment import ROOT
from repro import environment
from repro.core.command import Parser, run_command


def main() -> int:
    parser = Parser("experiment.prepare", __doc__)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    settings = parser.parse_args().settings
    environment.enter_early(ROOT, settings)
    from experiment.config import LOADER  # imports Hydra: after the interpreter was started anew

    config = LOADER.load(settings)
    environment.enter(config.profile, config.threads)
    from experiment import data  # imports torch, which reads the environment

    manifest = data.prepare(config)
    folder = data.data_folder(config)
    seed = config.seeds.data_split
    print(f"{manifest['samples']} samples in {folder}, split by seeds.data_split={seed}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
