"""Files of a real project, damaged in all ways that hypothesis thinks of, and their commands.

A change is of bytes (cut, flipped, replaced, nested, enlarged) or of what a file says: another
value, name or depth somewhere in its JSON, JSON Lines, YAML or safetensors header. Where a file has
sums, they are sometimes made to agree: that is what somebody would do who means harm.
"""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from conftest import PORTABLE, ROOT, VENV, Project, clean_environ
from fork_client import THREADS
from forks import fork_server
from hypothesis import strategies as st
from repro.core.hashing import sha256_json
from repro.data.file_systems import boot_id

RUN = "runs/a"
LAST = f"{RUN}/checkpoints/step-000000003"
DATA = "data/digits"
CACHE = f"{DATA}/.digests.json"  # of a training, which does without it where it is damaged
SECONDS = 120  # after which a command hangs: a hundred times what the slowest one takes here
MEMORY = 3 << 30  # bytes that a command may take: see repro/core/bounded.py
HUGE = 24 << 20  # bytes to which a file is enlarged: longer than the longest line

KEPT = (".git", "repro", "experiment", "tests")  # folders that no command writes to

Words = tuple[str, ...]
RESUME = ("experiment.train", "run_dir=runs/a", "resume=auto", "training.max_steps=5")
FRESH = ("experiment.train", "run_dir=runs/new", "training.max_steps=1")
EVALUATE = ("experiment.evaluate", "--checkpoint", LAST)
COMPARE = ("repro", "compare", RUN, "runs/b", "--csv", "t.csv", "--picture", "p.svg")
DIFF = ("repro", "diff", RUN, "runs/b", "--picture", "p.svg")
STEPS = ("repro", "diff", "step.json", "other.json", "--json")
TRACE = ("repro", "trace-step", RUN, "--step", "3", "--output", "new.json")
REPORT = ("repro", "report")
KEEP = ("repro", "report", "--verdicts", "sent.json")
VERIFY = ("repro", "verify", "--prefix", "2")
LOCKS = ("repro", "doctor", "--lock")
STALE = ("call:repro.results.claims:stale",)
OUTDATED = ("call:repro.results.document:outdated",)
REPRODUCES = ("call:repro.results.questions:reproduces",)
STATES = ("call:repro.results.questions:states_saved",)

# What somebody reported of other code, as results/verdicts/ keeps it under its digest.
REPORTED = b"""{
 "checkpoint": "last",
 "claim": "short",
 "conditions_digest": "0000000000000000000000000000000000000000000000000000000000000000",
 "differing": {
  "code": 1
 },
 "hardware_class": "cpu Apple M2, macOS 15.1 native",
 "metric": "accuracy",
 "seed": 42,
 "steps": [],
 "verdict": "DIFFERENT",
 "what": "whole"
}
"""
KEPT_VERDICT = f"results/verdicts/{hashlib.sha256(REPORTED).hexdigest()}.json"

# Each file that commands read, with the commands that read it.
TARGETS: dict[str, list[Words]] = {
    f"{RUN}/trace.jsonl": [DIFF, DIFF, RESUME, TRACE],
    f"{RUN}/metrics.jsonl": [COMPARE, DIFF, EVALUATE, RESUME],
    f"{RUN}/metrics.json": [COMPARE, DIFF],
    f"{RUN}/metrics-last.json": [COMPARE, DIFF],
    f"{RUN}/experiment_context.json": [COMPARE, DIFF, EVALUATE, RESUME],
    f"{RUN}/config_used.yaml": [EVALUATE, RESUME, TRACE],
    f"{LAST}/state.json": [EVALUATE, RESUME, COMPARE],
    f"{LAST}/tensors.safetensors": [EVALUATE, RESUME],
    f"{LAST}/SHA256SUMS": [EVALUATE, RESUME],
    f"{DATA}/manifest.json": [EVALUATE, FRESH],
    f"{DATA}/prepared/data.safetensors": [EVALUATE, FRESH],
    CACHE: [FRESH],
    "step.json": [STEPS],
    "results/expected_metrics.json": [REPORT, REPORT, EVALUATE, VERIFY, OUTDATED],
    "results/trace/short_seed-42.jsonl": [VERIFY],
    "runs/verify/one/verdict.json": [REPORT, REPRODUCES],
    "sent.json": [KEEP, KEEP],
    KEPT_VERDICT: [REPORT, KEEP],
    "configs/claims.yaml": [STALE],
    "configs/config.yaml": [FRESH],
    "configs/dataset/digits.yaml": [FRESH],
    "configs/optimizer/adamw.yaml": [FRESH],
    "pyproject.toml": [REPORT, EVALUATE, LOCKS],
    "REPRODUCE.md": [OUTDATED],
    "requirements.lock": [REPORT, LOCKS],
}
# A fault in one of these is told together with all others.
SETTINGS = ("configs/", f"{RUN}/config_used.yaml", f"{LAST}/state.json")
MOST_LINES = 21  # of those

