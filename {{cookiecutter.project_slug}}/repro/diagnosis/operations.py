"""Every operation that torch does, in order: what came in, what came out, and whose it was.

`Recorder` is a dispatch mode: it sees the operations below autograd, of forward, backward and
optimizer alike. It names the module whose forward did an operation, also for its backward: autograd
numbers the nodes of its graph, and the number tells which operation of the forward it belongs to.
Recording changes no bits, and costs about as much time again as the operations themselves.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.distributed.tensor import DTensor
from torch.library import _scoped_library
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from repro.diagnosis.step_file import REGION, REPLACED, Operation, TensorRecord
from repro.diagnosis.tensor_arguments import address_of, dense, in_backward, is_plain, word_of
from repro.diagnosis.written import received_by, replaces_all, seed_of, written_by
from repro.runs.fingerprints import fingerprint
from repro.training.engine import local

# Operations that hand out memory without writing to it.
UNWRITTEN = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
_GATHERED = "fsdp.all_gather_copy_in.default"  # FSDP2 writes a part of what it then exchanges
_LARGE = 1 << 18  # values; the fingerprints of larger tensors are kept: a data set is read often


class Origin(NamedTuple):
    """Whose an operation is: a module by its name, its class, and a line of the author's code."""

    module: str
    class_: str
    source: str


NOWHERE = Origin("", "", "")


