"""Send to a run's tracker what it lacks of the run's folder.

examples:
  python -m repro.tracking runs/latest      e.g. when the server could not be reached while training

A training starts this program with --follow; its end, or its death, closes the standard input. New
lines of metrics.jsonl are sent within a second or two, files at the start and at the end. What was
sent is noted in tracker.json, so that a training that is resumed goes on in the same tracked run,
each step once. Of the environment only what a client needs to reach its server is kept.
"""

import sys

if not __package__:  # as a file, which does not find the kit
    print("error: started as a file: expected python -m repro.tracking", file=sys.stderr)
    sys.exit(2)

import argparse
import fcntl
import json
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn

from repro.core.command import Parser, run_command
from repro.core.errors import UserError
from repro.core.layout import INTERRUPTED
from repro.core.redaction import redact_text
from repro.core.special_files import resolved
from repro.tracking import FINISHED, STATE, TrackerSettings
from repro.tracking.sender import Sender

SECONDS = 1.0  # between two looks at metrics.jsonl
LONGEST = 30.0  # between two attempts after a failed one
# Beside these the tracker's own, WANDB_* or MLFLOW_*. No other variable reaches a client.
KEPT = """PATH HOME USER LOGNAME LANG LC_ALL TMPDIR XDG_CACHE_HOME XDG_CONFIG_HOME LD_LIBRARY_PATH
http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY SSL_CERT_FILE
SSL_CERT_DIR REQUESTS_CA_BUNDLE PYTHONDONTWRITEBYTECODE PYTHONNOUSERSITE"""


class Late(BaseException):
    """The time for what is left is over; not an Exception, which a client might catch."""


class Say:
    """Print one line on the real standard error, once. Clients get none: they talk too much."""

    def __init__(self, name: str) -> None:
        self.stream = os.fdopen(os.dup(2), "w")
        self.name = name
        self.said = False

    def __call__(self, error: BaseException) -> None:
        words = redact_text(" ".join(f"{type(error).__name__}: {error}".split()))[:200]
        if isinstance(error, ModuleNotFoundError):
            words += " (make setup installs it)"
        if not self.said:
            rest = "nothing is lost, README.md says how to send the rest"
            print(f"warning: {self.name}: {words}; {rest}", file=self.stream, flush=True)
        self.said = True


def follow(sender: Sender, ended: threading.Event, say: Say) -> int:
    """Send what is new until the training has ended; 1 if something could not be sent."""
    pause = SECONDS
    while True:
        last = ended.is_set()  # asked before reading: nothing is written after it
        try:
            sender.send(last)
            pause = SECONDS
            if last:
                return 0
        except Exception as error:  # whatever a client raises: the training goes on
            say(error)
            sender.tracker = None
            pause = min(2 * pause, LONGEST)
            if last:
                return 1
        ended.wait(pause)


def watch(sender: Sender, ended: threading.Event) -> None:
    """Wait for the training's end, which closes the standard input; then time is limited."""
    last_words = sys.stdin.buffer.read()
    if sender.training:
        interrupted = (sender.folder / INTERRUPTED).exists()
        sender.state.finished = last_words == FINISHED and not interrupted
    signal.alarm(sender.state.settings.wait)
    ended.set()


def late(number: int, frame: FrameType | None) -> NoReturn:
    raise Late("no answer in time")


def main() -> int:
    parser = Parser("repro.tracking", __doc__)
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("--follow", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = resolved(arguments.run)
    following = arguments.follow
    told = json.loads(sys.stdin.buffer.readline()) if following else None
    settings = TrackerSettings(**told) if told else None
    if not settings and not (folder / STATE).is_file():
        raise UserError(f"{folder}: there is no {STATE} in it, so it is no tracked run's folder")
    sender = open_sender(folder, settings, following)
    name = sender.state.settings.name
    keep_variables_of(name)
    os.nice(10)  # training comes first
    ended = threading.Event()
    if following:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm warns every process of a job
        signal.signal(signal.SIGALRM, late)
        threading.Thread(target=watch, args=(sender, ended), daemon=True).start()
    else:
        ended.set()
    say = Say(name)
    silence_clients(following)
    try:
        code = follow(sender, ended, say)
    except Late as error:
        say(error)
        code = 1
    os._exit(code)  # what a client does at the end of Python may take its time


def open_sender(folder: Path, settings: TrackerSettings | None, following: bool) -> Sender:
    """Take the folder's lock, which lasts as long as the process, and read what was sent."""
    lock = (folder / f".{STATE}.lock").open("a")
    # A training waits here for the end of its forerunner's process, if it was killed.
    at_once = 0 if following else fcntl.LOCK_NB
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | at_once)
        sender = Sender(folder, settings)
    except BlockingIOError as error:
        raise UserError(f"{folder}: its training goes on, and sends what is new") from error
    except ValueError as error:
        raise UserError(
            f"{folder / STATE} is damaged: without it a new tracked run is begun"
        ) from error
    sender.lock = lock
    return sender


def keep_variables_of(tracker: str) -> None:
    """Take all other variables out of the environment, before a client is imported."""
    prefix = f"{tracker.upper()}_"
    kept = {name for name in os.environ if name.startswith(prefix)} | set(KEPT.split())
    for name in os.environ.keys() - kept:
        del os.environ[name]


def silence_clients(following: bool) -> None:
    """Close what a client could print to or, where nobody is to be asked, read from."""
    with open(os.devnull, "r+b") as nothing:
        for descriptor in (1, 2) if following else (0, 1, 2):
            os.dup2(nothing.fileno(), descriptor)


if __name__ == "__main__":
    sys.exit(run_command(main))
