"""Write every lock anew: the projects' two (templates/locks/) and the template's own.

    make lock                     keep the versions; add and remove what the .in files ask for
    make lock ARGS=--upgrade      take the newest versions

The work is done by the `make lock` of a project that is generated with the defaults, so a lock from
here and one from a project are made alike. pip-compile chooses for the Python that it runs on, and
older ones may not fit what it chose: it runs on the lowest one that we support.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {
    "requirements": ROOT / "templates" / "locks" / "none.lock",
    "requirements-dev": ROOT / "templates" / "locks" / "dev.lock",
    "requirements-tools": ROOT / "requirements-tools.lock",
    "requirements-checks": ROOT / "requirements-checks.lock",
}


def main() -> int:
    stack = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["_stack"]
    running, lowest = "{}.{}".format(*sys.version_info), stack["python_lowest"]
    if running != lowest:
        remedy = f"rm -r .build/tools && make lock PYTHON=python{lowest}"
        print(f"lock: this is Python {running}, not {lowest}: {remedy}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        for lock in LOCKS.values():
            lock.touch()  # the project includes them, the first time too
        project = Path(
            cookiecutter(str(ROOT), no_input=True, default_config=True, output_dir=scratch)
        )
        for name in ("requirements-tools", "requirements-checks"):
            for suffix in (".in", ".lock"):
                shutil.copy(ROOT / f"{name}{suffix}", project)
        tools = Path(sys.prefix)
        command = ["make", "--no-print-directory", "lock", f"VENV={tools}"]
        command += [f"LOCKS={' '.join(LOCKS)}", f"ARGS={' '.join(sys.argv[1:])}"]
        code = subprocess.run(command, cwd=project).returncode
        if code:
            return code
        for name, lock in LOCKS.items():
            shutil.copyfile(project / f"{name}.lock", lock)
            print(f"wrote {lock.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
