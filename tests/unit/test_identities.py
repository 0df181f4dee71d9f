"""Who made a project: what tells it, how it is spelled in bytes, and how it is taken out."""

import base64
import bz2
import gzip
import html
import io
import json
import lzma
import sqlite3
import struct
import subprocess
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import numpy
import pytest
from conftest import TEMPLATE
from repro.core.errors import UserError
from repro.publishing.anonymity import anonymous, base64_texts, containers, machine_names, searching
from repro.publishing.anonymity.candidates import candidates
from repro.publishing.anonymity.containers import Opener
from repro.publishing.anonymity.documents import without_names
from repro.publishing.anonymity.identities import Identities, Identity, find_identities
from repro.publishing.anonymity.people_lists import is_list_of_people
from repro.publishing.anonymity.rebuilt import rebuilt
from repro.publishing.anonymity.same_conditions import stated_conditions
from repro.publishing.anonymity.searching import search
from repro.publishing.anonymity.spellings import Spellings
from repro.publishing.anonymity.stated_digests import with_new_digests
from repro.publishing.contents import PackedTraining
from repro.publishing.limit import parse_size, within_limit, zip_size
from repro.publishing.zip_file import write_zip

PNG = b"\x89PNG\r\n\x1a\n"

# How a word is spelled -------------------------------------------------------------------------

SPELLINGS: dict[str, Callable[[str], bytes]] = {
    "UTF-8": str.encode,
    "upper case": lambda text: text.upper().encode(),
    "UTF-16, little end first": lambda text: text.encode("utf-16-le"),
    "UTF-16, big end first": lambda text: text.encode("utf-16-be"),
    "UTF-16 with a mark": lambda text: text.encode("utf-16"),
    "percent": lambda text: quote(f" {text} ").encode(),
    "each byte with a percent": lambda text: b"".join(b"%%%02X" % byte for byte in text.encode()),
    "JSON": lambda text: json.dumps(f"\n{text}\t").encode(),
    "each unit of JSON": lambda text: b"".join(b"\\u%04x" % ord(sign) for sign in text),
    "JSON in JSON": lambda text: json.dumps(json.dumps(f"{text}/")).encode(),
    "HTML": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace"),
    "octal": lambda text: "".join(
        sign if sign.isascii() else "".join(f"\\{byte:03o}" for byte in sign.encode())
        for sign in text
    ).encode(),
    "after bytes that are no text": lambda text: b"\xff\x00\xfe" + text.encode() + b"\xff\x00",
}
WORDS = ("quagmire", "Zoë Quagmire", "Müller", "李小龙李", "O'Brien", "/home/quag/x", "q@x-y.org")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_word_is_found_and_replaced_in_each_spelling(spelling: str, word: str) -> None:
    words = Spellings(dict.fromkeys(WORDS, "anonymous"))
    data = b"a line\n" * 2 + SPELLINGS[spelling](word) + b"\n"
    assert {found.word for found in words.find(data)} >= {word}
    assert words.find(words.replace(data)) == []
    wide = spelling.startswith("UTF-16")
    new = "anonymous".encode(f"utf-16-{'be' if 'big' in spelling else 'le'}")
    assert (new if wide else b"anonymous") in words.replace(data)


def test_a_line_is_named_also_where_only_escapes_spell_the_word() -> None:
    words = Spellings({"Müller": "anonymous"})
    assert [found.line for found in words.find(b"one\ntwo\nM\\u00fcller\n")] == [3]
    assert [found.line for found in words.find("one\nMüller".encode(), line=7)] == [8]


def test_escapes_in_escapes_in_escapes_are_found() -> None:
    words = Spellings({"Müller": "anonymous"})
    text = html.escape(quote(json.dumps("by Müller"))).replace("%", "&#37;")
    assert "ller" in text
    assert [found.line for found in words.find(f"x\n{text}".encode())] == [2]


@pytest.mark.parametrize("unit", ["\\", "\\u", "\\ud83d", "{\\", "&#", "=c3", "%25", "mia\n# "])
def test_a_search_takes_time_in_proportion_to_a_lines_length(unit: str) -> None:
    """Ten times that of a tenth of it, and not a hundred times."""
    words = Spellings({"Mia Quagmire": "someone"})
    took = []
    for length in (40_000, 400_000):
        line = (unit * (length // len(unit))).encode()
        start = time.process_time()
        search("notes.txt", line, words, Opener())
        took.append(time.process_time() - start)
    assert took[1] < 40 * max(took[0], 0.005)


def test_a_longer_word_is_another_one() -> None:
    words = Spellings({"li wei lang": "anonymous", "/home/lang": "anonymous"})
    assert not words.find(b"xli wei lang or li wei langx")
    assert not words.find(b"\0x\0l\0i\0 \0w\0e\0i\0 \0l\0a\0n\0g\0")
    assert words.find(b"0/home/lang")  # bytes before a path may be its length


def test_a_word_may_lie_where_a_file_is_cut_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_CHUNK", 64)
    words = Spellings({"Zoë Quagmire": "anonymous"})
    for before in range(50, 70):
        text = b"\n" + b"." * before + "Zoë Quagmire".encode() + b"." * 200
        (hit,) = search("file", text, words, Opener())
        assert hit.line == 2


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        *(("xquagmire", False), ("quagmire2", False), ("quagmires", False), ("7quagmire", False)),
        *(
            ("the_quagmire_x", True),
            ("quagmire-2", True),
            ("“quagmire”", True),
            (".quagmire/", True),
        ),
        *((r"\nquagmire\n", True), ("%20quagmire%20", True), ("x20quagmire", False)),
    ],
)
def test_only_whole_words_are_found(text: str, whole: bool) -> None:
    words = Spellings({"quagmire": "anonymous"})
    assert bool(words.find(text.encode())) is whole
    assert (words.replace(text.encode()) != text.encode()) is whole


