"""The papers for reviewers: their figures, the texts of authors in them, and `papers` itself."""

import html
import json
import re
import shlex
import statistics
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from cmarkgfm import github_flavored_markdown_to_html
from conftest import ROOT, TEMPLATE, Project, faults, git
from repro.core.files import JsonObject
from repro.publishing.contents import Contents, PackedTraining
from repro.publishing.reviewers.paper_facts import (
    RECREATE,
    SETUP_DISK_GB,
    SETUP_DOWNLOAD_GB,
    SETUP_MINUTES,
)
from repro.publishing.reviewers.papers import papers
from repro.results.about import About, Author
from repro.results.document import number
from repro.results.paper_fields import PAPER_FIELDS, open_fields
from repro.results.recording import (
    AddedClass,
    Cost,
    RecordedCheckpoint,
    RecordedClaim,
    Recording,
)
from repro.results.stated import is_orcid
from repro.runs.conditions import Conditions, DatasetFacts
from scipy.stats import t as student

FIRST = "cpu x86-64-v3 portable"
ARM = "cpu aarch64 Neoverse-N1 (04880d67) native"
ORCID = "0000-0002-1825-0097"  # the example of orcid.org's own documentation
CONFIG: JsonObject = {
    "training": {"epochs": 3, "processes": None},
    "dataset": {"name": "d", "test_fraction": 0.2},
    "determinism": "strict",
    "seeds": {},
}
PYPROJECT = """
[project]
name = "study"
requires-python = ">=3.11,<3.14"
[tool.repro]
train = "experiment.train:train"
evaluate = "experiment.evaluate:evaluate"
prepare = "experiment.prepare"
data = "experiment.data"
"""
NASTY = (
    "A|B `c` **d** _e_ [f](g) <script>h</script> & $i$ # 1. \\ ' \" 😀 é https://x.org/a_b @me: j"
)
TITLE = f"{NASTY}\nin two lines"


def a_claim(**changes: Any) -> RecordedClaim:
    """A claim of three seeds, and what is said otherwise."""
    values = changes.pop("values", {"1": 0.5, "2": 0.52, "3": 0.57})
    numbers = [*values.values()]
    several = len(numbers) > 1
    given = {
        "text": "it learns",
        "arguments": ["training.epochs=3"],
        "metric": "score",
        "values": values,
        "bits": {FIRST: {seed: f"{seed}a" * 32 for seed in values}},
        "steps": 90,
        "conditions": Conditions({"a.py": "1"}, CONFIG, "d1" * 32, "l1" * 32, {}),
        "mean": statistics.fmean(numbers),
        "standard_deviation": statistics.stdev(numbers) if several else None,
        "interval": (min(numbers), max(numbers)) if several else None,
        "dataset": DatasetFacts("d", 1797, "a wheel", ["r1" * 32]),
        "cost": Cost("AMD EPYC", 61, 912),
    }
    return RecordedClaim(**{**given, **changes})


def best_of_one() -> RecordedClaim:
    best = {FIRST: {"7": RecordedCheckpoint(40, "be" * 32)}}
    return a_claim(values={"7": 0.25}, checkpoint="best", best=best, cost=Cost("Xeon", 7000, 44))


def with_another_class() -> RecordedClaim:
    values = {"1": 0.4, "2": 0.41, "3": 0.45}
    bits = {FIRST: {s: f"{s}a" * 32 for s in values}, ARM: {s: f"{s}b" * 32 for s in values}}
    added = {ARM: AddedClass(values, 90, cost=Cost("Neoverse-N1", 200, 500))}
    return a_claim(bits=bits, added=added, shows="Table 2")


RECORDING = Recording(
    {
        "plain": a_claim(shows="Figure 1", steps_by_seed={"1": 80, "2": 90, "3": 85}),
        "best": best_of_one(),
        "more": with_another_class(),
        "old": a_claim(cost=None, dataset=DatasetFacts()),
    },
    commit="c0ffee" * 6,
    dirty=False,
)


