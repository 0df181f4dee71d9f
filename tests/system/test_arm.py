"""ARM servers, emulated: trainings repeat, resume and verify; which operations differ by CPU model.

Each step has a time limit, and the one that takes longer is named. torch is imported once per CPU
model, by a process that forks for each command.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from background import contents
from conftest import (
    CLAIMS,
    ROOT,
    Project,
    clean_environ,
    commit,
    finish,
    generate,
    git,
    last_line,
    or_skip,
)
from emulated_arm import MODELS, NoEmulator, emulated
from fork_client import THREADS
from forks import ForkServer
from repro.environment.profile import MARKER, PROFILES

NATIVE = {**PROFILES["native"], MARKER: "native", **dict.fromkeys(THREADS, "1")}
# Seconds for a step. The longest, the imports of the process that forks, takes 50 of processor
# time, and took 190 to 275 beside much other work.
LIMIT = 600
OPERATIONS_LIMIT = 900  # for all of them on one model
TWO_STEPS = ("training.max_steps=2", "output.log_every=1")
SMALL_TEXT = ("training.batch_size=4", "dataset.validation_fraction=0.005")
OPERATIONS = ROOT / "tests" / "arm_operations.py"
PLATFORMS = ROOT / "docs" / "platforms.md"
TRAINED_AGAIN = "runs/verify/*/metrics.jsonl"
FIRST = "neoverse-n1"  # the one that the others are compared with
SEVERAL = CLAIMS.replace("seeds: [42]", "seeds: [42, 43, 44]")  # enough to tell a spread


class Arm:
    """An emulated machine: an environment, and a process that answers `python -m` by a fork."""

    def __init__(self, venv: Path) -> None:
        self.venv = venv
        self.server = ForkServer(venv, clean_environ(), NATIVE)
        self.server.ready(LIMIT)

    def run(self, project: Project, *words: str, code: int = 0) -> str:
        """What a module prints that ends within the limit, with this exit code."""
        environ = {**clean_environ(), **NATIVE}
        done = self.server.run(["-m", *words], project.path, [environ], LIMIT)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout

    def train(self, project: Project, run: str, *settings: str) -> dict[str, bytes]:
        """The files with the bits of a run."""
        self.run(project, "experiment.train", f"run_dir={run}", *TWO_STEPS, *settings)
        found = contents(project.path / run)
        assert found
        return found


def environment(model: str) -> Path:
    """The environment of a CPU model; without an emulator the test is skipped, in CI it fails."""
    with or_skip(made(model), NoEmulator) as venv:
        return venv


@contextmanager
def made(model: str) -> Iterator[Path]:
    yield emulated(model)


@pytest.fixture(scope="module")
def arm() -> Iterator[Arm]:
    machine = Arm(environment(FIRST))
    yield machine
    machine.server.stop()


@pytest.fixture(scope="module")
def trained(arm: Arm, project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a run of two steps, `runs/whole`."""
    copy = project.copy(tmp_path_factory.mktemp("arm") / project.path.name)
    arm.train(copy, "runs/whole")
    return copy


def test_setup_takes_an_emulated_arm_server(project: Project) -> None:
    """Of the system, the processor, the C library and Python; nothing is installed."""
    python = environment(FIRST) / "bin" / "python"
    done = finish(
        [str(python), "-I", "bootstrap.py", "--check"], project.path, clean_environ(), LIMIT
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).is_file()


def test_a_training_on_an_emulated_arm_server_repeats_itself_and_resumes(
    arm: Arm, trained: Project
) -> None:
    whole = contents(trained.path / "runs" / "whole")
    assert arm.train(trained, "runs/again") == whole
    arm.train(trained, "runs/stopped", "training.max_steps=1")
    resumed = arm.train(trained, "runs/resumed", "resume=runs/stopped")
    assert {name: resumed[name] for name in whole} == whole


@pytest.mark.long
def test_data_workers_and_diff_on_an_emulated_arm_server(arm: Arm, trained: Project) -> None:
    whole = contents(trained.path / "runs" / "whole")
    assert arm.train(trained, "runs/worker", "num_workers=1") == whole
    assert "IDENTICAL" in arm.run(trained, "repro", "diff", "runs/whole", "runs/worker")
    assert arm.train(trained, "runs/other", "seed=1") != whole
    told = arm.run(trained, "repro", "diff", "runs/whole", "runs/other", code=1)
    assert "IDENTICAL" not in told
    assert "seed" in told


