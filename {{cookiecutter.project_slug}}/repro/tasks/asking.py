"""Ask the author's function what a training depends on, without training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from repro.core.errors import UserError
from repro.runs.conditions import Situation
from repro.runs.session import Session
from repro.runs.session_settings import SessionSettings


class _Known(BaseException):  # an author's `except Exception` is not to take it
    """The author's function has said what the data are."""


class _AskingSession(Session):
    """A session that ends as soon as the data are known."""

    def data(self, facts: Mapping[str, Any]) -> None:
        super().data(facts)
        raise _Known


def situation_of(
    root: Path, config: SessionSettings, train: Callable[[Session], object]
) -> Situation:
    """Return what a training would depend on; UserError if it never says what its data are."""
    session = _AskingSession(root, config)
    try:
        train(session)
    except _Known:
        return session.situation
    raise UserError("train(session) ended without session.data(facts): call it first")
