"""Compare today's included results with those of an earlier commit: which keys of the JSON differ.

    python tools/compare_results.py COMMIT

A change that keeps the bits changes the digests of the code, the commit and the cost, and nothing
else. Exit code 0 if that is so, 1 if anything else differs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path("templates") / "tasks"  # a file for each task
NAME = Path("results") / "expected_metrics.json"
BEFORE = Path("templates") / "results" / "none.json"  # where that of images was
EXPECTED = ("commit", "conditions.code", "cost")  # of the recording, and of each claim


def main() -> int:
    if len(sys.argv) != 2:
        print("compare_results: expected one commit, e.g. HEAD~1", file=sys.stderr)
        return 2
    commit = sys.argv[1]
    only_expected = True
    for path in sorted((ROOT / RESULTS).glob(f"*/{NAME}")):
        task = path.relative_to(ROOT / RESULTS).parts[0]
        earlier = text_of(commit, path.relative_to(ROOT))
        if earlier is None and task == "images":
            earlier = text_of(commit, BEFORE)
        if earlier is None:
            print(f"{task}: {commit} has no results of it")
            continue
        keys = differing_keys(json.loads(earlier), json.loads(path.read_text("utf-8")))
        print(f"{task}: {len(keys)} keys differ")
        for group, number in grouped(keys).items():
            note = "" if group in EXPECTED else "  UNEXPECTED"
            print(f"  {group} ({number}){note}")
            only_expected = only_expected and not note
    print(
        f"expected: {', '.join(EXPECTED)}; {'nothing' if only_expected else 'more'} differs beside"
    )
    return 0 if only_expected else 1


def text_of(commit: str, path: Path) -> str | None:
    """Return a file as it was in a commit; None if it was not there."""
    shown = subprocess.run(
        ["git", "show", f"{commit}:{path.as_posix()}"], cwd=ROOT, capture_output=True, text=True
    )
    return shown.stdout if shown.returncode == 0 else None


def differing_keys(earlier: object, today: object) -> list[tuple[str, ...]]:
    """Return the paths of keys whose values differ, or which one of the two objects lacks."""
    if earlier == today:
        return []
    if not isinstance(earlier, dict) or not isinstance(today, dict):
        return [()]
    missing = object()
    return [
        (key, *below)
        for key in sorted(earlier.keys() | today.keys())
        for below in differing_keys(earlier.get(key, missing), today.get(key, missing))
    ]


def grouped(keys: list[tuple[str, ...]]) -> dict[str, int]:
    """Count the keys by what they are about, whichever claim they belong to."""
    numbers: dict[str, int] = {}
    for key in keys:
        group = group_of(key)
        numbers[group] = numbers.get(group, 0) + 1
    return numbers


def group_of(key: tuple[str, ...]) -> str:
    """Return the key below a claim's name; of the conditions also which one it is."""
    below = key[2:] if key[0] == "claims" else key
    return ".".join(below[:2] if below[:1] == ("conditions",) else below[:1])


if __name__ == "__main__":
    sys.exit(main())
