"""Seeds by mistake: what the static check finds in source, and what it leaves in peace."""

from pathlib import Path

import pytest
from conftest import TEMPLATE
from repro.core.errors import UserError
from repro.diagnosis.unseeded import RULES, find_unseeded

IMPORTS = """\
import datetime, glob, os, random, secrets, time, uuid
import numpy as np
import torch, torch.nn as nn
from pathlib import Path
"""


def check(tmp_path: Path, code: str, imports: str = IMPORTS) -> list[tuple[int, str, str]]:
    """Line (after the imports), rule and text of what is found in `code`."""
    (tmp_path / "code").mkdir(exist_ok=True)
    (tmp_path / "code" / "code.py").write_text(imports + code)
    before = imports.count("\n")
    findings = find_unseeded(tmp_path, ["code"])
    return [(finding.line - before, finding.rule, finding.found) for finding in findings]


HITS = [
    ("import-time-draw", "x = random.random()", 1),
    ("import-time-draw", "from numpy import random as npr\nx = npr.rand(3)", 2),
    ("import-time-draw", "from torch import rand\n\nx = [rand(1) for _ in 'ab']", 3),
    ("import-time-draw", "if True:\n    x = torch.randperm(10)", 2),
    ("import-time-draw", "class A:\n    noise = np.random.normal(0, 1)", 2),
    ("import-time-draw", "def f(\n    x=torch.randn(3),\n):\n    pass", 2),
    ("import-time-draw", "class A:\n    def f(self, *, x=random.choice('ab')): pass", 2),
    ("import-time-draw", "@register(random.random())\ndef f(): pass", 1),
    ("import-time-draw", "f = lambda x=random.random(): x", 1),
    ("import-time-draw", "x = torch.empty(3).uniform_()", 1),
    ("import-time-draw", "nn.init.xavier_normal_(w)", 1),
    ("import-time-draw", "HEAD = nn.Linear(2, 2)", 1),
    ("unseeded-generator", "def f():\n    return np.random.default_rng()", 2),
    ("unseeded-generator", "rng = np.random.default_rng(None)", 1),
    ("unseeded-generator", "rng = np.random.RandomState(seed=None)", 1),
    ("unseeded-generator", "rng = np.random.Generator(np.random.PCG64())", 1),
    ("unseeded-generator", "s = np.random.SeedSequence()", 1),
    ("unseeded-generator", "rng = random.Random()", 1),
    (
        "unseeded-generator",
        "class A:\n    def f(self):\n        self.g = torch.Generator()\n        self.g.seed()",
        3,
    ),
    ("unseeded-generator", "rng = random.SystemRandom()", 1),
    ("unseeded-generator", "def f():\n    random.seed()", 2),
    ("unseeded-generator", "np.random.seed(None)", 1),
    ("unseeded-generator", "torch.seed()", 1),
    ("unseeded-generator", "x = secrets.randbelow(10)", 1),
    ("unseeded-generator", "x = os.urandom(8)", 1),
    ("unseeded-generator", "from uuid import uuid4\nname = str(uuid4())", 2),
    ("unseeded-generator", "name = field(default_factory=uuid.uuid4)", 1),
    ("unseeded-generator", "def f():\n    g = torch.Generator(device='cuda')\n    use(g)", 2),
    ("unseeded-generator", "def f(g=torch.Generator().manual_seed(1)):\n    torch.Generator()", 2),
    (
        "unseeded-generator",
        "def f():\n    g = torch.Generator()\ndef h(g):\n    g.manual_seed(1)",
        2,
    ),
    ("unseeded-generator", "def f():\n    g = torch.Generator()\n    g.seed()", 3),
    ("time-as-seed", "torch.manual_seed(int(time.time()))", 1),
    ("time-as-seed", "from time import time as now\nrandom.seed(now())", 2),
    ("time-as-seed", "def f():\n    s = int(time.time())\n    torch.manual_seed(s)", 2),
    ("time-as-seed", "t = datetime.datetime.now()\nnp.random.seed(int(t.timestamp()))", 1),
    ("time-as-seed", "s: int = os.getpid()\nnp.random.default_rng(s)", 1),
    ("time-as-seed", "from datetime import datetime\nset_seed(datetime.utcnow().second)", 2),
    ("time-as-seed", "rng = np.random.default_rng([7, os.getpid()])", 1),
    ("time-as-seed", "rng = random.Random(hash('train'))", 1),
    ("time-as-seed", "class A:\n    def f(self):\n        return derive_seed(1, id(self))", 3),
    ("time-as-seed", "model = fit(x, random_state=time.time_ns())", 1),
    ("time-as-seed", "split(data_seed=hash(name))", 1),
    ("time-as-seed", "self.seed = uuid.getnode()", 1),
    ("time-as-seed", "def f(*, x, seed=int(time.time())): pass", 1),
    ("time-as-seed", "def f(x, seed=int(time.time()), y=1): pass", 1),
    ("time-as-seed", "class A:\n    seed: int = Field(default_factory=lambda: time.time_ns())", 2),
    ("time-as-seed", "class A:\n    time = 1\n    def f(self): random.seed(time.time())", 3),
    ("time-as-seed", "def f():\n    def g(time): pass\n    random.seed(time.time())", 3),
    ("set-order", "for x in {'a', 'b'}: pass", 1),
    ("set-order", "classes = list(set(labels))", 1),
    ("set-order", "classes = set(labels)\nindex = {c: i for i, c in enumerate(classes)}", 2),
    ("set-order", "CLASSES = {'a', 'b'}\ndef f():\n    return [c for c in CLASSES]", 3),
    ("set-order", "x = ' '.join({n for n in names})", 1),
    ("set-order", "x = next(iter(frozenset(names)))", 1),
    ("set-order", "for a, b in zip(range(9), set(names) | more): pass", 1),
    ("set-order", "seen: set[str] = set()\nseen |= more\nfor x in seen: pass", 3),
    ("set-order", "names = set(a)\nnames = names | b\nfor x in names.union(c): pass", 3),
    ("set-order", "for x in a.keys() & b.keys(): pass", 1),
    ("set-order", "def f(names: set[str]):\n    return [*names]", 2),
    ("set-order", "def f(names: set[str] | None):\n    yield from names", 2),
    ("set-order", "x = sorted(enumerate(set(names)))", 1),
    ("listing-order", "for name in os.listdir('.'): print(name)", 1),
    ("listing-order", "import os.path\nnames = os.listdir('.')", 2),
    ("listing-order", "files = glob.glob('*.png')", 1),
    ("listing-order", "from glob import iglob\nfiles = list(iglob('*.png'))", 2),
    ("listing-order", "for p in Path('.').iterdir():\n    use(p)", 1),
    ("listing-order", "paths = [p for p in root.rglob('*') if p.is_file()]", 1),
    (
        "listing-order",
        "for folder, _, files in os.walk('.'):\n    for f in sorted(files): use(f)",
        1,
    ),
    ("listing-order", "def f():\n    x = os.listdir('.')\ndef g(x):\n    x.sort()", 2),
    (
        "listing-order",
        "a = []\nb = []\nfor p in root.glob('*'):\n    a.append(p)\n    b.append(p)\na.sort()",
        3,
    ),
    ("listing-order", "first = next(os.scandir('.'))", 1),
    ("listing-order", "x = glob.glob(a) + sorted(glob.glob(b))", 1),
    ("listing-order", "files = []\nfiles.extend(os.listdir(d))", 2),
    ("import-time-draw", "x = nn.MultiheadAttention(8, 2)", 1),
    ("default-dtype", "torch.set_default_dtype(torch.float64)", 1),
    ("default-dtype", "def f():\n    torch.set_float32_matmul_precision('high')", 2),
    ("default-dtype", "torch.use_deterministic_algorithms(False)", 1),
    ("default-dtype", "torch.backends.cudnn.benchmark = True", 1),
    ("default-dtype", "from torch.backends import cudnn\ncudnn.allow_tf32, x = True, 1", 2),
    ("default-dtype", "torch.backends.cuda.enable_flash_sdp(True)", 1),
    ("environment-read", "home = os.environ['DATA']", 1),
    ("environment-read", "rate = float(os.environ.get('RATE', 1))", 1),
    ("environment-read", "from os import getenv as env\n\nrate = env('RATE')", 3),
    ("environment-read", "from os import environ\ndebug = 'DEBUG' in environ", 2),
    ("environment-read", "def f(name):\n    return os.environ[name]", 2),
    ("ignore-comment", "x = random.random()  # repro: ignore[import-time-draw]", 1),
    ("ignore-comment", "x = 1  # repro: ignore[no-such-rule] because", 1),
    ("ignore-comment", "x = 1  # repro: ignore because", 1),
    ("syntax", "def f(:\n    pass", 1),
]

