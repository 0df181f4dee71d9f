"""Find what tells who made a project, on which machine, in which repository.

Looked at are git's configuration, history and remotes, CITATION.cff, pyproject.toml, the licence,
this machine (host, user, home, the project's folder) and what the files of the runs say of the
machines that made them and of trackers. So another clone on another machine finds the same.

A word that tells nobody is left out: one of less than four ASCII characters; one of NOBODY, the
names that machines and services come with; and a single word that at least three files of the kit
hold, for then its place says nothing (an author called Test, a user called data). One that fewer of
them hold is looked for everywhere but in the kit. All of these are told to the author. Names of two
words, addresses, paths and ids are always looked for.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from repro.publishing.anonymity import machine_names
from repro.publishing.anonymity.git_people import people_of_git, remotes
from repro.publishing.anonymity.identity_sources import DOI, StatedNames, stated_in_files
from repro.publishing.anonymity.kit_words import KIT, tells_nobody_in_kit, words_in_kit
from repro.publishing.anonymity.name_forms import logins, phrases, without_accents
from repro.publishing.anonymity.nobody import (
    FORGES,
    NOBODY,
    SYSTEM_FOLDERS,
    domain_is_everybodys,
)
from repro.publishing.anonymity.object_ids import ids_in_files
from repro.publishing.anonymity.spellings import Spellings
from repro.publishing.contents import Files
from repro.results.recording import ANONYMOUS

_SHORTEST = 4  # characters
_SHORTEST_OF_OTHERS = 2  # characters, if not all are ASCII: a whole name may be two signs
AUTHORS = "Anonymous authors"
_IN_FILES_OF_THE_KIT = 3


@dataclass(frozen=True)
class Identity:
    """A text that tells who or where, what it is, and what is written instead of it.

    `in_files`: it tells nobody if it is a word of so many files of the kit.
    """

    text: str
    what: str
    new: str = ANONYMOUS
    in_files: int = _IN_FILES_OF_THE_KIT


@dataclass(frozen=True)
class Identities:
    """The identities to look for, by their texts, and a line for each that is not looked for.

    `not_in_kit`: those that the kit's own files may hold.
    """

    known: dict[str, Identity]
    left_out: list[str]
    not_in_kit: set[str] = field(default_factory=set)

    def spellings(self) -> Spellings:
        """Return what finds them in bytes, and replaces them."""
        return Spellings({text: identity.new for text, identity in self.known.items()})

    def spellings_by_file(self) -> Callable[[str], Spellings]:
        """Return what gives, by a file's name, what finds those that may not be in it."""
        everywhere = self.spellings()
        known = {t: i for t, i in self.known.items() if t not in self.not_in_kit}
        in_kit = Identities(known, []).spellings()
        return lambda name: in_kit if name.startswith(KIT) else everywhere

    def told(self, word: str) -> str:
        """Return an identity in words, for the author."""
        return f"{word!r} ({self.known[word].what})"


def find_identities(root: Path, files: Files, kept: Collection[str] = ()) -> Identities:
    """Find the identities of a project and of this machine; `kept` are words that are none."""
    stated = stated_in_files(files)
    found = _Collector({word.casefold() for word in kept}, stated.project)
    found.add_stated(stated)
    for name, address in people_of_git(root):
        found.add_person(name, "in git's configuration or history")
        found.add_address(address, "in git's configuration or history")
    for url in remotes(root):
        found.add_repository(url, "a remote of git")
    found.add_machine(root)
    for text in ids_in_files(root, files, stated.commits):
        found.add(text, "an id of an object of git")
    return found.identities(files)


def _words_of(name: str) -> set[str]:
    return {*re.findall(r"[^\W_]+", name.casefold())}


