"""The page on results and verdicts, as readers meet it: in a real browser (browser.py)."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, NoBrowser, running_browser
from conftest import Project, faults, or_skip
from PIL import Image
from repro.core.hashing import sha256_file, sha256_json
from repro.runs.figures import draw, draw_seeds
from repro.runs.logs import read_lines

PAGE = "results/report.html"
MARKUP = '<script>window.pwned = 1</script><img src="http://example.org/x.png"> "5 < 6 & 7"'
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with or_skip(running_browser(tmp_path_factory.mktemp("browser")), NoBrowser) as found:
        yield found


def results_of(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.path / "results/expected_metrics.json").read_text())
    return found


def add_verdict(project: Project, folder: str, age: int, **changes: Any) -> None:
    """A verdict.json as `verify` writes it, `age` seconds older than the newest."""
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
        "value": claim["values"]["42"],
        "recorded": claim["values"]["42"],
        "bits": bits["42"],
        "recorded_bits": bits["42"],
        "interval": None,
        "why": "the weights have the recorded bits",
        "commit": COMMIT,
        "conditions_digest": sha256_json(claim["conditions"]),
    }
    path = project.path / "runs" / "verify" / folder / "verdict.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(found | changes))
    os.utime(path, (1_700_000_000 - age,) * 2)


@pytest.fixture(scope="module")
def reported(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The recorded results with all that a claim may have, a second claim, verdicts, the page."""
    own = project.copy(tmp_path_factory.mktemp("report") / "project")
    results = results_of(own)
    claim = results["claims"]["digits_baseline"]
    claim |= {"shows": "Table 1", "interval": [0.98765, 0.99321]}
    claim["cost"]["energy_wh"] = 1.25
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
    done = own.run("python", "-m", "repro", "report")
    assert done.returncode == 0, done.stderr
    return own


def test_the_page_tells_results_verdicts_and_commands(reported: Project, browser: Browser) -> None:
    browser.show(reported.path / PAGE, 1200)
    text = browser.evaluate("document.body.innerText")
    claim = results_of(reported)["claims"]["digits_baseline"]
    ((hardware, bits),) = claim["bits"].items()
    for seed, digest in bits.items():
        assert re.search(rf"{seed}\s+{claim['values'][seed]:.4f}\s+{digest}", text)
    cost = claim["cost"]
    for words in (
        claim["text"],
        "Table 1",
        f"accuracy {claim['mean']:.4f} ± {claim['standard_deviation']:.4f}",
        "over 5 seeds, 400 steps each",
        "95 % interval 0.9877 to 0.9932",
        f"Hardware class: {hardware}",
        f"Recorded at commit {COMMIT}, with uncommitted changes",
        "python -m experiment.train seed=42",
        "python -m repro verify digits_baseline --seed 42",
        "make setup",
        sha256_file(reported.path / "requirements.lock"),
        f"{cost['hardware']}, {cost['seconds_per_seed']} s per seed",
        f"{cost['peak_memory_mib']} MiB of memory, 1.25 Wh, profile portable",
        "IDENTICAL whole training, seed 42: 400 steps compared, 1 to 400",
        "DIFFERENT start of the training, seed 42: 20 steps compared, 1 to 20",
        "Of other conditions than those recorded now.",
        "config: optimizer.learning_rate is 0.004, recorded 0.003",
        "EQUIVALENT stretches, seed 42: 20 steps compared, 11 to 20, 31 to 40",
        f"cuda A, recorded: {hardware}",
        "95 % of further seeds would lie between 0.9812 and 0.9988.",
    ):
        assert words in text, (words, text)
    assert "an older verdict" not in text
    assert text.count("Of other conditions") == 1
    figures = browser.evaluate("[...document.images].map(i => [i.alt, i.naturalWidth])")
    assert len(figures) == len(list((reported.path / "results/figures").glob("*/*.png"))) > 1
    assert all(alt.startswith(claim["text"]) and width > 400 for alt, width in figures)


def test_whatever_an_author_writes_stays_text(reported: Project, browser: Browser) -> None:
    browser.show(reported.path / PAGE, 360)
    assert browser.evaluate("document.body.innerText").count(MARKUP) == 5
    # Twice: the policy would hold it back, were it markup.
    assert (
        browser.evaluate("document.scripts.length + document.querySelectorAll('section b').length")
        == 1
    )
    assert browser.evaluate("window.pwned") is None
    page, *others = browser.requests
    assert page == (reported.path / PAGE).as_uri()
    assert all(address.startswith("data:image/png;base64,") for address in others)


