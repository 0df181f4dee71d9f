"""What an author's task tells of an evaluation, and how a data set chooses samples."""

import json
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from repro.core.errors import UserError
from repro.runs.evaluation_session import given_as_json
from repro.tasks.outputs import Outputs
from repro.tasks.samples import samplers_of
from repro.tasks.task_in_session import TaskInSession


def details_of(given: object, *metrics: str) -> dict[str, Any]:
    """What the kit makes of that which a task's `details` returns."""
    trained: Any = TaskInSession.__new__(TaskInSession)
    seeds = SimpleNamespace(evaluation=1)
    trained.session = SimpleNamespace(evaluating=nullcontext, seeds=seeds)
    trained.task = SimpleNamespace(details=lambda outputs: given)
    return dict(trained.details(Outputs(), metrics))


def test_details_are_written_as_json_has_them() -> None:
    found = details_of(
        {"text": "a", "matrix": [[1, 2]], "one": torch.ones(1), "half": np.float32(0.5), 7: None}
    )
    expected = {"text": "a", "matrix": [[1, 2]], "one": 1.0, "half": 0.5, "7": None}
    assert found == json.loads(json.dumps(found)) == expected


@pytest.mark.parametrize("name", ["accuracy", np.str_("accuracy")])
def test_details_that_would_replace_a_metric_are_refused_by_name(name: str) -> None:
    assert details_of({"samples": 3}, "loss", "accuracy") == {"samples": 3}
    with pytest.raises(UserError, match=r"returned accuracy, which metrics\(outputs\) returned"):
        details_of({"samples": 3, name: 0.25}, "loss", "accuracy")
    with pytest.raises(UserError, match="the same as text"):
        details_of({7: 1, "7": 2})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "returned None: expected values by name"),
        ([1], r"returned \[1\]: expected values by name"),
        ({"matrix": torch.ones(2, 2)}, "returned matrix, which is Tensor: expected what JSON can"),
        ({"matrix": np.ones((2, 2))}, "returned matrix, which is ndarray: expected what JSON can"),
        ({"names": {"a"}}, "returned names, which is set: expected what JSON can hold"),
        ({"by_pair": {(0, 1): 2}}, "returned by_pair, which is dict: expected what JSON can hold"),
    ],
)
def test_details_that_are_no_json_are_named(given: Any, words: str) -> None:
    with pytest.raises(UserError, match=rf"details\(outputs\) {words}"):
        details_of(given)


def test_an_own_evaluation_that_is_no_json_names_its_function() -> None:
    with pytest.raises(UserError, match=r"evaluate\(session\) returned loss, which is Tensor"):
        given_as_json("evaluate(session)", {"loss": torch.ones(2)})


class ChoosesItsSamples:
    """A data set with a schedule of its own."""

    def batch(self, seed: int, step: int) -> list[int]:
        return [step]


class OfHuggingFace:
    """As datasets.arrow_dataset.Dataset has it: `batch` makes lists of rows."""

    __module__ = "datasets.arrow_dataset"

    def batch(self, batch_size: int, drop_last_batch: bool = False) -> None: ...


def test_the_batch_of_hugging_face_is_no_schedule() -> None:
    chooses: Any = ChoosesItsSamples()
    assert samplers_of(chooses) == {"batch": chooses.batch}
    rows: Any = OfHuggingFace()
    assert samplers_of(rows) == {}
