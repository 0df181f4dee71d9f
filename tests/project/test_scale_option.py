"""The option `scale`: what a project for one machine says of the engines that it lacks."""

from pathlib import Path

import pytest
from conftest import Project, faults, generate, weights


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
