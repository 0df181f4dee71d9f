"""Record what a training gives, verify that it comes out again, find where two runs part.

examples:
  python -m repro record
  python -m repro verify
  python -m repro verify digits_baseline --seed 43 --require identical
  python -m repro verify --prefix 20                  the first steps only: seconds
  python -m repro verify --segments 3 --steps 20      from the author's checkpoints (archive)
  python -m repro report                              results and verdicts as a page to look at
  python -m repro diff runs/mine runs/yours --replay
  python -m repro trace-step runs/mine --step 37      writes a file to send
  python -m repro compare runs/baseline               all runs in there: mean and spread over seeds
  python -m repro compare runs/one runs/two --csv table.csv --picture curves.png
  python -m repro audit model=resnet18                which operations may vary, on CUDA too
  python -m repro archive                             all of it in one file, to publish
  python -m repro archive --with-data --output /tmp/paper.zip
  python -m repro doctor                              the checklist: before, during, after
  python -m repro doctor --environment                is each installed file what was locked?
  python -m repro doctor --quick                      the same without reading the files: seconds
  python -m repro doctor --lock                       requirements.in, lock, Dockerfile alone
  python -m repro image-digest                        has the base image's tag moved?

exit codes of verify: 0 IDENTICAL or EQUIVALENT, 1 DIFFERENT, 2 nothing to compare with
exit codes of diff: 0 identical, 1 different, 2 not comparable
exit codes of compare: 0, 1 the same conditions and seed gave other bits, 2 not comparable
exit codes of audit: 0 nothing found (but for slow operations), 1 something
exit codes of doctor: 0 nothing is wrong, 1 faults or failed points, a line each, 2 cannot look
exit codes of image-digest: 0 as pinned, 1 moved or gone, 2 the registry gives no answer
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import json
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from repro.core.command import Parser, run_command
from repro.core.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = Parser("repro", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)

    def add(run: Callable[[Namespace], int], text: str) -> Parser:
        """A command, named like its function, its help with its examples from above."""
        name = run.__name__.strip("_").replace("_", "-")
        shown = [x for x in __doc__.splitlines() if f"repro {name}" in x or f" of {name}:" in x]
        parser = commands.add_parser(name, help=text, description="\n".join([text, "", *shown]))
        parser.set_defaults(function=run)
        return parser

    text = "train every seed of configs/claims.yaml; fill results/ and REPRODUCE.md"
    record = add(_record, text)
    text = "with uncommitted changes or another environment, too"
    record.add_argument("--allow-dirty", action="store_true", help=text)
    text = "repeat a recorded training and say IDENTICAL, EQUIVALENT or DIFFERENT"
    verify = add(_verify, text)
    verify.add_argument("claim", nargs="?", help="default: the first in configs/claims.yaml")
    verify.add_argument("--seed", type=int, help="default: the first recorded one")
    part = verify.add_mutually_exclusive_group()
    part.add_argument("--prefix", type=_count, metavar="N", help="compare the first N steps only")
    text = "compare K stretches, each from one of the author's checkpoints at random"
    part.add_argument("--segments", type=_count, metavar="K", help=text)
    text = "of each stretch (default: 20)"
    verify.add_argument("--steps", type=_count, metavar="N", help=text)
    verify.add_argument("--require", choices=["identical"], help="let EQUIVALENT fail too")
    text = "write the recorded results and the verdicts to one HTML file, which needs no network"
    report = add(_report, text)
    report.add_argument("--output", type=Path, metavar="FILE", help="default: results/report.html")
    text = "say where two runs part: condition, step, quantity and, replayed, operation"
    diff = add(_diff, text)
    diff.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="a run, or a step's file")
    text = "do that step of both again: runs the code of the projects that they lie in"
    diff.add_argument("--replay", action="store_true", help=text)
    diff.add_argument("--json", action="store_true", help="print JSON instead of words")
    diff.add_argument("--picture", type=Path, help="draw both loss curves (PNG)")
    text = "do a step of a run again and write its operations to a small file, for diff"
    trace_step = add(_trace_step, text)
    trace_step.add_argument("run", type=Path, metavar="RUN")
    trace_step.add_argument("--step", type=int, required=True, help="1 is the first")
    trace_step.add_argument("--output", type=Path, help="default: RUN/step-N.json")
    trace_step.add_argument("--values", type=int, metavar="K", help="keep operation K's outputs")
    text = "metrics of several runs, mean and spread over seeds, with the conditions that differ"
    compare = add(_compare, text)
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="or a folder of runs")
    compare.add_argument("--json", action="store_true", help="print JSON instead of a table")
    compare.add_argument("--csv", type=Path, metavar="FILE", help="write the table, a line a group")
    compare.add_argument("--picture", type=Path, metavar="FILE", help="draw validation (PNG)")
    text = "list the operations of one step that may vary, and randomness that nothing seeds"
    audit = add(_audit, text)
    audit.add_argument("settings", nargs="*", metavar="key=value")
    audit.add_argument("--json", action="store_true", help="print JSON instead of words")
    text = "pack code, lock, runs, results and metadata (RO-Crate) into one file"
    archive = add(_archive, text)
    text = "default: <project>-<commit>.zip in the project"
    archive.add_argument("--output", type=Path, metavar="FILE", help=text)
    archive.add_argument("--with-data", action="store_true", help="the data too, not only digests")
    text = "pack the commit and what is not committed as a patch"
    archive.add_argument("--allow-dirty", action="store_true", help=text)
    text = "go through the checklist: before, during and after the training"
    doctor = add(_doctor, text)
    doctor.add_argument("--json", action="store_true", help="print JSON instead of words")
    part = doctor.add_mutually_exclusive_group()
    text = "only compare packages and their files with the lock, name what comes from outside"
    part.add_argument("--environment", action="store_true", help=text)
    text = "the same by the sizes of files, not their digests"
    part.add_argument("--quick", action="store_true", help=text)
    text = "only what the project's files and the installed versions tell"
    part.add_argument("--lock", action="store_true", help=text)
    text = "ask the registry whether the base image's tag has the digest that the Dockerfile pins"
    add(_image_digest, text)
    arguments = parser.parse_args()
    return int(arguments.function(arguments))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text}: expected a whole number from 1 on")
    return int(text)


# Each command imports what it needs: --help is instant.


def _record(arguments: Namespace) -> int:
    from repro.results.record import record

    record(ROOT, arguments.allow_dirty)
    return 0


def _verify(arguments: Namespace) -> int:
    from repro.results.verify import DIFFERENT, IDENTICAL, verify

    a = arguments
    if a.steps and not a.segments:
        raise UserError("--steps is for --segments: expected --segments K --steps N, or --prefix N")
    verdict = verify(ROOT, a.claim, a.seed, a.prefix, a.segments, a.steps or 20).verdict
    print(f"\n{verdict}")
    strict = arguments.require == "identical"
    return 1 if verdict == DIFFERENT or (strict and verdict != IDENTICAL) else 0


def _report(arguments: Namespace) -> int:
    from repro.results.report import write

    print(f"written: {write(ROOT, arguments.output)}")
    return 0


def _diff(arguments: Namespace) -> int:
    from repro.diagnosis import diff, explain, replay_pair

    runs = arguments.runs[0].resolve(), arguments.runs[1].resolve()
    if all(run.is_file() for run in runs):
        if arguments.picture or arguments.replay:
            raise UserError("two files of a step have no curves and need no replay: leave it out")
        comparison = diff.compare_steps(*runs)
    else:
        comparison = diff.compare_traces(*runs)
        if arguments.replay and comparison.parting:
            replayed = replay_pair.replay_both(runs, comparison.parting.step)
            comparison = replace(comparison, replayed=replayed)
        if arguments.picture:
            from repro.runs.figures import draw_parting

            step = comparison.parting.step if comparison.parting else None
            draw_parting(arguments.picture, runs, step)
    if arguments.json:
        print(json.dumps(comparison.as_json(), indent=1))
    else:
        explain.print_difference(comparison, (str(arguments.runs[0]), str(arguments.runs[1])))
        if arguments.picture:
            print(f"picture: {arguments.picture}")
    return 1 if comparison.parting else 0


def _trace_step(arguments: Namespace) -> int:
    from repro.diagnosis import replay, step_file

    run = arguments.run.resolve()
    if arguments.step < 0:
        raise UserError(f"--step {arguments.step}: 0 is before training, 1 the first step")
    record = replay.trace_step(ROOT, run, arguments.step, arguments.values)
    path = arguments.output or run / f"step-{arguments.step}.json"
    step_file.write_step(record, path)
    print(f"{len(record.operations)} operations of step {arguments.step}: {path}")
    return 0


def _compare(arguments: Namespace) -> int:
    from repro.runs.compare import compare_runs, print_comparison, write_csv

    compared = compare_runs(arguments.runs)
    if arguments.picture:
        from repro.runs.figures import draw_groups

        draw_groups(arguments.picture, compared.groups)
    if arguments.csv:
        write_csv(compared, arguments.csv)
    if arguments.json:
        print(json.dumps(compared.as_json(), indent=1))
    else:
        print_comparison(compared)
    return 0 if compared.equal_bits else 1


def _audit(arguments: Namespace) -> int:
    from repro.core.layout import USER_CODE
    from repro.diagnosis.audit import SLOWER, audit, print_findings
    from repro.diagnosis.unseeded import find_unseeded

    operations = audit(ROOT, arguments.settings)
    sources = find_unseeded(ROOT, USER_CODE)
    if arguments.json:
        told = {
            "operations": [asdict(operation) for operation in operations],
            "sources": [asdict(finding) for finding in sources],
        }
        print(json.dumps(told, indent=1))
    else:
        print_findings(operations, sources)
    return 1 if sources or any(each.kind != SLOWER for each in operations) else 0


def _archive(arguments: Namespace) -> int:
    from repro.core.hashing import sha256_file
    from repro.results.archive import archive

    path = archive(ROOT, arguments.output, arguments.with_data, arguments.allow_dirty)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256_file(path)}")
    return 0


def _doctor(arguments: Namespace) -> int:
    if arguments.environment or arguments.quick or arguments.lock:
        from repro.environment.packages import doctor

        return doctor(ROOT, arguments.quick, arguments.lock)
    from repro.results.checklist import checklist

    return checklist(ROOT, arguments.json)


def _image_digest(arguments: Namespace) -> int:
    from repro.environment.base_image import compare_digest

    return compare_digest(ROOT)


if __name__ == "__main__":
    sys.exit(run_command(main))
