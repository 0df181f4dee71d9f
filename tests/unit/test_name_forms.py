"""Who made a project, in the ways in which others write and disguise it."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from repro.publishing.anonymity import machine_names
from repro.publishing.anonymity.containers import Opener
from repro.publishing.anonymity.documents import without_names
from repro.publishing.anonymity.identities import find_identities
from repro.publishing.anonymity.people_lists import is_list_of_people
from repro.publishing.anonymity.searching import search

PYPROJECT = b'[project]\nname = "net"\n'


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One without commits, on a machine that tells nothing."""
    for name in ("users", "real_names", "homes", "hosts", "accounts"):
        monkeypatch.setattr(machine_names, name, lambda: [])
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


def seen(root: Path, text: bytes, **files: bytes) -> list[str]:
    """The words that are found in README.md, in small letters."""
    named = {"pyproject.toml": PYPROJECT, "README.md": text, **files}
    words = find_identities(root, named).spellings_by_file()
    return [hit.word.lower() for hit in search("README.md", text, words("README.md"), Opener())]


def citation(name: str, more: str = "") -> dict[str, bytes]:
    given, _, family = name.rpartition(" ")
    text = f"title: T\nauthors:\n- given-names: {given}\n  family-names: {family}\n{more}"
    return {"CITATION.cff": text.encode()}


WRITTEN = {
    "Zoë Müllerström": ("by Mullerstrom", "by Muellerstroem", "zoemullerstrom"),
    "Søren Ødegård": ("Soren", "Odegard", "Oedegaard"),
    "Wei Li": ("code by W. Li", "Li, W. (2026)", "li_w", "LI Wei"),
    "Wei Ming Li": ("Li WM", "W. M. Li", "WM Li", "Li W"),
    "Jane Dorrit": (
        *("~jdorrit/x", "janedorrit.github.io", "u/dorritj"),
        *("\uff24\uff4f\uff52\uff52\uff49\uff54", "Dor\u00adrit", "Dor\u200brit", "Dor&shy;rit"),
    ),
    "Jane Q. Ng": ("J.Q. Ng", "J. Ng", "Ng, J. Q."),
    "Jean-Luc Bo": ("J.-L. Bo", "Bo J", "Jean"),
    "Ana Lopez-Quibble": ("A. Quibble", "Lopez", "Lopez\u2010Quibble"),
    "Sean O'Malley": ("O\u2019Malley", "O&rsquo;Malley", "omalley", "somalley"),
    "Jan van der Zo": ("van der Zo", "J. Zo"),
    "Jörg Müller": ('M{\\"u}ller', 'M\\"uller', 'J{\\"{o}}rg', "=?utf-8?q?M=C3=BCller?="),
    "Bo Strauß": ("Strau{\\ss}", "Strauss"),
    "Jane Stoffle": ("Sto\ufb04e",),
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in WRITTEN.items() for text in texts]
)
def test_a_name_is_found_as_others_write_it(name: str, text: str, repository: Path) -> None:
    assert seen(repository, text.encode(), **citation(name))
    assert not seen(repository, b"nobody is named here: we, line, order, jo", **citation(name))


LISTS = {
    ".mailmap": "Jane Quibble <jq@hollow.example> <old@hollow.example>\n",
    "AUTHORS": "# Authors\n\nJane Quibble\n* Bo Elseworth (drawings)\n",
    ".github/CODEOWNERS": "* @quibble\n/docs @elseworth/team drawer@hollow.example\n",
    ".github/FUNDING.yml": "github: [quibble, elseworth]\n",
    ".zenodo.json": json.dumps({"creators": [{"name": "Quibble, Jane", "affiliation": "x"}]}),
    "codemeta.json": json.dumps({"author": [{"givenName": "Jane", "familyName": "Quibble"}]}),
    ".all-contributorsrc": json.dumps({"contributors": [{"login": "quibble", "name": "Jane"}]}),
}


@pytest.mark.parametrize("name", LISTS)
def test_who_is_in_a_list_of_people_is_looked_for_elsewhere(name: str, repository: Path) -> None:
    assert is_list_of_people(name)
    assert "quibble" in seen(repository, b"thanks to Quibble", **{name: LISTS[name].encode()})
    # A list of a folder of somebody else's code is of others.
    assert not seen(repository, b"thanks to Quibble", **{f"vendor/{name}": LISTS[name].encode()})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("setup.cfg", "[metadata]\nauthor = Jane Quibble\nauthor_email = j@hollow.example\n"),
        ("setup.py", 'setup(name="net", author="Jane Quibble", packages=[])\n'),
        ("package.json", '{"author": "Jane Quibble <j@hollow.example> (https://x.example)"}'),
    ],
)
def test_the_author_of_a_package_is_looked_for(name: str, text: str, repository: Path) -> None:
    assert "quibble" in seen(repository, b"thanks to Quibble", **{name: text.encode()})


COLAB = {
    "cells": [
        {
            "metadata": {
                "executionInfo": {"user": {"displayName": "Jane Qui\u00f1ble", "userId": "04711"}}
            }
        }
    ],
    "metadata": {"colab": {"provenance": [{"file_id": "/v2/external/notebooks/1aBcD-drive"}]}},
}
SLURM = "#!/bin/bash\n#SBATCH --account=quaglab9 --time=1\n#SBATCH --mail-user=jq@hollow.example\n"


