"""Fill the marked blocks of REPRODUCE.md from results/; what stands around them stays."""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from repro.core import layout
from repro.core.bounded import read_text
from repro.core.errors import UserError
from repro.core.files import write_file
from repro.core.hashing import sha256_file
from repro.core.markdown import cell, code, table
from repro.core.project import command_line, tool_settings
from repro.environment.locks import LOCK
from repro.results.claims import EXPECTED, read_recording
from repro.results.own_data import own_data
from repro.results.recording import ANONYMOUS, Cost, RecordedClaim, Recording

DOCUMENT = "REPRODUCE.md"
_SPREAD = "mean ± standard deviation [95 % interval of the mean]"


def read_document(root: Path) -> str:
    """Read the document's text; UserError if there is none that can be read."""
    try:
        return read_text(root / DOCUMENT)
    except (OSError, UserError) as error:
        raise UserError(f"{DOCUMENT} cannot be read ({error}): restore it") from error


def write_document(root: Path, recording: Recording) -> None:
    """Fill the blocks, as a whole or not at all."""
    text = fill_blocks(read_document(root), blocks(root, recording))
    write_file(root / DOCUMENT, text.encode())


def outdated(root: Path) -> list[str]:
    """Return a line if a block was edited, or is of an older recording; else nothing."""
    text = read_document(root)
    same = fill_blocks(text, blocks(root, read_recording(root))) == text
    return [] if same else [f"{DOCUMENT} does not say what {EXPECTED} does"]


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
    """Write a number with four decimals; small values keep three digits."""
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) >= 0.001 or not value else f"{value:.3g}"


def mean_with_spread(claim: RecordedClaim) -> str:
    """Return the mean, the standard deviation over seeds, and the interval of the mean."""
    words = number(claim.mean)
    if claim.standard_deviation is not None:
        words += f" ± {number(claim.standard_deviation)}"
    if claim.interval:
        low, high = claim.interval
        words += f" [{number(low)}, {number(high)}]"
    return words


def blocks(root: Path, recording: Recording) -> dict[str, str]:
    """Return the measured parts of REPRODUCE.md as Markdown, by the names of their blocks."""
    claims = recording.claims
    results = [_result(root, name, claim) for name, claim in claims.items()]
    bits = [row for name, claim in claims.items() for row in _bits(name, claim)]
    costs = [row for name, claim in claims.items() for row in _costs(name, claim)]
    data = [_data(root, name, claim) for name, claim in claims.items()]
    tables = [
        table(f"claim | command | {_SPREAD} | seeds", results),
        "The trained weights:",
        table("claim | hardware class | seed | value | bits (SHA-256 of the weights)", bits),
    ]
    name, first_claim = next(iter(claims.items()))
    return {
        "results": "\n\n".join(tables),
        "commit": " ".join([_origin(recording), *_origins_of_added(claims)]),
        "data": "\n\n".join(["\n".join(data), *own_data(root, claims.values())]),
        "cost": table("claim | hardware | time per seed | memory", costs),
        "lock": f"`{LOCK}` has SHA-256 `{sha256_file(root / LOCK)}`.",
        "training": _listing(_training(root, first_claim)),
        "verification": _listing(_verification(root, name, first_claim)),
    }


def _result(root: Path, name: str, claim: RecordedClaim) -> str:
    """Return a claim's row: the command, and the metric with its spread over seeds."""
    command = shlex.join(_train_command(root, claim, "seed=SEED"))
    shows = f" ({claim.shows})" if claim.shows else ""
    value = f"{cell(claim.value_name)} {mean_with_spread(claim)}"
    what = cell(f"{claim.text}{shows} (`{name}`)")
    return f"| {what} | {code(command)} | {value} | {len(claim.values)} |"


def _bits(name: str, claim: RecordedClaim) -> list[str]:
    """Return a row for each seed on each hardware class, and another one for a best checkpoint."""
    rows = []
    for hardware, digests in claim.bits.items():
        for seed, digest in digests.items():
            where = f"| `{name}` | {hardware} | {seed}"
            value = number(claim.values_on(hardware)[seed])
            if claim.checkpoint == layout.BEST:
                best = claim.best[hardware][seed]
                rows.append(f"{where} | {value} | `{best.bits}` (best, step {best.step}) |")
                rows.append(
                    f"{where} | | `{digest}` (last, step {claim.steps_on(hardware, seed)}) |"
                )
            else:
                rows.append(f"{where} | {value} | `{digest}` |")
    return rows


def _costs(name: str, claim: RecordedClaim) -> list[str]:
    """Return a claim's rows: what a training of one seed takes, on each machine that recorded."""
    costs = [claim.cost, *(added.cost for added in claim.added.values())]
    return [_cost(name, cost) for cost in costs]


