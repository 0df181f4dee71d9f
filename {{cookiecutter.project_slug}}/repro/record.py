"""Record what a claim's training gives, to be compared with later.

`record` trains and evaluates every seed of every claim through the author's own commands, and
writes results/expected_metrics.json, results/figures/ and the marked blocks of REPRODUCE.md. A
training that was stopped is resumed. Nothing outside the marked blocks is changed.
"""

import json
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import yaml  # type: ignore[import-untyped]  # omegaconf brings it; for its errors only
from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from repro.command import UserError
from repro.conditions import LOCK, differences
from repro.hashing import sha256_file, sha256_json
from repro.provenance import get_git_info, get_hardware

RESULTS = Path("results") / "expected_metrics.json"
LASTING = ("code", "config", "data", "lock")  # the conditions that are the project's own


class Claim(BaseModel):
    """One entry of configs/claims.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    text: str
    arguments: list[str]  # of the training command
    metric: str
    seeds: Annotated[list[int], Field(min_length=1)]


def read_claims(root: Path) -> list[dict[str, Any]]:
    """The claims of configs/claims.yaml, checked."""
    path = root / str(settings(root)["claims"])
    try:
        found: Any = OmegaConf.to_container(OmegaConf.load(path))
        claims = TypeAdapter(Annotated[list[Claim], Field(min_length=1)]).validate_python(found)
    except ValidationError as error:
        faults = [(".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors()]
        raise UserError([f"{path}: {place}: {words}" for place, words in faults]) from error
    except (yaml.YAMLError, OSError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    if len({claim.name for claim in claims}) < len(claims):
        raise UserError(f"{path}: two claims have the same name")
    return [claim.model_dump() for claim in claims]


def read_results(root: Path) -> dict[str, Any]:
    """The recorded claims by name; UserError if nothing is recorded."""
    needed = {"text", "arguments", "metric", "values", "bits", "steps", "conditions"}
    try:
        claims: dict[str, Any] = json.loads((root / RESULTS).read_text())["claims"]
        complete = all(needed <= claim.keys() for claim in claims.values())
    except FileNotFoundError as error:
        raise UserError(f"{RESULTS}: nothing is recorded yet: make record") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        complete = False
    if not complete:
        raise UserError(f"{RESULTS} is damaged: restore it, or make record")
    return claims


def settings(root: Path) -> dict[str, Any]:
    """The section [tool.repro] of pyproject.toml: it names the author's commands."""
    table: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["repro"]
    return table


def stale(root: Path) -> list[str]:
    """What changed since the results were recorded, a line each; empty if they are of this code.

    Code, config, lock and data count; this machine's packages and variables do not.
    UserError if nothing is recorded.
    """
    lines = []
    for name, claim in read_results(root).items():
        now = conditions_now(root, claim)["conditions"]
        then = {kind: claim["conditions"].get(kind) for kind in LASTING}
        found = differences(then, {kind: now[kind] for kind in LASTING})
        lines += [f"{name}: {line}" for line in found]
    return lines


def run_command_of(root: Path, name: str, arguments: list[str], capture: bool = False) -> str:
    """Run the author's command `name`; its standard output if captured. UserError if it fails."""
    module = str(settings(root)[name])
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=root, text=True, stdout=subprocess.PIPE if capture else None)
    if done.returncode not in ((0, 1) if name == "evaluate" else (0,)):  # 1: another result
        raise UserError(f"python -m {module} {' '.join(arguments)} ended with {done.returncode}")
    return done.stdout or ""


