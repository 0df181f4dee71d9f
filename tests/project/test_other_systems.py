"""What make does on other machines than this one: ARM servers and Macs, by a `uname` of ours.

No Mac and no ARM machine was at hand: that the recipes keep to what macOS has is tested by reading
them, with shellcheck for the shell and a list of words for the tools and for make.
"""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import CHECKS, ROOT, Project
from repro.environment.profile import PROFILES

MACHINES = {
    "Linux x86_64": ("portable", "linux/amd64"),
    "Linux aarch64": ("native", "linux/arm64"),
    "Darwin arm64": ("native", "linux/arm64"),
    "Darwin x86_64": ("native", "linux/amd64"),
}
# What the tools of Linux know and those of macOS do not, or do otherwise, in one command.
FOREIGN = {
    r"\bsed\b.* (-i|-r|-z|-s|--\w+)": "sed: no -i without a suffix, and no long options",
    r"\bgrep\b.* -\w*[Pz]": "grep: no Perl patterns",
    r"\bdate\b.* (-d|-I|--\w+|\S*%N)": "date: -d is another option",
    r"\breadlink\b.* (-e|-m|--\w+)": "readlink: -f alone, since macOS 12.3",
    r"\bstat\b.* (-c|--\w+)": "stat: -f",
    r"\bfind\b.* (-printf|-readable|-executable|-regextype)": "find: -exec",
    r"\bfind +-": "find: needs a folder",
    r"\bxargs\b.* (-r|-d|--\w+)": "xargs: -0",
    r"\bsort\b.* (-V|-R|--\w+)": "sort: no versions",
    r"\b(cp|mv|ln|touch|du|df|ps|mktemp|head|tail)\b.* --\w+": "no long options",
    r"\bcp\b.* -\w*[atu]|\bmv\b.* -[tu]|\bln\b.* -\w*[rt]|\btouch\b.* -d": "of GNU alone",
    r"\bhead\b.* -[nc] +-\d|\bmktemp\b.* -p|\bbase64\b.* -w|\bdu\b.* -b": "of GNU alone",
    r"\btar\b.* --(sort|mtime|owner)|\becho -[en]": "of GNU alone",
    r"\b(nproc|timeout|realpath|tac|shuf|seq|setsid|md5sum|sha256sum|flock|gawk|numfmt)\b": "none",
}
LATER_THAN_MAKE_3_81 = (
    r"^\.(ONESHELL|SHELLFLAGS|EXTRA_PREREQS)|&:|::=|^undefine |^private |"
    r"^\s*[\w.-]+ *!=|\$\((file|intcmp|let|guile) "
)


def answers(folder: Path, **programs: str) -> str:
    """A PATH on which each program says what it is given."""
    folder.mkdir(exist_ok=True)
    for name, text in programs.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def as_on(folder: Path, machine: str) -> str:
    """A PATH with the `uname -sm` of another machine."""
    return answers(folder, uname=f"echo {machine}")


@pytest.mark.parametrize("machine", MACHINES)
def test_make_sets_the_profile_of_the_machine(
    project: Project, tmp_path: Path, machine: str
) -> None:
    profile, _ = MACHINES[machine]
    path = as_on(tmp_path / "path", machine)
    answers(tmp_path / "bin", python="env")
    done = project.run("make", "train", f"VENV={tmp_path}", PATH=path)
    assert done.returncode == 0, done.stderr
    there = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    expected = {**PROFILES[profile], "REPRO_PROFILE": profile}
    known = {*PROFILES["portable"], "REPRO_PROFILE"}
    assert {name: there[name] for name in sorted(known & there.keys())} == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_the_image_is_for_this_machine_or_the_one_that_is_named(
    project: Project, tmp_path: Path, machine: str
) -> None:
    _, here = MACHINES[machine]
    path = as_on(tmp_path / "path", machine)
    for words, platform in (((), here), (("PLATFORM=linux/arm64",), "linux/arm64")):
        for target in ("image", "image-run", "image-digest"):
            done = project.run("make", "--dry-run", target, *words, PATH=path)
            assert done.returncode == 0, done.stderr
            assert re.findall(r"--platform (\S+)", done.stdout) == [platform]


