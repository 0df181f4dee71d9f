"""A session in this process: what it refuses, what it keeps, and that a loop of one's own has the
bits of a plain one. tests/project/test_own_loop.py trains with the real commands.
"""

import copy
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TEMPLATE
from repro.core.errors import UserError
from repro.core.hashing import derive_seed
from repro.data.manifest import data_digest, tree_digests
from repro.diagnosis.operations import Recorder
from repro.diagnosis.replay_session import ReplaySession
from repro.publishing.packed_data import find_data
from repro.runs import folder
from repro.runs.run_result import read_result
from repro.runs.session import Session
from repro.runs.training_session import TrainingSession
from repro.training.seeding import seed_generators
from repro.training.weighted import Weighted
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

STEPS = 12
MEMORY = np.empty((6, 3), np.float32)
PHASES = ("data_split", "model_init", "training", "evaluation")


class Settings(SimpleNamespace):
    """Settings as an author's config has them."""

    def model_dump(self, mode: str = "") -> dict[str, Any]:
        return {
            name: value.model_dump() if isinstance(value, Settings) else value
            for name, value in vars(self).items()
        }

    def bits_settings(self) -> dict[str, Any]:
        free = ("run_dir", "resume", "output", "num_workers")
        return {name: value for name, value in self.model_dump().items() if name not in free}


def settings(**changes: Any) -> Settings:
    seeds = {name: derive_seed(1, name) for name in PHASES}
    plain = {
        "name": "mine",
        "seed": 1,
        "seeds": Settings(**seeds),
        "profile": "portable",
        "threads": 1,
        "determinism": "strict",
        "device": "cpu",
        "num_workers": 0,
        "run_dir": None,
        "resume": None,
        "tracker": Settings(name="none"),
        "training": Settings(shards=1, max_steps=None),
        "output": Settings(log_every=1, checkpoint_every=4, keep_checkpoints=9, trace=True),
    }
    return Settings(**{**plain, **changes})


def data(samples: int = 24) -> TensorDataset:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(samples, 3, generator=generator)
    return TensorDataset(x, x.sum(1, keepdim=True))


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """A session sets flags of torch, and SIGTERM's handler."""
    flags = torch.are_deterministic_algorithms_enabled()
    handler = signal.getsignal(signal.SIGTERM)
    yield
    torch.use_deterministic_algorithms(flags)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "requirements.lock").write_text("")
    (tmp_path / "runs").mkdir()
    return tmp_path


def quiet(run: Path) -> AbstractContextManager[None]:
    return nullcontext()


def training(root: Path, name: str = "one", **changes: Any) -> TrainingSession:
    return TrainingSession(root, settings(run_dir=f"runs/{name}", **changes), quiet)


Loop = Callable[[Session], None]


def loop(session: Session, with_shadow: bool = False, **registered: Any) -> Iterator[Any]:
    """What most loops here begin with."""
    session.data({"of": "the test"})
    with session.seeded("init"):
        model = network()
    if with_shadow:  # an average as a plain attribute
        model.shadow = {name: model.get_parameter(name).clone() for name in ("0.weight", "0.bias")}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    session.register(model=model, optimizers=optimizer, **registered)
    for step in session.steps(data(), 6, epochs=3):
        yield step, model, optimizer


def squares(model: nn.Module) -> Callable[[list[Tensor]], Weighted]:
    def loss(batch: list[Tensor]) -> Weighted:
        difference = model(batch[0]) - batch[1]
        return Weighted(difference.square().sum(), weight=len(difference))

    return loss


def plain(session: Session) -> None:
    for step, model, _ in loop(session):
        step.done(loss=step.backward(squares(model)), norm=step.update())


def by_hand(session: Session) -> None:
    """The same by the author's own backward."""
    for step, model, optimizer in loop(session):
        seed_generators(derive_seed(session.seeds.training, "step", step.index, 0))
        optimizer.zero_grad()
        loss = (model(step.batch[0]) - step.batch[1]).square().sum() / len(step.batch[0])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
        optimizer.step()
        step.done(loss=loss, norm=norm)


