"""Randomness that the kit does not seed, found in the author's source without running it.

Promises to find what `RULES` names where the file's own text shows it: names are followed through
imports and one assignment. Does not see into libraries, nor what comes out of a function, an
attribute or another file, nor a seed passed on by a parameter. Draws inside functions are no fault:
training seeds the global generators for every step and sample. `# repro: ignore[rule] reason`
behind a place silences a rule there.
"""

import ast
import io
import tokenize
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.core.errors import UserError
from repro.diagnosis.names import Names, Scope, nodes_of, receivers

RULES = {  # and their remedies
    "import-time-draw": "draw inside a function: at import nothing is seeded yet",
    "unseeded-generator": "seed it from the config: derive_seed(seed, 'purpose', ...)",
    "time-as-seed": "take the seed from the config: this is another number in every process",
    "set-order": "iterate over sorted(...): a set has no order of its own",
    "listing-order": "put sorted(...) around it: the order is the file system's",
    "default-dtype": "leave it to the config and the kit: it switches the whole process",
    "environment-read": "make it a setting of the config: no record of a run shows it",
    "ignore-comment": "write # repro: ignore[rule] and the reason why it does no harm",
    "syntax": "mend it: nothing in this file was checked",
}

# What torchrun tells each process; the bits do not depend on it (repro/training/parallel.py).
PROCESS_VARIABLES = {"RANK", "LOCAL_RANK", "WORLD_SIZE"}


def _words(text: str) -> set[str]:
    return set(text.split())


def _names(module: str, names: str) -> set[str]:
    return {f"{module}.{name}" for name in names.split()}


_NO_DRAW = _words("seed default_rng getstate setstate get_state set_state")
_DRAWS = _names("torch", "rand randn randint randperm rand_like randn_like randint_like normal")
_DRAWS |= _names("torch", "bernoulli multinomial poisson utils.data.random_split")
_DRAWING_METHODS = _words(
    """uniform_ normal_ random_ bernoulli_ exponential_ cauchy_ geometric_ log_normal_ orthogonal_
    sparse_ trunc_normal_ xavier_uniform_ xavier_normal_ kaiming_uniform_ kaiming_normal_"""
)
_DRAWING_LAYERS = "Linear Bilinear Conv Embedding LSTM GRU RNN Transformer MultiheadAttention"
# Unseeded, torch.Generator starts at 67280421310721, whatever the config's seed is; the others
# start at a number of the operating system's.
_GENERATORS = {"torch.Generator", "random.Random", "numpy.random.RandomState"}
_BY_ARGUMENT = _names("random", "Random seed") | _names(
    "numpy.random", "default_rng RandomState SeedSequence seed MT19937 PCG64 PCG64DXSM Philox SFC64"
)
_SEEDING = ("manual_seed", "seed", "set_state", "setstate")  # methods of generators
_SEEDERS = _words("seed manual_seed manual_seed_all set_seed derive_seed seed_generators")
_SEEDERS |= {"seed_everything"}
_FROM_SYSTEM = _words("os.urandom os.getrandom uuid.uuid1 uuid.uuid4 random.SystemRandom")
_FROM_SYSTEM |= _names("torch", "seed random.seed cuda.seed cuda.seed_all default_generator.seed")
_FROM_SYSTEM |= _names("secrets", "SystemRandom choice randbelow randbits")
_FROM_SYSTEM |= _names("secrets", "token_bytes token_hex token_urlsafe")
_PER_PROCESS = _words("os.getpid os.getppid uuid.getnode builtins.id builtins.hash")
_PER_PROCESS |= _names("datetime", "datetime.now datetime.utcnow datetime.today date.today")
_LISTINGS = _names("os", "listdir scandir walk fwalk") | _names("glob", "glob iglob")
_LISTING_METHODS = {"glob", "rglob", "iterdir"}
_ITERATING = _names("builtins", "list tuple enumerate zip iter map filter dict.fromkeys")
_PASSING_ON = _names("builtins", "list tuple iter map filter reversed")
_PASSING_ON |= _names("itertools", "chain chain.from_iterable islice")
_SORTING = {"builtins.sorted", "numpy.sort", "natsort.natsorted"}
_ORDER_FREE = _SORTING | _names("builtins", "set frozenset len min max sum any all bool")
_SWITCHES = _names(
    "torch",
    """set_default_dtype set_default_device set_default_tensor_type set_float32_matmul_precision
    set_num_threads set_num_interop_threads set_flush_denormal use_deterministic_algorithms
    set_deterministic_debug_mode""",
)