NARROW = ("UTF-8", "JSON")
EACH = (*NARROW, *list(SPELLINGS)[2:4])
AROUND = ("  ", "_-", "«»", "“”", "\n.")
OF_OTHER_LETTERS = [
    *(("Иван", f"{before}ИВАН{after}", True, EACH) for before, after in AROUND),
    *(("Иван", text, False, EACH) for text in ("на диване", "Иванову")),
    *(("Иван", text, False, NARROW) for text in ("диван", "Ивана", "xИван", "Иван2")),  # noqa: RUF001
    *(("Éric", text, False, NARROW) for text in ("Aéric", "éÉric")),
    *(("José", text, False, NARROW) for text in ("joséphine", "joséé")),
    *(("王小明", text, True, EACH) for text in ("王小明", "作者王小明。", "by王小明and")),
    *(("김철수", text, True, EACH) for text in ("김철수는", "김철수(")),
]


@pytest.mark.parametrize(
    ("word", "text", "whole", "spelling"),
    [(*case[:3], spelling) for case in OF_OTHER_LETTERS for spelling in case[3]],
)
def test_only_whole_words_of_other_letters_are_found(
    word: str, text: str, whole: bool, spelling: str
) -> None:
    """Scripts that part no words by blanks have no whole words."""
    words = Spellings({word: "anonymous"})
    data = SPELLINGS[spelling](text)
    assert bool(words.find(data)) is whole
    assert words.find(words.replace(data)) == []


@pytest.mark.parametrize("gap", [" ", "  ", "_", "-", ".", ", ", "\n", "%20", "+"])
def test_the_words_of_a_name_may_stand_apart_in_any_way(gap: str) -> None:
    words = Spellings({"Li Wei": "anonymous"})
    assert words.find(f"x {gap}li{gap}wei{gap}".encode())
    assert not words.find(b"liwei")


GAPS = ("\u00a0", "\u202f", "~", "\n        ", "\n# ", "\r\n// ", " \n   * ", " Q. ", " q ", "_Q_")
ESCAPED_GAPS = ("&nbsp;", "&#160;", r"\u00a0", "%C2%A0", r"\n    # ", " Q.&nbsp;")


@pytest.mark.parametrize(
    ("gap", "spelling"),
    [
        *((gap, way) for gap in GAPS for way in [str.encode, *list(SPELLINGS.values())[2:4]]),
        *((gap, str.encode) for gap in ESCAPED_GAPS),
    ],
)
def test_the_words_of_a_name_may_be_parted_by_lines_and_initials(
    gap: str, spelling: Callable[[str], bytes]
) -> None:
    words = Spellings({"Li Wei": "anonymous"})
    data = spelling(f"x li{gap}wei ")
    assert words.find(data)
    assert words.find(words.replace(data)) == []
    assert not words.find(spelling(f"li{gap}weiland"))
    assert not words.find(b"li of wei li\n\nand wei")


# What files hold packed ------------------------------------------------------------------------


def packed_zip(text: bytes, name: str = "a.txt") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, text)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def picture(kind: bytes, body: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return (
        PNG
        + head
        + chunk(kind, body)
        + chunk(b"IDAT", zlib.compress(b"\0\0"))
        + chunk(b"IEND", b"")
    )


def tensors(text: str) -> bytes:
    header = {
        "__metadata__": {"by": text},
        "w": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
    }
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + b"\1\2"


TEXT = b"by Quagmire\n" * 5
CONTAINERS = {
    "data: URI of a text": b'x\n<img src="data:image/svg+xml;base64,%s">' % base64.b64encode(TEXT),
    "data: URI in lines": b'<image href="data:image/png;base64,\n%s" />'
    % base64.encodebytes(picture(b"zTXt", b"Author\0\0" + zlib.compress(b"Quagmire"))),
    "data: URI without quotes": b"see data:text/plain;base64,%s\nend" % base64.b64encode(TEXT),
    "data: URI in a data: URI in a zip": packed_zip(
        b"url(data:text/css;base64,%s)"
        % base64.b64encode(b"url(data:text/plain;base64,%s)" % base64.b64encode(TEXT))
    ),
    "base64 in a string of JSON": json.dumps({"token": base64.b64encode(TEXT).decode()}).encode(),
    "base64 in a URL": b"https://x.org/?q=%s&p" % base64.urlsafe_b64encode(b"\xff\xfe" + TEXT),
    "base64 without padding": base64.b64encode(TEXT + b"1").rstrip(b"="),
    "base64 in lines": b"Encoding: base64\n\n%s\n--end" % base64.encodebytes(TEXT * 9),
    "base64 in lines of YAML": b"x: !!binary |\n    %s"
    % base64.encodebytes(TEXT * 9).replace(b"\n", b"\r\n    "),
    "output of a notebook": json.dumps(
        {"image/png": base64.encodebytes(picture(b"tEXt", b"Author\0Quagmire " * 9)).decode()}
    ).encode(),
    "base64 of a gzip": b"see %s." % base64.b64encode(gzip.compress(TEXT)),
    "a short name in base64": b"'%s'" % base64.b64encode(b"quagmire@x.org: 12"),
    "zip": packed_zip(TEXT),
    "a name in a zip": packed_zip(b"x", "quagmire.txt"),
    "gzip": gzip.compress(TEXT),
    "zip in gzip in zip": packed_zip(gzip.compress(packed_zip(TEXT))),
    "text of a picture": picture(b"tEXt", b"Author\0Quagmire"),
    "compressed text of a picture": picture(b"zTXt", b"Author\0\0" + zlib.compress(b"Quagmire")),
    "text of a picture in UTF-8": picture(
        b"iTXt", b"Author\0\1\0\0\0" + zlib.compress(b"Quagmire")
    ),
    "safetensors": tensors("Quagmire"),
    "safetensors with escapes": tensors("Qu\u00e4gmire"),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_words_in_containers_are_found_and_replaced(kind: str) -> None:
    words = Spellings({"quagmire": "anonymous", "Quägmire": "anonymous"})
    data = CONTAINERS[kind]
    opener = Opener()
    assert search("file", data, words, opener)
    new = rebuilt(data, words.replace)
    assert search("file", new, words, opener) == []
    assert opener.unread == []
    assert rebuilt(data, words.replace) == new


def test_a_data_uri_is_found_wherever_a_file_is_cut_and_others_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base64_texts, "_CHUNK", 64)
    words = Spellings({"quagmire": "anonymous"})
    other = b"data:image/png;base64,%s)" % base64.b64encode(bytes(range(200)))
    for before in range(50, 70):
        text = b"\n" + b"." * before + b"(data:;base64,%s) " % base64.b64encode(TEXT) + other
        (hit,) = search("report.html", text, words, Opener())
        assert str(hit) == "report.html: base64: line 2"
        new = rebuilt(text, words.replace)
        assert b"(data:;base64,%s) " % base64.b64encode(b"by anonymous\n" * 5) in new
        assert new.endswith(other)


def test_base64_without_a_mark_is_found_wherever_a_file_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base64_texts, "_CHUNK", 64)
    words = Spellings({"quagmire": "anonymous"})
    for before in range(50, 70):
        text = b"\n" + b"." * before + b'"%s"' % base64.b64encode(TEXT)
        (hit,) = search("x.json", text, words, Opener())
        assert str(hit) == "x.json: base64: line 2"