NEAR_MISSES = [
    ("listing-order", "files = sorted(glob.glob(a) + glob.glob(b))"),
    ("listing-order", "x = sorted(list(r.glob('*.jpg')) + list(r.glob('*.png')))"),
    ("listing-order", "from itertools import chain\nx = sorted(chain(r.glob(a), r.glob(b)))"),
    ("listing-order", "files = glob.glob(a) + glob.glob(b)\nfiles.sort()"),
    ("listing-order", "files = []\nfiles.extend(os.listdir(d))\nfiles.sort()"),
    (
        "unseeded-generator",
        "def f(d):\n    g = torch.Generator(d) if d else torch.Generator()\n    g.manual_seed(1)",
    ),
    ("import-time-draw", "def f():\n    return random.random()"),
    ("import-time-draw", "class A:\n    def f(self): return torch.rand(3)"),
    ("import-time-draw", "f = lambda: np.random.rand()"),
    ("import-time-draw", "def f():\n    def g(x=random.random()): 1\n    class A: x = t.normal_()"),
    ("import-time-draw", "g = torch.Generator().manual_seed(1)\nx = torch.randn(3, generator=g)"),
    ("import-time-draw", "x = np.random.default_rng(3).normal()\nrandom.seed(3)"),
    ("import-time-draw", "if __name__ == '__main__':\n    print(random.random())"),
    ("import-time-draw", "x = torch.zeros(3)\ny = nn.ReLU()\nz = nn.Linear"),
    ("import-time-draw", "from mine import random\nx = random.random()"),
    ("unseeded-generator", "rng = np.random.default_rng(0)\ns = np.random.SeedSequence(entropy=1)"),
    ("unseeded-generator", "def f(seed, **kw):\n    random.seed(seed)\n    random.Random(**kw)"),
    ("unseeded-generator", "g = torch.Generator(device='cpu').manual_seed(1)"),
    ("unseeded-generator", "def f():\n    g = torch.Generator()\n    g.manual_seed(1)"),
    ("unseeded-generator", "def f():\n    rng = random.Random()\n    rng.seed(1)"),
    (
        "unseeded-generator",
        "class A:\n    def f(self):\n        self.g = torch.Generator()\n"
        "    def h(self):\n        self.g.manual_seed(1)",
    ),
    ("unseeded-generator", "def f(g: torch.Generator, env): env.seed()"),
    ("unseeded-generator", "x = uuid.uuid5(space, 'a')\nsecrets.compare_digest(a, b)"),
    ("time-as-seed", "start = time.time()\ntorch.manual_seed(config.seed)"),
    ("time-as-seed", "seeds = [1, 2]\nx = hash(seeds[0])\nprint(id(x), os.getpid())"),
    ("time-as-seed", "def f(hash):\n    torch.manual_seed(hash('a'))"),
    ("time-as-seed", "def f():\n    s = time.time()\ndef g():\n    torch.manual_seed(s)"),
    ("time-as-seed", "def f(times):\n    for time in times: torch.manual_seed(time.time())"),
    ("time-as-seed", "def f(seed, started=time.time()): pass"),
    ("set-order", "for x in sorted({'a', 'b'}): pass"),
    ("set-order", "s = set(names)\nx = 'a' in s, len(s), min(s), max(s), any(s), all(s), sum(s)"),
    ("set-order", "s = set(names)\nx = sorted(list(s)), sorted([*s, 1]), sorted(n[1:] for n in s)"),
    ("set-order", "s = set(names)\nx = {n[1:] for n in s}, {*s, 'a'}, set(list(s))"),
    ("set-order", "for x in {1, 2}: pass"),
    ("set-order", "for x in {'a': 1}: pass"),
    ("set-order", "s = set(names)\ns = sorted(s)\nfor x in s: pass"),
    ("set-order", "s = set(names)\ndef f(s):\n    for x in s: pass"),
    ("set-order", "s = set(names)\nfound = []\nfor x in s:\n    found.append(x)\nfound.sort()"),
    ("set-order", "s = set()\nfor x in {'a'} | more:\n    s.add(x)"),
    ("set-order", "from mine import set\nfor x in set(a): pass"),
    ("set-order", "total = a | b\nfor x in a - b: pass"),
    ("listing-order", "for name in sorted(os.listdir('.')): print(name)"),
    ("listing-order", "files = sorted(p.name for p in root.glob('*') if p.is_file())"),
    ("listing-order", "files = sorted(map(str, list(root.rglob('*'))))"),
    ("listing-order", "files = os.listdir('.')\nfiles.sort()"),
    ("listing-order", "self.files = [p for p in root.iterdir()]\nself.files = sorted(self.files)"),
    ("listing-order", "n = len(list(root.glob('*'))), sum(1 for _ in root.glob('*'))"),
    ("listing-order", "x = any(root.iterdir()) or 'a' in os.listdir('.'), set(os.listdir('.'))"),
    ("listing-order", "if not os.listdir('.'): pass\nx = {p.name for p in root.glob('*')}"),
    ("listing-order", "files = []\nfor p in root.glob('*'): files.append(p)\nuse(sorted(files))"),
    ("listing-order", "for top, below, names in os.walk('.'):\n    below.sort()\n    use(names)"),
    ("listing-order", "import ast\nast.walk(x)\nnewest = max(root.glob('*'), key=str)"),
    ("default-dtype", "x = torch.zeros(3, dtype=torch.float64)\ny = torch.get_default_dtype()"),
    ("default-dtype", "x = torch.backends.cudnn.benchmark, torch.backends.mps.is_available()"),
    ("default-dtype", "from mine import torch\ntorch.set_default_dtype(1)\ntorch.backends.x = 1"),
    ("environment-read", "rank = int(os.environ.get('LOCAL_RANK', 0)), os.environ['RANK']"),
    ("environment-read", "start(env={**os.environ, 'A': '1'})\nos.environ['A'] = '1'"),
    ("environment-read", "def f(environ): return environ['A']"),
    ("ignore-comment", "x = torch.rand(1)  # noqa  # repro: ignore[import-time-draw] an example"),
    ("ignore-comment", "x = '# repro: ignore'  # they ignore[it]"),
    ("ignore-comment", "f(\n    os.urandom(\n1\n),  # repro: ignore[unseeded-generator] salt\n)"),
    ("syntax", "x = '\\d'\nprint('é')"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "code", "line"), HITS)
