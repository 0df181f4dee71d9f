"""Measure the results that every project with the defaults carries.

    make results

Generates such a project, lets it record its claims (`make record`), and takes over results/ and the
measured blocks of REPRODUCE.md. Needed after each change of code, configs or lock: they are among
the conditions, and a test (tests/test_training.py) fails until it is done.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
BLOCK = re.compile(r"(<!-- repro:(\w+) -->\n)(.*?)(<!-- /repro:\w+ -->)", re.DOTALL)


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(
            cookiecutter(str(ROOT), no_input=True, default_config=True, output_dir=scratch)
        )
        command = ["make", "--no-print-directory", "record", f"VENV={ROOT / '.build' / 'venv'}"]
        code = subprocess.run(command, cwd=project).returncode
        if code:
            return code
        shutil.rmtree(TEMPLATE / "results", ignore_errors=True)
        shutil.copytree(project / "results", TEMPLATE / "results")
        measured = {m[2]: m[3] for m in BLOCK.finditer((project / "REPRODUCE.md").read_text())}
    path = TEMPLATE / "REPRODUCE.md"
    text = BLOCK.sub(lambda m: m[1] + measured[m[2]] + m[4], path.read_text())
    path.write_text(text)
    print("wrote results/ and REPRODUCE.md of the template")
    return 0


if __name__ == "__main__":
    sys.exit(main())