@dataclass(frozen=True, order=True)
class Finding:
    """A place in the source: its path relative to the root, and its text in `found`."""

    path: str
    line: int
    rule: str
    found: str
    remedy: str


def find_unseeded(root: Path, folders: Sequence[str]) -> list[Finding]:
    """What breaks a rule in the Python files below `folders` of `root`, sorted.

    Raises UserError for a folder that is not there: it would look like one without a fault.
    """
    findings = []
    for folder in folders:
        if not (root / folder).is_dir():
            raise UserError(f"{root / folder}: no such folder, so nothing was checked")
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root)
            if path.is_file() and not any(part.startswith(".") for part in name.parts):
                findings += _check(name.as_posix(), path.read_bytes())
    return sorted(findings)


def _check(path: str, source: bytes) -> list[Finding]:
    try:
        with warnings.catch_warnings(action="ignore"):  # the parser's own, of "\d"
            visitor = _Visitor(ast.parse(source))
    except SyntaxError as error:
        return [Finding(path, error.lineno or 1, "syntax", error.msg, RULES["syntax"])]
    except (ValueError, MemoryError, RecursionError) as error:  # null bytes; too deep
        return [Finding(path, 1, "syntax", str(error) or "nested too deep", RULES["syntax"])]
    found: set[tuple[int, str, str]] = set()
    silenced: dict[int, set[str]] = defaultdict(set)
    for line, comment, rules, reason in _ignore_comments(source):
        silenced[line] |= rules
        if not (reason and rules and rules <= RULES.keys()):
            found.add((line, "ignore-comment", comment))
    for rule, node in visitor.found:
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if not any(rule in silenced[line] for line in lines):
            found.add((node.lineno, rule, ast.unparse(node)))
    return [Finding(path, line, rule, text, RULES[rule]) for line, rule, text in sorted(found)]


def _ignore_comments(source: bytes) -> Iterator[tuple[int, str, set[str], str]]:
    """Line, text, rules and reason of each comment that silences."""
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        _, mark, rest = token.string.partition("# repro: ignore")
        if token.type == tokenize.COMMENT and mark:
            rules, _, reason = rest.removeprefix("[").partition("]")
            yield token.start[0], mark + rest, set(rules.replace(",", " ").split()), reason.strip()


def _texts(nodes: Iterable[ast.AST]) -> set[str]:
    """The texts of names and attributes."""
    return {ast.unparse(node) for node in nodes if isinstance(node, ast.Name | ast.Attribute)}


def _seeded(nodes: Iterable[ast.AST]) -> list[ast.expr]:
    """The generators that are given a seed; `.seed()` takes one of the operating system's."""
    given = [node for node in nodes if isinstance(node, ast.Call) and (node.args or node.keywords)]
    return receivers(given, *_SEEDING)


def _is_seed(name: str | None) -> bool:
    return f"_{name}".lower().endswith(("_seed", "_random_state"))