def test_what_is_not_seeded_is_found(tmp_path: Path, rule: str, code: str, line: int) -> None:
    assert [found[:2] for found in check(tmp_path, code)] == [(line, rule)]


@pytest.mark.parametrize(("rule", "code"), NEAR_MISSES)
def test_what_comes_near_is_left_in_peace(tmp_path: Path, rule: str, code: str) -> None:
    assert check(tmp_path, code) == []


def test_every_rule_has_both_kinds_of_case() -> None:
    assert {rule for rule, *_ in HITS} == {rule for rule, *_ in NEAR_MISSES} == RULES.keys()


def test_a_finding_names_place_text_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "code" / "deep").mkdir(parents=True)
    (tmp_path / "code" / ".hidden").mkdir()
    (tmp_path / "more").mkdir()
    code = "import numpy as np\n\nrng = np.random.default_rng()\n"
    for name in ("code/deep/b.py", "code/a.py", "code/.hidden/c.py", "code/d.txt", "more/e.py"):
        (tmp_path / name).write_text(code)
    findings = find_unseeded(tmp_path, ["code", "more"])
    assert [finding.path for finding in findings] == ["code/a.py", "code/deep/b.py", "more/e.py"]
    assert {(f.line, f.rule, f.found, f.remedy) for f in findings} == {
        (3, "unseeded-generator", "np.random.default_rng()", RULES["unseeded-generator"])
    }
    with pytest.raises(UserError, match="nowhere: no such folder"):
        find_unseeded(tmp_path, ["code", "nowhere"])


