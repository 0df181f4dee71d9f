"""Make the project's virtual environment from its locks: `make setup` runs this.

Promises: what does not fit the lock ends in one line (exit code 2) before anything is written;
every file is checked by its hash; an environment that is up to date costs a fraction of a second;
after a changed lock it is made anew, from nothing. What was there stays in use until the new one is
whole, whatever ends this program before. Only what it made itself is ever deleted. Python 3.6 can
still run it, to find a newer one.
"""

import argparse
import ctypes
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import TextIO

ROOT = Path(__file__).resolve().parent
LOCKS = ("requirements.lock", "requirements-tracker.lock", "requirements-dev.lock")
OPTIONAL = "requirements-tracker.lock"  # a project without a tracker has none
PR_SET_PDEATHSIG = 1  # of prctl(2): pip would go on after a kill -9, and write into what comes next
HELD: "list[int]" = []  # where there is no prctl, pip keeps the folder's lock until it ends
LARGEST = 1 << 26  # bytes of a file that is read here
FREE_GB = 7  # 5.9 GB when installed
FREE_GB_WITHOUT_CUDA = 2  # on a Mac: about 1.3 GB by the sizes of the wheels, never installed
STAMP = "repro-setup.json"
INSTALLERS = ("pip", "uv")
# Inside of the environment, whose folder may be a mount, or lie in a folder of somebody else.
NEW = "repro-setup.new"  # the one that is being made
OLD = "repro-setup.old"  # the one that it replaced
UNFINISHED = "repro-setup.unfinished"  # they change places: holds the names of the new parts
OURS = {NEW, OLD, UNFINISHED}
RELOCATED = "repro/environment/relocated.py"
RECORDS = "repro-records.json"  # for repro/environment/installed_files.py
FITS = "Linux on x86-64 or aarch64, and macOS 14 or newer on arm64"
CONTAINER = "use the container: make image, then make image-run"
ELSEWHERE = "choose another folder: make setup VENV=FOLDER, or verify.sh --work FOLDER"
UNCHANGED = "nothing is changed"

# The user's index, proxy and certificates stay; settings that would send the packages elsewhere or
# judge them otherwise do not. (Values, not gaps, where a pip.conf may say something too.)
OVERRULED = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_CONSTRAINT": os.devnull}
DROPPED = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN", "PIP_PYTHON", "PIP_QUIET")
DROPPED_OF_UV = re.compile(
    "UV_(NO_VERIFY_HASHES|TORCH_BACKEND|CONSTRAINT|OVERRIDE|EXCLUDE(_NEWER)?|PRERELEASE|RESOLUTION"
    "|PYTHON|SYSTEM_PYTHON|BREAK_SYSTEM_PACKAGES|PROJECT|WORKING_DIR)"
)
# What a line can say of a failure: words of pip's or uv's, and the cause. pip tries a connection
# several times, so that it may have been a broken one only where nothing was found after all.
NO_INDEX = "no package index was reached: the network is needed once, for the packages of the lock"
CAUSES = [
    ("No space left on device|Disk quota exceeded", f"the disk is full: {ELSEWHERE}"),
    (r"(?s)after connection broken by.*\(from versions: none\)|error sending request", NO_INDEX),
]
LOCKED = ["--require-hashes", "--no-deps", "--only-binary=:all:"]

# A Python's path, version, whether it can make environments (Debian splits that off), and kind.
PROBE = """if 1:
    import importlib.util as u, platform, sys
    print(sys.executable, platform.python_version(), bool(u.find_spec("ensurepip")), sep="\\n")
    print(platform.python_implementation(), "%d.%d" % sys.version_info[:2], sys.maxsize > 2**32,
          platform.machine())"""


class Refused(Exception):
    """One line for the user: what was found, what is expected, what to do."""

    def __init__(self, line: str, exit_code: int = 2) -> None:
        super().__init__(line)
        self.exit_code = exit_code


