"""Evaluate a checkpoint: its weights are put into what the author's function registers."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from repro.core import layout
from repro.core.bounded import parse_json
from repro.core.errors import UserError
from repro.core.files import JsonObject
from repro.runs.evaluation import EvaluationPlaces, evaluation_places
from repro.runs.logs import read_lines
from repro.runs.numbers import one_number
from repro.runs.registered import Registered
from repro.runs.saved_state import load_state
from repro.runs.session import Session
from repro.runs.session_settings import SessionSettings
from repro.runs.step import Step
from repro.training.precision import fault_of_precision

_OURS = ("step", "steps", "seed", "bits")  # what the kit says of an evaluation


class EvaluationSession(Session):
    """A session that evaluates the checkpoint in a folder."""

    def __init__(self, root: Path, config: SessionSettings, folder: Path) -> None:
        super().__init__(root, config)
        self.folder = folder
        self.is_fresh = False
        self._planned: int | None = None

    def steps(self, *_: Any, **__: Any) -> Iterator[Step]:
        raise UserError("an evaluation does no steps: session.steps is for training")

    def validated(self, **_: Any) -> bool:
        raise UserError("an evaluation returns its metrics: session.validated is for training")

    @property
    def places(self) -> EvaluationPlaces:
        """Where metrics and pictures go."""
        return evaluation_places(self.folder, self.step)

    @property
    def figures(self) -> list[Path]:
        """The folders to draw into: several where the checkpoint is the last and the best one."""
        return self.places.figures

    @property
    def curves(self) -> list[JsonObject]:
        """The lines of metrics.jsonl of the run that is evaluated."""
        return read_lines(self.places.run / layout.METRICS)

    def draw_curves(self) -> None:
        """Draw the curves of the run that is evaluated beside the author's figures."""
        from repro.runs.figures import CURVES, draw_curves  # only here: a training draws nothing

        for folder in self.figures:
            draw_curves(folder / CURVES, self.curves)

    def _check_precision(self) -> None:
        """Evaluate a checkpoint that was trained elsewhere, but say what it is evaluated in."""
        if fault_of_precision(self.precision, self.device):
            print(
                f"warning: the training had training.precision={self.precision}, which this device "
                "cannot: the checkpoint is evaluated in float32",
                flush=True,
            )

    def _restore(self, known: Registered) -> None:
        state = load_state(self.folder)
        known.load_to_evaluate(state)
        self.step = state["step"]
        self.finished = state.get("finished", "")
        self._planned = state.get("steps")
        self.notes = state.get("notes", {})

    def metrics(self, given: object) -> JsonObject:
        """Return what is written of an evaluation: what the author's function returned, and ours.

        UserError if it is no dict, or holds what JSON cannot.
        """
        if not isinstance(given, Mapping):
            raise UserError(
                f"evaluate(session) returned a {type(given).__name__}: expected a dict of metrics"
            )
        if clash := sorted(given.keys() & {*_OURS}):
            raise UserError(f"evaluate(session) returned {', '.join(clash)}, which the kit writes")
        metrics = given_as_json("evaluate(session)", given)
        steps = self.step if self.finished == "early" else self._planned
        own: JsonObject = {
            "step": self.step,
            "steps": steps,
            "seed": self._settings.seed,
            "bits": self.bits,
        }
        return {**metrics, **own}


def given_as_json(call: str, given: Mapping[Any, Any]) -> JsonObject:
    """Return what a call gave as JSON has it; UserError for what JSON cannot hold."""
    plain = {str(name): _plain(call, str(name), value) for name, value in given.items()}
    if len(plain) < len(given):
        raise UserError(f"{call} returned names that are the same as text, such as 7 and '7'")
    return plain


def _plain(call: str, name: str, value: Any) -> Any:
    with suppress(TypeError, ValueError, RecursionError):  # the last of these: nested very deeply
        parse_json(json.dumps(value))  # what is written has to be read again
        return value
    number = one_number(value)
    if number is None:
        raise UserError(
            f"{call} returned {name}, which is {type(value).__name__}: expected what JSON can "
            "hold: numbers, text, lists and dicts of them (.tolist() makes them of a tensor)"
        )
    return number