@pytest.mark.long
@pytest.mark.parametrize("task", ["text", "table"])
def test_each_task_repeats_itself_on_an_emulated_arm_server(
    arm: Arm, task: str, tmp_path: Path
) -> None:
    """That of images: above."""
    project = generate(tmp_path, f"task={task}")
    settings = SMALL_TEXT if task == "text" else ()
    first = arm.train(project, "runs/a", *settings)
    assert arm.train(project, "runs/b", *settings) == first


@pytest.mark.long
def test_results_of_x86_64_verify_on_an_emulated_arm_server(
    arm: Arm, project: Project, tmp_path: Path
) -> None:
    """EQUIVALENT; with a hyperparameter changed DIFFERENT; and IDENTICAL once recorded there."""
    own = project.copy(tmp_path / "p")
    (own.path / "configs" / "claims.yaml").write_text(SEVERAL)
    git(own, "init", "--quiet")
    commit(own)
    done = own.make("record")
    assert done.returncode == 0, done.stdout + done.stderr
    commit(own)
    of_x86 = recorded_of(own, "cpu x86-64")
    told = arm.run(own, "repro", "verify")
    assert last_line(told) == "EQUIVALENT"
    assert "cpu aarch64 Neoverse-N1" in told

    changed = own.copy(tmp_path / "changed")
    config = SEVERAL.replace("log_every=1", "log_every=1, optimizer.lr=0.5")
    (changed.path / "configs" / "claims.yaml").write_text(config)
    assert last_line(arm.run(changed, "repro", "verify", code=1)) == "DIFFERENT"
    assert [*own.path.glob(TRAINED_AGAIN)]
    assert not [*changed.path.glob(TRAINED_AGAIN)]

    arm.run(own, "repro", "record")
    assert recorded_of(own, "cpu x86-64") == of_x86
    assert last_line(arm.run(own, "repro", "verify", "--prefix", "2")) == "IDENTICAL"
    assert last_line(arm.run(own, "repro", "verify")) == "IDENTICAL"
    done = own.module("repro", "verify")
    assert last_line(done.stdout) == "IDENTICAL", done.stdout + done.stderr


def recorded_of(project: Project, kind: str) -> str:
    """What the results have of the hardware classes whose names begin so, as text."""
    recorded = json.loads((project.path / "results" / "expected_metrics.json").read_text())
    claim = recorded["claims"]["short"]
    found = {name: claim[name] for name in ("bits", "values", "steps", "cost", "environments")}
    for name in ("bits", "environments"):
        found[name] = {where: what for where, what in claim[name].items() if where.startswith(kind)}
        assert found[name]
    return json.dumps(found)


def operations(model: str) -> dict[str, str]:
    """The digest of each operation on a CPU model, by one process."""
    python = str(environment(model) / "bin" / "python")
    environ = {**clean_environ(), **NATIVE}
    done = finish([python, str(OPERATIONS)], ROOT, environ, OPERATIONS_LIMIT)
    assert done.returncode == 0, (model, done.stderr)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def table(found: dict[str, dict[str, str]]) -> list[str]:
    """The rows of the operations that differ from the first model's, by name and type."""
    types = ("float32", "float64", "bfloat16")
    rows: dict[str, dict[str, list[str]]] = {}
    for model in found:
        for name, digest in found[model].items():
            if digest != found[FIRST][name]:
                operation, _, kind = name.rpartition(" ")
                if kind not in types:
                    operation, kind = name, "yes"
                rows.setdefault(operation, {}).setdefault(model, []).append(kind)
    others = [model for model in found if model != FIRST]
    return [
        f"| {operation} | {' | '.join(', '.join(row.get(model, ['-'])) for model in others)} |"
        for operation, row in sorted(rows.items())
    ]


@pytest.mark.long
def test_the_table_of_operations_is_what_emulated_cpus_compute() -> None:
    """Those that differ from neoverse-n1, by CPU model: docs/platforms.md lists them, no others."""
    found = {model: operations(model) for model in MODELS}
    assert len(found[FIRST]) > 500
    listed = PLATFORMS.read_text().partition("| operation |")[2].partition("\n\n")[0]
    assert listed.splitlines()[2:] == table(found)
