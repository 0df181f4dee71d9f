"""Take out of an archive's files what tells who made them.

What is no condition is written anew: names, addresses, paths and ids give way to "anonymous", files
and folders are renamed, and digests that files state of each other are brought up to date. A
condition (code, settings, lock, data, and what other files state of these) is never changed, for it
would not give the recorded results again: an identity in one refuses the archive, with the file,
the line and what to do. What a person is, and what is only a word, is told in identities.py.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from repro.core import layout
from repro.core.bounded import parse_json
from repro.core.errors import SHOWN, UserError, refuse
from repro.environment.locks import LOCK
from repro.publishing.anonymity.containers import Opener
from repro.publishing.anonymity.documents import without_names
from repro.publishing.anonymity.identities import AUTHORS, Identities, find_identities
from repro.publishing.anonymity.people_lists import is_list_of_people
from repro.publishing.anonymity.rebuilt import read_to_change, rebuilt
from repro.publishing.anonymity.same_conditions import stated_conditions
from repro.publishing.anonymity.searching import Hit, search
from repro.publishing.anonymity.spellings import Spellings
from repro.publishing.anonymity.stated_digests import verdict_name, with_new_digests
from repro.publishing.contents import Contents, Files
from repro.results.about import read_about
from repro.results.claims import EXPECTED
from repro.results.document import DOCUMENT, blocks, fill_blocks
from repro.results.recording import ANONYMOUS, RecordedClaim, Recording, parse_recording

_REMEDY = (
    "conditions are never changed: take it out and make record, or --keep WORD if it tells nobody"
)

# The first commands of REPRODUCE.md: the repository's address is gone.
_CLONING = re.compile(rf"(?m)^git clone \S*{ANONYMOUS}\S*.*\n(?:cd .*\n)?")


@dataclass(frozen=True)
class AnonymousFiles:
    """Files that name nobody; `identities` were looked for, `unread` says where not."""

    files: dict[str, bytes | Path]
    executable: set[str]
    identities: Identities
    changed: list[str]
    left_out: list[str]
    unread: list[str]


def anonymise(
    root: Path,
    files: Files,
    executable: Collection[str],
    conditions: Collection[str],
    kept: Collection[str] = (),
) -> AnonymousFiles:
    """Return the files without identities; UserError if a condition holds one.

    `conditions`: the files that are never changed. `kept`: words that are no identity.
    """
    identities = find_identities(root, files, kept)
    replacing = _Replacing(identities, conditions)
    for name, content in sorted(files.items()):
        if name in conditions or not is_list_of_people(name):
            replacing.add(name, content)
    refuse(replacing.faults)
    new, outdated = with_new_digests(replacing.before, replacing.files, conditions)
    refuse(outdated)
    return AnonymousFiles(
        files=new,
        executable={replacing.named.get(name, name) for name in executable},
        identities=identities,
        changed=replacing.changed,
        left_out=sorted(files.keys() - replacing.named.keys()),
        unread=replacing.opener.unread,
    )


class _Replacing:
    """Files with other words in them: `named` are their new names, `before` what they were."""

    def __init__(self, identities: Identities, conditions: Collection[str]) -> None:
        self.files: dict[str, bytes | Path] = {}
        self.before: dict[str, bytes] = {}
        self.named: dict[str, str] = {}
        self.faults: list[str] = []
        self.opener = Opener()
        self._identities = identities
        self._conditions = conditions
        self._words = identities.spellings()
        self._words_for = identities.spellings_by_file()

    @property
    def changed(self) -> list[str]:
        """The files that are not as they were, by their new names."""
        return sorted({*self.before, *(new for old, new in self.named.items() if old != new)})

    def add(self, name: str, content: bytes | Path) -> None:
        """Take a file, changed where it may be; note a fault where that cannot be done."""
        hits = search(name, content, self._words_for(name), self.opener)
        if name in self._conditions:
            self.faults += [_of_condition(hit, self._identities) for hit in hits]
            self.named[name] = name
            self.files[name] = content
            return
        try:
            changed = _changed(name, content, hits, self._words)
        except UserError as error:
            self.faults += [f"{hits[0] if hits else name}: {line}" for line in error.lines]
            return
        new = self._new_name(name)
        if changed is not None:
            new = verdict_name(new, read_to_change(content), changed)
        self.named[name] = new
        if new in self.files:
            self.faults.append(f"{name} would be called {new}, which is there already: rename it")
        self.files[new] = content if changed is None else changed
        if changed is not None:
            self.before[new] = read_to_change(content)

    def _new_name(self, name: str) -> str:
        new = self._words.replace(name.encode("utf-8", "surrogateescape"))
        return new.decode("utf-8", "surrogateescape").replace(AUTHORS, ANONYMOUS)


def condition_files(
    files: Collection[str], committed: Collection[str], claims: Mapping[str, RecordedClaim]
) -> set[str]:
    """Return the files that are conditions: code as it was recorded, the lock, data."""
    code = {LOCK, *(name for claim in claims.values() for name in claim.conditions.code)}
    data = {name for name in files if not name.startswith(f"{layout.RUNS}/")} - {*committed}
    return (code | data) & {*files}


def of_nobody(contents: Contents, hidden: AnonymousFiles) -> Contents:
    """Return the contents of an archive with the files that name nobody, of no commit and time."""
    texts = {name: data for name, data in hidden.files.items() if isinstance(data, bytes)}
    recording = parse_recording(parse_json(texts[EXPECTED.as_posix()]))
    if recording is None:
        raise UserError(f"{EXPECTED}: cannot be read without identities; {_REMEDY}")
    words = hidden.identities.spellings()
    trainings = [
        replace(training, text=words.replace(training.text.encode()).decode())
        for training in contents.trainings
    ]
    return replace(
        contents,
        files={**hidden.files, DOCUMENT: _document(texts[DOCUMENT], contents.root, recording)},
        about=read_about(texts),
        recording=recording,
        trainings=trainings,
        commit=None,
        moment=0,
    )


def _document(text: bytes, root: Path, recording: Recording) -> bytes:
    """Return REPRODUCE.md without the SWHIDs of the recorded code, and without cloning it."""
    origin = blocks(root, recording)["commit"]
    filled = fill_blocks(text.decode(), {"commit": origin})
    return _CLONING.sub("# in the folder of the unpacked archive\n", filled).encode()


def _of_condition(hit: Hit, identities: Identities) -> str:
    return f"{hit} has {identities.told(hit.word)}: {_REMEDY}"


def _changed(name: str, content: bytes | Path, hits: list[Hit], words: Spellings) -> bytes | None:
    """Return a file's new bytes; None if it stays as it is. UserError if it cannot be changed."""
    in_it = any(not hit.is_in_name for hit in hits)
    if isinstance(content, Path) and not in_it and content.name != layout.CONTEXT:
        return None  # it may be large
    old = read_to_change(content)
    new = without_names(name, old)
    if in_it:
        new = rebuilt(new, words.replace)
    if new == old:
        if in_it:
            raise UserError("it is written in a way that nothing here can change: mend it by hand")
        return None
    if _states(name, new) != _states(name, old):
        raise UserError(f"an identity is in a condition that this file states; {_REMEDY}")
    return new


