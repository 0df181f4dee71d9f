"""The numbers of a GPU are read late: here without a GPU, in two ways.

The CPU is taken for a device that is read late, so that a whole training runs that way; and what a
step does before its backward is done with tensors that pretend to lie on a GPU (FakeTensorMode).
What a GPU alone can show is in the project's tests/test_gpu.py.
"""

import importlib
import io
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import experiment
import pytest
import torch
from conftest import TASKS
from repro.core.errors import UserError
from repro.runs import fingerprints
from repro.runs.late_fingerprints import Queued, late_fingerprint, late_state_quantities
from repro.runs.numbers import LateStep
from repro.runs.recheck import Recheck
from repro.runs.registered import registered
from repro.runs.session import Session
from repro.runs.sharded_trace import sharded_quantities
from repro.runs.step import Step, Surroundings
from repro.runs.trace import StepInputs, step_quantities
from repro.runs.training_session import TrainingSession
from repro.tasks import Task
from repro.training import pending
from repro.training.beside import MeansBeside
from repro.training.lost_processes import OthersEnded
from repro.training.model_state import restore_optimizer
from repro.training.parallel import backward_in_shards
from repro.training.pending import Arriving, Pending, can_skip
from repro.training.processes import Processes
from repro.training.scale.engines import DistributedEngine
from repro.training.weighted import Weighted
from test_session import (
    Settings,
    as_it_was,
    by_hand,
    data,
    loop,
    network,
    plain,
    root,
    squares,
    training,
    two_networks,
)
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["as_it_was", "root"]  # fixtures

Loop = Callable[[Session], None]


@pytest.fixture
def late() -> Iterator[Callable[[], None]]:
    """From the call on, the CPU is a device whose numbers are read late."""
    yield lambda: pending.LATE_ON.add("cpu")
    pending.LATE_ON.discard("cpu")


def trained(own: Loop, session: Session) -> None:
    """Call a loop as the command does: what an error has ended is closed."""
    try:
        own(session)
    finally:
        session.close()


def two_losses(session: Session) -> None:
    """Two optimizers, of which one has no gradient in every other step, and means beside a loss."""
    model, _ = two_networks(session)

    def loss(name: str) -> Callable[[list[Tensor]], Weighted]:
        def of_batch(batch: list[Tensor]) -> Weighted:
            errors = model[name](batch[0]) - batch[1]
            also = {f"far_{name}": (errors.abs() > 1).sum(), f"half_{name}": 0.5}
            return Weighted(errors.square().sum(), torch.tensor(len(errors)), also=also)

        return of_batch

    for step in session.steps(data(), 6, epochs=3, validate_every=5):
        critic = step.backward(loss("critic"), optimizer="critic")
        norm = step.update("critic", clip=0.5)
        mean = step.backward(loss("main"), optimizer="main")
        step.update("main")
        step.done(loss=mean, critic=critic, norm=norm, third=1 / 3, **step.also)
        if step.validate_now:
            with session.evaluating():
                session.validated(loss=model["main"](data().tensors[0]).mean())


def own_batches(session: Session) -> None:
    session.data({})
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    session.register(model=model, optimizers=optimizer)
    for step in session.steps(steps=9):
        step.take([part[step.index : step.index + 8] for part in data().tensors])
        mean = step.backward(squares(model))
        step.gradients()
        norm = step.update()
        step.done(loss=mean, norm=norm)
        if step.number == 7:
            session.stop()


