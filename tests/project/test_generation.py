"""What cookiecutter writes: the files, their syntax, one source for every version and digest."""

import ast
import hashlib
import itertools
import json
import re
import shutil
import subprocess
import tomllib
from html import unescape
from pathlib import Path

import pytest
import yaml
from cmarkgfm import github_flavored_markdown_to_html
from conftest import (
    CHECKS,
    COOKIECUTTER,
    ROOT,
    TASKS,
    TEMPLATE,
    VENV,
    Project,
    clean_environ,
    generate,
    git,
)
from omegaconf import OmegaConf
from options import CHOICES, pins
from repro.core.text import plain_letters
from repro.environment.profile import PROFILES
from repro.runs.conditions import conditions_on_disk
from repro.runs.settings import ExperimentConfig, Training

STACK = json.loads((ROOT / "cookiecutter.json").read_text())["_stack"]

# What post_gen_project.py takes away again.
OF_A_TRACKER = ["configs/tracker/{}.yaml", "repro/tracking/{}.py"]
OF_SECRETS = ("repro/core/secret_", "repro/core/redaction.py")
OF_ANY_TRACKER = [f"repro/tracking/{name}.py" for name in ("__main__", "mirror", "sender")]
OF_MANY_MACHINES = "repro/training/scale/"


# A name that says for which choices there is the file.
CONDITIONAL = re.compile(r"\{\{ only\((.*?)\) \}\}")
CLAIMS = {"images": "digits_baseline", "text": "python_text", "table": "diabetes"}


def expected_files(task: str = "images", scale: str = "one", tracker: str = "none") -> list[str]:
    """What such a project consists of: the files of the template's folder, of git."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.check_output(listed, cwd=TEMPLATE, text=True).strip("\0").split("\0")
    expected = {name for name in names if (TEMPLATE / name).is_file()}
    others = {*CHOICES["tracker"]} - {"none", tracker}
    expected = {name_in_project(name, task, {task, scale, tracker}) for name in expected} - {""}
    expected -= {name.format(other) for other in others for name in OF_A_TRACKER}
    if tracker == "none":
        expected -= {*OF_ANY_TRACKER}
    if scale == "one":
        expected = {name for name in expected if not name.startswith(OF_MANY_MACHINES)}
    return sorted(expected)


def name_in_project(name: str, task: str, made_with: set[str]) -> str:
    """What a file of the template's folder is called in a project, "" if it has none."""
    claim = CLAIMS[task]
    if found := CONDITIONAL.search(name):
        wanted = found[1].replace("cookiecutter.__claim ~ '", f"'{claim}")
        last, *choices = re.findall("'(.*?)'", wanted)
        if not made_with & {*choices}:
            return ""
        name = name.replace(found[0], last)
    return name.replace("{{ cookiecutter.__claim }}", claim)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return generate(tmp_path_factory.mktemp("fresh"))


def files_of(project: Project) -> dict[str, bytes]:
    root = project.path
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def all_pairs() -> list[tuple[str, ...]]:
    """Combinations of all options' values, few, with every pair of two options' values in one."""
    rows = list(itertools.product(*CHOICES.values()))
    pairs = {row: set(itertools.combinations(enumerate(row), 2)) for row in rows}
    missing, chosen = set().union(*pairs.values()), []
    while missing:
        chosen.append(max(rows, key=lambda row: len(pairs[row] & missing)))
        missing -= pairs[chosen[-1]]
    return chosen


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Project]:
    """A project for each of these combinations."""
    made = {}
    for values in all_pairs():
        answers = [f"{k}={v}" for k, v in zip(CHOICES, values, strict=True)]
        answers += ["repository_url=https://example.org/someone/study"]
        made[values] = generate(tmp_path_factory.mktemp("option"), *answers)
    return made


