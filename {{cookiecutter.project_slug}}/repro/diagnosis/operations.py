"""Every operation that torch does, in order: what came in, what came out, and whose it was.

`Recorder` is a dispatch mode: it sees the operations below autograd, of forward, backward and
optimizer alike. It names the module whose forward did an operation, also for its backward: autograd
numbers the nodes of its graph, and the number tells which operation of the forward it belongs to.
Recording changes no bits, and costs about as much time again as the operations themselves.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves

from repro.runs.trace import fingerprint

Place = dict[str, str]
NOWHERE: Place = {"module": "", "class": "", "source": ""}
# Operations that hand out memory without writing to it.
UNWRITTEN = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
_LARGE = 1 << 18  # values; the fingerprints of larger tensors are kept: a data set is read often


class Recorder(TorchDispatchMode):
    """Inside `recording()`, `operations` gets an entry for each operation that is no mere view.

    `root`: source lines are named for files in its folders `rooms`. `names` tells the tensors that
    have a name, by address. With `values=k` the k-th operation's outputs are kept in `kept`.
    An entry: `name`; `phase`; `module` and its `class`; `source`; `arguments` that are no tensors;
    `inputs` and `outputs`, each `[fingerprint, dtype, shape, name]`. Where it is so, `random`: the
    seed of the generator that it drew from; `fresh`: it hands out memory as it is; `unwritten`: it
    read memory that nobody had written.
    """

    def __init__(self, root: Path, rooms: tuple[str, ...], values: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[dict[str, Any]] = []
        self.phase = "start"
        self.names: dict[int, str] = {}  # of tensors, by the address of their data
        self.modules: dict[nn.Module, str] = {}
        self.kept: list[Tensor] = []
        self._rooms = tuple(str(root / room) + "/" for room in rooms)
        self._root, self._values = root, values
        self._stack: list[nn.Module] = []
        self._places: dict[int, Place] = {}  # by autograd's number of the node
        self._unwritten: dict[int, Tensor] = {}  # memory that holds what it held before
        self._known: dict[tuple[int, int, int], tuple[Tensor, str]] = {}

    def name(self, model: nn.Module, gradients: bool = False) -> None:
        """Take over the names of a model's modules, parameters and buffers.

        `gradients`: theirs, too. They have addresses of their own after the backward pass only.
        """
        self.modules = {module: name for name, module in model.named_modules()}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self.names[tensor.data_ptr()] = name
            if gradients and tensor.grad is not None:
                self.names[tensor.grad.data_ptr()] = f"gradient of {name}"

    @contextmanager
    def recording(self) -> Iterator["Recorder"]:
        """As `with recorder`, and modules are followed while they run."""

        def enter(module: nn.Module, _: Any) -> None:
            self._stack.append(module)
            if self.phase == "optimizer":
                self.phase = "forward"  # the step goes on after a first optimizer

        def leave(*_: Any) -> None:
            self._stack.pop()

        hooks = (
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        )
        try:
            with self:
                yield self
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function.is_view:
            return self._follow(lambda: function(*args, **kwargs))
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        entry: dict[str, Any] = {
            "name": str(function).removesuffix(".default"),
            "arguments": " ".join(map(_word, filter(_is_plain, leaves))),
            "inputs": [self._describe(tensor) for tensor in tensors],
        }
        written = _written(function, args, kwargs)
        overwritten = {_address(tensor) for tensor in written}
        if any(_address(tensor) in self._unwritten.keys() - overwritten for tensor in tensors):
            entry["unwritten"] = True
        for address in overwritten:
            self._unwritten.pop(address, None)
        result = self._follow(lambda: function(*args, **kwargs))
        # autograd counts the version of a changed tensor up only after this.
        if overwritten:
            self._known = {k: v for k, v in self._known.items() if k[0] not in overwritten}
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        outputs += [tensor for tensor in written if all(tensor is not o for o in outputs)]
        if entry["name"].split(".")[1] in UNWRITTEN:
            entry["fresh"] = True
            self._unwritten.update((_address(t), t) for t in outputs if t.numel())
        entry.update(phase=self._phase(), **self._place())
        entry["outputs"] = [self._describe(t, keep=not overwritten) for t in outputs]
        if torch.Tag.nondeterministic_seeded in function.tags:
            entry["random"] = _seed(leaves, outputs)
        if len(self.operations) == self._values:
            self.kept = [tensor.detach().cpu().clone() for tensor in outputs]
        self.operations.append(entry)
        return result

    def _follow(self, call: Callable[[], Any]) -> Any:
        """Call, and remember whose operation the new node of the graph belongs to."""
        if not _in_backward():
            number = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
            # The first one at this number made the node; those without gradient make none.
            self._places.setdefault(number - 1, self._place())
        return call()

    def _phase(self) -> str:
        return "backward" if _in_backward() else self.phase

    def _place(self) -> Place:
        if _in_backward():
            node = torch._C._current_autograd_node()
            return self._places.get(node._sequence_nr(), NOWHERE) if node else NOWHERE
        frame = sys._getframe(1)
        while frame.f_back and not frame.f_code.co_filename.startswith(self._rooms):
            frame = frame.f_back
        source, name = "", frame.f_code.co_filename
        if name.startswith(self._rooms):
            source = f"{Path(name).relative_to(self._root)}:{frame.f_lineno}"
        if not self._stack:
            return {**NOWHERE, "source": source}
        module = self._stack[-1]
        name = self.modules.get(module, "")
        return {"module": name, "class": type(module).__name__, "source": source}

    def _describe(self, tensor: Tensor, keep: bool = True) -> list[Any]:
        kind, shape = str(tensor.dtype).removeprefix("torch."), list(tensor.shape)
        kind = kind if tensor.layout is torch.strided else f"sparse {kind}"
        address = _address(tensor)
        if address in self._unwritten:
            return ["unwritten", kind, shape, ""]
        counted = address and not tensor.is_inference()  # those have no version
        key = (address, tensor._version, tensor.numel()) if counted else None
        if key in self._known:
            digest = self._known[key][1]
        else:
            digest = f"{fingerprint([_dense(tensor)]) % 2**64:016x}"
            if keep and key and tensor.numel() > _LARGE and not _in_backward():
                self._known[key] = (tensor, digest)  # the tensor, too: its address stays taken
        return [digest, kind, shape, self.names.get(address, "")]


def _dense(tensor: Tensor) -> Tensor:
    """Its numbers as an ordinary tensor: sparse and quantized ones are none."""
    return tensor.int_repr() if tensor.is_quantized else tensor.to_dense()


def _address(tensor: Tensor) -> int:
    """Of its data in memory; 0 where there is no such place."""
    return tensor.data_ptr() if tensor.layout is torch.strided and tensor.numel() else 0


def _is_plain(argument: Any) -> bool:
    return not isinstance(argument, (Tensor, torch.Generator))


def _word(argument: Any) -> str:
    """An argument as text that is the same in another process."""
    return repr(argument) if isinstance(argument, str) else str(argument).partition(" object at")[0]


def _seed(arguments: list[Any], outputs: list[Tensor]) -> int:
    """What the generator was seeded with that an operation drew from."""
    for argument in arguments:
        if isinstance(argument, torch.Generator):
            return argument.initial_seed()
    on_gpu = any(tensor.is_cuda for tensor in outputs)
    return torch.cuda.initial_seed() if on_gpu else torch.initial_seed()


def _in_backward() -> bool:
    return bool(torch._C._current_graph_task_id() != -1)


def _written(function: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments that an operation changes in place, by its schema."""
    found = []
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            found += [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]
    return found
