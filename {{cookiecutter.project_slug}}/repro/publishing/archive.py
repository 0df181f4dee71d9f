"""Write one file with all that a result needs: code, lock, manifest, runs, results, metadata.

Promises the same bytes for the same commit and runs, on every machine, and that every tool unpacks
it below one folder: `last` and `best` of a run stay out, a link in the repository becomes the file
that it points to, and a name that Windows or macOS cannot have is refused. The unpacked folder is a
project that knows its commit. An archive that could not reproduce the results is refused. Packages
are not in it: the lock names them. What venues ask for is made by GENERATORS, from the contents
alone.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from repro.core import layout
from repro.core.errors import UserError, refuse
from repro.core.file_names import faults_of_names
from repro.core.read_once import reading_once
from repro.publishing.anonymity.anonymous import (
    anonymise,
    condition_files,
    of_nobody,
    refuse_identities,
    told,
)
from repro.publishing.anonymity.candidates import candidates
from repro.publishing.committed import (
    Commit,
    find_commit,
    read_commit,
    refuse_secrets,
    refuse_what_git_left_out,
)
from repro.publishing.contents import (
    Content,
    Contents,
    Files,
    PackedTraining,
    content_digest,
)
from repro.publishing.crate import METADATA, describe
from repro.publishing.croissant import croissant
from repro.publishing.described_data import with_parts
from repro.publishing.limit import packed_trainings, within_limit, zip_size
from repro.publishing.packed_data import find_data, tree
from repro.publishing.packed_runs import find_runs
from repro.publishing.reviewers.papers import papers
from repro.publishing.scripts import SCRIPT, scripts
from repro.publishing.zip_file import write_zip
from repro.results.about import read_about
from repro.results.citation import uncited
from repro.results.claims import read_recording, stale
from repro.results.document import outdated
from repro.results.recording import ANONYMOUS, Recording
from repro.runs.context import read_context
from repro.runs.git import uncommitted_changes

SUMS = layout.SUMS  # of all other files of the archive, for sha256sum --check
GENERATORS: list[Callable[[Contents], Mapping[str, bytes]]] = [
    croissant,
    papers,
    scripts,
]


@reading_once()
def archive(
    root: Path,
    output: Path | None = None,
    with_data: bool = False,
    allow_dirty: bool = False,
    *,
    anonymous: bool = False,
    kept: Collection[str] = (),
    limit: int | None = None,
) -> Path:
    """Write the archive (default: <project>-<commit>.zip in `root`) and return its path.

    `with_data` adds the files of the data's folder, `allow_dirty` uncommitted changes as a patch.
    `anonymous` takes out who made it, but for the words in `kept`; `limit`: bytes that the file may
    have at most. Both print what the author has to know. UserError if it would not give the
    recorded results again.
    """
    if anonymous and allow_dirty:
        raise UserError("--anonymous is of a commit, not of --allow-dirty: git commit")
    contents, commit = _read(root, with_data, allow_dirty)
    executable = commit.executable | {SCRIPT}
    hidden = None
    version = f"{contents.commit}"[:12]
    if layout.PATCH in contents.files:
        version += "-dirty"
    if anonymous:
        conditions = condition_files(contents.files, commit.files, contents.recording.claims)
        hidden = anonymise(root, contents.files, executable, conditions, kept)
        contents = of_nobody(contents, hidden)
        executable = hidden.executable
        version = ANONYMOUS
    top = f"{contents.about.name}-{version}"
    forms = make_forms(contents)
    if limit is not None:
        contents, forms = _below(contents, forms, top, limit)
    files = _with_sums({**contents.files, **forms})
    if hidden:
        refuse_identities({**files, top: b""}, hidden.identities)
        print(*told(hidden), *candidates(contents.files), sep="\n")
    path = output or root / f"{top}.zip"
    write_zip(path, top, files, executable, contents.moment)
    return path


def _read(root: Path, with_data: bool, allow_dirty: bool) -> tuple[Contents, Commit]:
    """Return what an archive of the project holds; UserError if it would be of no use to others."""
    recording = read_recording(root)
    commit_hash = find_commit(root, allow_dirty)
    commit = read_commit(root)
    refuse(faults_of_names(commit.files))  # before anything that would train anew in vain
    runs = {name: find_runs(root, name, claim) for name, claim in recording.claims.items()}
    refuse([f"{line}: make record" for line in (*stale(root), *outdated(root), *uncited(root))])
    refuse_secrets(commit.files)
    patch = uncommitted_changes(root)
    if patch and not allow_dirty:
        raise UserError("a file was changed while the archive was made: let all else end first")
    if not patch:
        refuse_what_git_left_out(root, commit.files, recording.claims)
    packed, trainings = pack_runs(root, recording, runs, with_data)
    changes = {layout.PATCH: patch.encode("utf-8", "surrogateescape")} if patch else {}
    contents = Contents(
        root=root,
        files={**commit.files, **changes, **packed},
        about=read_about(commit.files),
        recording=recording,
        trainings=trainings,
        commit=commit_hash,
        moment=commit.moment,
    )
    return with_parts(contents), commit


def _below(contents: Contents, forms: Files, top: str, limit: int) -> tuple[Contents, Files]:
    """Return what an archive of at most `limit` bytes has, and its forms; prints what it lacks.

    `forms`: those of all the contents. They are made anew only where something is left out, which
    makes them smaller.
    """

    def size(files: Files) -> int:
        return zip_size(top, _with_sums({**files, **forms}, lambda content: "0" * 64))

    files, left_out = within_limit(contents.files, contents.trainings, limit, size)
    if not left_out:
        return contents, forms
    print(*left_out, sep="\n")
    trainings = packed_trainings(contents.trainings, files)
    smaller = replace(contents, files=files, trainings=trainings)
    return smaller, make_forms(smaller)


def pack_runs(
    root: Path, recording: Recording, runs: Mapping[str, Mapping[str, Path]], with_data: bool
) -> tuple[Files, list[PackedTraining]]:
    """Return the files of the recorded runs and of their data, and each run's training."""
    files: dict[str, bytes | Path] = {}
    trainings = []
    for name, claim in recording.claims.items():
        for seed, run in runs[name].items():
            manifest, data = find_data(root, run, claim.conditions.data, with_data)
            place = PurePosixPath(run.relative_to(root).as_posix())
            files |= {**data, **tree(run, place)}
            context = read_context(run)
            values = claim.values_on(context.hardware_class) if context else claim.values
            text = f"{claim.text}: {claim.value_name} {values[seed]}"
            trainings.append(PackedTraining(f"{name}-seed-{seed}", text, str(place), manifest))
    return files, trainings


def make_forms(contents: Contents) -> Files:
    """Return the forms of all venues, and the crate that describes them and all other files.

    UserError if the commit has a file of such a name: it would be replaced.
    """
    forms: dict[str, bytes] = {}
    for generate in GENERATORS:
        forms |= generate(contents)
    names = {*forms, METADATA, SUMS}
    refuse(
        [
            f"{name} of the commit would be replaced: `archive` writes a file of this name: git mv"
            for name in sorted(names & contents.files.keys())
        ]
    )
    listed = {**contents.files, **forms, SUMS: b""}
    return {**forms, METADATA: describe(replace(contents, files=listed))}


def _with_sums(files: Files, digest: Callable[[Content], str] = content_digest) -> Files:
    """Return the files, and one with a line for each of them: its SHA-256, two spaces, its name."""
    lines = [f"{digest(files[name])}  {name}\n" for name in sorted(files)]
    return {**files, SUMS: "".join(lines).encode("utf-8", "surrogateescape")}
