"""Record what a training gives, verify that it can be reproduced, find where two runs part.

examples:
  python -m repro record
  python -m repro verify
  python -m repro verify digits_baseline --seed 43 --require identical
  python -m repro verify --prefix 20                  only the first steps: takes seconds
  python -m repro verify --quick                      about a minute: PREFIX AGREES, no verdict
  python -m repro verify --markdown -                 the verdict, to paste into a review
  python -m repro verify --segments 3 --steps 20      from the author's checkpoints (archive)
  python -m repro verify --check full                 with every sample of large data, read once
  python -m repro report                              the results and verdicts as a page
  python -m repro report --verdicts a.json b.json     with what others' verify wrote (verdict.json)
  python -m repro diff runs/mine runs/yours --replay
  python -m repro trace-step runs/mine --step 37      writes a file to send
  python -m repro compare runs/baseline               all runs there: mean and spread over seeds
  python -m repro compare runs/one runs/two --csv table.csv --picture curves.svg
  python -m repro audit model=resnet18                which operations may vary, on CUDA too
  python -m repro archive                             everything in one file, to publish
  python -m repro archive --with-data --output /tmp/paper.zip
  python -m repro papers                              what reviewers ask for, to look at first
  python -m repro archive --anonymous --limit 100MB   for double-blind review
  python -m repro doctor                              the checklist: before, during, after
  python -m repro doctor --environment                is each installed file as it was locked?
  python -m repro doctor --quick                      the same by file sizes: takes seconds
  python -m repro doctor --lock                       only requirements.in, lock and Dockerfile
  python -m repro image-digest                        has the base image's tag moved?
  python -m repro image-digest --platform linux/arm64    and is the image for ARM?
  python -m repro migrate                             after cruft update: your imports follow

exit codes of verify: 0 IDENTICAL or EQUIVALENT, 1 DIFFERENT, 2 there is nothing to compare with
exit codes of diff: 0 identical, 1 other steps or metrics, 2 the runs cannot be compared
exit codes of compare: 0 compared, 1 same seed: other bits or metrics, 2 the runs cannot be compared
exit codes of audit: 0 it found at most slow operations, 1 it found something else
exit codes of doctor: 0 nothing is wrong, 1 faults or failed points, a line each, 2 cannot look
exit codes of image-digest: 0 as pinned, 1 moved, gone or for another platform, 2 no answer
exit codes of migrate: 0 all imports are today's, 1 some lines are left for you
exit codes of all: 2 also where the output cannot be written, 141 nobody reads it on, 70 a bug
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import sys

if not __package__:  # as a file, which does not find the kit
    print("error: started as a file: expected python -m repro", file=sys.stderr)
    sys.exit(2)

from argparse import REMAINDER, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from repro import commands as run
from repro.core.command import Parser, run_command

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    Commands = _SubParsersAction[Parser]

_JSON = "print JSON instead of words; NaN and Infinity are strings in it"


def main() -> int:
    parser = Parser("repro", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    for add_command in (
        _add_record,
        _add_verify,
        _add_report,
        _add_diff,
        _add_trace_step,
        _add_compare,
        _add_audit,
        _add_archive,
        _add_papers,
        _add_doctor,
        _add_image_digest,
        _add_mark_lock,
        _add_migrate,
    ):
        add_command(commands)
    arguments = parser.parse_args()
    return int(arguments.function(arguments))


def _add(commands: Commands, function: Callable[[Namespace], int], summary: str) -> Parser:
    """Add a command that is named like its function; its help shows its examples from above."""
    name = function.__name__.removesuffix("_command").replace("_", "-")
    shown = [
        line
        for line in (__doc__ or "").splitlines()
        if f"repro {name}" in line or f" of {name}:" in line
    ]
    description = "\n".join([summary, "", *shown])
    parser: Parser = commands.add_parser(name, help=summary, description=description)
    parser.set_defaults(function=function)
    return parser


def _add_record(commands: Commands) -> None:
    summary = "train every seed of configs/claims.yaml, and fill results/ and REPRODUCE.md"
    parser = _add(commands, run.record_command, summary)
    dirty = "record even with uncommitted changes or another environment than the lock's"
    parser.add_argument("--allow-dirty", action="store_true", help=dirty)


def _add_verify(commands: Commands) -> None:
    summary = "repeat a recorded training and say IDENTICAL, EQUIVALENT or DIFFERENT"
    parser = _add(commands, run.verify_command, summary)
    parser.add_argument("claim", nargs="?", help="default: the first one in configs/claims.yaml")
    parser.add_argument("--seed", type=int, help="default: the first recorded one")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--prefix", type=_count, metavar="N", help="compare the first N steps only")
    quick = "compare as many first steps as take about a minute: PREFIX AGREES or PREFIX DIFFERS"
    part.add_argument("--quick", action="store_true", help=quick)
    segments = "compare K segments, each from one of the author's checkpoints, chosen at random"
    part.add_argument("--segments", type=_count, metavar="K", help=segments)
    steps = "the number of steps of each segment (default: 20)"
    parser.add_argument("--steps", type=_count, metavar="N", help=steps)
    parser.add_argument("--require", choices=["identical"], help="let EQUIVALENT fail, too")
    check = "read every sample of tar files first; a training checks those that it reads"
    parser.add_argument("--check", choices=["full"], help=check)
    pasted = "write the verdict as a few lines of Markdown; -: print them, and all else on stderr"
    parser.add_argument("--markdown", metavar="FILE", help=pasted)


def _add_report(commands: Commands) -> None:
    summary = "write the recorded results and the verdicts to one HTML file that needs no network"
    parser = _add(commands, run.report_command, summary)
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: results/report.html")
    verdicts = "keep others' verdict.json in results/verdicts/, and show them as reported"
    parser.add_argument("--verdicts", nargs="+", type=Path, metavar="FILE", help=verdicts)


def _add_diff(commands: Commands) -> None:
    summary = "say where two runs part: condition, step, quantity, metric; --replay: operation"
    parser = _add(commands, run.diff_command, summary)
    runs = "the folder of a run, or the file of a step"
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN", help=runs)
    replay = "repeat that step of both runs: this runs the code of the projects that they lie in"
    parser.add_argument("--replay", action="store_true", help=replay)
    parser.add_argument("--json", action="store_true", help=_JSON)
    parser.add_argument("--picture", type=_svg, metavar="FILE.svg", help="draw both loss curves")


def _add_trace_step(commands: Commands) -> None:
    summary = "repeat a step of a run and write its operations to a small file, for diff"
    parser = _add(commands, run.trace_step_command, summary)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--step", type=int, required=True, help="1 is the first step")
    parser.add_argument("--output", type=Path, help="default: RUN/step-N.json")
    values = "keep the values that operation K gave"
    parser.add_argument("--values", type=int, metavar="K", help=values)


def _add_compare(commands: Commands) -> None:
    summary = "show the metrics of several runs over their seeds, and the conditions that differ"
    parser = _add(commands, run.compare_command, summary)
    runs = "a run, or a folder of runs"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=runs)
    parser.add_argument("--json", action="store_true", help=_JSON)
    table = "write the table, one line for each group"
    parser.add_argument("--csv", type=Path, metavar="FILE", help=table)
    curves = "draw the validation curves"
    parser.add_argument("--picture", type=_svg, metavar="FILE.svg", help=curves)


def _add_audit(commands: Commands) -> None:
    summary = "list operations of a step and of evaluation that may vary, and unseeded randomness"
    parser = _add(commands, run.audit_command, summary)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--json", action="store_true", help="print JSON instead of words")


def _add_archive(commands: Commands) -> None:
    summary = "pack code, lock, runs, results and metadata (RO-Crate) into one file"
    parser = _add(commands, run.archive_command, summary)
    output = "default: <project>-<commit>.zip in the project"
    parser.add_argument("--output", type=Path, metavar="FILE", help=output)
    data = "pack the data, too, and not only their digests"
    parser.add_argument("--with-data", action="store_true", help=data)
    dirty = "pack the commit, and what is not committed as a patch"
    parser.add_argument("--allow-dirty", action="store_true", help=dirty)
    anonymous = "for double-blind review: take out who made it, or refuse where that changes bits"
    parser.add_argument("--anonymous", action="store_true", help=anonymous)
    keep = "a word that is no identity, though it looks like one; may be given several times"
    parser.add_argument("--keep", action="append", default=[], metavar="WORD", help=keep)
    limit = "leave out checkpoints, then traces, then runs, until the file has this size: 100MB"
    parser.add_argument("--limit", type=_size, metavar="SIZE", help=limit)


def _add_papers(commands: Commands) -> None:
    summary = "write the papers for reviewers that an archive has, to look at them before"
    parser = _add(commands, run.papers_command, summary)
    parser.add_argument("folder", nargs="?", type=Path, help="default: runs/papers")


def _add_doctor(commands: Commands) -> None:
    summary = "go through the checklist: before, during and after the training"
    parser = _add(commands, run.doctor_command, summary)
    parser.add_argument("--json", action="store_true", help="print JSON instead of words")
    part = parser.add_mutually_exclusive_group()
    environment = "only compare the packages and their files with the lock, and name what leaks in"
    part.add_argument("--environment", action="store_true", help=environment)
    quick = "the same, but compare the sizes of files and not their digests"
    part.add_argument("--quick", action="store_true", help=quick)
    lock = "only compare the project's files and the installed versions with each other"
    part.add_argument("--lock", action="store_true", help=lock)


def _add_image_digest(commands: Commands) -> None:
    summary = "ask the registry whether the base image's tag has the digest in the Dockerfile"
    parser = _add(commands, run.image_digest_command, summary)
    wanted = "fail unless the pinned image is for it, such as linux/arm64"
    parser.add_argument("--platform", default="", metavar="OS/CPU", help=wanted)


def _add_mark_lock(commands: Commands) -> None:
    summary = "write a lock's markers: for which platforms its packages are (make lock does it)"
    parser = _add(commands, run.mark_lock_command, summary)
    parser.add_argument("name", help="NAME.lock is made of NAME.in and NAME.unmarked")
    options = "those of pip-compile that name an index"
    parser.add_argument("options", nargs=REMAINDER, help=options)


def _add_migrate(commands: Commands) -> None:
    summary = "rewrite your imports of the kit after `cruft update` has moved its modules"
    _add(commands, run.migrate_command, summary)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text}: expected a whole number from 1 on")
    return int(text)


def _size(text: str) -> int:
    from repro.publishing.limit import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def _svg(text: str) -> Path:
    if not text.lower().endswith(".svg"):
        raise ArgumentTypeError(f"{text}: expected the name of an SVG file: FILE.svg")
    return Path(text)


if __name__ == "__main__":
    sys.exit(run_command(main))
