"""Write one file with all that a result needs: code, lock, manifest, runs, results, metadata.

Promises the same bytes for the same commit and runs, on every machine: names sorted, the commit's
time, fixed permissions, nothing compressed (compressors differ). Every path lies below one folder
and nothing is a link, so every tool unpacks it, and nothing elsewhere: `last` and `best` of a run
stay out, a link in the repository becomes the file that it points to, and a name that Windows or
macOS cannot have is refused. The unpacked folder is a project that knows its commit. An archive
that could not reproduce the results is refused. Packages are not in it: the lock names them.
"""

import io
import os
import shutil
import stat
import tarfile
import time
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias
from zipfile import ZipFile, ZipInfo

from repro.core import layout
from repro.core.bounded import DamagedFile
from repro.core.errors import UserError, refuse
from repro.core.file_names import fault_of_name, faults_of_names, shown
from repro.core.files import JsonObject, read_object, replacing
from repro.core.hashing import sha256_bytes
from repro.core.read_once import reading_once
from repro.core.redaction import is_secret_file, redact_name
from repro.core.secret_values import refuse_secret_names
from repro.core.text import listed
from repro.data.manifest import data_digest
from repro.data.tar_index import held_by_indexes
from repro.environment.locks import LOCK
from repro.results.citation import uncited
from repro.results.claims import RECORDED_RUNS, read_recording, recorded_run, stale
from repro.results.crate import METADATA, PackedTraining, describe, read_about
from repro.results.document import outdated
from repro.results.recording import RecordedClaim
from repro.runs.context import read_context
from repro.runs.git import committed_files, get_git_info, uncommitted_changes, uncommitted_files
from repro.runs.git_index import why_not_archived
from repro.runs.yaml_files import load_yaml

_1980 = 315532800  # zip knows no earlier time
_LARGEST_MANIFEST = 2**28  # bytes, for some two million files; to parse it takes ten times that

Files: TypeAlias = dict[str, bytes | Path]  # by their names in the archive


class Commit(NamedTuple):
    """The files of a commit, which of them are executable, and its time in seconds."""

    files: dict[str, bytes]
    executable: set[str]
    moment: int


@reading_once()
def archive(
    root: Path, output: Path | None = None, with_data: bool = False, allow_dirty: bool = False
) -> Path:
    """Write the archive (default: <project>-<commit>.zip in `root`) and return its path.

    `with_data` adds the files of the data's folder, `allow_dirty` uncommitted changes as a patch.
    UserError if it would not give the recorded results again.
    """
    claims = read_recording(root).claims
    commit_hash = _find_commit(root, allow_dirty)
    commit = read_commit(root)
    refuse(faults_of_names(commit.files))  # before anything that would train anew in vain
    runs = {name: find_runs(root, name, claim) for name, claim in claims.items()}
    refuse([f"{line}: make record" for line in (*stale(root), *outdated(root), *uncited(root))])
    refuse_secrets(commit.files)
    files: Files = {**commit.files}
    patch = uncommitted_changes(root)
    if patch:
        files[layout.PATCH] = patch.encode("utf-8", "surrogateescape")
    else:
        refuse_what_git_left_out(root, commit.files, claims)
    trainings = []
    for name, claim in claims.items():
        for seed, run in runs[name].items():
            manifest, data = find_data(root, run, claim.conditions.data, with_data)
            place = PurePosixPath(run.relative_to(root).as_posix())
            files |= data | tree(run, place)
            context = read_context(run)
            values = claim.values_on(context.hardware_class) if context else claim.values
            text = f"{claim.text}: {claim.value_name} {values[seed]}"
            trainings.append(PackedTraining(f"{name}-seed-{seed}", text, str(place), manifest))
    about = read_about(commit.files)
    files[METADATA] = describe(sorted(files), about, trainings, commit_hash, commit.moment)
    top = f"{about.name}-{commit_hash[:12]}{'-dirty' if patch else ''}"
    path = output or root / f"{top}.zip"
    write_zip(path, top, files, commit.executable, commit.moment)
    return path


