"""Read the numbers of a GPU late, so that it never waits for the next step to be queued.

To read a number of a GPU is to wait until the GPU has come to it; meanwhile nothing is queued, and
then the GPU waits in turn. So what a step tells (loss, norm, fingerprints) is only sent to the host
and read when later steps are queued. `Arriving.read` is the one function that reads. On the CPU
nothing is queued: there each number is read at once, and none of this is used.

A number that is not finite is found late, too. `Pending.flag` says it on the GPU: once set it stays
set, and optimizers get it as `found_inf`, which lets their fused kernels leave weights and moments
as they are. So no step after the bad one changes anything before the fault is told.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from repro.training.lost_processes import is_of_another_process

LATE_ON = {"cuda"}  # kinds of devices; a test adds "cpu"
BEHIND = 2  # steps that stay unread: the host is that far ahead of the GPU, at most


def is_late(value: Tensor) -> bool:
    """Tell whether to read a tensor is to wait for its device."""
    return value.device.type in LATE_ON


class LateNumber:
    """A number on its way; `value` is there once it was read."""

    value: float


class LateWords:
    """Some int64 numbers on their way; `values` are there once they were read."""

    values: list[int]


class Arriving:
    """What one step tells, on its way to the host: numbers, words, and what to do with them."""

    def __init__(self) -> None:
        self._numbers: list[tuple[Tensor, LateNumber]] = []
        self._words: list[tuple[Tensor, LateWords]] = []
        self._calls: list[Callable[[], None]] = []
        self._sent: tuple[Tensor, torch.cuda.Event | None] | None = None

    def number(self, value: Tensor) -> LateNumber:
        """Take a tensor of one value, to be read as a float."""
        late = LateNumber()
        self._numbers.append((value.detach(), late))
        return late

    def words(self, values: Tensor) -> LateWords:
        """Take an int64 tensor."""
        late = LateWords()
        self._words.append((values.reshape(-1), late))
        return late

    def then(self, call: Callable[[], None]) -> None:
        """Do something once all was read; calls are done in the order in which they came."""
        self._calls.append(call)

    @torch.no_grad()
    def send(self) -> None:
        """Let all that was taken be copied to the host, in one message, when the GPU comes here."""
        parts = [words for words, _ in self._words]
        if self._numbers:
            parts.append(_in_double([value for value, _ in self._numbers]).view(torch.int64))
        if parts:
            self._sent = to_host(torch.cat(parts))

    def read(self) -> None:
        """Wait until all is here, read it, and do what was asked for then."""
        if self._sent:
            host, event = self._sent
            if event:
                event.synchronize()
            ends = len(host) - len(self._numbers)
            words = host[:ends].tolist()
            numbers = host[ends:].view(torch.float64).tolist()
            for values, late in self._words:
                late.values, words = words[: len(values)], words[len(values) :]
            for (_, number), value in zip(self._numbers, numbers, strict=True):
                number.value = value
        for call in self._calls:
            call()


def _in_double(numbers: Sequence[Tensor]) -> Tensor:
    """Return numbers as one float64 tensor: as `float(number.item())` has them, to the bit."""
    flat = [number.reshape(()) for number in numbers]
    if len({(number.dtype, number.device) for number in flat}) == 1:
        return torch.stack(flat).double()
    device = flat[0].device
    return torch.stack([number.to(device, torch.float64, non_blocking=True) for number in flat])


def to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Begin to copy values to the host; return where, and what says that they are there."""
    if not values.is_cuda:
        return values, None
    host = torch.empty_like(values, device="cpu", pin_memory=True)
    host.copy_(values, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(values.device))
    return host, event


class Pending:
    """The steps that are done and not yet read, the oldest first, and the flag that guards them."""

    def __init__(self, device: torch.device, optimizers: Mapping[str, Optimizer]) -> None:
        # float32, as the fused kernels want it, also where the author's default is another one.
        self.flag = torch.zeros((), dtype=torch.float32, device=device)
        self._done: deque[Arriving] = deque()
        self._begun: Arriving | None = None
        self._guards = [
            hook for each in optimizers.values() for hook in _guard(each, lambda: self.flag)
        ]

    def begin(self) -> Arriving:
        """Return what a step that begins puts its numbers into."""
        self._begun = Arriving()
        return self._begun

    @torch.no_grad()
    def watch(self, values: Sequence[Tensor]) -> None:
        """Set the flag, on the device, if one of some values is not finite."""
        numbers = _in_double(values)
        # x - x is 0, or NaN for what is not finite; NaN is not equal to 0, either.
        self.flag.masked_fill_((numbers - numbers).sum().ne(0), 1.0)

    def end(self) -> None:
        """Send what the step that has begun tells, now that it is done; read an older one."""
        if self._begun:
            self._begun.send()
            self._done.append(self._begun)
            self._begun = None
        while len(self._done) > BEHIND:
            self._read()

    def drain(self) -> None:
        """Read all steps that are done: before what has to follow from them."""
        while self._done:
            self._read()

    def give_up_after(self, error: BaseException | None) -> None:
        """Read nothing more if another process has ended: a GPU may wait for its part for ever."""
        if is_of_another_process(error):
            self._forget()

    def close(self, error: BaseException | None = None) -> None:
        """Read all, also of a step that an error has ended; let the optimizers be as they were."""
        self.give_up_after(error)
        try:
            self.end()
            self.drain()
        finally:
            for guard in self._guards:
                guard.remove()

    def _read(self) -> None:
        arriving = self._done.popleft()
        try:
            arriving.read()
        except BaseException:  # the steps after it are not to be told
            self._forget()
            raise

    def _forget(self) -> None:
        self._done.clear()
        self._begun = None


def can_skip(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer changes nothing where a flag on the device says so.

    Torch's fused kernels take it. A class of somebody else may change weights beside them.
    """
    return (
        type(optimizer).__module__.startswith("torch.optim.")
        and getattr(optimizer, "_step_supports_amp_scaling", False)
        and all(group.get("fused") for group in optimizer.param_groups)
    )


class _Guard:
    """Give an optimizer a flag for as long as it does a step, as torch.amp.GradScaler does.

    Where the author's own GradScaler has put one there, either of the two is enough.
    """

    def __init__(self, flag: Callable[[], Tensor]) -> None:
        self._flag = flag
        self._given: Tensor | None = None

    def before(self, optimizer: Optimizer, *_: object) -> None:
        flag = self._flag()
        self._given = getattr(optimizer, "found_inf", None)
        both = flag if self._given is None else torch.maximum(self._given, flag)
        optimizer.found_inf = both  # type: ignore[attr-defined]

    def after(self, optimizer: Optimizer, *_: object) -> None:
        if self._given is None:
            del optimizer.found_inf  # type: ignore[attr-defined]
        else:
            optimizer.found_inf = self._given  # type: ignore[attr-defined]
        self._given = None


def _guard(
    optimizer: Optimizer, flag: Callable[[], Tensor]
) -> "list[torch.utils.hooks.RemovableHandle]":
    guard = _Guard(flag)
    return [
        optimizer.register_step_pre_hook(guard.before),
        optimizer.register_step_post_hook(guard.after),
    ]
