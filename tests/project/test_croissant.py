"""croissant.json in archives: valid, and its records are those that the project itself reads."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CHECKS, CLAIMS, Project, clean_environ, commit, generate, record_claims
from PIL import Image
from repro.core.hashing import sha256_file
from test_archive import unpack

STATED = """
[tool.repro.responsible_ai]
dataBiases = ["few patients", "one study"]
dataCollectionTimeframe = "2004"
personalSensitiveInformation = "age and sex"
"""

# What mlcroissant finds: an error ends it, its warnings go to standard error.
READ = """
import json, sys
import mlcroissant
import numpy

dataset = mlcroissant.Dataset(jsonld=sys.argv[1])
records = {}
for record_set in dataset.metadata.record_sets:
    rows = records[record_set.id] = []
    for record in dataset.records(record_set.id) if sys.argv[2:] else []:
        plain = {}
        for name, value in record.items():
            if isinstance(value, bytes):
                value = value.decode()
            if hasattr(value, "getdata"):
                value = numpy.asarray(value.resize((8, 8), 2)).tolist()
            plain[name.rpartition("/")[2]] = value
        rows.append(plain)
        if len(rows) == 3:
            break
metadata = dataset.metadata
told = {name: getattr(metadata, name) for name in ("data_biases", "personal_sensitive_information")}
print(json.dumps({"records": records, "told": told}))
"""

# What the project's own reader makes of these data.
OWN = """
import json, sys
import numpy, torch
from experiment import ROOT
from experiment.config import LOADER
from experiment.data import datasets
from repro.tasks.author import preparation

config = LOADER.load(sys.argv[1:])
prepared = preparation(ROOT, config).read()
parts = datasets(config, prepared.folder, prepared.facts)
rows = json.loads(input())
assert len(rows) == 3
"""
# Each record is a row of the table: the same float32.
ROWS = """
samples = [sample for part in parts.values() for sample in part]
whole = {torch.cat([inputs, target[None]]).numpy().tobytes() for inputs, target in samples}
for row in rows:
    assert [*row] == [*prepared.facts["columns"], "progression"]
    assert numpy.float32([*row.values()]).tobytes() in whole
"""
# Each record is an image: the same pixels, and the same class.
IMAGES = """
train = parts["train"]
for row in rows:
    image = torch.tensor(row["image"]).permute(2, 0, 1).float() / 255
    classes = prepared.facts["classes"]
    found = [classes[label] for part in parts.values() for pixels, label in part
             if torch.equal(pixels, image)]
    assert found == [row["label"]]
"""


def own_reader(project: Project, compared: str, rows: list[Any], *settings: str) -> dict[str, int]:
    """Compare three records with what the project reads; the sizes of its parts."""
    program = f"{OWN}{compared}\nprint(json.dumps({{k: len(part) for k, part in parts.items()}}))"
    done = subprocess.run(
        [project.venv / "bin" / "python", "-c", program, *settings],
        cwd=project.path,
        env=clean_environ(),
        input=json.dumps(rows),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    sizes: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return sizes


def record(project: Project, claims: str, stated: str = "") -> Project:
    """Record claims and commit them, as their author would."""
    with (project.path / "pyproject.toml").open("a") as file:
        file.write(stated)
    record_claims(project, claims)
    commit(project)
    return project


def packed(project: Project, folder: Path, *arguments: str) -> Path:
    """The unpacked archive of a project."""
    path = folder.with_suffix(".zip")
    done = project.module("repro", "archive", "--output", str(path), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return unpack(path, folder)


def read(folder: Path, with_records: bool = True) -> Any:
    command = [CHECKS / "python", "-c", READ, folder / "croissant.json", *["x"][:with_records]]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environ())
    assert done.returncode == 0, done.stderr
    assert "not standard" not in done.stderr  # its @context
    return json.loads(done.stdout)


def described(folder: Path) -> Any:
    return json.loads((folder / "croissant.json").read_text())


def refuse_wrong_files(folder: Path) -> None:
    """Hold that each packed file is as it is described, and that the others are not there."""
    for node in described(folder)["distribution"]:
        if node["@type"] == "cr:FileSet":
            continue
        path = folder / node["contentUrl"]
        assert path.is_file() == ("Not packed" not in node.get("description", ""))
        if path.is_file():
            assert node["sha256"] == sha256_file(path)
            assert node["contentSize"] == f"{path.stat().st_size} B"


TABLE = """
- name: short
  text: A short training
  arguments: [training.max_steps=3, dataset.test_fraction=0.1]
  metric: mae
  seeds: [42, 43]
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = generate(tmp_path_factory.mktemp("table"), "task=table")
    return record(project, TABLE, STATED)


