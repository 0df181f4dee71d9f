"""Run the commands of `python -m repro`, which `repro/__main__.py` reads the arguments of.

Each function imports what it needs, so that `--help` is instant, and returns the exit code.
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import json
from argparse import Namespace
from pathlib import Path

from repro.core.errors import UserError
from repro.core.launch import is_first
from repro.core.special_files import resolved

ROOT = Path(__file__).resolve().parent.parent


def record_command(arguments: Namespace) -> int:
    from repro.results.record import record

    record(ROOT, arguments.allow_dirty)
    return 0


def verify_command(arguments: Namespace) -> int:
    from contextlib import nullcontext

    from repro.core.streams import printing_aside
    from repro.results.pasted import paste, refuse_place
    from repro.results.quick import first_minute, outcome
    from repro.results.verdict import DIFFERENT, IDENTICAL
    from repro.results.verify import Extent, verify

    if arguments.steps and not arguments.segments:
        raise UserError("--steps is for --segments: expected --segments K --steps N, or --prefix N")
    steps = arguments.steps or 20
    prefix = first_minute(ROOT, arguments.claim) if arguments.quick else arguments.prefix
    part = Extent(prefix, arguments.segments, steps, arguments.check == "full")
    refuse_place(arguments.markdown)  # before a training that takes hours
    with printing_aside() if arguments.markdown == "-" else nullcontext():
        found = verify(ROOT, arguments.claim, arguments.seed, part)
        print(f"\n{outcome(ROOT, found) if arguments.quick else found.verdict}")
    if arguments.markdown:
        paste(ROOT, found, arguments.markdown)
    if arguments.require == "identical":
        return 0 if found.verdict == IDENTICAL else 1
    return 1 if found.verdict == DIFFERENT else 0


def report_command(arguments: Namespace) -> int:
    from repro.results.report import write_report
    from repro.results.reported import REPORTED, keep_verdicts, read_reported

    for kept in keep_verdicts(ROOT, arguments.verdicts or []):
        print(f"{'kept' if kept.is_new else 'known already'}: {kept.path}")
    for line in read_reported(ROOT).left_out:
        print(f"warning: {line}")
    print(f"written: {write_report(ROOT, arguments.output)}")
    if arguments.verdicts:
        print(f"commit {REPORTED}/ with the results: the page shows them as reported, not checked")
    return 0


def diff_command(arguments: Namespace) -> int:
    from dataclasses import replace

    from repro.core.files import json_text
    from repro.diagnosis import diff, explain, replay_pair

    runs = resolved(arguments.runs[0]), resolved(arguments.runs[1])
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
        print(json_text(comparison.as_json()))
    else:
        explain.print_difference(comparison, (str(arguments.runs[0]), str(arguments.runs[1])))
        if arguments.picture:
            print(f"picture: {arguments.picture}")
    return 0 if comparison.is_identical else 1


def trace_step_command(arguments: Namespace) -> int:
    from repro.diagnosis import replay, step_file

    run = resolved(arguments.run)
    if arguments.step < 0:
        raise UserError(f"--step {arguments.step}: 0 is before training, 1 the first step")
    record = replay.trace_step(ROOT, run, arguments.step, arguments.values)
    if not is_first():
        return 0
    path = arguments.output or run / f"step-{arguments.step}.json"
    step_file.write_step(record, path)
    print(f"{len(record.operations)} operations of step {arguments.step}: {path}")
    return 0


def compare_command(arguments: Namespace) -> int:
    from repro.core.files import json_text
    from repro.runs.compare import compare_runs, print_comparison, write_csv

    compared = compare_runs(arguments.runs)
    if arguments.picture:
        from repro.runs.figures import draw_groups

        draw_groups(arguments.picture, compared.groups)
    if arguments.csv:
        write_csv(compared, arguments.csv)
    if arguments.json:
        print(json_text(compared.as_json()))
    else:
        print_comparison(compared)
    return 0 if compared.equal_bits and compared.equal_metrics else 1


def audit_command(arguments: Namespace) -> int:
    from dataclasses import asdict

    from repro.core.layout import USER_CODE
    from repro.diagnosis.audit import audit, print_findings
    from repro.diagnosis.unseeded import find_unseeded

    audited = audit(ROOT, arguments.settings)
    sources = find_unseeded(ROOT, USER_CODE)
    if arguments.json:
        told = {
            **asdict(audited),
            "sums": [difference._asdict() for difference in audited.sums],
            "sources": [asdict(finding) for finding in sources],
        }
        print(json.dumps(told, indent=1))
    else:
        print_findings(audited, sources)
    return 1 if sources or audited.sums or audited.may_change_bits() else 0


def archive_command(arguments: Namespace) -> int:
    from repro.core.hashing import sha256_file
    from repro.publishing.archive import archive

    if arguments.keep and not arguments.anonymous:
        raise UserError("--keep is for --anonymous: expected both")
    path = archive(
        ROOT,
        arguments.output,
        arguments.with_data,
        arguments.allow_dirty,
        anonymous=arguments.anonymous,
        kept=arguments.keep,
        limit=arguments.limit,
    )
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256_file(path)}")
    return 0


def papers_command(arguments: Namespace) -> int:
    from repro.publishing.papers_here import write_papers

    for line in write_papers(ROOT, arguments.folder):
        print(line)
    return 0


def doctor_command(arguments: Namespace) -> int:
    if arguments.environment or arguments.quick or arguments.lock:
        from repro.environment.packages import doctor

        return doctor(ROOT, arguments.quick, arguments.lock)
    from repro.results.checklist import checklist

    return checklist(ROOT, arguments.json)


def image_digest_command(arguments: Namespace) -> int:
    from repro.environment.base_image import compare_digest

    return compare_digest(ROOT, arguments.platform)


def mark_lock_command(arguments: Namespace) -> int:
    from repro.environment.mark_lock import mark_lock

    mark_lock(ROOT, arguments.name, arguments.options)
    return 0


def migrate_command(arguments: Namespace) -> int:
    from repro.core.migrate import lines_of, migrate

    result = migrate(ROOT)
    for line in lines_of(result, ROOT):
        print(line)
    return 1 if result.left else 0