def test_each_of_many_small_texts_in_base64_is_told_by_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(containers, "_MOST_TOGETHER", 3)
    words = Spellings(dict.fromkeys(("quagmire", "fennimore", "penhaligon"), "anonymous"))
    names = {3: b"made by Quagmire, 1", 4: b"\n\nand also Fennimore", 9: b"by Penhaligon, too"}
    lines = [
        b'"%s"' % base64.b64encode(names.get(number, b"a text without a name"))
        for number in range(12)
    ]
    hits = search("x.json", b"\n".join(lines), words, Opener())
    assert {(hit.place, hit.line - 1, hit.word) for hit in hits} == {
        ("base64", 3, "quagmire"),
        ("base64", 4, "fennimore"),
        ("base64", 9, "penhaligon"),
    }


@pytest.mark.parametrize(
    "text", [b"%s\nend of it", b"%s\n\nAndTheNextLine\n", b"(%s) %s\n" % (b"%s", b"ab" * 32)]
)
def test_what_stands_beside_base64_stays(text: bytes) -> None:
    words = Spellings({"quagmire": "anonymous"})
    for pack in (base64.b64encode, lambda data: base64.encodebytes(data * 5).rstrip()):
        new = rebuilt(text % pack(TEXT), words.replace)
        assert new == text % pack(TEXT.replace(b"Quagmire", b"anonymous"))
    digest = sha256(b"").hexdigest().encode()
    assert [
        *base64_texts.base64_texts(io.BytesIO(digest + b" snake_case_names_of_any_length"))
    ] == []


def test_a_data_uri_that_is_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base64_texts, "_CHUNK", 64)
    monkeypatch.setattr(base64_texts, "_LONGEST", 256)
    text = b"(data:;base64,%s) (data:;base64,%s)" % (b"A" * 4000, base64.b64encode(TEXT))
    opener = Opener()
    (hit,) = search("x.html", text, Spellings({"quagmire": "anonymous"}), opener)
    assert hit.word == "quagmire"
    assert "base64 of more than 256 bytes" in opener.unread[0]


def test_what_is_written_anew_can_still_be_read() -> None:
    from PIL import Image
    from safetensors.numpy import load

    words = Spellings({"quagmire": "anonymous"})
    new = rebuilt(CONTAINERS["compressed text of a picture"], words.replace)
    with Image.open(io.BytesIO(new)) as image:
        image.load()
        assert image.info["Author"] == "anonymous"
    written = rebuilt(CONTAINERS["safetensors"], words.replace)
    assert load(written)["w"].tolist() == [1, 2]
    assert int.from_bytes(written[:8], "little") % 8 == 0  # the library aligns tensors by it
    nested = rebuilt(CONTAINERS["zip in gzip in zip"], words.replace)
    with zipfile.ZipFile(io.BytesIO(nested)) as outer:
        inner = gzip.decompress(outer.read("a.txt"))
    with zipfile.ZipFile(io.BytesIO(inner)) as packed:
        assert packed.read("a.txt") == b"by anonymous\n" * 5


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_bzip2_and_xz_are_searched_and_not_rewritten(compress: Callable[[bytes], bytes]) -> None:
    words = Spellings({"quagmire": "anonymous"})
    (hit,) = search("file", compress(TEXT), words, Opener())
    assert str(hit) == "file: content: line 1"
    with pytest.raises(UserError, match="keep it as gzip"):
        rebuilt(compress(TEXT), words.replace)


def a_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        info = tarfile.TarInfo("a.txt")
        info.size = len(TEXT)
        packed.addfile(info, io.BytesIO(TEXT))
    return buffer.getvalue()


