"""Send a run to its tracker, each line and file once; tracker.json notes what was sent."""

import secrets
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

from repro.core.bounded import LONGEST_LINE, DamagedFile, parse_json, read_json_file, read_text
from repro.core.errors import UserError
from repro.core.files import JsonObject, write_json
from repro.core.hashing import sha256_file
from repro.core.layout import BEST, CHECKPOINTS, CONFIG_USED, CONTEXT, LAST, METRICS
from repro.core.project import project_table
from repro.core.text import dotted
from repro.runs.context import read_context
from repro.runs.logs import Line, is_validation, line_step
from repro.runs.yaml_files import load_yaml
from repro.tracking import STATE, MetricLine, Params, Place, Tracker, TrackerSettings

ROOT = Path(__file__).resolve().parent.parent.parent
LINES = 500  # sent together


class Position(NamedTuple):
    """How far metrics.jsonl was sent: a step's own line comes before its validation."""

    step: int
    is_validation: bool


_START = Position(0, is_validation=False)


@dataclass
class TrackerState:
    """What tracker.json holds: what of a run's folder the tracker has.

    `sent`: the SHA-256 of each file that was sent. `params` is "sent" when they were.
    """

    id: str
    settings: TrackerSettings
    at: Position = _START
    sent: dict[str, str] = field(default_factory=dict)
    finished: bool = False
    params: str | None = None

    def as_json(self) -> JsonObject:
        """Return the JSON object, without what is not known yet."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def read_state(folder: Path) -> TrackerState:
    """Read tracker.json; ValueError if it is damaged, OSError if it is missing."""
    from pydantic import TypeAdapter  # only here: a first start reads none

    try:
        content = read_json_file(folder / STATE)
    except UserError as error:
        raise ValueError(str(error)) from error
    return TypeAdapter(TrackerState).validate_python(content)


class _NewLines(NamedTuple):
    """Lines of metrics.jsonl, and where in the file the next ones begin."""

    lines: list[JsonObject]
    offset: int


class Sender:
    """Send what a run's folder has and the tracker has not; `state` (tracker.json) says what."""

    def __init__(self, folder: Path, settings: TrackerSettings | None) -> None:
        self.folder = folder
        self.training = settings is not None
        self.offset = 0
        self.files_sent = False
        self.tracker: Tracker | None = None
        self.lock: TextIO | None = None  # open as long as the process lives
        self.state = self._state(settings)
        self.save()  # before the tracker hears of it: no crash makes a second tracked run

    def _state(self, settings: TrackerSettings | None) -> TrackerState:
        """Return the state that was saved, with today's settings if there are some."""
        if settings and not (self.folder / STATE).is_file():
            return TrackerState(secrets.token_hex(8), settings)
        state = read_state(self.folder)
        state.settings = settings or state.settings
        return state

    def save(self) -> None:
        write_json(self.folder / STATE, self.state.as_json())

    def send(self, ended: bool) -> None:
        """Send what is new; raises what the tracker's client raises."""
        tracker = self.tracker or self.connect()
        self.send_lines(tracker)
        if ended or not self.files_sent:
            self.send_files(tracker, ended)
            self.files_sent = True
        if ended:
            tracker.finish(self.state.finished)

    def connect(self) -> Tracker:
        """Make the adapter, and send settings and facts if the tracker has none."""
        project = project_table(read_text(ROOT / "pyproject.toml"))["name"]
        settings = self.state.settings
        place = Place(ROOT, self.folder, self.state.id, project, settings.uri)
        tracker: Tracker = import_module(f"repro.tracking.{settings.name}").Adapter(place)
        if not self.state.params:
            tracker.log_params(self.params())
            self.state.params = "sent"
        self.tracker = tracker
        return tracker

    def send_lines(self, tracker: Tracker) -> None:
        """Send the new lines of metrics.jsonl, LINES at a time, and note how far it came."""
        while (new := self.new_lines()).lines:
            positions = [Position(line_step(line), is_validation(line)) for line in new.lines]
            # A resumed training writes the same lines again, as far as it had come.
            unsent = [
                _metric_line(line)
                for position, line in zip(positions, new.lines, strict=True)
                if position > self.state.at
            ]
            if unsent:
                tracker.log_metrics(unsent)
                self.state.at = positions[-1]
                self.save()
            self.offset = new.offset

    def new_lines(self) -> _NewLines:
        """Read the next whole lines of metrics.jsonl after `offset`."""
        path = self.folder / METRICS
        lines: list[JsonObject] = []
        offset = self.offset
        if path.is_file():
            with path.open("rb") as file:
                file.seek(offset)
                while len(lines) < LINES and (line := self._line(file)):
                    lines.append(parse_json(line))
                    offset = file.tell()
        return _NewLines(lines, offset)

    def _line(self, file: BinaryIO) -> bytes:
        """Return the next line of metrics.jsonl; nothing if it is not written to its end yet."""
        line = file.readline(LONGEST_LINE + 1)
        if len(line) > LONGEST_LINE:
            raise DamagedFile(self.folder / METRICS, f"a line has more than {LONGEST_LINE} bytes")
        return line if line.endswith(b"\n") else b""

    def params(self) -> Params:
        """Return the config, flat, and what code, packages and data the run was made of."""
        config = load_yaml(self.folder / CONFIG_USED)
        context = read_context(self.folder)
        if context is None:
            raise ValueError(f"{CONTEXT} is missing or damaged")
        facts: JsonObject = {
            "commit_hash": context.git.commit_hash,
            "branch": context.git.branch,
            "is_dirty": context.git.is_dirty,
            "lock": context.conditions.lock,
            "data": context.conditions.data,
            "hardware_class": context.hardware_class,
        }
        return {**dict(dotted(config)), **dict(dotted({"context": facts}))}

    def send_files(self, tracker: Tracker, ended: bool) -> None:
        """Send files that are new or changed; what still grows, at the end."""
        largest = self.state.settings.largest_mb * 1e6
        for path in self.files(ended):
            if not path.is_file() or path.stat().st_size > largest:
                continue
            name = str(path.relative_to(self.folder))
            digest = sha256_file(path)
            if self.state.sent.get(name) != digest:
                tracker.log_artifact(path, name)
                self.state.sent[name] = digest
                self.save()

    def files(self, ended: bool) -> list[Path]:
        """List the files of the run that the tracker is to have by now."""
        left_out = {STATE, self.state.settings.name, CHECKPOINTS, METRICS}
        paths = [
            path
            for path in sorted(self.folder.rglob("*"))
            if path.relative_to(self.folder).parts[0] not in left_out and path.name[0] != "."
        ]
        if ended:
            for pattern in (METRICS, f"{CHECKPOINTS}/{BEST}/*", f"{CHECKPOINTS}/{LAST}/*"):
                paths += sorted(self.folder.glob(pattern))
        return paths


def _metric_line(line: Line) -> MetricLine:
    """Put the split before the names: {"step": 20, "split": "validation", "loss": 0.1} has one.

    Its line is (20, {"validation/loss": 0.1}); without a split, names begin with train/.
    """
    split = line.get("split", "train")
    values = {
        f"{split}/{name}": value
        for name, value in line.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "step"
    }
    return MetricLine(line_step(line), values)
