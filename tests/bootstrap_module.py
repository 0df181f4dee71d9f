"""bootstrap.py of a project as a module: it is a program in a folder that is no package."""

import importlib.util
from types import ModuleType

from conftest import TEMPLATE


def load_bootstrap() -> ModuleType:
    """A new module, which a test may change."""
    spec = importlib.util.spec_from_file_location("bootstrap", TEMPLATE / "bootstrap.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
