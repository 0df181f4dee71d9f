"""Verdicts that others report: what is kept of them, and whether their facts support them."""

import json
import os
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from recorded_claims import recorded_claim
from repro.core.errors import UserError
from repro.results import reported
from repro.results.assessed import assess
from repro.results.claims import EXPECTED
from repro.results.published import publish
from repro.results.recording import RecordedCheckpoint, RecordedClaim, Recording
from repro.results.report import write_report
from repro.results.reported import (
    LARGEST_VERDICT,
    REPORTED,
    ReportedVerdict,
    keep_verdicts,
    read_reported,
)
from repro.results.shown import bits_by_class, lasting, outcomes, shown_reported
from repro.results.verdict import Verdict

HERE = "cpu x86-64-v3 portable"
THERE = "cpu Apple M2, macOS 15.1 native"
AA, BB, CC, DD = ("aa" * 32, "bb" * 32, "cc" * 32, "dd" * 32)
MARKUP = "\"><script>alert('1')</script>&<img src=x onerror=alert(1)>"


def a_claim(**changes: Any) -> RecordedClaim:
    of_three_seeds = {
        "values": {"1": 0.98, "2": 0.99, "3": 0.97},
        "bits": {HERE: {"1": AA, "2": BB, "3": CC}},
        "steps": 60,
        "mean": 0.98,
    }
    return recorded_claim(**{**of_three_seeds, **changes})


BEST = {HERE: {seed: RecordedCheckpoint(20, DD) for seed in "123"}}