class _Collector:
    """Collects texts; `kept` are those that the author said are nobody's."""

    def __init__(self, kept: Collection[str], project: str) -> None:
        self._kept = kept
        self._project = project
        self._found: dict[str, Identity] = {}
        self._folded: set[str] = set()
        self._left_out: dict[str, str] = {}

    def add(
        self,
        text: str,
        what: str,
        new: str = ANONYMOUS,
        in_files: int = _IN_FILES_OF_THE_KIT,
    ) -> None:
        """Take a text, unless it tells nobody."""
        text = " ".join(text.split()).strip("/.,;:")
        folded = text.casefold()
        if not text or folded in self._kept:
            return
        shortest = _SHORTEST if text.isascii() else _SHORTEST_OF_OTHERS
        if len(text) < shortest:
            self._leave_out(text, what, f"has less than {shortest} characters")
        elif folded in NOBODY:
            self._leave_out(text, what, "is a name that tells nobody")
        elif folded not in self._folded:
            self._folded.add(folded)
            self._found[text] = Identity(text, what, new, in_files)

    def _leave_out(self, text: str, what: str, why: str) -> None:
        self._left_out.setdefault(text, f"{text!r} ({what}) {why}")

    def add_stated(self, stated: StatedNames) -> None:
        """Take what the project's files and the runs state."""
        for texts, take in (
            (stated.people, self.add_person),
            (stated.addresses, self.add_address),
            (stated.repositories, self.add_repository),
            (stated.hosts, self.add_host),
            (stated.folders, self.add_folder),
            (stated.words, self.add),
        ):
            for text, what in texts:
                take(text, what)
        for text, what in stated.institutions:  # Meta, NVIDIA: locks are full of some
            self.add(text, what, in_files=1)

    def add_person(self, name: str, what: str) -> None:
        """Take a name as it is, with the family name first, each of its words, and its forms."""
        name = " ".join(name.split())
        self.add(name, what, AUTHORS)
        if name.casefold() in NOBODY:
            return
        for phrase in phrases(name):
            self.add(phrase, what, AUTHORS)
        for part in re.split(r"[\s,]+", name):
            self.add(part, f"a part of the name {name!r}, {what}")
        self._add_forms(name, f"a form of the name {name!r}, {what}")

    def _add_forms(self, name: str, what: str) -> None:
        """Take how others may write a name, without a word on those that are too short."""
        forms = [*logins(name)]
        for plain in without_accents(name):
            forms += [plain, *phrases(plain), *logins(plain), *plain.split()]
        forms += [part for word in name.split() if "-" in word for part in word.split("-")]
        for form in dict.fromkeys(forms):
            if len(form) >= _SHORTEST and form.casefold() not in NOBODY:
                self.add(form, what, AUTHORS if " " in form else ANONYMOUS)

    def add_address(self, address: str, what: str) -> None:
        """Take an e-mail address, the account in it, and its domain if that is not everybody's."""
        address = address.strip(" <>")
        account, at, domain = address.partition("@")
        account = re.sub(r"^[0-9]+\+", "", account)  # GitHub's addresses begin with a number
        is_everybodys = domain_is_everybodys(domain)
        if not at or (account.casefold() in NOBODY and is_everybodys):
            return
        self.add(address, what)
        self.add(account, f"the account of an address, {what}")
        owner, plus, _ = account.partition("+")
        if plus:
            self.add(f"{owner}@{domain}", what)
            self.add(owner, f"the account of an address, {what}")
        if not is_everybodys:
            self.add(domain, f"the domain of an address, {what}")
            first, _, above = domain.partition(".")
            if first.casefold() in NOBODY and "." in above:  # mail.thornlab.org
                self.add(above, f"the domain of an address, {what}")

    def add_repository(self, url: str, what: str) -> None:
        """Take the address of a repository, its host if it is no public forge, and its owner."""
        if re.match(r"(file://|[/~.]|[A-Za-z]:[\\/])", url):
            self.add_folder(re.sub("^file://|[.]git/?$", "", url), what)
            return
        if page := re.fullmatch(r"https?://(?:www\.)?([^/:@?#]+)/?", url.strip()):
            self.add(url, what)
            if page[1].casefold() not in FORGES:
                self.add_host(page[1], f"the host of {what}")
            return
        parts = re.fullmatch(
            r"(?:[\w+.-]+://)?(?:([^@/]+)@)?([^:/]+)(?::\d+/|[:/]/*)(.+)", url.strip()
        )
        if not parts:
            return
        if doi := DOI.search(url):  # its first part is the publisher's
            self.add(doi[0], f"the DOI in {what}")
            return
        user, host, path = parts.groups("")
        path = re.sub(r"(\.git)?/*$", "", path.partition("?")[0])
        self.add(url, what)
        self.add(f"{host}/{path}", what)
        self.add(f"{host}:{path}", what)
        *owners, repository = path.split("/")
        if owners:
            self.add(path, what)
        self.add(owners[0] if owners else "", f"the owner of {what}")
        if _words_of(repository) <= _words_of(self._project):
            self._leave_out(repository, f"the name of {what}", "is in the project's own name")
        else:
            self.add(repository, f"the name of {what}")
        if host.casefold() not in FORGES:
            self.add_host(host, f"the host of {what}")
        if user not in ("", "git"):
            self.add(user.partition(":")[0], f"the user of {what}")

    def add_host(self, host: str, what: str) -> None:
        """Take the name of a machine, with and without its domain."""
        self.add(host, what)
        self.add(host.partition(".")[0], what)

    def add_folder(self, path: str, what: str) -> None:
        """Take a path, those above it that are nobody else's, and whose home it lies in."""
        if home := machine_names.account_of(path):
            self.add(home, f"the home folder of {what}")
        parts = re.split(r"[\\/]+", path.rstrip("\\/"))
        separator = "\\" if "\\" in path else "/"
        for length in range(len(parts), 2, -1):
            above = separator.join(parts[:length])
            own = length == len(parts) or parts[1].casefold() not in SYSTEM_FOLDERS
            if own and not {part.casefold() for part in parts[2:length]} <= NOBODY:
                self._add_path(above, what)

    def _add_path(self, path: str, what: str) -> None:
        """Take a path with its first slash, which `add` would take away."""
        bare = path.strip("/.,;:")
        if bare.casefold() not in self._kept and path not in self._found:
            self._folded.add(path.casefold())
            self._found[path] = Identity(path, what)

    def add_machine(self, root: Path) -> None:
        """Take the names of this machine and of its user, and where the project lies."""
        for user in machine_names.users():
            self.add(user, "the user of this machine")
        for name in machine_names.real_names():
            self.add_person(name, "the real name of this machine's user")
        for host in machine_names.hosts():
            self.add_host(host, "the host name of this machine")
        for home in machine_names.homes():
            self.add_folder(home, "this machine's user")
        for account in machine_names.accounts():
            self.add(account, "an account that the environment names")
        self.add_folder(str(root), "the folder of the project")

    def identities(self, files: Files) -> Identities:
        """Return what was collected, without the words that the kit is full of."""
        not_in_kit = set()
        for text, names in words_in_kit(self._found, files).items():
            what = self._found[text].what
            if len(names) >= self._found[text].in_files and re.fullmatch(r"\w+", text):
                del self._found[text]
                self._leave_out(text, what, f"is a word of {len(names)} files of the kit")
            elif tells_nobody_in_kit(text):
                not_in_kit.add(text)
                self._leave_out(text, what, f"in the kit alone: {names[0]} of every project has it")
        return Identities(self._found, [*self._left_out.values()], not_in_kit)
