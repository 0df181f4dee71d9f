"""Send a run to its tracker: what is missing there of the run's folder.

examples:
  python -m repro.tracking runs/latest      e.g. when the server could not be reached while training

A training starts this program with --follow; its end, or its death, closes the standard input. New
lines of metrics.jsonl are sent within a second or two, files at the start and at the end. What was
sent is noted in tracker.json, so that a training that is resumed goes on in the same tracked run,
each step once. Of the environment only what a client needs to reach its server is kept.
"""

import argparse
import fcntl
import json
import os
import secrets
import signal
import sys
import threading
import tomllib
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import yaml  # type: ignore[import-untyped]  # omegaconf brings it

from repro.core.command import Parser, run_command
from repro.core.errors import UserError
from repro.core.files import write_json
from repro.core.hashing import sha256_file
from repro.core.layout import INTERRUPTED
from repro.core.redaction import redact_text
from repro.tracking import FINISHED, STATE, Place, Tracker

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 1.0  # between two looks at metrics.jsonl
LONGEST = 30.0  # between two attempts after a failed one
LINES = 500  # sent together
# Beside these the tracker's own, WANDB_* or MLFLOW_*. No other variable reaches a client.
KEPT = """PATH HOME USER LOGNAME LANG LC_ALL TMPDIR XDG_CACHE_HOME XDG_CONFIG_HOME LD_LIBRARY_PATH
http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY SSL_CERT_FILE
SSL_CERT_DIR REQUESTS_CA_BUNDLE PYTHONDONTWRITEBYTECODE PYTHONNOUSERSITE"""


class Late(BaseException):
    """The time for what is left is over; not an Exception, which a client might catch."""


class Mirror:
    """A run's folder, and in `state` (tracker.json) what of it the tracker has."""

    def __init__(self, folder: Path, settings: dict[str, Any] | None) -> None:
        self.folder, self.training, self.offset = folder, settings is not None, 0
        self.files_sent = False
        self.tracker: Tracker | None = None
        self.state: dict[str, Any] = {"id": secrets.token_hex(8), "at": [0, False], "sent": {}}
        self.state["finished"] = False
        if (folder / STATE).is_file():
            self.state |= json.loads((folder / STATE).read_text())
        self.settings = self.state["settings"] = settings or self.state["settings"]
        self.save()  # before the tracker hears of it: no crash makes a second tracked run

    def save(self) -> None:
        write_json(self.folder / STATE, self.state)

    def send(self, ended: bool) -> None:
        """Send what is new; raises what the tracker's client raises."""
        tracker = self.tracker or self.connect()
        while entries := self.next_lines():
            keys = [[entry["step"], "epoch" in entry] for entry in entries]
            # A resumed training writes the same lines again, as far as it had come.
            pairs = zip(keys, entries, strict=True)
            if new := [_named(entry) for key, entry in pairs if key > self.state["at"]]:
                tracker.log_metrics(new)
                self.state["at"] = keys[-1]
                self.save()
            self.offset = self.next_offset
        if ended or not self.files_sent:
            self.send_files(tracker, ended)
            self.files_sent = True
        if ended:
            tracker.finish(self.state["finished"])

    def connect(self) -> Tracker:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
        place = Place(ROOT, self.folder, self.state["id"], project, self.settings["uri"])
        tracker: Tracker = import_module(f"repro.tracking.{self.settings['name']}").Adapter(place)
        if "params" not in self.state:
            tracker.log_params(self.params())
            self.state["params"] = "sent"
        self.tracker = tracker
        return tracker

    def next_lines(self) -> list[dict[str, Any]]:
        """The next whole lines of metrics.jsonl after `offset`."""
        lines: list[dict[str, Any]] = []
        path, self.next_offset = self.folder / "metrics.jsonl", self.offset
        if path.is_file():
            with path.open("rb") as file:
                file.seek(self.offset)
                while len(lines) < LINES and (line := file.readline()).endswith(b"\n"):
                    lines.append(json.loads(line))
                    self.next_offset = file.tell()
        return lines

    def params(self) -> dict[str, Any]:
        """The config, flat, and what code, packages and data the run was made of."""
        config = yaml.safe_load((self.folder / "config_used.yaml").read_text())
        context = json.loads((self.folder / "experiment_context.json").read_text())
        facts = {key: context["git"][key] for key in ("commit_hash", "branch", "is_dirty")}
        facts |= {key: context["conditions"][key] for key in ("lock", "data")}
        facts |= {"hardware_class": context["hardware_class"]}
        return _flat(config) | _flat(facts, "context.")

    def send_files(self, tracker: Tracker, ended: bool) -> None:
        """Files that are new or changed; what still grows, at the end."""
        later = {"checkpoints", "metrics.jsonl"}
        names = {path.relative_to(self.folder): path for path in sorted(self.folder.rglob("*"))}
        own = {STATE, self.settings["name"], *later}
        names = {n: p for n, p in names.items() if n.parts[0] not in own and n.name[0] != "."}
        if ended:
            patterns = ("metrics.jsonl", "checkpoints/best/*", "checkpoints/last/*")
            paths = [path for pattern in patterns for path in sorted(self.folder.glob(pattern))]
            names |= {path.relative_to(self.folder): path for path in paths}
        for name, path in names.items():
            if path.is_file() and path.stat().st_size <= self.settings["largest_mb"] * 1e6:
                digest = sha256_file(path)
                if self.state["sent"].get(str(name)) != digest:
                    tracker.log_artifact(path, str(name))
                    self.state["sent"][str(name)] = digest
                    self.save()