def contents(
    root: Path, recording: Recording = RECORDING, pyproject: str = "", **changes: Any
) -> Contents:
    text = f"{PYPROJECT}{pyproject}".encode()
    (root / "pyproject.toml").write_bytes(text)
    run = "runs/record/plain/0123/seed-1"
    context = {
        "hardware_class": FIRST,
        "hardware": {"cpu_model": "AMD EPYC", "logical_cores": 12, "memory_gib": 31.2},
        "software": {"python": "3.11.7", "torch": "2.14.1"},
    }
    files: dict[str, bytes | Path] = {
        "pyproject.toml": text,
        "requirements.lock": b"numpy==2.4.6 \\\n    --hash=sha256:0\ntorch==2.14.1 ; x\n",
        "results/expected_metrics.json": json.dumps(recording.as_json()).encode(),
        "results/figures/plain/curves_seeds.svg": b"<svg/>",
        "results/figures/plain/a b.png": b"png",
        "data-manifest/d/manifest.json": b'{"files": {"x": "1", "y": "2"}}',
        f"{run}/experiment_context.json": json.dumps(context).encode(),
        f"{run}/metrics.json": b"x" * 2000,
    }
    training = PackedTraining("plain-seed-1", "", run, "data-manifest/d/manifest.json")
    given = {
        "root": root,
        "files": files,
        "about": About("study", "A study", "It learns", [Author("Jo Doe", None)], "MIT", None),
        "recording": recording,
        "trainings": [training],
        "commit": "f00d" * 10,
        "moment": 0,
    }
    return Contents(**{**given, **changes})


def texts_of(made: Contents) -> tuple[str, str, str]:
    """The appendix, the checklist and codecheck.yml."""
    found = papers(made)
    assert [*found] == ["papers/artifact-appendix.md", "papers/checklist.md", "codecheck.yml"]
    appendix, checklist, codecheck = (content.decode() for content in found.values())
    return appendix, checklist, codecheck


def cells(text: str) -> list[list[str]]:
    """The rows of all tables of a Markdown text, as a browser shows their cells."""
    page = github_flavored_markdown_to_html(text)
    rows = re.findall(r"(?s)<tr>(.*?)</tr>", page)
    return [[shown(cell) for cell in re.findall(r"(?s)<t[dh]>(.*?)</t[dh]>", row)] for row in rows]


def shown(page: str) -> str:
    return " ".join(html.unescape(re.sub("<[^>]+>", "", page)).split())


# Figures --------------------------------------------------------------------------------------


def followed(recording: Recording, path: str) -> list[Any]:
    """What stands in the recording under `claims.NAME.FIELD`, of each claim where NAME is a star.

    Names of hardware classes may have dots, so the longest key that fits is taken.
    """

    def below(value: Any, rest: str) -> list[Any]:
        if not rest:
            return [value]
        if rest.startswith("*."):
            return [found for each in value.values() for found in below(each, rest[2:])]
        for key in sorted(value if isinstance(value, dict) else [], key=len, reverse=True):
            if rest == key or rest.startswith(f"{key}."):
                return below(value[key], rest[len(key) + 1 :])
        raise AssertionError(f"{path} is nowhere")

    return below({"claims": recording.as_json()["claims"]}, path)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def is_told(value: Any, cell: str) -> bool:
    """Whether a cell of a table has a recorded value, as it is written for a reader."""
    if value is None:
        return True
    if isinstance(value, float):
        return number(value) in cell or str(value) in cell
    if isinstance(value, int):
        minutes = f"{value // 60} min {value % 60} s"
        hours = f"{round(value / 60) // 60} h {round(value / 60) % 60} min"
        return bool(re.search(rf"\b{value}\b", cell)) or minutes in cell or hours in cell
    return str(value)[:16] in cell


# Fields that say where a fact is from, and whose values are told in other words.
IN_WORDS = ("conditions.code", "conditions.config.seeds", "processes")


def places(page: str, recording: Recording) -> list[str]:
    """The fields of claims that a cell names; "C2 likewise" is the same field of that claim."""
    fields = [path for path in re.findall("<code>(.*?)</code>", page) if path.startswith("claims.")]
    names = [*recording.claims]
    others = re.findall(r"C(\d+)", page.partition("; C")[1] + page.partition("; C")[2])
    likewise = [
        f"claims.{names[int(label) - 1]}.{path.split('.', 2)[2]}"
        for path in fields
        for label in others
    ]
    return [*fields, *likewise]


