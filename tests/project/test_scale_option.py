"""The option `scale`: what a project for one machine says of the engines that it lacks."""

from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import Project, faults, generate, weights
from repro.runs.run_result import read_result


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_project_for_one_machine_refuses_the_engines_in_one_line(
    project: Project, parallel: str
) -> None:
    done = project.train(f"training.parallel={parallel}", "run_dir=runs/none")
    (line,) = faults(done)
    assert f"training.parallel={parallel}: this project was made for one machine" in line
    assert "make it with scale=many, or copy repro/training/scale/ from a project that was" in line
    assert not (project.path / "runs" / "none").exists()


def test_in_shards_a_project_for_many_machines_has_the_bits_of_one_for_one(
    project: Project, tmp_path: Path
) -> None:
    many = generate(tmp_path, "scale=many")
    for made in (project, many):
        done = made.train("run_dir=runs/scale", "training.max_steps=3", "training.shards=2")
        assert done.returncode == 0, done.stderr
    assert weights(many.path / "runs" / "scale") == weights(project.path / "runs" / "scale")
    listed = (many.path / "runs" / "scale" / "config_used.yaml").read_text()
    assert "  parallel: shards\n  processes: null\n" in listed


def with_ddp(project: Project, processes: int, *settings: str) -> CompletedProcess[str]:
    chosen = ("training.parallel=ddp", f"training.processes={processes}", "training.shards=4")
    run = ("run_dir=runs/ddp", "resume=auto", *settings)
    return project.processes(processes, "experiment.train", *chosen, *run)


def test_another_number_of_processes_goes_on_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """Then the run is one of both numbers."""
    many = generate(tmp_path, "scale=many")
    done = with_ddp(many, 4, "training.max_steps=2")
    assert done.returncode == 0, done.stderr
    done = with_ddp(many, 2, "training.max_steps=4")
    assert "config: training.processes is 2, recorded 4" in done.stderr
    assert "resume_other_processes=true goes on with another number of processes" in done.stderr
    done = with_ddp(many, 2, "training.max_steps=4", "resume_other_processes=true")
    assert done.returncode == 0, done.stderr
    assert "with 2 processes, before 4, so this is a run of other settings" in done.stdout
    conditions = read_result(many.path / "runs" / "ddp").conditions
    assert conditions["config: training.processes"] == "4, then 2"
    done = with_ddp(many, 2, "training.max_steps=5")  # as many as last
    assert done.returncode == 0, done.stderr
