"""Record what a training gives, and verify that it comes out again.

examples:
  python -m repro record
  python -m repro verify
  python -m repro verify digits_baseline --seed 43 --require identical

exit codes of verify: 0 IDENTICAL or EQUIVALENT, 1 DIFFERENT, 2 nothing to compare with
"""

import sys
from pathlib import Path

from repro.command import Parser, run_command

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = Parser("repro", __doc__)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="record|verify", parser_class=Parser
    )
    text = "train every seed of configs/claims.yaml; fill results/ and REPRODUCE.md"
    commands.add_parser("record", help=text, description=text)
    text = "repeat a recorded training and say IDENTICAL, EQUIVALENT or DIFFERENT"
    verify = commands.add_parser("verify", help=text, description=text)
    verify.add_argument("claim", nargs="?", help="default: the first in configs/claims.yaml")
    verify.add_argument("--seed", type=int, help="default: the first recorded one")
    verify.add_argument("--require", choices=["identical"], help="let EQUIVALENT fail too")
    arguments = parser.parse_args()
    if arguments.command == "record":
        from repro.record import record  # each command imports what it needs: --help is instant

        record(ROOT)
        return 0
    from repro.verify import DIFFERENT, IDENTICAL
    from repro.verify import verify as verify_claim

    verdict = verify_claim(ROOT, arguments.claim, arguments.seed)
    print(f"\n{verdict}")
    strict = arguments.require == "identical"
    return 1 if verdict == DIFFERENT or (strict and verdict != IDENTICAL) else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
