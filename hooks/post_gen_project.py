"""Leave only the chosen tracker's files in a new project.

cookiecutter cannot leave out a file that it copies as it stands, as it does with all Python files.
This runs in the new project's folder, offline, asks nothing, and writes nothing.
"""

import re
from pathlib import Path

chosen = re.findall(r"(?m)^  - tracker: (\w+)$", Path("configs/config.yaml").read_text("utf-8"))
for config in Path("configs/tracker").glob("*.yaml"):
    if config.stem not in ("none", *chosen):
        config.unlink()
        Path("repro", "tracking", config.stem + ".py").unlink()
if chosen == ["none"]:
    for name in ("mirror.py", "__main__.py"):
        Path("repro", "tracking", name).unlink()