def check_platform() -> None:
    """Refuse a machine that the lock does not fit."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) == ("Darwin", "arm64"):
        version = platform.mac_ver()[0]
        if version_numbers(version) < [14]:
            raise Refused(f"this is macOS {version}, the lock fits macOS 14 or newer; {CONTAINER}")
    elif system == "Linux" and machine in ("x86_64", "aarch64"):
        check_linux(machine)
    else:
        # On a Mac of 2020 or newer it may be the Python alone that is Intel's.
        intel = " (or an Intel Python: take an arm64 one)" if system == "Darwin" else ""
        raise Refused(f"this is {system} on {machine}{intel}, the lock fits {FITS}; {CONTAINER}")


def check_linux(machine: str) -> None:
    """Refuse a Linux whose C library is too old, and an x86-64 CPU without AVX2."""
    try:
        library, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):  # another C library; Python before 3.8 guesses the version
        library, version = platform.libc_ver()
    if library != "glibc" or version_numbers(version) < [2, 28]:
        found = f"{library} {version}".strip() or "another C library"
        raise Refused(f"found {found}, the lock (manylinux_2_28) needs glibc 2.28; {CONTAINER}")
    if machine != "x86_64":
        return
    flags = re.search(r"(?m)^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(errors="replace"))
    missing = {"avx2", "fma"}.difference(flags.group(1).split() if flags else ())
    if missing:
        raise Refused(f"this CPU lacks {' and '.join(sorted(missing))}: use a newer x86-64 CPU")


def version_numbers(version: str) -> "list[int]":
    """Return the numbers of a version, to compare it."""
    return [int(number) for number in re.findall(r"\d+", version)]


def fitting_python() -> "tuple[str, str]":
    """Return path and version of the running Python if it fits, else of the newest that does."""
    check_platform()
    minors = locked_minors()
    kinds = [f"CPython 3.{minor} True {platform.machine()}" for minor in minors]
    running = getattr(sys, "_base_executable", "") or sys.executable  # not that of a venv
    this = f"Python {platform.python_version()}: the lock needs 3.{minors[-1]} to 3.{minors[0]}"
    bare = ""
    for name in [running, *(f"python3.{minor}" for minor in minors)]:
        try:  # by running it: pyenv puts names on PATH with nothing behind them
            path, version, can_make_venv, kind = run([name, "-I", "-c", PROBE], quiet=True)
        except (OSError, ValueError, Refused):
            continue
        if kind in kinds and can_make_venv == "True":
            if name != running:
                tell(f"setup: this is {this}, using {path}", sys.stderr)
            return path, version
        if kind in kinds and not bare:
            bare = f"Python {version} ({path})"
    if bare:
        raise Refused(f"{bare} has no venv module; on Debian: apt install python3-venv")
    raise Refused(f"this is {this}, install one (or name one: PYTHON=PATH), or {CONTAINER}")


def locked_minors() -> "list[int]":
    """Return the minor versions of Python 3 that the lock fits, the newest first."""
    span = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', text("pyproject.toml"))
    if not span:
        raise Refused('pyproject.toml: expected a line requires-python = ">=3.11,<3.14"')
    # A lock fits the Python that it was compiled on, and newer ones.
    compiled = re.search(r"pip-compile with Python 3\.(\d+)", text(LOCKS[0]))
    lowest = max(int(span.group(1)), int(compiled.group(1)) if compiled else 0)
    return list(range(int(span.group(2)) - 1, lowest - 1, -1))


def check_folder(venv: Path) -> None:
    """Refuse a folder that is not ours to replace."""
    inside = {path.name for path in venv.iterdir()} if venv.is_dir() else set()
    ours = inside <= OURS or (inside & {STAMP, UNFINISHED} and inside & {"pyvenv.cfg", NEW})
    if not ours or (venv.exists() and not venv.is_dir()):
        raise Refused(f"{venv} was not made by make setup, so it stays: delete it or {ELSEWHERE}")


def check_space(venv: Path) -> None:
    """Refuse a disk that is too full for a new environment beside what is there."""
    free = shutil.disk_usage(str(venv)).free / 1e9
    first = f"delete {venv} first, or " if (venv / STAMP).exists() else ""
    needed = FREE_GB_WITHOUT_CUDA if platform.system() == "Darwin" else FREE_GB
    if free < needed:
        raise Refused(f"{venv}: {free:.1f} GB are free, {needed} are needed: {first}{ELSEWHERE}")
    if (venv / OLD).exists():  # NFS keeps files that are in use
        raise Refused(f"{venv / OLD} cannot be deleted: end what still runs in it, or delete it")


def find_installer(name: str) -> "str | None":
    """Return uv's path; None for pip, which every new environment has."""
    if name not in INSTALLERS:
        raise Refused(f"INSTALLER={name}: expected {' or '.join(INSTALLERS)}")
    path = None if name == "pip" else shutil.which(name)
    if name != "pip" and not path:
        raise Refused(f"found no {name} on PATH: install it, or leave out INSTALLER={name}")
    return path


