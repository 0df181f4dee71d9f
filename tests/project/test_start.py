"""What starting a command costs, by what it imports: nothing twice, nothing that it has no use for.

`python -X importtime` writes a line for each module that is imported, over all starts of the
interpreter: a command that puts its profile in force starts it anew.
"""

import re
import subprocess
from collections import Counter
from pathlib import Path

from conftest import Project, faults

HEAVY = ("hydra", "omegaconf", "pydantic", "torch", "numpy")


def imports(stderr: str) -> Counter[str]:
    """How often each module was imported."""
    return Counter(re.findall(r"(?m)^import time: .*\| +(\S+)$", stderr))


def start(project: Project, *arguments: str, **variables: str) -> Counter[str]:
    done = project.run("python", "-X", "importtime", "-m", *arguments, **variables)
    assert done.returncode == 0, done.stderr[-2000:]
    return imports(done.stderr)


def test_a_training_imports_hydra_once_and_nothing_that_it_does_not_use(
    project: Project, tmp_path: Path
) -> None:
    settings = ("training.max_steps=1", f"run_dir={tmp_path / 'run'}")
    imported = start(project, "experiment.train", *settings)
    assert imported["repro.environment.profile"] == 2  # the profile was put in force
    assert [imported[name] for name in HEAVY] == [1] * len(HEAVY)
    for name in ("torchvision", "matplotlib", "sklearn", "rich", "scipy", "PIL"):
        assert imported[name] == 0, name


def test_a_profile_that_a_recipe_asks_for_is_put_in_force_after_all(
    own_project: Project, tmp_path: Path
) -> None:
    """The guess does not read recipes: it is wrong here, and the config decides."""
    recipe = "# @package _global_\nname: recipe\nprofile: native\n"
    (own_project.path / "configs" / "experiment" / "mine.yaml").write_text(recipe)
    settings = ("experiment=mine", "training.max_steps=1", f"run_dir={tmp_path / 'run'}")
    # A limit of the user's own: native leaves it, and the guess must not take it for the kit's.
    variables = {"OPENBLAS_CORETYPE": "Haswell"}
    imported = start(own_project, "experiment.train", *settings, **variables)
    assert imported["repro.environment.profile"] == 3
    assert imported["torch"] == 1
    context = (tmp_path / "run" / "experiment_context.json").read_text()
    assert '"OPENBLAS_CORETYPE": "Haswell"' in context
    assert "MKL_CBWR" not in context


def test_help_imports_nothing_heavy(project: Project) -> None:
    for command in ("experiment.train", "experiment.evaluate", "experiment.prepare", "repro"):
        imported = start(project, command, "--help")
        assert not imported.keys() & {*HEAVY}, command
        assert imported["repro.environment.profile"] < 2  # a question needs no profile


def test_a_typo_is_told_before_a_variable_that_contradicts_the_profile(project: Project) -> None:
    """What puts the profile in force early refuses nothing: the faults of the config come first."""

    def train(setting: str) -> subprocess.CompletedProcess[str]:
        return project.run("python", "-m", "experiment.train", setting, MKL_CBWR="AVX2")

    (line,) = faults(train("training.epoch=1"))
    assert "did you mean training.epochs?" in line
    (line,) = faults(train("training.max_steps=1"))
    assert "unset MKL_CBWR" in line