def test_the_rows_of_a_table_are_those_that_the_project_reads(
    table: Project, tmp_path: Path
) -> None:
    folder = packed(table, tmp_path / "packed", "--with-data")
    refuse_wrong_files(folder)
    found = read(folder)
    assert {*found["records"]} == {"diabetes/table.csv", "diabetes/parts"}
    rows = found["records"]["diabetes/table.csv"]
    sizes = own_reader(Project(folder, table.venv), ROWS, rows, "dataset.test_fraction=0.1")
    assert sizes == {"train": 310, "validation": 88, "test": 44}
    parts = found["records"]["diabetes/parts"]
    assert {part["name"]: part["samples"] for part in parts} == sizes
    told = "parts of short: train 310, validation 88, test 44."
    assert described(folder)["description"].endswith(told)


def test_only_what_is_known_is_told(table: Project, tmp_path: Path) -> None:
    folder = packed(table, tmp_path / "packed")
    refuse_wrong_files(folder)
    found = read(folder, with_records=False)
    assert found["told"] == {
        "data_biases": ["few patients", "one study"],
        "personal_sensitive_information": ["age and sex"],
    }
    content = described(folder)
    assert {name for name in content if name.startswith("rai:")} == {
        "rai:dataBiases",
        "rai:dataCollectionTimeframe",
        "rai:personalSensitiveInformation",
    }
    assert not {"license", "creator", "url", "citeAs"} & {*content}
    (node,) = (node for node in content["distribution"] if node["@id"].endswith(".csv"))
    assert node["contentUrl"] == "data/diabetes/prepared/table.csv"
    assert node["description"] == "Not packed: `make data` writes it."
    # It does, and then the records are there.
    done = Project(folder).module("experiment.prepare")
    assert done.returncode == 0, done.stderr
    assert node["sha256"] == sha256_file(folder / node["contentUrl"])
    assert len(read(folder)["records"]["diabetes/table.csv"]) == 3


def test_what_other_programs_cannot_read_has_no_records(recorded: Project, tmp_path: Path) -> None:
    folder = packed(recorded, tmp_path / "packed")
    refuse_wrong_files(folder)
    content = described(folder)
    assert "recordSet" not in content
    assert content["license"] == ["https://spdx.org/licenses/CC-BY-4.0"]
    assert content["description"].startswith("digits: 1797 samples; from scikit-learn's wheel")
    assert content["description"].endswith("parts of short: test 359, validation 180, train 1258.")
    assert [node["@id"] for node in content["distribution"]] == [
        "data-manifest/digits/manifest.json",
        "data/digits/prepared/data.safetensors",
    ]
    assert read(folder)["records"] == {}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that recorded a claim on images of its author's own."""
    project = generate(tmp_path_factory.mktemp("pictures"))
    random = np.random.default_rng(1)
    for number in range(40):
        folder = project.path / "pictures" / ("cat", "dog/deep er")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20 + number, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}{('.png', '.JPG')[number % 3 == 0]}")
    settings = "dataset=image_folder, image_dir=pictures, dataset.size=8, dataset.shift=0"
    return record(
        project, CLAIMS.replace("[training", f"[{settings}, dataset.flip=false, training")
    )


def test_the_images_of_a_folder_are_those_that_the_project_reads(
    pictures: Project, tmp_path: Path
) -> None:
    folder = packed(pictures, tmp_path / "packed", "--with-data")
    refuse_wrong_files(folder)
    found = read(folder)
    settings = ["dataset=image_folder", "image_dir=pictures", "dataset.size=8"]  # not there
    settings += ["dataset.shift=0", "dataset.flip=false"]
    rows = found["records"]["image_folder/samples"]
    sizes = own_reader(Project(folder, pictures.venv), IMAGES, rows, *settings)
    parts = found["records"]["image_folder/parts"]
    assert {part["name"]: part["samples"] for part in parts} == sizes
    files = [n for n in described(folder)["distribution"] if n["@type"] == "cr:FileObject"]
    assert len(files) == 1 + 40  # the manifest, the images


def test_images_that_are_not_packed_are_told_with_their_place(
    pictures: Project, tmp_path: Path
) -> None:
    folder = packed(pictures, tmp_path / "packed")
    refuse_wrong_files(folder)
    (node, *_) = [n for n in described(folder)["distribution"] if n["@id"].endswith(".png")]
    assert node["description"] == "Not packed: the folder that image_dir names has it."
    assert "contentSize" in node
    read(folder, with_records=False)