def _find_commit(root: Path, allow_dirty: bool) -> str:
    """Return the commit to pack; UserError without one, or with changes that nobody allowed."""
    git = get_git_info(root)
    changed = uncommitted_files(root)
    if git.source != "git" or not git.commit_hash or changed is None:
        raise UserError(f"an archive is made of a commit, and there is none: {git.note}")
    if changed and not allow_dirty:
        raise UserError(
            f"not committed: {listed(changed)}; git commit, or --allow-dirty: they go in as a patch"
        )
    return git.commit_hash


def read_commit(root: Path) -> Commit:
    """Read the files of HEAD below `root`; UserError for a link to no file of the commit."""
    commit = Commit({}, set(), 0)
    with tarfile.open(fileobj=io.BytesIO(committed_files(root))) as tar:
        for member in tar:
            if member.isdir():
                continue
            try:
                file = tar.extractfile(member)  # of a link: what it points to, in the commit
            except (KeyError, RecursionError):
                file = None
            if not file:
                raise UserError(f"{member.name} is a link to no file of the commit: git rm it")
            commit.files[member.name] = file.read()
            if member.mode & stat.S_IXUSR and member.isreg():
                commit.executable.add(member.name)
            commit = commit._replace(moment=int(member.mtime))  # all have the commit's time
    return commit


def refuse_what_git_left_out(
    root: Path, committed: Mapping[str, bytes], claims: Mapping[str, RecordedClaim]
) -> None:
    """Raise UserError if the commit is not what was recorded: an ignored file is in no commit."""
    recorded: dict[str, str] = {}
    for claim in claims.values():
        recorded |= {**claim.conditions.code, LOCK: claim.conditions.lock}
    there = {name: sha256_bytes(content) for name, content in committed.items()}
    missing = sorted(name for name in recorded if there.get(name) != recorded[name])
    refuse(
        [f"{name} was recorded and {why_not_archived(root, name, committed)}" for name in missing]
    )


def refuse_secrets(committed: Mapping[str, bytes]) -> None:
    """Raise UserError for each file of the commit that is, or holds, a secret: others get it.

    Looked for are tokens and private keys by their shape, the logins of URLs that are the
    environment's, and its other secrets; not what is only named like a secret, as in an example.
    """
    refuse_secret_names(committed, " of the commit")
    faults = []
    for name, content in committed.items():
        if is_secret_file(name):
            faults.append(f"{name} holds secrets, by its name, and others get the archive: git rm")
        elif redact_name(text := content.decode("utf-8", "surrogateescape")) != text:
            faults.append(f"{name} holds a secret, and others get the archive: take it out")
    refuse(faults)


def find_runs(root: Path, name: str, claim: RecordedClaim) -> dict[str, Path]:
    """Find the recorded run of each seed, known by its conditions and bits, its checkpoints whole.

    UserError if one is missing or damaged.
    """
    from repro.training.checkpoint import find_fault  # here: it imports torch

    runs = {}
    faults = []
    for seed in claim.values:
        run = recorded_run(root, name, claim, int(seed))
        if not run:
            faults.append(
                f"{name}: the recorded run of seed {seed} is not in {RECORDED_RUNS}: make record"
            )
            continue
        runs[seed] = run
        if fault := _best_is_missing(run, claim, seed):
            faults.append(fault)
        for checkpoint in layout.steps_newest_first(run / layout.CHECKPOINTS):
            if fault := find_fault(checkpoint):
                remedy = f"delete {run}, then make record"
                faults.append(f"{checkpoint} is damaged ({fault}): {remedy}")
    refuse(faults)
    return runs