class Recorder(TorchDispatchMode):
    """Records, inside `recording()`, each operation that is no mere view in `operations`.

    `root`: source lines are named for files in its folders `user_code`. `names` tells the tensors
    that have a name, by address. With `values=k` the k-th operation's outputs are kept in `kept`.
    """

    def __init__(self, root: Path, user_code: tuple[str, ...], values: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self.phase = "start"
        self.names: dict[int, str] = {}  # of tensors, by the address of their data
        self.modules: dict[nn.Module, str] = {}
        self.kept: list[Tensor] = []
        self._root = root
        self._user_code = tuple(f"{root / folder}/" for folder in user_code)
        self._values = values
        self._stack: list[nn.Module] = []
        self._places: dict[int, Origin] = {}  # by autograd's number of the node
        self._unwritten: dict[int, Tensor] = {}  # memory that holds what it held before
        self._known: dict[tuple[int, int, int], tuple[Tensor, str]] = {}

    def name(self, model: nn.Module, gradients: bool = False) -> None:
        """Take over the names of a model's modules, parameters and buffers.

        `gradients`: theirs, too. They have addresses of their own after the backward pass only.
        """
        self.modules = {module: name for name, module in model.named_modules()}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self.names[local(tensor).data_ptr()] = name
            if gradients and tensor.grad is not None:
                self.names[local(tensor.grad).data_ptr()] = f"gradient of {name}"

    @contextmanager
    def recording(self, follow: bool = True) -> Iterator["Recorder"]:
        """Record as `with recorder` does, and follow modules while they run.

        `follow`: not where torch compiles the modules: it would compile the hooks, too.
        """

        def enter(module: nn.Module, _: Any) -> None:
            self._stack.append(module)
            if self.phase == "optimizer":
                self.phase = "forward"  # the step goes on after a first optimizer

        def leave(*_: Any) -> None:
            self._stack.pop()

        hooks = []
        if follow:
            hooks.append(register_module_forward_pre_hook(enter))
            hooks.append(register_module_forward_hook(leave, always_call=True))
        try:
            with self:
                yield self
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def noting(self, calls: Mapping[str, Callable[[], bool]]) -> Iterator[None]:
        """Note calls that the dispatch mode does not see: torch takes them apart before.

        `calls`: the operators' names without "aten.", and which calls of them to note, asked during
        each call. Of those only calls that a gradient goes through are noted, as operations
        without tensors. The dispatcher does the noting: a TorchFunctionMode would turn off the fast
        path of torch.nn.MultiheadAttention, and see nothing of what torch's own functions call.
        """
        with _scoped_library("aten", "IMPL") as library:
            for name, meant in calls.items():
                library.impl(name, self._noted(name, meant), "AutogradCPU")
            yield

    def _noted(self, name: str, meant: Callable[[], bool]) -> Callable[..., Any]:
        """Return the operator of this name as it is, but for noting its calls."""
        operator = getattr(torch.ops.aten, name).default

        def call(*args: Any, **kwargs: Any) -> Any:
            result = operator.decompose(*args, **kwargs)
            if result.requires_grad and meant():
                self.operations.append(Operation(f"aten.{name}", *self._where(), "", [], []))
            return result

        return call

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it comes again, with what this process holds
        if FakeTensor in types or function.namespace == "profiler":  # it computes nothing
            return function(*args, **kwargs)
        if "c10d" in function.namespace or str(function) == _GATHERED:
            return self._exchange(function, args, kwargs)
        if function.is_view:
            return self._follow(lambda: function(*args, **kwargs))
        return self._record(function, args, kwargs)

    def _exchange(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Do an exchange with other processes, and note what goes out: the rest arrives later.

        What the kit's processes tell each other are no numbers of the model, and is left out.
        """
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        told = self._inputs(tensors, received_by(function, args, kwargs))
        self._known.clear()  # exchanges change tensors without counting their versions up
        for tensor in tensors:
            self._unwritten.pop(address_of(tensor), None)
        if any(tensor.is_floating_point() for tensor in tensors):
            name = str(function).removesuffix(".default")
            self.operations.append(Operation(name, *self._where(), "", told, []))
        return function(*args, **kwargs)

    def _record(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Call an operation that makes or changes tensors, and note it; return what it gives."""
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        arguments = " ".join(map(word_of, filter(is_plain, leaves)))
        written = written_by(function, args, kwargs)
        inputs = self._inputs(tensors, written if replaces_all(function) else [])
        overwritten = {address_of(tensor) for tensor in written}
        unwritten = self._read_unwritten(tensors, overwritten)
        result = self._follow(lambda: function(*args, **kwargs))
        # autograd counts the version of a changed tensor up only after this.
        if overwritten:
            self._known = {k: v for k, v in self._known.items() if k[0] not in overwritten}
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if any(isinstance(tensor, FakeTensor) for tensor in outputs):
            return result
        outputs += [tensor for tensor in written if all(tensor is not o for o in outputs)]
        name = str(function).removesuffix(".default")
        fresh = name.split(".")[1] in UNWRITTEN
        if fresh:
            self._unwritten.update((address_of(t), t) for t in outputs if t.numel())
        place = self._place()
        operation = Operation(
            name,
            self._phase(),
            *place,
            arguments,
            inputs,
            [self._describe(tensor, keep=not overwritten) for tensor in outputs],
            random=seed_of(function, leaves, outputs),
            fresh=fresh,
            unwritten=unwritten,
        )
        if name != "aten.zero_" or place != NOWHERE or not in_backward():
            self._keep(operation, outputs)  # DDP clears what is unused, in any order
        return result

    def region(self, arguments: list[Any], compute: Callable[[], Any]) -> Any:
        """Note what torch has compiled as one operation, and what it changes as outputs, too."""
        tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
        self._known.clear()  # compiled code changes tensors without counting their versions up
        inputs = [self._describe(tensor, keep=False) for tensor in tensors]
        result = compute()
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        told = [self._describe(tensor, keep=False) for tensor in outputs]
        for tensor, before in zip(tensors, inputs, strict=True):
            if (after := self._describe(tensor, keep=False)) != before:
                outputs.append(tensor)
                told.append(after)
        number = 1 + sum(operation.name.startswith(REGION) for operation in self.operations)
        arguments_ = " ".join(map(word_of, filter(is_plain, arguments)))
        operation = Operation(f"{REGION} {number}", *self._where(), arguments_, inputs, told)
        self._keep(operation, outputs)
        return result

    def _keep(self, operation: Operation, outputs: list[Tensor]) -> None:
        """Note an operation, and copy its outputs if they are asked for."""
        if len(self.operations) == self._values:
            self.kept = [tensor.detach().cpu().clone() for tensor in outputs]
        self.operations.append(operation)

    def _read_unwritten(self, tensors: list[Tensor], overwritten: set[int]) -> bool:
        """Return whether an operation reads memory that nobody wrote, and note what it writes."""
        read = {address_of(tensor) for tensor in tensors} - overwritten
        unwritten = any(map(self._is_unwritten, read))
        for address in overwritten:
            self._unwritten.pop(address, None)
        return unwritten

    def _is_unwritten(self, address: int) -> bool:
        """Tell whether nobody wrote the memory there; FSDP2 may have given it up for others."""
        tensor = self._unwritten.get(address)
        return tensor is not None and address_of(tensor) == address

    def _follow(self, call: Callable[[], Any]) -> Any:
        """Call, and remember whose operation the new node of the graph belongs to."""
        if not in_backward():
            number = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
            # The first one at this number made the node; those without gradient make none.
            self._places.setdefault(number - 1, self._place())
        return call()

    def _where(self) -> tuple[str, str, str, str]:
        """Return the phase, and whose operation is being done."""
        return (self._phase(), *self._place())

    def _phase(self) -> str:
        return "backward" if in_backward() else self.phase

    def _place(self) -> Origin:
        """Find whose operation is being done; in the backward pass, whose forward it belongs to."""
        if in_backward():
            node = torch._C._current_autograd_node()
            return self._places.get(node._sequence_nr(), NOWHERE) if node else NOWHERE
        frame = sys._getframe(1)
        while frame.f_back and not frame.f_code.co_filename.startswith(self._user_code):
            frame = frame.f_back
        source = ""
        file = frame.f_code.co_filename
        if file.startswith(self._user_code):
            source = f"{Path(file).relative_to(self._root)}:{frame.f_lineno}"
        if not self._stack:
            return Origin("", "", source)
        module = self._stack[-1]
        return Origin(self.modules.get(module, ""), type(module).__name__, source)

    def _inputs(self, tensors: list[Tensor], replaced: list[Tensor]) -> list[TensorRecord]:
        """Record what comes in; of what is replaced, and given for nothing else, no numbers."""
        counts = Counter(map(id, tensors))
        unread = {id(tensor) for tensor in replaced if counts[id(tensor)] == 1}
        described = [self._describe(tensor) for tensor in tensors]
        return [
            record._replace(fingerprint=REPLACED) if id(tensor) in unread else record
            for tensor, record in zip(tensors, described, strict=True)
        ]

    def _describe(self, tensor: Tensor, keep: bool = True) -> TensorRecord:
        """Record a tensor as it is now; `keep`: its fingerprint may be used again."""
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.layout is not torch.strided:
            dtype = f"sparse {dtype}"
        shape = list(tensor.shape)
        address = address_of(tensor)
        if self._is_unwritten(address):
            return TensorRecord("unwritten", dtype, shape, "")
        digest = self._digest(tensor, address, keep)
        return TensorRecord(digest, dtype, shape, self.names.get(address, ""))

    def _digest(self, tensor: Tensor, address: int, keep: bool) -> str:
        """Return a tensor's fingerprint; of a large one that did not change, the known one."""
        counted = address and not tensor.is_inference()  # those have no version
        key = (address, tensor._version, tensor.numel()) if counted else None
        tensor_then, known = self._known.get(key, (None, "")) if key else (None, "")
        if tensor_then is not None and address_of(tensor_then) == address:  # FSDP2 frees memory
            return known
        digest = f"{fingerprint([dense(tensor)]) % 2**64:016x}"
        if keep and key and tensor.numel() > _LARGE and not in_backward():
            self._known[key] = (tensor, digest)  # the tensor, too: its address stays taken
        return digest
