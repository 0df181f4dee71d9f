"""Offer the names of a package without importing its modules before a name is used (PEP 562).

Commands import `repro` packages before `environment.enter(...)` has put the profile in force; torch
and NumPy must not be imported by then. A package lists its names twice: in a table for Python,
and as imports under `if TYPE_CHECKING` for the type checker and the editor.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def listed_names(table: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of a table of modules, for `__all__`."""
    return [name for names in table.values() for name in names]


def importer(package: str, table: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """Return the `__getattr__` of `package`, which imports a name when it is first asked for.

    `table` gives each module, by its full name, with the names that it defines.
    """
    module_of = {name: module for module, names in table.items() for name in names}

    def import_name(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(module_of[name]), name)

    return import_name
