"""What asks a command to end while another one runs for it: both end, in good order."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from background import kill
from conftest import HANGS, VENV, Project, clean_environ

CLAIM = """
- name: long
  text: Many epochs
  arguments: [training.epochs=500, model.width=8, threads=1]
  metric: accuracy
  seeds: [3]
"""
GOES_ON = "make record goes on with what is saved, verify starts anew"


def _answer_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def told(project: Project, words: tuple[str, ...], line: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m WORDS` in the background, which has printed a line with this text."""
    process = subprocess.Popen(
        [str(VENV / "bin" / "python"), "-m", *words],
        cwd=project.path,
        env=clean_environ(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A job in the background of a shell ignores SIGINT, one of nohup SIGHUP, and hands that on.
        preexec_fn=_answer_signals,
    )
    try:
        assert process.stdout
        found = any(line in printed for printed in process.stdout)
        assert found, process.communicate()
        yield process
    finally:
        if process.poll() is None:
            kill(process)


def test_a_signal_to_record_ends_its_training_in_good_order_and_record_goes_on(
    own_project: Project,
) -> None:
    (own_project.path / "configs" / "claims.yaml").write_text(CLAIM)
    words = ("repro", "record", "--allow-dirty")
    signs = {signal.SIGTERM: "validation", signal.SIGHUP: "resuming after step"}
    for number, sign in signs.items():
        with told(own_project, words, sign) as process:
            process.send_signal(number)
            output, error = process.communicate(timeout=HANGS)
        assert process.returncode == 75, error
        assert "SIGTERM: saved after step" in output
        (line,) = error.splitlines()
        assert line.startswith(f"error: stopped by {number.name}, which was passed on: python -m ")
        assert line.endswith(f" ended with 75; {GOES_ON}")
        (marker,) = own_project.path.glob("runs/record/long/*/seed-3/interrupted")
        assert marker.is_file()


def test_a_signal_to_a_sweep_ends_its_job_in_good_order_and_starts_no_other(
    own_project: Project,
) -> None:
    settings = ("training.epochs=500", "model.width=8", "threads=1", "seed=1,2", "-m")
    with told(own_project, ("experiment.train", *settings), "validation") as process:
        process.terminate()
        output, error = process.communicate(timeout=HANGS)
    assert process.returncode == 75, error
    assert "SIGTERM: saved after step" in output
    assert "job 2/2" not in output
    assert error == "error: stopped by SIGTERM, which was passed on: no other job starts\n"


def test_ctrl_c_to_a_sweep_alone_leaves_no_job_running(own_project: Project) -> None:
    """As `kill -INT` and an editor send it: a terminal would send it to the job, too."""
    settings = ("training.epochs=500", "model.width=8", "threads=1", "seed=1,2", "-m")
    with told(own_project, ("experiment.train", *settings), "validation") as process:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=HANGS)
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # of its group nobody is left
