"""One file with all that a result needs: code, lock, data's manifest, runs, results, metadata.

Promises the same bytes for the same commit and runs, on every machine: names sorted, the commit's
time, fixed permissions, nothing compressed (compressors differ). Every path lies below one folder
and nothing is a link, so every tool unpacks it, and nothing elsewhere: `last` and `best` of a run
stay out, a link in the repository becomes the file that it points to. The unpacked folder is a
project that knows its commit. Refused is what would not give the results again. Packages are not
in it: the lock names them.
"""

import io
import os
import shutil
import stat
import tarfile
import time
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZipFile, ZipInfo

import yaml  # type: ignore[import-untyped]  # omegaconf brings it

from repro.core.errors import UserError, refuse
from repro.core.files import read_object
from repro.core.hashing import sha256_bytes
from repro.core.text import listed
from repro.data.manifest import data_digest
from repro.environment.locks import LOCK
from repro.results.claims import RUNS, read_results, recorded_run, stale
from repro.results.crate import METADATA, Training, about_project, describe
from repro.results.document import outdated
from repro.runs.git import committed_files, get_git_info, uncommitted_changes, uncommitted_files

MANIFEST, PATCH = "manifest.json", "uncommitted_changes.diff"
_1980 = 315532800  # zip knows no earlier time

Files = dict[str, bytes | Path]  # by their names in the archive


def archive(
    root: Path, output: Path | None = None, with_data: bool = False, allow_dirty: bool = False
) -> Path:
    """Write the archive (default: <project>-<commit>.zip in `root`) and return its path.

    `with_data` adds the files of the data's folder, `allow_dirty` uncommitted changes as a patch.
    UserError if it would not give the recorded results again.
    """
    claims, git, changed = read_results(root), get_git_info(root), uncommitted_files(root)
    if git.source != "git" or not git.commit_hash or changed is None:
        raise UserError(f"an archive is made of a commit, and there is none: {git.note}")
    if changed and not allow_dirty:
        remedy = "git commit, or --allow-dirty: they go in as a patch"
        raise UserError(f"not committed: {listed(changed)}; {remedy}")
    code, executable, moment = read_commit(root)
    runs = {name: find_runs(root, name, claim) for name, claim in claims.items()}
    refuse([f"{line}: make record" for line in (*stale(root), *outdated(root))])
    files: Files = {**code}
    if patch := uncommitted_changes(root):
        files[PATCH] = patch.encode("utf-8", "surrogateescape")
    else:
        refuse_what_git_left_out(code, claims)
    trainings = []
    for name, claim in claims.items():
        for seed, run in runs[name].items():
            manifest, data = find_data(root, run, claim["conditions"]["data"], with_data)
            place = PurePosixPath(run.relative_to(root).as_posix())
            files |= data | tree(run, place)
            text = f"{claim['text']}: {claim['metric']} {claim['values'][seed]}"
            trainings.append(Training(f"{name}-seed-{seed}", text, str(place), manifest))
    commit = git.commit_hash
    files[METADATA] = describe(sorted(files), code, trainings, commit, moment)
    top = f"{about_project(code)[0]['name']}-{commit[:12]}{'-dirty' if patch else ''}"
    path = output or root / f"{top}.zip"
    write(path, top, files, executable, moment)
    return path


def read_commit(root: Path) -> tuple[dict[str, bytes], set[str], int]:
    """The files of the commit, which of them are executable, and its time in seconds."""
    files, executable, moment = {}, set(), 0
    with tarfile.open(fileobj=io.BytesIO(committed_files(root))) as tar:
        for member in (member for member in tar if not member.isdir()):
            try:
                file = tar.extractfile(member)  # of a link: what it points to, in the commit
            except (KeyError, RecursionError):
                file = None
            if not file:
                raise UserError(f"{member.name} is a link to no file of the commit: git rm it")
            files[member.name], moment = file.read(), int(member.mtime)
            if member.mode & stat.S_IXUSR and member.isreg():
                executable.add(member.name)
    return files, executable, moment


