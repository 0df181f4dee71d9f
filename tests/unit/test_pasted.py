"""The lines of a verdict that go into a review, and how many steps are a minute."""

import pytest
from recorded_claims import recorded_claim
from repro.results.pasted import markdown
from repro.results.quick import steps_of_a_minute
from repro.results.recording import Cost, RecordedClaim
from repro.results.verdict import (
    DIFFERENT,
    EQUIVALENT,
    IDENTICAL,
    PREFIX,
    SEGMENTS,
    WHOLE,
    Verdict,
)

HERE = "cpu x86-64-v3 portable"
DIGEST = "ed6a7f165b80da8b3736ed2c238772a6b794476595241d672495d900ca1bd5f9"
COMMIT = "1e2aadbd05adbf913ff4bd6ec998ff68d41a59c3"


def claim(steps: int = 400, seconds: int | None = 22, text: str = "A claim") -> RecordedClaim:
    cost = None if seconds is None else Cost("AMD EPYC", seconds, 900)
    return recorded_claim(text=text, bits={HERE: {"1": "0" * 64}}, steps=steps, cost=cost)


def verdict(**changes: object) -> Verdict:
    facts: dict[str, object] = {
        "verdict": IDENTICAL,
        "why": "weights and value have the recorded bits",
        "hardware_class": HERE,
        "recorded_on": [HERE],
        "metric": "accuracy",
        "value": 0.98,
        "recorded": 0.98,
        "commit": COMMIT,
        "conditions_digest": DIGEST,
        "seconds": 75.4,
    }
    return Verdict("short", 42, **{**facts, **changes})  # type: ignore[arg-type]


def test_a_verdict_is_told_in_eight_lines() -> None:
    assert markdown(verdict(), IDENTICAL, claim()).splitlines() == [
        "**IDENTICAL**: A claim",
        "",
        "- claim: `short`, seed 42; weights and value have the recorded bits",
        "- accuracy: 0.98, recorded 0.98",
        f"- hardware class: {HERE} (recorded: yes)",
        f"- commit: `{COMMIT}`",
        f"- conditions: `{DIGEST}`",
        "- time: 0:01:15",
    ]


@pytest.mark.parametrize("what", [WHOLE, PREFIX, SEGMENTS])
@pytest.mark.parametrize("outcome", [IDENTICAL, EQUIVALENT, DIFFERENT])
def test_the_longest_verdict_has_twelve_lines_and_no_secret(what: str, outcome: str) -> None:
    told = verdict(
        verdict=outcome,
        what=what,
        why="two\nlines",
        differences=[f"a\n\ndifference\r{number}" for number in range(50)],
        hardware_class="cpu of another",
        commit=None,
    )
    secret = "hf_" + "a1B2" * 9
    text = markdown(told, outcome, claim(text=f"A claim\n\n# with {secret}\n"))
    lines = text.splitlines()
    assert len(lines) <= 12
    assert "a1B2a1B2" not in text
    assert "- commit: anonymous" in lines
    assert f"- hardware class: cpu of another (recorded: no; recorded on {HERE})" in lines
    differences = [line for line in lines if line.startswith("- differs: ")]
    assert len(differences) == (3 if outcome == DIFFERENT else 0)
    assert not differences or differences[-1].endswith("; and 47 more")


def test_texts_of_authors_are_no_markdown_and_no_html() -> None:
    text = markdown(verdict(), IDENTICAL, claim(text="<b>**[x](y)** `a|b` & _c_ # ~~d~~ \\"))
    assert text.splitlines()[0] == (
        r"**IDENTICAL**: \<b\>\*\*\[x\](y)\*\* \`a\|b\` \& \_c\_ \# \~\~d\~\~ \\"
    )


@pytest.mark.parametrize(
    ("steps", "seconds", "expected"),
    [
        (400, 22, 400),  # all of it
        (400, 60, 400),
        (400, 61, 393),
        (100_000, 36_000, 166),
        (10, 36_000, 1),  # a step of an hour
        (400, 0, 400),
        (400, None, 20),
        (7, None, 7),
    ],
)
def test_a_minute_has_so_many_steps(steps: int, seconds: int | None, expected: int) -> None:
    assert steps_of_a_minute(claim(steps, seconds)) == expected