TOKENS = [
    *(
        b"",
        b"\0",
        b"\xff\xfe",
        b"\n",
        b"\r",
        b'"',
        b"{",
        b"]",
        b",",
        b": ",
        b"\\",
        b"- ",
        b"${",
        b"#",
    ),
    *(b"null", b"NaN", b"-Infinity", b"1e999", b"-1", b"0x1p99999", b"true", b"9" * 400),
    *(
        b"9" * 5000,
        b'"\\ud800"',
        b'"\\u0000"',
        b"\xc3\xa4",
        b"&a [*a]",
        b"*a",
        b"!!python/object:os.system",
    ),
    *(b"!!timestamp 2021-99-99", b"<<: 1", b"? [1]\n: 2", b"[" * 200_000, b'{"a":' * 200_000),
    *(b"- " * 50_000, b"{a: " * 200_000, b"&b [" + b"*b," * 10 + b"]"),
]
DEEP: Any = "deep"
for _ in range(300):
    DEEP = [DEEP]
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 2**63, 10**400, float("nan"), float("inf"), "", "abc", "0"),
    *(
        "\ud800",
        "\0",
        "../../x",
        "/dev/zero",
        "${a",
        "${oc.env:HOME}",
        [],
        {},
        [[]],
        [None],
        ["abc"],
    ),
    *({"": None}, {"a": {"b": 1}}, {"step": "x"}, [1, 2, 3], "x" * 100_000, "0x1p99999", DEEP),
]
NAMES = [
    "",
    "step",
    "42",
    "header",
    "\ud800",
    "a.b",
    "$tensor",
    "$items",
    "__metadata__",
    "x" * 999,
]


@dataclass(frozen=True)
class Answer:
    """What a command answered; `code` is None for one that did not end."""

    words: Words
    code: int | None
    output: str


def state_of(root: Path) -> dict[str, tuple[int, ...]]:
    """Size and time of each file that a command may have changed; nothing of a folder."""
    state: dict[str, tuple[int, ...]] = {}
    for top, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in KEPT]
        links = [name for name in folders if Path(top, name).is_symlink()]
        for name in (*folders, *files):
            path = Path(top, name)
            about = path.lstat()
            key = path.relative_to(root).as_posix()
            is_folder = name in folders and name not in links
            state[key] = () if is_folder else (about.st_size, about.st_mtime_ns)
    return state