# Of each element with text of its own: its contrast with what lies behind it (WCAG 2.2: 4.5 is AA).
CONTRASTS = """
(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const found = numbers(getComputedStyle(element).backgroundColor);
      if (found[3] !== 0) return found;
    }
    return [255, 255, 255];
  };
  return [...document.body.querySelectorAll('*')]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .map(e => {
      const pair = [light(numbers(getComputedStyle(e).color)), light(behind(e))].sort();
      return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), e.textContent];
    });
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_is_readable(reported: Project, browser: Browser, width: int, scheme: str) -> None:
    browser.show(reported.path / PAGE, width, scheme)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    inside = "[...document.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right)"
    assert max(browser.evaluate(inside)) <= width
    contrasts = browser.evaluate(CONTRASTS)
    assert len(contrasts) > 50
    assert min(contrasts)[0] >= 4.5, min(contrasts)
    (page,) = set(browser.evaluate("[getComputedStyle(document.body).backgroundColor]"))
    assert (max(map(int, re.findall(r"\d+", page))) < 60) == (scheme == "dark")
    cards = browser.evaluate("[...document.images].map(i => getComputedStyle(i).backgroundColor)")
    assert set(cards) == {"rgb(255, 255, 255)"}  # the figures' letters are black
    sizes = "[...document.querySelectorAll('td, p, code')].map(e => getComputedStyle(e).fontSize)"
    assert min(float(size.removesuffix("px")) for size in browser.evaluate(sizes)) >= 13


def test_the_page_can_be_printed(reported: Project, browser: Browser) -> None:
    browser.show(reported.path / PAGE, 700, "dark", media="print")
    assert (
        browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )
    assert min(browser.evaluate(CONTRASTS))[0] >= 4.5
    assert browser.evaluate("document.documentElement.scrollWidth") <= 700
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF-")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 8


def test_the_same_results_give_the_same_bytes(reported: Project, tmp_path: Path) -> None:
    copy = reported.copy(tmp_path / "elsewhere")
    for path in sorted(reported.path.glob("runs/verify/*/verdict.json")):
        target = copy.path / path.relative_to(reported.path)
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
        os.utime(target, ns=(path.stat().st_mtime_ns,) * 2)
    page = tmp_path / "page.html"
    done = copy.run("python", "-m", "repro", "report", "--output", str(page), TZ="Asia/Tokyo")
    assert done.stdout == f"written: {page}\n"
    assert page.read_bytes() == (reported.path / PAGE).read_bytes()
    assert str(reported.path) not in page.read_text()


def test_a_report_of_nothing_is_one_line(own_project: Project) -> None:
    done = own_project.run("python", "-m", "repro", "report", "--output", "nowhere/page.html")
    assert faults(done) == ["error: nowhere/page.html: No such file or directory"]
    (own_project.path / "results/expected_metrics.json").unlink()
    (line,) = faults(own_project.run("python", "-m", "repro", "report"))
    assert "nothing is recorded yet: make record" in line


def test_pictures_of_a_run_without_accuracy_with_a_negative_loss_and_many_classes(
    tmp_path: Path,
) -> None:
    """What an author validates is drawn, whatever it is called."""
    steps = [{"step": step, "loss": 1.0 - step} for step in range(1, 5)]
    epochs = [{"step": step, "epoch": step // 2, "loss": -0.5, "f1": 0.1} for step in (2, 4)]
    for classes in (2, 40):
        names = [f"class {number}" for number in range(classes)]
        draw(tmp_path, [[3] * classes] * classes, names, steps + epochs)
    with Image.open(tmp_path / "learning_curves.png") as picture:
        assert picture.size == (660, 660)
    assert (tmp_path / "confusion_matrix.png").is_file()


def test_curves_over_seeds_have_every_number_and_the_same_bytes(
    project: Project, tmp_path: Path
) -> None:
    done = project.train("training.epochs=2", f"run_dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    # As a second seed the same numbers, made a little smaller: saves a training.
    other = [{k: v * 0.9 if isinstance(v, float) else v for k, v in e.items()} for e in lines]
    runs = {"1": lines, "2": other}
    name = "learning_curves_seeds.png"
    draw_seeds(tmp_path / "one", runs)
    draw_seeds(tmp_path / "two", runs)
    first = (tmp_path / "one" / name).read_bytes()
    assert first == (tmp_path / "two" / name).read_bytes()
    # One panel for the loss, one for the accuracy; a third for what the author adds.
    for entry in [e for entries in runs.values() for e in entries if "epoch" in e]:
        entry["f1"] = entry["accuracy"] / 2
    draw_seeds(tmp_path / "three", runs)
    heights = [
        int.from_bytes((tmp_path / folder / name).read_bytes()[20:24])
        for folder in ("one", "three")
    ]
    assert heights == [660, 990]
    # A seed that stopped early has a curve; without epochs there is nothing to draw.
    draw_seeds(tmp_path / "short", {**runs, "3": runs["1"][: len(runs["1"]) // 2]})
    draw_seeds(tmp_path / "none", {"1": [e for e in runs["1"] if "epoch" not in e]})
    assert (tmp_path / "short" / name).is_file()
    assert not (tmp_path / "none").exists()
