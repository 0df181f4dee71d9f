"""Numbers that YAML reads otherwise than people do, and settings of Hydra's own: never silent."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import IMAGES, TEMPLATE
from experiment.config import LOADER
from repro.core.errors import UserError
from repro.results.claims import read_claims
from repro.runs.plain_values import odd_numbers

CLAIM = """
- name: short
  text: A short training
  arguments: []
  metric: accuracy
  seeds: [42, {seed}]
"""


def project(folder: Path, claims: str) -> Path:
    (folder / "pyproject.toml").write_text('[tool.repro]\nclaims = "configs/claims.yaml"\n')
    (folder / "configs").mkdir()
    (folder / "configs/claims.yaml").write_text(claims)
    return folder


@pytest.mark.parametrize(
    ("seed", "number"),
    [
        ("010", 8),
        ("0x10", 16),
        ("1_0", 10),
        ("0b11", 3),
        ("1:30", 90),
        ("+010", 8),
        ("-0x10", -16),
        ("00", 0),
        ("1_0.5", 10.5),
        ("1:30.5", 90.5),
    ],
)
def test_a_seed_that_yaml_reads_as_another_number_is_refused(
    tmp_path: Path, seed: str, number: float
) -> None:
    with pytest.raises(UserError) as refused:
        read_claims(project(tmp_path, CLAIM.format(seed=seed)))
    (line,) = refused.value.lines
    assert f"configs/claims.yaml:6: {seed} is {number} to YAML: expected a decimal number" in line


@pytest.mark.parametrize("seed", ["0", "7", "+7", "123456789012"])
def test_an_ordinary_seed_is_read(tmp_path: Path, seed: str) -> None:
    (claim,) = read_claims(project(tmp_path, CLAIM.format(seed=seed)))
    assert claim.seeds == [42, int(seed)]


@pytest.mark.parametrize(
    "text",
    ["a: '010'", "a: 1e-3", "a: .5", "a: 1.", "a: v1_0", "a: 10-20", "010: 1", "a: 2_b", "["],
)
def test_texts_and_ordinary_numbers_are_no_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert odd_numbers(tmp_path / "a.yaml") == []


def test_an_alias_of_itself_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &x [*x, 010]")
    assert len(odd_numbers(tmp_path / "a.yaml")) == 1


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configs of the task of images, to change, which LOADER then reads."""
    shutil.copytree(IMAGES / "configs", tmp_path / "configs")
    shutil.copytree(TEMPLATE / "configs/tracker", tmp_path / "configs/tracker")
    default = tmp_path / "configs/tracker/default.yaml"
    default.write_text(default.read_text().replace("{{ cookiecutter.tracker }}", "none"))
    return tmp_path / "configs"


def refused(configs: Path, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as error:
        replace(LOADER, folder=configs).load([*overrides])
    return error.value.lines


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.yaml", "seed: 42", "seed: 042"),
        ("config.yaml", "batch_size: 64", "batch_size: 0x40"),
        ("experiment/baseline.yaml", "name: ", "training: {epochs: 1_0}\nname: "),
    ],
)
def test_a_config_file_is_read_in_the_same_way(
    configs: Path, name: str, old: str, new: str
) -> None:
    text = (configs / name).read_text()
    assert old in text
    (configs / name).write_text(text.replace(old, new, 1))
    (line,) = refused(configs)
    assert line.startswith(f"configs/{name}:")
    assert "to YAML: expected a decimal number" in line


@pytest.mark.parametrize("setting", ["seed=1_0", "training.epochs=1_0", "optimizer.lr=1_0.5"])
def test_the_command_line_takes_no_underscores_in_numbers(configs: Path, setting: str) -> None:
    (line,) = refused(configs, setting)
    assert f"{setting}: a number with _ in it" in line


@pytest.mark.parametrize("setting", ["seed=010", "seed=0x10"])
def test_the_command_line_takes_no_other_base(configs: Path, setting: str) -> None:
    (line,) = refused(configs, setting)
    assert setting in line


@pytest.mark.parametrize(
    "setting",
    [
        "hydra.run.dir=outputs",
        "hydra.run.dir=a folder",
        "hydra.sweep.dir=outputs",
        "+hydra.anything=1",
        "++hydra.job.name=x",
        "~hydra.run",
        "hydra/launcher=submitit",
        "hydra=default",
        "+hydra.run.dir=1,2",
    ],
)
def test_settings_of_hydra_point_to_run_dir(configs: Path, setting: str) -> None:
    (line,) = refused(configs, setting)
    assert line.startswith(setting)
    assert "run_dir=FOLDER says where a run goes" in line


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed: 42", "hydra: {run: {dir: outputs}}\nseed: 42"),
        ("\n\nname:", "\n  - override hydra/job_logging: default\n\nname:"),
    ],
)
def test_settings_of_hydra_in_a_file_are_told_too(configs: Path, old: str, new: str) -> None:
    text = (configs / "config.yaml").read_text()
    (configs / "config.yaml").write_text(text.replace(old, new, 1))
    lines = refused(configs)
    assert [line for line in lines if "run_dir=FOLDER says where a run goes" in line] == lines