def test_every_pair_of_options_has_exactly_its_files(
    variants: dict[tuple[str, ...], Project],
) -> None:
    assert 16 <= len(variants) <= 24
    for values, project in variants.items():
        chosen = dict(zip(CHOICES, values, strict=True))
        expected = expected_files(chosen["task"], chosen["scale"], chosen["tracker"])
        assert sorted(files_of(project)) == expected, values


def test_without_a_tracker_nothing_of_one_is_in_the_project(fresh: Project) -> None:
    for name, content in files_of(fresh).items():
        known = ("repro/runs/settings.py", "repro/tracking/__init__.py", *OF_SECRETS)
        known += ("repro/publishing/anonymity/",)
        # In every project tokens of trackers are secrets, and accounts there tell who somebody is.
        if not name.startswith(known):
            assert not re.search(rb"(?i)tensorboard|mlflow|wandb", content), name


def test_a_project_for_one_machine_has_nothing_of_the_engines_for_many(
    fresh: Project, variants: dict[tuple[str, ...], Project]
) -> None:
    assert not (fresh.path / "configs" / "scale").exists()
    assert not (fresh.path / OF_MANY_MACHINES).exists()
    for name, content in files_of(fresh).items():
        if not name.startswith("repro/"):  # the kit knows what it lacks
            assert not re.search(rb"(?i)\b(ddp|fsdp2?)\b", content), name
    many = next(project for values, project in variants.items() if "many" in values)
    assert (many.path / OF_MANY_MACHINES / "__init__.py").is_file()
    assert "DDP" in (many.path / "README.md").read_text()


def test_the_settings_of_many_machines_are_those_that_the_kit_has_without_them(
    tmp_path: Path,
) -> None:
    """configs/scale/many.yaml says with which values a training is one in shards."""
    many = generate(tmp_path, "scale=many")
    listed = OmegaConf.to_container(OmegaConf.load(many.path / "configs" / "scale" / "many.yaml"))
    assert isinstance(listed, dict)
    for name, value in listed.pop("training").items():
        assert Training.model_fields[name].default == value, name
    assert listed
    for name, value in listed.items():
        assert ExperimentConfig.model_fields[name].default == value, name


def test_no_file_is_empty_and_every_file_is_of_its_kind(
    variants: dict[tuple[str, ...], Project],
) -> None:
    seen = set()  # most files are the same in all
    for project in variants.values():
        for name, content in files_of(project).items():
            if (name, content) in seen or name.endswith(".png"):
                continue
            seen.add((name, content))
            text = content.decode()
            assert text.strip(), name
            assert "cookiecutter" not in text, name
            if not name.endswith(".jinja"):  # the page of verdicts, which the kit fills
                assert "{%" not in text, name
                shown = name.startswith(".github/") or name.endswith(".py")
                assert shown or "{{" not in text, name
            assert text.endswith("\n"), name
            assert not text.endswith("\n\n"), name
            parse(name, text)
            if name.endswith(".md"):
                for target in re.findall(r"\]\(([^)#]+)\)", text):
                    assert "://" in target or (project.path / target).exists(), (name, target)


def parse(name: str, text: str) -> None:
    """Read a file as what its name says; an error of its syntax fails the test."""
    if name.endswith(".toml"):
        tomllib.loads(text)
    elif name.endswith(".json"):
        json.loads(text)
    elif name.endswith((".yaml", ".yml", ".cff")):
        yaml.safe_load(text)
    elif name.endswith(".py"):
        ast.parse(text)


LICENSES = {
    "MIT": ("Permission is hereby granted, free of charge", "The Authors"),
    "BSD-3-Clause": ("Redistribution and use in source and binary forms", "The Authors"),
    "Apache-2.0": ("Apache License\n", "END OF TERMS AND CONDITIONS"),
    "Proprietary": ("All rights reserved", "The Authors"),
}


