"""Record what two commands of a project print, as pictures for the README.

    make recordings

Generates a project with the defaults, runs `make reproduce` there, plants the fault of
docs/my-results-vary.md, trains twice, and compares the two runs with `diff --replay`. Writes
docs/make-reproduce.svg and docs/diff-replay.svg. A picture shows what the command printed on a
terminal; a line of dots stands for lines that are left out. Output that names a folder of this
machine, or lacks what the picture is meant to show, is refused. The pictures refer to nothing on a
network.
"""

from __future__ import annotations

import io
import os
import pty
import re
import socket
import subprocess
import sys
import tempfile
import termios
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SHARED = ROOT / ".build" / "venv"
COLUMNS = 100  # of the terminal on which commands run, and of the picture
ROWS = 60
DOTS = "..."
# What would change the output: settings of the terminal, and what `make` tells the `make` below it.
NOT_PASSED_ON = {"COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
PATCH = re.compile(r"```diff\n(.*?)```", re.DOTALL)

# rich's own format without its fonts, which come from a network, and without its address.
FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace;
    font-size: {char_height}px;
    line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


@dataclass(frozen=True)
class Recording:
    """A command whose output becomes a picture."""

    name: str  # of the picture
    command: str  # as a person types it
    exit_code: int
    shows: tuple[str, ...]  # words without which the picture would be of no use
    left_out: str = "(?!)"  # lines in which this pattern is found become a line of dots; here none


REPRODUCE = Recording(
    "make-reproduce",
    "make reproduce",
    0,
    ("IDENTICAL", "as recorded"),
    # Most epochs, and where the run lies on this machine.
    left_out=r"^epoch +([2-9]|1[0-9])/|^run +/|^written: .* in /",
)
DIFF = Recording(
    "diff-replay",
    "python -m repro diff runs/a runs/b --replay",
    1,
    ("The runs part at step 1", "aten.randn.generator", "experiment/model.py"),
)


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        project = generate(Path(scratch))
        record(REPRODUCE, project)
        plant_fault(project)
        for name in ("a", "b"):
            settings = [f"run_dir=runs/{name}", "training.max_steps=4"]
            command = ["python", "-m", "experiment.train", *settings]
            subprocess.run(
                command, cwd=project, env=variables(project), check=True, stdout=sys.stderr
            )
        record(DIFF, project)
    return 0


def generate(folder: Path) -> Path:
    """Generate a project with the defaults; its environment is the one that all tools share."""
    from cookiecutter.main import cookiecutter  # the tests of this module do not have it

    made = cookiecutter(str(ROOT), no_input=True, default_config=True, output_dir=str(folder))
    project = Path(made)
    (project / ".venv").symlink_to(SHARED)
    return project


def plant_fault(project: Path) -> None:
    """Apply the patch of docs/my-results-vary.md: noise from a generator that nothing seeds."""
    page = (DOCS / "my-results-vary.md").read_text(encoding="utf-8")
    (patch,) = PATCH.findall(page)
    subprocess.run(["git", "apply", "-"], cwd=project, input=patch, text=True, check=True)


def variables(project: Path) -> dict[str, str]:
    """Return the environment of a command: the project's Python first, nothing of this `make`."""
    environment = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
    environment["PATH"] = f"{project / '.venv' / 'bin'}{os.pathsep}{environment['PATH']}"
    environment["TERM"] = "xterm-256color"
    return environment


def record(recording: Recording, project: Path) -> None:
    """Run a command in the project and write its picture; refuse output that must not be shown."""
    print(f"recording {recording.command}", flush=True)
    output, exit_code = run_on_terminal(recording.command, project)
    lines = shown_lines(recording, output)
    plain = "\n".join(line.plain for line in lines)
    if exit_code != recording.exit_code:
        raise SystemExit(f"{plain}\nerror: expected exit code {recording.exit_code}: {exit_code}")
    for words in recording.shows:
        if words not in plain:
            raise SystemExit(f"{plain}\nerror: expected {words!r} in the output")
    for place in (str(ROOT), str(project), str(Path.home()) + os.sep, socket.gethostname()):
        if place in plain:
            raise SystemExit(f"{plain}\nerror: the output names {place}, of this machine")
    path = DOCS / f"{recording.name}.svg"
    path.write_text(picture(recording, lines), encoding="utf-8")
    print(f"wrote {path.relative_to(ROOT)}", flush=True)


def run_on_terminal(command: str, folder: Path) -> tuple[str, int]:
    """Run a command on a terminal of its own; return what it printed there and its exit code."""
    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (ROWS, COLUMNS))
    process = subprocess.Popen(
        command.split(),
        cwd=folder,
        env=variables(folder),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    printed = bytearray()
    while part := read_terminal(reader):
        printed += part
    os.close(reader)
    return printed.decode("utf-8").replace("\r\n", "\n"), process.wait()


def read_terminal(reader: int) -> bytes:
    """Read what a terminal has; nothing when its last process has ended."""
    try:
        return os.read(reader, 65536)
    except OSError:  # Linux gives EIO where other systems give an empty read
        return b""


def shown_lines(recording: Recording, output: str) -> list[Text]:
    """Return the lines that the terminal shows in the end, with dots for those left out."""
    lines: list[Text] = []
    for line in Text.from_ansi(output.strip("\n")).split():
        line.rstrip()
        if not re.search(recording.left_out, line.plain):
            lines.append(line)
        elif not lines or lines[-1].plain != DOTS:
            lines.append(Text(DOTS, "dim"))
    return lines


def picture(recording: Recording, lines: list[Text]) -> str:
    """Draw a command and its output as SVG."""
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    console.print(Text.assemble(("$ ", "bold green"), (recording.command, "bold")))
    console.print(Text("\n").join(lines))
    drawn = console.export_svg(
        title=recording.command, code_format=FORMAT, unique_id=recording.name
    )
    return re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main())
