"""Prepared data: made once, made anew when they would be others, and never taken when changed."""

import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from repro.core.errors import UserError
from repro.core.files import Json, JsonObject
from repro.core.hashing import sha256_file, sha256_of
from repro.data import digests, known_digests
from repro.data.manifest import (
    SEAL,
    Manifest,
    command_to_prepare,
    data_digest,
    files_of,
    tree_digests,
    write_manifest,
)
from repro.data.prepared import Folders, Preparation
from repro.runs.conditions import dataset_facts
from repro.runs.settings import Settings


class Dataset(Settings):
    name: str = "mine"
    size: int = 3


class Config(Settings):
    PATHS: ClassVar[tuple[str, ...]] = ("image_dir",)

    dataset: Dataset = Dataset()
    data_dir: str = "data"
    image_dir: str | None = None


class Author:
    """A module of data; `facts` is what its `prepare` returns."""

    def __init__(self, facts: Any = None) -> None:
        self.facts = {"classes": ("a", "b"), 7: 0.5} if facts is None else facts
        self.calls = 0

    def prepare(self, settings: Dataset, folders: Folders) -> Any:
        self.calls += 1
        assert [*folders.out.iterdir()] == []
        folders.raw.mkdir(exist_ok=True)
        (folders.raw / "download").write_text("kept")
        (folders.out / "below").mkdir()
        for number in range(settings.size):
            (folders.out / "below" / f"{number}.txt").write_text(str(number))
        return self.facts

    def datasets(self, config: Any, folder: Path, facts: Any) -> Any:
        return {"train": [*folder.rglob("*.txt")]}


class OwnFiles(Author):
    """The files stay where the author has them."""

    folder: Path

    def own_files(self, config: Any) -> Path:
        return self.folder

    def prepare(self, settings: Dataset, folders: Folders) -> Any:
        self.calls += 1
        assert folders.own == self.folder
        return {"samples": len([*self.folder.iterdir()])}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "data.py"
    path.write_text("x = 1\n")
    return path


def preparation(root: Path, author: Author, own: Path | None = None, size: int = 3) -> Preparation:
    config = Config(dataset=Dataset(size=size), image_dir=str(own) if own else None)
    return Preparation(root, config, author, [sha256_file(root / "data.py")])


def test_data_are_prepared_once_and_are_what_is_read(tmp_path: Path, code: Path) -> None:
    author = Author()
    first = preparation(tmp_path, author).read()
    again = preparation(tmp_path, author).read()
    assert author.calls == 1
    assert again == first  # also where JSON has lists for tuples and text for a number
    assert first.facts == {"classes": ["a", "b"], "7": 0.5, "dataset": "mine"}
    assert first.folder == tmp_path / "data/mine/prepared"
    assert [*first.manifest["files"]] == [f"below/{number}.txt" for number in range(3)]  # type: ignore[arg-type, misc]
    preparation(tmp_path, author).refuse_other(first)
    assert sorted(path.name for path in (tmp_path / "data/mine").iterdir()) == [
        "manifest.json",
        "prepared",
        "raw",
    ]


def test_data_are_prepared_anew_for_other_settings_and_other_code(
    tmp_path: Path, code: Path
) -> None:
    author = Author()
    digests = {data_digest(preparation(tmp_path, author).read().manifest)}
    found = preparation(tmp_path, author, size=2).read()
    assert (author.calls, len([*found.folder.rglob("*.txt")])) == (2, 2)
    digests.add(data_digest(found.manifest))
    assert len(digests) == 2
    code.write_text("x = 2\n")
    found = preparation(tmp_path, author, size=2).read()
    assert author.calls == 3
    assert data_digest(found.manifest) in digests  # the same files: the same data
    preparation(tmp_path, author, size=2).prepare()
    assert author.calls == 4


@pytest.mark.parametrize("own", ["data/mine", "data", ".", "data/mine/prepared", "link", "linked"])
def test_the_kit_writes_nothing_among_an_authors_files(
    tmp_path: Path, code: Path, own: str
) -> None:
    """A manifest among images would be one of them, and `prepared` is replaced as a whole."""
    author = OwnFiles()
    author.folder = tmp_path / own
    if own.startswith("link"):
        target = tmp_path / "elsewhere"
        target.mkdir()
        (tmp_path / own).symlink_to(target)
        (tmp_path / "data").mkdir()
        (tmp_path / "data/mine").symlink_to(target if own == "link" else tmp_path / own)
    author.folder.mkdir(parents=True, exist_ok=True)
    (author.folder / "a.png").write_text("a")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"your own files are in .* move your files elsewhere"):
        preparation(tmp_path, author).read()
    assert (author.calls, sorted(tmp_path.rglob("*"))) == (0, before)


