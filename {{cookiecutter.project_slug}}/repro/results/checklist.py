"""Execute the checklist of a reproducible result: before, during and after the training.

Promises a line for each point: it passes; it fails, with what to do; or it was not checked, with
the reason. Nothing is trained and nothing is written. What can be looked up is looked up, not
asked: the config that the claims train with, git, the newest run, the newest verdict, the archive.
"""

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path

from repro.core.errors import UserError
from repro.results.questions import FAIL, OPEN, PASS, QUESTIONS, Answer, Question


@dataclass
class Point:
    """A line of the checklist; `details`: what it rests on, a line each."""

    when: str
    what: str
    state: str
    words: str
    details: list[str] = field(default_factory=list)


def checklist(root: Path, as_json: bool = False) -> int:
    """Print the checklist and return the exit code: 1 if a point fails, else 0."""
    with redirect_stdout(sys.stderr):  # bars, and what the author's code prints
        points = [answer(root, question) for question in QUESTIONS]
    if as_json:
        print(json.dumps([asdict(point) for point in points], indent=1))
    else:
        _print_points(points)
    return 1 if any(point.state == FAIL for point in points) else 0


def _print_points(points: list[Point]) -> None:
    when = ""
    for point in points:
        if point.when != when:
            when = point.when
            print(f"{when} the training")
        print(f"  {point.state:12} {point.what}: {point.words}")
        for line in point.details:
            print(f"  {'':12} {line}")
    states = [point.state for point in points]
    print(", ".join(f"{states.count(state)} {state}" for state in (PASS, FAIL, OPEN)))


def answer(root: Path, question: Question) -> Point:
    """Answer a question; what it needs and cannot have is the answer, too."""
    try:
        reply = question.ask(root)
    except UserError as error:
        reply = Answer(FAIL, error.lines[0])
    except ImportError as error:
        reply = Answer(OPEN, f"{error.name} is not installed: make setup")
    return Point(question.when, question.what, reply.state, reply.words, [*reply.details])
