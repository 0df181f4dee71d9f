"""A project with recorded results and verdicts of every kind, and the page on them."""

import json
import os
from pathlib import Path
from typing import Any

from conftest import Project
from repro.core.hashing import sha256_json

PAGE = "results/report.html"


MARKUP = '<script>window.pwned = 1</script><img src="http://example.org/x.png"> "5 < 6 & 7"'


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def results_of(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.path / "results/expected_metrics.json").read_text())
    return found


def verdict_on(project: Project, **changes: Any) -> dict[str, Any]:
    """What a verdict.json holds, as `verify` writes it."""
    claim = results_of(project)["claims"]["digits_baseline"]
    ((hardware, bits),) = claim["bits"].items()
    found = {
        "verdict": "IDENTICAL",
        "claim": "digits_baseline",
        "seed": 42,
        "what": "whole",
        "steps": [[1, 400]],
        "differences": [],
        "hardware_class": hardware,
        "recorded_on": [hardware],
        "metric": "accuracy",
        "checkpoint": "last",
        "best": None,
        "recorded_best": None,
        "value": claim["values"]["42"],
        "recorded": claim["values"]["42"],
        "bits": bits["42"],
        "recorded_bits": bits["42"],
        "interval": None,
        "why": "the weights have the recorded bits",
        "commit": COMMIT,
        "conditions_digest": sha256_json(claim["conditions"]),
        "seconds": 63.4,
    }
    return found | changes


def add_verdict(project: Project, folder: str, age: int, **changes: Any) -> None:
    """A verdict that was given in the project, `age` seconds older than the newest."""
    path = project.path / "runs" / "verify" / folder / "verdict.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(verdict_on(project, **changes)))
    os.utime(path, (1_700_000_000 - age,) * 2)


def sent_verdicts(project: Project, folder: Path) -> list[str]:
    """Files with what others found: one that counts, an equivalent one, and others."""
    claim = results_of(project)["claims"]["digits_baseline"]
    ((_, bits),) = claim["bits"].items()
    same = {"seed": 43, "value": claim["values"]["43"], "bits": bits["43"], "seconds": 4000}
    elsewhere = {
        "hardware_class": "cpu Apple M2, macOS 15.1 native",
        "bits": "cd" * 32,
        "recorded_bits": None,
    }
    parted = "they part at step 37: loss 0.5 (0x1p-1), recorded 0.25 (0x1p-2)"
    code = ["code: experiment/model.py changed", f"config: x is {MARKUP}, recorded 1"]
    found: dict[str, dict[str, Any]] = {
        "same": same,
        "elsewhere": {**elsewhere, "verdict": "EQUIVALENT", "interval": [0.9, 1.0]},
        "liar": {"bits": "ee" * 32, "why": MARKUP},
        "parted": {"verdict": "DIFFERENT", "bits": "ef" * 32, "differences": [parted]},
        "code": {"verdict": "DIFFERENT", "differences": code, "conditions_digest": "12" * 32}
        | {"steps": [], "value": None, "bits": None},
    }
    folder.mkdir()
    for name, changes in found.items():
        (folder / f"{name}.json").write_text(json.dumps(verdict_on(project, **changes)))
    return [str(folder / f"{name}.json") for name in found]


def report(project: Project, folder: Path) -> Project:
    """The recorded results with all that a claim may have, a second claim, verdicts, the page."""
    own = project.copy(folder / "project")
    results = results_of(own)
    claim = results["claims"]["digits_baseline"]
    claim |= {"shows": "Table 1", "interval": [0.98765, 0.99321]}
    claim["cost"]["energy_wh"] = 1.25  # of an older version; nothing tells it any more
    other = json.loads(json.dumps(claim))
    other |= {"text": MARKUP, "arguments": ["optimizer=sgd", f"name={MARKUP}"], "shows": MARKUP}
    other |= {"metric": "a_metric_with_a_name_that_is_rather_long", "standard_deviation": None}
    results |= {"commit": COMMIT, "dirty": True}
    results["claims"]["other"] = other
    (own.path / "results/expected_metrics.json").write_text(json.dumps(results))
    add_verdict(own, "new", 0)
    add_verdict(own, "old", 9, verdict="DIFFERENT", why="an older verdict")
    add_verdict(own, "half", 1, seed=43)
    (own.path / "runs/verify/half/verdict.json").write_text('{"verdict": "DIFFE')
    add_verdict(
        own,
        "prefix",
        2,
        verdict="DIFFERENT",
        what="prefix",
        steps=[[1, 20]],
        differences=["config: optimizer.learning_rate is 0.004, recorded 0.003", MARKUP],
        conditions_digest="another",
    )
    add_verdict(
        own,
        "other",
        3,
        claim="other",
        verdict="EQUIVALENT",
        hardware_class="cuda A",
        interval=[0.98123, 0.99876],
        bits="ab" * 32,
        recorded_bits=None,
        steps=[[11, 20], [31, 40]],
        what="segments",
    )
    sent = sent_verdicts(own, folder / "sent")
    done = own.module("repro", "report", "--verdicts", *sent)
    assert done.returncode == 0, done.stderr
    return own
