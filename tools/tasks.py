"""Write the placeholders of the tasks' files: make tasks

A task's own files lie in templates/tasks/TASK/, as they stand in a project: experiment/, configs/,
results/. In the project's folder of the template stands a placeholder for each of them, which the
local extension replaces by the file (local_extensions.py). Its name says which tasks have the file:
cookiecutter leaves out a file whose name comes out empty. So a project is the same without hooks,
by replay, from a zip file and with cruft. A test compares (tests/unit/test_tasks.py).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TASKS = ROOT / "templates" / "tasks"
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
CLAIM = "CLAIM"  # in names of results: the claim of the task
NAMED = "cookiecutter.__claim"
TEXT = "{{ task_file('"  # how a placeholder begins


def placeholders() -> dict[str, str | Path]:
    """Return the placeholders by their names below the project's folder.

    Each is a text, or the file itself where that is no text.
    """
    tasks = sorted(path.name for path in TASKS.iterdir())
    owners: dict[str, list[str]] = {}
    for task in tasks:
        for path in sorted((TASKS / task).rglob("*")):
            name = path.relative_to(TASKS / task).as_posix()
            if path.is_file() and not is_included(name):
                owners.setdefault(name, []).append(task)
    found: dict[str, str | Path] = {}
    for name, having in owners.items():
        folder, _, last = name.rpartition("/")
        quoted = f"'{last}'".replace(f"'{CLAIM}", f"{NAMED} ~ '")
        shown = f"{{{{ only({quoted}, {listed(having)}) }}}}"
        folder = folder.replace(CLAIM, f"{{{{ {NAMED} }}}}")
        source = TASKS / having[0] / name
        text = f"{TEXT}{name}') }}}}\n"
        found[f"{folder}/{shown}"] = text if is_text(source) else source
    return found


def is_included(name: str) -> bool:
    """Tell whether a file is a part of another one: Jinja includes it."""
    return name.endswith(".md") or name.startswith(".")


def listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)


def is_text(path: Path) -> bool:
    return path.suffix != ".png"


def written() -> dict[str, Path]:
    """Return the placeholders that stand in the project's folder, by their names."""
    found = {}
    for path in sorted(TEMPLATE.rglob("*")):
        name = path.relative_to(TEMPLATE).as_posix()
        parts = ("experiment/", "configs/", "results/")
        if (
            path.is_file()
            and name.startswith(parts)
            and (
                ("only(" in path.name and "'many'" not in path.name)
                or path.read_bytes().startswith(TEXT.encode())
            )
        ):
            found[name] = path
    return found


def main() -> int:
    wanted = placeholders()
    for name, path in written().items():
        if name not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = TEMPLATE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            shutil.copyfile(content, path)
    print(f"{len(wanted)} placeholders of the tasks' files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
