"""A step that is computed twice: the same bits and files, and a fault that is found before it
changes anything. tests/project/test_rechecked.py does it with the real commands, in two processes.
"""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from repro.core.errors import UserError
from repro.diagnosis import diff
from repro.diagnosis.recheck_file import RecheckFiles
from repro.runs.session import Session
from repro.runs.settings import ExperimentConfig
from repro.runs.training_session import TrainingSession
from repro.training.unsaved import differing
from repro.training.weighted import Weighted
from test_session import Settings, as_it_was, by_hand, data, quiet, root, settings
from test_settings import CONFIG
from torch import Tensor, nn

__all__ = ["as_it_was", "root"]  # fixtures
Fault = Callable[[nn.Module], None]


class TrainingSettings(Settings):
    """As the kit's, whose recheck_every is in no checkpoint."""

    def model_dump(self, mode: str = "") -> dict[str, Any]:
        return {k: v for k, v in super().model_dump().items() if k != "recheck_every"}


class Average:
    """An object of the author's, which its loss changes."""

    def __init__(self) -> None:
        self.value = torch.zeros(())

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"].clone()


class Changing(nn.Module):
    """It keeps statistics, a counter and a cache that grows, and scales its weight in place."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("cache", torch.zeros(1), persistent=False)
        self.register_buffer("shown", torch.zeros(1).expand(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        assert self.training
        self.calls += 1
        if len(self.cache) < 5:
            self.cache = torch.cat([self.cache, self.calls.reshape(1)])
        with torch.no_grad():
            self.layers[0].weight.mul_(1 + self.calls / 1000)
        return self.layers(self.norm(x)) * self.cache.mean()


def registered(session: Session, fault: Fault | None = None) -> tuple[nn.Module, Average]:
    session.data({})
    with session.seeded("init"):
        model = nn.ModuleDict({"one": Changing(), "two": Changing()})
    if fault:
        fault(model)
    average = Average()
    optimizers = {
        "one": torch.optim.SGD(model["one"].parameters(), lr=0.1, momentum=0.9, fused=True),
        "two": torch.optim.AdamW(model["two"].parameters(), fused=True),
    }
    session.register(model=model, optimizers=optimizers, state={"average": average})
    return model, average


def loop(session: Session, fault: Fault | None = None) -> None:
    """Two networks; their losses change all that a loss may change."""
    model, average = registered(session, fault)

    def loss_of(name: str) -> Callable[[list[Tensor]], Weighted]:
        def loss(batch: list[Tensor]) -> Weighted:
            batch[0].add_(torch.rand_like(batch[0]))
            for weight in model["one"].layers[3].parameters():
                weight.requires_grad_(name == "one")
            told = (model[name](batch[0]) - batch[1]).square().sum()
            average.value = average.value.lerp(told.detach(), 0.1)
            model[name].eval()
            model[name].train()
            return Weighted(told, len(batch[0]), also={"sum": told})

        return loss

    for step in session.steps(data(), 6, epochs=3):
        step.backward(loss_of("one"), optimizer="one")
        first = step.backward(loss_of("two"), optimizer="two", add=step.number % 2 == 0)
        norms = {f"norm_{name}": step.update(name) for name in ("one", "two")}
        step.done(loss=first, **norms, **step.also)


def session_of(
    root: Path, name: str, every: int | None = None, shards: int = 1, **changes: Any
) -> TrainingSession:
    how = TrainingSettings(shards=shards, max_steps=None, recheck_every=every)
    config = settings(run_dir=f"runs/{name}", training=how, **changes)
    session = TrainingSession(root, config, quiet)
    session.step_keeper = RecheckFiles(root, lambda: session.run.folder if session.run else None)
    return session


def files(root: Path, name: str) -> dict[str, bytes]:
    run = root / "runs" / name
    made = (path for path in run.rglob("*") if path.is_file() and path.suffix != ".json")
    tensors = (path for path in run.rglob("state.json"))
    return {str(path.relative_to(run)): path.read_bytes() for path in (*made, *tensors)}


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("every", [1, 3])
def test_computing_steps_twice_changes_neither_bits_nor_files(
    root: Path, shards: int, every: int
) -> None:
    loop(session_of(root, "one", shards=shards))
    one = files(root, "one")
    loop(session_of(root, "two", every, shards))
    two = files(root, "two")
    same = {name for name in one if "config" not in name and "context" not in name}
    assert {name: two[name] for name in same} == {name: one[name] for name in same}
    assert two.keys() == one.keys()


class Perturbed(nn.Module):
    """A module that `perturb` makes another result of at each call, or at one of them."""

    def __init__(self, inner: nn.Module, perturb: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = inner
        self.perturb = perturb

    def forward(self, x: Tensor) -> Tensor:
        return self.perturb(self.inner(x))


def second_output(model: nn.Module) -> None:
    """The second forward pass of step 6 is another one, in the last bit of one value."""
    seen = [0]

    def perturb(output: Tensor) -> Tensor:
        seen[0] += 1
        if seen[0] != 8:  # 5 steps, step 3 and the first loss of step 6 twice
            return output
        changed = output.detach().clone()
        changed.view(torch.int32)[0, 0] ^= 1
        return output + (changed - output.detach())

    model["one"].layers[2] = Perturbed(model["one"].layers[2], perturb)


def second_gradient(model: nn.Module) -> None:
    seen = [0]

    def perturb(gradient: Tensor) -> Tensor | None:
        seen[0] += 1
        return gradient * 1.0001 if seen[0] == 8 else None

    model["one"].layers[0].weight.register_hook(perturb)


def always(model: nn.Module) -> None:
    """An operation that gives other results each time, as some do on a GPU."""
    seen = [0]

    def perturb(output: Tensor) -> Tensor:
        seen[0] += 1
        return output + seen[0] / 1000

    model["one"].layers[2] = Perturbed(model["one"].layers[2], perturb)


def words(step: int, tensor: str) -> str:
    host = socket.gethostname()
    return (
        f"step {step}: process 0 on {host} computed the loss and the gradients twice from the same "
        f"state, with other results: the first tensor that differs is {tensor}. "
    )


@pytest.mark.parametrize(
    ("fault", "tensor"),
    [
        (second_output, "the output of one.layers.2 (Perturbed)"),
        (second_gradient, "the gradient of one.layers.0.weight"),
    ],
)
def test_a_fault_stops_the_training_before_the_optimizer(
    root: Path, fault: Fault, tensor: str
) -> None:
    told = {"log_every": 1, "checkpoint_every": 5, "keep_checkpoints": 9, "trace": True}
    output = Settings(**told)
    whole = session_of(root, "whole", output=output)
    whole._settings.training.max_steps = 5
    loop(whole)
    session = session_of(root, "one", 3, output=output)
    with pytest.raises(UserError) as error:
        loop(session, fault)
    session.close()
    (line,) = error.value.lines
    assert line.startswith(words(6, tensor))
    assert line.count("\n") == 0
    run = root / "runs/one"
    assert sorted(path.name for path in (run / "checkpoints").glob("step-*")) == ["step-000000005"]
    assert not [*differing(whole._known().state_dict(), session._known().state_dict(), "")]
    again = session_of(root, "one", 3, output=output, resume="auto")
    loop(again)
    loop(session_of(root, "unharmed", output=output))
    kept = ("trace.jsonl", "checkpoints/step-000000012/tensors.safetensors")
    unharmed = files(root, "unharmed")
    assert {k: files(root, "one")[k] for k in kept} == {k: unharmed[k] for k in kept}


def test_the_step_is_kept_for_diff(root: Path) -> None:
    session = session_of(root, "one", 3)
    with pytest.raises(UserError) as error:
        loop(session, always)
    session.close()
    first, second = (root / f"runs/one/step-3-{name}.json" for name in ("first", "second"))
    assert f"python -m repro diff {first} {second}" in error.value.lines[0]
    compared = diff.compare_steps(first, second)
    assert not compared.conditions
    assert compared.parting
    assert compared.parting.step == 3
    assert compared.replayed
    assert compared.replayed.operation
    assert compared.replayed.operation.a
    assert compared.replayed.operation.a.phase == "forward"
    assert compared.replayed.operation.a.module == "one.layers.2"


def test_a_loss_of_something_outside_is_refused(root: Path) -> None:
    session = session_of(root, "one", 1)
    model, _ = registered(session)
    step = next(iter(session.steps(data(), 6, epochs=3)))
    outside = model["one"](step.batch[0]).sum()
    with pytest.raises(UserError, match="step 1 uses what was computed outside of it, so it"):
        step.backward(lambda batch: Weighted(outside * 1, len(batch[0])))


def test_an_own_backward_is_refused_where_steps_are_computed_twice(root: Path) -> None:
    with pytest.raises(UserError, match=r"recheck_every=9: step 1 went backward by itself"):
        by_hand(session_of(root, "one", 9))


def test_recheck_every_is_no_condition() -> None:
    training = {**CONFIG["training"], "recheck_every": 5}
    one = ExperimentConfig.model_validate({**CONFIG, "training": training})
    assert one.training.recheck_every == 5
    assert one.bits_settings() == ExperimentConfig.model_validate(CONFIG).bits_settings()
    assert "recheck_every" not in one.bits_settings()["training"]
