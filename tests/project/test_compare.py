"""Several runs side by side: real sweeps and trainings of seconds, compared by the real command."""

import csv
import json
import math
import shlex
import shutil
import signal
import statistics
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import Project, faults, last_line, weights
from repro.core.errors import UserError
from repro.core.files import json_text
from repro.runs.compare import RunsCompared, compare_runs, print_comparison
from test_processes import start, wait_for_steps

SHORT = ("training.epochs=2", "training.drop_last=true", "model.width=4", "name=swept")


def compare(project: Project, *arguments: str, code: int = 0) -> Any:
    """The JSON that the command prints."""
    done = project.module("repro", "compare", *arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def swept(project: Project) -> tuple[Project, list[str]]:
    """A project with a sweep of two settings and two seeds, and the command that its end names.

    A third setting fails when its training begins.
    """
    batches = "training.batch_size=512,100000,256"
    done = project.train("-m", "seed=1,2", batches, *SHORT)
    assert done.returncode == 1
    failed = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 2
    assert all("batch_size=100000" in line for line in failed)
    line = last_line(done.stdout).removeprefix("to compare them: ")
    return project, shlex.split(line)


def test_a_sweep_ends_with_the_command_that_compares_its_runs(
    swept: tuple[Project, list[str]],
) -> None:
    project, command = swept
    assert command[:4] == ["python", "-m", "repro", "compare"]
    runs = [project.path / run for run in command[4:]]
    # Of the jobs that failed nothing is left, and they stopped no other.
    assert sorted(runs) == sorted((project.path / "runs" / "swept").iterdir())
    assert len(runs) == 4
    done = project.module(*command[2:])
    assert done.returncode == 0, done.stderr
    assert "training.batch_size" in done.stdout
    assert "validation accuracy" in done.stdout


def test_runs_that_differ_in_the_seed_alone_are_one_group(
    swept: tuple[Project, list[str]], tmp_path: Path
) -> None:
    project, _ = swept
    files = ("--csv", str(tmp_path / "new" / "t.csv"), "--picture", str(tmp_path / "p.svg"))
    found = compare(project, "runs/swept", *files)
    assert found["source"] == "validation"
    assert found["differing"] == ["config: training.batch_size"]
    assert len(found["groups"]) == 2
    with (tmp_path / "new" / "t.csv").open() as file:
        rows = {row["training.batch_size"]: row for row in csv.DictReader(file)}
    assert len(rows) == 2
    for group in found["groups"]:
        lines = [project.path / run["run"] / "metrics.jsonl" for run in group["runs"]]
        values = [json.loads(path.read_text().splitlines()[-1])["loss"] for path in lines]
        assert len(set(values)) == group["seeds"] == 2
        loss = group["metrics"]["loss"]
        expected = (sum(values) / 2, statistics.stdev(values), min(values), max(values))
        assert tuple(loss.values()) == pytest.approx(expected, rel=1e-12)
        row = rows[str(group["conditions"]["config: training.batch_size"])]
        assert float(row["validation_loss_mean"]) == loss["mean"]
        assert row["seeds"] == "2"
    picture = ElementTree.parse(tmp_path / "p.svg").getroot()
    assert picture.get("role") == "img"
    bands = [element for element in picture.iter() if element.get("class") == "band"]
    assert len(bands) == 2 * 2  # groups, and the numbers of a validation
    (line,) = faults(project.module("repro", "compare", "runs/swept", "--picture", "p.png"))
    assert "p.png: expected the name of an SVG file: FILE.svg" in line


def test_a_job_of_a_sweep_is_whole_without_the_others(
    swept: tuple[Project, list[str]], tmp_path: Path
) -> None:
    """Moved elsewhere it is evaluated and resumed; stopped earlier it comes to the same bits."""
    project, command = swept
    moved, stopped = tmp_path / "moved", tmp_path / "stopped"
    shutil.copytree(project.path / command[4], moved, symlinks=True)
    evaluate = ("experiment.evaluate", "--checkpoint")
    done = project.module(*evaluate, str(moved / "checkpoints" / "last"))
    assert done.returncode == 0, done.stderr
    assert (moved / "metrics.json").is_file()
    shutil.copytree(moved, stopped, symlinks=True)
    for link in ("last", "best"):
        (stopped / "checkpoints" / link).unlink()
    steps = sorted((stopped / "checkpoints").glob("step-*"))
    shutil.rmtree(steps[-1])
    settings = (*SHORT, "training.batch_size=512", "seed=1")
    done = project.train(*settings, f"run_dir={stopped}", "resume=auto")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming after step" in done.stdout
    assert weights(stopped) == weights(moved)
    found = compare(project, str(moved), str(stopped))
    assert [entry["equal_bits"] for entry in found["groups"][0]["repeated"]] == [True]
    # The test metrics are compared only where all have some.
    assert found["source"] == "test"
    found = compare(project, str(moved), *command[5:])
    assert found["source"] == "validation"
    assert len(found["not_evaluated"]) == 3


def test_other_bits_under_the_same_conditions_are_chance(own_project: Project) -> None:
    loss = "    def loss(self, batch: list[Tensor]) -> Weighted:\n"
    noise = (
        "    def train_step(self, step):\n"
        "        numbers = super().train_step(step)\n"
        "        next(self.model.parameters()).data[0] += __import__('os').getpid() * 1e-7\n"
        "        return numbers\n\n"
    )
    own_project.edit("experiment/task.py", loss, noise + loss)
    for name in "ab":
        done = own_project.train(*SHORT, f"run_dir=runs/all/{name}")
        assert done.returncode == 0, done.stderr
    done = own_project.module("repro", "compare", "runs/all")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "OTHER BITS" in done.stdout
    command = last_line(done.stdout).partition("to see where: ")[2]
    assert command == "python -m repro diff runs/all/a runs/all/b"
    assert "The runs part at step" in own_project.module(*command.split()[2:]).stdout


def test_equal_bits_with_other_metrics_are_told(own_project: Project) -> None:
    """An evaluation draws numbers that nothing seeds: each of two copies of a run has its own."""
    old = "logits = self.model(images).float()"
    noise = " * (1 + __import__('time').time_ns() % 1000)"
    own_project.edit("experiment/task.py", old, old + noise)
    done = own_project.train(*SHORT, "training.max_steps=3", "run_dir=runs/all/a")
    assert done.returncode == 0, done.stderr
    a, b = (own_project.path / "runs" / "all" / name for name in "ab")
    shutil.copytree(a, b, symlinks=True)
    for run in (a, b):
        checkpoint = str(run / "checkpoints" / "last")
        done = own_project.module("experiment.evaluate", "--checkpoint", checkpoint)
        assert done.returncode == 0, done.stderr
    done = own_project.module("repro", "compare", "runs/all")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "equal bits, OTHER METRICS: something outside the weights decided them" in done.stdout
    found = compare(own_project, "runs/all", code=1)
    assert (found["equal_bits"], found["equal_metrics"]) == (True, False)
    (repeated,) = found["groups"][0]["repeated"]
    other = repeated["other_metric"]
    assert (other["source"], other["runs"]) == ("test", ["runs/all/a", "runs/all/b"])
    values = [json.loads((run / "metrics.json").read_text())[other["metric"]] for run in (a, b)]
    assert other["values"] == values
    assert values[0] != values[1]
    command = last_line(done.stdout).partition("to see where: ")[2]
    assert command == "python -m repro diff runs/all/a runs/all/b"
    words = own_project.module(*command.split()[2:])
    assert words.returncode == 1
    assert f"{other['metric']} is " in words.stdout


def test_what_is_not_finished_is_listed_and_left_out(
    swept: tuple[Project, list[str]],
) -> None:
    project, command = swept
    process = start(project, 1, "run_dir=runs/half", "training.epochs=500", "output.log_every=1")
    wait_for_steps(project.path / "runs" / "half", 3)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 75
    done = project.module(*command[2:], "runs/half")
    assert done.returncode == 0, done.stderr
    assert "not finished, left out: runs/half (step " in done.stdout
    lines = faults(project.module("repro", "compare", "runs/half"))
    assert len(lines) == 1
    assert "not finished" in lines[0]


def test_what_cannot_be_compared_is_one_line(
    swept: tuple[Project, list[str]], own_project: Project
) -> None:
    project, command = swept
    told = '"accuracy": accuracy_of(confusion)}'
    own_project.edit("experiment/task.py", told, f'"mse": 0.5, {told}')
    assert own_project.train(*SHORT, "run_dir=runs/other").returncode == 0
    other = own_project.path / "runs" / "other"
    words = ("repro", "compare", command[4])
    (line,) = faults(project.module(*words, str(other)))
    assert "accuracy, loss, mse" in line
    (line,) = faults(project.module(*words, "experiment"))
    assert line == "error: experiment: expected a run's folder, or one that holds some: runs/..."
    (other / "experiment_context.json").write_text("{")
    (line,) = faults(project.module(*words, str(other)))
    assert "is damaged" in line


# Runs of three steps written by hand, and compared in this process.


def write_run(folder: Path, seed: int, best: int = 2, **files: dict[str, Any]) -> Path:
    """Write a finished run whose best checkpoint is that of step `best`; files: metrics_last=..."""
    checkpoint = folder / "checkpoints" / "step-000000003"
    checkpoint.mkdir(parents=True)
    config = {"training": {"max_steps": 3, "epochs": 1}}
    conditions = {"code": {}, "config": {}, "data": "d", "environment": {}, "lock": "l"}
    context = {"conditions": {**conditions, "packages": {}}, "seed": seed, "hardware_class": "cpu"}
    validation = {"step": 3, "epoch": 1, "split": "validation", "accuracy": 0.5}
    for path, value in {
        folder / "config_used.yaml": config,
        checkpoint / "state.json": {"step": 3, "config": config, "best": {"step": best}},
        folder / "experiment_context.json": context,
        folder / "metrics.jsonl": validation,
        **{folder / f"{name.replace('_', '-')}.json": value for name, value in files.items()},
    }.items():
        path.write_text(json.dumps(value) + "\n")
    return folder


def evaluation(step: int, accuracy: float, **others: Any) -> dict[str, Any]:
    return {"step": step, "steps": 3, "accuracy": accuracy, "bits": f"bits {step}", **others}


LAST = evaluation(3, 0.25)
BEST = evaluation(2, 0.75)


def words_of(compared: RunsCompared, capsys: pytest.CaptureFixture[str]) -> str:
    print_comparison(compared)
    return capsys.readouterr().out


def mean_of(compared: RunsCompared) -> float:
    (group,) = compared.groups
    return group.metrics["accuracy"].mean


@pytest.mark.parametrize(
    ("second", "of", "mean"),
    [
        ({"metrics": BEST}, "metrics.json of the best checkpoint", 0.75),
        (
            {"metrics": evaluation(3, 0.25), "best": 3},  # both the best one and the last one
            "metrics.json of the best checkpoint",
            0.5,
        ),
        (
            {"metrics": LAST, "metrics_last": LAST},
            "metrics-last.json of the last checkpoint, because metrics.json is not of one kind",
            0.25,
        ),
        (
            {"metrics": evaluation(1, 0.125), "metrics_last": LAST},  # of another one, or outdated
            "metrics-last.json of the last checkpoint, because metrics.json is not of one kind",
            0.25,
        ),
        ({"metrics": evaluation(1, 0.125)}, "last validation in metrics.jsonl", 0.5),
    ],
)
def test_metrics_of_the_last_and_the_best_checkpoint_are_never_mixed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    second: dict[str, Any],
    of: str,
    mean: float,
) -> None:
    a = write_run(tmp_path / "a", 1, metrics=BEST, metrics_last=LAST)
    compared = compare_runs([a, write_run(tmp_path / "b", 2, **second)])
    assert mean_of(compared) == mean
    assert f"metrics ({of}" in words_of(compared, capsys)
    assert f"{compared.as_json()['file']} " in f"{of.removeprefix('last validation in ')} "


