"""docs/adapting.md: each step is applied to a project, which then trains and passes its tests."""

import re
import subprocess

import pytest
from conftest import ROOT, Project

PAGE = (ROOT / "docs" / "adapting.md").read_text()
STEPS = {
    title: (patch, settings.split())
    for title, patch, settings in re.findall(
        r"(?ms)^## ([^\n]+)\n(?:(?!^## ).)*?^```diff\n(.*?)^```\n\n"
        r"Train with it: `python -m experiment\.train ?([^`]*)`",
        PAGE,
    )
}


def test_the_page_has_its_steps() -> None:
    assert list(STEPS) == ["A data set", "A model", "A loss and a metric", "A setting"]
    assert PAGE.count("```diff") == len(STEPS)


def applied(project: Project, title: str) -> list[str]:
    """Apply a step's patch; the settings to train with."""
    patch, settings = STEPS[title]
    subprocess.run(["git", "apply", "-"], cwd=project.path, input=patch, text=True, check=True)
    return settings


@pytest.mark.parametrize("title", STEPS)
def test_each_step_of_adapting_works(own_project: Project, title: str, mypy_cache: str) -> None:
    settings = applied(own_project, title)
    done = own_project.train(*settings, "training.epochs=2", "training.warmup_epochs=0.5")
    assert done.returncode == 0, done.stderr
    done = own_project.module("experiment.evaluate")
    assert done.returncode == 0, done.stderr
    assert ("top2_accuracy" in STEPS[title][0]) == (
        "top2_accuracy" in (own_project.path / "runs/latest/metrics.json").read_text()
    )
    done = own_project.make("lint", MYPY_CACHE_DIR=mypy_cache)
    assert done.returncode == 0, done.stdout
    done = own_project.module("pytest", "-q", "-m", "not gpu", "-k", "same_seed")
    assert done.returncode == 0, done.stdout
    done = own_project.module("repro", "verify")
    assert done.returncode != 0
    assert "conditions differ" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("title", STEPS)
def test_a_project_with_a_step_passes_all_its_tests(own_project: Project, title: str) -> None:
    settings = applied(own_project, title)
    group, _, choice = (settings or ["seed=42"])[0].partition("=")
    if group in ("dataset", "model"):  # make it the default
        old = {"dataset": "digits", "model": "small_cnn"}[group]
        own_project.edit("configs/config.yaml", f"  - {group}: {old}", f"  - {group}: {choice}")
    done = own_project.make("test")
    assert done.returncode == 0, done.stdout
