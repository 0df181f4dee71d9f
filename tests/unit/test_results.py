"""Recorded results and verdicts: single functions of repro/results, in process."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import IMAGES
from recorded_claims import recorded_claim
from repro.core import layout
from repro.core.errors import UserError
from repro.core.files import Json, JsonObject, write_json
from repro.core.project import Finished
from repro.results import measure as measuring
from repro.results.claims import EXPECTED, Claim, read_claims, read_recording
from repro.results.document import blocks, outdated
from repro.results.document import number as shown
from repro.results.judge import differences_of_evaluation, judge_training, prediction_interval
from repro.results.measure import SeedResult, Spent, find_best, measure
from repro.results.published import publish
from repro.results.record import confidence_interval
from repro.results.recording import (
    RecordedCheckpoint,
    RecordedClaim,
    Recording,
    parse_recording,
)
from repro.results.report import REPORT, refresh_report, write_report
from repro.results.verdict import Verdict, write_verdict
from repro.training import checkpoint

SHIPPED = IMAGES / "results" / "expected_metrics.json"


def best_claim(**changes: Any) -> RecordedClaim:
    """A recorded claim of the best checkpoint, that of step 20 of 60."""
    best = {"here": {"1": RecordedCheckpoint(20, "bb")}}
    return recorded_claim(**{"checkpoint": "best", "steps": 60, "best": best, **changes})


def verdict_on(expected: dict[str, Any], value: float, bits: str, hardware: str) -> str:
    verdict = Verdict("claim", 1, hardware_class=hardware, metric="accuracy")
    judge_training(verdict, recorded_claim(**expected), SeedResult(value, bits, 1, Spent()))
    return verdict.verdict


# Verdicts -------------------------------------------------------------------------------------


def test_the_prediction_interval_is_students() -> None:
    low, high = prediction_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.9683, 2 + 4.9683), abs=1e-3)  # t(0.975, 2) = 4.3027


@pytest.mark.parametrize(
    ("hardware", "bits", "value", "verdict"),
    [
        ("here", "aa", 0.98, "IDENTICAL"),
        ("here", "bb", 0.98, "DIFFERENT"),  # other weights
        ("here", "aa", 0.99, "DIFFERENT"),  # a value that was edited
        ("there", "bb", 0.985, "EQUIVALENT"),
        ("there", "bb", 0.9, "DIFFERENT"),  # outside the interval
    ],
)
def test_the_verdict(hardware: str, bits: str, value: float, verdict: str) -> None:
    expected = {
        "values": {"1": 0.98, "2": 0.99, "3": 0.97},
        "bits": {"here": {"1": "aa", "2": "cc", "3": "dd"}},
    }
    assert verdict_on(expected, value, bits, hardware) == verdict


@pytest.mark.parametrize(
    ("last", "best", "value", "why"),
    [
        ("aa", RecordedCheckpoint(20, "bb"), 0.98, "weights, last and best, and the value"),
        ("xx", RecordedCheckpoint(20, "bb"), 0.98, "the weights have other bits"),
        ("aa", RecordedCheckpoint(40, "bb"), 0.98, "best checkpoint is of step 40, recorded 20"),
        ("aa", RecordedCheckpoint(20, "xx"), 0.98, "the best checkpoint has other bits"),
        ("aa", RecordedCheckpoint(20, "bb"), 0.99, "the same weights, another value"),
        ("xx", RecordedCheckpoint(40, "xx"), 0.98, "; the best checkpoint is of step 40"),
    ],
)
def test_a_best_claim_is_identical_if_all_of_it_is(
    last: str, best: RecordedCheckpoint, value: float, why: str
) -> None:
    expected = best_claim(values={"1": 0.98})
    verdict = Verdict("claim", 1, hardware_class="here", metric="accuracy", checkpoint="best")
    judge_training(verdict, expected, SeedResult(value, last, 60, Spent(), best))
    assert why in verdict.why
    assert verdict.recorded_best == RecordedCheckpoint(20, "bb")
    assert verdict.verdict == ("IDENTICAL" if "last and best" in why else "DIFFERENT")


@pytest.mark.parametrize("correct", range(300, 360))
def test_the_value_of_seeds_that_all_agree_is_equivalent(correct: int) -> None:
    """Their mean may be rounded past them."""
    values = {str(seed): correct / 359 for seed in range(5)}
    expected = {"values": values, "bits": {"here": {}}}
    assert verdict_on(expected, correct / 359, "aa", "there") == "EQUIVALENT"


def test_two_seeds_do_not_tell_a_spread() -> None:
    expected = {"values": {"1": 0.98, "2": 0.99}, "bits": {"here": {}}}
    assert verdict_on(expected, 0.98, "aa", "there") == "DIFFERENT"


def test_the_confidence_interval_holds_the_mean_and_is_always_the_same() -> None:
    values = [float(x) for x in np.random.default_rng(1).normal(5, 1, 100)]
    low, high = confidence_interval(values) or (0.0, 0.0)
    half = 1.96 * np.std(values) / 10  # of a normal sample's mean
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=0.02)
    assert confidence_interval(values) == (low, high)
    assert confidence_interval([1.0]) is None


@pytest.mark.parametrize(
    ("metrics", "named"),
    [
        ({"accuracy": 0.5, "bits": "bb"}, False),
        ({"accuracy": 0.75, "bits": "bb"}, True),
        ({"bits": "bb"}, True),
        ({"accuracy": 0.75, "bits": "aa"}, False),  # of other weights
        (None, False),
    ],
)
def test_the_value_in_the_recorded_run_is_compared(
    tmp_path: Path, metrics: JsonObject | None, named: bool
) -> None:
    verdict = Verdict("claim", 1, hardware_class="here")
    of_last = recorded_claim(bits={"here": {"1": "bb"}})
    for expected, name in ((best_claim(), "metrics-best.json"), (of_last, "metrics.json")):
        run = tmp_path / name
        if metrics is not None:
            write_json(run / name, metrics)
        lines = differences_of_evaluation(verdict, expected, run)
        value = (metrics or {}).get("accuracy")
        line = f"{name} of the recorded run has accuracy {value}, recorded 0.5"
        assert lines == ([line] if named else [])


# What a training of one seed gives ------------------------------------------------------------


@pytest.fixture
def trained(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that is trained, with the author's commands replaced; accuracy 0.5, best step 20."""
    run = root / "run"
    for step in (20, 40):
        folder = layout.step_folder(run / "checkpoints", step)
        checkpoint.save(folder, {"step": step, "best": {"accuracy": 0.5, "step": 20}})
    evaluate_as(monkeypatch, 0.5)
    return run


