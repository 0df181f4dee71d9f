"""The page on results and verdicts, as readers meet it: in a real browser (browser.py)."""

import re
from collections.abc import Iterator

import pytest
from browser import Browser, NoBrowser, running_browser
from conftest import Project, or_skip
from reports import COMMIT, MARKUP, PAGE, results_of
from repro.core.hashing import sha256_file


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with or_skip(running_browser(tmp_path_factory.mktemp("browser")), NoBrowser) as found:
        yield found


def test_the_page_tells_results_verdicts_and_commands(reported: Project, browser: Browser) -> None:
    browser.show(reported.path / PAGE, 1200)
    text = browser.evaluate("document.body.innerText")
    claim = results_of(reported)["claims"]["digits_baseline"]
    ((hardware, bits),) = claim["bits"].items()
    for seed, digest in bits.items():
        assert re.search(rf"{seed}\s+{claim['values'][seed]:.4f}\s+{digest}\s+recorded", text)
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
        'make setup && make reproduce ARGS="digits_baseline --seed 42"',
        sha256_file(reported.path / "requirements.lock"),
        f"{cost['hardware']}, {cost['seconds_per_seed']} s per seed",
        f"{cost['peak_memory_mib']} MiB of memory, profile portable",
        "Verified here: IDENTICAL",
        f"IDENTICAL on {hardware}, verified here",
        "whole training, seed 42: 400 steps compared, 1 to 400; took 63.4 s",
        f"PREFIX DIFFERS on {hardware}, verified here",
        "start of the training, seed 42: 20 steps compared, 1 to 20",
        "Of other conditions than those recorded now.",
        "config: optimizer.learning_rate is 0.004, recorded 0.003",
        "EQUIVALENT on cuda A, verified here",
        "stretches, seed 42: 20 steps compared, 11 to 20, 31 to 40",
        f"cuda A, recorded: {hardware}",
        "95 % of further seeds would lie between 0.9812 and 0.9988.",
    ):
        assert words in text, (words, text)
    assert "an older verdict" not in text
    assert text.count("Of other conditions") == 1
    figures = browser.evaluate("[...document.images].map(i => [i.alt, i.naturalWidth])")
    assert len(figures) == len(list((reported.path / "results/figures").glob("*/*.*"))) > 1
    assert all(alt.startswith(claim["text"]) and width > 400 for alt, width in figures)


def test_a_reviewer_sees_claim_command_and_verdict_at_once(
    reported: Project, browser: Browser
) -> None:
    """On the first screen of a phone and of a desktop, and the command is selected by one click."""
    for width, height in ((360, 640), (1200, 800)):
        browser.show(reported.path / PAGE, width)
        bottoms = browser.evaluate(
            "['a', 'pre.command', '.outcomes'].map(name =>"
            " document.querySelector('main ' + name).getBoundingClientRect().bottom)"
        )
        assert max(bottoms) <= height, (width, bottoms)
    code = "document.querySelector('pre.command code')"
    assert browser.evaluate(f"getComputedStyle({code}).userSelect") == "all"
    command = browser.evaluate(f"{code}.textContent")
    assert command == 'make setup && make reproduce ARGS="digits_baseline --seed 42"'


def test_what_others_report_is_told_apart(reported: Project, browser: Browser) -> None:
    browser.show(reported.path / PAGE, 1200)
    text = browser.evaluate("document.body.innerText")
    claim = results_of(reported)["claims"]["digits_baseline"]
    ((hardware, bits),) = claim["bits"].items()
    for words in (
        "Reported, not checked: IDENTICAL EQUIVALENT DIFFERENT CONTRADICTION",
        f"IDENTICAL on {hardware}, reported, not checked",
        "took 1:06:40 (h:mm:ss)",
        "EQUIVALENT on cpu Apple M2, macOS 15.1 native, reported, not checked",
        f"CONTRADICTION on {hardware}, reported, not checked",
        "it says IDENTICAL, but its facts say DIFFERENT: the weights have other bits",
        "it left the recorded trace at step 37",
        "Hardware class: cpu Apple M2, macOS 15.1 native, not recorded",
        "it says DIFFERENT, and its conditions are not the recorded ones",
        "What differed: code: 1, config: 1",
    ):
        assert words in text, (words, text)
    for digest, whose in (
        (bits["42"], "recorded; verified here"),
        (bits["43"], "recorded; reported, not checked"),
        ("cd" * 32, "reported, not checked"),
        ("ee" * 32, "reported, in contradiction to its verdict"),
    ):
        assert re.search(rf"{digest}\s+{whose}\n", text), (digest, text)


def test_whatever_an_author_writes_stays_text(reported: Project, browser: Browser) -> None:
    browser.show(reported.path / PAGE, 360)
    assert browser.evaluate("document.body.innerText").count(MARKUP) == 5
    # The policy would hold it back, were it markup; it is none.
    foreign = "[...document.images].filter(image => !image.src.startsWith('data:')).length"
    assert browser.evaluate(f"document.scripts.length + {foreign}") == 0
    assert browser.evaluate("window.pwned") is None
    page, *others = browser.requests
    assert page == (reported.path / PAGE).as_uri()
    kinds = {address.partition(",")[0] for address in others}
    assert kinds == {"data:image/png;base64", "data:image/svg+xml;base64"}


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
