"""Several processes whose numbers are read late: the CPU is taken for a GPU."""

import json
from pathlib import Path

import pytest
from conftest import Project, generate

LATE = '    __import__("repro.training.pending").training.pending.LATE_ON.add("cpu")\n'


def contents(run: Path) -> dict[str, bytes | list[object]]:
    """What was logged, traced and saved; the trace's header tells of the code."""
    last = run / "checkpoints" / "last"
    lines = map(json.loads, (run / "trace.jsonl").read_text().splitlines())
    return {
        "trace": [line for line in lines if "header" not in line],
        "metrics": (run / "metrics.jsonl").read_bytes(),
        "weights": (last / "tensors.safetensors").read_bytes(),
    }


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_whose_numbers_are_read_late_have_the_bits_of_those_that_wait(
    own_project: Project, processes: int
) -> None:
    settings = ["training.shards=2", "training.max_steps=12", "output.log_every=1"]
    settings += ["output.checkpoint_every=5", "training.batch_size=64"]
    name = "experiment.train"
    done = own_project.processes(1, name, "run_dir=runs/at-once", *settings)
    assert done.returncode == 0, done.stderr
    own_project.edit(
        "experiment/train.py", "    train_task(session)\n", f"{LATE}    train_task(session)\n"
    )
    done = own_project.processes(processes, name, "run_dir=runs/late", *settings)
    assert done.returncode == 0, done.stderr
    runs = own_project.path / "runs"
    assert contents(runs / "late") == contents(runs / "at-once")


NOTED = """    def train_step(self, step: Any) -> dict[str, Any]:
        loss = step.backward(self.loss)
        step.gradients("model")
        return {"loss": loss, "gradient_norm": step.update(clip=self.clip)}

"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the engines, whose steps note their gradients before they are clipped."""
    project = generate(tmp_path_factory.mktemp("many"), "scale=many")
    project.edit("experiment/task.py", "    def evaluate(", f"{NOTED}    def evaluate(")
    return project


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_an_engine_whose_numbers_are_read_late_has_the_bits_of_one_that_waits(
    many: Project, tmp_path: Path, parallel: str
) -> None:
    """Of sharded weights the processes add up their fingerprints by themselves."""
    project = many.copy(tmp_path / many.path.name)
    settings = [f"training.parallel={parallel}", "training.processes=2", "training.shards=2"]
    settings += ["training.max_steps=9", "output.log_every=1", "output.checkpoint_every=4"]
    for name in ("at-once", "late"):
        if name == "late":
            project.edit(
                "experiment/train.py",
                "    train_task(session)\n",
                f"{LATE}    train_task(session)\n",
            )
        done = project.processes(2, "experiment.train", f"run_dir=runs/{name}", *settings)
        assert done.returncode == 0, done.stderr
        assert "waits" not in done.stdout
    runs = project.path / "runs"
    assert contents(runs / "late") == contents(runs / "at-once")
    trace = (runs / "late" / "trace.jsonl").read_text()
    assert trace.count('"gradients.model": "') == 9
