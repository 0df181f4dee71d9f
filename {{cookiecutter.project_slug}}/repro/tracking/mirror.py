"""Start the process that follows a run's folder for a tracker, and end it with the training.

Promises: training never waits for a tracker while it trains, and `wait` seconds at most when it has
ended; what goes wrong is one line. The process shares no generator, no thread and no lock with the
training, so it cannot change a bit. All that it sends are files of the run's folder: their secrets
are taken out when they are written, those of the snapshot of the code here.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from repro.core.layout import CODE
from repro.core.redaction import redact_mapping, redact_text
from repro.runs.code_files import code_files
from repro.tracking import FINISHED, TrackerSettings
from repro.tracking.sender import read_state

_BESIDE = (
    *("requirements.in", "requirements.lock", "requirements-tracker.lock"),
    *("environment.yml", "pyproject.toml"),
)
_LARGEST = 2**20  # bytes of a file of code
_GRACE = 5  # seconds beyond `wait`, after which the process is killed


@contextmanager
def mirrored(root: Path, folder: Path, settings: TrackerSettings | None) -> Iterator[None]:
    """Follow `folder` during the block; without settings: as before, to send what is new."""
    try:
        wait = settings.wait if settings else read_state(folder).settings.wait
        if settings:
            _snapshot(root, folder / "code")
        process = _start(root, folder, settings)
    except (OSError, ValueError) as error:
        print(f"warning: no tracker: {error}; all else goes on", file=sys.stderr, flush=True)
        yield
        return
    last_words = b""
    try:
        yield
        last_words = FINISHED  # a training that fails, or is killed, does not say it
    finally:
        _end(process, last_words, wait + _GRACE)


def _start(root: Path, folder: Path, settings: TrackerSettings | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "repro.tracking", str(folder), "--follow"]
    # A session of its own: Ctrl-C and a cluster's signals are for the training, whose end this
    # process notices by the end of its standard input, even after SIGKILL.
    process = subprocess.Popen(
        command,
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin
    told = redact_mapping(asdict(settings)) if settings else None
    process.stdin.write(json.dumps(told).encode() + b"\n")
    process.stdin.flush()
    return process


def _end(process: subprocess.Popen[bytes], last_words: bytes, seconds: float) -> None:
    """Tell the process that the training has ended, and wait until it has sent the rest."""
    try:
        process.communicate(last_words, timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # it gives up by itself before: this one cannot
        process.wait()
    if process.returncode not in (0, 1, 2):  # 1 and 2: it has said why
        words = "the tracker's process was killed; README.md says how to send the rest"
        print(f"warning: {words}", file=sys.stderr, flush=True)


def _snapshot(root: Path, target: Path) -> None:
    """Copy the code, the configs and the lock, secrets taken out."""
    shutil.rmtree(target, ignore_errors=True)
    code = [name for name in code_files(root) if name.partition("/")[0] in CODE]
    for name in (*code, *_BESIDE):
        path = root / name
        copy = target / name
        if path.is_file() and path.stat().st_size <= _LARGEST:
            text = path.read_bytes().decode("utf-8", "surrogateescape")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(redact_text(text).encode("utf-8", "surrogateescape"))
