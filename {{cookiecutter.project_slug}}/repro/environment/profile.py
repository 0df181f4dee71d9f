"""The process environment that a run needs: one table per profile, in force before numpy and torch.

`enter(profile)` belongs at the start of a command's `main`: it starts the interpreter anew when a
variable is missing (about 10 ms, same arguments, same process id) and refuses a user's own value
that contradicts the profile. `enter_early(root, arguments)` may come before it, so that nothing is
imported twice: it guesses the profile before the config can be read. `require(profile)` is for
notebooks and tests: it changes nothing and raises when something is missing. Importing this module
does nothing.

`portable`: the same bits on every x86-64 CPU with AVX2 and FMA, under Linux. `native`: the same
bits on the same CPU model only; fastest. `auto` in a config stands for the first where it can be,
else for the second.
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from repro.core import machines
from repro.core.bounded import LARGEST_BY_HAND, read_whole
from repro.core.errors import UserError
from repro.core.layout import CONFIGS
from repro.core.profiles import MARKER as MARKER

# The hash seed fixes the order of sets of strings; cuBLAS needs a fixed workspace to be
# deterministic (https://docs.nvidia.com/cuda/cublas/#results-reproducibility).
_COMMON = {"PYTHONHASHSEED": "42", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}

PROFILES: dict[str, dict[str, str]] = {
    "portable": {
        **_COMMON,
        # Each of these selects kernels by CPU model unless it is told otherwise, and other kernels
        # round differently. COMPATIBLE and not AVX2: MKL's AVX2 branch falls back on AMD.
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "COMPATIBLE",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "native": dict(_COMMON),
}

AUTO = "auto"  # stands for one of them, by the machine

# Variables that would undo a profile or a flag behind our back: they must not be set, but to a
# value that `_is_harmless`. MKL_DYNAMIC is none of them: torch switches that off itself whenever it
# sets the number of threads (aten/src/ATen/ParallelOpenMP.cpp), and it changes no bits (measured).
# Nor are OMP_SCHEDULE, OMP_PROC_BIND, OMP_PLACES, OMP_WAIT_POLICY and OMP_NESTED (measured): they
# say where and how threads run, not how many. KMP_* are read by another OpenMP than torch's.
_OF_NVPL = "NVPL_BLAS_DEBUG_CPU_TYPE"  # which torch has for ARM alone
FORBIDDEN = {
    "DNNL_MAX_CPU_ISA": "the old name of ONEDNN_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE": "it lets convolutions round to bfloat16",
    "DNNL_DEFAULT_FPMATH_MODE": "it lets convolutions round to bfloat16",
    "OMP_THREAD_LIMIT": "fewer threads than asked for give wrong gradients (measured)",
    "OMP_DYNAMIC": "a changing number of threads gives wrong gradients (measured)",
    "OMP_MAX_ACTIVE_LEVELS": "with no level of threads gradients are wrong (measured)",
    "MKL_NUM_STRIPES": "it cuts matrices otherwise among threads, and changes bits (measured)",
    "MKL_ENABLE_INSTRUCTIONS": "it chooses MKL's kernels beside MKL_CBWR",
    "NPY_ENABLE_CPU_FEATURES": "it contradicts NPY_DISABLE_CPU_FEATURES",
    _OF_NVPL: "it chooses the kernels of NVPL, and changes bits on ARM (measured)",
    "NVIDIA_TF32_OVERRIDE": "it switches TF32 on or off whatever the program asks for",
}

# The libraries' own defaults: such a value says what holds without the variable.
_DEFAULTS = {
    "OMP_DYNAMIC": ("", "false", "0", "off", "no"),
    "ONEDNN_DEFAULT_FPMATH_MODE": ("", "strict"),
    "DNNL_DEFAULT_FPMATH_MODE": ("", "strict"),
    "OMP_THREAD_LIMIT": ("",),
    "OMP_MAX_ACTIVE_LEVELS": ("",),
}

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_NAMES = sorted({MARKER, *PROFILES["portable"]})  # the other profiles have no more
_OPTIMIZE = "PYTHONOPTIMIZE"  # drops asserts: with it, the same code would be another program
_GUARD = "REPRO_REEXEC"  # set while `enter` starts the interpreter anew: a second time is a bug
_GUESSED = "REPRO_GUESSED"  # set by `enter_early`: the values that it replaced, as JSON


def enter_early(root: Path, arguments: Sequence[str]) -> None:
    """Put the profile in force that the config will probably ask for; `enter` decides afterwards.

    Guesses it without Hydra: `profile=...` among a command's `arguments`, else the line of
    configs/config.yaml, else auto. Never raises: whatever is wrong is left to `enter`, which
    tells it together with the faults of the config.
    """
    has_been_started = _GUARD in os.environ or _GUESSED in os.environ
    if has_been_started or sys.flags.ignore_environment or not _can_start_anew():
        return
    with suppress(UserError, OSError):
        if changes := _changes(guess_profile(root, arguments), os.environ):
            replaced = {name: os.environ.get(name) for name in changes}
            guessed = {_GUESSED: json.dumps(replaced)}
            _start_anew({**_applied(changes, os.environ), **guessed})


def enter(profile: str, threads: int = 1) -> None:
    """Put `profile` in force, starting the interpreter anew if need be; for a command's `main`.

    Raises UserError for a name that is no profile, for contradicting variables, for `python -I` or
    `-E`, for a program that cannot be started anew, for `python -O`, for a CPU without AVX2 in the
    portable profile, and where no temporary file can be written (torch and data workers need some;
    they would hang or fail later).
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UserError(
            "no folder for temporary files can be written, neither TMPDIR nor /tmp: "
            "docker run --tmpfs /tmp, or TMPDIR=FOLDER"
        ) from error
    before = _before_guess(os.environ)
    changes = _changes(profile, before, threads)
    if sys.flags.optimize:
        changes[_OPTIMIZE] = None
    environ = _applied(changes, before)
    missing = {name for name in (*_NAMES, _OPTIMIZE) if environ.get(name) != os.environ.get(name)}
    if missing:
        if sys.flags.ignore_environment:
            raise UserError(f"python -I and -E ignore the environment. {_how_to_set(profile)}")
        if not _can_start_anew():
            raise UserError(f"this program cannot be started anew. {_how_to_set(profile)}")
        if os.environ.get(_GUARD):
            names = ", ".join(sorted(missing))
            raise UserError(f"the environment of profile {profile} does not hold: {names}")
        _start_anew({**environ, _GUARD: "1"})
    if sys.flags.optimize:
        raise UserError(
            "python -O drops the asserts of your code, and what they call: leave it out"
        )
    for name in (_GUARD, _GUESSED):  # not for children: they may need a start of their own
        os.environ.pop(name, None)
    # The number of threads changes sums. torch gets it by call (determinism.set_threads); the
    # libraries below read these when they are loaded, which has not happened yet.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))