def test_an_authors_files_may_lie_beside_the_manifest(tmp_path: Path, code: Path) -> None:
    author = OwnFiles()
    author.folder = tmp_path / "data/mine/train"
    author.folder.mkdir(parents=True)
    (author.folder / "a.png").write_text("a")
    first = preparation(tmp_path, author).read()
    assert preparation(tmp_path, author).read() == first
    assert author.calls == 1


def test_each_file_that_is_not_as_it_was_prepared_is_named(tmp_path: Path, code: Path) -> None:
    author = Author()
    folder = preparation(tmp_path, author).read().folder / "below"
    (folder / "0.txt").write_text("other")
    (folder / "1.txt").unlink()
    (folder / "9.txt").write_text("")
    with pytest.raises(UserError) as error:
        preparation(tmp_path, author).read()
    assert [line.partition(", says")[0] for line in error.value.lines] == [
        f"{folder}/0.txt: changed",
        f"{folder}/1.txt: missing",
        f"{folder}/9.txt: extra",
    ]
    preparation(tmp_path, author).prepare()
    assert len(preparation(tmp_path, author).read().manifest["files"]) == 3  # type: ignore[arg-type]


def test_what_another_job_has_prepared_meanwhile_is_refused(tmp_path: Path, code: Path) -> None:
    mine = preparation(tmp_path, Author())
    prepared = mine.read()
    preparation(tmp_path, Author(), size=2).read()
    with pytest.raises(UserError, match="was written anew while its data were read: another job"):
        mine.refuse_other(prepared)
    mine.path.unlink()
    with pytest.raises(UserError, match="was written anew while its data were read"):
        mine.refuse_other(prepared)


REFUSED: dict[str, Any] = {
    "returned a list: expected a dict of what is to be known": [1],
    "returned a Tensor: expected a dict": torch.ones(1),
    "returned dataset, files, which the kit writes: choose": {
        "files": 3,
        "dataset": 1,
    },
    "no manifest can hold: Object of type Tensor is not JSON": {"mean": torch.ones(1)},
    "no manifest can hold: Out of range float values": {"mean": float("nan")},
}