def test_licence_versions_and_citation_follow_the_options(
    variants: dict[tuple[str, ...], Project],
) -> None:
    checked = set()
    for values, project in variants.items():
        chosen = dict(zip(CHOICES, values, strict=True))
        text = (project.path / "LICENSE").read_text()
        title = {name for name, words in LICENSES.items() if all(word in text for word in words)}
        title -= {"Proprietary"} if "Redistribution" in text else set()  # it reserves rights, too
        assert title == {chosen["license"]}, values
        image = STACK["base_images"][chosen["base_image"]]
        assert f"ARG BASE_IMAGE={image}\n" in (project.path / "Dockerfile").read_text()
        assert image in (project.path / "REPRODUCE.md").read_text()
        metadata = tomllib.loads((project.path / "pyproject.toml").read_text())["project"]
        proprietary = chosen["license"] == "Proprietary"
        assert metadata["license"] == f"{'LicenseRef-' * proprietary}{chosen['license']}"
        citation = (project.path / "CITATION.cff").read_bytes()
        assert (b"license: " in citation) == (not proprietary)
        if citation not in checked:
            checked.add(citation)
            subprocess.run([CHECKS / "cffconvert", "--validate"], cwd=project.path, check=True)


def test_linters_of_workflows_yaml_and_shell_find_nothing(fresh: Project, tmp_path: Path) -> None:
    shellcheck = CHECKS / "shellcheck"
    many = generate(tmp_path, "scale=many").path
    scripts = [path / "slurm" / "train.sbatch" for path in (fresh.path, many)]
    commands: list[list[str | Path]] = [[shellcheck, ROOT / ".ci" / "run", *scripts]]
    for folder in (fresh.path, ROOT):
        workflows = sorted((folder / ".github" / "workflows").glob("*.yml"))
        assert workflows
        # With shellcheck over the steps' scripts.
        commands.append([CHECKS / "actionlint", "-no-color", "-shellcheck", shellcheck, *workflows])
        zizmor = [CHECKS / "zizmor", "--offline", "--no-progress", "--persona=pedantic"]
        commands.append([*zizmor, folder / ".github"])
    for where in (fresh.path, many, ROOT / ".github"):
        commands.append([CHECKS / "yamllint", "--strict", "-c", fresh.path / ".yamllint", where])
    for command in commands:
        done = subprocess.run(command, cwd=fresh.path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_pre_commit_passes_a_fresh_project_and_stops_a_bad_change(
    own_project: Project, tmp_path: Path
) -> None:
    def hooks() -> subprocess.CompletedProcess[str]:
        commit = ("run", "--all-files", "--color=never")
        variables = {"PRE_COMMIT_HOME": f"{tmp_path}/hooks", "VENV": str(VENV)}
        return own_project.run(f"{CHECKS}/pre-commit", *commit, **variables)

    git(own_project, "init", "--quiet")
    git(own_project, "add", "--all")
    done = hooks()
    assert done.returncode == 0, done.stdout + done.stderr
    with (own_project.path / "experiment" / "model.py").open("a") as file:
        file.write("import os\n")
    (own_project.path / "runs").mkdir()
    (own_project.path / "runs" / "big.bin").write_text("weights")
    git(own_project, "add", "--all", "--force")
    done = hooks()
    assert done.returncode == 1
    assert "`os` imported but unused" in done.stdout
    assert "runs, data and .venv belong into .gitignore" in done.stdout


def test_cudnn_comes_from_the_lock_by_its_hash_on_every_base(
    variants: dict[tuple[str, ...], Project],
) -> None:
    """The default base is CUDA's without cuDNN; of no lock is a package from a second index."""
    bases = set()
    for project in variants.values():
        dockerfile = (project.path / "Dockerfile").read_text()
        bases |= {*re.findall(r"(?m)^ARG BASE_IMAGE=(\S+)@sha256:[0-9a-f]{64}$", dockerfile)}
        assert "packages of requirements.lock (nvidia-cudnn-cu13," in dockerfile
        assert (
            "--require-hashes --no-deps --only-binary=:all: --requirement /tmp/requ" in dockerfile
        )
        lock = (project.path / "requirements.lock").read_text()
        marked = r' ; sys_platform == "linux" \\\n    --hash=sha256:[0-9a-f]{64}'
        assert re.search(r"(?m)^nvidia-cudnn-cu13==[\d.]+" + marked, lock)
        assert not re.search(r"(?m)^\S+ @ |index-url|find-links|==\S+\+", lock)
    assert len(bases) == len(CHOICES["base_image"])
    first, *_ = CHOICES["base_image"]
    assert re.fullmatch(
        r"nvidia/cuda:[\d.]+-base-ubuntu[\d.]+", STACK["base_images"][first].partition("@")[0]
    )


def test_each_choice_of_a_base_says_what_it_brings() -> None:
    prompts = json.loads((ROOT / "cookiecutter.json").read_text())["__prompts__"]["base_image"]
    assert list(prompts)[1:] == list(STACK["base_images"]) == CHOICES["base_image"]
    assert all(prompts[name].startswith(f"{name} ") for name in CHOICES["base_image"])
    assert "CUDA packages stay" in prompts["cpu"]
    assert "has no CPU build" in prompts["cpu"]


def test_hadolint_finds_nothing(variants: dict[tuple[str, ...], Project]) -> None:
    """Two rules are left out, at three instructions, with the reason beside them."""
    texts = {(project.path / "Dockerfile").read_text() for project in variants.values()}
    assert len(texts) > 3
    for text in texts:
        left_out = re.findall("(?i)hadolint ignore=(.*)", text)
        assert left_out == ["DL3008", "DL3008", "DL3006"]
        command = [CHECKS / "hadolint", "--no-color", "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_actions_are_pinned_by_commit(fresh: Project) -> None:
    for folder in (fresh.path, ROOT):
        for path in (folder / ".github" / "workflows").glob("*.yml"):
            for used in re.findall(r"uses: (\S+.*)", path.read_text()):
                assert re.fullmatch(r"[\w/.-]+@[0-9a-f]{40} # v[\d.]+", used), (path, used)


@pytest.mark.parametrize("task", CHOICES["task"])
def test_python_and_configs_are_copied_as_they_stand(tmp_path: Path, task: str) -> None:
    rendered = (".pre-commit-config.yaml", "configs/tracker/default.yaml")
    for name, content in files_of(generate(tmp_path, f"task={task}")).items():
        if name.endswith((".py", ".yaml", ".jinja")) and name not in rendered:
            own = TASKS / task / name
            assert content == (own if own.is_file() else TEMPLATE / name).read_bytes(), name


@pytest.mark.parametrize("tracker", CHOICES["tracker"])
def test_a_tracker_is_no_condition(fresh: Project, tmp_path: Path, tracker: str) -> None:
    project = generate(tmp_path, f"tracker={tracker}")
    assert conditions_on_disk(project.path) == conditions_on_disk(fresh.path)


def test_the_scale_is_no_condition_of_a_training_in_shards(fresh: Project, tmp_path: Path) -> None:
    """The recorded results are those of both; with PyTorch's engines their code counts."""
    many = generate(tmp_path, "scale=many")
    assert conditions_on_disk(many.path) == conditions_on_disk(fresh.path)
    config = {"training": {"parallel": "ddp"}}
    code = conditions_on_disk(many.path, config=config).code
    assert code.items() > conditions_on_disk(fresh.path, config=config).code.items()
    assert f"{OF_MANY_MACHINES}__init__.py" in code


@pytest.mark.parametrize(
    "choice",
    [*(f"tracker={tracker}" for tracker in CHOICES["tracker"]), "scale=many"],
)
def test_the_generated_python_is_clean(tmp_path: Path, choice: str, mypy_cache: str) -> None:
    """These alone make the Python files differ; types are checked without the trackers."""
    project = Project(generate(tmp_path, choice).path)
    done = project.make("lint", MYPY_CACHE_DIR=mypy_cache)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_setting_outside_args_is_refused(fresh: Project) -> None:
    """`make train seed=7` would train with the defaults."""
    for stray in ("seed=7", "training.epochs=3"):
        done = fresh.make("train", stray)
        assert done.returncode == 2
        assert f"{stray.partition('=')[0]} is no variable of this Makefile" in done.stderr
    assert fresh.make("--dry-run", "train", "ARGS=seed=7").returncode == 0


# One source ----------------------------------------------------------------------------------


def stages_of(dockerfile: str) -> dict[str, dict[str, str]]:
    """What each stage of a Dockerfile sets."""
    stages = re.findall(r"(?ms)^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", dockerfile)
    pattern = r'^(?:ENV | +)([A-Z_]+)="([^"]*)"'
    return {name: dict(re.findall(pattern, text, re.MULTILINE)) for name, text in stages}


def test_the_profile_is_the_same_everywhere(fresh: Project) -> None:
    """portable on x86-64 alone: nothing else has its variables (make: test_other_systems.py)."""
    expected = {**PROFILES["portable"], "REPRO_PROFILE": "portable"}
    native = {**PROFILES["native"], "REPRO_PROFILE": "native"}
    stages = stages_of((fresh.path / "Dockerfile").read_text())
    assert stages.pop("profile-amd64") == expected
    assert stages.pop("profile-arm64") == native
    assert stages
    assert not expected.keys() & {name for stage in stages.values() for name in stage}
    conda = OmegaConf.load(fresh.path / "environment.yml").variables
    assert conda == {**PROFILES["native"], "PYTHONNOUSERSITE": "1"}
    make = (fresh.path / "Makefile").read_text()
    set_by_make = dict(re.findall(r"^export (\w+) \??= (.*)$", make, re.MULTILINE))
    assert {name: set_by_make.get(name) for name in expected} == {
        **expected,
        "REPRO_PROFILE": "native",  # which stands last
    }


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
    base = STACK["base_images"]["cuda-base"]
    assert f"ARG BASE_IMAGE={base}\n" in dockerfile
    assert re.search(r"@sha256:[0-9a-f]{64}\n", dockerfile)
    assert base in (fresh.path / "REPRODUCE.md").read_text()
    assert base.partition("@")[0] in (fresh.path / "README.md").read_text()
    metadata = tomllib.loads((fresh.path / "pyproject.toml").read_text())["project"]
    lowest, (major, minor) = STACK["python_lowest"], STACK["python_highest"].split(".")
    assert metadata["requires-python"] == f">={lowest},<{major}.{int(minor) + 1}"


@pytest.mark.parametrize(
    ("task", "tracker"),
    [("images", "none"), ("text", "tensorboard"), ("table", "mlflow"), ("images", "wandb")],
)
def test_what_is_asked_for_is_locked_and_imported(tmp_path: Path, task: str, tracker: str) -> None:
    root = generate(tmp_path, f"task={task}", f"tracker={tracker}").path
    asked = re.findall(r"(?m)^([a-z][a-z0-9-]*)", (root / "requirements.in").read_text())
    lock = (root / "requirements.lock").read_bytes()
    assert set(asked) <= pins(lock.decode()).keys()
    assert (root / "requirements-tracker.in").is_file() == (tracker != "none")
    if tracker != "none":
        assert f"\n{tracker}\n" in (root / "requirements-tracker.in").read_text()
        assert tracker in pins((root / "requirements-tracker.lock").read_text())
        asked.append(tracker)
    assert hashlib.sha256(lock).hexdigest() in (root / "REPRODUCE.md").read_text()
    imported = set()
    for path in [*(root / "repro").rglob("*.py"), *(root / "experiment").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module":
                imported.add(ast.unparse(node.args[0]).strip("'").split(".")[0])
    # These two carry data.
    distributions = {"hydra-core": "hydra", "scikit-learn": None, "networkx": None, "pillow": "PIL"}
    for name in asked:
        module = distributions.get(name, name)
        assert module is None or module in imported, name


# Answers -------------------------------------------------------------------------------------

FOLDERS = {
    "My  Study: Part 2": "my-study-part-2",
    "Smörgås Łódź": "smorgas-lodz",
    "Jörg's Über-Prüfung": "jorg-s-uber-prufung",
    "Søren & Æsir": "soren-aesir",
    "Straße, ﬁne \u2461": "strasse-fine-2",
    "\u0130stanbul \u0131l\u0131k": "istanbul-ilik",
    "e\u0301tude": "etude",
    "中文": "experiment",
}


def test_the_suggested_folder_has_the_plain_letters_of_the_name() -> None:
    program = (
        "import json, sys; from local_extensions import slug; "
        "print(json.dumps([slug(name) for name in json.loads(sys.argv[1])]))"
    )
    command = [COOKIECUTTER.with_name("python"), "-c", program, json.dumps([*FOLDERS])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert dict(zip(FOLDERS, json.loads(done.stdout), strict=True)) == FOLDERS


@pytest.mark.parametrize("name", FOLDERS)
def test_the_kit_has_the_same_plain_letters(name: str) -> None:
    """The template's tools cannot import the kit, so the rule stands in both."""
    plain = re.sub("[^a-z0-9]+", "-", plain_letters(name))
    assert (plain[:60].strip("-") or "experiment") == FOLDERS[name]


NASTY = "A \"q\" 'r' \\ {{x}} {% y %} $(touch hit) `touch hit` é 🙂 # & <b> % * _ :"


SHOWN = ("README.md", "REPRODUCE.md", "LICENSE", "CITATION.cff", "pyproject.toml", "Makefile")
SHOWN = (*SHOWN, "Dockerfile")
TEXTS = {
    "everything": NASTY,
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u0639\u0631\u0628\u064a \u200dabc\u200c",
    "toml and yaml": "'''x''' \"\"\" [a] = {b: c} - ? ! | > & *x %TAG @a `b` #c: d, null, ~, 1e3",
    "make and shell": "$(shell touch hit) $(touch hit) ${HOME} ; touch hit # \\",
    "markdown": "# a [b](c) <script>alert(1)</script> **d** | e | ~~f~~ 1. g",
    "addresses": "of https://example.org/a_b~c#d?e=1&f, www.example.org/a_b and me@example.org",
    "long": "x" * 200,
    "spaces inside": "a  b\u00a0c",
}


def typed(folder: Path, *answers: str) -> Project:
    """Answer the prompts in order."""
    done = subprocess.run(
        [COOKIECUTTER, "--default-config", "-o", folder, ROOT],
        input="\n".join(answers) + "\n",
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return Project(folder / answers[1])


@pytest.mark.parametrize("kind", TEXTS)
def test_answers_come_out_as_they_were_typed(tmp_path: Path, kind: str) -> None:
    """Typed at the prompts; key=value on the command line is rendered by cookiecutter itself."""
    text, url = TEXTS[kind], "https://example.org/a?b=1&c=%20"
    project = typed(tmp_path, text, "nasty", text, text, url, "1", "1", "1", "1", "1")
    root = project.path
    metadata = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert metadata["description"] == text
    assert metadata["authors"] == [{"name": text}]
    assert text in (root / "LICENSE").read_text()
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert (citation["title"], citation["abstract"]) == (text, text)
    assert citation["authors"] == [{"name": text}]
    assert citation["repository-code"] == url
    dockerfile = (root / "Dockerfile").read_text()
    labels = dict(re.findall(r'image\.(\w+)="((?:[^"\\]|\\.)*)"', dockerfile))
    for label in ("title", "description", "authors"):
        assert re.sub(r"\\(.)", r"\1", labels[label]) == text
    for name in ("README.md", "REPRODUCE.md"):
        html = github_flavored_markdown_to_html((root / name).read_text())
        assert "%5C" not in html, name  # of an address that has become a link
        shown = unescape(re.sub("<[^>]+>", "", html))
        assert " ".join(text.split()) in " ".join(shown.split()), name
    for name, content in files_of(project).items():
        if not name.endswith(".png") and name not in SHOWN and len(text) > 20:
            assert text not in content.decode(), name  # a file that the checks above left out
    done = project.make("help")
    assert done.returncode == 0, done.stderr
    assert project.module("experiment.train", "--help").returncode == 0
    assert not list(tmp_path.rglob("hit"))


def cookiecutter(folder: Path, *arguments: str | Path) -> list[Path]:
    """Run cookiecutter in a home of its own; the projects it wrote."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [COOKIECUTTER, "-o", folder / "out", *arguments],
        capture_output=True,
        text=True,
        env=clean_environ(HOME=str(folder)),
        stdin=subprocess.DEVNULL,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return sorted((folder / "out").iterdir())


def test_a_path_a_git_url_a_zip_a_replay_and_a_config_file_give_the_same(
    committed: Path, tmp_path: Path
) -> None:
    name = "project_name=A $(b) 'c'"
    (first,) = cookiecutter(tmp_path / "a", "--no-input", committed, name)
    expected = files_of(Project(first))
    (second,) = cookiecutter(tmp_path / "b", "--no-input", f"git+file://{committed}", name)
    assert files_of(Project(second)) == expected
    archive = tmp_path / "template.zip"
    command = ["git", "archive", "--format=zip", "--prefix=repro-template/", "-o", archive, "HEAD"]
    subprocess.run(command, cwd=committed, check=True)
    (third,) = cookiecutter(tmp_path / "c", "--no-input", archive, name)
    assert files_of(Project(third)) == expected
    shutil.rmtree(first)
    (again,) = cookiecutter(tmp_path / "a", "--replay", committed)
    assert files_of(Project(again)) == expected
    defaults = tmp_path / "defaults.yaml"
    defaults.write_text("default_context:\n  project_name: A $(b) 'c'\n  license: MIT\n")
    (last,) = cookiecutter(tmp_path / "d", "--no-input", "--config-file", defaults, committed)
    assert files_of(Project(last)) == expected


def replayed(folder: Path, template: Path, **answers: object) -> subprocess.CompletedProcess[str]:
    """Generate from a replay file with some of its answers changed, as by hand."""
    folder.mkdir()
    cookiecutter(folder / "first", "--no-input", template)
    (kept,) = (folder / "first" / ".cookiecutter_replay").glob("*.json")
    replay = json.loads(kept.read_text())
    replay["cookiecutter"] |= answers
    kept.write_text(json.dumps(replay))
    command = [COOKIECUTTER, "--replay-file", kept, "-o", folder / "out", template]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("project_slug", "../outside"),
        ("project_slug", ""),
        ("project_name", "a\n$(shell touch hit)\nb"),
        ("description", None),
        ("license", "GPL"),
        ("tracker", ["mlflow"]),
        ("task", "video"),
        ("scale", "few"),
        ("_stack", {**STACK, "torch": "2.0.0"}),
    ],
)
def test_a_replay_is_checked_as_the_prompts_are(
    committed: Path, tmp_path: Path, name: str, answer: object
) -> None:
    """Its answers may have been edited, its versions may be those of an older template."""
    folder = tmp_path / "replay"
    done = replayed(folder, committed, **{name: answer})
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).strip().splitlines()
    assert line.startswith("cookiecutter: ")
    assert ("versions" if name == "_stack" else name) in line
    assert not (folder / "out").exists() or not list((folder / "out").iterdir())
    assert {path.name for path in folder.iterdir()} <= {"first", "out"}


@pytest.mark.parametrize("answer", ["description:", "author_name: yes", "description: {a: b}"])
def test_an_answer_that_is_no_text_is_one_line_and_leaves_nothing(
    tmp_path: Path, answer: str
) -> None:
    """YAML reads an empty value as null, and yes as true."""
    config = tmp_path / "config.yaml"
    config.write_text(f"default_context:\n  {answer}\n")
    command = [COOKIECUTTER, "--no-input", "--config-file", config, "-o", tmp_path / "out", ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).strip().splitlines()
    assert "is no text: put it in quotes" in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_writing_over_a_project_leaves_an_authors_own_tracker(tmp_path: Path) -> None:
    project = generate(tmp_path)
    mine = [project.path / name for name in ("configs/tracker/mine.yaml", "repro/tracking/mine.py")]
    for path in mine:
        path.write_text("# mine\n")
    command = [COOKIECUTTER, "--no-input", "--default-config", "-f", "-o", tmp_path, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.read_text() for path in mine] == ["# mine\n"] * 2
    assert len(files_of(project)) == len(expected_files()) + len(mine)


def test_a_new_project_says_what_comes_next(tmp_path: Path) -> None:
    command = [COOKIECUTTER, "--no-input", "--default-config", "-o", tmp_path, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    (folder,) = tmp_path.iterdir()
    assert line.startswith(f"{folder.name}/ is made. In it: make setup")
    helped = subprocess.run(["make"], cwd=folder, capture_output=True, text=True).stdout
    for verb in re.findall(r"make (\w+) \(", line):
        assert f"  make {verb} " in helped
    assert len(re.findall(r"make (\w+) \(", line)) == 2


@pytest.mark.parametrize(
    "answer",
    [
        "project_name=",
        "project_name=  ",
        "project_slug=",
        "project_slug=../outside",
        "project_slug=a/b",
        "project_slug=-x",
        "project_slug=..",
        "project_slug=a b",
        "project_slug=a\\b",
        "project_slug=" + "x" * 81,
        "project_slug=Scratch",
        "project_slug=base",
        "project_slug=Con",
        "project_slug=lpt1.study",
        "author_name=\u200b\u202e",
        "repository_url=https:///someone:token@example.org/study",
        "project_name=" + "x" * 400,
        "author_name=\t",
        "repository_url=javascript:alert(1)",
        "repository_url=https://someone:token@example.org/study",
        "repository_url=https://token@example.org/study",
        "project_name=a\r\nb",
        "project_name=a\x1bb",
        "description=a\u202eb",
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
    assert "token" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("*.*"))


# Setting up ----------------------------------------------------------------------------------


def test_setting_up_again_changes_and_installs_nothing(project: Project) -> None:
    """pip is not even started: no index can be reached, and nothing is asked of one."""
    (site,) = VENV.glob("lib/python3*/site-packages")
    places = [VENV / "pyvenv.cfg", site, VENV / "repro-setup.json"]
    before = [place.stat().st_mtime_ns for place in places]
    done = project.make("setup", PIP_INDEX_URL="http://127.0.0.1:9/", PIP_RETRIES="0")
    assert done.returncode == 0, done.stderr
    assert "is up to date" in done.stdout
    assert [place.stat().st_mtime_ns for place in places] == before


def test_an_old_python_can_run_the_bootstrap_to_find_a_newer_one(fresh: Project) -> None:
    """RHEL 8's python3 is 3.6: no syntax and no annotation of a later one."""
    tree = ast.parse((fresh.path / "bootstrap.py").read_text(), feature_version=(3, 6))
    assert "annotations" not in {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            notes = [node.returns, *(argument.annotation for argument in node.args.args)]
            assert not any(isinstance(note, ast.Subscript | ast.BinOp) for note in notes), node.name


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