def refuse_what_git_left_out(code: dict[str, bytes], claims: dict[str, Any]) -> None:
    """UserError if the commit is not what was recorded: an ignored file is in no commit."""
    recorded: dict[str, str] = {}
    for claim in claims.values():
        recorded |= {**claim["conditions"]["code"], LOCK: claim["conditions"]["lock"]}
    there = {name: sha256_bytes(content) for name, content in code.items()}
    missing = sorted(name for name in recorded if there.get(name) != recorded[name])
    refuse([f"{name} was recorded and git ignores it: git add --force" for name in missing])


def find_runs(root: Path, name: str, claim: dict[str, Any]) -> dict[str, Path]:
    """The recorded run of each seed, known by its conditions and bits, its checkpoints whole."""
    from repro.core.layout import steps_newest_first
    from repro.training.checkpoint import find_fault  # here: it imports torch

    found, faults = {}, []
    for seed in claim["values"]:
        run = recorded_run(root, name, claim, int(seed))
        if not run:
            faults.append(f"{name}: the recorded run of seed {seed} is not in {RUNS}: make record")
            continue
        found[seed] = run
        for checkpoint in steps_newest_first(run / "checkpoints"):
            if fault := find_fault(checkpoint):
                remedy = f"delete {run}, then make record"
                faults.append(f"{checkpoint} is damaged ({fault}): {remedy}")
    refuse(faults)
    return found


def find_data(root: Path, run: Path, digest: str, with_data: bool) -> tuple[str, Files]:
    """The name of the data's manifest, and the files to pack.

    Without the data it lies aside: in its place it would say that the data are damaged. A folder
    of images goes to images/.
    """
    try:
        settings = yaml.safe_load((run / "config_used.yaml").read_text())
        folder, images = root / settings["data_dir"], settings.get("image_dir")
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run}/config_used.yaml is damaged: delete {run}, make record") from error
    for path in sorted(folder.rglob(MANIFEST)):
        if data_digest(manifest := read_object(path)) == digest:
            top = PurePosixPath("data" if with_data else "data-manifest")
            name = str(top / path.relative_to(folder).as_posix())
            if not with_data:
                return name, {name: path}
            beside: Files = {}  # images stay where the author has them
            if images and manifest.get("dataset") == "image_folder":
                beside = {f"images/{file}": root / images / file for file in manifest["files"]}
            return name, tree(folder, top) | beside
    raise UserError(f"{folder} has no {MANIFEST} of the recorded data: make record")


def tree(folder: Path, top: PurePosixPath) -> Files:
    """The files below `folder` by their names below `top`; without hidden ones, linked folders."""
    files: Files = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            files[str(top.joinpath(*parts))] = path
    return files


def write(path: Path, top: str, files: Files, executable: set[str], moment: int) -> None:
    """Write the files into a zip file below the folder `top`, as a whole or not at all."""
    # What unpackers may understand in another way, on Windows too; git lets most of it through.
    unsafe = [
        name
        for name in sorted(files)
        if not name.isprintable() or "\\" in name or {"", ".", ".."} & {*f"{top}/{name}".split("/")}
    ]
    refuse([f"{name!a} is no name for every system: rename it" for name in unsafe])
    date = time.gmtime(max(moment, _1980))[:6]
    temporary = path.with_name(f".partial-{path.name}")
    try:
        with ZipFile(temporary, "w") as zip:
            for name in sorted(files):
                content = files[name]
                source = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
                info = ZipInfo(f"{top}/{name}", date)
                info.external_attr = (0o100755 if name in executable else 0o100644) << 16
                info.file_size = source.seek(0, os.SEEK_END)  # above 2 GiB the format differs
                source.seek(0)
                with source, zip.open(info, "w") as target:
                    shutil.copyfileobj(source, target)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
