"""The house rules of the Python that an author reads: who imports whom, and how long is too long.

ruff holds the rules that it has (complexity, in P's pyproject.toml); the others are held here, by
reading the source. Tables say what is allowed, so that a new arrow is a change of a table.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, TASKS, TEMPLATE

KIT = TEMPLATE / "repro"
READ = [
    *sorted(KIT.rglob("*.py")),
    *sorted((TEMPLATE / "experiment").glob("*.py")),
    *sorted(TASKS.glob("*/experiment/*.py")),
]
OURS = [
    TEMPLATE / "bootstrap.py",
    ROOT / "local_extensions.py",
    *sorted((ROOT / "tools").glob("*.py")),
    *sorted((ROOT / "hooks").glob("*.py")),
]

# From the bottom up: a package of the kit may import those of the floors below it, and no other.
FLOORS = [
    {"core"},
    {"environment", "data", "training"},
    {"runs"},
    {"tracking", "diagnosis"},
    {"results"},
    {"publishing"},
    {"tasks"},
    {"commands"},
    {"__main__"},
]
LONGEST_FUNCTION = 40  # lines, its docstring not counted
LONGEST_MODULE = 300  # lines
# It has to be one file: started with -I it finds no module beside it, and nothing is installed yet.
LONGEST_BOOTSTRAP = 420
MOST_UNTYPED = 40  # mappings from names to anything, in all that an author reads
UNTYPED = {
    f"{mapping}[str, {value}]"
    for mapping in ("dict", "Dict", "Mapping", "MutableMapping")
    for value in ("Any", "object")
}


def named(path: Path) -> str:
    return path.relative_to(TEMPLATE if TEMPLATE in path.parents else ROOT).as_posix()


def package_of(path: Path) -> str:
    """The package of a kit's file; `__main__` and `__init__` for those that lie in none."""
    first = path.relative_to(KIT).parts[0]
    return first.removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of what is imported anywhere in a file, through import_module too."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module, names):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.Call(function, [ast.Constant(str(name)), *_]):
                if ast.unparse(function).endswith("import_module"):
                    yield name


def arrows() -> Iterator[tuple[str, str, str]]:
    """File, its package, and each package of the kit that it imports."""
    packages = set().union(*FLOORS)
    for path in sorted(KIT.rglob("*.py")):
        for name in imported(ast.parse(path.read_text())):
            first, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if first == "repro" and target in packages and target != package_of(path):
                yield named(path), package_of(path), target


def test_every_package_of_the_kit_has_its_floor() -> None:
    folders = {path.name for path in KIT.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders | {"commands", "__main__"} == set().union(*FLOORS)


def test_imports_of_the_kit_go_one_way() -> None:
    floor_of = {package: number for number, floor in enumerate(FLOORS) for package in floor}
    upward = [
        f"{file}: {package} imports {target}"
        for file, package, target in arrows()
        if floor_of[target] >= floor_of.get(package, 1)  # __init__: before all others but core
    ]
    assert not upward


def test_the_kit_imports_nothing_of_the_authors() -> None:
    for path in KIT.rglob("*.py"):
        names = {name.partition(".")[0] for name in imported(ast.parse(path.read_text()))}
        assert "experiment" not in names, path


def test_the_kit_draws_and_reads_no_images() -> None:
    """A project of tables or texts runs without these packages; the image task imports them."""
    images = {"matplotlib", "PIL", "torchvision"}
    for path in KIT.rglob("*.py"):
        names = {name.partition(".")[0] for name in imported(ast.parse(path.read_text()))}
        assert not names & images, path


@pytest.mark.parametrize("package", ["core", "environment"])
def test_the_lowest_packages_import_the_standard_library_alone(package: str) -> None:
    """The doctor and the question for the base image's digest run without an environment."""
    program = (
        "import sys; before = {*sys.modules}\n"
        f"sys.path.insert(0, {str(TEMPLATE)!r}); import repro.{package}\n"
        "print(*{name.partition('.')[0] for name in {*sys.modules} - before})"
    )
    found = subprocess.check_output([sys.executable, "-I", "-B", "-c", program], text=True).split()
    assert {name for name in found if name not in sys.stdlib_module_names} == {"repro"}


def test_no_module_lets_python_resolve_a_path_that_may_lead_back_to_itself() -> None:
    """Path.resolve raises a RuntimeError then, which looks like a bug of the kit."""
    ours = {"Path(__file__)", "Path(str(torch.__file__))"}
    for path in KIT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "resolve":
                assert ast.unparse(node.value) in ours, f"{named(path)}: special_files.resolved"


def test_one_module_asks_which_machine_this_is() -> None:
    """So that a test can stand for another machine there, and for nothing less than all of it."""
    asked = {"sys.platform", "platform.machine", "platform.system", "platform.uname", "os.uname"}
    asking = set()
    for path in KIT.rglob("*.py"):
        tree = ast.parse(path.read_text())
        read = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        if asked & {*read, *imported(tree)}:
            asking.add(named(path))
    assert asking == {"repro/core/machines.py"}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without those of the docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


@pytest.mark.parametrize("path", [*READ, *OURS], ids=named)
def test_no_function_and_no_module_is_too_long(path: Path) -> None:
    text = path.read_text()
    too_long = {
        function.name: length(function)
        for function in functions(ast.parse(text))
        if length(function) > LONGEST_FUNCTION
    }
    assert not too_long
    longest = LONGEST_BOOTSTRAP if path.name == "bootstrap.py" else LONGEST_MODULE
    assert len(text.splitlines()) <= longest


def untyped(tree: ast.Module) -> int:
    """How often a file says a mapping from names to anything, by itself or by an alias."""
    aliases = {
        ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and node.value is not None
        and (ast.unparse(node.value) in UNTYPED or ast.unparse(node.value).strip("'") in UNTYPED)
    }
    texts = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript | ast.Name | ast.Constant)
    ]
    return sum(text in UNTYPED or text in aliases or text.strip("'\"") in UNTYPED for text in texts)


def test_what_has_known_keys_has_a_type() -> None:
    counts = {named(path): untyped(ast.parse(path.read_text())) for path in READ}
    assert sum(counts.values()) <= MOST_UNTYPED, {k: v for k, v in counts.items() if v}


def test_each_public_name_of_a_function_or_class_has_one_meaning() -> None:
    """`main` of the commands, and methods that trackers share, are names of a contract."""
    places: dict[str, list[str]] = {}
    for path in sorted(KIT.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                places.setdefault(node.name, []).append(named(path))
    contract = {"main", "Adapter"}
    contract |= {"save", "load", "find_fault"}  # of checkpoints: training/scale/parts.py has them
    assert {k: v for k, v in places.items() if len(v) > 1 and k not in contract} == {}


def test_the_kit_knows_no_task() -> None:
    """What is measured, and of what, is user code; the table of old names alone tells of it."""
    known = re.compile(r"(?i)\b(accuracy|confusion|classifier|torchvision|PIL)\b")
    for path in KIT.rglob("*.py"):
        if path.name != "moved.py":
            assert not {match[0] for match in known.finditer(path.read_text())}, path


def test_each_file_of_tests_has_a_name_of_its_own() -> None:
    """Pytest takes the second of one name for the first, and its tests are not run."""
    names = [path.name for path in (ROOT / "tests").glob("*/test_*.py")]
    assert sorted(names) == sorted(set(names))
