"""Ask the author's functions what a training depends on and gives, without training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from repro.core.errors import UserError
from repro.core.files import Json, JsonObject
from repro.data.tar_check import check_tars
from repro.runs.conditions import Situation
from repro.runs.evaluation_session import EvaluationSession
from repro.runs.numbers import one_number
from repro.runs.registered import Registered
from repro.runs.session import Session
from repro.runs.session_settings import SessionSettings
from repro.tasks.task import Task


class _Known(BaseException):  # an author's `except Exception` is not to take it
    """The author's function has said what the data are."""


class _AskingSession(Session):
    """A session that ends as soon as the data are known, and checked if that is asked for."""

    is_checking = False
    checked = 0  # bytes of tar files

    def check_samples(self, folder: Path) -> None:
        if self.is_checking:
            self.checked += check_tars(folder, self.processes)

    def data(self, facts: Mapping[str, Any]) -> None:
        super().data(facts)
        raise _Known


class _AskingEvaluation(EvaluationSession):
    """An evaluation of the weights that a training begins with; it leaves no file."""

    def _restore(self, known: Registered) -> None:
        """Take the weights as they are."""

    def evaluated_samples(self, samples: int, chunk: int) -> int:
        return min(samples, chunk)

    @property
    def figures(self) -> list[Path]:
        return []

    @property
    def curves(self) -> list[JsonObject]:
        return []

    @property
    def task(self) -> Task | None:
        """The task that is evaluated; None in an evaluation without one."""
        return next((each for each in self.holders if isinstance(each, Task)), None)


def situation_of(
    root: Path,
    config: SessionSettings,
    train: Callable[[Session], object],
    is_checking: bool = False,
) -> Situation:
    """Return what a training would depend on; UserError if it never says what its data are.

    `is_checking`: read every sample of tar files, too; UserError for those that are not as written.
    """
    session = _AskingSession(root, config)
    session.is_checking = is_checking
    try:
        train(session)
    except _Known:
        if is_checking and not session.checked:
            raise UserError(
                "--check full: this training names no tar files with an index (docs/adapting.md, "
                "Large data), so nothing was read: leave the option out"
            ) from None
        return session.situation
    raise UserError("train(session) ended without session.data(facts): call it first")


def foreseen_of(
    root: Path,
    config: SessionSettings,
    train: Callable[[Session], object],
    find_evaluate: Callable[[], Callable[[EvaluationSession], object]],
) -> JsonObject:
    """Return what a training would depend on, and what is known of its results.

    `numbers`: the names that an evaluation gives a number, by one chunk of samples and untrained
    weights. `fault`: what the kit refuses in that. `keeps_best`: whether a best checkpoint is kept.
    Each is None where it is not known: a program of the author's own may have no such function, or
    load its checkpoint by itself, and metrics may not be defined for such weights.
    """
    numbers: list[Json] | None = None
    fault = None
    with TemporaryDirectory() as folder:
        session = _AskingEvaluation(root, config, Path(folder))
        try:
            numbers = _numbers_of(find_evaluate()(session))
        except Exception as error:  # the evaluation after a training meets it again, or does not
            # In the kit's own measuring of a task, weights do not matter to what is refused.
            fault = error.lines[0] if session.task and isinstance(error, UserError) else None
    task = session.task
    # To read the data a second time may take minutes.
    situation = session.situation if task else situation_of(root, config, train)
    keeps_best = bool(task.best and task.validate_on) if task else None
    told: JsonObject = {"numbers": numbers, "fault": fault, "keeps_best": keeps_best}
    return {**situation.as_json(), **told}


def _numbers_of(given: object) -> list[Json] | None:
    """Return the names of the numbers that an evaluation returned; None if it returned none."""
    if not isinstance(given, Mapping):
        return None
    # What is not there with these weights may be a number later.
    return [str(name) for name, value in given.items() if value is None or _is_number(value)]


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and (isinstance(value, int) or one_number(value) is not None)
