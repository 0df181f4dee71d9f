"""Check the calls in a file's source: draws, generators, seeds, order, switches of the process.

`CallChecks` also holds what the walk through the file (source_search.py) needs for other nodes:
what was found, and the places whose order does not matter.
"""

import ast
from collections.abc import Sequence
from typing import NamedTuple

from repro.diagnosis import known_calls as known
from repro.diagnosis.names import Names


class _Call(NamedTuple):
    """A call, taken apart: its function's full name, or the method and what it is called on."""

    node: ast.Call
    name: str  # "" of what is no import's
    module: str  # the name up to its last dot
    last: str  # the name from there on
    method: str  # "" of a plain function
    receiver: ast.expr  # what the method is called on; the function itself if it is plain
    values: list[ast.expr]  # of all arguments


class CallChecks(Names):
    """Checks calls against the rules; `found` holds the rules that are broken, and where."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, ast.expr]] = set()
        self.excused: set[ast.AST] = set()
        self.importing = True  # the place at hand is run when the file is imported
        self.sorted: set[str] = set()  # texts of what is sorted in the scope at hand

    def check_call(self, node: ast.Call) -> None:
        """Check a call against all rules."""
        call = self._taken_apart(node)
        self._check_draw(call)
        self._check_generator(call)
        self._check_seed(call)
        self._check_order(call)
        self._check_process(call)

    def report(self, rule: str, node: ast.expr) -> None:
        """Note a broken rule, unless the order of `node` does not matter."""
        if node not in self.excused:
            self.found.add((rule, node))

    def excuse(self, node: ast.AST) -> None:
        """Note that the order of `node` does not matter, nor that of what it passes on."""
        self.excused.add(node)
        for part in self._passed_on(node):
            self.excuse(part)

    def _passed_on(self, node: ast.AST) -> Sequence[ast.AST]:
        """Return the parts whose order is that of `node`."""
        match node:
            case ast.Call(function, arguments) if self.name(function) in known.PASSING_ON:
                return arguments
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                return [generator.iter for generator in node.generators]
            case ast.BinOp(left, ast.Add(), right) | ast.IfExp(_, left, right):
                return [left, right]
            case ast.List(parts) | ast.Tuple(parts) | ast.Set(parts) | ast.BoolOp(_, parts):
                return parts
            case ast.Starred(value):
                return [value]
        return []

    def _taken_apart(self, node: ast.Call) -> _Call:
        name = self.name(node.func)
        module, _, last = name.rpartition(".")
        method = ""
        receiver = node.func
        if isinstance(node.func, ast.Attribute):
            method = node.func.attr
            receiver = node.func.value
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        return _Call(node, name, module, last, method, receiver, values)

    def _check_draw(self, call: _Call) -> None:
        if self.importing and _draws(call):
            self.report("import-time-draw", call.node)

    def _check_generator(self, call: _Call) -> None:
        """Check that a generator is given a seed, and that none comes from the system."""
        made_here = call.method == "seed" and any(
            name in known.GENERATORS for name, _ in self.calls_behind(call.receiver)
        )
        takes_seed = made_here or call.name in known.SEEDED_BY_ARGUMENT
        given = any(not isinstance(v, ast.Constant) or v.value is not None for v in call.values)
        if call.name == "torch.Generator" or (takes_seed and not given):
            self.report("unseeded-generator", call.node)
        if call.name in known.FROM_SYSTEM:
            self.report("unseeded-generator", call.node)
            self.excused.add(call.node.func)  # told already
        if call.method in known.SEEDING_METHODS:
            self.excuse(call.receiver)

    def _check_seed(self, call: _Call) -> None:
        """Check what a seed is made of."""
        if call.name in known.SEEDED_BY_ARGUMENT or (call.method or call.last) in known.SEEDERS:
            for value in call.values:
                self.seed_from(value)

    def _check_order(self, call: _Call) -> None:
        """Check the order of what a call iterates over or lists."""
        gathers = call.method in ("append", "extend")
        if gathers and ast.unparse(call.receiver) in self.sorted:
            for value in call.node.args:
                self.excuse(value)
        if call.name in known.ORDER_FREE:
            for value in call.node.args:
                self.excuse(value)
        elif call.name in known.ITERATING or call.method == "join":
            for value in call.node.args:
                self.iterate(value)
        if call.name in known.LISTINGS or call.method in known.LISTING_METHODS:
            self.report("listing-order", call.node)

    def _check_process(self, call: _Call) -> None:
        """Check what concerns the whole process: switches, variables of the environment."""
        enables = call.module.startswith(known.BACKENDS) and "enable_" in call.last
        if call.name in known.SWITCHES or enables:
            self.report("default-dtype", call.node)
        if call.name in ("os.getenv", "os.environ.get") and call.node.args:
            self.read_variable(call.node, call.node.args[0])

    def iterate(self, node: ast.expr) -> None:
        """Report an iteration over `node` if it is a set."""
        if self.is_set(node):
            self.report("set-order", node)

    def seed_from(self, value: ast.expr) -> None:
        """Report what is another number in every process in the expression of a seed."""
        for name, call in self.calls_behind(value):
            if name in known.PER_PROCESS or name.startswith("time."):
                self.report("time-as-seed", call)

    def read_variable(self, node: ast.expr, key: ast.expr) -> None:
        """Report a variable of the environment, unless it only says which process this is."""
        if not (isinstance(key, ast.Constant) and key.value in known.PROCESS_VARIABLES):
            self.report("environment-read", node)


def _draws(call: _Call) -> bool:
    """Say whether a call draws from a global generator."""
    if call.module in known.GLOBAL_MODULES:
        return call.last[0].islower() and call.last not in known.NO_DRAW
    if any(keyword.arg == "generator" for keyword in call.node.keywords):
        return False
    if call.method in known.DRAWING_METHODS or call.name in known.DRAWS:
        return True
    return call.module == "torch.nn" and call.last.startswith(known.DRAWING_LAYERS)