def evaluate_as(monkeypatch: pytest.MonkeyPatch, accuracy: Json) -> None:
    """Let every evaluation give this; it writes metrics-best.json or metrics-last.json alone."""

    def command(root: Path, name: str, arguments: list[str], **_: object) -> Finished:
        if name == "evaluate":
            step = layout.step_of(Path(arguments[1]))
            of = "best" if step == 20 else "last"
            metrics = {"accuracy": accuracy, "bits": of, "seed": 1, "step": step, "steps": 40}
            write_json(layout.evaluation_file(root / "run", of), metrics)
        return Finished("", 0)

    monkeypatch.setattr(measuring, "run_author_command", command)


def claimed() -> Claim:
    return Claim(name="c", text="A", arguments=[], metric="accuracy", seeds=[1], checkpoint="best")


def test_metrics_of_the_best_checkpoint_are_not_written_through_a_link(
    root: Path, trained: Path
) -> None:
    elsewhere = root / "elsewhere.json"
    elsewhere.write_text("mine")
    (trained / "metrics.json").symlink_to(elsewhere)
    result = measure(root, claimed(), 1, trained)
    assert (result.bits, result.best) == ("last", RecordedCheckpoint(20, "best"))
    assert elsewhere.read_text() == "mine"
    assert (trained / "metrics.json").read_bytes() == (trained / "metrics-best.json").read_bytes()