def four_shards(session: Session) -> None:
    session.data({})
    with session.seeded("init"):
        model = nn.Sequential(network(), nn.BatchNorm1d(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    session.register(model=model, optimizers=optimizer)

    def loss(batch: list[Tensor]) -> Weighted:
        errors = (model(batch[0]) - batch[1]).square()
        weight = batch[0].abs()[:, :1]
        also = {"errors": errors.sum()}
        return Weighted((errors * weight).sum(), weight.sum(), also=also)

    for step in session.steps(data(23), 12, epochs=4):
        mean = step.backward(loss)
        step.done(loss=mean, norm=step.update(clip=0.7), **step.also)


LOOPS: dict[str, tuple[Loop, dict[str, Any]]] = {
    "plain": (plain, {}),
    "by hand": (by_hand, {}),
    "two losses": (two_losses, {}),
    "batches of its own": (own_batches, {}),
    "four shards": (four_shards, {"training": Settings(shards=4, max_steps=None)}),
    "computed twice": (
        four_shards,
        {"training": Settings(shards=4, max_steps=None, recheck_every=2)},
    ),
    "workers": (plain, {"num_workers": 2}),
    "without a trace": (
        plain,
        {"output": Settings(log_every=3, checkpoint_every=None, keep_checkpoints=9, trace=False)},
    ),
}


def _untimed(line: str) -> str:
    """A line of a validation without the time that is left."""
    return re.sub(r"\S+ left$", "", line)


def all_files(folder: Path) -> dict[str, bytes]:
    """All that was logged, traced and saved; the trace's header tells nothing of a loop."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".yaml"]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in paths
        if path.name not in ("experiment_context.json", "command.txt")
    }


@pytest.mark.parametrize("name", LOOPS)
def test_what_is_read_late_is_logged_and_saved_as_what_is_read_at_once(
    root: Path, late: Callable[[], None], name: str
) -> None:
    own, changes = LOOPS[name]
    printed = io.StringIO(), io.StringIO()
    with redirect_stdout(printed[0]):
        own(training(root, **changes))
    late()
    with redirect_stdout(printed[1]):
        own(training(root, "two", **changes))
    at_once, afterwards = (text.getvalue().splitlines() for text in printed)
    assert [_untimed(line) for line in afterwards] == [_untimed(line) for line in at_once]
    one, two = (all_files(root / "runs" / run) for run in ("one", "two"))
    assert "metrics.jsonl" in one
    assert one == two


NUMBERS = ("item", "tolist", "numpy", "cpu", "to", "__bool__", "__float__", "__int__", "__index__")


class Reads:
    """Each call by which a number of a tensor comes to Python, and from where."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outside: list[str] = []
        self.allowed = 0
        self.is_on = False
        for name in NUMBERS:
            self._watch(monkeypatch, name, getattr(Tensor, name))

    def _watch(self, monkeypatch: pytest.MonkeyPatch, name: str, old: Any) -> None:
        def watched(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
            frame = sys._getframe(1)
            code = frame.f_code
            known = (code.co_name, Path(code.co_filename).name) == ("read", "pending.py")
            is_torch = "site-packages" in code.co_filename  # norms go to where the first one is
            moves = name == "to" and (is_torch or _keeps_device(arguments, options))
            if self.is_on and known:
                self.allowed += 1
            elif self.is_on and not moves:
                self.outside.append(f"{name} in {code.co_filename}:{frame.f_lineno}")
            return old(tensor, *arguments, **options)

        monkeypatch.setattr(Tensor, name, watched)


def _keeps_device(arguments: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Whether `to` makes another type, or goes to where it does not wait."""
    named = [*arguments, *options.values()]
    to_a_device = any(isinstance(each, str | torch.device) for each in named)
    return not to_a_device or options.get("non_blocking", False)


@pytest.mark.parametrize("name", ["plain", "two losses", "four shards", "batches of its own"])
def test_no_number_is_read_but_by_the_one_function_that_reads(
    root: Path, late: Callable[[], None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """From the first backward to the end of `step.done`; the first step and checkpoints wait."""
    late()
    reads = Reads(monkeypatch)

    def watch(method: str, begins: bool) -> None:
        old = getattr(Step, method)

        def watched(step: Step, *arguments: Any, **options: Any) -> Any:
            reads.is_on = step.number > 1
            try:
                return old(step, *arguments, **options)
            finally:
                reads.is_on = reads.is_on and begins

        monkeypatch.setattr(Step, method, watched)

    watch("backward", begins=True)
    watch("done", begins=False)
    # A trace's lines are written when there is time: from host memory by then.
    monkeypatch.setattr("repro.runs.trace._WAITING", 10_000)
    monkeypatch.setattr("repro.runs.trace._SECONDS", 10_000)
    own, changes = LOOPS[name]
    own(training(root, **changes))
    assert reads.outside == []
    assert reads.allowed > 3


def diverging(at: int, optimizer: Callable[..., torch.optim.Optimizer], **options: Any) -> Loop:
    """A loop whose loss, or whose gradient alone, is infinite in one step, and which looks on."""

    def own(session: Session) -> None:
        session.data({})
        with session.seeded("init"):
            model = network()
        made = optimizer(model.parameters(), **options)
        session.register(model=model, optimizers=made)
        session.notes["seen"] = 0
        factor = float("inf")

        def loss(batch: list[Tensor]) -> Weighted:
            errors = model(batch[0]) - batch[1]
            total = errors.square().sum()
            return Weighted(total * factor if step.number == at else total, len(errors))

        for step in session.steps(data(), 6, epochs=3):
            mean = step.backward(loss)
            norm = step.update(clip=1.0)
            STATES.append(
                [t.clone() for t in [*model.parameters(), *_tensors(made.state_dict()["state"])]]
            )
            step.done(loss=mean, norm=norm)

    return own


STATES: list[list[Tensor]] = []  # after each step: weights and moments


def _tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else []
    return [tensor for part in parts for tensor in _tensors(part)]


FUSED: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "AdamW": (torch.optim.AdamW, {"fused": True}),
    "AdamW amsgrad": (torch.optim.AdamW, {"fused": True, "amsgrad": True}),
    "Adam": (torch.optim.Adam, {"fused": True, "weight_decay": 0.1}),
    "SGD": (torch.optim.SGD, {"fused": True, "lr": 0.1}),
    "SGD momentum": (torch.optim.SGD, {"fused": True, "lr": 0.1, "momentum": 0.9}),
    "Adagrad": (torch.optim.Adagrad, {"fused": True}),
}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("at", [2, 6, 7])
def test_no_step_after_a_loss_that_is_not_finite_changes_anything(
    root: Path, late: Callable[[], None], name: str, at: int
) -> None:
    """It is told in the words that are used at once, and what was logged is the same."""
    kind, options = FUSED[name]
    with pytest.raises(UserError) as at_once:
        trained(diverging(at, kind, **options), training(root))
    late()
    STATES.clear()
    session = training(root, "two")
    with pytest.raises(UserError) as told:
        trained(diverging(at, kind, **options), session)
    assert told.value.lines == at_once.value.lines
    assert told.value.lines[0].startswith(f"step {at}: loss inf, gradient norm nan")
    assert f"samples, in epoch {(at - 1) // 4 + 1}" in told.value.lines[1]
    behind = STATES[at - 2 :]
    assert len(behind) >= (2 if at % 4 == 0 else 3) - (at == 7)  # queued before it was read
    for state in behind[1:]:
        for before, now in zip(behind[0], state, strict=True):
            assert torch.equal(before, now)
    one, two = (all_files(root / "runs" / run) for run in ("one", "two"))
    assert one.keys() == two.keys()  # no checkpoint more
    assert one["metrics.jsonl"] == two["metrics.jsonl"]


def test_gradients_of_shards_are_weighted_late_to_the_bit_as_at_once(
    late: Callable[[], None],
) -> None:
    """Of 49 samples: 49 times the reciprocal of 49 is not 1 in float64."""
    processes = Processes(2, torch.device("cpu"))
    inputs = torch.rand(49, 3, dtype=torch.float64)
    model = nn.Linear(3, 1, dtype=torch.float64)

    def loss(_: int, batch: Tensor) -> Weighted:
        return Weighted(model(batch).sum(), torch.tensor(len(batch)))

    found = []
    for told in (None, lambda *_: None):
        model.zero_grad()
        mean = backward_in_shards(model, [inputs[:24], inputs[24:]], 49, processes, loss, told)
        found.append((mean, model.weight.grad.clone()))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_a_flag_once_set_stays_set(root: Path, late: Callable[[], None]) -> None:
    late()
    kept = Pending(torch.device("cpu"), {})
    for values, expected in (([1.0, 2.0], 0), ([math.nan], 1), ([1.0], 1), ([-math.inf, 3], 1)):
        kept.watch([torch.tensor(value) for value in values])
        assert kept.flag.item() == expected


def test_an_own_loop_that_does_its_steps_by_hand_learns_nothing_after_a_bad_number(
    root: Path, late: Callable[[], None]
) -> None:
    late()
    STATES.clear()

    def own(session: Session) -> None:
        for step, model, optimizer in loop(session):
            loss = (model(step.batch[0]) - step.batch[1]).square().mean()
            loss.backward()
            optimizer.step()
            STATES.append([p.detach().clone() for p in model.parameters()])
            step.done(loss=loss * math.nan if step.number == 5 else loss)

    session = training(root)
    with pytest.raises(UserError, match=r"step 5: loss nan"):
        trained(own, session)
    assert len(STATES) > 5
    for state in STATES[5:]:
        assert all(map(torch.equal, STATES[4], state))


def test_a_number_that_the_host_knows_is_refused_after_those_before_it(
    root: Path, late: Callable[[], None]
) -> None:
    late()

    bad = 4

    def own(session: Session) -> None:
        for step, model, _ in loop(session):
            mean = step.backward(squares(model))
            norm = step.update()
            mean = mean * math.nan if step.number == bad else mean
            step.done(loss=mean, norm=norm, rate=math.inf if step.number == 3 else 1.0)

    with pytest.raises(UserError, match=r"^step 3: loss .*, norm .*, rate inf: expected"):
        trained(own, training(root))
    bad = 2
    with pytest.raises(UserError, match=r"^step 2: loss nan, norm .*, rate 1.0: expected"):
        trained(own, training(root, "two"))


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("shards", [1, 2])
def test_weights_that_nothing_can_be_divided_by_are_told_as_they_are_at_once(
    root: Path, late: Callable[[], None], weight: float, shards: int
) -> None:
    def own(session: Session) -> None:
        for step, model, _ in loop(session):
            bad = step.number == 3

            def loss(batch: list[Tensor], model: nn.Module = model, bad: bool = bad) -> Weighted:
                errors = (model(batch[0]) - batch[1]).square().sum()
                weights = torch.tensor(weight if bad else float(len(batch[0])))
                return Weighted(errors, weights)

            mean = step.backward(loss)
            step.done(loss=mean, norm=step.update())
            weights_after.append([p.detach().clone() for p in model.parameters()])

    def lines(name: str) -> list[str]:
        weights_after.clear()
        session = training(root, name, training=Settings(shards=shards, max_steps=None))
        with pytest.raises(UserError) as told:
            trained(own, session)
        return told.value.lines

    weights_after: list[list[Tensor]] = []
    at_once = lines("one")
    assert len(weights_after) == 2
    late()
    assert lines("two") == at_once
    for state in weights_after[2:]:
        assert all(map(torch.equal, weights_after[1], state))


class Mine(torch.optim.SGD):
    """An author's own: torch's fused kernel, and a change beside it."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(0.999)


def test_an_optimizer_that_cannot_skip_a_step_waits_and_the_run_says_so_once(
    root: Path, late: Callable[[], None]
) -> None:
    late()
    kinds = ((torch.optim.SGD, {"lr": 0.1}), (Mine, {"lr": 0.1, "fused": True}))
    for number, (kind, options) in enumerate(kinds):
        STATES.clear()
        told = io.StringIO()
        with redirect_stdout(told), pytest.raises(UserError, match=r"step 6: loss inf"):
            trained(diverging(6, kind, **options), training(root, str(number)))
        assert len(STATES) == 5  # it was read before the update
        (line,) = [each for each in told.getvalue().splitlines() if "waits" in each]
        fused = "" if "fused" in options else ", not fused"
        assert line.startswith(f"the optimizer model ({kind.__name__}{fused}) cannot skip a step")


def test_what_can_skip_a_step() -> None:
    weights = [nn.Parameter(torch.ones(2))]
    for kind, options in FUSED.values():
        assert can_skip(kind(weights, **options))
    mixed = torch.optim.AdamW([{"params": weights, "fused": False}], fused=True)
    others = [torch.optim.SGD(weights), torch.optim.AdamW(weights), Mine(weights, fused=True)]
    assert not any(map(can_skip, [mixed, *others, torch.optim.RMSprop(weights)]))


def test_a_scaler_of_the_authors_own_skips_steps_too(late: Callable[[], None]) -> None:
    late()
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=True)
    kept = Pending(torch.device("cpu"), {"model": optimizer})
    weight.grad = torch.ones(2)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert weight.tolist() == [1, 1]
    assert optimizer.found_inf.item() == 1
    del optimizer.found_inf
    optimizer.step()
    assert weight.tolist() == [0, 0]
    kept.watch([torch.tensor(math.nan)])
    optimizer.step()
    assert weight.tolist() == [0, 0]
    assert not hasattr(optimizer, "found_inf")
    kept.close()
    optimizer.step()  # the next training's
    assert weight.tolist() == [-1, -1]


@pytest.mark.parametrize("name", FUSED)
def test_fused_kernels_take_the_flag_whatever_the_default_type_is(name: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        weight = nn.Parameter(torch.ones(2))
        kind, options = FUSED[name]
        optimizer = kind([weight], **options)
        kept = Pending(torch.device("cpu"), {"model": optimizer})
        weight.grad = torch.ones(2)
        optimizer.step()
        before = weight.tolist()
        assert before != [1, 1]
        kept.watch([torch.tensor(math.nan)])
        optimizer.step()
        assert weight.tolist() == before
    finally:
        torch.set_default_dtype(torch.float32)


def lines_of(root: Path) -> list[str]:
    return (root / "runs" / "one" / "metrics.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    "how", ["validated", "evaluating", "validate_now", "predict", "checkpoint"]
)
def test_all_is_read_before_what_follows_from_it(
    root: Path, late: Callable[[], None], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written of step 6, whose loss is not finite, nor of a validation after it."""
    late()
    reached = []

    def own(session: Session) -> None:
        for step, model, _ in loop(session, best=("loss", "min")):
            mean = step.backward(squares(model))
            norm = step.update()
            step.validate_now = how == "validate_now" and step.number == 6
            step.done(loss=mean * math.nan if step.number == 6 else mean, norm=norm)
            if step.number == 6:
                reached.append("done")
                if how == "evaluating":
                    with session.evaluating():
                        reached.append("looked")
                elif how == "predict":
                    session.predict(data(), 6, lambda batch: reached.append("looked"))
                elif how == "validated":
                    session.validated(loss=0.0)
                    reached.append("validated")

    every = 6 if how == "checkpoint" else 4
    output = Settings(log_every=1, checkpoint_every=every, keep_checkpoints=9, trace=True)
    with pytest.raises(UserError, match=r"step 6: loss nan"):
        trained(own, training(root, output=output))
    assert reached == ([] if how == "validate_now" else ["done"])
    assert len(lines_of(root)) == 5
    checkpoints = {path.name for path in (root / "runs" / "one" / "checkpoints").glob("step-*")}
    assert len(checkpoints) == (0 if how == "checkpoint" else 1)


def test_sigterm_and_an_error_of_the_authors_leave_all_that_was_done(
    root: Path, late: Callable[[], None]
) -> None:
    def own(session: Session) -> None:
        for step, model, _ in loop(session):
            step.done(loss=step.backward(squares(model)), norm=step.update())
            if step.number == 6 and is_killed:
                os.kill(os.getpid(), signal.SIGTERM)
            elif step.number == 6:
                raise KeyError("mine")

    for is_killed in (True, False):
        found = []
        for name in ("at-once", "late"):
            if name == "late":
                late()
            with suppress(KeyError):
                trained(own, training(root, f"{name}-{is_killed}"))
            pending.LATE_ON.discard("cpu")
            found.append(all_files(root / "runs" / f"{name}-{is_killed}"))
        assert len(found[0]["metrics.jsonl"].splitlines()) == (7 if is_killed else 6)
        assert found[0] == found[1]


def test_a_fault_that_led_to_an_error_of_the_authors_is_told(
    root: Path, late: Callable[[], None]
) -> None:
    late()

    def own(session: Session) -> None:
        for step, model, _ in loop(session):
            mean = step.backward(squares(model))
            mean = mean * math.nan if step.number == 6 else mean
            step.done(loss=mean, norm=step.update())
            if step.number == 7:
                raise KeyError("what came of it")

    session = training(root)
    with pytest.raises(UserError, match=r"step 6: loss nan"):
        trained(own, session)


def test_nothing_is_waited_for_after_another_process_has_ended(
    root: Path, late: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU in the middle of an exchange would never come to what is not read yet."""
    late()
    read = []
    old = Arriving.read
    monkeypatch.setattr(Arriving, "read", lambda arriving: (read.append(arriving), old(arriving)))

    def own(session: Session) -> None:
        for step, model, _ in loop(session):
            if step.number == 7:
                read.clear()
                raise error
            step.done(loss=step.backward(squares(model)), norm=step.update())

    for error, expected in ((OthersEnded("gone"), 0), (KeyError("mine"), 3)):
        with pytest.raises(type(error)):
            trained(own, training(root, type(error).__name__))
        assert len(read) == expected

    class Failing(TrainingSession):
        """What it does itself after a step, such as to save, fails."""

        def _goes_on(self, step: Step) -> bool:
            if step.number == 6:
                read.clear()
                raise OthersEnded("gone")
            return super()._goes_on(step)

    monkeypatch.setattr("test_session.TrainingSession", Failing)
    with pytest.raises(OthersEnded):
        trained(own, training(root, "itself"))
    assert not read


def test_rows_of_the_host_go_to_the_gpus_to_be_exchanged(
    fake_gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL takes no tensors of the host."""
    two = Processes(2, fake_gpu)
    two.size = 2
    monkeypatch.setattr(two, "texts", lambda own: [own, own.replace("[3, 4]", "[2, 4]")])
    sent: list[torch.device] = []
    monkeypatch.setattr(two, "copy_from", lambda _, tensors: sent.extend(t.device for t in tensors))
    assert two.concatenate(torch.rand(3, 4), [3, 2]).shape == (5, 4)
    assert sent == [fake_gpu, fake_gpu]


def test_the_count_of_steps_of_a_lone_number_stays_on_the_host(fake_gpu: torch.device) -> None:
    """Where torch keeps it, for an optimizer that is not fused: on a GPU each step would wait."""
    for fused in (False, True):
        weight = nn.Parameter(torch.rand((), device=fake_gpu))
        optimizer = torch.optim.AdamW([weight], fused=fused)
        moments = {"step": torch.tensor(3.0), "exp_avg": torch.rand(())}
        moments["exp_avg_sq"] = torch.rand(())
        restore_optimizer(optimizer, {**optimizer.state_dict(), "state": {0: moments}})
        devices = {name: each.device.type for name, each in optimizer.state[weight].items()}
        steps = "cuda" if fused else "cpu"
        assert devices == {"step": steps, "exp_avg": "cuda", "exp_avg_sq": "cuda"}


class Kernels(TorchDispatchMode):
    """Count what a device would compute: all operations but views and new memory."""

    free = ("view", "slice", "detach", "empty", "as_strided", "alias", "reshape", "select")

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").partition(".")[0]
        if not name.startswith(self.free) and not name.startswith("_unsafe_view"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


class Block(nn.Module):
    """Layers of a ResNet, in their numbers: float32 and int64."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            module for _ in range(20) for module in (nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64))
        )


@pytest.mark.parametrize("make", [Block, network, lambda: nn.Linear(300, 300, bias=False)])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_fingerprints_of_a_step_take_six_kernels_at_most(
    make: Callable[[], nn.Module], frozen: bool
) -> None:
    model = make()
    parameters = [*model.parameters()]
    for number, parameter in enumerate(parameters):
        skipped = frozen and number == len(parameters) - 1 and number
        parameter.grad = None if skipped else torch.rand_like(parameter)
    expected = fingerprints.state_quantities(model)()
    late_state_quantities(model, Arriving())  # makes what later steps have
    kernels = Kernels()
    arriving = Arriving()
    with kernels:
        quantities = late_state_quantities(model, arriving)
    for parameter in parameters:
        parameter.grad = None  # what was taken is of that moment
    assert len(kernels.names) <= 6, kernels.names
    arriving.send()
    arriving.read()
    assert quantities() == expected


def test_of_a_large_model_the_large_tensors_are_read_where_they_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("repro.runs.late_fingerprints._MOST", 1000)
    model = nn.Sequential(nn.Linear(200, 200), nn.Linear(200, 3))
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    arriving = Arriving()
    quantities = late_state_quantities(model, arriving)
    arriving.send()
    arriving.read()
    assert quantities() == fingerprints.state_quantities(model)()


def test_tensors_of_all_types_have_the_fingerprints_that_they_have_at_once(
    late: Callable[[], None],
) -> None:
    late()
    types = (torch.float32, torch.bfloat16, torch.uint8, torch.bool, torch.complex64, torch.int64)
    tensors = [
        torch.randint(0, 2, (size,)).to(dtype) for dtype in types for size in (0, 1, 7, 20_000)
    ]
    tensors += [None, torch.rand(5, 7).t(), torch.rand(3, 4)[:, 1:], torch.tensor(3.0)]
    for _ in range(2):
        arriving = Arriving()
        found = late_fingerprint(tensors, arriving)
        arriving.send()
        arriving.read()
        assert found() == fingerprints.as_int64(fingerprints.fingerprint(tensors))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]
)
def test_a_number_arrives_as_the_float_that_item_gives(dtype: torch.dtype) -> None:
    arriving = Arriving()
    values = [torch.tensor(value).to(dtype) for value in (0.1, -2.5, 2**40 + 1 / 3, -0.0)]
    values.append(torch.tensor([1 / 3]))
    numbers = [arriving.number(value) for value in values]
    words = arriving.words(torch.tensor([2**62, -5]))
    arriving.send()
    arriving.read()
    assert [repr(n.value) for n in numbers] == [repr(float(value.item())) for value in values]
    assert words.values == [2**62, -5]


# Tensors that pretend to lie on a GPU ------------------------------------------------------------


class Waiting(TorchDispatchMode):
    """Raise an error for a copy between host and GPU that waits: a list put there, `to(device)`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        made = func(*args, **options)
        named = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
        if named and not options.get("non_blocking", len(args) > 2 and args[2]):
            kinds = {each.device.type for each in (*args, made) if isinstance(each, Tensor)}
            if len(kinds) > 1:
                raise DataDependentOutputException("a copy that waits")
        return made


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Tensors on cuda that raise an error wherever a value of theirs is asked for."""

    def refused(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
        named = [*arguments, *options.values()]
        if any(str(each) == "cpu" for each in named) or (not named):
            raise DataDependentOutputException("a copy to the CPU")
        return to(tensor, *arguments, **options)

    to = Tensor.to
    monkeypatch.setattr(Tensor, "to", refused)
    monkeypatch.setattr(Tensor, "cpu", refused)
    monkeypatch.setattr(fingerprints, "_multipliers", {})
    monkeypatch.setattr("repro.training.pending.to_host", lambda words: (words, None))
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield torch.device("cuda", 0)


def forward_only(*_: Any) -> None:
    """In place of a backward, which needs a GPU's threads."""


@pytest.mark.parametrize("shards", [1, 2])
def test_forward_loss_metrics_and_trace_ask_a_gpu_for_nothing(
    fake_gpu: torch.device,
    late: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    shards: int,
) -> None:
    monkeypatch.setattr(Tensor, "backward", forward_only)
    with fake_gpu:
        model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    processes = Processes(shards, fake_gpu)
    kept = Pending(fake_gpu, {"model": optimizer})
    known = registered(model, optimizer, None)
    ended: list[Any] = []
    around = Surroundings(
        known, processes, fake_gpu, 0, None, lambda *told: ended.append(told),
        MeansBeside(processes), Recheck(None, known, None), pending=kept,
    )  # fmt: skip

    def loss(batch: list[Tensor]) -> Weighted:
        errors = model(batch[0]) - batch[1]
        weight = batch[0][:, 0].sum()
        return Weighted(errors.square().sum(), weight, also={"far": (errors > 1).sum(), "n": 3})

    batch = [[torch.rand(4, 3, device=fake_gpu), torch.rand(4, 1, device=fake_gpu)]] * shards
    step = Step(0, around, 0, False, batch, batch, torch.arange(4 * shards), 4 * shards)
    step.late = LateStep(kept, None, 0)
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    with Waiting():
        mean = step.backward(loss)
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    with Waiting():
        step.gradients()
        norm = step.update(clip=1.0)
        numbers = {"loss": mean, "norm": norm, **step.also, "rate": 0.1}
        step.done(**numbers)
    late()  # the samples' indices lie on the CPU, where they may be read
    ((done, told),) = ended
    quantities, asked = step_quantities(
        model, StepInputs(torch.arange(4 * shards), batch, 4 * shards), processes, told, False,
        done.gradients_of, Arriving(),
    )  # fmt: skip
    assert quantities
    assert not asked
    with pytest.raises((DataDependentOutputException, RuntimeError)):
        mean.item()
    with pytest.raises(DataDependentOutputException):
        norm.cpu()


@pytest.mark.parametrize("large", [False, True])
def test_the_trace_of_weights_in_parts_asks_a_gpu_for_nothing(
    fake_gpu: torch.device, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr("repro.runs.late_fingerprints._MOST", 1000)
    with fake_gpu:
        model = nn.Sequential(nn.Linear(200, 200), nn.BatchNorm1d(200))
    for parameter in [*model.parameters()][1:]:
        parameter.grad = torch.rand_like(parameter)
    alone = Processes(1, fake_gpu)
    inputs = StepInputs(torch.arange(0), [None], 0)
    for step in range(2):
        waiting = Waiting() if step else nullcontext()  # the first step makes what later ones have
        arriving = Arriving()
        with waiting:
            quantities, _ = sharded_quantities(
                model, inputs, alone, {"loss": 0.0}, False, {}, arriving
            )
            arriving.send()
        assert quantities


def test_ddp_has_no_unused_parameter_of_the_kits_on_a_gpu(
    fake_gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait in each step, to ask the others of that one; on a CPU it would warn."""
    made: list[nn.Module] = []
    monkeypatch.setattr(
        "repro.training.scale.engines.DistributedDataParallel", lambda root, **_: made.append(root)
    )
    for device in (fake_gpu, torch.device("cpu")):
        model = nn.Linear(3, 1, device=device)
        DistributedEngine(Processes(1, device), 25).take(model, {})
        unused = {*dict(made.pop().named_parameters())} - {"model.weight", "model.bias", "always"}
        assert unused == (set() if device.type == "cuda" else {"never"})


@pytest.mark.parametrize("most", [1, 1 << 25])
def test_fingerprints_that_stay_there_are_those_that_are_read(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("repro.runs.late_fingerprints._MOST", most)
    groups = [[torch.rand(200, 200), None, torch.rand(3)], [], [torch.ones(5, dtype=torch.int64)]]
    expected = [fingerprints.fingerprint(group) for group in groups]
    queued = Queued(groups)
    for _ in range(2):
        assert queued.there([tensor for group in groups for tensor in group]).tolist() == expected


@pytest.fixture
def of_task() -> Iterator[Callable[[str, str], Any]]:
    """Import a module of experiment/ as a task has it."""
    mine = {name: sys.modules[name] for name in sys.modules if name.startswith("experiment.")}
    path = [*experiment.__path__]

    def forget() -> None:
        for name in [name for name in sys.modules if name.startswith("experiment.")]:
            del sys.modules[name]

    def module(task: str, name: str) -> Any:
        if str(TASKS / task) not in experiment.__path__[-1]:
            forget()
            experiment.__path__[:] = [*path[:1], str(TASKS / task / "experiment")]
        return importlib.import_module(f"experiment.{name}")

    yield module
    forget()
    experiment.__path__[:] = path
    sys.modules.update(mine)


ATTENTIVE = {"width": 16, "depth": 1, "heads": 2, "dropout": 0.1, "attention": "math"}
RESNET = {"name": "resnet18", "weights_sha256": None}
# Of each model: its task, its class in config.py, its settings, facts of its data, and a batch.
MODELS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], Callable[[], Any]]] = {
    "cnn": (
        "images", "SmallCNN", {"name": "small_cnn", "width": 8, "dropout": 0.2},
        {"classes": [*"01"], "shape": [1, 8, 8]},
        lambda: [torch.rand(4, 1, 8, 8), torch.ones(4, dtype=torch.int64)],
    ),
    **{
        f"resnet, {stem} stem": (
            "images", "ResNet18", {**RESNET, "stem": stem},
            {"classes": [*"01"], "shape": [3, 32, 32]},
            lambda: [torch.rand(4, 3, 32, 32), torch.ones(4, dtype=torch.int64)],
        )
        for stem in ("small", "imagenet")
    },
    "image transformer": (
        "images", "ImageTransformer", {**ATTENTIVE, "name": "image_transformer", "patch": 4},
        {"classes": [*"01"], "shape": [1, 8, 8]},
        lambda: [torch.rand(4, 1, 8, 8), torch.ones(4, dtype=torch.int64)],
    ),
    "gpt": (
        "text", "GPT", {**ATTENTIVE, "name": "gpt", "context": 8}, {"vocabulary": [*"abc"]},
        lambda: torch.ones(4, 9, dtype=torch.int64),
    ),
    "mlp": (
        "table", "MLP", {"name": "mlp", "width": 8, "depth": 2, "dropout": 0.1},
        {"columns": [*"abc"]}, lambda: [torch.rand(4, 3), torch.rand(4)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_no_model_of_the_templates_waits_for_a_gpu(
    of_task: Callable[[str, str], Any], fake_gpu: torch.device, name: str
) -> None:
    task, kind, settings, facts, batch = MODELS[name]
    chosen = getattr(of_task(task, "config"), kind)(**settings)
    (made,) = [
        each
        for each in vars(of_task(task, "task")).values()
        if isinstance(each, type) and issubclass(each, Task) and each is not Task
    ]
    with fake_gpu:
        own = made(SimpleNamespace(model=chosen), facts)
        given = batch()
    with Waiting():
        part = own.loss(given)
    assert part.mean().device == fake_gpu


def test_a_number_on_the_host_is_read_beside_those_of_a_gpu(fake_gpu: torch.device) -> None:
    """The loss of a step that was computed twice, and the norm of no gradients, lie there."""
    kept = Pending(fake_gpu, {})
    step = LateStep(kept, None, 0)
    here = {"loss": torch.tensor(0.5), "norm": torch.tensor(0.0)}
    numbers = {**here, "other": torch.rand((), device=fake_gpu)}
    step.check(numbers)
    assert numbers["loss"] == 0.5
    assert numbers["norm"] == 0.0
    assert isinstance(numbers["other"], Tensor)
    step.arriving.send()


def test_one_number_of_the_wrong_kind_is_refused_without_being_read(
    root: Path, late: Callable[[], None]
) -> None:
    late()
    bad = "two"
    values = {"two": torch.ones(2), "complex": torch.ones(1, dtype=torch.complex64), "text": "1"}

    def own(session: Session) -> None:
        for step, model, _ in loop(session):
            step.done(loss=step.backward(squares(model)), **{bad: values[bad]})

    for bad in values:
        with pytest.raises(
            UserError, match=rf"step.done\({bad}=...\) is a [\w ,\[\]]+: expected one"
        ):
            trained(own, training(root, bad))


def test_a_training_session_alone_reads_late() -> None:
    assert TrainingSession.reads_late
    assert not Session.reads_late