def require(profile: str) -> None:
    """Raise UserError unless `profile` is in force; change nothing (notebooks, tests, scripts)."""
    if _changes(profile, os.environ) or sys.flags.ignore_environment:
        raise UserError(f"profile {profile} is not in force. {_how_to_set(profile)}")


def lacks_for_portable() -> str:
    """Say what this machine lacks for the portable profile; "" if it has all."""
    machine = machines.this_machine()
    if machine.system != machines.LINUX or machine.architecture not in machines.X86_64:
        return f"this is {machine}, where no kernels with the same bits on every CPU are known"
    if not machine.cpu:
        return "what this CPU has cannot be read (/proc/cpuinfo)"
    flags = machine.cpu.split()
    missing = [name for name in ("avx2", "fma") if name not in flags]
    return f"this CPU has no {' and no '.join(missing)}" if missing else ""


def resolve_profile(profile: str) -> str:
    """Return the profile that a config's or a caller's `profile` stands for on this machine.

    A config that was read has the answer, never "auto". Raises UserError for any other name.
    """
    if profile == AUTO:
        return "native" if lacks_for_portable() else "portable"
    if profile not in PROFILES:
        raise UserError(f"found profile={profile}, expected {', '.join((AUTO, *PROFILES))}")
    return profile


def guess_profile(root: Path, arguments: Sequence[str]) -> str:
    """Return what the config will probably have as `profile`; a recipe may have another one."""
    for argument in reversed(arguments):
        if match := re.fullmatch(r"\+{0,2}profile=(['\"]?)(\w+)\1", argument):
            return match[2]
    path = root / CONFIGS / "config.yaml"
    text = read_whole(path, LARGEST_BY_HAND).decode(errors="replace")
    line = re.search(r"(?m)^profile:[ \t]*(['\"]?)(\w+)\1", text)
    return line[2] if line else AUTO