@pytest.mark.parametrize("accuracy", [10**400, -(10**400), float("inf"), float("nan"), True, "1"])
def test_a_value_that_is_no_finite_number_is_refused(
    root: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, accuracy: Json
) -> None:
    evaluate_as(monkeypatch, accuracy)
    with pytest.raises(UserError, match="expected accuracy, a finite number, in metrics-best"):
        measure(root, claimed(), 1, trained)


def test_a_best_checkpoint_that_is_missing_is_named_with_what_to_do(trained: Path) -> None:
    newest = layout.step_folder(trained / "checkpoints", 40)
    assert find_best("mine", newest).name == "step-000000020"
    find_best("mine", newest).rename(trained / "checkpoints" / "step-000000020.bak")
    with pytest.raises(UserError, match=r"^mine: .* step 20, .*no such folder.*: restore it, or"):
        find_best("mine", newest)
    write_json(newest / "state.json", {"step": 40})
    with pytest.raises(UserError, match="has no best checkpoint: the training names no metric"):
        find_best("mine", newest)


def test_an_evaluation_of_the_old_kind_is_told_what_to_call(
    root: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "run_author_command", lambda *_, **__: Finished("", 0))
    with pytest.raises(UserError) as raised:
        measure(root, claimed(), 1, trained)
    (line,) = raised.value.lines
    assert "metrics-last.json lacks bits, seed, step and 1 more: see mine.test" in line
    assert "evaluation_places(checkpoint, step).write(metrics) of repro.runs" in line


# What is written and read ---------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with what the published files are made of, and no more."""
    settings = {"train": "mine.fit", "evaluate": "mine.test", "prepare": "mine.fetch"}
    table = "".join(f'{name} = "{module}"\n' for name, module in settings.items())
    project = '[project]\nname = "p"\n[tool.repro]\n'
    (tmp_path / "pyproject.toml").write_text(project + table)
    (tmp_path / "requirements.lock").write_text("")
    names = ("results", "commit", "data", "cost", "lock", "training", "verification")
    text = "".join(f"<!-- repro:{name} -->\n<!-- /repro:{name} -->\n" for name in names)
    (tmp_path / "REPRODUCE.md").write_text(text)
    (tmp_path / "results").mkdir()
    return tmp_path


def test_what_is_published_is_read_again_as_it_was(root: Path) -> None:
    shipped = parse_recording(json.loads(SHIPPED.read_text()))
    assert shipped is not None
    publish(root, shipped)
    assert read_recording(root) == shipped
    # The same bytes, but for what older versions wrote: the energy.
    older = json.loads(SHIPPED.read_text())
    for recorded in older["claims"].values():
        recorded["cost"].pop("energy_wh", None)
    text = json.dumps(older, indent=1, sort_keys=True) + "\n"
    assert (root / EXPECTED).read_text() == text


def test_a_recording_with_energy_or_without_newer_values_is_read() -> None:
    content = json.loads(SHIPPED.read_text())
    (recorded,) = content["claims"].values()
    recorded["cost"]["energy_wh"] = 1.5
    for name in ("shows", "interval", "config_digest", "dataset"):
        del recorded[name]
    recording = parse_recording(content)
    assert recording is not None
    (found,) = recording.claims.values()
    assert (found.interval, found.shows, found.dataset.samples) == (None, "", None)
    for name in ("steps", "conditions"):
        assert parse_recording({"claims": {"x": {**recorded, name: None}}}) is None


def test_only_claims_of_the_best_checkpoint_have_more_keys(root: Path) -> None:
    recording = Recording({"last": recorded_claim(), "best": best_claim()})
    publish(root, recording)
    assert read_recording(root) == recording
    written = json.loads((root / EXPECTED).read_text())["claims"]
    assert written["best"].keys() - written["last"].keys() == {"checkpoint", "best"}
    assert written["best"]["best"] == {"here": {"1": {"step": 20, "bits": "bb"}}}
    assert written["best"]["bits"] == {"here": {"1": "aa"}}
    del written["best"]["best"]["here"]["1"]
    assert parse_recording({"claims": written}) is None  # it would be compared with nothing
    written["best"]["checkpoint"] = "newest"
    assert parse_recording({"claims": written}) is None


