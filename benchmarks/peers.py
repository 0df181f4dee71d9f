"""Measure the kit's loop beside plain PyTorch, Lightning, accelerate and Hugging Face's Trainer.

    python benchmarks/peers.py [options] TASK=PROJECT [TASK=PROJECT ...]

Every loop trains the same model on the same data in a process of its own. The processes train in
turn, a stretch each, so that a machine whose speed drifts slows all of them; they are started anew
several times, because where a model lies in memory makes a percent or two. Printed is the part of
docs/benchmarks.md between its two marks, in Markdown; `--write` puts it there. Exit code 1: a ratio
misses its bound (benchmarks/bounds.toml) by more than its spread. `make bench-peers` runs it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spread import BOUNDS, Spread, missed, ratios, read_bounds, spread_of

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
MARKS = ("<!-- figures of make bench-peers -->", "<!-- end of the figures -->")
WORDS = {
    "plain": "plain PyTorch",
    "accelerate": "accelerate",
    "ours": "ours, no trace",
    "traced": "ours, traced",
    "duties": "ours, equal duties",
    "lightning": "Lightning",
    "hugging_face": "Hugging Face Trainer",
}
# Beside what the throughput of a loop is given, where that is not the plain one.
FRAMEWORK = {"images": "lightning", "text": "hugging_face"}


@dataclass(frozen=True)
class Task:
    """How a task is trained: its loops, the settings of all, the steps of a stretch."""

    loops: tuple[str, ...]
    settings: tuple[str, ...]
    steps: int


TASKS = {
    "images": Task(
        ("plain", "ours", "traced", "accelerate", "duties", "lightning"),
        ("training.warmup_epochs=0",),
        steps=80,
    ),
    "text": Task(
        ("plain", "ours", "traced", "accelerate", "duties", "hugging_face"),
        ("training.warmup_steps=0",),
        steps=50,
    ),
}


@dataclass
class Taken:
    """What a loop took: seconds and processor time by stretch, MiB of memory by start."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)


class Peer:
    """A process that trains a stretch when it is told to."""

    def __init__(self, command: list[str]) -> None:
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - `close` closes it
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True
        )

    def stretch(self) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.fail()

    def answer(self) -> dict[str, float]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.fail()
        return dict(json.loads(line))

    def fail(self) -> None:
        self.process.wait()
        self.said.seek(0)
        words = [str(word) for word in self.process.args]  # type: ignore[union-attr]
        raise SystemExit(f"{self.said.read()}error: {' '.join(words)} has failed, see above")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.said):
            if stream:
                with suppress(BrokenPipeError):  # a line that a dead process did not read
                    stream.close()


@contextmanager
def peers(commands: dict[str, list[str]]) -> Iterator[dict[str, Peer]]:
    """Start the processes, and end them whatever happens."""
    with ExitStack() as stack:
        started: dict[str, Peer] = {}
        for name, command in commands.items():
            started[name] = Peer(command)
            stack.callback(started[name].close)
        yield started


def turns(names: list[str], stretch: int) -> list[str]:
    """Return the order of a round: each time another one is the first."""
    first = stretch % len(names)
    return names[first:] + names[:first]


def measure(commands: dict[str, list[str]], stretches: int, taken: dict[str, Taken]) -> None:
    """Let the processes train in turn; the first stretch of each is not counted."""
    with peers(commands) as started:
        for stretch in range(stretches + 1):
            for name in turns(list(started), stretch):
                started[name].stretch()
                found = started[name].answer()
                if stretch:
                    taken[name].seconds.append(found["seconds"])
                    taken[name].processor.append(found["processor"])
        for name, peer in started.items():
            taken[name].peak.append(peer.answer()["peak"])


def measured(task: Task, project: Path, arguments: argparse.Namespace) -> dict[str, Taken]:
    """Return what each loop took in `arguments.rounds` stretches."""
    loops = [name for name in task.loops if name in arguments.only]
    steps = arguments.steps or task.steps
    taken = {name: Taken() for name in loops}
    left = arguments.rounds
    for start in range(arguments.starts):
        stretches = left // (arguments.starts - start)
        left -= stretches
        if not stretches:
            continue
        program = [sys.executable, str(HERE / "peer.py"), str(project)]
        numbers = [str(stretches + 1), str(steps)]
        commands = {name: [*program, name, *numbers, *task.settings] for name in loops}
        measure(commands, stretches, taken)
    return taken


def found_ratios(name: str, taken: dict[str, Taken]) -> dict[str, Spread]:
    """Return the ratios that have bounds, by the words of the table."""
    found = {
        loop: ratios(taken["plain"].seconds, taken[loop].seconds)
        for loop in ("ours", "traced")
        if {"plain", loop} <= taken.keys()
    }
    framework = FRAMEWORK[name]
    if {"duties", framework} <= taken.keys():
        own = taken["duties"].seconds
        found["ours, equal duties"] = ratios(taken[framework].seconds, own)
    return found