def _states(name: str, data: bytes) -> object:
    try:
        return stated_conditions(name, data)
    except (ValueError, SyntaxError, UserError, AttributeError, TypeError) as error:
        return f"unreadable: {type(error).__name__}"


def refuse_identities(files: Files, identities: Identities) -> None:
    """Raise UserError if any file, also one that was made for the archive, tells who made it."""
    words_for = identities.spellings_by_file()
    opener = Opener()
    faults = []
    for name, content in sorted(files.items()):
        if isinstance(content, bytes):  # those on the disk were searched, and had nothing
            for hit in search(name, content, words_for(name), opener):
                faults.append(f"{hit} still has {identities.told(hit.word)}: take it out by hand")
    refuse(faults)


def told(anonymous: AnonymousFiles) -> Iterator[str]:
    """Yield what the author is to know: what was done, and what was not looked for or into."""
    known = anonymous.identities.known
    yield f"searched for {len(known)} identities; changed {len(anonymous.changed)} files"
    for name in anonymous.left_out:
        yield f"left out: {name} (a list of people)"
    for line in anonymous.identities.left_out:
        yield f"not searched for: {line}"
    unread = [*dict.fromkeys(anonymous.unread)]
    for line in unread[:SHOWN]:
        yield f"not searched in: {line}"
    if more := unread[SHOWN:]:
        yield f"... and in {len(more)} more files"