@pytest.mark.parametrize(
    ("chosen", "change"),
    [
        ("best", {"best": {}}),
        ("best", {"best": {"there": {"1": {"step": 20, "bits": "bb"}}}}),  # another class
        ("best", {"bits": {"here": {}}}),  # a best checkpoint without a last one
        ("best", {"bits": {"here": {"1": "aa"}, "there": {"1": "aa"}}}),
        ("best", {"values": {}}),
        ("last", {"values": {"2": 0.5}}),
        ("last", {"best": {"here": {"1": {"step": 20, "bits": "bb"}}}}),
    ],
)
def test_a_recording_that_was_edited_into_nonsense_is_damaged(
    root: Path, chosen: str, change: dict[str, Any]
) -> None:
    right = best_claim() if chosen == "best" else recorded_claim()
    content = Recording({"first": right}).as_json()
    assert parse_recording(content) is not None
    content = json.loads(json.dumps(content))
    content["claims"]["first"].update(change)
    write_json(root / EXPECTED, content)
    with pytest.raises(UserError, match="is damaged: restore it, or delete it and make record"):
        read_recording(root)


def test_a_claim_chooses_the_last_or_the_best_checkpoint(root: Path) -> None:
    with (root / "pyproject.toml").open("a") as project:
        project.write('claims = "claims.yaml"\n')
    text = "- {name: x, text: y, arguments: [], metric: m, seeds: [1]"
    endings = {"}": "last", ", checkpoint: last}": "last", ", checkpoint: best}": "best"}
    for ending, chosen in endings.items():
        (root / "claims.yaml").write_text(text + ending)
        assert [found.checkpoint for found in read_claims(root)] == [chosen]
    (root / "claims.yaml").write_text(text + ", checkpoint: newest}")
    with pytest.raises(UserError) as raised:
        read_claims(root)
    (line,) = raised.value.lines
    assert "claims.yaml: 0.checkpoint: Input should be 'last' or 'best'" in line


def test_document_and_page_say_which_checkpoint_a_value_is_of(root: Path) -> None:
    recording = Recording({"first": best_claim(mean=0.5)})
    told = blocks(root, recording)
    assert "| accuracy of the best checkpoint 0.5000 |" in told["results"]
    assert "| `first` | here | 1 | 0.5000 | `bb` (best, step 20) |" in told["results"]
    assert "| `first` | here | 1 | | `aa` (last, step 60) |" in told["results"]
    assert "--checkpoint runs/mine/checkpoints/best" in told["verification"]
    publish(root, recording)
    page = write_report(root).read_text()
    assert "accuracy of the best checkpoint" in page
    assert "<code>bb</code> (best checkpoint, step 20)" in page
    assert "<code>aa</code> (last checkpoint" in page
    publish(root, Recording({"first": recorded_claim(mean=0.5)}))
    assert "best" not in (root / "REPRODUCE.md").read_text()
    assert "checkpoint" not in write_report(root).read_text()


def test_the_document_agrees_with_the_file_whatever_the_order(root: Path) -> None:
    """The file's names are sorted; seeds and claims come as the author wrote them."""
    values = {"9": 0.5, "10": 0.25}
    several = recorded_claim(values=values, bits={"here": {"9": "aa", "10": "bb"}})
    publish(root, Recording({"second": several, "first": recorded_claim()}))
    assert outdated(root) == []


def test_the_document_names_the_authors_commands(root: Path) -> None:
    """[tool.repro] says which modules they are."""
    told = blocks(root, Recording({"name": recorded_claim(arguments=["lr=1"])}))
    assert "`python -m mine.fit lr=1 seed=SEED`" in told["results"]
    assert "python -m mine.fit lr=1 seed=1 run_dir=runs/mine" in told["training"]
    assert "python -m mine.test --checkpoint runs/mine" in told["verification"]
    assert "`python -m mine.fetch lr=1` prepares" in told["data"]
    assert "experiment" not in "".join(told.values())