def table(name: str, taken: dict[str, Taken], steps: int) -> Iterator[str]:
    """Yield the lines of a task's table."""
    yield "| loop | ms a step | throughput, plain = 1 | processor time, plain = 1 | peak, MiB |"
    yield "|---|---|---|---|---|"
    for loop, each in taken.items():
        milliseconds = spread_of([1000 * value / steps for value in each.seconds])
        cells = [WORDS[loop], f"{milliseconds:.2f}", "", "", f"{max(each.peak):.0f}"]
        if "plain" in taken:
            plain = taken["plain"]
            cells[2] = f"{ratios(plain.seconds, each.seconds)}"
            # The other way round: what it costs, not what it yields.
            cells[3] = f"{ratios(each.processor, plain.processor)}"
        yield f"| {' | '.join(cells)} |"
    duties = found_ratios(name, taken).get("ours, equal duties")
    if duties:
        other = WORDS[FRAMEWORK[name]]
        yield ""
        yield f"Ours with equal duties has {duties} times the throughput of {other}."


def checkpoints(project: Path, rounds: int) -> str:
    """Return the table of benchmarks/checkpoints.py."""
    program = [
        sys.executable,
        HERE / "checkpoints.py",
        project,
        str(rounds),
        HERE.parent / ".build",
    ]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"error: {program[1]} has failed, see above")
    return done.stdout.strip()


def surroundings(arguments: argparse.Namespace) -> str:
    """Say on what was measured, and how busy it was."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = []
    for package in ("torch", "lightning", "accelerate", "transformers"):
        packages.append(f"{package} {version(package)}" if has(package) else f"no {package}")
    steps = (
        f"{arguments.steps} steps"
        if arguments.steps
        else "{} steps".format(" or ".join(str(task.steps) for task in TASKS.values()))
    )
    return (
        f"Measured on {date.today()}: {models[0] if models else 'an unknown CPU'}, "
        f"{os.cpu_count()} cores, one thread; {', '.join(packages)}. Each figure is the median of "
        f"{arguments.rounds} stretches of {steps}, with its quartiles; the processes were started "
        f"{arguments.starts} times. Load of the machine before and after: "
    )


def has(package: str) -> bool:
    try:
        version(package)
    except ModuleNotFoundError:
        return False
    return True


def write_page(page: Path, figures: str) -> None:
    """Put the figures between the marks of the page."""
    text = page.read_text(encoding="utf-8")
    before, start, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (start and end):
        raise SystemExit(f"error: {page} lacks its marks: expected {' and '.join(MARKS)}")
    page.write_text(f"{before}{start}\n\n{figures}\n\n{end}{after}", encoding="utf-8")


def arguments_from(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("projects", nargs="+", metavar="TASK=PROJECT")
    parser.add_argument("--rounds", type=int, default=9, help="stretches of each loop (9)")
    parser.add_argument("--starts", type=int, default=3, help="how often all start anew (3)")
    parser.add_argument("--steps", type=int, help="steps of a stretch, instead of the task's own")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(WORDS))
    parser.add_argument("--checkpoints", action="store_true", help="and what saving one takes")
    parser.add_argument("--bounds", type=Path, default=BOUNDS)
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    parser.add_argument("--page", type=Path, default=PAGE)
    found = parser.parse_args(words)
    if found.rounds < 1 or found.starts < 1:
        parser.error("--rounds and --starts should be at least 1")
    if unknown := [name for name in found.only if name not in WORDS]:
        parser.error(f"--only: {', '.join(unknown)}: expected some of {', '.join(WORDS)}")
    for word in found.projects:
        if word.partition("=")[0] not in TASKS:
            parser.error(f"{word}: expected TASK=PROJECT, where TASK is {' or '.join(TASKS)}")
    return found


def main(words: list[str] | None = None) -> int:
    arguments = arguments_from(sys.argv[1:] if words is None else words)
    bounds: dict[str, Any] = read_bounds(arguments.bounds)
    load = os.getloadavg()[0]
    lines: list[str] = []
    faults: list[str] = []
    for word in arguments.projects:
        name, _, project = word.partition("=")
        taken = measured(TASKS[name], Path(project), arguments)
        lines += ["", f"### {name}", ""]
        lines += table(name, taken, arguments.steps or TASKS[name].steps)
        found = found_ratios(name, taken)
        faults += [f"{name}: {line}" for line in missed(found, bounds.get(name, {}))]
    if arguments.checkpoints:
        project = arguments.projects[0].partition("=")[2]
        lines += ["", "### Checkpoints", "", checkpoints(Path(project), arguments.rounds)]
    loads = f"{load:.1f} and {os.getloadavg()[0]:.1f}."
    figures = "\n".join([surroundings(arguments) + loads, *lines])
    print(figures, flush=True)
    if arguments.write:
        write_page(arguments.page, figures)
    for line in faults:
        print(f"error: {line}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
