"""What a loss tells beside itself: `Weighted(sum, weight, also={...})`, in any number of shards."""

from typing import Any

import pytest
import torch
from repro.core.errors import UserError
from repro.training.batches import cut
from repro.training.beside import MeansBeside
from repro.training.parallel import Processes, slices_here
from repro.training.weighted import Weighted
from torch import Tensor

CPU = torch.device("cpu")


def told(batch: dict[str, Tensor] | None) -> Weighted | None:
    """Right samples, a part of the loss, and a number that is no tensor."""
    if batch is None:
        return None
    total = batch["loss"].sum().requires_grad_()
    also = {"right": batch["right"].sum(), "part": batch["loss"].float().sum(), "seen": 1.0}
    return Weighted(total, weight=batch["weight"].sum(), also=also)


def means(shards: int, samples: int) -> dict[str, float]:
    torch.manual_seed(3)
    batch = {
        "loss": torch.randint(1, 99, (samples,)) / 8,  # sums of these are exact
        "right": torch.rand(samples) > 0.5,
        "weight": torch.arange(1, samples + 1),
    }
    processes = Processes(shards, CPU)
    parts = cut(batch, slices_here(samples, processes))
    assert len(parts) == shards
    found = MeansBeside(processes).of_loss(0, [told(part) for part in parts])
    weight = batch["weight"].sum().item()
    assert found["right"] == batch["right"].sum().item() / weight
    assert found["part"] == batch["loss"].double().sum().item() / weight
    assert found["seen"] == sum(part is not None for part in parts) / weight
    return found


@pytest.mark.parametrize("samples", [8, 3])
def test_the_means_are_those_of_all_samples_in_any_number_of_shards(samples: int) -> None:
    """With 3 samples, one of the four shards is empty."""
    found = [means(shards, samples) for shards in (1, 2, 4)]
    for other in found[1:]:
        assert (other["right"], other["part"]) == (found[0]["right"], found[0]["part"])


def of(**also: Any) -> list[Weighted | None]:
    return [Weighted(torch.ones(()).requires_grad_(), weight=2, also=also), None]


def test_the_names_stay_those_of_the_first_step() -> None:
    beside = MeansBeside(Processes(2, CPU))
    assert beside.of_loss(0, of(right=3)) == {"right": 1.5}
    assert beside.of_loss(1, of()) == {}  # another loss of the step
    assert beside.of_loss(0, of(right=torch.tensor([4]))) == {"right": 2.0}
    with pytest.raises(UserError, match="tells wrong in also, and right before: expected the same"):
        beside.of_loss(0, of(wrong=3))
    with pytest.raises(UserError, match="tells nothing in also, and right before"):
        beside.of_loss(0, of())
    with pytest.raises(UserError, match="tells right in also, and nothing before"):
        beside.of_loss(1, of(right=3))


@pytest.mark.parametrize(
    ("also", "words"),
    [
        ({"right": "3"}, "tells right in also as a str: expected one number, the sum over"),
        ({"right": torch.ones(2)}, "tells right in also as a Tensor: expected one number"),
        ({"loss": 1.0}, "tells loss in also: that is a step's own: rename it"),
        ({"gradient_norm": 1.0}, "tells gradient_norm in also"),
    ],
)
def test_what_is_no_number_beside_a_loss_is_refused(also: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        MeansBeside(Processes(2, CPU)).of_loss(0, of(**also))
