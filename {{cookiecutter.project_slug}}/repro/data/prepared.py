"""Prepare an author's data once, and give them to every training with the proof of what they are.

An author's module of data (`[tool.repro] data`) has `prepare(settings, folders)`, which gets the
raw data and writes what is read later, and `datasets(config, folder, facts)`. Promises that the
manifest holds the SHA-256 of every file; that data which were changed are named before a training;
and that they are prepared anew when the data set's settings or the project's Python files are other
ones. An author's own files, which stay where they are, are looked through again for other settings
alone.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from repro.core.bounded import parse_json
from repro.core.errors import UserError
from repro.core.files import Json, JsonObject, holding_lock
from repro.core.hashing import sha256_json
from repro.core.layout import DIGESTS, MANIFEST, PREPARED, RAW
from repro.core.redaction import redact_mapping, redact_shapes
from repro.core.secret_values import refuse_secret_names, without_secrets
from repro.core.special_files import resolved
from repro.data.digests import ALONE, States, Together, digests_of, states_of
from repro.data.known_digests import Memory, memory_of_command
from repro.data.manifest import (
    OWN_SETTING,
    SEAL,
    Manifest,
    files_below,
    files_of,
    hashed_files,
    read_manifest,
    refuse_changes,
    tree_digests,
    write_manifest,
)
from repro.data.own_files import note_folder, refuse_another_folder, setting_of

_PARTIAL = f"{PREPARED}.partial"
_OURS = ("code", "dataset", "files", OWN_SETTING, SEAL)  # what the kit writes into a manifest


class Folders(NamedTuple):
    """Where `prepare` finds and leaves data.

    `raw`: for downloads, kept. `out`: for the files that are read later; empty when it is called.
    `own`: the author's files, which stay where they are; None unless the module has `own_files`.
    """

    raw: Path
    out: Path
    own: Path | None


class DataModule(Protocol):
    """An author's module of data, which [tool.repro] names as `data`."""

    def prepare(self, settings: Any, folders: Folders, /) -> JsonObject:
        """Get the data, write them into `folders.out`, and return what is to be known of them.

        The facts are JSON: names of what is told apart, a vocabulary. `samples`, `source` and
        `raw_sha256` are told in REPRODUCE.md, and with `license` in an archive's croissant.json.
        `settings` are those of the data set alone, so one prepared folder serves every seed: the
        split is made in `datasets`.
        """
        ...

    def datasets(self, config: Any, folder: Path, facts: JsonObject, /) -> Any:
        """Return the data sets by name: "train", and those that the task validates and tests on.

        `folder`: what `prepare` wrote. `facts`: what it returned.
        """
        ...


class WithOwnFiles(Protocol):
    """What such a module has, too, if the author's files stay where they are."""

    def own_files(self, config: Any, /) -> Path | None:
        """Return the folder of the author's own files, or None: `datasets` then gets that folder.

        Each file's SHA-256 goes into the manifest, but of tar files that of their index.
        `prepare` finds the folder as `folders.own`.
        """
        ...


def facts_of(manifest: JsonObject) -> JsonObject:
    """Return what `prepare` returned, and the data set's name."""
    ours = ("files", "code", OWN_SETTING, SEAL)
    return {name: value for name, value in manifest.items() if name not in ours}


class Prepared(NamedTuple):
    """Prepared data: their `folder`, and all that the `manifest` says of them."""

    folder: Path
    manifest: Manifest

    @property
    def facts(self) -> JsonObject:
        """What `prepare` returned, and the data set's name."""
        return facts_of(self.manifest)


