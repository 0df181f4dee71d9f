"""Look at what torch compiles from outside: what comes into each compiled region, and what out.

torch runs a model operation by operation, and not as it was compiled, while a dispatch mode looks
on. A replay has one, so it asks for regions: the model then runs as compiled, with no mode in
force, and each region tells its inputs and outputs. What happens inside is not seen.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

# Gets what comes into a region, and what computes it; returns what comes out.
Watch = Callable[[list[Any], Callable[[], Any]], Any]


class _State:
    """Whether what is compiled from now on tells its regions, and to whom."""

    def __init__(self) -> None:
        self.asked = False
        self.watch: Watch | None = None


_state = _State()


@contextmanager
def regions_asked() -> Iterator[None]:
    """Let what is compiled in the block tell its regions."""
    _state.asked = True
    try:
        yield
    finally:
        _state.asked = False


@contextmanager
def watching_regions(watch: Watch) -> Iterator[None]:
    """Tell `watch` of each region that runs in the block."""
    _state.watch = watch
    try:
        yield
    finally:
        _state.watch = None


def compile_model(model: nn.Module) -> None:
    """Let torch compile a model in place, for each shape alone."""
    if not _state.asked:
        model.compile(dynamic=False)
        return
    model.compile(dynamic=False, backend=_telling)
    model._compiled_call_impl = _without_modes(model._compiled_call_impl)


def compiled_model(model: nn.Module) -> nn.Module:
    """Return a module that torch compiles for each shape alone; it shares the model's weights."""
    if not _state.asked:
        return torch.compile(model, dynamic=False)  # type: ignore[return-value]  # as it is one
    compiled: Any = torch.compile(model, dynamic=False, backend=_telling)
    compiled.forward = _without_modes(compiled.forward)
    return compiled  # type: ignore[no-any-return]


def _telling(graph: Any, inputs: Any) -> Any:
    """Compile as torch's own backend does; what it makes tells its inputs and outputs."""
    from torch._functorch import config as functorch_config
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner

    def inner(graph: Any, inputs: Any, **settings: Any) -> Any:
        # A backward pass is compiled when it first runs, perhaps with a mode that looks on.
        with _disable_current_modes() if settings.get("is_backward") else nullcontext():
            compiled = compile_fx_inner(graph, inputs, **settings)

        def run(arguments: list[Any]) -> Any:
            with _disable_current_modes():
                if _state.watch is None:
                    return compiled(arguments)
                return _state.watch([*arguments], lambda: compiled(arguments))

        run._boxed_call = True  # type: ignore[attr-defined]  # it takes a list, and may empty it
        return run

    # From its cache of whole graphs torch takes what an earlier process compiled without telling.
    with functorch_config.patch(enable_autograd_cache=False):
        return compile_fx(graph, inputs, inner_compile=inner)


def _without_modes(compiled: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return compiled(*args, **kwargs)

    return call