def test_seeds_may_end_at_different_steps() -> None:
    """Some stopped early: each seed's last checkpoint is that of its own last step."""
    bits = {"here": {"1": "aa", "2": "bb"}}
    recorded = recorded_claim(
        values={"1": 0.5, "2": 0.6}, bits=bits, steps=60, steps_by_seed={"1": 60, "2": 40}
    )
    assert recorded.chosen("here", "1") == RecordedCheckpoint(60, "aa")
    assert recorded.chosen("here", "2") == RecordedCheckpoint(40, "bb")
    assert recorded.as_json()["steps_by_seed"] == {"1": 60, "2": 40}
    assert "steps_by_seed" not in recorded_claim().as_json()


def test_texts_on_the_page_are_escaped(root: Path) -> None:
    """Also those that are attributes; a lone surrogate, which JSON may hold, becomes a ?."""
    markup = "\"><script>alert('1')</script>&\udc80"
    recording = Recording({"name": recorded_claim(text=markup, arguments=[markup], shows=markup)})
    write_json(root / EXPECTED, recording.as_json())
    figures = root / "results" / "figures" / "name"
    figures.mkdir(parents=True)
    (figures / "curve.png").write_bytes(b"PNG")
    (figures / "curve.svg").write_bytes(b"SVG")
    (figures / "curve.txt").write_bytes(b"TXT")
    page = write_report(root).read_text()
    assert "<script" not in page
    assert page.count("&#34;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;?") >= 3
    assert '<img src="data:image/png;base64,UE5H" alt="&#34;&gt;' in page
    assert '<img src="data:image/svg+xml;base64,U1ZH" alt="&#34;&gt;' in page
    assert page.count("<img ") == 2
    assert "python -m mine.fit" in page
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page


@pytest.mark.parametrize(
    ("citation", "title"),
    [
        ("title: 'Seeing <digits>: a study'\n", "Seeing &lt;digits&gt;: a study"),
        ("title:\n", "p"),
        ("", "p"),
        ("title: [\n", "p"),
        ("- a list\n", "p"),
        (None, "p"),
    ],
)
def test_the_page_has_the_projects_name_and_not_that_of_its_folder(
    root: Path, citation: str | None, title: str
) -> None:
    publish(root, Recording({"first": recorded_claim(mean=0.5)}))
    if citation is not None:
        (root / "CITATION.cff").write_text(citation)
    page = write_report(root).read_text()
    assert f"<h1>{title}</h1>" in page
    assert f"<title>{title}: results</title>" in page


@pytest.mark.parametrize("has_git", ["untracked", "tracked", None])
def test_the_page_is_written_anew_after_a_verdict_unless_git_has_it(
    root: Path, has_git: str | None
) -> None:
    publish(root, Recording({"first": recorded_claim(mean=0.5)}))
    refresh_report(root)
    assert not (root / REPORT).exists()  # nobody has asked for a page yet
    before = write_report(root).read_text()
    assert "erified here" not in before
    assert "No verdict is on this page" in before
    if has_git:
        subprocess.run(["git", "init", "--quiet", root], check=True)
        names = ["pyproject.toml", *([REPORT] if has_git == "tracked" else [])]
        subprocess.run(["git", "add", "--force", *names], cwd=root, check=True)
    found = Verdict("first", 1, verdict="IDENTICAL", why="the same bits")
    folder = root / "runs" / "verify" / "first_seed1"
    folder.mkdir(parents=True)
    write_verdict(folder, found)
    refresh_report(root)
    assert ((root / REPORT).read_text() == before) == (has_git == "tracked")
    assert ("IDENTICAL" in (root / REPORT).read_text()) == (has_git != "tracked")


def test_small_values_keep_their_digits() -> None:
    assert [shown(x) for x in (0.98997, 3.2e-5, 0.0, None)] == ["0.9900", "3.2e-05", "0.0000", ""]