def install(new: Path, uv: "str | None") -> None:
    """Install all locks at once, with pip or with uv, into an environment that is empty."""
    python = str(new / "bin" / "python")
    packages = [*LOCKED, *(f"--requirement={lock}" for lock in locks())]
    if uv:
        # Copies, and compiled as by pip: a file that is linked to uv's cache would be the same file
        # in all environments, and an edit in one would be an edit in all.
        own = ["--python", python, "--link-mode=copy", "--compile-bytecode", "--no-progress"]
        run([uv, "pip", "install", *own, *packages])
        with suppress(OSError):
            (new / ".lock").unlink()  # uv's own, while it works
    else:
        own = ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
        run([python, "-I", "-m", "pip", "install", *own, *packages])


def build(venv: Path, python: str, stamp: str, uv: "str | None") -> None:
    """Make the environment from nothing; what was there stays until the new one is whole."""
    new = venv / NEW
    new.mkdir()
    pip = [str(new / "bin" / "python"), "-I", "-m", "pip", "--disable-pip-version-check"]
    run([python, "-I", "-m", "venv", "--prompt", venv.name, str(new)])
    install(new, uv)
    run([*pip, "check"])
    run([pip[0], "-I", str(ROOT / RELOCATED), str(new)])
    write_records(new)
    (new / STAMP).write_text(stamp + "\n", encoding="utf-8")
    (new / UNFINISHED).write_text("\n".join(path.name for path in new.iterdir()))
    (new / UNFINISHED).rename(venv / UNFINISHED)  # from here on it takes the place
    change_places(venv)


def whole_parts(venv: Path) -> "list[str]":
    """Return the names of the parts of a whole new environment that has to take its place."""
    path = str(venv / UNFINISHED)  # empty after an older version of this program
    return text(path).splitlines() if os.path.exists(path) else []


def change_places(venv: Path) -> None:
    """Let a new environment take its place; this may have been cut short before."""
    names = whole_parts(venv)
    (venv / OLD).mkdir(exist_ok=True)
    for path in sorted(venv.iterdir()):
        if path.name not in OURS and (path.name not in names or (venv / NEW / path.name).exists()):
            path.rename(venv / OLD / path.name)
    for path in sorted((venv / NEW).iterdir()):
        path.rename(venv / path.name)
    (venv / UNFINISHED).unlink()


def clean(venv: Path) -> None:
    """Delete an environment that was replaced, and a part of one that came to no end."""
    for name in (NEW, OLD):
        shutil.rmtree(str(venv / name), ignore_errors=True)


def write_records(venv: Path) -> None:
    """Write the digest of each package's RECORD, which has the digests of its files."""
    records = sorted(venv.glob("lib/python3*/site-packages/*.dist-info/RECORD"))
    digests = {path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in records}
    (venv / RECORDS).write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


def run(command: "list[str]", quiet: bool = False) -> "list[str]":
    """Run a command and return its last lines of output; show pip's progress, and a failure."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not (name.startswith("PYTHON") or name in DROPPED or DROPPED_OF_UV.fullmatch(name))
    }
    env.update(OVERRULED)
    lines: list[str] = []
    with Popen(
        command,
        cwd=ROOT,
        env=env,
        stdout=PIPE,
        stderr=STDOUT,
        errors="replace",
        pass_fds=HELD,
        preexec_fn=end_with_this_program,
    ) as process:
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                if line.startswith("Collecting "):
                    show("getting and checking " + line.split()[1], passing=True)
                elif line.startswith(("Installing collected packages", "Prepared ")):  # pip, uv
                    show("every package has the hash of the lock; unpacking them")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        told = "\n".join(lines)
        wrong = re.findall(r"^ {4}(\S+) from .*\n +Expected", told, re.MULTILINE)  # pip
        wrong += re.findall("Hash mismatch for `(.+)`", told)  # uv
        causes = [] if wrong else [cause for words, cause in CAUSES if re.search(words, told)]
        if causes:
            raise Refused(f"{causes[0]}; {UNCHANGED}", exit_code=1)
        if not quiet:
            tell("\n".join(["", *what_failed(lines)]), sys.stderr)
        cause = f"hash mismatch: {', '.join(wrong)}" if wrong else "the installation failed"
        raise Refused(f"{cause} (see above); {UNCHANGED}", exit_code=1)
    return lines


def end_with_this_program() -> None:
    """Let the system end this process when bootstrap.py is killed; only Linux can."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def what_failed(lines: "list[str]") -> "list[str]":
    """Return the lines of a failed command from its first error on, or else its last ones."""
    starts = ("ERROR", "error")  # pip's, uv's
    errors = [number for number, line in enumerate(lines) if line.startswith(starts)]
    shown = lines[errors[0] :] if errors else lines[-12:]
    return [line[:300] for line in shown[:15]]