@pytest.mark.parametrize("words", REFUSED)
def test_facts_that_no_manifest_can_hold_are_refused(
    tmp_path: Path, code: Path, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        preparation(tmp_path, Author(REFUSED[words])).read()
    assert [path.name for path in (tmp_path / "data/mine").iterdir()] == ["raw"]


def test_a_preparation_that_fails_leaves_the_data_as_they_were(tmp_path: Path, code: Path) -> None:
    class Failing(Author):
        def prepare(self, settings: Dataset, folders: Folders) -> Any:
            (folders.out / "half").write_text("half")
            raise ZeroDivisionError

    class Empty(Author):
        def prepare(self, settings: Dataset, folders: Folders) -> Any:
            return {}

    with pytest.raises(ZeroDivisionError):
        preparation(tmp_path, Failing()).read()
    with pytest.raises(UserError, match=r"dataset=mine: prepare wrote no file into folders.out"):
        preparation(tmp_path, Empty()).read()
    assert not (tmp_path / "data").exists()
    before = preparation(tmp_path, Author()).read()
    with pytest.raises(ZeroDivisionError):
        preparation(tmp_path, Failing()).prepare()
    author = Author()
    assert preparation(tmp_path, author).read() == before
    assert author.calls == 0


def test_what_a_killed_preparation_left_is_taken_away(tmp_path: Path, code: Path) -> None:
    left = tmp_path / "data/mine/prepared.partial"
    left.mkdir(parents=True)
    (left / "half").write_text("")
    preparation(tmp_path, Author()).read()  # its prepare asserts that its folder is empty
    assert not left.exists()


def test_an_authors_own_files_stay_where_they_are(tmp_path: Path, code: Path) -> None:
    author = OwnFiles()
    author.folder = tmp_path / "mine"
    author.folder.mkdir()
    for name in "ab":
        (author.folder / name).write_text(name)
    found = preparation(tmp_path, author).read()
    assert (found.folder, found.facts["samples"]) == (author.folder, 2)
    code.write_text("x = 2\n")  # to look at all files again may take minutes
    preparation(tmp_path, author).read()
    assert author.calls == 1
    (author.folder / "b").write_text("other")
    with pytest.raises(UserError, match="mine/b: changed, says"):
        preparation(tmp_path, author).read()
    with pytest.raises(UserError, match="mine/b: changed, says"):
        preparation(tmp_path, author, size=4).read()
    (author.folder / "b").write_text("b")
    preparation(tmp_path, author, size=4).read()
    assert author.calls == 2


def folder_of(place: Path, *names: str) -> Path:
    place.mkdir()
    for name in names:
        (place / name).write_text(f"{place.name} {name}")
    return place


@pytest.mark.parametrize("is_noted", [True, False])
def test_another_folder_is_told_by_its_setting_and_not_by_its_files(
    tmp_path: Path, code: Path, is_noted: bool
) -> None:
    """Also of data whose manifest an older kit wrote, which did not note the folder."""
    author = OwnFiles()
    author.folder = first = folder_of(tmp_path / "first", *"abc")
    preparation(tmp_path, author, first).read()
    if not is_noted:
        (tmp_path / "data/mine/.own_files").unlink()
    author.folder = second = folder_of(tmp_path / "second", *"bcd")
    with pytest.raises(UserError) as refused:
        preparation(tmp_path, author, second).read()
    (line,) = refused.value.lines
    assert line.startswith(f"image_dir={second} has other files (a, b and 2 more) than ")
    assert (str(first) in line) == is_noted
    assert f'make data ARGS="image_dir={second}"' in line  # the project has no such choice
    preparation(tmp_path, author, second).prepare()
    preparation(tmp_path, author, second).read()


def test_a_data_set_is_named_only_where_the_project_can_choose_it(tmp_path: Path) -> None:
    """One whose settings stand in config.yaml itself is no choice: dataset=mine would be text."""
    assert command_to_prepare("mine", "x=1", tmp_path) == 'make data ARGS="x=1"'
    folder_of(tmp_path / "configs")
    folder_of(tmp_path / "configs" / "dataset", "mine.yaml")
    assert command_to_prepare("mine", "x=1", tmp_path) == 'make data ARGS="dataset=mine x=1"'


def test_the_setting_of_own_files_is_known_and_no_condition(tmp_path: Path, code: Path) -> None:
    author = OwnFiles()
    author.folder = own = folder_of(tmp_path / "first", *"abc")
    named = preparation(tmp_path, author, own).read()
    assert dataset_facts(named.manifest).own_files == "image_dir"
    assert "image_dir" not in named.facts.values()

    class Unlisted(Config):
        PATHS: ClassVar[tuple[str, ...]] = ()  # commands do not look for such a one elsewhere

    settings = Unlisted(image_dir=str(own))
    unlisted = Preparation(tmp_path, settings, author, [sha256_file(code)]).prepare()
    assert dataset_facts(unlisted.manifest).own_files is None
    unnamed = preparation(tmp_path, author).prepare()
    assert dataset_facts(unnamed.manifest).own_files is None
    assert data_digest(unnamed.manifest) == data_digest(named.manifest)


def test_the_same_files_elsewhere_are_no_fault(tmp_path: Path, code: Path) -> None:
    author = OwnFiles()
    author.folder = folder_of(tmp_path / "first", *"abc")
    before = preparation(tmp_path, author).read()
    author.folder = author.folder.rename(tmp_path / "moved")
    assert preparation(tmp_path, author).read().manifest == before.manifest
    (author.folder / "a").write_text("other")
    with pytest.raises(UserError, match="moved has other files"):
        preparation(tmp_path, author).read()


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n"


def test_what_stands_for_content_or_comes_from_a_desktop_is_named(
    tmp_path: Path, code: Path
) -> None:
    """Each kind in one line: a clone without git LFS has a pointer for every file."""
    author = OwnFiles()
    author.folder = folder_of(tmp_path / "mine", *"abcd")
    preparation(tmp_path, author).read()
    for name in "abc":
        (author.folder / name).write_text(POINTER.format("0" * 64))
    (author.folder / "d").write_text("/annex/objects/SHA256E-s1--0\n")
    for name in ("Thumbs.db", "desktop.ini", "e.dvc"):
        (author.folder / name).write_bytes(b"\xd0\xcf")
    (author.folder / ".DS_Store").write_text("hidden files are no data")
    with pytest.raises(UserError) as refused:
        preparation(tmp_path, author).read()
    told = {line.partition(": ")[2]: line.partition(": ")[0] for line in refused.value.lines}
    place = author.folder
    assert told == {
        "left by a file manager, and no data: delete it": f"{place}/Thumbs.db, {place}/desktop.ini",
        "a pointer of git LFS in the place of the content: git lfs pull gets it": (
            f"{place}/a, {place}/b, {place}/c"
        ),
        "a pointer of git-annex in the place of the content: git annex get . gets it": (
            f"{place}/d"
        ),
        "a note of DVC and no data: dvc pull gets them; keep the note outside of them": (
            f"{place}/e.dvc"
        ),
    }


def test_a_link_of_git_annex_without_its_content_is_named(tmp_path: Path, code: Path) -> None:
    author = OwnFiles()
    author.folder = folder_of(tmp_path / "mine", "a")
    (author.folder / "b").symlink_to("../.git/annex/objects/x/SHA256E-s1--0")
    with pytest.raises(UserError, match="mine/b: a link of git-annex, whose content is not there"):
        preparation(tmp_path, author).read()


class Slow(Author):
    """Tells in a file when it begins and when it ends."""

    def prepare(self, settings: Dataset, folders: Folders) -> Any:
        log = folders.raw.parents[2] / "log"
        with log.open("a") as file:
            file.write("begins\n")
        time.sleep(0.3)
        facts = super().prepare(settings, folders)
        with log.open("a") as file:
            file.write("ends\n")
        return facts


def read_slowly(root: Path) -> None:
    preparation(root, Slow()).read()


def begin_together(act: Callable[[Path], None], root: Path) -> None:
    """Let three processes do the same in the same moment, and all end well."""
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=act, args=(root,)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0, 0, 0]


