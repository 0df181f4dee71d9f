"""What cookiecutter writes: the files, their syntax, one source for every version and digest."""

import ast
import json
import re
import statistics
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
from conftest import COOKIECUTTER, ROOT, TEMPLATE, VENV, Project, generate
from omegaconf import OmegaConf
from repro.environment import PROFILES

STACK = json.loads((ROOT / "cookiecutter.json").read_text())["_stack"]

FILES = [
    ".dockerignore",
    ".git_archival.txt",
    ".gitattributes",
    ".gitignore",
    "CITATION.cff",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "REPRODUCE.md",
    "bootstrap.py",
    "environment.yml",
    "pyproject.toml",
    "requirements-dev.in",
    "requirements-dev.lock",
    "requirements.in",
    "requirements.lock",
    "configs/claims.yaml",
    "configs/config.yaml",
    "configs/dataset/cifar10.yaml",
    "configs/dataset/digits.yaml",
    "configs/dataset/fashion_mnist.yaml",
    "configs/dataset/image_folder.yaml",
    "configs/experiment/baseline.yaml",
    "configs/experiment/resnet18_cifar10.yaml",
    "configs/experiment/resnet18_image_folder.yaml",
    "configs/experiment/sgd.yaml",
    "configs/experiment/transformer_fashion_mnist.yaml",
    "configs/model/image_transformer.yaml",
    "configs/model/resnet18.yaml",
    "configs/model/small_cnn.yaml",
    "configs/optimizer/adamw.yaml",
    "configs/optimizer/sgd.yaml",
    "experiment/__init__.py",
    "experiment/config.py",
    "experiment/data.py",
    "experiment/evaluate.py",
    "experiment/model.py",
    "experiment/prepare.py",
    "experiment/sources.py",
    "experiment/train.py",
    "experiment/trainer.py",
    "repro/__init__.py",
    "repro/__main__.py",
    "repro/checkpoint.py",
    "repro/command.py",
    "repro/conditions.py",
    "repro/configuration.py",
    "repro/download.py",
    "repro/figures.py",
    "repro/manifest.py",
    "repro/progress.py",
    "repro/sweep.py",
    "repro/determinism.py",
    "repro/environment.py",
    "repro/hashing.py",
    "repro/parallel.py",
    "repro/provenance.py",
    "repro/record.py",
    "repro/redaction.py",
    "repro/run.py",
    "repro/sampling.py",
    "repro/seeding.py",
    "repro/verify.py",
    "results/expected_metrics.json",
    "results/figures/digits_baseline/confusion_matrix.png",
    "results/figures/digits_baseline/learning_curves.png",
    "tests/conftest.py",
    "tests/test_reproducibility.py",
]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return generate(tmp_path_factory.mktemp("fresh"))


def files_of(project: Project) -> dict[str, bytes]:
    root = project.path
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_default_project_has_exactly_these_files(fresh: Project) -> None:
    assert sorted(files_of(fresh)) == sorted(FILES)


def test_no_file_is_empty_and_nothing_of_jinja_is_left(fresh: Project) -> None:
    for name, content in files_of(fresh).items():
        assert content.strip(), name
        if not name.endswith(".png"):
            text = content.decode()
            assert "cookiecutter" not in text, name
            assert "{%" not in text, name
            assert text.endswith("\n"), name
            assert not text.endswith("\n\n"), name


def test_python_and_configs_are_copied_as_they_stand(fresh: Project) -> None:
    for name, content in files_of(fresh).items():
        if name.endswith((".py", ".yaml")):
            assert content == (TEMPLATE / name).read_bytes(), name


def test_generating_takes_under_half_a_second() -> None:
    """cookiecutter's own time, without the start of Python."""
    program = (
        "import sys, time, tempfile; from cookiecutter.main import cookiecutter\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    started = time.perf_counter()\n"
        "    cookiecutter(sys.argv[1], no_input=True, default_config=True, output_dir=folder)\n"
        "    print(time.perf_counter() - started)"
    )
    python = COOKIECUTTER.with_name("python")
    runs = [
        float(subprocess.check_output([python, "-c", program, ROOT], text=True)) for _ in range(3)
    ]
    assert statistics.median(runs) < 0.5


def test_the_generated_python_is_clean(own_project: Project) -> None:
    done = own_project.make("lint")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_kit_imports_nothing_of_the_authors_rooms(fresh: Project) -> None:
    for path in (fresh.path / "repro").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "experiment" for name in names), path