def _cost(name: str, cost: Cost | None) -> str:
    if cost is None:
        return f"| `{name}` | not recorded | | |"
    seconds = f"{cost.seconds_per_seed} s"
    return f"| `{name}` | {cost.hardware} | {seconds} | {cost.peak_memory_mib} MiB |"


def _training(root: Path, claim: RecordedClaim) -> dict[str, str]:
    """Return how to train a claim, as a reviewer may type it, with a remark on each command."""
    seed = next(iter(claim.values))
    command = _train_command(root, claim, f"seed={seed}", "run_dir=runs/mine")
    return {
        "source .venv/bin/activate": "where conda's is not active",
        shlex.join(command): "prints the bits at its end",
    }


def _train_command(root: Path, claim: RecordedClaim, *more: str) -> list[str]:
    processes = claim.conditions.processes
    return command_line(root, "train", *claim.arguments, *more, processes=processes)


def _verification(root: Path, name: str, claim: RecordedClaim) -> dict[str, str]:
    """Return how to verify a claim, as a reviewer may type it, with a remark on each command."""
    checkpoint = f"runs/mine/{layout.CHECKPOINTS}/{claim.checkpoint}"
    evaluate = command_line(root, "evaluate", "--checkpoint", checkpoint)
    verify = f"python -m repro verify {name}"
    commands = {shlex.join(evaluate): "beside results/"}
    others = [*claim.values][1:]
    if others:
        commands[f"{verify} --seed {others[0]}"] = "another recorded seed"
    commands[f"{verify} --prefix 20"] = "the first 20 steps only"
    commands[f"{verify} --require identical"] = "EQUIVALENT fails too"
    return commands


def _data(root: Path, name: str, claim: RecordedClaim) -> str:
    """Return a line on the data of a claim: which they are, from where, and how to get them."""
    dataset = claim.dataset  # older recordings tell nothing of it
    facts = []
    if dataset.samples is not None:
        facts.append(f"{dataset.samples} samples")
    if dataset.source is not None:
        facts.append(f"from {dataset.source}")
    if dataset.raw_sha256:
        raw = dataset.raw_sha256
        digests = [raw] if isinstance(raw, str) else raw
        listed = ", ".join(f"`{digest}`" for digest in digests)
        facts.append(f"SHA-256 of the raw data {listed}")
    facts.append(f"condition `data`: `{claim.conditions.data}`")
    what = dataset.dataset or "the data"
    if "prepare" not in tool_settings(root):  # a loop of the author's own reads them
        return f"- `{name}`: **{what}**; {'; '.join(facts)}"
    command = code(shlex.join(command_line(root, "prepare", *claim.arguments)))
    return f"- `{name}`: {command} prepares **{what}**; {'; '.join(facts)}"


def _listing(commands: dict[str, str]) -> str:
    """Return a block of code: commands, each with its remark."""
    width = max(len(command) for command in commands)
    lines = [f"{command:{width}}  # {remark}" for command, remark in commands.items()]
    return "\n".join(["```bash", *lines, "```"])


def _origin(recording: Recording) -> str:
    """Say of which code the results are, and how Software Heritage names it."""
    commit, dirty = recording.commit, recording.dirty
    if commit == ANONYMOUS:
        return "Recorded from a commit that this copy does not name."
    if commit is None:
        return (
            "Recorded without a commit: the digests of code, config, data and lock in "
            f"[{EXPECTED.name}]({EXPECTED}) identify what was recorded."
        )
    if dirty is None:
        return (
            f"Recorded from the files of commit `{commit}`, without git: whether they had been "
            "changed is not known."
        )
    if dirty:
        return (
            f"**Recorded with uncommitted changes** on commit `{commit}`: that commit alone does "
            "not give these results."
        )
    if not recording.software_ids:
        return f"Recorded from commit `{commit}`."
    of_commit, of_folder = recording.software_ids
    return (
        f"Recorded from commit `{commit}`. Its identifier at Software Heritage is `{of_commit}`, "
        f"and that of the project's files in it `{of_folder}`."
    )


def _origins_of_added(claims: Mapping[str, RecordedClaim]) -> list[str]:
    """Say in a sentence for each hardware class that was added later from which commit it was."""
    added = {item for claim in claims.values() for item in _commits_of_added(claim)}
    return [
        f"Added under the same conditions: `{kind}`, {commit}." for kind, commit in sorted(added)
    ]


def _commits_of_added(claim: RecordedClaim) -> Iterator[tuple[str, str]]:
    for hardware, added in claim.added.items():
        commit = f"commit `{added.commit}`" if added.commit else "no commit is known"
        yield hardware, f"{commit} with uncommitted changes" if added.dirty else commit
