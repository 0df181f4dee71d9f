"""A project that was made without the template's hook: the results are those of the template."""

from pathlib import Path

import pytest
from conftest import Project, generate
from repro.runs.conditions import conditions_on_disk


@pytest.mark.parametrize("tracker", ["none", "tensorboard", "mlflow", "wandb"])
def test_no_condition_depends_on_the_hook(
    project: Project, projects: dict[str, Project], tmp_path: Path, tracker: str
) -> None:
    """With `--accept-hooks no` the files of all trackers stay, and those for many machines."""
    plain = generate(tmp_path, f"tracker={tracker}", "--accept-hooks=no")
    assert (plain.path / "repro/tracking/wandb.py").is_file()
    assert (plain.path / "repro/training/scale/__init__.py").is_file()
    made = projects.get(tracker, project)
    there = conditions_on_disk(plain.path)
    expected = conditions_on_disk(made.path)
    assert (there.code, there.lock) == (expected.code, expected.lock)
    for file in ("results/expected_metrics.json", "configs/claims.yaml"):
        assert (plain.path / file).read_bytes() == (made.path / file).read_bytes()