def code_lines(text: str) -> int:
    """Lines with code on them: no blank lines, comments or docstrings."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            documented.update(range(node.lineno, (node.end_lineno or 0) + 1))
    lines = enumerate(map(str.strip, text.splitlines()), 1)
    return sum(bool(line) and line[0] != "#" and n not in documented for n, line in lines)


@pytest.mark.parametrize(("folder", "limit"), [("experiment", 850), ("repro", 1700)])
def test_it_can_be_read_in_one_sitting(folder: str, limit: int) -> None:
    texts = [path.read_text() for path in (TEMPLATE / folder).rglob("*.py")]
    assert sum(map(code_lines, texts)) <= limit


# One source ----------------------------------------------------------------------------------


def dockerfile_environment(text: str) -> dict[str, str]:
    return dict(re.findall(r'^(?:ENV | +)([A-Z_]+)="([^"]*)"', text, re.MULTILINE))


def test_the_profile_is_the_same_everywhere(fresh: Project) -> None:
    expected = {**PROFILES["portable"], "REPRO_PROFILE": "portable"}
    docker = dockerfile_environment((fresh.path / "Dockerfile").read_text())
    conda = OmegaConf.load(fresh.path / "environment.yml").variables
    make = dict(
        re.findall(r"^export (\w+) \?= (.*)$", (fresh.path / "Makefile").read_text(), re.MULTILINE)
    )
    for name, found in (("Dockerfile", docker), ("environment.yml", conda), ("Makefile", make)):
        assert {key: found.get(key) for key in expected} == expected, name


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))


def test_versions_and_digests_agree_with_the_single_source(fresh: Project) -> None:
    lock = pins((fresh.path / "requirements.lock").read_text())
    for name, key in {
        "torch": "torch",
        "torchvision": "torchvision",
        "hydra-core": "hydra",
        "omegaconf": "omegaconf",
    }.items():
        assert lock[name] == STACK[key], name
    conda = OmegaConf.to_container(OmegaConf.load(fresh.path / "environment.yml"))
    assert isinstance(conda, dict)
    python, pip, through_pip = conda["dependencies"]
    assert python == f"python={STACK['python']}"
    assert pip == f"pip={STACK['pip']}"
    assert through_pip == {
        "pip": ["--require-hashes", "--only-binary=:all:", "-r requirements.lock"]
    }
    assert conda["channels"] == ["conda-forge", "nodefaults"]
    dockerfile = (fresh.path / "Dockerfile").read_text()
    assert f"ARG BASE_IMAGE={STACK['base_images']['cuda-cudnn']}\n" in dockerfile
    assert re.search(r"@sha256:[0-9a-f]{64}\n", dockerfile)
    assert STACK["base_images"]["cuda-cudnn"] in (fresh.path / "REPRODUCE.md").read_text()
    metadata = tomllib.loads((fresh.path / "pyproject.toml").read_text())["project"]
    lowest, (major, minor) = STACK["python_lowest"], STACK["python_highest"].split(".")
    assert metadata["requires-python"] == f">={lowest},<{major}.{int(minor) + 1}"


def test_the_locks_have_hashes_and_no_settings_of_a_machine(fresh: Project) -> None:
    runtime = (fresh.path / "requirements.lock").read_text()
    development = (fresh.path / "requirements-dev.lock").read_text()
    for lock in (runtime, development):
        assert "make lock" in lock
        for line in lock.splitlines():
            assert not line.startswith("-"), line
            assert "://" not in line, line
            assert " /" not in line, line
        for requirement in re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n?", "", lock)):
            if requirement.strip():
                assert re.search(r"--hash=sha256:[0-9a-f]{64}", requirement), requirement
    both = pins(runtime).keys() & pins(development).keys()
    assert {name: pins(runtime)[name] for name in both} == {
        name: pins(development)[name] for name in both
    }


def test_what_is_asked_for_is_locked_and_imported(fresh: Project) -> None:
    asked = re.findall(r"(?m)^([a-z][a-z0-9-]*)", (fresh.path / "requirements.in").read_text())
    assert asked
    assert set(asked) <= pins((fresh.path / "requirements.lock").read_text()).keys()
    imported = set()
    for path in [*(fresh.path / "repro").glob("*.py"), *(fresh.path / "experiment").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
    distributions = {"hydra-core": "hydra", "scikit-learn": None, "pillow": "PIL"}
    for name in asked:  # scikit-learn carries the data
        module = distributions.get(name, name)
        assert module is None or module in imported, name


def test_links_in_the_documents_lead_somewhere(fresh: Project) -> None:
    for document in ("README.md", "REPRODUCE.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (fresh.path / document).read_text()):
            assert "://" in target or (fresh.path / target).exists(), (document, target)


# Answers -------------------------------------------------------------------------------------

NASTY = "A \"q\" 'r' \\ {{x}} {% y %} $(touch hit) `touch hit` é 🙂 # & <b> % * _ :"


def test_answers_come_out_as_they_were_typed(tmp_path: Path) -> None:
    """Typed at the prompts; key=value on the command line is rendered by cookiecutter itself."""
    answers = [NASTY, "nasty", NASTY, NASTY, "https://example.org/a", "1", "1"]
    done = subprocess.run(
        [COOKIECUTTER, "--default-config", "-o", tmp_path, ROOT],
        input="\n".join(answers) + "\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    root = tmp_path / "nasty"
    metadata = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert metadata["description"] == NASTY
    assert metadata["authors"] == [{"name": NASTY}]
    assert NASTY in (root / "LICENSE").read_text()
    # resolve=False: the braces are the author's text, not OmegaConf's
    citation = OmegaConf.to_container(OmegaConf.load(root / "CITATION.cff"), resolve=False)
    assert isinstance(citation, dict)
    assert citation["title"] == NASTY
    assert Project(root).make("help").returncode == 0
    assert not list(tmp_path.rglob("hit"))


@pytest.mark.parametrize(
    "answer",
    [
        "project_name=",
        "project_name=  ",
        "project_slug=",
        "project_slug=../outside",
        "project_slug=a/b",
        "project_slug=-x",
        "project_slug=" + "x" * 300,
        "description=" + "x" * 400,
        "author_name=a\nb",
    ],
)
def test_a_bad_answer_is_one_line_and_leaves_nothing(tmp_path: Path, answer: str) -> None:
    done = subprocess.run(
        [COOKIECUTTER, "--no-input", "--default-config", "-o", tmp_path / "out", ROOT, answer],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert len((done.stdout + done.stderr).strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("license_name", ["MIT", "BSD-3-Clause", "Apache-2.0", "Proprietary"])
@pytest.mark.parametrize("base_image", ["cuda-cudnn", "cuda-base", "cpu"])
def test_every_licence_and_base_image(tmp_path: Path, license_name: str, base_image: str) -> None:
    project = generate(tmp_path / "out", f"license={license_name}", f"base_image={base_image}")
    text = (project.path / "LICENSE").read_text()
    assert {
        "MIT": "MIT License",
        "BSD-3-Clause": "Redistribution and use in source and binary forms",
        "Apache-2.0": "Apache License",
        "Proprietary": "All rights reserved",
    }[license_name] in text
    assert STACK["base_images"][base_image] in (project.path / "Dockerfile").read_text()
    metadata = tomllib.loads((project.path / "pyproject.toml").read_text())["project"]
    assert license_name in metadata["license"]


# Setting up ----------------------------------------------------------------------------------


def test_setting_up_again_changes_nothing_and_takes_no_time(project: Project) -> None:
    before = (VENV / "pyvenv.cfg").stat().st_mtime_ns
    started = time.monotonic()
    done = project.make("setup")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 2
    assert (VENV / "pyvenv.cfg").stat().st_mtime_ns == before


def test_a_tampered_hash_is_refused_and_named(own_project: Project, tmp_path: Path) -> None:
    path = own_project.path / "requirements.lock"
    head, _, tail = path.read_text().partition("--hash=sha256:")  # of the first package
    digest, rest = tail[:64], tail[64:]
    second = rest.index("--hash=sha256:") + len("--hash=sha256:")
    zeros = "0" * 64
    path.write_text(head + "--hash=sha256:" + zeros + rest[:second] + zeros + rest[second + 64 :])
    done = own_project.run("make", "setup", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    text = done.stdout + done.stderr
    assert "hash" in text.lower()
    assert re.findall(r"(?m)^([a-z0-9-]+)==", head)[-1] in text
    assert "Traceback" not in text
    assert digest


def test_a_command_without_an_environment_says_make_setup(own_project: Project) -> None:
    done = own_project.run("make", "train", "VENV=nowhere")
    assert done.returncode == 2
    assert "make setup" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