def test_of_jobs_that_begin_together_one_prepares(tmp_path: Path, code: Path) -> None:
    begin_together(read_slowly, tmp_path)
    assert (tmp_path / "log").read_text().split() == ["begins", "ends"]
    manifest = json.loads((tmp_path / "data/mine/manifest.json").read_text())
    assert len(manifest["files"]) == 3
    assert not [*tmp_path.rglob(".lock")]


class Failing(Author):
    def prepare(self, settings: Dataset, folders: Folders) -> Any:
        time.sleep(0.3)
        raise UserError("no network")


def fail_slowly(root: Path) -> None:
    with pytest.raises(UserError, match="no network"):
        preparation(root, Failing()).read()


def test_of_jobs_that_begin_together_each_tells_why_it_failed(tmp_path: Path, code: Path) -> None:
    # One that fails removes the folder that it made, whose lock the others wait for.
    begin_together(fail_slowly, tmp_path)


def test_own_files_are_hashed_once_also_for_other_settings(
    tmp_path: Path, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counted(file: Any) -> str:
        hashed.append(Path(file.name).name)
        return sha256_of(file)

    author = OwnFiles()
    author.folder = tmp_path / "mine"
    author.folder.mkdir()
    for name in "ab":
        (author.folder / name).write_text(name)
    monkeypatch.setattr(digests, "sha256_of", counted)
    monkeypatch.setattr(known_digests, "untrusted_kind", lambda path: "a disk without times")
    for size in (3, 4):
        preparation(tmp_path, author, size=size).read(is_cached=True)
        assert (sorted(hashed), author.calls) == (["a", "b"], size - 2)
        hashed.clear()

    class Changing(OwnFiles):
        def prepare(self, settings: Dataset, folders: Folders) -> Any:
            (self.folder / "b").write_text("other")
            return super().prepare(settings, folders)

    changing = Changing()
    changing.folder = author.folder
    found = preparation(tmp_path, changing, size=5).read().manifest["files"]
    assert found == tree_digests(author.folder)  # what `prepare` has changed, against the rules


def test_a_damaged_list_of_files_is_named(tmp_path: Path, code: Path) -> None:
    made = preparation(tmp_path, Author())
    manifest = without_seal(made.read().manifest)
    lists: list[Json] = [[], {"a": 1}, None]
    for files in lists:  # with a seal that fits, as somebody writes who means harm
        write_manifest(made.path, {**manifest, "files": files})
        with pytest.raises(UserError, match=r"manifest.json is damaged \(no SHA-256 of each file"):
            made.read()
    del manifest["files"], manifest["code"]
    write_manifest(made.path, manifest)
    assert len(files_of(made.read().manifest, made.path)) == 3  # prepared anew: by other code
    own = OwnFiles()
    own.folder = folder_of(tmp_path / "mine", *"ab")
    made = preparation(tmp_path, own)
    made.prepare()
    write_manifest(made.path, manifest)
    with pytest.raises(UserError, match=r"manifest.json is damaged \(no SHA-256 of each file"):
        made.read()


def without_seal(manifest: Manifest) -> JsonObject:
    return {name: value for name, value in manifest.items() if name != SEAL}


def test_a_cache_is_beside_the_manifest_and_changes_nothing(tmp_path: Path, code: Path) -> None:
    plain = preparation(tmp_path, Author()).read()
    for _ in range(2):
        assert preparation(tmp_path, Author()).read(is_cached=True) == plain
    left = {path.name for path in (tmp_path / "data/mine").iterdir()} - {".digests.json"}
    assert left == {"manifest.json", "prepared", "raw"}
    (plain.folder / "below" / "1.txt").write_text("other")
    with pytest.raises(UserError, match=r"1.txt: changed, says"):
        preparation(tmp_path, Author()).read(is_cached=True)