def _best_is_missing(run: Path, claim: RecordedClaim, seed: str) -> str | None:
    """Say what to do if the best checkpoint, which the claim is of, is not in the run."""
    if claim.checkpoint != layout.BEST:
        return None
    steps = {best[seed].step for best in claim.best.values() if seed in best}
    checkpoints = run / layout.CHECKPOINTS
    if any(layout.step_folder(checkpoints, step).is_dir() for step in steps):
        return None
    return f"{checkpoints} has no best checkpoint: delete {run}, then make record"


def find_data(root: Path, run: Path, digest: str, with_data: bool) -> tuple[str, Files]:
    """Find the data of a run by their digest; return their manifest's name, and the files to pack.

    Without the data the manifest lies aside: in its place it would say that the data are damaged.
    A folder of the author's own files gets the name of the setting that says where it is.
    """
    used = run / layout.CONFIG_USED
    try:
        settings = load_yaml(used)
        folder = root / (settings.get("data_dir") or layout.DATA)  # a loop may have no such setting
        places = {**settings}
    except (OSError, DamagedFile, TypeError, AttributeError) as error:
        raise UserError(f"{used} is damaged: delete {run}, make record") from error
    for path in sorted(folder.rglob(layout.MANIFEST)):
        manifest = _read_manifest(path, digest)
        if not manifest:
            continue
        top = PurePosixPath(layout.DATA if with_data else "data-manifest")
        name = str(top / path.relative_to(folder).as_posix())
        if not with_data:
            return name, {name: path}
        return name, tree(folder, top) | _own_files(root, path, manifest, places)
    facts = run / layout.DATA_FACTS
    if data_digest(read_object(facts)) == digest:  # of an own loop; it is packed with its run
        return facts.relative_to(root).as_posix(), {}
    raise UserError(
        f"{folder} has no {layout.MANIFEST} of the recorded data, of at most "
        f"{_LARGEST_MANIFEST >> 20} MiB: make record"
    )


def _read_manifest(path: Path, digest: str) -> JsonObject | None:
    """Read the manifest of data by their digest; None for another, and for what is no manifest.

    Authors have files of that name, too: of any content and size.
    """
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            return None
        manifest = read_object(path)
        return manifest if data_digest(manifest) == digest else None
    except (OSError, UserError, ValueError):
        return None


def _own_files(root: Path, path: Path, manifest: JsonObject, settings: JsonObject) -> Files:
    """Return the files of a manifest that stay where the author has them, by the setting's name."""
    names = manifest.get("files")
    if not isinstance(names, dict) or _has_all(path.parent / layout.PREPARED, names):
        return {}
    for setting, value in settings.items():
        if isinstance(value, str) and _has_all(root / value, names):
            held = held_by_indexes(root / value, [*names])
            packed = [*names, *chain(*held.values())]
            return {f"{setting}/{file}": root / value / file for file in packed}
    return {}  # of a loop that keeps its data in its own way: they are in data_dir, or nowhere


def _has_all(folder: Path, names: Iterable[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def tree(folder: Path, top: PurePosixPath) -> Files:
    """Return the files below `folder` by their names below `top`.

    Hidden files and linked folders are left out.
    """
    files: Files = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            files[str(top.joinpath(*parts))] = path
    return files


def write_zip(path: Path, top: str, files: Files, executable: set[str], moment: int) -> None:
    """Write the files into a zip file below the folder `top`, as a whole or not at all."""
    if fault := fault_of_name(top):
        raise UserError(f"{shown(top)}, the archive's folder: {fault}: rename it in pyproject.toml")
    refuse(faults_of_names(files, top))
    date = time.gmtime(max(moment, _1980))[:6]
    with replacing(path) as temporary, ZipFile(temporary, "w") as packed:
        for name in sorted(files):
            content = files[name]
            source = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
            info = ZipInfo(f"{top}/{name}", date)
            info.external_attr = (0o100755 if name in executable else 0o100644) << 16
            with source:
                info.file_size = source.seek(0, os.SEEK_END)  # above 2 GiB the format differs
                source.seek(0)
                with packed.open(info, "w") as target:
                    shutil.copyfileobj(source, target)
