"""`python -m repro migrate`: an author's imports of the kit follow its modules."""

import ast
import importlib
import subprocess
from pathlib import Path

import pytest
from conftest import BEFORE_THE_PACKAGES, ROOT, TEMPLATE
from repro.core.migrate import migrate, rewrite
from repro.core.moved import GONE, MODULES, NAMES

# The last commit with archive and crate among the results.
BEFORE_PUBLISHING = "45cfe7f99a57343ce1a947de94f1a5133f267d3d"

CASES = {
    "a name in its module's new place": (
        "from repro.hashing import derive_seed\n",
        "from repro.core.hashing import derive_seed\n",
    ),
    "names that went to two modules, with a comment behind": (
        "from repro.checkpoint import load, restore  # mine\n",
        "from repro.training.checkpoint import load\n"
        "from repro.training.model_state import restore  # mine\n",
    ),
    "a name that is called otherwise now keeps its name in the file": (
        "from repro.results import settings\nsettings(root)\n",
        "from repro.core.project import tool_settings as settings\nsettings(root)\n",
    ),
    "a name under another one": (
        "from repro.command import UserError as Fault, Parser\n",
        "from repro.core.errors import UserError as Fault\nfrom repro.core.command import Parser\n",
    ),
    "modules, and what is used of them": (
        "def f(p):\n"
        "    from repro import checkpoint, sampling\n"
        "    checkpoint.restore(checkpoint.load(p)); sampling.split_indices\n",
        "def f(p):\n"
        "    from repro.training import checkpoint, sampling\n"
        "    from repro.training import model_state\n"
        "    model_state.restore(checkpoint.load(p)); sampling.split_indices\n",
    ),
    "a module with another name today": (
        "from repro import lines\nlines.read_lines(path)\n",
        "from repro.runs import logs as lines\nlines.read_lines(path)\n",
    ),
    "the environment keeps its functions": (
        "from repro import environment\nenvironment.enter('native')\n",
        "from repro import environment\nenvironment.enter('native')\n",
    ),
    "a dotted path": (
        "import repro.seeding\nrepro.seeding.set_seed(1)\n",
        "import repro.training.seeding\nrepro.training.seeding.set_seed(1)\n",
    ),
    "several lines in parentheses": (
        "from repro.manifest import (\n    write_json,\n    tree_digests,\n)\ny = 'äöü'\n",
        "from repro.core.files import write_json\n"
        "from repro.data.manifest import tree_digests\ny = 'äöü'\n",
    ),
    "a package that has an old module's name": (
        "from repro.results import record\nfrom repro.results import read_claims\n",
        "from repro.results import record\nfrom repro.results.claims import read_claims\n",
    ),
    "text in strings and comments stays": (
        '"""from repro.lines import METRICS"""  # repro.lines\r\nx = 1\r\n',
        '"""from repro.lines import METRICS"""  # repro.lines\r\nx = 1\r\n',
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_imports_of_the_kit_are_rewritten_and_nothing_else(name: str) -> None:
    before, after = CASES[name]
    rewritten, left = rewrite(before.encode())
    assert rewritten.decode() == after
    assert not left
    assert rewrite(rewritten) == (rewritten, [])  # a second time changes nothing


def test_what_is_gone_is_named_with_its_line() -> None:
    _, left = rewrite(b"import math\nfrom repro.record import Energy\n")
    assert left[0][0] == 2
    assert "repro.record.Energy is gone" in left[0][1]


def test_a_project_is_rewritten_file_by_file(tmp_path: Path) -> None:
    files = {
        "experiment/mine.py": "from repro.lines import METRICS\n",
        "tests/test_mine.py": "from repro.command import UserError\n",
        "experiment/broken.py": "def\n",
        "notes.py": "from repro.lines import METRICS\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    result = migrate(tmp_path)
    assert [path.name for path in result.changed] == ["mine.py", "test_mine.py"]
    assert result.left[0].startswith("experiment/broken.py:1: ")
    assert (tmp_path / "notes.py").read_text() == files["notes.py"]
    assert migrate(tmp_path).changed == []


@pytest.mark.parametrize("old", [*MODULES, *NAMES])
def test_the_table_names_what_is_there(old: str) -> None:
    if old in MODULES:
        assert importlib.import_module(MODULES[old])
    else:
        module, _, name = NAMES[old].rpartition(".")
        assert hasattr(importlib.import_module(module), name)
    assert old not in GONE


def names_before(module: str) -> set[str]:
    """The public names that a module of the kit had before the packages."""
    path = f"{TEMPLATE.name}/{module.replace('.', '/')}.py"
    commit = BEFORE_PUBLISHING if module.startswith("repro.results.") else BEFORE_THE_PACKAGES
    command = ["git", "-C", str(ROOT), "show", f"{commit}:{path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}: git fetch --unshallow brings the history"
    names: set[str] = set()
    for node in ast.parse(done.stdout).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            targets = [part for target in node.targets for part in ast.walk(target)]
            names |= {part.id for part in targets if isinstance(part, ast.Name)}
    return {name for name in names if name[0] != "_"}


@pytest.mark.parametrize("old", MODULES)
def test_each_name_of_the_kit_before_has_its_place_or_is_said_to_be_gone(old: str) -> None:
    for name in names_before(old):
        full = f"{old}.{name}"
        module, _, today = NAMES.get(full, f"{MODULES[old]}.{name}").rpartition(".")
        assert full in GONE or hasattr(importlib.import_module(module), today), full