def sent(**changes: Any) -> dict[str, Any]:
    """What somebody's verdict.json holds, as `verify` writes it."""
    verdict = Verdict(
        "first",
        1,
        verdict="IDENTICAL",
        why="weights and value have the recorded bits",
        steps=[(1, 60)],
        hardware_class=HERE,
        recorded_on=[HERE],
        metric="accuracy",
        value=0.98,
        recorded=0.98,
        bits=AA,
        recorded_bits=AA,
        commit="0123456789abcdef0123456789abcdef01234567",
        conditions_digest=a_claim().conditions_digest,
        seconds=12.5,
    )
    found: dict[str, Any] = json.loads(json.dumps(asdict(verdict)))
    return found | changes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project that recorded a claim, as far as its page is made of it."""
    folder = tmp_path / "project"
    (folder / "results").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "p"\n[tool.repro]\ntrain = "m.fit:fit"\nevaluate = "m.test:test"\n'
    )
    (folder / "requirements.lock").write_text("")
    (folder / "REPRODUCE.md").write_text("")
    publish(folder, Recording({"first": a_claim()}))
    return folder


def file_of(root: Path, content: Any, name: str = "sent.json") -> Path:
    path = root.parent / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def state(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def refusal(root: Path, *files: Path) -> list[str]:
    before = state(root)
    with pytest.raises(UserError) as refused:
        keep_verdicts(root, files)
    assert state(root) == before
    assert all(line.isprintable() for line in refused.value.lines)
    return refused.value.lines


# What is kept -----------------------------------------------------------------------------------


def test_the_fields_are_those_of_a_verdict() -> None:
    """A field that `verify` learns to write is refused here until somebody has thought of it."""
    assert {*reported._Sent.model_fields} == {field.name for field in fields(Verdict)}


def test_the_same_verdict_has_the_same_bytes_and_is_kept_once(root: Path) -> None:
    one = file_of(root, sent(seconds=12), "one.json")
    turned = dict(reversed(sent(seconds=12.0).items()))
    two = file_of(root, b"\xef\xbb\xbf" + json.dumps(turned, indent=9).encode(), "two.json")
    (kept,) = keep_verdicts(root, [one, one])
    assert kept.is_new
    assert kept.path.parent == REPORTED
    before = state(root)
    (again,) = keep_verdicts(root, [two, one])
    assert (again.path, again.is_new) == (kept.path, False)
    assert state(root) == before
    (read,) = read_reported(root).verdicts
    assert read == kept.verdict == again.verdict


def test_what_differed_has_no_order(root: Path) -> None:
    lines = ["code: a.py changed", "config: x is 1, recorded 2", "/x hides y"]
    files = [
        file_of(root, sent(verdict="DIFFERENT", differences=told), f"{number}.json")
        for number, told in enumerate((lines, lines[::-1]))
    ]
    assert len(keep_verdicts(root, files)) == 1


def test_verdicts_are_read_by_claim_seed_and_class(root: Path) -> None:
    seeds_and_classes = [(2, HERE), (1, THERE), (2, THERE), (1, HERE), (10, HERE)]
    files = [
        file_of(root, sent(seed=seed, hardware_class=hardware), f"{number}.json")
        for number, (seed, hardware) in enumerate(seeds_and_classes)
    ]
    keep_verdicts(root, files)
    read = [(verdict.seed, verdict.hardware_class) for verdict in read_reported(root).verdicts]
    assert read == sorted(seeds_and_classes)


def test_nothing_is_kept_by_which_somebody_could_be_known(root: Path) -> None:
    names = {
        "why": "/home/alice/project was moved",
        "commit": "alice",
        "recorded_on": ["alice-laptop"],
        "recorded_bits": "alice",
        "differences": [
            "code: experiment/alice.py changed",
            "packages: torch is /home/alice/torch, recorded 2",
            "/home/alice/site hides torch",
            "they part at step 37: loss alice, recorded 1",
        ],
    }
    (kept,) = keep_verdicts(root, [file_of(root, sent(verdict="DIFFERENT", **names))])
    content = (root / kept.path).read_text()
    assert "alice" not in content
    assert kept.verdict.differing == {"code": 1, "packages": 1, "other": 1}
    assert kept.verdict.parted_at == 37
    assert "alice" not in write_report(root).read_text()


ODD: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"IDENTICAL",
    "cut": json.dumps(sent()).encode()[:-9],
    "no object": b"[1]",
    "null": b"null",
    "another object": b'{"a": 1}',
    "UTF-16": json.dumps(sent()).encode("utf-16"),
    "no UTF-8": b'{"claim": "\xff"}',
    "deep": b"[" * 200_000,
    "deep in a field": json.dumps(sent(why=[[[]]])).encode(),
    "huge": b" " * (LARGEST_VERDICT + 1),
    "a million entries": b'{"differences": [' + b'"",' * 1_000_000 + b'""]}',
    "many stretches": json.dumps(sent(steps=[[1, 2]] * 1001)).encode(),
    "NaN": json.dumps(sent(value=float("nan"))).encode(),
    "infinity": json.dumps(sent(interval=[0.0, float("inf")])).encode(),
    "1e999": json.dumps(sent(value=7777)).replace("7777", "1e999").encode(),
    "digits": json.dumps(sent(value=7777)).replace("7777", "9" * 5000).encode(),
    "a name twice": json.dumps(sent()).replace('{"claim"', '{"seed": 2, "claim"').encode(),
    "half a character": json.dumps(sent(hardware_class="\ud800")).encode(),
}
FIELDS: list[tuple[str, Any]] = [
    ("verdict", "identical"),
    ("verdict", "VERIFIED BY ALL"),
    ("what", "all"),
    ("claim", "../first"),
    ("claim", "first\n"),
    ("claim", "x" * 300),
    ("claim", MARKUP),
    ("seed", -1),
    ("seed", "1"),
    ("seed", True),
    ("seed", 10**40),
    ("steps", [[1]]),
    ("steps", [[1, "2"]]),
    ("steps", [[-1, 2]]),
    ("hardware_class", ""),
    ("hardware_class", "cpu\nIDENTICAL"),
    ("hardware_class", "cpu \x1b[2J"),
    ("hardware_class", "cpu \u202eLACITNEDI"),
    ("hardware_class", "cpu \u05d0"),
    ("hardware_class", "/home/alice"),
    ("hardware_class", "C:\\Users"),
    ("hardware_class", "x" * 301),
    ("metric", "accuracy\u200b"),
    ("metric", "x" * 301),
    ("checkpoint", "first"),
    ("value", "0.98"),
    ("bits", "AA" * 32),
    ("bits", AA + "\n"),
    ("best", {"step": 1}),
    ("best", {"step": 1, "bits": "x"}),
    ("conditions_digest", ""),
    ("seconds", -1),
    ("seconds", 1e12),
    ("differences", "code"),
    ("differences", [{}]),
    ("a\u202e<b>\n" * 50, 1),
]


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_verdict_is_one_line_and_changes_nothing(root: Path, name: str) -> None:
    (line,) = refusal(root, file_of(root, ODD[name]))
    assert "sent.json" in line
    assert "expected" in line
    assert len(line) < 500


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_each_field_is_checked(root: Path, field: str, value: Any) -> None:
    (line,) = refusal(root, file_of(root, sent(**{field: value})))
    assert "sent.json is damaged (" in line
    assert (field if field.isidentifier() else "\\u202e") in line
    assert "expected a verdict.json as verify writes it" in line
    assert len(line) < 500


def test_what_is_no_file_is_one_line_each(root: Path) -> None:
    folder = root.parent / "folder"
    folder.mkdir()
    pipe = root.parent / "pipe"
    os.mkfifo(pipe)
    endless = root.parent / "endless.json"
    endless.symlink_to("/dev/zero")
    circle = root.parent / "circle.json"
    circle.symlink_to("circle.json")
    missing = root.parent / "missing.json"
    good = file_of(root, sent(), "good.json")
    bad = [folder, pipe, endless, circle, missing]
    lines = refusal(root, good, *bad)
    assert len(lines) == len(bad)
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(str(path))
        assert "expected a " in line
    assert not (root / REPORTED).exists()


def test_many_bad_files_are_told_in_few_lines(root: Path) -> None:
    lines = refusal(root, *[root / "none.json"] * 50)
    assert len(lines) == 21
    assert lines[-1] == "... and 30 more"


def test_without_results_nothing_is_kept(root: Path) -> None:
    (root / EXPECTED).unlink()
    (line,) = refusal(root, file_of(root, sent()))
    assert "nothing is recorded yet" in line


def test_more_verdicts_than_a_page_holds_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reported, "MOST_VERDICTS", 2)
    files = [file_of(root, sent(seconds=n), f"{n}.json") for n in range(3)]
    keep_verdicts(root, files[:2])
    assert "would hold more than 2 verdicts" in refusal(root, files[2])[0]
    keep_verdicts(root, files[:2])  # these are there
    (root / REPORTED / "x.json").write_text("")
    read = read_reported(root)
    assert len(read.verdicts) == 2
    assert read.left_out == [f"{REPORTED}: 1 more are left out"]


@pytest.mark.parametrize("change", ["edited", "renamed", "deep", "pipe", "folder", "other"])
def test_a_kept_file_that_somebody_changed_is_left_out_and_told(root: Path, change: str) -> None:
    (kept,) = keep_verdicts(root, [file_of(root, sent())])
    keep_verdicts(root, [file_of(root, sent(seconds=99))])
    path = root / kept.path
    content = path.read_bytes()
    path.unlink()
    match change:
        case "edited":
            path.write_bytes(content.replace(b"0.98", b"0.99"))
        case "renamed":
            path.with_name("<b>.json").write_bytes(content)
        case "deep":
            path.write_bytes(b"[" * 200_000)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "other":
            told = b'{"hardware_class": "x\\nIDENTICAL"}'
            path.with_name(f"{reported.sha256_bytes(told)}.json").write_bytes(told)
    read = read_reported(root)
    assert [verdict.seconds for verdict in read.verdicts] == [99]
    (line,) = read.left_out
    assert line.endswith("is left out: it is not as report wrote it")
    page = write_report(root).read_text()
    assert "is left out: it is not as report wrote it" in page
    assert "<b>.json" not in page


def test_a_kept_file_of_today_is_read_by_kits_that_know_more(root: Path) -> None:
    """What has its default is not written, so a new field changes no bytes."""
    (kept,) = keep_verdicts(root, [file_of(root, sent(seconds=None))])
    names = json.loads((root / kept.path).read_text()).keys()
    assert not names & {"seconds", "best", "differing", "parted_at"}


# Whether its facts support it -------------------------------------------------------------------


def judged(claim: RecordedClaim | None = None, **changes: Any) -> tuple[str, str]:
    """How a reported verdict is shown, and why."""
    claim = claim or a_claim()
    verdict = reported._without_free_texts(reported._Sent.model_validate(sent(**changes)))
    shown = shown_reported(assess(verdict, Recording({"first": claim})))
    return shown.word, shown.why


SEGMENTS = {"what": "segments", "steps": [[11, 20], [31, 40]], "value": None}
PREFIX = {"what": "prefix", "steps": [[1, 20]], "value": None, "bits": None}
NOTHING = {"steps": [], "value": None, "bits": None}
ELSEWHERE = {"hardware_class": THERE, "bits": DD, "recorded_bits": None}


@pytest.mark.parametrize(
    ("changes", "word", "why"),
    [
        ({}, "IDENTICAL", "weights and value have the recorded bits"),
        (PREFIX, "PREFIX AGREES", "have the recorded bits"),
        (SEGMENTS, "SEGMENTS AGREES", "have the recorded bits"),
        ({**ELSEWHERE, "verdict": "EQUIVALENT"}, "EQUIVALENT", "inside the interval"),
        ({"verdict": "DIFFERENT", "bits": DD}, "DIFFERENT", "other bits"),
        ({"verdict": "DIFFERENT", "value": 0.5}, "DIFFERENT", "another value"),
        ({**ELSEWHERE, "verdict": "DIFFERENT", "value": 0.5}, "DIFFERENT", "outside the interval"),
        (
            {"verdict": "DIFFERENT", "bits": DD, "differences": ["they part at step 9: loss"]},
            "DIFFERENT",
            "left the recorded trace at step 9",
        ),
        (
            {**NOTHING, "verdict": "DIFFERENT", "differences": ["environment: x is 1"]},
            "DIFFERENT",
            "differs in environment",
        ),
        # It says IDENTICAL, and it is not
        ({"bits": DD}, "CONTRADICTION", "IDENTICAL, but its facts say DIFFERENT: the weights"),
        ({"value": 0.99}, "CONTRADICTION", "the same weights, another value"),
        ({"bits": None}, "CONTRADICTION", "no value or no bits"),
        ({"value": None}, "CONTRADICTION", "no value or no bits"),
        ({"steps": [[1, 59]]}, "CONTRADICTION", "the recorded training has 60 steps"),
        ({"steps": []}, "CONTRADICTION", "neither steps"),
        ({"differences": ["code: a.py changed"]}, "CONTRADICTION", "differs in code"),
        ({"differences": ["they part at step 3: loss"]}, "CONTRADICTION", "at step 3"),
        ({"best": {"step": 20, "bits": DD}}, "CONTRADICTION", "best checkpoint"),
        ({**ELSEWHERE, "value": 0.985}, "CONTRADICTION", "its facts say EQUIVALENT"),
        ({**PREFIX, "steps": []}, "CONTRADICTION", "neither steps"),
        ({**PREFIX, "steps": [[1, 61]]}, "CONTRADICTION", "has 60 steps"),
        ({**PREFIX, "steps": [[20, 1]]}, "CONTRADICTION", "has 60 steps"),
        ({**PREFIX, "steps": [[0, 5]]}, "CONTRADICTION", "has 60 steps"),
        ({**PREFIX, "hardware_class": THERE}, "CONTRADICTION", "a part tells nothing"),
        ({**PREFIX, "differences": ["they part at step 2: x"]}, "CONTRADICTION", "at step 2"),
        ({**SEGMENTS, "bits": DD}, "CONTRADICTION", "the checkpoints have not"),
        ({**SEGMENTS, "bits": None}, "CONTRADICTION", "the checkpoints have not"),
        # EQUIVALENT, and DIFFERENT
        ({**ELSEWHERE, "verdict": "EQUIVALENT", "value": 0.5}, "CONTRADICTION", "outside the"),
        ({"verdict": "EQUIVALENT", "bits": DD}, "CONTRADICTION", "other bits under the same"),
        ({"verdict": "EQUIVALENT"}, "EQUIVALENT", "recorded on this hardware class since"),
        ({**PREFIX, "verdict": "EQUIVALENT"}, "CONTRADICTION", "its facts say IDENTICAL"),
        ({"verdict": "DIFFERENT"}, "CONTRADICTION", "its facts say IDENTICAL"),
        ({**PREFIX, "verdict": "DIFFERENT"}, "CONTRADICTION", "its facts say IDENTICAL"),
        ({**ELSEWHERE, "verdict": "DIFFERENT"}, "CONTRADICTION", "its facts say EQUIVALENT"),
    ],
)
def test_a_verdict_is_shown_as_its_facts_are(changes: dict[str, Any], word: str, why: str) -> None:
    shown, because = judged(**changes)
    assert (shown, why in because) == (word, True), because


def test_a_best_claim_needs_the_best_checkpoint() -> None:
    claim = a_claim(checkpoint="best", best=BEST)
    best = {"step": 20, "bits": DD}
    assert judged(claim, checkpoint="best", best=best)[0] == "IDENTICAL"
    assert judged(claim, checkpoint="best", best=best, **SEGMENTS)[0] == "SEGMENTS AGREES"
    for wrong in (None, {"step": 21, "bits": DD}, {"step": 20, "bits": AA}):
        word, why = judged(claim, checkpoint="best", best=wrong)
        assert word == "CONTRADICTION"
        assert "best checkpoint" in why
        assert judged(claim, checkpoint="best", best=wrong, **SEGMENTS)[0] == "CONTRADICTION"


def test_two_seeds_tell_no_spread_here_either() -> None:
    claim = a_claim(values={"1": 0.98, "2": 0.99}, bits={HERE: {"1": AA, "2": BB}})
    word, why = judged(claim, **ELSEWHERE, verdict="EQUIVALENT")
    assert word == "CONTRADICTION"
    assert "2 recorded seeds do not tell the spread" in why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"conditions_digest": DD}, "its conditions are not the recorded ones"),
        ({"claim": "second"}, "no claim of this name"),
        ({"seed": 9}, "seed 9 is not recorded"),
        ({"metric": "loss"}, "another metric or checkpoint"),
        ({"checkpoint": "best"}, "another metric or checkpoint"),
    ],
)
def test_what_is_of_something_else_counts_for_nothing(
    root: Path, changes: dict[str, Any], why: str
) -> None:
    keep_verdicts(root, [file_of(root, sent(**changes))])
    (verdict,) = read_reported(root).verdicts
    assessed = assess(verdict, Recording({"first": a_claim()}))
    assert why in assessed.not_counted
    page = write_report(root).read_text()
    assert 'class="badge identical"' not in page.partition("Reported of other code")[0]
    assert why in page.partition("Reported of other code")[2]


def test_who_got_which_bits_is_one_table() -> None:
    claim = a_claim()
    recording = Recording({"first": claim})

    def told(**changes: Any) -> Any:
        verdict = reported._without_free_texts(reported._Sent.model_validate(sent(**changes)))
        return assess(verdict, recording)

    own = [
        Verdict("first", 2, hardware_class=HERE, value=0.99, bits=BB),
        Verdict("first", 3, hardware_class=HERE, value=0.97, bits=CC, conditions_digest=DD),
    ]
    others = [
        told(),
        told(seconds=1),
        told(bits=DD),
        told(**ELSEWHERE, verdict="EQUIVALENT"),
        told(**PREFIX),
        told(conditions_digest=DD),
    ]
    rows = {
        hardware: [(row.gave.seed, row.gave.bits, row.who) for row in of_class]
        for hardware, of_class in bits_by_class(claim, own, others).items()
    }
    assert rows == {
        HERE: [
            (1, AA, ["recorded", "2 times reported, not checked"]),
            (1, DD, ["reported, in contradiction to its verdict"]),
            (2, BB, ["recorded", "verified here"]),
            (3, CC, ["recorded"]),
        ],
        THERE: [(1, DD, ["reported, not checked"])],
    }
    (counted,) = outcomes(shown_reported(each) for each in others[:-1])
    assert [*counted.times.items()] == [
        ("IDENTICAL", 2),
        ("EQUIVALENT", 1),
        ("PREFIX AGREES", 1),
        ("CONTRADICTION", 1),
    ]


# The page -----------------------------------------------------------------------------------------


def test_markup_in_every_text_of_a_verdict_stays_text(root: Path) -> None:
    shown = "cpu <img src=x onerror=alert(1)>\"'"
    texts = {"why": MARKUP, "commit": MARKUP, "recorded_bits": MARKUP, "metric": MARKUP}
    texts |= {"hardware_class": shown, "recorded_on": [MARKUP], "differences": [MARKUP]}
    keep_verdicts(root, [file_of(root, sent(**texts, verdict="DIFFERENT"))])
    keep_verdicts(root, [file_of(root, sent(hardware_class=shown, verdict="EQUIVALENT"))])
    page = write_report(root).read_text()
    assert page.count("cpu &lt;img src=x onerror=alert(1)&gt;&#34;&#39;") >= 3
    assert "<script" not in page
    assert "<img" not in page


def test_own_verdicts_and_reported_ones_are_told_apart(root: Path) -> None:
    assert "eported" not in write_report(root).read_text()
    keep_verdicts(root, [file_of(root, sent())])
    page = write_report(root).read_text()
    assert "Reported, not checked:" in page
    assert "Verified here:" not in page
    assert re.search(r"<b>IDENTICAL</b> on <b>[^<]+</b>, reported, not checked", page)


def test_the_page_does_not_depend_on_the_order_of_files(root: Path) -> None:
    files = [file_of(root, sent(seconds=n), f"{n}.json") for n in range(5)]
    keep_verdicts(root, files)
    page = write_report(root).read_bytes()
    for path in (root / REPORTED).iterdir():
        path.unlink()
    keep_verdicts(root, files[::-1])
    assert write_report(root).read_bytes() == page


def test_a_page_needs_no_statistics_for_verdicts_that_are_given_here() -> None:
    """SciPy takes longer to import than all else that the page needs."""
    source = Path(reported.__file__).parent
    for name in ("assessed", "report", "reported", "shown"):
        text = (source / f"{name}.py").read_text()
        assert not re.search(r"(?m)^from repro\.results\.judge", text)


def test_any_number_of_seconds_can_be_shown() -> None:
    numbers = (0.0, 119.0, 4000.4, float("nan"), float("inf"), -1.0, 1e300)
    told = [lasting([number]) for number in numbers]
    assert told[:3] == ["0.0 s", "119.0 s", "1:06:40 (h:mm:ss)"]
    assert told[3:] == ["nan s", "inf s", "-1.0 s", "1e+300 s"]
    assert lasting([9.0, 4000.4, 10.0]) == "9.0 s to 1:06:40 (h:mm:ss)"


def test_those_who_say_the_same_have_one_row(root: Path) -> None:
    files = [file_of(root, sent(seconds=n), f"{n}.json") for n in (30, 10, 20, None)]
    keep_verdicts(root, [*files, file_of(root, sent(**PREFIX), "prefix.json")])
    page = write_report(root).read_text()
    assert page.count("<b>IDENTICAL</b> on ") == 1
    assert page.count("<b>PREFIX AGREES</b> on ") == 1  # a part is no verdict on the whole
    assert f"<b>IDENTICAL</b> on <b>{HERE}</b>, 4 times reported, not checked</p>" in page
    assert "took 10.0 s to 30.0 s</p>" in page
    assert '<strong class="badge identical">IDENTICAL</strong> 4 times' in page


def test_a_reported_verdict_cannot_be_changed() -> None:
    verdict = reported._without_free_texts(reported._Sent.model_validate(sent()))
    assert isinstance(verdict, ReportedVerdict)
    with pytest.raises(ValueError, match="frozen"):
        verdict.verdict = "DIFFERENT"  # type: ignore[misc]