class _Visitor(Names, ast.NodeVisitor):
    """Goes from the outside in: what stands around a place excuses it before it is reached."""

    def __init__(self, tree: ast.Module) -> None:
        super().__init__()
        self.found: set[tuple[str, ast.expr]] = set()
        self.excused: set[ast.AST] = set()
        self.importing = True
        # Texts of what is sorted and of generators that are seeded: names in the function at hand,
        # attributes in the whole file.
        self.sorted: set[str] = set()
        self.seeded: set[str] = set()
        seeded = _texts(_seeded(ast.walk(tree)))
        self.seeded_attributes = {text for text in seeded if "." in text}
        self.visit(tree)

    def visit(self, node: ast.AST) -> None:
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                self.scope(node, node.body)
                return
            case ast.Lambda(_, body):
                self.scope(node, [body])
                return
            case ast.If(test) if ast.unparse(test) == "__name__ == '__main__'":
                importing, self.importing = self.importing, False
                self.generic_visit(node)
                self.importing = importing
                return
            case ast.Call():
                self.call(node)
            case ast.Assign(targets, value):
                self.assign(targets, value)
            case ast.AugAssign(target, _, value) | ast.AnnAssign(target, _, value) if value:
                self.assign([target], value)
            case ast.Attribute(_, _, ast.Store()):
                if self.name(node).startswith("torch.backends."):
                    self.report("default-dtype", node)
            case ast.arguments(positional, arguments, _, named, named_defaults, _, defaults):
                arguments = [*positional, *arguments][-len(defaults) :] if defaults else []
                both = zip(arguments + named, defaults + named_defaults, strict=True)
                for argument, default in both:
                    if default and _is_seed(argument.arg):
                        self.seed_from(default)
            case ast.keyword(name, value) if _is_seed(name):
                self.seed_from(value)
            case ast.For() | ast.AsyncFor():
                self.loop(node)
            case ast.comprehension(_, value) | ast.YieldFrom(value) | ast.Starred(value):
                self.iterate(value)
            case ast.Set() | ast.SetComp():
                self.excuse(node)
            case ast.If(test) | ast.Assert(test) | ast.UnaryOp(ast.Not(), test):
                self.excuse(test)
            case ast.Compare(left, [ast.In() | ast.NotIn()], [container]):
                self.excuse(container)
                if self.name(container) == "os.environ":
                    self.read_variable(node, left)
            case ast.Subscript(of, key, ast.Load()) if self.name(of) == "os.environ":
                self.read_variable(node, key)
            case ast.Attribute() | ast.Name() if self.name(node) in _FROM_SYSTEM:
                self.report("unseeded-generator", node)  # default_factory=uuid.uuid4
        self.generic_visit(node)

    def report(self, rule: str, node: ast.expr) -> None:
        if node not in self.excused:
            self.found.add((rule, node))

    def excuse(self, node: ast.AST) -> None:
        """The order of `node` does not matter, so neither does that of what it passes on."""
        inner: Iterable[ast.AST] = ()
        match node:
            case ast.Call(function, arguments) if self.name(function) in _PASSING_ON:
                inner = arguments
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                inner = [generator.iter for generator in node.generators]
            case ast.BinOp(left, ast.Add(), right) | ast.IfExp(_, left, right):
                inner = [left, right]
            case ast.List(parts) | ast.Tuple(parts) | ast.Set(parts) | ast.BoolOp(_, parts):
                inner = parts
            case ast.Starred(value):
                inner = [value]
        self.excused.add(node)
        for part in inner:
            self.excuse(part)

    def scope(self, node: Scope, body: Sequence[ast.AST]) -> None:
        for child in ast.iter_child_nodes(node):  # decorators, defaults, base classes
            if child not in body:
                self.visit(child)
        outside = self.importing, self.sorted, self.seeded
        self.enter(node)
        nodes = list(nodes_of(node))
        self.sorted = _texts(receivers(nodes, "sort"))
        for call in nodes:
            if isinstance(call, ast.Call) and self.name(call.func) in _SORTING:
                self.sorted |= _texts(part for value in call.args for part in ast.walk(value))
        local = {text for text in _texts(receivers(nodes, *_SEEDING)) if "." not in text}
        self.seeded = local | self.seeded_attributes
        self.importing = outside[0] and isinstance(node, ast.Module | ast.ClassDef)
        for child in body:
            self.visit(child)
        self.leave()
        self.importing, self.sorted, self.seeded = outside

    def call(self, node: ast.Call) -> None:
        name, method, receiver = self.name(node.func), "", node.func
        if isinstance(node.func, ast.Attribute):
            method, receiver = node.func.attr, node.func.value
        module, _, last = name.rpartition(".")
        values = [*node.args, *(keyword.value for keyword in node.keywords)]

        if self.importing and self.draws(name, method, node):
            self.report("import-time-draw", node)

        own = method == "seed" and any(n in _GENERATORS for n, _ in self.calls_behind(receiver))
        given = any(not isinstance(v, ast.Constant) or v.value is not None for v in values)
        if name == "torch.Generator" or (not given and (own or name in _BY_ARGUMENT)):
            self.report("unseeded-generator", node)
        if name in _FROM_SYSTEM:
            self.report("unseeded-generator", node)
            self.excused.add(node.func)
        if method in _SEEDING:
            self.excuse(receiver)
        if method in ("append", "extend") and ast.unparse(receiver) in self.sorted:
            for value in node.args:
                self.excuse(value)

        if name in _BY_ARGUMENT or (method or last) in _SEEDERS:
            for value in values:
                self.seed_from(value)

        if name in _ORDER_FREE:
            for value in node.args:
                self.excuse(value)
        elif name in _ITERATING or method == "join":
            for value in node.args:
                self.iterate(value)
        if name in _LISTINGS or method in _LISTING_METHODS:
            self.report("listing-order", node)

        if name in _SWITCHES or (module.startswith("torch.backends.") and "enable_" in last):
            self.report("default-dtype", node)
        if name in ("os.getenv", "os.environ.get") and node.args:
            self.read_variable(node, node.args[0])

    def assign(self, targets: list[ast.expr], value: ast.expr) -> None:
        for text in map(ast.unparse, targets):
            if text in self.seeded | self.sorted:
                self.excuse(value)
            if _is_seed(text.rpartition(".")[2]):
                self.seed_from(value)

    def loop(self, node: ast.For | ast.AsyncFor) -> None:
        """No fault if the loop only gathers into a set, or into what is sorted in this scope."""
        inside = [part for statement in node.body for part in ast.walk(statement)]
        gathers = receivers(inside, "append", "extend", "add", "update")
        gathers += [part.target for part in inside if isinstance(part, ast.AugAssign)]
        folders = node.target.elts[1:2] if isinstance(node.target, ast.Tuple) else []  # os.walk's
        ordered = [self.is_set(n) or ast.unparse(n) in self.sorted for n in gathers or folders]
        if ordered and all(ordered):
            self.excuse(node.iter)
        self.iterate(node.iter)

    def iterate(self, node: ast.expr) -> None:
        if self.is_set(node):
            self.report("set-order", node)

    def seed_from(self, value: ast.expr) -> None:
        for name, call in self.calls_behind(value):
            if name in _PER_PROCESS or name.startswith("time."):
                self.report("time-as-seed", call)

    def read_variable(self, node: ast.expr, key: ast.expr) -> None:
        if not (isinstance(key, ast.Constant) and key.value in PROCESS_VARIABLES):
            self.report("environment-read", node)

    def draws(self, name: str, method: str, node: ast.Call) -> bool:
        """Whether a call draws from a global generator."""
        module, _, last = name.rpartition(".")
        if module in ("random", "numpy.random"):
            return last[0].islower() and last not in _NO_DRAW
        if any(keyword.arg == "generator" for keyword in node.keywords):
            return False
        if method in _DRAWING_METHODS or name in _DRAWS:
            return True
        return module == "torch.nn" and last.startswith(tuple(_DRAWING_LAYERS.split()))
