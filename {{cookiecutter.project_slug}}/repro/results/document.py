"""REPRODUCE.md: its marked blocks are filled from results/; what stands around them stays."""

import re
import shlex
from pathlib import Path
from typing import Any

from repro.core.errors import UserError
from repro.core.files import write_file
from repro.core.hashing import sha256_file
from repro.environment.locks import LOCK
from repro.results.claims import RESULTS, read_recording

DOCUMENT = "REPRODUCE.md"


def read(root: Path) -> str:
    """The document's text; UserError if there is none that can be read."""
    try:
        return (root / DOCUMENT).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{DOCUMENT} cannot be read ({error}): restore it") from error


def write(root: Path, results: dict[str, Any]) -> None:
    """Fill the blocks, as a whole or not at all."""
    write_file(root / DOCUMENT, fill_blocks(read(root), blocks(root, results)).encode())


def outdated(root: Path) -> list[str]:
    """A line if a block does not say what results/ does: edited, or of an older recording."""
    text = read(root)
    same = fill_blocks(text, blocks(root, read_recording(root))) == text
    return [] if same else [f"{DOCUMENT} does not say what {RESULTS} does"]


def fill_blocks(text: str, contents: dict[str, str]) -> str:
    """Replace what stands between `<!-- repro:NAME -->` and `<!-- /repro:NAME -->`."""
    for name, content in contents.items():
        pattern = rf"(<!-- repro:{name} -->\n).*?(<!-- /repro:{name} -->)"
        parts = re.split(pattern, text, maxsplit=1, flags=re.S)
        if len(parts) == 4:
            before, start, end, after = parts
            text = f"{before}{start}{content}\n{end}{after}"
        elif f"<!-- repro:{name} -->" in text:  # else the author took the block out
            raise UserError(f"{DOCUMENT}: no line <!-- /repro:{name} --> ends the block")
    return text


def number(value: float | None) -> str:
    """Four decimals; small values keep three digits."""
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) >= 0.001 or not value else f"{value:.3g}"


def blocks(root: Path, results: dict[str, Any]) -> dict[str, str]:
    """The measured parts of REPRODUCE.md as Markdown."""
    rows, bits, costs, data = [], [], [], []
    for name, claim in results["claims"].items():
        where = f" ({claim['shows']})" if claim["shows"] else ""
        command = shlex.join(["python", "-m", "experiment.train", *claim["arguments"], "seed=SEED"])
        expected, count = f"{claim['metric']} {number(claim['mean'])}", len(claim["values"])
        if claim["interval"]:
            expected += f" ± {number(claim['standard_deviation'])}"
            expected += " [{}, {}]".format(*map(number, claim["interval"]))
        words = f"{claim['text']}{where} (`{name}`)"
        rows.append(f"| {_cell(words)} | {_code(command)} | {expected} | {count} |")
        for hardware, digests in claim["bits"].items():
            bits += [
                f"| `{name}` | {hardware} | {seed} | {number(claim['values'][seed])} | `{digest}` |"
                for seed, digest in digests.items()
            ]
        cost = claim["cost"]
        energy = f"{cost['energy_wh']:.3g} Wh" if cost["energy_wh"] else "not told by the machine"
        costs.append(
            f"| `{name}` | {cost['hardware']} | {cost['seconds_per_seed']} s | "
            f"{cost['peak_memory_mib']} MiB | {energy} |"
        )
        data.append(_data(name, claim))
    tables = [
        _table("claim | command | mean ± standard deviation [95 % of means] | seeds", rows),
        "The trained weights:",
        _table("claim | hardware class | seed | value | bits (SHA-256 of the weights)", bits),
    ]
    return {
        "results": "\n\n".join(tables),
        "commit": _origin(results),
        "data": "\n".join(data),
        "cost": _table("claim | hardware | time per seed | memory | energy per seed (CPU)", costs),
        "lock": f"`{LOCK}` has SHA-256 `{sha256_file(root / LOCK)}`.",
        **_commands(*next(iter(results["claims"].items()))),
    }


def _commands(name: str, claim: dict[str, Any]) -> dict[str, str]:
    """How to train and to verify the first claim, as a reviewer may type it."""
    first, *others = claim["values"]
    settings = shlex.join([*claim["arguments"], f"seed={first}", "run_dir=runs/mine"])
    verify = f"python -m repro verify {name}"
    training = {
        "source .venv/bin/activate": "where conda's is not active",
        f"python -m experiment.train {settings}": "prints the bits at its end",
    }
    verification = {
        "python -m experiment.evaluate --checkpoint runs/mine/checkpoints/last": "beside results/",
        **{f"{verify} --seed {seed}": "another recorded seed" for seed in others[:1]},
        f"{verify} --prefix 20": "the first 20 steps only",
        f"{verify} --require identical": "EQUIVALENT fails too",
    }
    return {"training": _listing(training), "verification": _listing(verification)}


def _data(name: str, claim: dict[str, Any]) -> str:
    """A line on the data of a claim: which they are, from where, and how to get them."""
    facts = claim.get("dataset", {})  # not told by older recordings
    told = [f"{facts['samples']} samples"] if "samples" in facts else []
    told += [f"from {facts['source']}"] if "source" in facts else []
    raw = facts.get("raw_sha256", [])
    digests = ", ".join(f"`{digest}`" for digest in ([raw] if isinstance(raw, str) else raw))
    told += [f"SHA-256 of the raw data {digests}"] if raw else []
    told.append(f"condition `data`: `{claim['conditions']['data']}`")
    command = _code(shlex.join(["python", "-m", "experiment.prepare", *claim["arguments"]]))
    which = facts.get("dataset", "the data")
    return f"- `{name}`: {command} prepares **{which}**; {'; '.join(told)}"


def _listing(commands: dict[str, str]) -> str:
    width = max(len(command) for command in commands)
    lines = [f"{command:{width}}  # {words}" for command, words in commands.items()]
    return "\n".join(["```bash", *lines, "```"])


def _cell(text: str) -> str:
    """Text for a cell of a table: one line, its bars kept."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def _code(text: str) -> str:
    """The same as code; a fence is longer than the backticks in it."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    inside = " ".join(text.split()).replace("|", "\\|")
    return f"{fence}{inside}{fence}" if len(fence) == 1 else f"{fence} {inside} {fence}"


def _table(head: str, rows: list[str]) -> str:
    return "\n".join([f"| {head} |", "|" + "---|" * (head.count("|") + 1), *rows])


def _origin(results: dict[str, Any]) -> str:
    """In a sentence, the code that the results are of."""
    if results["commit"] is None:
        return (
            "Recorded without a commit: the digests of code, config, data and lock in "
            f"[{RESULTS.name}]({RESULTS}) tell of what."
        )
    if results["dirty"] is None:
        return (
            f"Recorded from the files of commit `{results['commit']}`, without git: whether they "
            "had been changed is not known."
        )
    if results["dirty"]:
        return (
            f"**Recorded with uncommitted changes** on commit `{results['commit']}`: that commit "
            "alone does not give these results."
        )
    return f"Recorded from commit `{results['commit']}`."
