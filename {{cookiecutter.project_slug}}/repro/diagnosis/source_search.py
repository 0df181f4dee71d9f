"""Walk through a file's syntax tree and note each place that breaks a rule of unseeded.py.

Promises to go from the outside in: what stands around a place, such as sorted(...) around a
listing, excuses it before it is reached.
"""

import ast
from collections.abc import Iterable, Sequence

from repro.diagnosis import known_calls as known
from repro.diagnosis.call_checks import CallChecks
from repro.diagnosis.names import Scope, nodes_of, receivers


class Search(CallChecks, ast.NodeVisitor):
    """Search a tree; `found` holds the rules that are broken, and where."""

    def __init__(self, tree: ast.Module) -> None:
        super().__init__()
        # Texts of generators that are seeded: names in the function at hand, attributes in the
        # whole file.
        self._seeded: set[str] = set()
        seeded = _texts(_seeded_generators(ast.walk(tree)))
        self._seeded_attributes = {text for text in seeded if "." in text}
        self.visit(tree)

    # Scopes.

    def _visit_scope(self, node: Scope, body: Sequence[ast.AST]) -> None:
        for child in ast.iter_child_nodes(node):  # decorators, defaults, base classes
            if child not in body:
                self.visit(child)
        importing = self.importing
        sorted_outside = self.sorted
        seeded_outside = self._seeded
        self.enter(node)
        nodes = list(nodes_of(node))
        self.sorted = self._sorted_in(nodes)
        seeded = _texts(receivers(nodes, *known.SEEDING_METHODS))
        local = {text for text in seeded if "." not in text}
        self._seeded = local | self._seeded_attributes
        self.importing = importing and isinstance(node, ast.Module | ast.ClassDef)
        for child in body:
            self.visit(child)
        self.leave()
        self.importing = importing
        self.sorted = sorted_outside
        self._seeded = seeded_outside

    def _sorted_in(self, nodes: list[ast.AST]) -> set[str]:
        """Return the texts of what is sorted somewhere in a scope."""
        texts = _texts(receivers(nodes, "sort"))
        for node in nodes:
            if isinstance(node, ast.Call) and self.name(node.func) in known.SORTING:
                for value in node.args:
                    texts |= _texts(ast.walk(value))
        return texts

    def visit_Module(self, node: ast.Module) -> None:
        self._visit_scope(node, node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_scope(node, node.body)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_scope(node, node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_scope(node, node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_scope(node, [node.body])

    # Statements.

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) == "__name__ == '__main__'":
            importing = self.importing
            self.importing = False
            self.generic_visit(node)
            self.importing = importing
            return
        self.excuse(node.test)
        self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        self.excuse(node.test)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._assign(node.targets, node.value)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._assign([node.target], node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self._assign([node.target], node.value)
        self.generic_visit(node)

    def _assign(self, targets: list[ast.expr], value: ast.expr) -> None:
        for text in map(ast.unparse, targets):
            if text in self._seeded | self.sorted:
                self.excuse(value)
            if known.is_seed(text.rpartition(".")[2]):
                self.seed_from(value)

    def visit_For(self, node: ast.For) -> None:
        self._loop(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._loop(node)

    def _loop(self, node: ast.For | ast.AsyncFor) -> None:
        """Find no fault in a loop that only gathers into a set, or into what its scope sorts."""
        inside = [part for statement in node.body for part in ast.walk(statement)]
        gathers = receivers(inside, "append", "extend", "add", "update")
        gathers += [part.target for part in inside if isinstance(part, ast.AugAssign)]
        folders = node.target.elts[1:2] if isinstance(node.target, ast.Tuple) else []  # os.walk's
        targets = gathers or folders
        if targets and all(self.is_set(n) or ast.unparse(n) in self.sorted for n in targets):
            self.excuse(node.iter)
        self.iterate(node.iter)
        self.generic_visit(node)

    # Parameters and arguments.

    def visit_arguments(self, node: ast.arguments) -> None:
        positional = [*node.posonlyargs, *node.args]
        with_defaults = positional[len(positional) - len(node.defaults) :]
        pairs = [*zip(with_defaults, node.defaults, strict=True)]
        pairs += [(arg, d) for arg, d in zip(node.kwonlyargs, node.kw_defaults, strict=True) if d]
        for argument, default in pairs:
            if known.is_seed(argument.arg):
                self.seed_from(default)
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if known.is_seed(node.arg):
            self.seed_from(node.value)
        self.generic_visit(node)

    # Expressions.

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.iterate(node.iter)
        self.generic_visit(node)

    def visit_YieldFrom(self, node: ast.YieldFrom) -> None:
        self.iterate(node.value)
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        self.iterate(node.value)
        self.generic_visit(node)

    def visit_Set(self, node: ast.Set) -> None:
        self.excuse(node)
        self.generic_visit(node)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self.excuse(node)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.excuse(node.operand)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        match node:
            case ast.Compare(left, [ast.In() | ast.NotIn()], [container]):
                self.excuse(container)
                if self.name(container) == "os.environ":
                    self.read_variable(node, left)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.ctx, ast.Load) and self.name(node.value) == "os.environ":
            self.read_variable(node, node.slice)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Store):
            if self.name(node).startswith(known.BACKENDS):
                self.report("default-dtype", node)
        elif self.name(node) in known.FROM_SYSTEM:
            self.report("unseeded-generator", node)  # default_factory=uuid.uuid4
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if self.name(node) in known.FROM_SYSTEM:
            self.report("unseeded-generator", node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.check_call(node)
        self.generic_visit(node)


def _texts(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the texts of names and attributes."""
    return {ast.unparse(node) for node in nodes if isinstance(node, ast.Name | ast.Attribute)}


def _seeded_generators(nodes: Iterable[ast.AST]) -> list[ast.expr]:
    """Return those that are given a seed; `.seed()` takes one of the operating system's."""
    given = [node for node in nodes if isinstance(node, ast.Call) and (node.args or node.keywords)]
    return receivers(given, *known.SEEDING_METHODS)