def test_every_value_of_the_checklist_is_the_one_that_stands_where_it_says(tmp_path: Path) -> None:
    _, checklist, _ = texts_of(contents(tmp_path))
    page = github_flavored_markdown_to_html(checklist)
    checked = 0
    for row in re.findall(r"(?s)<tr>(.*?)</tr>", page)[1:]:
        fact, value, where, _ = re.findall(r"(?s)<td>(.*?)</td>", row)
        fact, value = shown(fact), shown(value)
        for path in places(html.unescape(where), RECORDING):
            found = leaves(followed(RECORDING, path))
            if path.endswith((*IN_WORDS, ".bits", "arguments")):
                continue
            if path.endswith("conditions.config") and value.startswith("as C1"):
                continue
            if fact.startswith(("Where the value of one more", "Seeds")):
                continue  # below
            if "added" in path and path.endswith("values"):
                found = [statistics.fmean(found)]
            if value == "not recorded":
                assert found == [None], row
            missing = [each for each in found if not is_told(each, value)]
            assert not missing, (fact, value, path, missing)
            checked += len(found)
    assert checked > 60


def test_totals_and_intervals_are_those_of_the_recorded_values(tmp_path: Path) -> None:
    three = Recording({k: v for k, v in RECORDING.claims.items() if k != "old"}, "c" * 40, False)
    appendix, checklist, _ = texts_of(contents(tmp_path, three))
    facts = {row[0]: row[1] for row in cells(checklist)}
    total = 3 * 61 + 7000 + 3 * 61
    assert total == 7366
    assert facts["Total of the reported runs"].startswith("2 h 3 min")
    items = {row[0]: row[1] for row in cells(appendix) if len(row) == 2}
    assert 61 + 7000 + 61 == 7122
    one = "1 h 59 min"
    assert items["How much time is needed to complete"].startswith(f"{one} for one seed of each")
    assert "2 h 3 min for all seeds" in items["How much time is needed to complete"]
    assert items["Experiments"] == "3 claims, 7 trainings"
    # Where one claim's time is not known, the others are added up and it is named.
    items = {row[0]: row[1] for row in cells(texts_of(contents(tmp_path))[0]) if len(row) == 2}
    needed = items["How much time is needed to complete"]
    assert needed.startswith(f"{one} (without C4: not recorded) for one seed of each claim")
    values = [0.5, 0.52, 0.57]
    half = student.ppf(0.975, 2) * statistics.stdev(values) * (1 + 1 / 3) ** 0.5
    low, high = statistics.fmean(values) - half, statistics.fmean(values) + half
    interval = f"{low:.6f} to {high:.6f}"
    assert facts["Where the value of one more seed should lie (C1, C3)"].startswith(interval)
    assert appendix.count(f"EQUIVALENT** if score is from {interval}") == 2
    expected = f"score 0.5300 ± {statistics.stdev(values):.4f} [0.5000, 0.5700]"
    assert facts["C1, Figure 1: it learns"] == f"{expected}, 3 seeds"
    assert ["C1", "it learns (plain)", "Figure 1", expected, "3"] in cells(appendix)
    assert facts["Seeds (C1, C3)"] == "1, 2, 3"
    assert facts["Seeds (C2)"] == "7"


def test_a_claim_of_one_seed_has_no_error_bars_and_no_equivalence(tmp_path: Path) -> None:
    appendix, checklist, _ = texts_of(contents(tmp_path, Recording({"best": best_of_one()})))
    facts = {row[0]: row[1] for row in cells(checklist)}
    assert facts["What the error bars are"] == "none: there is a single run"
    assert not [fact for fact in facts if "one more seed" in fact]
    assert "±" not in appendix
    assert "**DIFFERENT**, because 1 recorded seed does not tell the spread" in appendix
    assert "EQUIVALENT** if" not in appendix
    # The bits are those of the best checkpoint, and its step is named.
    assert [FIRST, "7", "0.2500", "bebebebebebebebe… (step 40)"] in cells(appendix)
    assert "score of the best checkpoint 0.2500" in appendix


def test_two_seeds_have_error_bars_but_do_not_tell_what_is_equivalent(tmp_path: Path) -> None:
    two = a_claim(values={"1": 0.5, "2": 0.6})
    appendix, checklist, _ = texts_of(contents(tmp_path, Recording({"two": two})))
    facts = {row[0]: row[1] for row in cells(checklist)}
    assert (
        "standard deviation over 2 seeds, with 1 in the denom" in facts["What the error bars are"]
    )
    assert "2 recorded seeds do not tell the spread" in appendix
    assert "0.5500 ± 0.0707" in appendix