@pytest.mark.parametrize("text", ["Jane Qui\u00f1ble", "user 04711", "drive/1aBcD-drive"])
def test_who_ran_a_notebook_in_colab_is_looked_for(text: str, repository: Path) -> None:
    assert seen(repository, text.encode(), **{"deep/a.ipynb": json.dumps(COLAB).encode()})


@pytest.mark.parametrize("text", ["quaglab9", "jq@hollow.example"])
def test_the_account_of_a_cluster_is_looked_for(text: str, repository: Path) -> None:
    assert seen(repository, text.encode(), **{"slurm/train.sbatch": SLURM.encode()})


def test_folders_of_a_runs_settings_are_looked_for_but_those_that_claims_name(
    repository: Path,
) -> None:
    run = "runs/record/a/b/seed-1/config_used.yaml"
    settings = b"image_dir: /mnt/quaglab/images\nruns:\n  cache: '/bigdisk/thorn 9'\n"
    settings += b"data_dir: /mnt/known/x\n"
    recording = b'{"claims": {"a": {"arguments": ["data_dir=/mnt/known/x"]}}}'
    files = {run: settings, "results/expected_metrics.json": recording}
    for text in (b"in /mnt/quaglab/images/1.png", b"cd /mnt/quaglab", b"/bigdisk/thorn 9"):
        assert seen(repository, text, **files)
    assert not seen(repository, b"/mnt/known/x /mnt /bigdisk", **files)


@pytest.mark.parametrize("path", ["/opt/conda", "/usr/share/dict/words", "/data/raw", "/dev/shm"])
def test_a_folder_that_many_machines_have_tells_nobody(path: str, repository: Path) -> None:
    settings = f"image_dir: {path}\n".encode()
    files = {"runs/record/a/b/seed-1/config_used.yaml": settings}
    assert not seen(repository, f"ENV X={path} my{path}".encode(), **files)


PROSE = """# Authors

This project is maintained by:
Core Developers:
Thanks to everyone
Pull Requests are welcome
Vision Research Laboratory
Wim van der Quibble
"""


def test_sentences_of_a_list_of_people_are_no_names(repository: Path) -> None:
    text = b"thanks, core, everyone, pull requests, maintained, welcome, Laboratory"
    assert not seen(repository, text, AUTHORS=PROSE.encode())
    assert seen(repository, b"by Quibble", AUTHORS=PROSE.encode())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("setup.py", "setup(author=META.quibble, maintainer=read(quibble))\n"),
        ("setup.cfg", "[metadata]\nauthor = attr: quibble.__author__\n"),
        ("codemeta.json", '{"@quibble": "x", "@type": "@quibble"}'),
    ],
)
def test_code_that_names_an_author_is_no_name(name: str, text: str, repository: Path) -> None:
    assert not seen(repository, b"quibble", **{name: text.encode()})


def test_people_of_trailers_and_tags_are_looked_for(repository: Path) -> None:
    def git(name: str, *arguments: str) -> None:
        who = ("-c", f"user.name={name}", "-c", "user.email=x@hollow.example")
        subprocess.run(["git", "-C", repository, *who, *arguments], check=True)

    trailers = (
        "Co-authored-by: Jane Quibble <jq@a.example>\nReviewed-by: Bo Elseworth <b@a.example>"
    )
    git("Ann Onym", "commit", "--quiet", "--allow-empty", "--message", f"One\n\n{trailers}")
    git("Tagg Erwin", "tag", "--annotate", "--message", "x", "v1")
    for name in ("Quibble", "Elseworth", "Erwin", "Onym"):
        assert name.lower() in seen(repository, name.encode())


def test_who_the_environment_names_for_git_is_looked_for(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Jane Quibble")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "jq@hollow.example")
    assert {"quibble", "jq@hollow.example"} <= {*seen(repository, b"Quibble, jq@hollow.example")}


@pytest.mark.parametrize(
    "text", ["0000000218250097", "zenodo.org/records/7654321", "/record/7654321", "zenodo.7654321"]
)
def test_identifiers_are_found_as_they_stand_in_addresses(text: str, repository: Path) -> None:
    more = "  orcid: https://orcid.org/0000-0002-1825-0097\ndoi: 10.5281/zenodo.7654321\n"
    assert seen(repository, text.encode(), **citation("Jane Dorrit", more))


@pytest.mark.parametrize("text", ["abs/2101.00001v2", "html/2101.00001", "arXiv.2101.00001"])
def test_a_paper_is_found_at_each_of_its_addresses(text: str, repository: Path) -> None:
    paper = PYPROJECT + b'[tool.repro.paper]\nreference = "arXiv:2101.00001"\n'
    assert seen(repository, text.encode(), **{"pyproject.toml": paper})


def test_the_kernel_of_a_cluster_is_not_told() -> None:
    def platform(text: str) -> str:
        context = {"software": {"platform": text, "python": "3.11.7"}}
        new = without_names("runs/a/experiment_context.json", json.dumps(context).encode())
        told: str = json.loads(new)["software"]["platform"]
        return told

    plain = "Linux-5.14.0-x86_64-with-glibc2.34"
    assert platform("Linux-5.14.0-427.el9.hollowell_hpc.x86_64-x86_64-with-glibc2.34") == plain
    assert platform(plain) == plain
    assert platform("macOS-14.4-arm64-arm-64bit") == "macOS-14.4-arm64-arm-64bit"
