"""Leave only the chosen tracker's files in a new project, and say what comes next.

cookiecutter cannot leave out a file that it copies as it stands, as it does with all Python files.
This runs in the new project's folder, offline, asks nothing, and writes no file.
"""

import re
import sys
from pathlib import Path

chosen = re.findall(r"(?m)^  - tracker: (\w+)$", Path("configs/config.yaml").read_text("utf-8"))
for config in Path("configs/tracker").glob("*.yaml"):
    if config.stem not in ("none", *chosen):
        config.unlink()
        Path("repro", "tracking", config.stem + ".py").unlink()
if chosen == ["none"]:
    for name in ("mirror.py", "__main__.py"):
        Path("repro", "tracking", name).unlink()
name = Path.cwd().name
words = "make setup (minutes, once), then make reproduce (a verdict); README.md says more"
print(f"{name}/ is made. In it: {words}", file=sys.stderr)  # `cruft diff` prints a patch