def test_an_added_hardware_class_has_its_own_values_bits_and_cost(tmp_path: Path) -> None:
    more = Recording({"more": with_another_class()})
    appendix, checklist, _ = texts_of(contents(tmp_path, more))
    rows = cells(appendix)
    assert [ARM, "2", "0.4100", "2b2b2b2b2b2b2b2b… (step 90)"] in rows
    assert [FIRST, "2", "0.5200", "2a2a2a2a2a2a2a2a… (step 90)"] in rows
    assert ["C1", ARM, "Neoverse-N1", "3 min 20 s", "500 MiB"] in rows
    assert ["C1", FIRST, "AMD EPYC", "61 s", "912 MiB"] in rows
    assert f"On `{FIRST}`, `{ARM}`: **IDENTICAL**" in appendix
    facts = {row[0]: row[1] for row in cells(checklist)}
    assert facts["C1 on another hardware class"] == f"mean 0.4200, 3 seeds, on {ARM}"
    assert facts[f"Memory of a run (C1) on {ARM}"].startswith("500 MiB")
    runs = "3 trainings on each of 2 hardware classes, evaluated at the last checkpoint"
    assert facts["Number of training and evaluation runs"] == runs


def test_what_an_old_recording_lacks_is_said_to_be_missing(tmp_path: Path) -> None:
    old = Recording({"old": a_claim(cost=None, dataset=DatasetFacts(), mean=None)})
    appendix, checklist, codecheck = texts_of(contents(tmp_path, old, trainings=[]))
    facts = {row[0]: row[1] for row in cells(checklist)}
    for fact in ("Time of a run", "Hardware", "Memory of a run"):
        assert facts[fact] == "not recorded"
    assert facts["Total of the reported runs"].startswith("not recorded")
    assert facts["Data set"] == "not named"
    assert "Machine" not in facts
    assert "Values in the model" not in facts
    assert ["C1", FIRST, "not recorded", "not recorded", "not recorded"] in cells(appendix)
    assert "Time and memory were not recorded." in appendix
    assert "No commit" in appendix or "not known of which commit" in appendix
    assert "None" not in appendix + checklist + codecheck


def test_settings_of_other_claims_are_told_by_their_difference(tmp_path: Path) -> None:
    longer: JsonObject = {**CONFIG, "training": {"epochs": 9, "processes": None}}
    other = a_claim(conditions=Conditions({}, longer, "d1", "l1", {}))
    found = Recording({"one": a_claim(), "same": a_claim(), "other": other})
    facts = {row[0]: row[1] for row in cells(texts_of(contents(tmp_path, found))[1])}
    listed = facts["Hyperparameters (C1, C2)"]
    assert listed.startswith("training.epochs=3, training.processes=null, dataset.name=d, ")
    assert facts["Hyperparameters (C3)"] == "as C1, but training.epochs=9"


def test_what_setup_takes_is_what_the_project_says(project: Project) -> None:
    bootstrap = (TEMPLATE / "bootstrap.py").read_text()
    assert re.search(r"(?m)^FREE_GB = (\d+)", bootstrap)[1] == str(SETUP_DISK_GB)  # type: ignore[index]
    text = " ".join((project.path / "REPRODUCE.md").read_text().split())
    assert f"about {SETUP_MINUTES} minutes, most of them for downloads" in text
    assert f"under Linux {SETUP_DOWNLOAD_GB} GB, and {SETUP_DISK_GB} GB on disk" in text


# Texts of authors -----------------------------------------------------------------------------


def stated(**texts: str) -> str:
    lines = [f"{name} = {json.dumps(text, ensure_ascii=False)}" for name, text in texts.items()]
    return "\n".join(["[tool.repro.paper]", *lines])