class Preparation:
    """The data of a config.

    `code`: the SHA-256 of each of the project's Python files, on which prepared data depend.
    """

    def __init__(self, root: Path, config: Any, author: Any, code: Iterable[str]) -> None:
        self._author: DataModule = author
        self._settings = config.dataset
        self._name: str = config.dataset.name
        self._place: Path = root / config.data_dir / self._name
        find_own: Callable[[Any], Path | None] = getattr(author, "own_files", lambda config: None)
        self._own = find_own(config)
        self._own_setting = setting_of(root, config, self._own)
        # An archive has the files by this name, where commands look for settings of paths alone.
        self._is_path = self._own_setting in getattr(config, "PATHS", ())
        self._refuse_to_write_among_own_files()
        # The digest of the settings, for the manifest goes into runs and archives: a value that
        # comes from the environment (${oc.env:DATA_URL}) is in no commit. And that of masked ones,
        # for the digest of a short secret can be guessed.
        settings = redact_mapping(config.dataset.model_dump(mode="json"), clean=redact_shapes)
        self._made_with: list[Json] = [sha256_json(settings), *code]

    def _refuse_to_write_among_own_files(self) -> None:
        """Raise UserError if the kit would write into the author's folder, or replace it."""
        if self._own is None:
            return
        own = resolved(self._own)
        place = resolved(self._place)
        replaced = (place / PREPARED, place / _PARTIAL)
        if place.is_relative_to(own) or any(own.is_relative_to(folder) for folder in replaced):
            raise UserError(
                f"dataset={self._name}: your own files are in {own}, and the kit keeps the "
                f"manifest and what it prepares in {place}: move your files elsewhere, such as to "
                f"{place.with_name('my_files')}, or give another data_dir"
            )

    @property
    def folder(self) -> Path:
        """Where the data lie that a training reads."""
        return self._own or self._place / PREPARED

    @property
    def path(self) -> Path:
        """Where the manifest lies."""
        return self._place / MANIFEST

    def prepare(self) -> Prepared:
        """Prepare the data, also where that was done before; an error leaves nothing behind."""
        with self._alone():
            return self._prepare(memory_of_command())

    def read(self, together: Together = ALONE, is_cached: bool = False) -> Prepared:
        """Return the data; prepare them where they are not, or were made by other code.

        All processes of a training call this together: they share the files to be hashed.
        `is_cached`: an earlier training's digests may stand for files that did not change since.
        UserError, with every file that is not as it was prepared.
        """
        memory = memory_of_command(self._place / DIGESTS if is_cached else None)
        prepared = together.first(lambda: self._prepared_if_due(memory))
        if prepared and together is ALONE:
            return prepared
        known = files_of(prepared.manifest, self.path) if prepared else None
        names = hashed_files(self.folder) if self.folder.is_dir() else []
        there = digests_of(self.folder, names, memory, together, known)
        manifest = read_manifest(self.path)
        recorded = files_of(manifest, self.path)
        if self._own:
            refuse_another_folder(self._own, self._own_setting, recorded, there, self.path)
        refuse_changes(self.folder, recorded, there, self.path)
        is_other = self._is_of_other_settings(manifest)
        together.first(lambda: self._prepared_for_settings(memory, there) if is_other else None)
        if is_other:
            manifest = read_manifest(self.path)
        return Prepared(self.folder, manifest)

    def _prepared_if_due(self, memory: Memory) -> Prepared | None:
        """Prepare the data if that is due, unless another job has done it meanwhile."""
        if not self._is_due():
            return None
        with self._alone():
            return self._prepare(memory) if self._is_due() else None  # the raw data are kept

    def _prepared_for_settings(self, memory: Memory, there: Mapping[str, str]) -> None:
        """Look through an author's own files, unless another job has done it meanwhile."""
        with self._alone():
            if self._is_of_other_settings(read_manifest(self.path)):
                self._prepare(memory, there)

    def _is_due(self) -> bool:
        """Tell whether there are no data, or those that other settings or other code made."""
        if not self.path.is_file():
            return True
        manifest = read_manifest(self.path)
        return not manifest or (self._own is None and manifest.get("code") != self._made_with)

    def _is_of_other_settings(self, manifest: Manifest) -> bool:
        """Tell whether an author's own files have to be looked through for these settings.

        For other code they are not looked through again, which may take minutes.
        """
        code = manifest.get("code")
        return not isinstance(code, list) or code[:1] != self._made_with[:1]

    def _prepare(self, memory: Memory, there: Mapping[str, str] | None = None) -> Prepared:
        """Prepare the data. `there`: the digests of the author's own files, if they were hashed."""
        before = self._own_states() if there else None
        partial = self._place / _PARTIAL
        shutil.rmtree(partial, ignore_errors=True)  # a killed preparation left it
        partial.mkdir()
        try:
            given = self._author.prepare(
                self._settings, Folders(self._place / RAW, partial, self._own)
            )
            facts = _as_json(given)
            is_same = before is not None and before == self._own_states()
            known = there if is_same else None
            files: JsonObject = {**tree_digests(self._own or partial, memory, known=known)}
            refuse_secret_names(files, f" of dataset={self._name}")
            if not files:
                raise UserError(f"dataset={self._name}: prepare wrote no file into folders.out")
            self.path.unlink(missing_ok=True)  # first: who reads the files meanwhile finds none
            final = self._place / PREPARED
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        own: JsonObject = {"dataset": self._name, "files": files, "code": self._made_with}
        if self._is_path:
            own[OWN_SETTING] = self._own_setting
        manifest = write_manifest(self.path, {**facts, **own})
        if self._own:
            note_folder(self._own, self.path)
        return Prepared(self.folder, manifest)

    def _own_states(self) -> States | None:
        """Return the states of the author's own files."""
        return states_of(self._own, files_below(self._own)) if self._own else None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other job prepare these data meanwhile, where the file system has locks."""
        made = [place for place in (self._place, self._place.parent) if not place.exists()]
        try:
            with holding_lock(self._place):
                yield
        finally:
            with suppress(OSError):  # there is something in them, unless it failed
                for place in made:
                    place.rmdir()

    def refuse_other(self, prepared: Prepared) -> None:
        """Raise UserError if another job has prepared other data since `prepared` was read."""
        if not self.path.is_file() or read_manifest(self.path) != prepared.manifest:
            raise UserError(
                f"{self.path} was written anew while its data were read: another job has other "
                "settings or code; give this one a data_dir of its own, or start it again"
            )


def _as_json(facts: object) -> JsonObject:
    """Return what an author's `prepare` returned, as the manifest will give it back."""
    if not isinstance(facts, dict):
        raise UserError(
            f"prepare(settings, folders) returned a {type(facts).__name__}: expected a dict of "
            "what is to be known of the data"
        )
    if taken := sorted(facts.keys() & {*_OURS}):
        raise UserError(
            f"prepare(settings, folders) returned {', '.join(taken)}, which the kit writes: choose "
            "another name"
        )
    try:
        facts = dict(parse_json(json.dumps(facts, allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"prepare(settings, folders) returned what no manifest can hold: {error}; expected "
            "text, finite numbers, lists and dicts of them"
        ) from error
    return without_secrets(facts, "the facts that prepare(settings, folders) returned")