def two_networks(session: Session) -> tuple[nn.ModuleDict, dict[str, torch.optim.Optimizer]]:
    """Register two networks with an optimizer each."""
    session.data({})
    with session.seeded("init"):
        model = nn.ModuleDict({"main": network(), "critic": network()})
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.SGD(model[name].parameters(), lr=0.1, fused=True) for name in model
    }
    session.register(model=model, optimizers=optimizers)
    return model, optimizers


def files(root: Path, name: str) -> dict[str, bytes]:
    run = root / "runs" / name
    last = run / "checkpoints" / "last"
    paths = [run / "trace.jsonl", run / "metrics.jsonl", *sorted(last.resolve().iterdir())]
    return {path.name: path.read_bytes() for path in paths}


def test_an_own_backward_has_the_bits_of_the_kits(root: Path) -> None:
    plain(training(root))
    by_hand(training(root, "two"))
    assert files(root, "two") == files(root, "one")


def test_a_loop_has_the_weights_of_a_loop_without_a_session(root: Path) -> None:
    session = training(root)
    plain(session)
    seeds = session.seeds
    seed_generators(derive_seed(seeds.model_init, "init"))
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    samples = data()
    for index in range(STEPS):
        generator = torch.Generator().manual_seed(derive_seed(seeds.training, "order", index // 4))
        order = torch.randperm(24, generator=generator)[index % 4 * 6 :][:6]
        x, y = samples.tensors[0][order], samples.tensors[1][order]
        seed_generators(derive_seed(seeds.training, "step", index, 0))
        optimizer.zero_grad()
        functional.mse_loss(model(x), y).backward()
        optimizer.step()
    trained = session._known().model.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop", [1, 4, 7, STEPS - 1])
def test_a_loop_that_is_stopped_goes_on_with_the_same_bits(root: Path, stop: int) -> None:
    plain(training(root))
    plain(training(root, "two", training=Settings(shards=1, max_steps=stop)))
    session = training(root, "two", resume="auto")
    plain(session)
    assert files(root, "two") == files(root, "one")
    assert session.finished == "steps"


def test_what_is_finished_has_nothing_left_to_do(root: Path) -> None:
    plain(training(root, training=Settings(shards=1, max_steps=5)))
    before = files(root, "one")
    session = training(root, training=Settings(shards=1, max_steps=5), resume="auto")
    plain(session)
    assert (session.run, session.finished, session.step) == (None, "max_steps", 5)
    assert files(root, "one") == before


def test_a_loop_may_return_from_its_last_step(root: Path) -> None:
    """As a method that trains an epoch does, and as frameworks do."""

    def nested(session: Session) -> None:
        session.data({"of": "the test"})
        with session.seeded("init"):
            model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
        session.register(model=model, optimizers=optimizer)
        steps = session.steps(data(), 6, epochs=3)

        def epoch() -> None:
            for step in steps:
                step.done(loss=step.backward(squares(model)), norm=step.update())
                if step.validate_now:
                    return

        while session.steps_left:
            epoch()

    plain(training(root))
    session = training(root, "two")
    nested(session)
    assert session.finished == ""
    session.finish()
    session.finish()  # nothing more
    assert session.finished == "steps"
    assert files(root, "two") == files(root, "one")


def test_stopping_early_finishes_a_training(root: Path) -> None:
    def stopping(session: Session) -> None:
        for step, model, _ in loop(session):
            step.done(loss=step.backward(squares(model)), norm=step.update())
            if step.number == 5:
                session.stop()

    session = training(root)
    stopping(session)
    assert (session.finished, session.step) == ("early", 5)
    again = training(root, resume="auto")
    stopping(again)
    assert (again.run, again.finished, again.step) == (None, "early", 5)


def test_other_settings_and_other_data_are_refused(root: Path) -> None:
    plain(training(root, training=Settings(shards=1, max_steps=5)))
    with pytest.raises(UserError, match="config: determinism is warn, recorded strict"):
        plain(training(root, resume="auto", determinism="warn"))

    def other_data(session: Session) -> None:
        session.data({"of": "another test"})
        session.register(model=network(), best=None)

    with pytest.raises(UserError, match="data: not the files that it was trained with"):
        other_data(training(root, resume="auto"))


# What a loop keeps and no checkpoint holds ------------------------------------------------------


def average(session: Session) -> None:
    shown: list[Any] = []
    kept = network()
    for step, model, _ in loop(session):
        step.done(loss=step.backward(squares(model)), norm=step.update())
        shown.append(step.number)
        for mine, its in zip(kept.parameters(), model.parameters(), strict=True):
            mine.data.lerp_(its.data, 0.1)


def schedule(session: Session) -> None:
    session.data({})
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    session.register(model=model, optimizers=optimizer)
    for step in session.steps(data(), 6, epochs=1):
        step.done(loss=step.backward(squares(model)), norm=step.update())
        scheduler.step()


def second(session: Session) -> None:
    other = network()
    own = torch.optim.AdamW(other.parameters(), fused=True)
    for step, model, _ in loop(session):
        step.done(loss=step.backward(squares(model)), norm=step.update())
        other(torch.ones(1, 3)).sum().backward()
        own.step()


def count(session: Session) -> None:
    bad = 0
    for step, model, _ in loop(session):
        step.done(loss=step.backward(squares(model)), norm=step.update())
        if step.number > 0:
            bad += 1


def in_place(session: Session) -> None:
    mean = torch.zeros(1)
    for step, model, _ in loop(session):
        loss = step.backward(squares(model))
        step.done(loss=loss, norm=step.update())
        mean += loss


def generator(session: Session) -> None:
    mine = torch.Generator().manual_seed(1)
    for step, model, _ in loop(session):
        torch.rand(1, generator=mine)
        step.done(loss=step.backward(squares(model)), norm=step.update())


def of_numpy(session: Session) -> None:
    mine = np.random.default_rng(1)
    for step, model, _ in loop(session):
        mine.random()
        step.done(loss=step.backward(squares(model)), norm=step.update())


def loader(session: Session) -> None:
    batches = iter(DataLoader(data(), 6, shuffle=True))
    for step, model, _ in loop(session):
        next(batches)
        step.done(loss=step.backward(squares(model)), norm=step.update())


def array(session: Session) -> None:
    center = np.zeros(3)
    for step, model, _ in loop(session):
        center += 1
        step.done(loss=step.backward(squares(model)), norm=step.update())


def lazy(session: Session) -> None:
    center = None
    for step, model, _ in loop(session):
        center = torch.ones(3) if center is None else 0.9 * center
        step.done(loss=step.backward(squares(model)), norm=step.update())


def shadow(session: Session) -> None:
    for step, model, _ in loop(session, with_shadow=True):
        for value in model.shadow.values():
            value += 1
        step.done(loss=step.backward(squares(model)), norm=step.update())


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (generator, "the generator mine of generator()"),
        (of_numpy, "the generator mine of of_numpy()"),
        (loader, "the iterator batches of loader()"),
        (array, "center of array()"),
        (lazy, "center of lazy()"),
        (shadow, "the attribute model.shadow['0.weight'] of loop() (and 1 more there)"),
        (average, "kept of average()"),
        (schedule, "scheduler of schedule()"),
        (second, "the state of own of second()"),
        (count, "bad of count()"),
        (in_place, "mean of in_place()"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_changes_and_is_in_no_checkpoint_is_named(
    root: Path, function: Loop, named: str
) -> None:
    with pytest.raises(UserError) as error:
        function(training(root))
    told = error.value.lines
    assert any(line.startswith(f"{named} changes in a step") for line in told), told
    assert not list(root.glob("runs/one/checkpoints/step-*"))


def test_what_stays_or_is_registered_is_not_refused(root: Path) -> None:
    """A teacher, weights of classes, an average and a schedule in the state, notes."""

    def kept(session: Session) -> None:
        session.data({})
        teacher, weights, rate, name = network(), torch.ones(3), 0.5, "mine"
        model = nn.ModuleDict({"main": network(), "average": network()})
        optimizer = torch.optim.SGD(model["main"].parameters(), lr=0.1, fused=True)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        session.register(model=model, optimizers=optimizer, state={"schedule": scheduler})
        before = copy.deepcopy(scheduler.state_dict())
        assert session.is_fresh == (before["last_epoch"] == 0)
        for step in session.steps(data(), 6, epochs=2):
            with torch.no_grad():
                teacher(step.batch[0] * weights * rate)
            step.done(loss=step.backward(squares(model["main"])), norm=step.update())
            scheduler.step()
            model["average"].load_state_dict(model["main"].state_dict())
            session.notes["seen"] = session.notes.get("seen", 0) + 1
        assert session.notes == {"seen": step.number}
        assert (scheduler.last_epoch, name) == (step.number, "mine")

    kept(training(root))
    kept(training(root, "two", training=Settings(shards=1, max_steps=3)))
    kept(training(root, "two", resume="auto"))
    assert files(root, "two") == files(root, "one")


# Faults of an author ----------------------------------------------------------------------------


def without_data(session: Session) -> None:
    session.register(model=network())


def without_done(session: Session) -> None:
    for _ in loop(session):
        pass


def twice(session: Session) -> None:
    for step, model, _ in loop(session):
        step.done(loss=step.backward(squares(model)))
        step.done(loss=1.0)


def not_finite(session: Session) -> None:
    for step, _, _ in loop(session):
        assert step.batch
        step.done(loss=float("nan"))


def without_length(session: Session) -> None:
    session.data({})
    session.register(model=network())
    session.steps(data(), 6)


def too_large(session: Session) -> None:
    session.data({})
    session.register(model=network())
    session.steps(data(), 60, epochs=1, drop_last=True)


def strange(session: Session) -> None:
    session.data({})
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1, fused=True)
    session.register(model=network(), optimizers=optimizer)


def module_in_state(session: Session) -> None:
    session.data({})
    session.register(model=network(), state={"average": network()})


def rows_of_many_shapes(session: Session) -> None:
    session.data({})
    session.register(model=network())
    session.predict(data(), 5, lambda batch: torch.ones(len(batch[0]), len(batch[0])))


def no_state(session: Session) -> None:
    session.data({})
    session.register(model=network(), state={"mine": object()})  # type: ignore[dict-item]


def best_is_missing(session: Session) -> None:
    for step, model, _ in loop(session, best=("accuracy", "max")):
        step.done(loss=step.backward(squares(model)), norm=step.update())
        session.validated(loss=1.0)


def validated_before(session: Session) -> None:
    for _ in loop(session):
        session.validated(score=1.0)


def taken_name(session: Session) -> None:
    for step, _, _ in loop(session):
        step.done(loss=1.0, weights=0.5)


def taken_in_validation(session: Session) -> None:
    for step, _, _ in loop(session):
        assert step.batch
        step.done(loss=np.float32(1.0))
        session.validated(epoch=1)


def strange_facts(session: Session) -> None:
    session.data({"folder": Path("data")})


def two_loops(session: Session) -> None:
    for step, model, _ in loop(session):
        step.done(loss=step.backward(squares(model)))
    session.steps(data(), 6, epochs=6)


def two_batches(session: Session) -> None:
    session.data({})
    session.register(model=network())
    for step in session.steps(steps=3):
        step.take(data().tensors)
        step.take(data().tensors)


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter([torch.ones(1)])


def streaming(session: Session) -> None:
    session.data({})
    session.register(model=network())
    session.steps(Stream(), 6, epochs=6)


def strange_notes(session: Session) -> None:
    for step, model, _ in loop(session):
        step.done(loss=step.backward(squares(model)))
        session.notes["seen"] = {1, 2}  # type: ignore[assignment]


def without_batch(session: Session) -> None:
    session.data({})
    session.register(model=network())
    for step in session.steps(steps=3):
        step.done(loss=1.0)


def unused_batch(session: Session) -> None:
    for step, _, _ in loop(session):
        step.done(loss=1.0)


def data_twice(session: Session) -> None:
    for step, model, _ in loop(session):
        step.done(loss=step.backward(squares(model)))
        session.data({"other": 1})


def validated_after(session: Session) -> None:
    for step, model, _ in loop(session):
        step.done(loss=step.backward(squares(model)))
    session.validated(score=1.0)


def complex_number(session: Session) -> None:
    for step, model, _ in loop(session):
        step.done(loss=step.backward(squares(model)), phase=torch.tensor(1j))


def clipped_away(session: Session) -> None:
    for step, model, _ in loop(session):
        step.backward(squares(model))
        step.update(clip=0.0)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (without_data, "session.register came before session.data"),
        (without_done, "step 1 ended without step.done"),
        (twice, "step 1: step.done was called twice"),
        (not_finite, "step 1: loss nan: expected finite numbers"),
        (without_length, "takes the length of the training: epochs=N or steps=N"),
        (too_large, "batch_size=60 is larger than the 24 training samples, and drop_last"),
        (strange, "4 parameters of the optimizer model are not the model's"),
        (module_in_state, "is a module: make it a part of model"),
        (rows_of_many_shapes, r"gave rows of the shapes \[\(4,\), \(5,\)\]: expected one"),
        (no_state, "expected an object with state_dict"),
        (validated_before, "session.validated came before step.done"),
        (taken_name, r"step.done\(weights=...\): the kit writes weights itself"),
        (taken_in_validation, r"session.validated\(epoch=...\): the kit writes epoch itself"),
        (strange_facts, "session.data.facts.: .*; expected what JSON can hold"),
        (two_loops, "session.steps was called twice"),
        (two_batches, "step 1 has a batch already"),
        (streaming, "Stream is an IterableDataset"),
        (strange_notes, "notes.seen: a set cannot be stored without pickle"),
        (without_batch, "step 1 has no batch: session.steps got no data set"),
        (unused_batch, "step 1 is done, and nobody asked for its batch"),
        (data_twice, "session.data was called twice"),
        (validated_after, "session.validated came after the loop"),
        (complex_number, r"step.done\(phase=...\) is a tensor \[\]: expected one number"),
        (clipped_away, "expected a number above 0, or None"),
        (best_is_missing, "a validation gave loss: expected accuracy"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_of_the_loop_is_one_line(root: Path, function: Loop, words: str) -> None:
    with pytest.raises(UserError, match=words):
        function(training(root))


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, UserError])
def test_an_error_of_the_loop_closes_what_is_open(root: Path, error: type[BaseException]) -> None:
    """The trace is written, and the tracker knows that the training has ended."""
    seen = []

    @contextmanager
    def listener(run: Path) -> Iterator[None]:
        seen.append("open")
        try:
            yield
        finally:
            seen.append("closed")

    def failing(session: Session) -> None:
        for step, model, _ in loop(session):
            step.done(loss=step.backward(squares(model)), norm=step.update())
            if step.number == 3:
                raise error("the author's")

    session = TrainingSession(root, settings(run_dir="runs/one"), listener)
    with pytest.raises(error) as raised:
        failing(session)
    assert raised.traceback  # it keeps the loop alive
    session.close()
    assert seen == ["open", "closed"]
    assert len((root / "runs/one/trace.jsonl").read_text().splitlines()) == 5


def test_settings_that_a_session_needs_are_named(root: Path) -> None:
    config = settings()
    del config.output.trace, config.seeds
    with pytest.raises(UserError) as error:
        TrainingSession(root, config, quiet)
    named = {line.split()[4].rstrip(",") for line in error.value.lines}
    assert named == {"output.trace", *(f"seeds.{phase}" for phase in PHASES)}


def test_a_batch_in_shards_has_no_whole(root: Path) -> None:
    for step, _, _ in loop(training(root, training=Settings(shards=2, max_steps=None))):
        with pytest.raises(UserError, match=r"training.shards=2: a step has a batch for each"):
            _ = step.batch
        with pytest.raises(UserError, match=r"training.shards=2: only step.backward"):
            step.done(loss=1.0)
        break


@pytest.mark.parametrize("shards", [1, 4])
def test_a_loop_may_bring_its_own_batches(root: Path, shards: int) -> None:
    """They are moved, fingerprinted and cut; another batch is seen in the trace."""

    def own(session: Session, factor: float) -> None:
        session.data({})
        with session.seeded("init"):
            model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
        session.register(model=model, optimizers=optimizer)
        x, y = data().tensors
        for step in session.steps(steps=4, validate_every=2):
            part = slice(6 * step.index, 6 * step.index + 6)
            taken = step.take((x[part] * factor, y[part]))
            assert torch.equal(taken[1], y[part])
            step.done(loss=step.backward(squares(model)), norm=step.update())
            assert step.validate_now == (step.number in (2, 4))

    changes = {"training": Settings(shards=shards, max_steps=None)}
    own(training(root, **changes), 1.0)
    own(training(root, "again", **changes), 1.0)
    own(training(root, "other", **changes), 2.0)
    assert files(root, "again") == files(root, "one")
    traces = [(root / "runs" / name / "trace.jsonl").read_text() for name in ("one", "other")]
    inputs = [[json.loads(line).get("inputs") for line in text.splitlines()] for text in traces]
    differ = [one != other for one, other in zip(*inputs, strict=True)]
    assert differ == [False, False, True, True, True, True]  # after the header and step 0


def test_an_order_may_be_of_another_length_than_the_data(root: Path) -> None:
    """Rare samples come more often: 30 of 24."""

    def order(seed: int, epoch: int) -> list[int]:
        return [*range(24), *[epoch] * 6]

    def ordered(session: Session) -> None:
        session.data({})
        model = network()
        session.register(model=model)
        for step in session.steps(data(), 10, epochs=2, order=order):
            seen.append(step.indices.tolist())
            step.done(loss=step.backward(squares(model)))

    seen: list[list[int]] = []
    ordered(training(root))
    assert len(seen) == 6
    assert [index for batch in seen for index in batch] == order(0, 0) + order(0, 1)


def test_gradients_of_a_step_before_are_gone(root: Path) -> None:
    """No checkpoint has them: here the main network is updated in every second step only."""

    def alternating(session: Session) -> None:
        model, _ = two_networks(session)
        for step in session.steps(data(), 6, epochs=3):
            for name in ("critic", "main")[: 1 + step.index % 2]:
                loss = step.backward(squares(model[name]), optimizer=name)
                step.update(name)
            step.done(loss=loss)

    alternating(training(root))
    alternating(training(root, "two", training=Settings(shards=1, max_steps=2)))
    alternating(training(root, "two", resume="auto"))
    assert files(root, "two") == files(root, "one")


def test_a_batch_of_the_loops_own_may_lie_in_memory_that_is_filled_again(root: Path) -> None:
    def own(session: Session) -> None:
        session.data({})
        model = network()
        session.register(model=model)
        for step in session.steps(steps=12):
            MEMORY[:] = step.index
            step.take((torch.from_numpy(MEMORY), torch.ones(6, 1)))
            step.done(loss=step.backward(squares(model)))

    own(training(root))
    lines = (root / "runs/one/trace.jsonl").read_text().splitlines()
    assert len({json.loads(line)["inputs"] for line in lines[2:]}) == 12


def test_validations_without_epochs_are_seen(root: Path) -> None:
    session = training(root)
    session.data({})
    model = network()
    session.register(model=model, best=("score", "max"))
    for step in session.steps(steps=4, validate_every=2):
        step.take((torch.ones(6, 3), torch.ones(6, 1)))
        step.done(loss=step.backward(squares(model)))
        if step.validate_now:
            session.validated(score=-step.number)
    result = read_result(root / "runs/one")
    assert (result.validation, result.goal, result.is_finished) == ({"score": -4.0}, 4, True)
    best = (root / "runs/one/checkpoints/best").resolve()
    assert best.name == "step-000000002"


def test_an_order_may_draw_from_any_generator(root: Path) -> None:
    def order(seed: int, epoch: int) -> Tensor:
        return torch.randint(24, (12,)) + random.randrange(1)

    def ordered(session: Session) -> None:
        session.data({})
        with session.seeded("init"):
            model = network()
        session.register(model=model)
        for step in session.steps(data(), 6, epochs=4, order=order):
            step.done(loss=step.backward(squares(model)))

    ordered(training(root))
    ordered(training(root, "two", training=Settings(shards=1, max_steps=3)))
    ordered(training(root, "two", resume="auto", num_workers=1))
    assert files(root, "two") == files(root, "one")


def test_what_a_loop_draws_follows_from_the_step(root: Path) -> None:
    """Also what it draws outside of the loss, and after the step is done."""

    def drawing(session: Session) -> None:
        for step, model, _ in loop(session):
            with torch.no_grad():
                model[0].bias += 0.01 * torch.rand(8)
            step.done(loss=step.backward(squares(model)), norm=step.update())
            with torch.no_grad():
                model[0].bias += 0.01 * torch.rand(8)

    drawing(training(root))
    drawing(training(root, "two", training=Settings(shards=1, max_steps=7)))
    drawing(training(root, "two", resume="auto", num_workers=1))
    assert files(root, "two") == files(root, "one")


@pytest.mark.parametrize("clears", [False, True])
def test_the_trace_has_the_gradients_of_each_optimizer(root: Path, clears: bool) -> None:
    """Also where the loop goes backward by itself, and clears them before the step is done."""

    def two(session: Session) -> None:
        model, optimizers = two_networks(session)
        for step in session.steps(data(), 6, epochs=1):
            for name in model:
                loss = step.backward(squares(model[name]), optimizer=name)
                if clears:
                    step.gradients(name)
                    optimizers[name].step()
                    model.zero_grad()
                else:
                    step.update(name)
            step.done(loss=loss)

    two(training(root))
    lines = [json.loads(line) for line in (root / "runs/one/trace.jsonl").read_text().splitlines()]
    quantities = [*lines[2]][4:]
    last = ["gradients", "weights", "buffers"]
    assert quantities == ["gradients.main", "gradients.critic", *last]
    cleared = {line["gradients"] for line in lines[2:]}
    assert len(cleared) == (1 if clears else 4)
    assert len({line["gradients.critic"] for line in lines[2:]}) == 4


def test_rows_of_an_evaluation_come_in_the_kind_that_was_given(root: Path) -> None:
    session = training(root)
    session.data({})
    model = network()
    session.register(model=model)
    x, y = data().tensors
    lone = session.predict(data(), 5, lambda batch: batch[0])
    assert torch.equal(lone, x)
    pair = session.predict(data(), 5, lambda batch: (batch[0], batch[1]))
    assert isinstance(pair, tuple)
    assert torch.equal(pair[1], y)
    named = session.predict(data(), 5, lambda batch: {"y": batch[1], "p": model(batch[0])})
    assert torch.equal(named["y"], y)
    assert not named["p"].requires_grad
    with pytest.raises(UserError, match="gave a float: expected a tensor with a row"):
        session.predict(data(), 5, lambda batch: 0.5)
    with pytest.raises(UserError, match="concatenates float32"):
        session.predict(data(), 5, lambda batch: batch[0][:1])
    assert not model.training  # as it was before


class Noisy(TensorDataset):
    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return x + torch.rand(3), y


def test_a_replay_records_the_data_of_a_run_that_had_workers(root: Path) -> None:
    def noisy(session: Session) -> None:
        session.data({})
        with session.seeded("init"):
            model = network()
        session.register(model=model)
        for step in session.steps(Noisy(*data().tensors), 6, epochs=1):
            step.done(loss=step.backward(squares(model)))

    noisy(training(root, num_workers=1))
    recorder = Recorder(root, ("experiment",))
    session = ReplaySession(root, settings(num_workers=1), root / "runs/one", 2, recorder)
    lines = session.replay(noisy)
    recorded = (root / "runs/one/trace.jsonl").read_text().splitlines()
    assert lines[-1].as_json() == json.loads(recorded[3])
    drawn = [each.phase for each in recorder.operations if each.name.startswith("aten.rand")]
    assert drawn.count("data") == 6


LOCKS = """
import os, sys, time
from pathlib import Path
from repro.runs import folder

folder._lock(Path(sys.argv[1]))
if os.fork() == 0:  # as a data worker
    time.sleep(60)
print("locked", flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_killed_training_holds_no_lock_although_its_workers_live(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(TEMPLATE)}
    command = [sys.executable, "-c", LOCKS, str(tmp_path)]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout
    assert process.stdout.readline() == b"locked\n"
    process.wait()
    try:
        folder._lock(tmp_path)  # UserError if it is held
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_an_archive_finds_the_facts_of_a_loop_without_a_folder_of_data(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "config_used.yaml").write_text("seed: 1\n")
    facts = {"dataset": "mine", "sha256": "ab"}
    (run / "data.json").write_text(json.dumps(facts))
    assert find_data(tmp_path, run, data_digest(facts), with_data=False) == (
        "runs/one/data.json",
        {},
    )
    with pytest.raises(UserError, match=r"has no manifest.json of the recorded data"):
        find_data(tmp_path, run, "other", with_data=False)


def test_a_session_hashes_the_files_of_a_folder(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a").write_text("a")
    assert training(root).digests(folder) == tree_digests(folder)