def test_texts_of_authors_come_out_letter_for_letter(tmp_path: Path) -> None:
    found = Recording(
        {
            "a": a_claim(
                text=TITLE,
                shows=NASTY,
                arguments=[f"name={NASTY}"],
                dataset=DatasetFacts(NASTY, 3, NASTY),
                cost=Cost(NASTY, 3, 4),
            )
        }
    )
    about = About("study", TITLE, TITLE, [Author(TITLE, None)], NASTY, None)
    paper = stated(title=TITLE, limitations=TITLE, data_licence=NASTY, reference=NASTY)
    made = contents(tmp_path, found, paper, about=about)
    appendix, checklist, codecheck = texts_of(made)
    line = " ".join(TITLE.split())
    for text in (appendix, checklist):
        page = github_flavored_markdown_to_html(text)
        assert not re.search(r"<(a|img|script|em|del)\b", page), text
        assert re.search(r"(?s)<h1>(.*?)</h1>", page)[1].count("<") == 0  # type: ignore[index]
        assert line in shown(page)
        wanted = 4 if text == checklist else None
        assert all(len(row) == (wanted or len(row)) for row in cells(text))
    facts = {row[0]: row[1] for row in cells(checklist)}
    assert facts["Limitations of the work"] == line
    assert facts["Hardware"] == NASTY
    assert facts["Where the data are from"] == NASTY
    assert facts["Licence of the code"] == NASTY
    assert facts[f"C1, {NASTY}: {line}"].startswith("score 0.5300")
    items = {row[0]: row[1] for row in cells(appendix) if len(row) == 2}
    assert items["Data licence"] == NASTY
    content = yaml.safe_load(codecheck)
    assert content["paper"] == {
        "title": line,
        "authors": [{"name": line}],
        "reference": NASTY,
    }


def test_a_command_can_be_pasted_whatever_is_in_it(tmp_path: Path) -> None:
    found = Recording({"a": a_claim(arguments=["name=a|b `c` ``d``"])})
    appendix, checklist, _ = texts_of(contents(tmp_path, found))
    command = "python -m experiment.train 'name=a|b `c` ``d``'"
    assert command in shown(github_flavored_markdown_to_html(appendix))
    facts = {row[0]: row[1] for row in cells(checklist)}
    assert facts["Command that trains"] == f"{command} seed=SEED"


# What only the author knows -------------------------------------------------------------------


def test_what_only_the_author_knows_is_a_todo_until_it_is_stated(tmp_path: Path) -> None:
    asked = {name for name, field in PAPER_FIELDS.items() if not field.is_optional}
    _, checklist, _ = texts_of(contents(tmp_path))
    open_rows = {row[2] for row in cells(checklist) if row[1] == "TODO(author)"}
    assert open_rows == {f"paper.{name}" for name in asked}
    assert f"{len(asked)} facts are **TODO(author)**" in checklist
    texts = {name: f"what I know of {name}" for name in asked}
    appendix, checklist, _ = texts_of(contents(tmp_path, pyproject=stated(**texts)))
    assert not [row for row in cells(checklist) if row[1] == "TODO(author)"]
    told = {row[2]: row[1] for row in cells(checklist)}
    assert {f"paper.{name}": text for name, text in texts.items()}.items() <= told.items()
    assert "facts are" not in checklist
    assert "TODO(author)** `" not in appendix
    assert not open_fields(texts)
    texts.pop("limitations")
    _, checklist, _ = texts_of(contents(tmp_path, pyproject=stated(**texts)))
    assert "1 fact is **TODO(author)**" in checklist


def test_what_is_stated_of_the_data_for_croissant_is_in_the_checklist(tmp_path: Path) -> None:
    more = '[tool.repro.responsible_ai]\ndataBiases = ["one | hospital", "one country"]\n'
    _, checklist, _ = texts_of(contents(tmp_path, pyproject=more))
    facts = {row[0]: row[1] for row in cells(checklist)}
    assert facts["dataBiases"] == "one | hospital; one country"


# codecheck.yml --------------------------------------------------------------------------------


def broken_rules(text: bytes, names: Mapping[str, object]) -> list[str]:
    """The rules of CODECHECK's specification 1.0 that a file of an author breaks.

    Their identifiers are those of the list that CODECHECK's own tools follow; left out are those
    of what only a codechecker adds, and those that ask the network.
    """
    content = yaml.safe_load(text.decode("utf-8"))  # CC-CFG-001
    manifest = content.get("manifest")
    paper = content.get("paper", {})
    people = paper.get("authors", [])
    flat = re.findall(r"(?m)(?<=: ).*$", text.decode())
    leaves_bundle = r"^(/|~|[A-Za-z]:)|(^|/)\.\.(/|$)"
    rules = {
        "CC-CFG-002": text.split(b"\n", 1)[0] == b"---",
        "CC-CFG-004": isinstance(manifest, list) and bool(manifest),
        "CC-CFG-005": all(str(item.get("file", "")).strip() for item in manifest),
        "CC-CFG-006": not any(re.search(leaves_bundle, item["file"]) for item in manifest),
        "CC-CFG-007": all(str(item.get("comment", "")).strip() for item in manifest),
        "CC-CFG-014": "version" in content,
        "CC-CFG-015": content["version"] == "https://codecheck.org.uk/spec/config/1.0/",
        "CC-CFG-016": "paper" in content,
        "CC-CFG-017": bool(str(paper.get("title", "")).strip()),
        "CC-CFG-018": isinstance(people, list) and bool(people),
        "CC-CFG-019": all(str(person.get("name", "")).strip() for person in people),
        "CC-CFG-020": all("/" not in person.get("ORCID", "") for person in people),
        "CC-CFG-023": not [x for x in flat if re.search("FIXME|TODO|XXXXX", x)],
        "CC-MET-001": all(is_orcid(person["ORCID"]) for person in people if "ORCID" in person),
        "CC-BUN-001": all(item["file"] in names for item in manifest),
        # The author's part alone.
        "codechecker": not {"codechecker", "report", "summary", "certificate"} & content.keys(),
    }
    return [rule for rule, holds in rules.items() if not holds]