def test_a_run_without_metrics_of_its_last_checkpoint_is_refused_among_others(
    tmp_path: Path,
) -> None:
    a = write_run(tmp_path / "a", 1, metrics=BEST)
    b = write_run(tmp_path / "b", 2, metrics=LAST, metrics_last=LAST)
    last = a / "checkpoints" / "last"
    with pytest.raises(UserError) as refused:
        compare_runs([a, b])
    (line,) = str(refused.value).splitlines()
    assert f"{a} has no metrics-last.json of its last step" in line
    assert line.endswith(f'of all runs: make evaluate ARGS="--checkpoint {last}"')


@pytest.mark.parametrize(
    ("change", "metric"),
    [
        ({"samples": 8}, "samples"),
        ({"of": {"x": {"y": 2}}}, "of.x.y"),
        ({"accuracy": 1}, "accuracy"),
    ],
)
def test_all_metrics_of_equal_bits_and_one_step_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], metric: str
) -> None:
    """The first run's metrics.json is of another step than those of the others."""
    plain = evaluation(3, 1.0, samples=9, of={"x": {"y": 1}})
    a = write_run(tmp_path / "a", 1, metrics=BEST, metrics_last=plain)
    b = write_run(tmp_path / "b", 1, metrics=plain, metrics_last=plain)
    c = write_run(tmp_path / "c", 1, metrics={**plain, **change}, metrics_last=plain)
    assert compare_runs([a, b]).equal_metrics
    compared = compare_runs([a, b, c])
    assert not compared.equal_metrics
    (repeated,) = compared.groups[0].repeated
    other = repeated.other_metric
    assert other is not None
    assert (other.metric, other.file, other.step) == (metric, "metrics.json", 3)
    assert other.runs == (str(b), str(c))
    assert "ran on other hardware or with other code" in words_of(compared, capsys)


def test_nan_is_a_string_in_the_json(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / str(seed), seed, metrics=evaluation(3, accuracy))
        for seed, accuracy in enumerate((0.5, math.inf, math.nan))
    ]
    found = json.loads(json_text(compare_runs(runs).as_json()), parse_constant=pytest.fail)
    spread = found["groups"][0]["metrics"]["accuracy"]
    assert (spread["mean"], spread["standard_deviation"]) == ("NaN", "NaN")
    assert found["groups"][0]["runs"][1]["test"]["accuracy"] == "Infinity"