def test_another_platform_is_one_line(project: Project) -> None:
    done = project.make("image", "PLATFORM=linux/riscv64")
    assert done.returncode == 2
    assert "found PLATFORM=linux/riscv64, expected linux/amd64 or linux/arm64" in done.stderr
    # A variable of that name in the shell is nothing to commands without an image.
    assert project.make("--dry-run", "train", PLATFORM="web").returncode == 0


def test_the_workflow_tries_each_kind_of_machine(project: Project) -> None:
    """On a Mac it installs and trains two steps, and neither records nor verifies anything."""
    jobs = yaml.safe_load((project.path / ".github" / "workflows" / "test.yml").read_text())["jobs"]
    runners = {
        name: [one["runner"] for one in job["strategy"]["matrix"]["include"]]
        for name, job in jobs.items()
    }
    linux = ["ubuntu-24.04", "ubuntu-24.04-arm"]
    assert runners == {"test": [*linux, "macos-15"], "image": linux}
    assert {job["runs-on"] for job in jobs.values()} == {"${{ matrix.runner }}"}
    on_a_mac = [
        step["run"]
        for step in jobs["test"]["steps"]
        if "run" in step and "runner.os == 'Linux'" not in step.get("if", "")
    ]
    assert on_a_mac == ["make setup", 'make train ARGS="training.max_steps=2"']


def recipes(project: Project, venv: Path) -> str:
    """All that make would run, as a script."""
    answers(venv / "bin", python="true")
    text = (project.path / "Makefile").read_text()
    targets = re.findall(r"(?m)^([a-z-]+):.*## ", text)
    assert len(targets) > 15
    commands = []
    for target in targets:
        done = project.run("make", "--dry-run", target, f"VENV={venv}")
        assert done.returncode == 0, done.stderr
        commands.append(done.stdout)
    return "\n".join(commands)


def test_recipes_are_of_the_shell_that_each_system_has(project: Project, tmp_path: Path) -> None:
    """sh is dash on Debian and an old bash on macOS: shellcheck takes neither's own words."""
    script = recipes(project, tmp_path)
    command = [CHECKS / "shellcheck", "--shell=sh", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def foreign_words(makefile: str) -> list[str]:
    found = []
    for line in re.sub(r"\\\n\s*", "", makefile).splitlines():
        code = re.sub(r"^\s*#.*", "", line)
        if re.search(LATER_THAN_MAKE_3_81, code):
            found.append(code)
        for command in re.split(r"[;&|()`]+", code):
            found += [
                f"{why}: {command}" for words, why in FOREIGN.items() if re.search(words, command)
            ]
    return found


def test_makefiles_name_nothing_that_macos_has_not(project: Project) -> None:
    for path in (project.path / "Makefile", ROOT / "Makefile"):
        text = path.read_text()
        for choice in re.findall("if command -v sha256sum .*", text):  # the other way is beside it
            text = text.replace(choice, "")
        assert foreign_words(text) == [], path


@pytest.mark.parametrize(
    "line",
    [
        "\tsed -i s/a/b/ file",
        "\treadlink -e .",
        '\tdate --iso-8601 > "$@"',
        "\tfind -name x",
        "\tfind . -name x -printf %p",
        "\tgrep -oP '\\d' file",
        "\techo -e a",
        "\tmake -j $$(nproc)",
        "\tmkdir -p a && cp -a a b",
        "\tsha256sum file",
        "here != uname",
        ".ONESHELL:",
    ],
)
def test_a_word_of_linux_alone_is_found(line: str) -> None:
    assert len(foreign_words(line)) == 1


@pytest.mark.parametrize("program", ["sha256sum", "shasum"])
def test_an_image_is_saved_with_its_sum(own_project: Project, tmp_path: Path, program: str) -> None:
    """Linux has sha256sum, a Mac has shasum."""
    tools = {tool: f'exec {shutil.which(tool)} "$@"' for tool in ("sh", "cat", "make", "uname")}
    real = shutil.which("sha256sum")
    tools[program] = f'exec {real} "$1"' if program == "sha256sum" else f'exec {real} "$3"'
    path = answers(tmp_path / "path", docker='printf abc > "$3"', **tools).partition(":")[0]
    done = own_project.run("make", "image-save", PATH=path)
    assert done.returncode == 0, done.stderr
    (file,) = own_project.path.glob("*.tar.sha256")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert file.read_text() == f"{digest}  {file.name.removesuffix('.sha256')}\n"
