"""Leave only the files of the chosen scale and tracker in a new project, and say what comes next.

cookiecutter cannot leave out a file that it copies as it stands, as it does with all Python files.
This runs in the new project's folder, offline, asks nothing, and writes no file.
"""

import re
import shutil
import sys
from pathlib import Path

default = Path("configs", "tracker", "default.yaml").read_text("utf-8")
chosen = re.findall(r"(?m)^  - (\w+)$", default)
for tracker in {"tensorboard", "mlflow", "wandb"} - {*chosen}:  # a tracker of the author's stays
    Path("configs", "tracker", tracker + ".yaml").unlink(missing_ok=True)
    Path("repro", "tracking", tracker + ".py").unlink(missing_ok=True)
if chosen == ["none"]:
    for name in ("mirror.py", "sender.py", "__main__.py"):
        Path("repro", "tracking", name).unlink()
scale = Path("configs", "scale")
if not any(scale.glob("*.yaml")):  # scale=one
    shutil.rmtree(scale, ignore_errors=True)
    shutil.rmtree(Path("repro", "training", "scale"))
name = Path.cwd().name
words = "make setup (minutes, once), then make reproduce (a verdict); README.md says more"
print(f"{name}/ is made. In it: {words}", file=sys.stderr)  # `cruft diff` prints a patch
