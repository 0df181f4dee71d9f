"""Show a run in TensorBoard, MLflow or W&B while it trains; `tracker=none` disables tracking.

Promises that no tracker changes or stops a training: it gets a process of its own, which follows
the run's folder (mirror.py starts it, __main__.py is it). A project that was made without a tracker
has neither of them, nor an adapter.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

from repro.core.errors import UserError
from repro.core.files import Json

__all__ = [
    "MetricLine",
    "Params",
    "Place",
    "Tracker",
    "TrackerSettings",
    "send",
    "tracked",
]

STATE = "tracker.json"  # in the folder of a tracked run
FINISHED = b"finished"  # the last words of a training that came to its end

Params: TypeAlias = "Mapping[str, Json]"  # strings, numbers, lists, None


@dataclass(frozen=True)
class TrackerSettings:
    """Which tracker shows a run, and how.

    `uri`: its server, None for files. `largest_mb`: of a file that is sent. `wait`: seconds, at
    most, that a training which has ended waits for it.
    """

    name: str
    uri: str | None = None
    largest_mb: int = 0
    wait: int = 30


@dataclass(frozen=True)
class Place:
    """Where an adapter finds its tracked run: `id` is ours, and the same after a crash."""

    root: Path
    folder: Path
    id: str
    project: str
    uri: str | None


class MetricLine(NamedTuple):
    """A line of metrics.jsonl: its step, and numbers by names such as train/loss."""

    step: int
    values: dict[str, float]


class Tracker(Protocol):
    """What an adapter does: the class `Adapter(place)` of the module with the tracker's name.

    Whatever it raises is one line for the user; it is then made anew and asked again.
    """

    def log_params(self, params: Params) -> None:
        """Send settings and facts of the run; called once."""

    def log_metrics(self, lines: list[MetricLine]) -> None:
        """Send lines of metrics.jsonl, each once."""

    def log_artifact(self, path: Path, name: str) -> None:
        """Send a file of the run's folder; the same name again replaces it."""

    def finish(self, finished: bool) -> None:
        """Send what is left; `finished` is False if the training was cut short."""


@contextmanager
def tracked(root: Path, folder: Path, settings: TrackerSettings) -> Iterator[None]:
    """Mirror the run in `folder` to its tracker as long as the block lasts."""
    if settings.name == "none":
        yield
    else:
        if not _can_track():
            raise UserError(
                f"tracker.name={settings.name}: this project was made without a tracker: expected "
                "tracker=none"
            )
        with import_module("repro.tracking.mirror").mirrored(root, folder, settings):
            yield


def _can_track() -> bool:
    """Tell whether the project was made with a tracker: another one lacks what sends."""
    return find_spec("repro.tracking.mirror") is not None


def send(root: Path, folder: Path) -> None:
    """Send what is new in a run's folder, e.g. figures, if the run is a tracked one."""
    if (folder / STATE).is_file() and not _can_track():
        print(f"warning: {folder / STATE} is of another project: this one has no tracker")
    elif (folder / STATE).is_file():
        with import_module("repro.tracking.mirror").mirrored(root, folder, None):
            pass
