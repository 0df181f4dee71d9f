"""The recorded results and the verdicts on them as a page to look at: results/report.html.

One file that needs nothing else: no network, no script; the pictures are inside. It tells what
results/ and runs/verify/ hold, nothing about the moment or the machine that wrote it: the same
results, the same bytes. Text is escaped on its way into markup (`tag`), whoever wrote it.
"""

import shlex
import tomllib
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

from repro.core.files import read_object
from repro.core.hashing import sha256_file, sha256_json
from repro.environment.locks import LOCK, read_lock
from repro.results.claims import read_recording
from repro.results.document import number

REPORT = Path("results") / "report.html"
# The policy: were a text to become markup after all, the browser would load and run nothing.
HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
"""
COMPARED = {"whole": "whole training", "prefix": "start of the training", "segments": "stretches"}
FIGURES = {  # said below them, and to those who do not see them
    "learning_curves_seeds": "Learning curves of all seeds: mean, band from lowest to highest.",
    "learning_curves": "Learning curves of the first seed.",
    "confusion_matrix": "Confusion matrix of the first seed: test samples by true and given class.",
}
COSTS = {
    "hardware": "{}",
    "seconds_per_seed": "{} s per seed",
    "peak_memory_mib": "{} MiB of memory",
    "energy_wh": "{:.3g} Wh",
}


class Html(str):
    """Markup. Every other text is escaped before it becomes a part of it."""


def tag(name: str, *parts: object, **attributes: str) -> Html:
    """An element; its parts are markup, text to be escaped, or None for nothing."""
    words = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items())
    inside = "".join(p if isinstance(p, Html) else escape(str(p)) for p in parts if p is not None)
    return Html(f"<{name}{words}>" if name == "img" else f"<{name}{words}>{inside}</{name}>")


def write(root: Path, path: Path | None = None) -> Path:
    """Write the page (default: results/report.html); UserError if nothing is recorded."""
    results = read_recording(root)
    claims = results["claims"]
    about = tomllib.loads((root / "pyproject.toml").read_text())
    project, train = about["project"], about["tool"]["repro"]["train"]
    verdicts, commit = read_verdicts(root), results.get("commit") or "unknown (no git)"
    changes = ", with uncommitted changes" if results.get("dirty") else None
    page = [
        tag("header", tag("h1", project["name"]), tag("p", project.get("description", ""))),
        tag("p", "Recorded at commit ", tag("code", commit), changes),
        _overview(claims, verdicts) if len(claims) > 1 else None,
        *(_claim(root, train, k, v, verdicts.get(k, [])) for k, v in claims.items()),
        _environment(root, claims, project.get("requires-python", "")),
        _repeat(claims),
    ]
    style = Path(__file__).with_suffix(".css").read_text()
    head = tag("title", f"{project['name']}: results") + f"\n<style>\n{style}</style>\n"
    target = path or root / REPORT
    text = f"{HEAD}{head}{tag('body', tag('main', *page))}\n</html>\n"
    target.write_bytes(text.encode(errors="replace"))  # JSON may hold what UTF-8 cannot
    return target


def read_verdicts(root: Path) -> dict[str, list[dict[str, Any]]]:
    """By claim the newest verdict of each seed and kind of comparison, the newest one first."""
    newest: dict[tuple[str, ...], dict[str, Any]] = {}
    paths = root.glob("runs/verify/*/verdict.json")
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path), reverse=True):
        found = read_object(path)
        if {"claim", "seed", "what"} <= found.keys():  # a half-written one says nothing
            newest.setdefault(tuple(str(found[key]) for key in ("claim", "seed", "what")), found)
    verdicts: dict[str, list[dict[str, Any]]] = {}
    for (claim, *_), found in newest.items():
        verdicts.setdefault(claim, []).append(found)
    return verdicts


def _overview(claims: dict[str, Any], verdicts: dict[str, list[dict[str, Any]]]) -> Html:
    """All claims at a glance."""
    rows = []
    for name, claim in claims.items():
        link = tag("a", claim["text"], href=f"#{name}")
        value = f"{claim['metric']} {number(claim.get('mean'))}"
        rows.append([link, value, _badge(verdicts[name][0]) if name in verdicts else "none"])
    return _table(["Claim", "Recorded", "Newest verdict"], rows)


def _claim(
    root: Path, train: str, name: str, claim: dict[str, Any], verdicts: list[dict[str, Any]]
) -> Html:
    """A claim: its value, the verdicts on it, its figures, every seed, and what it costs."""
    seeds, spread = list(claim["values"]), claim.get("standard_deviation")
    low, high = map(number, claim.get("interval") or (None, None))
    over = f"standard deviation over {len(seeds)} seeds" if spread is not None else "one seed"
    command = ["python", "-m", train, *claim["arguments"], f"seed={seeds[0]}"]
    parts = [
        tag("p", claim["shows"], class_="note") if claim.get("shows") else None,
        tag("h2", claim["text"]),
        tag(
            "p",
            f"{claim['metric']} ",
            tag("strong", number(claim.get("mean"))),
            f" ± {number(spread)}" if spread is not None else None,
            tag("small", f"{over}, {claim['steps']} steps each"),
            tag("small", f"95 % interval {low} to {high}") if low else None,
            class_="value",
        ),
        *(_verdict(claim, found) for found in verdicts),
        None if verdicts else tag("p", "Not verified here yet: see the end of this page."),
    ]
    folder = root / REPORT.parent / "figures" / name
    figures = [_figure(path, claim["text"]) for path in sorted(folder.glob("*.png"), reverse=True)]
    parts += [tag("div", *figures, class_="figures"), tag("h3", "Every seed"), _code(command)]
    for hardware, bits in claim["bits"].items():
        rows = [[k, number(claim["values"].get(k)), tag("code", v)] for k, v in bits.items()]
        columns = ["Seed", claim["metric"], "Bits (SHA-256 of the trained weights)"]
        parts.append(_table(columns, rows, f"Hardware class: {hardware}"))
    return tag("section", *parts, id=name)


def _verdict(claim: dict[str, Any], found: dict[str, Any]) -> Html:
    """A verdict with its evidence."""
    what = f" {COMPARED.get(found['what'], found['what'])}, seed {found['seed']}: "
    if steps := found.get("steps"):
        what += f"{sum(last - first + 1 for first, last in steps)} steps compared, "
    what += ", ".join(f"{first} to {last}" for first, last in steps or []) or "nothing was trained"
    hardware, known = found.get("hardware_class"), found.get("recorded_on", [])
    rows = []
    for label, here, then in (
        (found.get("metric"), found.get("value"), found.get("recorded")),
        ("bits", found.get("bits"), found.get("recorded_bits")),
        ("hardware", hardware, hardware if hardware in known else "; ".join(known)),
        ("commit", found.get("commit"), None),
    ):
        recorded = [", recorded: ", tag("code", then)] if then is not None else []
        words = [", as recorded"] if here == then else recorded
        if here is not None:
            rows.append([label, tag("span", tag("code", here), *words)])
    other = found.get("conditions_digest") not in (None, sha256_json(claim["conditions"]))
    differences = [tag("li", line) for line in found.get("differences", [])]
    low, high = map(number, found.get("interval") or (None, None))
    parts = [
        tag("p", _badge(found), what),
        tag("p", tag("b", "Of other conditions than those recorded now.")) if other else None,
        tag("p", found.get("why", "")),
        tag("div", "What differed:", tag("ul", *differences)) if differences else None,
        _table([], rows),
        tag("p", f"95 % of further seeds would lie between {low} and {high}.") if low else None,
    ]
    return tag("div", *parts, class_="verdict")


def _environment(root: Path, claims: dict[str, Any], python: str) -> Html:
    """What it was recorded with, and what it takes."""
    lock, pins = sha256_file(root / LOCK), read_lock(root / LOCK)[0]
    rows = [["Python", python], ["Lock (SHA-256)", tag("code", lock)]]
    rows += [["torch", pins["torch"].version]] if "torch" in pins else []
    for name, claim in claims.items():
        conditions, cost = claim["conditions"], claim.get("cost", {})
        costs = [text.format(cost[k]) for k, text in COSTS.items() if cost.get(k) is not None]
        costs.append(f"profile {conditions.get('config', {}).get('profile')}")
        if conditions.get("lock") != lock:
            costs.append("recorded with another lock")
        rows.append([name, ", ".join(costs)])
    return tag("section", tag("h2", "Environment"), _table([], rows))


def _repeat(claims: dict[str, Any]) -> Html:
    """The commands that lead to a verdict on each claim."""
    commands = [["make", "setup"], ["source", ".venv/bin/activate"]]
    for name, claim in claims.items():
        seed = next(iter(claim["values"]))
        commands.append(["python", "-m", "repro", "verify", name, "--seed", seed])
    words = "On Linux with an x86-64 CPU, in the folder of the project. REPRODUCE.md says more."
    return tag("section", tag("h2", "How to repeat this"), tag("p", words), _code(*commands))


def _figure(path: Path, text: str) -> Html:
    about = FIGURES.get(path.stem, path.stem.replace("_", " "))
    source = "data:image/png;base64," + b64encode(path.read_bytes()).decode()
    return tag("figure", tag("img", src=source, alt=f"{text}. {about}"), tag("figcaption", about))


def _table(columns: list[str], rows: list[Any], caption: str | None = None) -> Html:
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in columns)))
    body = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    title = tag("caption", caption) if caption else None
    return tag("table", title, head if columns else None, tag("tbody", *body))


def _code(*commands: list[str]) -> Html:
    return tag("pre", tag("code", "\n".join(map(shlex.join, commands))))


def _badge(found: dict[str, Any]) -> Html:
    word = str(found.get("verdict"))
    return tag("strong", word, class_=f"badge {word.lower()}")