class Commands:
    """A project and the process that answers its commands; the project is as new before each."""

    def __init__(self, project: Project, pristine: Path) -> None:
        self.project = project
        self.pristine = pristine
        shutil.copytree(project.path, pristine, symlinks=True)
        self.state = state_of(project.path)
        threads = dict.fromkeys(THREADS, "1")
        self.process = subprocess.Popen(
            [VENV / "bin/python", ROOT / "tests/fuzz_server.py", self._python()],
            cwd=project.path,
            env={**clean_environ(), **PORTABLE, **threads, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._line() == "ready"

    @staticmethod
    def _python() -> str:
        return str(fork_server(VENV).ready() / "python")

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def restore(self) -> None:
        """Make the project as it was."""
        there = state_of(self.project.path)
        for name in sorted(there.keys() - self.state.keys(), reverse=True):  # files, then folders
            path = self.project.path / name
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
        for name in sorted(self.state):
            path = self.project.path / name
            if there.get(name) == self.state[name]:
                continue
            if not self.state[name]:
                path.mkdir(exist_ok=True)
                continue
            path.unlink(missing_ok=True)
            shutil.copy2(self.pristine / name, path, follow_symlinks=False)

    def run(self, words: Words) -> Answer:
        assert self.process.stdin
        output = self.pristine.with_name("output.txt")
        request = {"words": words, "output": str(output), "seconds": SECONDS, "memory": MEMORY}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        code = json.loads(self._line())
        return Answer(words, code, output.read_text(errors="replace"))

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def played(recorded: Project, folder: Path) -> Project:
    """A project with all files that commands read: two runs, a step, a verdict."""
    project = Project(folder / recorded.path.name)
    shutil.copytree(recorded.path, project.path, symlinks=True)
    (run,) = project.path.glob("runs/record/short/*/seed-42")
    for name in ("a", "b"):
        shutil.copytree(run, project.path / "runs" / name, symlinks=True)
        with (project.path / "runs" / name / "metrics.jsonl").open("a") as file:
            for step in (2, 3):
                line = {"step": step, "split": "validation", "loss": 1 / step, "accuracy": 0.5}
                file.write(json.dumps(line) + "\n")
    evaluation = project.path / RUN / "metrics.json"
    shutil.copyfile(evaluation, evaluation.with_name("metrics-last.json"))
    for name in ("step", "other"):
        done = project.module("repro", "trace-step", RUN, "--step", "3", "--output", f"{name}.json")
        assert done.returncode == 0, done.stderr
    done = project.module("repro", "verify", "--prefix", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = project.path.glob("runs/verify/short*")
    made.rename(made.with_name("one"))
    shutil.copyfile(made.with_name("one") / "verdict.json", project.path / "sent.json")
    kept = project.path / KEPT_VERDICT
    kept.parent.mkdir()
    kept.write_bytes(REPORTED)
    remember_digests(project.path)
    return project


def remember_digests(root: Path) -> None:
    """Write what a training remembers of the data, also where it relies on no file's times."""
    path = root / DATA / "prepared/data.safetensors"
    known = json.loads((root / DATA / "manifest.json").read_text())["files"][path.name]
    state = path.stat()
    times = [state.st_mtime_ns, state.st_ctime_ns, time.time_ns()]
    rows = [[state.st_dev, state.st_ino, state.st_size, *times, known]]
    content = {"boot": boot_id(), "files": rows}
    (root / CACHE).write_text(json.dumps({**content, "sha256": sha256_json(content)}))


# Changes of bytes --------------------------------------------------------------------------------


def of_bytes(data: st.DataObject, old: bytes) -> bytes:
    """The bytes with one thing done to them."""
    place = data.draw(st.integers(0, len(old)))
    length = data.draw(st.sampled_from([0, 1, 8, 100, 5000]))
    kind = data.draw(
        st.sampled_from(["cut", "flip", "replace", "insert", "double", "enlarge", "all"])
    )
    token = data.draw(st.sampled_from(TOKENS))
    match kind:
        case "cut":
            return old[:place]
        case "flip" if old:
            place = min(place, len(old) - 1)
            bit = 1 << data.draw(st.integers(0, 7))
            return old[:place] + bytes([old[place] ^ bit]) + old[place + 1 :]
        case "replace":
            return old[:place] + token + old[place + max(1, length) :]
        case "insert":
            return old[:place] + token + old[place:]
        case "double":
            return old[:place] + old[place : place + length] * 2 + old[place + length :]
        case "enlarge":
            part = (old[place : place + length] or token or b" ")[:100_000]
            return old[:place] + part * (HUGE // len(part)) + old[place:]
    return token


# Changes of what a file says ---------------------------------------------------------------------


def of_value(data: st.DataObject, value: Any, depth: int = 0) -> Any:
    """The value with something else somewhere in it."""
    inside = bool(value) and isinstance(value, dict | list)
    if not inside or (depth and data.draw(st.integers(0, 3)) == 0):
        return data.draw(st.sampled_from(ODD))
    names = [*value] if isinstance(value, dict) else [*range(len(value))]
    name = names[data.draw(st.integers(0, len(names) - 1))]
    changed = {**value} if isinstance(value, dict) else [*value]
    match data.draw(st.sampled_from(["deeper", "deeper", "deeper", "remove", "rename", "many"])):
        case "remove":
            del changed[name]
        case "rename" if isinstance(changed, dict):
            changed[data.draw(st.sampled_from(NAMES))] = changed.pop(name)
        case "many":
            more = data.draw(st.sampled_from(ODD[:-4]))
            if isinstance(changed, dict):
                changed |= {f"{name}{number}": more for number in range(2000)}
            else:
                changed += [more] * 2000
        case _:
            changed[name] = of_value(data, changed[name], depth + 1)
    return changed


def of_content(data: st.DataObject, name: str, old: bytes) -> bytes:
    """A file of that name, with something else in what it says."""
    if name.endswith(".json"):
        return json.dumps(of_value(data, json.loads(old))).encode()
    if name.endswith(".yaml"):
        text = yaml.dump(of_value(data, yaml.safe_load(old)), sort_keys=False)
        return text.encode(errors="surrogatepass")
    if name.endswith(".jsonl"):
        lines = old.splitlines()
        number = data.draw(st.integers(0, len(lines) - 1))
        lines[number] = json.dumps(of_value(data, json.loads(lines[number]))).encode()
        return b"\n".join([*lines, b""])
    if name.endswith(".safetensors"):
        length = int.from_bytes(old[:8], "little")
        header = of_value(data, json.loads(old[8 : 8 + length]))
        text = json.dumps(header).encode()
        size = data.draw(st.sampled_from([len(text), len(text), len(text), 0, 2**63, len(old)]))
        return size.to_bytes(8, "little") + text + old[8 + length :]
    return of_bytes(data, old)


def agree(root: Path, name: str) -> None:
    """Make the sums beside a file agree with it."""
    path = root / name
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if name.startswith(LAST):
        sums = root / LAST / "SHA256SUMS"
        lines = [line for line in sums.read_text().splitlines() if not line.endswith(path.name)]
        lines.append(f"{digest}  {path.name}")
        order = ["state.json", "tensors.safetensors"]
        lines.sort(key=lambda line: order.index(line.partition("  ")[2]))
        sums.write_text("".join(f"{line}\n" for line in lines))
    elif name.startswith(f"{DATA}/prepared"):
        manifest = root / DATA / "manifest.json"
        content = json.loads(manifest.read_text())
        content["files"][path.name] = digest
        del content["manifest_sha256"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        content["manifest_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        manifest.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def change(data: st.DataObject, root: Path, name: str) -> None:
    """Do something to a file."""
    path = root / name
    old = path.read_bytes()
    of: Callable[[], bytes] = lambda: of_bytes(data, old)  # noqa: E731
    if data.draw(st.booleans()):
        of = lambda: of_content(data, name, old)  # noqa: E731
    path.write_bytes(of())
    has_sums = name.endswith((".safetensors", "state.json"))
    if has_sums and data.draw(st.booleans()):
        agree(root, name)


def faults_of(answer: Answer, name: str) -> str:
    """Say what is wrong with an answer; nothing if it is as promised."""
    if answer.code is None:
        return f"it hangs for more than {SECONDS} s"
    if answer.code not in (0, 1, 2):
        return f"exit code {answer.code}"
    if name == CACHE and answer.code != 0:
        return "a damaged cache is no fault of the user"
    if "Traceback" in answer.output:
        return "a traceback"
    errors = [line for line in answer.output.splitlines() if line.startswith("error: ")]
    if (answer.code == 2) != bool(errors):
        return f"exit code {answer.code} with {len(errors)} lines of error"
    if len(errors) > (MOST_LINES if name.startswith(SETTINGS) else 1):
        return f"{len(errors)} lines of error"
    return ""