def _before_guess(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables as they were before `enter_early`, which may have guessed wrongly."""
    try:
        replaced = dict(json.loads(environ.get(_GUESSED, "{}")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{_GUESSED} is set, which the kit sets by itself: unset it") from error
    return _applied({**replaced, _GUESSED: None}, environ)


def _applied(changes: Mapping[str, str | None], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with `changes` made: None stands for a variable that is not set."""
    changed: dict[str, str | None] = {**environ, **changes}
    return {name: value for name, value in changed.items() if value is not None}


def _start_anew(environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by the same command with these variables.

    Ctrl-C waits meanwhile: in its first moments Python would answer it with a traceback of its own.
    repro/__init__.py lets it through again.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)


def _table(profile: str) -> dict[str, str]:
    """Return the variables of a profile, and its own name as MARKER."""
    name = resolve_profile(profile)
    return {**PROFILES[name], MARKER: name}


def _changes(profile: str, environ: Mapping[str, str], threads: int = 1) -> dict[str, str | None]:
    """Return what to set (or to unset: None) so that `profile` holds; raise on contradictions."""
    table = _table(profile)
    ours = PROFILES.get(environ.get(MARKER, ""), {})
    changes: dict[str, str | None] = {}
    faults = []
    for name in _NAMES:
        there = environ.get(name)
        wanted = table.get(name)
        if there == wanted:
            continue
        if there is None or there == ours.get(name) or name in (MARKER, "PYTHONHASHSEED"):
            changes[name] = wanted
        elif wanted is not None:  # otherwise: a limit of the user's own; the conditions record it
            faults.append(
                f"{name}={there} is set, profile {table[MARKER]} needs {name}={wanted}: "
                f"unset {name}"
            )
    for name, reason in FORBIDDEN.items():
        if name in environ and not _is_harmless(name, environ[name], threads):
            faults.append(f"{name}={environ[name]} is set, but {reason}: unset {name}")
    if table[MARKER] == "portable" and (lacking := lacks_for_portable()):
        faults.append(
            f"profile=portable needs Linux on an x86-64 CPU with AVX2 and FMA, and {lacking}: take "
            "profile=auto or profile=native"
        )
    if faults:
        raise UserError(faults)
    return changes


def _is_harmless(name: str, value: str, threads: int) -> bool:
    """Tell whether a forbidden variable has a value that changes nothing."""
    text = value.strip().lower()
    if name == _OF_NVPL and machines.this_machine().architecture != machines.AARCH64:
        return True
    if name == "OMP_THREAD_LIMIT" and text.isdecimal():
        return int(text) >= threads
    if name == "OMP_MAX_ACTIVE_LEVELS" and text.isdecimal():
        return int(text) > 0
    return text in _DEFAULTS.get(name, ())


def _can_start_anew() -> bool:
    """Whether this is a command, not standard input (already read), a conftest or a notebook."""
    interactive = hasattr(sys, "ps1") or "ipykernel" in sys.modules or "pytest" in sys.modules
    return not interactive and len(sys.orig_argv) > 1 and sys.argv[0] not in ("", "-")


def _how_to_set(profile: str) -> str:
    """Say how to start a program with the profile's variables."""
    pairs = " ".join(f"'{name}={value}'" for name, value in _table(profile).items())
    return f"Start it with the variables set: env {pairs} python ..."
