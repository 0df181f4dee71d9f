"""What a name stands for in a file's source: an import, or what it was assigned.

Promises that a name is looked up as Python does: from the inside out, aliases of imports followed,
hidden by parameters and variables of the same name. Does not know in what order statements run: a
name stands for everything that its scope binds to it.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator

Scope = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Value = str | ast.expr | None  # an import's full name; what is assigned, or annotated; the unknown

_SETS = {"builtins.set", "builtins.frozenset"}
_SET_METHODS = {"copy", "union", "intersection", "difference", "symmetric_difference"}
_SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.BitXor, ast.Sub)


def nodes_of(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a scope, without those in functions and classes inside it."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, Scope):
            yield from nodes_of(child)


def receivers(nodes: Iterable[ast.AST], *methods: str) -> list[ast.expr]:
    """Return what `methods` are called on in `nodes`."""
    functions = [node.func for node in nodes if isinstance(node, ast.Call)]
    return [f.value for f in functions if isinstance(f, ast.Attribute) and f.attr in methods]


def _bindings(nodes: Iterable[ast.AST]) -> dict[str, list[Value]]:
    """Return what each name is bound to by the nodes of a scope."""
    bound: dict[str, list[Value]] = defaultdict(list)
    seen: set[ast.AST] = set()  # names in targets whose value is known
    for node in nodes:
        match node:
            case ast.Import() | ast.ImportFrom():
                for name, full in _imports(node):
                    bound[name].append(full)
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                bound[name].append(None)
            case ast.arg(name, annotation):
                bound[name].append(annotation)
            case ast.Assign([ast.Name(name) as target], value):
                bound[name].append(value)
                seen.add(target)
            case ast.AnnAssign(ast.Name(name) as target, annotation, value):
                bound[name].append(value or annotation)
                seen.add(target)
            case ast.AugAssign(ast.Name() as target):  # leaves the kind as it is
                seen.add(target)
            case ast.Name(name, ast.Store()) if node not in seen:
                bound[name].append(None)
    return bound


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Yield each name that an import binds, and the full name that it stands for."""
    if isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            yield alias.asname or alias.name, f"{module}.{alias.name}"
        return
    for alias in node.names:
        if alias.asname:
            yield alias.asname, alias.name
        else:
            first = alias.name.partition(".")[0]
            yield first, first


class Names:
    """The scopes around a place, from the file inwards: `enter` and `leave` them on the way."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self._bound: list[dict[str, list[Value]]] = []
        self._asked: list[str] = []

    def enter(self, scope: Scope) -> None:
        """Look names up from inside a scope, until `leave` is called."""
        self.scopes.append(scope)
        self._bound.append(_bindings(nodes_of(scope)))

    def leave(self) -> None:
        """Look names up from around the scope that was entered last."""
        self.scopes.pop()
        self._bound.pop()

    def bound(self, name: str) -> list[Value] | None:
        """Return all that `name` may stand for; None if no scope binds it, as of built-in ones."""
        for scope, names in zip(reversed(self.scopes), reversed(self._bound), strict=True):
            # Functions do not see the names of the class around them.
            if name in names and (scope is self.scopes[-1] or not isinstance(scope, ast.ClassDef)):
                return names[name]
        return None

    def name(self, node: ast.AST) -> str:
        """Return the full name, numpy.random.rand of np.random.rand; "" of what is no import's."""
        if isinstance(node, ast.Attribute):
            base = self.name(node.value)
            return base and f"{base}.{node.attr}"
        if not isinstance(node, ast.Name):
            return ""
        values = self.bound(node.id)
        if values is None:
            return f"builtins.{node.id}"
        return next((value for value in reversed(values) if isinstance(value, str)), "")

    def calls_behind(self, value: ast.expr) -> Iterator[tuple[str, ast.Call]]:
        """Find the calls in an expression and in what its names were assigned, with full names."""
        nodes = list(ast.walk(value))
        for name in [node.id for node in nodes if isinstance(node, ast.Name)]:
            for origin in self.bound(name) or ():
                nodes += ast.walk(origin) if isinstance(origin, ast.expr) else ()
        return ((self.name(node.func), node) for node in nodes if isinstance(node, ast.Call))

    def is_set(self, node: Value) -> bool:
        """Say whether an expression is a set whose order may differ, unlike that of integers."""
        match node:
            case ast.Set(items):
                return not all(isinstance(i, ast.Constant) and type(i.value) is int for i in items)
            case ast.SetComp():
                return True
            case ast.Call(ast.Attribute(of, method)) if method in _SET_METHODS:
                return self.is_set(of)
            case ast.Call(of) | ast.Subscript(of):  # set(...), or an annotation: set[...]
                return self.name(of) in _SETS
            case ast.BinOp(left, operator, right) if isinstance(operator, _SET_OPERATORS):
                views = receivers((left, right), "keys", "items")
                return bool(views) or self.is_set(left) or self.is_set(right)
            case ast.Name():
                return self._name_is_set(node)
        return False

    def _name_is_set(self, node: ast.Name) -> bool:
        """Say whether all that a name may stand for are such sets."""
        if node.id in self._asked:  # names = names | more
            return True
        values = self.bound(node.id)
        if not values:
            return self.name(node) in _SETS
        self._asked.append(node.id)
        answer = all(map(self.is_set, values))
        self._asked.pop()
        return answer