def _named(entry: dict[str, Any]) -> dict[str, float]:
    """{"step": 20, "split": "validation", "loss": 0.1} as {"step": 20, "validation/loss": 0.1}."""
    numbers = {k: v for k, v in entry.items() if type(v) in (int, float) and k != "step"}
    part = entry.get("split", "train")
    return {"step": entry["step"], **{f"{part}/{name}": n for name, n in numbers.items()}}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


class Say:
    """One line on the real standard error, once. Clients get none: they talk too much."""

    def __init__(self, name: str) -> None:
        self.stream, self.name, self.said = os.fdopen(os.dup(2), "w"), name, False

    def __call__(self, error: BaseException) -> None:
        words = redact_text(" ".join(f"{type(error).__name__}: {error}".split()))[:200]
        if isinstance(error, ModuleNotFoundError):
            words += " (make setup installs it)"
        if not self.said:
            rest = "nothing is lost, README.md says how to send the rest"
            print(f"warning: {self.name}: {words}; {rest}", file=self.stream, flush=True)
        self.said = True


def follow(mirror: Mirror, ended: threading.Event, say: Say) -> int:
    """Send what is new until the training has ended; 1 if something could not be sent."""
    pause = SECONDS
    while True:
        last = ended.is_set()  # asked before reading: nothing is written after it
        try:
            mirror.send(last)
            pause = SECONDS
            if last:
                return 0
        except Exception as error:  # whatever a client raises: the training goes on
            say(error)
            mirror.tracker, pause = None, min(2 * pause, LONGEST)
            if last:
                return 1
        ended.wait(pause)


def watch(mirror: Mirror, ended: threading.Event) -> None:
    """Wait for the training's end, which closes the standard input; then time is limited."""
    last_words = sys.stdin.buffer.read()
    if mirror.training:
        interrupted = (mirror.folder / INTERRUPTED).exists()
        mirror.state["finished"] = last_words == FINISHED and not interrupted
    signal.alarm(mirror.settings["wait"])
    ended.set()


def late(number: int, frame: FrameType | None) -> NoReturn:
    raise Late("no answer in time")


def main() -> int:
    parser = Parser("repro.tracking", __doc__)
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("--follow", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.run.resolve()
    settings = json.loads(sys.stdin.buffer.readline()) if arguments.follow else None
    if not settings and not (folder / STATE).is_file():
        raise UserError(f"{folder}: there is no {STATE} in it, so it is no tracked run's folder")
    lock = (folder / f".{STATE}.lock").open("a")
    try:  # a training waits here for the end of its forerunner's process, if it was killed
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if arguments.follow else fcntl.LOCK_NB))
        mirror = Mirror(folder, settings)
    except BlockingIOError as error:
        raise UserError(f"{folder}: its training goes on, and sends what is new") from error
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{folder / STATE} is damaged: without it a new tracked run is begun"
        ) from error
    own = f"{mirror.settings['name'].upper()}_"
    kept = {name for name in os.environ if name.startswith(own)} | set(KEPT.split())
    for name in os.environ.keys() - kept:
        del os.environ[name]
    os.nice(10)  # training comes first
    ended = threading.Event()
    if arguments.follow:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm warns every process of a job
        signal.signal(signal.SIGALRM, late)
        threading.Thread(target=watch, args=(mirror, ended), daemon=True).start()
    else:
        ended.set()
    say = Say(mirror.settings["name"])
    with open(os.devnull, "r+b") as nothing:
        for descriptor in (1, 2) if arguments.follow else (0, 1, 2):  # nobody is to be asked
            os.dup2(nothing.fileno(), descriptor)
    try:
        code = follow(mirror, ended, say)
    except Late as error:
        say(error)
        code = 1
    os._exit(code)  # what a client does at the end of Python may take its time


if __name__ == "__main__":
    sys.exit(run_command(main))
