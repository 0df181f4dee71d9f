"""Claims of what a training will not give are refused before anything is trained."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import Project, commit, faults

CLAIM = """
- name: {name}
  text: A short training
  arguments: [training.max_steps=3]
  metric: {metric}
  checkpoint: {checkpoint}
  seeds: [42]
"""


def claim(name: str = "short", metric: str = "accuracy", checkpoint: str = "last") -> str:
    return CLAIM.format(name=name, metric=metric, checkpoint=checkpoint)


def write_claims(project: Project, *claims: str) -> None:
    (project.path / "configs" / "claims.yaml").write_text("".join(claims))


def is_untrained(project: Project) -> bool:
    return not (project.path / "runs").exists()


@pytest.mark.parametrize("metric", ["acuracy", "class_accuracy", "bits", "val_loss"])
def test_a_metric_that_no_evaluation_gives_is_refused_before_a_training(
    own_project: Project, metric: str
) -> None:
    """Also where it is that of a later claim, and where metrics.json has it as no number."""
    write_claims(own_project, claim("first"), claim("second", metric=metric))
    (line,) = faults(own_project.module("repro", "record", "--allow-dirty"))
    assert line == (
        f"error: claim second: no evaluation gives a number {metric}: expected metric to be one of "
        "loss, accuracy, samples; nothing was trained"
    )
    assert is_untrained(own_project)


def test_a_best_checkpoint_that_no_training_keeps_is_refused_before_it(
    own_project: Project,
) -> None:
    write_claims(own_project, claim("first"), claim("second", checkpoint="best"))
    own_project.edit("experiment/task.py", 'best = ("accuracy", "max")', "best = None")
    (line,) = faults(own_project.module("repro", "record", "--allow-dirty"))
    assert line.startswith("error: claim second: the task keeps no best checkpoint")
    assert is_untrained(own_project)


def test_what_the_kit_refuses_in_an_evaluation_is_told_before_a_training(
    own_project: Project,
) -> None:
    write_claims(own_project, claim())
    own_project.edit("experiment/task.py", '"samples": int', '"accuracy": int')
    (line,) = faults(own_project.module("repro", "record", "--allow-dirty"))
    assert "details(outputs) returned accuracy, which metrics(outputs) returned, too" in line
    assert is_untrained(own_project)


OWN_PROGRAM = """    code = run_command(lambda: evaluate_command(ROOT, __doc__))
    from repro.core.files import read_object, write_json

    path = (Path(sys.argv[-1]).parents[1] / "metrics.json").resolve()
    write_json(path, {**read_object(path), "mine": 0.5})
    sys.exit(code)
"""


def test_a_number_that_the_authors_program_adds_is_no_fault(own_project: Project) -> None:
    program = "experiment/evaluate.py"
    command = "    sys.exit(run_command(lambda: evaluate_command(ROOT, __doc__)))\n"
    own_project.edit(program, command, OWN_PROGRAM)
    own_project.edit(program, "import sys\n", "import sys\nfrom pathlib import Path\n")
    write_claims(own_project, claim(metric="mine"))
    done = own_project.module("repro", "record", "--allow-dirty")
    assert done.returncode == 0, done.stderr
    results = json.loads((own_project.path / "results/expected_metrics.json").read_text())
    assert results["claims"]["short"]["values"] == {"42": 0.5}
    write_claims(own_project, claim(metric="other"))
    (line,) = faults(own_project.module("repro", "record", "--allow-dirty"))
    assert "no evaluation gives a number other" in line


def test_metrics_that_untrained_weights_do_not_have_are_no_fault(own_project: Project) -> None:
    own_project.edit(
        "experiment/task.py",
        '        return {"loss": loss, "accuracy": accuracy_of(confusion)}',
        "        if self.model.training or confusion.sum() < 300:\n"
        '            raise ZeroDivisionError("no sample was found")\n'
        '        return {"loss": loss, "accuracy": accuracy_of(confusion), "found": 1}',
    )
    own_project.edit("experiment/task.py", "    best =", "    validate_on = None\n    best =")
    write_claims(own_project, claim(metric="found"))
    done = own_project.module("repro", "record", "--allow-dirty")
    assert done.returncode == 0, done.stderr


def test_verify_refuses_a_metric_before_its_training(own: Project, tmp_path: Path) -> None:
    """Whoever writes another metric into the claim and the results gets no training, either."""
    for name in ("configs/claims.yaml", "results/expected_metrics.json"):
        path = own.path / name
        path.write_text(path.read_text().replace("accuracy", "acuracy"))
    shutil.rmtree(own.path / "runs")
    commit(own)
    (line,) = faults(own.module("repro", "verify"))
    assert "claim short: no evaluation gives a number acuracy" in line
    assert is_untrained(own)