def test_a_reason_silences_its_own_rule_and_line_alone(tmp_path: Path) -> None:
    both = "x = random.Random(), random.random()"
    assert [rule for _, rule, _ in check(tmp_path, both)] == [
        "import-time-draw",
        "unseeded-generator",
    ]
    comment = "  # repro: ignore[import-time-draw] an example"
    assert [rule for _, rule, _ in check(tmp_path, both + comment)] == ["unseeded-generator"]
    two = comment.replace("-draw", "-draw, unseeded-generator")
    assert check(tmp_path, both + two) == []
    assert len(check(tmp_path, f"x = 1{comment}\n{both}\nx = 1{comment}")) == 2


@pytest.mark.parametrize(
    "source", [b"x = '\0'", b"\xff = 1", b"# coding: none\n", b"-" * 10**6 + b"1"]
)
def test_what_cannot_be_parsed_is_a_finding(tmp_path: Path, source: bytes) -> None:
    (tmp_path / "code.py").write_bytes(source)
    (finding,) = find_unseeded(tmp_path, ["."])
    assert finding.rule == "syntax"


def test_the_authors_code_of_a_new_project_has_no_finding() -> None:
    assert find_unseeded(TEMPLATE, ["experiment"]) == []


def test_the_kit_itself_draws_nothing_at_import_and_seeds_from_no_clock() -> None:
    """What it does have is its job: switches, variables that a run's record shows, the name of a
    tracked run, which a process beside the training draws, the name under which the processes of a
    start meet, and the places that verify looks at,
    which nobody shall know before.
    """
    findings = find_unseeded(TEMPLATE, ["repro"])
    known = ("repro/tracking/", "repro/results/verify.py", "repro/training/joining.py")
    rules = {f.rule for f in findings if not f.path.startswith(known)}
    assert not rules & {"import-time-draw", "unseeded-generator", "time-as-seed", "syntax"}