def show(line: str, passing: bool = False) -> None:
    """Print progress: `passing` lines are overwritten on a terminal, left out elsewhere."""
    if sys.stdout and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        tell(f"\r\033[Ksetup: {line}", end="" if passing else "\n")
    elif not passing:
        tell(f"setup: {line}")


def tell(line: str, stream: "TextIO | None" = None, end: str = "\n") -> None:
    """Print a line if it can be printed: after `| head` the installation goes on."""
    stream = stream or sys.stdout
    try:
        print(line, end=end, file=stream, flush=True)
    except UnicodeEncodeError:  # a folder's name, where only ASCII can be printed
        print(line.encode("ascii", "backslashreplace").decode(), end=end, file=stream, flush=True)
    except (OSError, ValueError):
        silence(stream)


def print_answer(line: str) -> None:
    """Print what the user asked for; OSError if that cannot be done."""
    try:
        print(line, flush=True)
    except OSError:
        silence(sys.stdout)
        raise


def silence(stream: "TextIO | None") -> None:
    """Let a stream that takes nothing write to nowhere: Python would fail at its end once more."""
    with suppress(AttributeError, OSError, ValueError):  # it is closed, or none of the system's
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[union-attr]


def locks() -> "list[str]":
    """Return the names of the project's locks."""
    return [lock for lock in LOCKS if lock != OPTIONAL or (ROOT / lock).is_file()]


def text(name: str) -> str:
    """Read a file of the project, as much of it as a lock may have."""
    path = ROOT / name
    if path.stat().st_size > LARGEST:
        raise Refused(f"{path} has more than {LARGEST} bytes: restore it")
    return path.read_text(encoding="utf-8", errors="replace")


def main() -> int:
    for number in range(3):  # one that is closed (`>&-`) would be the number of the next file
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    parser = argparse.ArgumentParser(description="make the environment from the locks")
    parser.add_argument("--venv", default=".venv", help="its folder (default: .venv)")
    parser.add_argument("--installer", default="pip", help="pip (default), or uv if it is there")
    parser.add_argument("--check", action="store_true", help="only print a Python that fits")
    parser.add_argument("--records", action="store_true", help="only write its " + RECORDS)
    options = parser.parse_args()
    try:
        if options.records:  # the Dockerfile installs by itself
            write_records(ROOT / options.venv)
        elif options.check:
            print_answer(fitting_python()[0])
        else:
            set_up(options.venv, *fitting_python(), find_installer(options.installer))
    except (Refused, OSError) as error:
        tell(f"setup: {error}", sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        tell(f"setup: interrupted; {UNCHANGED}", sys.stderr)
        return 130
    return 0


def set_up(folder: str, python: str, version: str, uv: "str | None") -> None:
    """Make the environment in `folder`, unless it is there and of these locks."""
    venv = Path(os.path.realpath(str(ROOT / folder)))
    digests = [hashlib.sha256(text(lock).encode()).hexdigest() for lock in locks()]
    stamp = json.dumps({"locks": digests, "Python": version, "folder": str(venv)})
    check_folder(venv)
    venv.mkdir(parents=True, exist_ok=True)
    be_alone(venv)
    if whole_parts(venv):
        change_places(venv)
    clean(venv)
    is_whole = os.access(str(venv / "bin" / "python"), os.X_OK) and not (venv / UNFINISHED).exists()
    if is_whole and text(str(venv / STAMP)).strip() == stamp:
        show(f"{folder} is up to date")
        return
    try:
        check_space(venv)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends pip too
        show(f"making {folder} with Python {version}; takes minutes the first time")
        build(venv, python, stamp, uv)
        show(f"{folder} is ready")
    finally:
        if not whole_parts(venv):
            clean(venv)
            with suppress(OSError):  # there is something in it, unless it failed
                venv.rmdir()


def be_alone(venv: Path) -> None:
    """Refuse a second `make setup` in a folder, where the file system has locks."""
    handle = os.open(str(venv), os.O_RDONLY)  # open until this program ends
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError):
            raise Refused(f"another make setup is at work in {venv}: wait for its end") from None
    if platform.system() != "Linux":
        HELD.append(handle)


if __name__ == "__main__":
    sys.exit(main())