def test_codecheck_yml_keeps_the_rules_of_its_specification(tmp_path: Path) -> None:
    more = f'doi = "10.5281/zenodo.1"\norcid = "{ORCID}"\n' + stated(reference="Under review at X")
    found = contents(tmp_path, pyproject=more)
    about = replace(found.about, repository="https://example.org/a")
    found = replace(found, about=about)
    text = papers(found)["codecheck.yml"]
    assert broken_rules(text, found.files) == []
    content = yaml.safe_load(text)
    assert content["paper"] == {
        "title": "A study",
        "authors": [{"name": "Jo Doe", "ORCID": ORCID}],
        "reference": "Under review at X",
    }
    assert content["repository"] == "https://example.org/a"
    files = {item["file"]: item["comment"] for item in content["manifest"]}
    assert files["results/figures/plain/a b.png"] == "C1 (Figure 1), a b, seed 1: it learns"
    of_seeds = files["results/figures/plain/curves_seeds.svg"]
    assert of_seeds == "C1 (Figure 1), curves seeds: it learns"
    # What CITATION.cff says of an author comes first, and nothing is stated for another one.
    two = [Author("Jo Doe", f"https://orcid.org/{ORCID}"), Author("Al", None)]
    both = replace(found, about=replace(about, authors=two))
    people = yaml.safe_load(papers(both)["codecheck.yml"])["paper"]["authors"]
    assert people == [{"name": "Jo Doe", "ORCID": ORCID}, {"name": "Al"}]
    # The second of two authors of one name has one.
    named = contents(tmp_path, pyproject=f'[tool.repro.orcid]\n"Al" = ["", "{ORCID}"]\n')
    both = replace(named, about=replace(about, authors=[Author("Al", None)] * 2))
    people = yaml.safe_load(papers(both)["codecheck.yml"])["paper"]["authors"]
    assert people == [{"name": "Al"}, {"name": "Al", "ORCID": ORCID}]


def test_the_rules_find_what_is_wrong(tmp_path: Path) -> None:
    found = contents(tmp_path)
    text = papers(found)["codecheck.yml"]
    assert broken_rules(text, found.files) == []
    assert broken_rules(text.removeprefix(b"---\n"), found.files) == ["CC-CFG-002"]
    assert broken_rules(text.replace(b"results/expected", b"../x"), found.files) == [
        "CC-CFG-006",
        "CC-BUN-001",
    ]
    assert broken_rules(text.replace(b"A study", b"TODO"), found.files) == ["CC-CFG-023"]
    assert broken_rules(text + b"report: x\n", found.files) == ["codechecker"]


def test_an_anonymous_archive_names_nobody(tmp_path: Path) -> None:
    secrets = ["10.5281/zenodo.1", ORCID, "arXiv:2001.10641", "c0ffee", "f00d", "example.org"]
    more = f'doi = "{secrets[0]}"\norcid = "{ORCID}"\n' + stated(reference=secrets[2])
    named = contents(tmp_path, pyproject=more)
    about = replace(named.about, repository="https://example.org/a")
    named = replace(named, about=about)
    assert all(secret in "".join(texts_of(named)) for secret in secrets)
    hidden = replace(about, authors=[Author("Anonymous authors", None)])
    texts = texts_of(replace(named, commit=None, about=hidden))
    assert [secret for secret in secrets if secret in "".join(texts)] == []
    assert "left out for double-blind review" in texts[0]
    assert broken_rules(texts[2].encode(), named.files) == []