def a_database() -> bytes:
    with sqlite3.connect(":memory:") as database:
        database.execute("create table names (name text)")
        database.execute("insert into names values (?)", (TEXT.decode(),))
        return database.serialize()


def an_array(name: str) -> bytes:
    buffer = io.BytesIO()
    numpy.save(buffer, numpy.array([name, "x" * 40]))
    return buffer.getvalue()


def a_jpeg() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.new("RGB", (8, 8))
    about = image.getexif()
    about[0x013B] = "Quagmire"  # the artist
    image.save(buffer, "JPEG", exif=about)
    return buffer.getvalue()


@pytest.mark.parametrize("data", [a_tar(), gzip.compress(a_tar()), a_database(), a_jpeg()])
def test_what_another_name_would_break_is_found_and_refused(data: bytes) -> None:
    words = Spellings({"quagmire": "anonymous"})
    assert search("file", data, words, Opener())
    with pytest.raises(UserError, match="it is no text"):
        rebuilt(data, words.replace)
    assert rebuilt(data, lambda part: part) == data or data.startswith(b"\x1f\x8b")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "latin-1"])
def test_a_text_of_each_encoding_is_written_anew(encoding: str) -> None:
    text = "\ttö Quagmire\r\n\x0c"
    new = rebuilt(text.encode(encoding), Spellings({"quagmire": "anonymous"}).replace)
    assert new == text.replace("Quagmire", "anonymous").encode(encoding)


def test_texts_of_numpy_are_found() -> None:
    words = Spellings({"jane quagmire": "anonymous", "quagmire": "anonymous"})
    hits = search("names.npy", an_array("by Jane Quagmire"), words, Opener())
    assert {hit.word for hit in hits} == {"jane quagmire", "quagmire"}
    assert not search("names.npy", an_array("by nobody else"), words, Opener())


def _spending(sizes: list[int]) -> Callable[[containers._Budget, int], None]:
    def spend(budget: containers._Budget, size: int) -> None:
        sizes.append(size)
        budget.left -= size

    return spend


def test_a_bomb_is_read_to_its_bound_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MOST", 1 << 20)
    sizes: list[int] = []
    monkeypatch.setattr(containers._Budget, "spend", _spending(sizes))
    opener = Opener()
    bomb = packed_zip(gzip.compress(bytes(1 << 24)))
    words = Spellings({"quagmire": "anonymous"})
    assert search("bomb.zip", bomb, words, opener) == []
    assert opener.unread == ["bomb.zip: what is in it beyond 1 MiB"]
    assert sum(sizes) < 6 << 20
    deep = TEXT
    for _ in range(7):
        deep = gzip.compress(deep)
    opener = Opener()
    assert search("deep.gz", deep, words, opener) == []
    assert [line.partition(":")[0] for line in opener.unread] == ["deep.gz"]


@pytest.mark.parametrize(
    "damaged", [b"PK\3\4" + b"x" * 50, b"\x1f\x8b\x08" + b"x" * 50, PNG + b"\0" * 9]
)
def test_a_damaged_container_is_named_or_read_as_it_is(damaged: bytes) -> None:
    opener = Opener()
    words = Spellings({"quagmire": "anonymous"})
    assert search("file", damaged + b" quagmire ", words, opener)
    assert damaged.startswith(PNG) or "cannot be unpacked" in opener.unread[0]


def test_formats_that_nothing_opens_are_named() -> None:
    opener = Opener()
    assert search("paper.pdf", b"%PDF-1.7", Spellings({"quagmire": "x"}), opener) == []
    assert opener.unread == ["paper.pdf: what is compressed in PDF"]


# Who it is -------------------------------------------------------------------------------------

