"""Where the settings of an author's own files find them in an unpacked archive."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from repro.results.own_data import variable_of
from repro.runs.configuration import Loader
from repro.runs.own_places import replaced_by_own_places


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = "x"
    series_dir: str | None


PLACE = "data/own_files/series_dir"
VALUES = [
    "null",
    "${oc.env:SERIES_DIR,null}",
    "${oc.env:SERIES_DIR}",  # without a default, composing ends at it
    "/no/such/folder",
    "no/such/folder",
    "''",
    "???",
    "~nobody-of-this-name/x",
]


def loader(root: Path, value: str) -> Loader[Any]:
    (root / "configs").mkdir(exist_ok=True)
    (root / "configs" / "config.yaml").write_text(f"name: x\nseries_dir: {value}  # a folder\n")
    return Loader(Settings, root / "configs", ("series_dir", "other"), ("series_dir",))


@pytest.mark.parametrize("value", VALUES)
def test_a_folder_that_is_not_named_or_not_here_is_the_archives(tmp_path: Path, value: str) -> None:
    (tmp_path / PLACE).mkdir(parents=True)
    assert loader(tmp_path, value).load([]).series_dir == PLACE
    assert loader(tmp_path, value).load(["series_dir=else where"]).series_dir == PLACE
    revived = loader(tmp_path, value).revive({"name": "x", "series_dir": "/of/the/author"})
    assert revived.series_dir == PLACE


@pytest.mark.parametrize("value", ["mine", "${oc.env:SERIES_DIR,null}", "${oc.env:SERIES_DIR}"])
def test_a_folder_that_is_here_is_taken(
    tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / PLACE).mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("SERIES_DIR", "mine")
    assert loader(tmp_path, value).load([]).series_dir == "mine"
    assert loader(tmp_path, "null").load([f"series_dir={tmp_path}"]).series_dir == str(tmp_path)


def test_without_such_a_folder_a_value_is_as_it_stands(tmp_path: Path) -> None:
    assert loader(tmp_path, "null").load([]).series_dir is None
    assert loader(tmp_path, "/no/such/folder").load([]).series_dir == "/no/such/folder"


def test_what_a_command_names_in_vain_is_told() -> None:
    config = Settings(series_dir=PLACE)
    assert replaced_by_own_places(["name=x", f"series_dir={PLACE}"], config) == []
    (line,) = replaced_by_own_places(["name=x", "series_dir=typo"], config)
    assert line == f"series_dir=typo is not here: {PLACE} is taken, as an archive has it"


@pytest.mark.parametrize(
    ("value", "variable"),
    [
        ("${oc.env:SERIES_DIR,null}", "SERIES_DIR"),
        ('"${oc.env:SERIES_DIR,null}"', "SERIES_DIR"),
        ("${oc.env:SERIES_DIR}", "SERIES_DIR"),
        ("null", ""),
        ("/data/series", ""),
    ],
)
def test_the_variable_of_a_setting_is_that_of_the_config(
    tmp_path: Path, value: str, variable: str
) -> None:
    loader(tmp_path, value)
    assert variable_of(tmp_path, "series_dir") == variable
    assert variable_of(tmp_path, "dir") == ""
    assert variable_of(tmp_path / "nowhere", "series_dir") == ""