def measure(root: Path, claim: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Train and evaluate one seed of a claim in `folder`; its metrics.json and its cost."""
    started = time.monotonic()
    # Without a tracker: whoever repeats a result need not reach the author's server.
    arguments = [*claim["arguments"], f"seed={seed}", f"run_dir={folder}", "resume=auto"]
    arguments += ["tracker=none"]
    run_command_of(root, "train", arguments)
    from repro.checkpoint import newest_whole  # here: it imports torch

    cost = folder / "cost.json"
    if not cost.is_file():  # one that was trained before keeps what it cost then
        cost.write_text(json.dumps({"seconds": time.monotonic() - started}) + "\n")
    seconds = json.loads(cost.read_text())["seconds"]
    (folder / "metrics.json").unlink(missing_ok=True)  # of an earlier attempt
    # Not by its name `last`: the runs of an archive have no links.
    newest = str(newest_whole(folder / "checkpoints"))
    run_command_of(root, "evaluate", ["--checkpoint", newest])
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    if not isinstance(metrics.get(claim["metric"]), float):
        known = ", ".join(name for name, value in metrics.items() if isinstance(value, float))
        raise UserError(f"claim {claim['name']}: no metric {claim['metric']}; there are {known}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # KiB on Linux
    return {**metrics, "seconds": seconds, "peak_memory_mib": peak}


def conditions_now(root: Path, claim: dict[str, Any]) -> dict[str, Any]:
    """Conditions and hardware class of a claim's training on this machine, before it starts."""
    output = run_command_of(root, "train", [*claim["arguments"], "--conditions"], capture=True)
    # The last line: the author's code may print, too.
    found: dict[str, Any] = json.loads(output.strip().rpartition("\n")[2])
    return found


def record(root: Path) -> None:
    """Train every seed of every claim and write the results."""
    recorded = {}
    for claim in read_claims(root):
        now = conditions_now(root, claim)
        # Another code or config is another folder: no half-done training of it is taken up.
        digest = sha256_json([now, claim["arguments"]])[:12]
        folder = root / "runs" / "record" / claim["name"] / digest
        seeds = {}
        for seed in claim["seeds"]:
            print(f"\nrecording {claim['name']}, seed {seed}", flush=True)
            seeds[str(seed)] = measure(root, claim, seed, folder / f"seed-{seed}")
        values = [metrics[claim["metric"]] for metrics in seeds.values()]
        hardware = get_hardware()
        recorded[claim["name"]] = {
            "text": claim["text"],
            "arguments": claim["arguments"],
            "metric": claim["metric"],
            "mean": statistics.fmean(values),
            "standard_deviation": statistics.stdev(values) if len(values) > 1 else None,
            "values": dict(zip(seeds, values, strict=True)),
            "bits": {now["hardware_class"]: {s: metrics["bits"] for s, metrics in seeds.items()}},
            "steps": {metrics["steps"] for metrics in seeds.values()}.pop(),
            "conditions": now["conditions"],
            "cost": {
                "hardware": ", ".join([hardware["cpu_model"], *hardware["gpus"]]),
                "seconds_per_seed": round(statistics.median(m["seconds"] for m in seeds.values())),
                "peak_memory_mib": round(max(m["peak_memory_mib"] for m in seeds.values())),
            },
        }
        target = root / RESULTS.parent / "figures" / claim["name"]
        first = folder / f"seed-{claim['seeds'][0]}" / "figures"
        shutil.copytree(first, target, dirs_exist_ok=True)
    publish(root, {"commit": get_git_info(root)["commit_hash"], "claims": recorded})


def publish(root: Path, results: dict[str, Any]) -> None:
    """Write results/expected_metrics.json and the marked blocks of REPRODUCE.md."""
    (root / RESULTS).write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    path = root / "REPRODUCE.md"
    path.write_text(fill_blocks(path.read_text(), blocks(root, results["claims"])))


def compare_with_recorded(
    root: Path, now: dict[str, Any], metrics: dict[str, Any], run: Path
) -> tuple[str, bool]:
    """A line that compares a whole training with the recorded one; False if they differ.

    Compared are trainings under the recorded conditions, on a recorded hardware class.
    """
    context = run / "experiment_context.json"
    then = json.loads(context.read_text()) if context.is_file() else now
    try:
        claims = read_results(root)
    except UserError:
        return "not compared: nothing is recorded yet", True
    for name, claim in claims.items():
        known = claim["bits"].get(now["hardware_class"], {}).get(str(metrics["seed"]))
        lines = [x for c in (now, then) for x in differences(claim["conditions"], c["conditions"])]
        # Where it once stopped does not matter: the number of steps is compared below.
        same = all(line.startswith("config: training.max_steps ") for line in lines)
        if same and known and metrics["step"] == claim["steps"]:
            expected = claim["values"][str(metrics["seed"])]
            if (metrics["bits"], metrics[claim["metric"]]) == (known, expected):
                return f"equal to the recorded {claim['metric']} and bits of {name}", True
            return f"DIFFERENT from {name}: {claim['metric']} {expected:.4f}, bits {known}", False
    return "not compared: nothing is recorded for these conditions, seed and steps", True


def fill_blocks(text: str, contents: dict[str, str]) -> str:
    """Replace what stands between `<!-- repro:NAME -->` and `<!-- /repro:NAME -->`."""
    for name, content in contents.items():
        pattern = rf"(<!-- repro:{name} -->\n).*?(<!-- /repro:{name} -->)"
        replacement = f"\\g<1>{content.replace(chr(92), chr(92) * 2)}\n\\g<2>"
        text = re.sub(pattern, replacement, text, flags=re.S)
    return text


def blocks(root: Path, claims: dict[str, Any]) -> dict[str, str]:
    """The measured parts of REPRODUCE.md as Markdown."""
    rows = ["| claim | command | expected | spread | seeds |", "|---|---|---|---|---|"]
    bits = [
        "| claim | hardware class | seed | value | bits (SHA-256 of the weights) |",
        "|---|---|---|---|---|",
    ]
    costs = ["| claim | hardware | time per seed | memory |", "|---|---|---|---|"]
    for name, claim in claims.items():
        command = " ".join(["python -m experiment.train", *claim["arguments"], "seed=SEED"])
        spread = claim["standard_deviation"]
        rows.append(
            f"| {claim['text']} (`{name}`) | `{command}` | {claim['metric']} {claim['mean']:.4f} | "
            f"{'one seed' if spread is None else f'± {spread:.4f} (standard deviation)'} | "
            f"{', '.join(claim['values'])} |"
        )
        for hardware, digests in claim["bits"].items():
            bits += [
                f"| `{name}` | {hardware} | {seed} | {claim['values'][seed]:.4f} | `{digest}` |"
                for seed, digest in digests.items()
            ]
        cost = claim["cost"]
        costs.append(
            f"| `{name}` | {cost['hardware']} | {cost['seconds_per_seed']} s | "
            f"{cost['peak_memory_mib']} MiB |"
        )
    lock = f"`{LOCK}` has SHA-256 `{sha256_file(root / LOCK)}`."
    results = "\n".join([*rows, "", "The trained weights:", "", *bits])
    return {"results": results, "cost": "\n".join(costs), "lock": lock}
