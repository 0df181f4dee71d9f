"""A fork answers as a process does: the tests' own means, and a real start of every command."""

import json
import os
import re
import time
from pathlib import Path

import fork_client
import pytest
from background import Forked, contents
from conftest import HANGS, PORTABLE, Project, clean_environ, ranks
from forks import fork_server

RUN = "runs/one"
TRAIN = ("experiment.train", "training.max_steps=3", "output.log_every=1")
TRAIN = (*TRAIN, "model.width=4", "output.checkpoint_every=2")
# The commands that no other test starts as a user does (tests of make demo, make test, make record,
# REPRODUCE.md, the doctor and the registry start the others).
COMMANDS = [
    ("experiment.train", "training.epoch=1", "[x"),
    ("experiment.evaluate", "--checkpoint", f"{RUN}/checkpoints/last"),
    ("experiment.prepare", "data_dir=elsewhere"),
    ("repro", "diff", RUN, "runs/other"),
    ("repro", "trace-step", RUN, "--step", "2", "--output", "step.json"),
    ("repro", "compare", RUN, "runs/other"),
    ("repro", "audit", "model.width=4"),
    ("repro", "report"),
    ("repro", "no-such-command"),
    ("repro", "--help"),
]


@pytest.fixture(scope="module")
def trained(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a run of a real process, the same by a fork, and another one."""
    own = project.copy(tmp_path_factory.mktemp("forks") / "p")
    for run, start in ((RUN, own.run), ("runs/forked", own.module)):
        words = ("python", "-m", *TRAIN) if start == own.run else TRAIN
        done = start(*words, f"run_dir={run}")
        assert done.returncode == 0, done.stderr
    assert own.module(*TRAIN, "seed=7", "run_dir=runs/other").returncode == 0
    return own


def test_a_forked_training_has_the_bits_of_a_process(trained: Project) -> None:
    runs = trained.path / "runs"
    assert contents(runs / "one") == contents(runs / "forked")
    command = (runs / "forked" / "command.txt").read_text()
    assert command == (runs / "one" / "command.txt").read_text().replace(RUN, "runs/forked")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_fork_says_what_a_process_says(trained: Project, words: tuple[str, ...]) -> None:
    forked = trained.module(*words)
    real = trained.run("python", "-m", *words)
    assert forked.args[0] == "python"  # and not the path of one that was started
    assert forked.returncode == real.returncode
    assert (forked.stdout, forked.stderr) == (real.stdout, real.stderr)


FACTS = """
import json, os, random, sys, threading
import numpy as np
import torch

facts = {"argv": sys.argv, "path": sys.path, "orig": sys.orig_argv[1:], "cwd": os.getcwd()}
facts |= {"stdin": sys.stdin.read(), "main": __name__, "file": __file__, "hash": hash("repro")}
facts |= {"capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
facts |= {"drawn": [random.random(), np.random.rand()], "place": id(object()), "pid": os.getpid()}
facts |= {"set": [x % 7 for x in {id(object()) for _ in range(9)}]}
facts |= {"variables": {k: v for k, v in os.environ.items() if k != "_"}}
facts |= {"alive": threading.active_count(), "kit": "repro" in sys.modules}
print(json.dumps(facts))
"""


def test_a_fork_is_a_fresh_process_in_all_that_code_can_see(own_project: Project) -> None:
    (own_project.path / "experiment" / "facts.py").write_text(FACTS)
    words = ("experiment.facts", "a b", "c=1")
    one, two = (json.loads(own_project.module(*words, MINE="x").stdout) for _ in range(2))
    real = json.loads(own_project.run("python", "-m", *words, MINE="x").stdout)
    for name in ("argv", "path", "orig", "cwd", "stdin", "main", "file", "alive", "kit"):
        assert one[name] == two[name] == real[name], name
    assert one["hash"] == two["hash"]  # the profile's seed
    assert (one["capability"], one["threads"]) == ("AVX2", 1)
    assert one["variables"]["MINE"] == "x"
    for name in ("drawn", "place", "pid"):  # chance stays chance
        assert one[name] != two[name], name


def test_the_ways_to_end_are_those_of_a_process(own_project: Project) -> None:
    ends = {
        "raise SystemExit(7)": 7,
        "raise SystemExit('words')": 1,
        "raise SystemExit": 0,
        "1 / 0": 1,
        "import os; os.kill(os.getpid(), 15)": -15,
        "import atexit; atexit.register(print, 'late')": 0,
    }
    for code, expected in ends.items():
        (own_project.path / "experiment" / "ends.py").write_text(f"print('said')\n{code}\n")
        done = own_project.module("experiment.ends")
        assert done.returncode == expected, (code, done.stderr)
        assert ("ZeroDivisionError" in done.stderr) == (code == "1 / 0")
        assert ("words" in done.stderr) == ("words" in code)
        if expected != -15:
            assert done.stdout == ("said\nlate\n" if "atexit" in code else "said\n")


def test_what_hangs_is_ended_and_named(own_project: Project) -> None:
    (own_project.path / "experiment" / "hangs.py").write_text(
        "import subprocess, sys, time\n"
        "process = subprocess.Popen(['sleep', '10000'])\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(10000)\n"
    )
    server = fork_server(own_project.venv)
    environ = {**clean_environ(), **server.profile}
    words = ["-m", "experiment.hangs"]
    pids: list[str] = []
    for seconds in (3, 30, 300):  # a busy machine may take long to begin
        with pytest.raises(pytest.fail.Exception, match=r"experiment\.hangs has not ended") as told:
            server.run(words, own_project.path, [environ], seconds)
        if pids := re.findall(r"'(\d+)\\n'", str(told.value)):
            break
    (pid,) = pids
    deadline = time.monotonic() + HANGS
    while Path(f"/proc/{pid}").exists() and "Z (" not in state_of(pid):
        assert time.monotonic() < deadline, "its child is still there"
        time.sleep(0.1)


def state_of(pid: str) -> str:
    try:
        return re.sub(r"(?s).*\nState:\t(.) .*", r"\1 (", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return "Z ("


def test_what_a_fork_starts_with_sys_executable_is_a_fork_or_a_process(
    own_project: Project,
) -> None:
    """By what is asked: another profile's variables, threads and programs need a start."""
    (own_project.path / "experiment" / "inner.py").write_text(
        "import sys; print('torch' in sys.modules); sys.exit(5)\n"
    )
    (own_project.path / "experiment" / "outer.py").write_text(
        "import os, subprocess, sys\n"
        "def start(*words, **variables):\n"
        "    environ = {**os.environ, **variables}\n"
        "    code = subprocess.call([sys.executable, *words], env=environ)\n"
        "    print(code, flush=True)\n"
        "start('-m', 'experiment.inner')\n"
        "start('-m', 'experiment.inner', MKL_CBWR='AVX2')\n"
        "start('-m', 'experiment.inner', 'threads=2')\n"
        "start('-c', 'raise SystemExit(3)')\n"
    )
    done = own_project.module("experiment.outer")
    assert done.stdout.split() == ["True", "5", "False", "5", "False", "5", "3"], done.stderr


def test_ranks_are_told_as_torchrun_tells_them(own_project: Project) -> None:
    names = {*ranks(2)[0]}
    (own_project.path / "experiment" / "told.py").write_text(
        f"import os; print(*(f'{{n}}={{os.environ[n]}}' for n in {sorted(names)!r}), flush=True)\n"
    )
    torchrun = ("torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "-m")
    real = own_project.run("python", "-m", *torchrun, "experiment.told")
    forked = own_project.processes(2, "experiment.told")

    def told(text: str) -> list[str]:
        return sorted(re.sub("MASTER_PORT=\\d+", "", line) for line in text.splitlines())

    assert real.returncode == forked.returncode == 0, real.stderr + forked.stderr
    assert [re.sub(r"MASTER_ADDR=\S+", "", line) for line in told(real.stdout)] == [
        re.sub(r"MASTER_ADDR=\S+", "", line) for line in told(forked.stdout)
    ]
    assert os.environ.get("RANK") is None


def test_what_a_machine_sets_for_all_programs_is_no_reason_for_a_process() -> None:
    """The server has it as well; another value, or none, is another environment."""
    usual = {**PORTABLE, "LD_LIBRARY_PATH": "/opt/lib", "OPENBLAS_L2_SIZE": "512", "PATH": "/bin"}
    surroundings = fork_client.around(usual, PORTABLE)
    assert surroundings == {"LD_LIBRARY_PATH": "/opt/lib", "OPENBLAS_L2_SIZE": "512"}
    words = ["-m", "experiment.train"]
    for environ, expected in (
        (usual, True),
        ({**usual, "PATH": "/usr/bin", "PYTHONUNBUFFERED": "1"}, True),
        ({**usual, "LD_LIBRARY_PATH": "/other"}, False),
        ({name: value for name, value in usual.items() if name != "OPENBLAS_L2_SIZE"}, False),
        ({**usual, "OMP_DYNAMIC": "1"}, False),
    ):
        assert fork_client.can_fork(words, environ, PORTABLE, surroundings) == expected, environ


def test_a_fork_that_has_ended_says_so_as_often_as_it_is_asked(own_project: Project) -> None:
    (own_project.path / "experiment" / "ends.py").write_text("raise SystemExit(7)\n")
    process = Forked(own_project, 2, module="experiment.ends")
    while process.poll() is None:
        time.sleep(0.01)
    assert process.poll() == 7
    assert [command.wait() for command in process.commands] == [7, 7]
    for command in process.commands:
        command.close()