PROJECT = b"""\
[project]
name = "secretnet"
authors = [
    { name = "Zo\xc3\xab Quagmire", email = "zq@x-y.org" },
]

[project.urls]
Homepage = "https://github.com/zquag/secretnet"

[tool.repro]
train = "experiment.train:train"
doi = "10.5281/zenodo.1234567"

[tool.repro.orcid]
"Li Wei" = "0000-0002-1825-0097"

[tool.other]
x = 1
"""


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a repository on a machine that tells nothing."""
    for name in ("users", "real_names", "homes", "hosts", "accounts"):
        monkeypatch.setattr(machine_names, name, lambda: [])
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


def known(found: Identities) -> set[str]:
    return {text.casefold() for text in found.known}


def test_files_tell_names_addresses_and_ids(nobody: Path) -> None:
    files = {
        "pyproject.toml": PROJECT,
        "CITATION.cff": b"authors:\n- given-names: Ada\n  family-names: Thornbury\n"
        b"  orcid: https://orcid.org/0000-0001-5109-3700\n"
        b"doi: 10.1000/mine\nrepository-code: https://git.x-y.org/lab/secretnet\n",
        "LICENSE": b"Copyright (c) 2024-2026 Grace Hollowell. All rights reserved.\n",
        "runs/a/tracker.json": b'{"id": "f00dfeed12345678", "settings": {"uri": null}}',
        "runs/a/run.log": b"see https://wandb.ai/quaglab/x/runs/ab12cd34 in /home/zquag/x\n",
        "runs/a/experiment_context.json": b'{"hardware": {"hostname": "thornbox"}}',
        "runs/record/a/config_used.yaml": b"run_dir: /work9/thornlab/net/runs/record/a\n",
        "results/expected_metrics.json": (
            b'{"commit": "%s", "claims": {"a": {"added": {"x": {"commit": "%s"}}}}}'
            % (b"a1" * 20, b"b2" * 20)
        ),
        "notes.txt": b"%s and %s" % (b"a1" * 20, b"b2" * 6),
        "vendor/LICENSE": b"Copyright (c) 2020 Somebody Else\n",
    }
    expected = {"zoë quagmire", "quagmire", "zq@x-y.org", "github.com/zquag/secretnet", "zquag"}
    expected |= {"10.5281/zenodo.1234567", "li wei", "0000-0002-1825-0097", "ada thornbury"}
    expected |= {
        "thornbury",
        "0000-0001-5109-3700",
        "10.1000/mine",
        "git.x-y.org",
        "grace hollowell",
    }
    expected |= {"hollowell", "f00dfeed12345678", "quaglab", "ab12cd34", "/home/zquag", "thornbox"}
    expected |= {"/work9/thornlab/net", "/work9/thornlab", "a1" * 20, "b2" * 6}
    found = known(find_identities(nobody, files))
    assert expected <= found
    assert not {"somebody else", "/work9", "work9"} & found


def test_a_word_that_tells_nobody_is_left_out_and_told(nobody: Path) -> None:
    kit = {f"repro/{name}.py": b"# a test of long things\n" for name in "abc"}
    files = {
        "pyproject.toml": PROJECT.replace("Zoë Quagmire".encode(), b"Bo Long").replace(
            b"zq@", b"root@"
        ),
        "LICENSE": b"Copyright (c) The Authors\n",
        **kit,
    }
    found = find_identities(nobody, files)
    assert {"bo long", "long bo"} <= known(found)  # a name of two words is always looked for
    assert not {"long", "bo", "the authors", "root", "secretnet"} & known(found)
    told = "\n".join(found.left_out)
    assert (
        "'Long' (a part of the name 'Bo Long', an author in pyproject.toml) is a word of 3" in told
    )
    assert "'Bo' (a part of the name" in told
    assert "'root'" in told
    assert "the project's own name" in told
    del kit["repro/c.py"]
    two = {"pyproject.toml": files["pyproject.toml"], **kit}
    assert "long" in known(find_identities(nobody, two))
    assert "long" not in known(find_identities(nobody, two, kept=["LONG"]))


def test_the_authors_own_paper_is_an_identity_and_those_of_others_are_not(nobody: Path) -> None:
    paper = b"""
[tool.repro.paper]
reference = "https://doi.org/10.1145/3579990.3580012, arXiv:2401.01234"
"""
    citation = b"""\
url: https://doi.org/10.5281/zenodo.77
preferred-citation:
  type: article
  authors:
  - {given-names: Grace, family-names: Hollowell, orcid: "https://orcid.org/0000-0001-5109-3700"}
  doi: 10.1000/preferred
references:
- authors:
  - {given-names: Somebody, family-names: Elseworth}
  doi: 10.1000/others
"""
    files = {"pyproject.toml": b'[project]\nname = "x"\n' + paper, "CITATION.cff": citation}
    found = known(find_identities(nobody, files))
    assert {"10.1145/3579990.3580012", "2401.01234", "2401.01234v2"} <= found
    assert {"grace hollowell", "10.1000/preferred", "0000-0001-5109-3700"} <= found
    assert "10.5281/zenodo.77" in found
    assert not {"elseworth", "somebody elseworth", "10.1000/others", "10.5281"} & found
    new = without_names("pyproject.toml", files["pyproject.toml"] + b'title = "T"\n').decode()
    assert new.endswith('\n[tool.repro.paper]\ntitle = "T"\n')


def test_a_word_of_the_kit_refuses_nobody_in_the_kit(nobody: Path) -> None:
    """White is a word of the kit's style sheet; a full name there was written by somebody."""
    url = "https://gitlab.thornlab.org/zquag/net7a"
    subprocess.run(["git", "-C", nobody, "remote", "add", "other", url], check=True)
    kit = {
        "repro/report.css": b"p { white-space: pre }\n",
        "repro/poisson.py": b"HOST = 'gitlab.thornlab.org'  # as net7a\n",
    }
    authors = b"authors:\n- name: Jack White\n- name: Denis Poisson\n"
    files = {"pyproject.toml": b'[project]\nname = "x"\n', "CITATION.cff": authors, **kit}
    identities = find_identities(nobody, files)
    words_for = identities.spellings_by_file()
    for name in ("white", "poisson", "gitlab.thornlab.org", "net7a"):
        assert name in known(identities)
        assert words_for("README.md").find(name.encode())
    hits = [str(h) for n, c in kit.items() for h in search(n, c, words_for(n), Opener())]
    assert hits == ["repro/poisson.py: line 1"]  # an id is nobody else's
    edited = b"# by Jack White, " + url.encode()
    assert {found.word for found in words_for("repro/a.py").find(edited)} >= {"Jack White", url}
    told = [line for line in identities.left_out if "in the kit alone" in line]
    assert any("'White'" in line and "repro/report.css" in line for line in told)


@pytest.mark.parametrize(
    ("url", "expected", "not_expected"),
    [
        ("https://github.com/zquag/net.git", {"github.com/zquag/net", "zquag"}, {"github.com"}),
        ("git@git.x-y.org:zquag/net.git", {"git.x-y.org:zquag/net", "git.x-y.org"}, {"git"}),
        ("ssh://thorn@host.x-y.org:2222/~/a/net", {"thorn", "host.x-y.org"}, {"2222"}),
        ("/srv/thornlab/net.git", {"/srv/thornlab/net"}, {"/srv/thornlab", "/srv"}),
        ("file:///data9/thornlab/net", {"/data9/thornlab/net", "/data9/thornlab"}, {"/data9"}),
        ("https://github.com/zquag/secretnet", {"zquag/secretnet"}, {"secretnet"}),
    ],
)
def test_a_remote_tells_host_owner_and_name(
    url: str, expected: set[str], not_expected: set[str], nobody: Path
) -> None:
    subprocess.run(["git", "-C", nobody, "remote", "add", "other", url], check=True)
    found = known(find_identities(nobody, {"pyproject.toml": b'[project]\nname = "secretnet"\n'}))
    assert expected <= found
    assert not not_expected & found


