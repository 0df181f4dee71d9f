"""environment.yml, read by conda's own reader and installed by the very code that conda runs.

conda comes as no Python package, but conda-lock carries a copy of it (24.7). What it does with its
channels, making an environment with that Python and pip, is not tested: no channel is reached.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, VENV, Project, clean_environ
from options import pins
from repro.environment.profile import PROFILES

CHECKS = ROOT / ".build" / "checks" / "bin"
STACK = json.loads((ROOT / "cookiecutter.json").read_text())["_stack"]
READ = """if 1:
    import json
    from conda_lock._vendor.conda.env.specs.yaml_file import YamlFileSpec
    from conda_lock._vendor.conda.models.match_spec import MatchSpec
    spec = YamlFileSpec(filename="environment.yml")
    assert spec.can_handle(), spec.msg
    found = spec.environment
    specs = [MatchSpec(text) for text in found.dependencies["conda"]]
    found = found.to_dict() | {"conda": {spec.name: str(spec.version) for spec in specs}}
    print(json.dumps(found))"""
INSTALL = """if 1:
    import sys
    from argparse import Namespace
    from conda_lock._vendor.conda.env.installers.pip import _pip_install_via_requirements
    from conda_lock._vendor.conda.env.specs.yaml_file import YamlFileSpec
    lines = YamlFileSpec(filename="environment.yml").environment.dependencies["pip"]
    print(_pip_install_via_requirements(sys.argv[1], lines, Namespace(file="environment.yml")))"""


def conda(
    project: Project, program: str, *arguments: str | Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHECKS / "python", "-c", program, *arguments],
        cwd=project.path,
        env=clean_environ(**variables),
        capture_output=True,
        text=True,
    )


def test_conda_reads_the_environment_file(project: Project) -> None:
    done = conda(project, READ)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "conda prints what it does not understand"
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["name"] == project.path.name
    assert found["channels"] == ["conda-forge", "nodefaults"]
    assert found["conda"] == {"python": f"{STACK['python']}.*", "pip": f"{STACK['pip']}.*"}
    # The same on every kind of machine, so without what portable has more, for x86-64.
    assert found["variables"] == {**PROFILES["native"], "PYTHONNOUSERSITE": "1"}


def test_condas_command_takes_the_whole_lock(project: Project) -> None:
    """In an environment that has all of it: pip resolves it and finds nothing to install."""
    done = conda(project, INSTALL, VENV, PIP_DRY_RUN="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'install', '-U', '-r', " in done.stdout
    assert "Would install" not in done.stdout
    satisfied = set(re.findall(r"(?m)^Requirement already satisfied: ([\w.-]+)==", done.stdout))
    lock = (project.path / "requirements.lock").read_text()
    assert satisfied == pins(lock).keys()  # on Linux all are needed
    assert not list(project.path.glob("condaenv.*"))


def test_its_variables_stand_in_no_profiles_way(own_project: Project) -> None:
    """`conda activate` sets them before each command, which adds what its own profile has more."""
    done = conda(own_project, READ)
    variables = json.loads(done.stdout)["variables"]
    for setting, marker in (("profile=auto", "portable"), ("profile=native", "native")):
        words = ("-m", "experiment.train", "training.max_steps=1", setting, "run_dir=runs/a")
        done = own_project.run("python", *words, **variables)
        assert done.returncode == 0, done.stderr
        context = json.loads((own_project.path / "runs/a/experiment_context.json").read_text())
        shutil.rmtree(own_project.path / "runs/a")
        table = {**PROFILES[marker], "REPRO_PROFILE": marker}
        there = {name: context["environment"].get(name) for name in PROFILES["portable"]}
        assert there == {name: table.get(name) for name in there}, setting


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefix")
    subprocess.run([VENV / "bin" / "python", "-m", "venv", folder], check=True)
    return folder


def test_condas_command_checks_every_hash(own_project: Project, empty: Path) -> None:
    path = own_project.path / "requirements.lock"
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^ +#.*\n?", "", path.read_text()))
    few = [entry for entry in entries if re.match("(markdown-it-py|mdurl)==", entry)]
    assert len(few) == 2
    tampered = [few[0], re.sub(r"sha256:\w{8}", "sha256:00000000", few[1])]
    bare = [entry.split(" ")[0] for entry in few]
    for wrong, word in ((tampered, "DO NOT MATCH THE HASHES"), (bare, "Hashes are required")):
        path.write_text("\n".join(wrong) + "\n")
        done = conda(own_project, INSTALL, empty)
        assert done.returncode
        assert word in done.stderr
        assert not list(empty.glob("lib/python3*/site-packages/mdurl*"))
    path.write_text("\n".join(few) + "\n")
    done = conda(own_project, INSTALL, empty)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\['markdown-it-py-[\d.]+', 'mdurl-[\d.]+'\]", done.stdout)
