"""Write the papers for reviewers into a folder, to look at before there is an archive.

Promises the bytes that the archive will have, where all is committed and the recorded runs are
here; else it says what is missing. A file that somebody else wrote or changed is never replaced:
the folder remembers the digests of what was written into it.
"""

from pathlib import Path, PurePosixPath

from repro.core import layout
from repro.core.errors import UserError, refuse
from repro.core.files import read_object, write_file, write_json
from repro.core.hashing import sha256_bytes, sha256_file
from repro.core.read_once import reading_once
from repro.core.text import listed
from repro.environment.locks import LOCK
from repro.publishing.archive import pack_runs
from repro.publishing.committed import find_commit, read_commit
from repro.publishing.contents import Contents, Files, PackedTraining, content_bytes
from repro.publishing.described_data import with_parts
from repro.publishing.packed_data import tree
from repro.publishing.reviewers.papers import papers
from repro.results.about import read_about
from repro.results.claims import read_recording, recorded_run, stale
from repro.results.paper_fields import open_fields
from repro.results.recording import Recording
from repro.results.stated import read_stated
from repro.runs.code_files import code_files
from repro.runs.git import get_git_info, uncommitted_files

PAPERS = Path(layout.RUNS, "papers")
_WRITTEN = ".papers.json"  # SHA-256 of each file that was written there


@reading_once()
def write_papers(root: Path, folder: Path | None = None) -> list[str]:
    """Write the papers into a folder (default: runs/papers); return a line for each, and notes.

    UserError if nothing is recorded, or if a file there is not as it was written.
    """
    folder = folder or root / PAPERS
    contents, notes = _contents_here(root)
    made = {PurePosixPath(name).name: content for name, content in papers(contents).items()}
    written = read_object(folder / _WRITTEN)
    refuse(
        [
            f"{folder / name} is not as it was written here: move it away, or name another folder"
            for name, content in made.items()
            if _is_anothers(folder / name, (sha256_bytes(content), written.get(name)))
        ]
    )
    for name, content in made.items():
        write_file(folder / name, content)
    write_json(folder / _WRITTEN, {name: sha256_bytes(content) for name, content in made.items()})
    missing = [*open_fields(read_stated(root).paper)]
    if missing:
        notes.append(f"{len(missing)} TODO(author), for [tool.repro.paper]: {', '.join(missing)}")
    return [*(f"written: {folder / name}" for name in made), *notes]


def _is_anothers(path: Path, known: tuple[object, ...]) -> bool:
    """Tell whether a file is there whose digest is none of those that are known."""
    return path.exists() and sha256_file(path) not in known


def _contents_here(root: Path) -> tuple[Contents, list[str]]:
    """Return the contents of an archive as it would be made now, and what it would still lack."""
    recording = read_recording(root)
    files, commit, notes = _files_here(root)
    packed, trainings, missing = _runs_here(root, recording)
    if missing:
        notes.append(f"not here, so the papers do not have what they say: {listed(missing)}")
    if changes := stale(root, quick=True):
        notes.append(f"the results are not of this code ({listed(changes, 1)}): make record")
    about_files = ("pyproject.toml", "CITATION.cff")
    code: dict[str, bytes] = {
        name: content_bytes(files[name]) for name in about_files if name in files
    }
    contents = Contents(
        root=root,
        files={**files, **packed},
        about=read_about(code),
        recording=recording,
        trainings=trainings,
        commit=commit,
        moment=0,
    )
    return with_parts(contents), notes


def _files_here(root: Path) -> tuple[dict[str, bytes | Path], str, list[str]]:
    """Return the files of the commit, with what has changed since; its hash, "" without one."""
    files: dict[str, bytes | Path] = {}
    try:
        commit = find_commit(root, allow_dirty=True)
    except UserError as error:
        names = [*code_files(root), *(path.name for path in root.iterdir() if path.is_file())]
        files |= {name: root / name for name in (*names, LOCK)}
        files |= tree(root / layout.RESULTS, PurePosixPath(layout.RESULTS))
        return files, get_git_info(root).commit_hash or "", [*error.lines]
    files |= read_commit(root).files
    changed = uncommitted_files(root) or []
    for name in changed:
        files.pop(name, None)
        if (root / name).is_file():
            files[name] = root / name
    notes = [f"not committed, and in no archive yet: {listed(changed)}"] if changed else []
    return files, commit, notes


def _runs_here(root: Path, recording: Recording) -> tuple[Files, list[PackedTraining], list[str]]:
    """Return the recorded runs that are here, with their data; and which are not."""
    files: dict[str, bytes | Path] = {}
    trainings: list[PackedTraining] = []
    missing: list[str] = []
    for name, claim in recording.claims.items():
        for seed in claim.values:
            run = recorded_run(root, name, claim, int(seed))
            if not run:
                missing.append(f"the run of {name}, seed {seed}")
                continue
            try:
                found = pack_runs(root, Recording({name: claim}), {name: {seed: run}}, False)
            except UserError:
                missing.append(f"the data of {name}")
                continue
            files |= found[0]
            trainings += found[1]
    return files, trainings, list(dict.fromkeys(missing))
