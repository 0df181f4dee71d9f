"""What an evaluation gives chunk by chunk is put together exactly, or refused in one line.

tests/project/test_own_tasks.py does it in two processes.
"""

from typing import Any

import pytest
import torch
from repro.core.errors import UserError
from repro.tasks.outputs import Collected, Outputs
from repro.training.parallel import Processes
from torch import Tensor

ALONE = Processes(1, torch.device("cpu"))


def together(samples: int, *chunks: Any) -> Outputs:
    collected = Collected()
    for chunk in chunks:
        collected.add(chunk)
    return collected.joined([samples], ALONE)


def test_rows_come_in_the_order_of_the_samples() -> None:
    x = torch.arange(12.0).view(6, 2)
    chunks = [Outputs(rows={"x": x[part], "y": part_of(part)}) for part in (slice(4), slice(4, 6))]
    found = together(6, *chunks).rows
    assert torch.equal(tensor(found["x"]), x)
    assert torch.equal(tensor(found["y"]), torch.arange(6))


def part_of(part: slice) -> Tensor:
    return torch.arange(6)[part]


def tensor(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def test_rows_of_unequal_lengths_keep_them() -> None:
    """Boxes of images, of which some have none; beside rows of one shape."""
    boxes = [torch.rand(count, 4) for count in (2, 0, 3, 0, 1)]
    score = torch.rand(5)
    found = together(
        5,
        Outputs(rows={"boxes": boxes[:2], "score": score[:2]}),
        Outputs(rows={"boxes": [boxes[2], torch.empty(0)], "score": score[2:4]}),
        Outputs(rows={"boxes": (boxes[4],), "score": score[4:]}),
    ).rows
    assert [*map(len, found["boxes"])] == [2, 0, 3, 0, 1]
    assert all(torch.equal(one, other) for one, other in zip(found["boxes"], boxes, strict=True))
    assert torch.equal(tensor(found["score"]), score)
    nothing = together(2, Outputs(rows={"boxes": [torch.empty(0, 4)] * 2})).rows["boxes"]
    assert [tuple(each.shape) for each in nothing] == [(0, 4), (0, 4)]


def test_counts_are_exact_and_sums_are_rounded_once() -> None:
    large = 2**53
    chunks = [
        Outputs(counts={"seen": torch.tensor([[large, 1]])}, sums={"loss": 1e16, "x": 0.1}),
        Outputs(counts={"seen": torch.tensor([[1, 2]])}, sums={"loss": 1.0, "x": 0.2}),
        Outputs(
            counts={"seen": torch.tensor([[True, False]])},
            sums={"loss": torch.tensor(-1e16, dtype=torch.float64), "x": torch.tensor([0.25])},
        ),
    ]
    for order in (chunks, chunks[::-1], [chunks[1], chunks[0], chunks[2]]):
        found = together(3, *order)
        counts = found.counts["seen"]
        assert (counts.tolist(), counts.dtype) == ([[large + 2, 3]], torch.int64)
        assert found.sums["loss"] == 1.0
        assert found.sums["x"] == 0.55
        assert found.rows == {}
    assert str(together(1, Outputs(sums={"x": float("nan")})).sums["x"]) == "nan"


BOXES = torch.rand(2, 4)
REFUSED: dict[str, list[Any]] = {
    r"returned a dict: expected Outputs\(rows=": [{"loss": 1.0}],
    "the count seen is torch.float32: expected a whole number, or a tensor of whole numbers": [
        Outputs(counts={"seen": torch.ones(2)})
    ],
    "the count seen is str: expected a whole number": [Outputs(counts={"seen": "3"})],
    r"the count seen has the shape \(3,\), and \(2,\) in the chunk before": [
        Outputs(counts={"seen": torch.ones(size).long()}) for size in (2, 3)
    ],
    "returned rows y; sums z, and rows x; sums z for the chunk before": [
        Outputs(rows={name: BOXES}, sums={"z": 1.0}) for name in "xy"
    ],
    "returned nothing, and sums z for the chunk before": [Outputs(sums={"z": 1.0}), Outputs()],
    "returned rows x as a list, and rows x for the chunk before": [
        Outputs(rows={"x": BOXES}),
        Outputs(rows={"x": [BOXES, BOXES]}),
    ],
    "the rows x have a lone value: expected a tensor with a row": [
        Outputs(rows={"x": torch.tensor(1.0)})
    ],
    "the rows x have a lone value in its list: expected": [
        Outputs(rows={"x": [torch.tensor(1.0), BOXES]})
    ],
    "the rows x have a float in its list: expected": [Outputs(rows={"x": [1.0, 2.0]})],  # type: ignore[list-item]
    "the rows x have a float: expected": [Outputs(rows={"x": 1.0})],  # type: ignore[dict-item]
    r"gave 2 rows x for 4 samples: expected one for each": [Outputs(rows={"x": BOXES})],
    r"gave 1 rows x for 4 samples: expected one for each": [Outputs(rows={"x": [BOXES]})],
    r"the rows x are of the forms \[\('torch.float32', \(3,\)\), \('torch.float32', \(4,\)\)\]": [
        Outputs(rows={"x": [BOXES, BOXES[:, :3]] * 2})
    ],
    r"rows of the shapes \[\(3,\), \(4,\)\]: expected one": [
        Outputs(rows={"x": BOXES}),
        Outputs(rows={"x": BOXES[:, :3]}),
    ],
    r"the sum loss is a tensor \[3\]: expected one number": [Outputs(sums={"loss": torch.ones(3)})],
    "the sum loss is a list: expected one number": [Outputs(sums={"loss": [1.0]})],  # type: ignore[dict-item]
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_put_together_is_one_line(words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        together(4, *REFUSED[words])
    assert len(error.value.lines) == 1