# The command ----------------------------------------------------------------------------------


def zipped(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


NAMES = ("artifact-appendix.md", "checklist.md", "codecheck.yml")


def test_papers_writes_what_the_archive_will_have(own: Project, tmp_path: Path) -> None:
    done = own.module("repro", "papers", TZ="Asia/Tokyo", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert "TODO(author), for [tool.repro.paper]: reference, " in done.stdout
    assert "not committed" not in done.stdout
    assert git(own, "status", "--porcelain") == ""  # git does not see them
    folder = own.path / "runs" / "papers"
    done = own.module("repro", "archive", "--output", str(tmp_path / "a.zip"))
    assert done.returncode == 0, done.stderr
    packed = zipped(tmp_path / "a.zip")
    for name, where in zip(NAMES, ("papers/", "papers/", ""), strict=True):
        assert packed[f"{where}{name}"] == (folder / name).read_bytes(), name
    assert broken_rules(packed["codecheck.yml"], packed) == []
    crate = json.loads(packed["ro-crate-metadata.json"])["@graph"]
    assert {"papers/checklist.md", "codecheck.yml"} <= {entity["@id"] for entity in crate}


def test_a_file_of_somebody_else_is_not_replaced(own: Project) -> None:
    folder = own.path / "mine"
    folder.mkdir()
    (folder / "checklist.md").write_text("mine\n")
    (line,) = faults(own.module("repro", "papers", "mine"))
    assert "checklist.md is not as it was written here: move it away" in line
    assert (folder / "checklist.md").read_text() == "mine\n"
    assert [path.name for path in folder.iterdir()] == ["checklist.md"]
    (folder / "checklist.md").unlink()
    assert own.module("repro", "papers", "mine").returncode == 0
    assert own.module("repro", "papers", "mine").returncode == 0  # the same bytes
    # What was written here is written anew when the facts change, and not when somebody edits it.
    own.edit(
        "pyproject.toml", "[tool.repro]\n", '[tool.repro]\npaper.limitations = "It is small"\n'
    )
    done = own.module("repro", "papers", "mine")
    assert done.returncode == 0, done.stderr
    assert "not committed, and in no archive yet" in done.stdout
    assert "It is small" in (folder / "checklist.md").read_text()
    with (folder / "checklist.md").open("a") as file:
        file.write("my note\n")
    (line,) = faults(own.module("repro", "papers", "mine"))
    assert "checklist.md is not as it was written here" in line


def test_papers_without_runs_data_or_git_say_what_is_missing(own: Project) -> None:
    own.run("rm", "-rf", "runs", "data", "../../.git")
    done = own.module("repro", "papers")
    assert done.returncode == 0, done.stderr
    assert "an archive is made of a commit, and there is none" in done.stdout
    assert "the papers do not have what they say: the run of short, seed 42" in done.stdout
    text = (own.path / "runs" / "papers" / "artifact-appendix.md").read_text()
    assert "written before there was a commit" in text
    (own.path / "results" / "expected_metrics.json").unlink()
    (line,) = faults(own.module("repro", "papers"))
    assert "nothing is recorded yet: make record" in line


def test_a_wrong_name_in_the_authors_table_is_one_line(own: Project) -> None:
    own.edit("pyproject.toml", "[tool.repro]\n", '[tool.repro]\npaper.limitation = "x"\n')
    (line,) = faults(own.module("repro", "papers"))
    assert "did you mean limitations?" in line


def test_the_values_of_the_model_and_the_samples_of_the_parts_are_counted(own: Project) -> None:
    assert own.module("repro", "papers").returncode == 0
    checklist = (own.path / "runs" / "papers" / "checklist.md").read_text()
    facts = {row[0]: row[1] for row in cells(checklist)}
    program = (
        "from repro.tasks.loading import load_task\n"
        "from pathlib import Path\n"
        "(last,) = Path('runs/record').glob('*/*/*/checkpoints/last')\n"
        "print(sum(x.numel() for x in load_task(last).model.state_dict().values()))"
    )
    done = own.run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    assert facts["Values in the model"].startswith(f"{int(done.stdout):,}, with buffers")
    parts = re.findall(r"(train|validation|test) (\d+), ", facts["Splits"])
    assert {name for name, _ in parts} == {"train", "validation", "test"}
    assert sum(int(size) for _, size in parts) == 1797


def test_another_seed_is_trained_with_the_claims_settings_and_evaluated(own: Project) -> None:
    """A.7 of the appendix, as a reviewer pastes it."""
    assert own.module("repro", "papers").returncode == 0
    appendix = (own.path / "runs" / "papers" / "artifact-appendix.md").read_text()
    (lines,) = re.findall(r"(?s)## A\.7 .*?\n```bash\n(.*?)\n```", appendix)
    train, evaluate = lines.splitlines()
    assert " training.max_steps=3 " in train
    assert " seed=1 " in train
    for command in (train, evaluate):
        done = own.run(*shlex.split(command))
        assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((own.path / "runs" / "mine" / "metrics.json").read_text())
    assert (metrics["seed"], metrics["step"]) == (1, 3)


def test_the_seed_and_the_checkpoint_of_the_customization_are_the_claims(tmp_path: Path) -> None:
    best = {FIRST: {"1": RecordedCheckpoint(40, "be" * 32)}}
    recorded = Recording({"a": a_claim(values={"1": 0.5}, checkpoint="best", best=best)})
    appendix, _, _ = texts_of(contents(tmp_path, recorded))
    assert "seed=2 run_dir=runs/mine\n" in appendix
    assert "--checkpoint runs/mine/checkpoints/best\n" in appendix


def test_the_manifest_of_codecheck_yml_is_made_anew_by_its_command(
    own: Project, tmp_path: Path
) -> None:
    """In the unpacked archive, without git: figures with the same bytes, other costs at most."""
    assert own.module("repro", "archive", "--output", str(tmp_path / "a.zip")).returncode == 0
    packed = zipped(tmp_path / "a.zip")
    (tmp_path / "unpacked").mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    (folder,) = (tmp_path / "unpacked").iterdir()
    unpacked = Project(folder)
    remove, _, record = RECREATE.partition(" && ")
    assert record == "make record"
    assert unpacked.run(*remove.split()).returncode == 0
    done = unpacked.module("repro", "record")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is left to train" not in done.stdout
    for item in yaml.safe_load(packed["codecheck.yml"])["manifest"]:
        made = (folder / item["file"]).read_bytes()
        if item["file"].startswith("results/figures/"):
            assert made == packed[item["file"]], item
        else:
            assert without_cost(made) == without_cost(packed[item["file"]])


def without_cost(text: bytes) -> Any:
    content = json.loads(text)
    for claim in content["claims"].values():
        del claim["cost"]
    return content["claims"]


# The doctor -----------------------------------------------------------------------------------


def test_the_doctor_lists_what_is_still_to_be_stated_and_finds_no_fault(own: Project) -> None:
    from test_checklist import PROGRAM

    def doctor() -> tuple[int, str]:
        done = own.run("python", "-c", PROGRAM, "stated for papers")
        return done.returncode, done.stdout

    status, words = doctor()
    count = sum(not field.is_optional for field in PAPER_FIELDS.values())
    assert status == 0
    assert f"not checked  stated for papers: no paper is described: {count} TODO(author)" in words
    assert "limitations" in words
    assert words.endswith("0 pass, 0 fail, 1 not checked\n")
    named = stated(**{name: "none" for name in PAPER_FIELDS if name != "limitations"})
    with (own.path / "pyproject.toml").open("a") as file:
        file.write(named)
    status, words = doctor()
    assert status == 0
    assert "1 TODO(author) in [tool.repro.paper]" in words
    assert "limitations: limitations of the work" in words
    assert "broader_impact" not in words
    with (own.path / "pyproject.toml").open("a") as file:
        file.write('\nlimitations = "none"\n')
    status, words = doctor()
    assert (status, "1 pass" in words) == (0, True)
    with (own.path / "pyproject.toml").open("a") as file:
        file.write('limitation = "none"\n')
    status, words = doctor()
    assert status == 1
    assert "did you mean limitations?" in words


def test_the_documentation_has_each_name_of_the_authors_table() -> None:
    text = (ROOT / "docs" / "publishing.md").read_text()
    rows = re.findall(r"(?m)^\| `(\w+)` \| (.*) \| (.*?) ?\|$", text)
    told = {name: (asks, asked_by) for name, asks, asked_by in rows}
    assert told == {name: (field.asks, field.asked_by) for name, field in PAPER_FIELDS.items()}
