"""Note the tensors of a loss and its backward in the order in which they come, by fingerprints.

Two computations of the same loss are compared by what was noted: the first tensor that differs is
where they part. Noted are each module's outputs, each shard's loss, the gradients as they come,
what a process adds up of its shards, and what the step has in the end.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_leaves

from repro.runs.fingerprints import fingerprint
from repro.training.parallel import Processes
from repro.training.tree_sum import Summands
from repro.training.weighted import Weighted


class Note(NamedTuple):
    """A tensor: in words, its fingerprint, and whether this process alone has made it."""

    words: str
    fingerprint: int
    own: bool = True


class Noticed:
    """What one computation of a loss and its gradients gave."""

    def __init__(self, model: nn.Module) -> None:
        self.notes: list[Note] = []
        self._model = model
        self._names = {module: name for name, module in model.named_modules()}

    def add(self, words: str, tensor: Tensor | None, own: bool = True) -> None:
        """Note a tensor; those without bytes of their own to look at are passed over."""
        if tensor is None or tensor.is_meta or _is_wrapped(tensor):
            return
        dense = tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense()
        self.notes.append(Note(words, fingerprint([dense]), own))

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note the modules' outputs and the gradients while the block lasts."""
        if has_compiled(self._model):  # a hook would make torch compile other code
            yield
            return
        hooks: list[Any] = [register_module_forward_hook(self._add_outputs)]
        for name, weight in self._model.named_parameters():
            if weight.requires_grad:
                hooks.append(weight.register_hook(self._adder(f"the gradient of {name}")))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def loss_of(self, loss: Callable[[int, Any], object]) -> Callable[[int, Any], object]:
        """Return a loss whose sums are noted."""

        def noted(shard: int, batch: Any) -> object:
            part = loss(shard, batch)
            if isinstance(part, Weighted) and isinstance(part.sum, Tensor):
                self.add("the loss", part.sum)
            return part

        return noted

    def end(self, mean: Tensor) -> None:
        """Note what a step has in the end: the loss, the gradients from the last one, buffers."""
        self.add("the mean loss", mean, own=False)
        for name, weight in reversed([*self._model.named_parameters()]):
            self.add(f"the gradient of {name}", weight.grad, own=False)
        for name, buffer in self._model.named_buffers():
            self.add(f"the buffer {name}", buffer, own=False)

    def add_sums(self, numbers: list[float], summands: Summands) -> None:
        """Note what this process brings to a step's sums: numbers, gradients, then buffers."""
        if not summands:  # of the means beside the loss
            return
        self.add("the loss", torch.tensor(numbers, dtype=torch.float64))
        names = [name for name, _ in self._model.named_parameters()]
        gradients = [*zip(names, summands, strict=False)]
        for name, gradient in reversed(gradients):
            self.add(f"the gradient of {name}", gradient)
        for buffer in summands[len(gradients) :]:
            self.add("a buffer", buffer)

    def _adder(self, words: str) -> Callable[[Tensor], None]:
        return lambda gradient: self.add(words, gradient)

    def _add_outputs(self, module: nn.Module, _: object, output: object) -> None:
        name = self._names.get(module)
        words = f"the output of {name or 'the model'} ({type(module).__name__})"
        if name is None:  # one that is no part of the model, such as nn.MSELoss
            words = f"the output of {type(module).__name__}"
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self.add(words, tensor)


class NotingProcesses(Processes):
    """Processes as those given, which note what this one brings to a sum.

    `alone`: nothing is exchanged, and each sum is this process's own share.
    """

    def __init__(self, given: Processes, noticed: Noticed | None, alone: bool = False) -> None:
        vars(self).update(vars(given))
        self._noticed = noticed
        self._alone = alone

    def sum_with_numbers(
        self, numbers: list[float], summands: Summands, like: Sequence[Tensor]
    ) -> tuple[list[float], Summands]:
        if self._noticed:
            self._noticed.add_sums(numbers, summands)
        if self._alone:
            return numbers, summands
        return super().sum_with_numbers(numbers, summands, like)

    def copy_from(self, source: int, tensors: Sequence[Tensor]) -> None:
        if not self._alone:
            super().copy_from(source, tensors)


def first_other_note(one: Sequence[Note], two: Sequence[Note]) -> Note | None:
    """Return the first note of which the other computation has another one; None for none."""
    for here, there in zip(one, two, strict=False):
        if here != there:
            return here
    if len(one) != len(two):
        longer = max(one, two, key=len)
        return longer[min(len(one), len(two))]
    return None


def has_compiled(model: nn.Module) -> bool:
    """Tell whether torch compiles a module of the model."""
    return any(
        getattr(module, "_compiled_call_impl", None) is not None
        or isinstance(module, torch.jit.ScriptModule)
        or type(module).__name__ == "OptimizedModule"
        for module in model.modules()
    )


def _is_wrapped(tensor: Tensor) -> bool:
    """Tell whether a tensor stands for several, or for none, inside a transform such as vmap."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))