def test_a_remote_with_a_word_of_the_projects_name_is_not_looked_for(nobody: Path) -> None:
    """The project keeps its name, so that word tells no more; `sugar` may be all over the code."""
    url = "https://github.com/zquag/sugar.git"
    subprocess.run(["git", "-C", nobody, "remote", "add", "other", url], check=True)
    found = find_identities(nobody, {"pyproject.toml": b'[project]\nname = "sugar-study"\n'})
    assert {"zquag", "zquag/sugar"} <= known(found)
    assert "sugar" not in known(found)
    assert any("'sugar'" in line and "the project's own name" in line for line in found.left_out)


def test_git_and_the_machine_tell_names(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    who = ["-c", "user.name=Ada Thornbury", "-c", "user.email=7+adath@users.noreply.github.com"]
    (nobody / "a").write_text("x")
    subprocess.run(["git", "-C", nobody, "add", "a"], check=True)
    subprocess.run(["git", "-C", nobody, *who, "commit", "-qm", "x"], check=True)
    ids = ["git", "-C", str(nobody), "rev-parse", "HEAD", "HEAD^{tree}", "HEAD:a"]
    head, tree, blob = subprocess.check_output(ids, text=True).split()
    monkeypatch.setattr(machine_names, "users", lambda: ["zquag", "root"])
    monkeypatch.setattr(machine_names, "hosts", lambda: ["thornbox.x-y.org", "localhost"])
    monkeypatch.setattr(machine_names, "homes", lambda: ["/home/zquag", "/root"])
    short = f"{head[:9]}a"[:9]
    other = "0123456789abcdef0123456789abcdef01234567"  # of no object here
    text = f"{head} swh:1:dir:{tree} {other} v1-2-g{head[:8]} {short}"
    files = {
        "pyproject.toml": b'[project]\nname = "x"\n',
        "notes.txt": text.encode(),
        "wide.txt": blob.encode("utf-16"),
    }
    found = known(find_identities(nobody, files))
    expected = {"ada thornbury", "adath", "zquag", "thornbox", "thornbox.x-y.org", "/home/zquag"}
    assert expected | {head, tree, blob, f"swh:1:dir:{tree}", str(nobody).casefold()} <= found
    assert not {other, "root", "/root", "localhost"} & found
    assert any(char in "abcdef" for char in head[:8]) is (f"g{head[:8]}" in found)


def test_a_short_name_in_another_script_is_looked_for_and_told_readably(nobody: Path) -> None:
    files = {
        "pyproject.toml": b'[project]\nname = "x"\n',
        "CITATION.cff": "authors:\n- name: 王小明\n- name: 김철\n- name: Zoë Bo\n".encode(),
    }
    found = find_identities(nobody, files, kept=[])
    assert {"王小明", "김철", "zoë"} <= known(found)
    assert "bo" not in known(found)
    assert found.told("王小明").startswith("'王小明' (")
    assert any("part of the name 'Zoë Bo'" in line for line in found.left_out)


def test_a_name_is_looked_for_without_what_is_between_its_first_and_last_word(
    nobody: Path,
) -> None:
    files = {
        "pyproject.toml": b'[project]\nname = "x"\n',
        "CITATION.cff": b"authors:\n- name: Jane Quentin Dorrit\n",
    }
    assert {"jane dorrit", "dorrit jane", "jane quentin dorrit"} <= known(
        find_identities(nobody, files)
    )


@pytest.mark.parametrize(
    ("address", "expected", "not_expected"),
    [
        (
            "admin@mail.zarathustra-lab.org",
            {"admin@mail.zarathustra-lab.org", "mail.zarathustra-lab.org", "zarathustra-lab.org"},
            {"admin", "mail"},
        ),
        (
            "quag+papers@x-y.org",
            {"quag+papers@x-y.org", "quag@x-y.org", "quag+papers", "quag", "x-y.org"},
            {"papers"},
        ),
        ("root@localhost", set(), {"root@localhost", "localhost"}),
        ("noreply@github.com", set(), {"noreply@github.com", "github.com"}),
        ("7+bot@users.noreply.github.com", {"7+bot@users.noreply.github.com"}, {"github.com"}),
    ],
)
def test_an_address_is_an_identity_even_if_its_account_is_nobodys(
    address: str, expected: set[str], not_expected: set[str], nobody: Path
) -> None:
    citation = f"authors:\n- name: The Authors\n  email: {address}\n"
    files = {"pyproject.toml": b'[project]\nname = "x"\n', "CITATION.cff": citation.encode()}
    found = known(find_identities(nobody, files))
    assert expected <= found
    assert not not_expected & found


def test_a_page_and_an_institution_of_one_word_are_identities(nobody: Path) -> None:
    citation = b"""\
url: https://www.kimleeono.com
authors:
- {name: The Authors, website: "https://thornlabs.org/", affiliation: Zarathustra}
- {name: The Authors, website: "https://scholar.thorn.org/u?x=1", affiliation: Tensorworks}
"""
    files = {
        "pyproject.toml": b'[project]\nname = "x"\n',
        "CITATION.cff": citation,
        "repro/a.py": b"# Tensorworks\n",
    }
    identities = find_identities(nobody, files)
    found = known(identities)
    assert {"kimleeono.com", "kimleeono", "thornlabs.org", "thornlabs", "zarathustra"} <= found
    assert {"https://www.kimleeono.com", "scholar.thorn.org/u?x=1"} <= found
    assert not {"scholar", "tensorworks"} & found
    assert any("'Tensorworks'" in line for line in identities.left_out)


# What is written anew --------------------------------------------------------------------------


def test_the_documents_lose_people_and_keep_all_else() -> None:
    new = without_names("pyproject.toml", PROJECT).decode()
    assert new == (
        '[project]\nname = "secretnet"\nauthors = [{ name = "Anonymous authors" }]\n\n\n'
        '[tool.repro]\ntrain = "experiment.train:train"\n\n\n[tool.other]\nx = 1\n'
    ).replace("\n\n\n[tool.repro]", "\n\n[tool.repro]").replace(
        "\n\n\n[tool.other]", "\n\n[tool.other]"
    )


def test_a_form_of_pyproject_that_cannot_lose_people_is_refused() -> None:
    inline = b'[project]\nname = "x"\n[tool]\nrepro = { train = "a:b", doi = "10.1000/mine" }\n'
    with pytest.raises(UserError, match="doi and orcid cannot be taken out"):
        without_names("pyproject.toml", inline)


def test_a_licence_is_of_anonymous_authors() -> None:
    for text, expected in {
        "Copyright (c) 2024-2026 Ada Thornbury\n": "Copyright (c) 2024-2026 Anonymous authors\n",
        "Copyright 2026 Ada, Grace. All rights reserved.\r\nx": (
            "Copyright 2026 Anonymous authors. All rights reserved.\r\nx"
        ),
        "   Copyright [yyyy] [name of copyright owner]\n": None,
        "the copyright owner that is granting the License.\n": None,
        "copyright notice, this list of conditions\n": None,
    }.items():
        assert without_names("LICENSE", text.encode()).decode() == (expected or text)


def test_lists_of_people_are_left_out() -> None:
    left_out = [".mailmap", "AUTHORS", "docs/CONTRIBUTORS.md", ".github/CODEOWNERS"]
    kept = ["experiment/authors.py", "README.md", "CONTRIBUTING.md"]
    assert [name for name in [*left_out, *kept] if is_list_of_people(name)] == left_out


def test_stated_digests_follow_the_files_and_the_files_that_state_them() -> None:
    from hashlib import md5, sha256

    old, new = b"by Quagmire", b"by anonymous"
    sums = f"{sha256(old).hexdigest()}  a\n".encode()
    of_sums = f"{md5(sums).hexdigest().upper()} *SUMS\n".encode()
    files = {"a": new, "SUMS": sums, "OF_SUMS": of_sums, "code.py": b"x\n" + sums}
    found, faults = with_new_digests({"a": old}, files, conditions={"code.py"})
    assert found["SUMS"] == f"{sha256(new).hexdigest()}  a\n".encode()
    assert found["OF_SUMS"] == f"{md5(found['SUMS']).hexdigest().upper()} *SUMS\n".encode()
    assert found["code.py"] == files["code.py"]
    assert [line.partition(" states")[0] for line in faults] == ["code.py: line 2"]


def test_a_kept_verdict_is_called_by_its_new_digest(tmp_path: Path) -> None:
    from hashlib import sha256

    verdict = b'{"hardware_class": "thornbox"}\n'
    other = b'{"hardware_class": "b"}\n'
    folder = "results/verdicts"
    old = f"{folder}/{sha256(verdict).hexdigest()}.json"
    files = {
        old: verdict,
        f"{folder}/{sha256(other).hexdigest()}.json": other,
        f"{folder}/{'0' * 64}.json": b'{"by": "thornbox"}\n',
        "notes.md": f"see {old}\n".encode(),
    }
    identities = Identities({"thornbox": Identity("thornbox", "a host")}, [])
    replacing = anonymous._Replacing(identities, ())
    for name, content in files.items():
        replacing.add(name, content)
    assert replacing.faults == []
    changed = verdict.replace(b"thornbox", b"anonymous")
    new = f"{folder}/{sha256(changed).hexdigest()}.json"
    assert replacing.files[new] == changed
    assert {*replacing.files} == {*files} - {old} | {new}  # one that report left out keeps its name
    renewed, _ = with_new_digests(replacing.before, replacing.files, ())
    assert renewed["notes.md"] == f"see {new}\n".encode()


def test_what_is_seen_and_cannot_be_replaced_is_refused(tmp_path: Path) -> None:
    """Also of a run, whose files stay on the disk and are not searched again."""
    path = tmp_path / "notes.txt"
    path.write_text("one\nby thorn\u00adbox\n")
    identities = Identities({"thornbox": Identity("thornbox", "a host")}, [])
    for content in (path, path.read_bytes()):
        replacing = anonymous._Replacing(identities, ())
        replacing.add("runs/a/notes.txt", content)
        (fault,) = replacing.faults
        assert fault.startswith(
            "runs/a/notes.txt: line 2: it is written in a way that nothing here"
        )


def test_what_states_conditions_may_lose_names_but_no_condition() -> None:
    run = "runs/record/a/b/seed-1"
    context = {"conditions": {"config": {"name": "x"}}, "hardware": {"hostname": "thornbox"}}
    trace = b'{"header": {"conditions": {"data": "1"}, "note": "thornbox"}}\n{"step": 1}\n'
    files = {
        f"{run}/experiment_context.json": json.dumps(context).encode(),
        f"{run}/trace.jsonl": trace,
        f"{run}/checkpoints/step-000000001/state.json": (
            b'{"config": {"name": "x"}, "notes": "thornbox"}'
        ),
        "docs/w.safetensors": tensors("thornbox"),
        "configs/claims.yaml": b"- {name: a, text: of thornbox, arguments: [x=1], metric: m}\n",
        "results/expected_metrics.json": (b'{"claims": {"a": {"text": "thornbox", "bits": "1"}}}'),
        "pyproject.toml": PROJECT,
        "tests/test_it.py": b"# by thornbox\nx = 1\n",
    }
    words = Spellings({"thornbox": "anonymous", "zq@x-y.org": "anonymous"})
    for name, data in files.items():
        changed = rebuilt(data, words.replace)
        assert changed != data
        assert stated_conditions(name, changed) == stated_conditions(name, data) is not None
    conditions = {b'"x"': b'"y"', b'"1"': b'"2"', b"x=1": b"x=2", b"train:": b"go:", b'"w"': b'"v"'}
    for name, data in files.items():
        for old, new in conditions.items():
            if old in data:
                other = stated_conditions(name, data.replace(old, new))
                assert other != stated_conditions(name, data)
    with pytest.raises(SyntaxError):
        stated_conditions("tests/test_it.py", b"def Anonymous authors(): pass")


def own_tests() -> dict[str, bytes]:
    folder = TEMPLATE / "tests"
    return {f"tests/{path.name}": path.read_bytes() for path in folder.glob("*.py")}


def test_what_may_be_a_name_is_listed() -> None:
    files = {
        "README.md": b"Thanks to Ada Thornbury\nSee https://github.com/zquag/net\n10.1000/mine\n",
        "experiment/model.py": b"import torch\n# after an idea of Grace Hollowell\n",
        "repro/kit.py": b"# The Kit Name\nmail = 'zq@x-y.org'\n",
        "notes.txt": b"/home/zquag/x and /home/runner/x\n0000-0002-1825-0097\n",
        "paper.tex": b"University of Thornwick\n",
        "tests/test_model.py": b"# Rosalind Ashcombe saw this fail\n",
        "runs/a/run.log": b"zq@other.org\n",
        "experiment/net.py": b"__author__ = 'Ida Quill'\n# TODO(bquill): TODO(author) is asked\n",
        "job.sh": b"cp -r /scratch/quill9/x ./data/mine; see bquill.github.io\n",
        "a.ipynb": b'{"kernelspec": {"display_name": "quill-env"}}',
    }
    lines = candidates(files)
    assert "look at: experiment/model.py: line 2: a name in a comment: 'Grace Hollowell'" in lines
    assert "look at: repro/kit.py: line 2: an e-mail address: 'zq@x-y.org'" in lines
    text = "\n".join(lines)
    for found in (
        "github.com/zquag",
        "10.1000/mine",
        "/home/zquag",
        "Thornwick",
        "1825",
        "Ada",
        "Rosalind Ashcombe",
        "Ida Quill",
        "TODO(bquill)",
        "/scratch/quill9/x",
        "bquill.github.io",
        "quill-env",
    ):
        assert found in text, found
    assert "Kit Name" not in text
    assert "TODO(author)" not in text
    assert "data/mine" not in text
    assert "runner" not in text
    assert lines[-1].startswith("not known: names in pictures")
    assert len(candidates(own_tests())) == 1  # the kit's own tests name nobody
    many = {f"{n}.md": f"a{n}@x-y.org".encode() for n in range(100)}
    assert candidates(many)[-2] == "... and 70 more to look at"


# How large it may be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"), [("100MB", 10**8), ("1.5 MiB", 3 << 19), ("2g", 2 * 10**9), ("17", 17)]
)
def test_a_size_is_understood(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1TBx", "ten"])
def test_another_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as 100MB"):
        parse_size(text)


def test_the_size_of_a_zip_is_known_before_it_is_written(tmp_path: Path) -> None:
    files = {"näme": b"x" * 100, "a/b": b"", "c": b"\0" * 70000}
    write_zip(tmp_path / "x.zip", "top", files, set(), 0)
    assert zip_size("top", files) == (tmp_path / "x.zip").stat().st_size


def test_checkpoints_go_before_traces_and_traces_before_runs() -> None:
    trainings = [PackedTraining(f"s{n}", "", f"runs/record/s/{n}", "m") for n in (1, 2)]
    files = {"code.py": b"c" * 500}
    for n in (1, 2):
        for step in (3, 6):
            name = f"runs/record/s/{n}/checkpoints/step-{step:09d}"
            files |= {f"{name}/tensors.safetensors": b"t" * 4000, f"{name}/state.json": b"{}"}
        files |= {f"runs/record/s/{n}/trace.jsonl": b"t" * 2000}
        files |= {f"runs/record/s/{n}/metrics.json": b"m" * 1000}

    def left_out(limit: int) -> list[str]:
        kept, lines = within_limit(files, trainings, limit, lambda f: sum(map(len, f.values())))
        assert sum(map(len, kept.values())) <= limit
        assert "code.py" in kept
        return [line.name.removeprefix("runs/record/s/") for line in lines]

    assert left_out(30_000) == []
    assert left_out(19_000) == ["2/checkpoints/step-000000003"]
    checkpoints = [f"{n}/checkpoints/step-{step:09d}" for n in (2, 1) for step in (3, 6)]
    assert left_out(7_000) == checkpoints
    assert left_out(3_000) == [*checkpoints, "2/trace.jsonl", "1/trace.jsonl"]
    assert left_out(2_000) == [*checkpoints, "2/trace.jsonl", "1/trace.jsonl", "2"]
    with pytest.raises(UserError, match="without any run the archive still has"):
        left_out(400)
