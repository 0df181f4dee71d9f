"""Find the names that torch's libraries give to at::Context::alertNotDeterministic.

An operation without a deterministic version calls it with its own name, and strict mode makes an
error of that. The names are no list anywhere: they are read off the machine code before each call
(x86-64, ELF).
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

ALERT = b"_ZN2at7Context21alertNotDeterministicERKSt17basic_string_viewIcSt11char_traitsIcEE"
_LEA = re.compile(
    rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]", re.DOTALL
)  # of rip + offset
_BEFORE = 160  # bytes in which a call's argument is made


class Section(NamedTuple):
    """A part of a library: where it lies in memory, and what it holds."""

    address: int
    data: bytes


def alerts(library: Path) -> dict[int, str]:
    """The name at each call, by the call's address; "" where none was found."""
    sections = _sections(library)
    targets = _targets(sections)
    text = sections[".text"]
    found = {}
    for place in sorted(_calls(text, targets)):
        found[text.address + place] = _name_before(text, place, sections[".rodata"])
    return found


def _sections(library: Path) -> dict[str, Section]:
    whole = np.memmap(library, dtype=np.uint8, mode="r")
    (start,) = struct.unpack_from("<Q", whole, 0x28)
    number, of_names = struct.unpack_from("<HH", whole, 0x3C)
    headers = [struct.unpack_from("<IIQQQQ", whole, start + 64 * i) for i in range(number)]
    names = headers[of_names][4]
    wanted = (".text", ".rodata", ".dynsym", ".dynstr", ".plt", ".plt.sec", ".rela.plt")
    found = {}
    for name, _, _, address, offset, size in headers:
        text = bytes(whole[names + name : names + name + 32]).split(b"\0")[0].decode()
        if text in wanted:
            found[text] = Section(address, bytes(whole[offset : offset + size]))
    return found


def _targets(sections: dict[str, Section]) -> set[int]:
    """The addresses that a call of the function goes to: its own, and that of its stub."""
    name = sections[".dynstr"].data.index(b"\0" + ALERT + b"\0") + 1
    symbols = np.frombuffer(sections[".dynsym"].data, "<u4").reshape(-1, 6)
    (symbol,) = np.nonzero(symbols[:, 0] == name)[0]
    (own,) = struct.unpack_from("<Q", sections[".dynsym"].data, int(symbol) * 24 + 8)
    relocations = np.frombuffer(sections[".rela.plt"].data, "<u8").reshape(-1, 3)
    of_symbol = (relocations[:, 1] >> np.uint64(32)) == np.uint64(symbol)
    slots = {int(slot) for slot in relocations[of_symbol, 0]}
    targets = {own} if own else set()
    for address, data in (sections[n] for n in (".plt", ".plt.sec") if n in sections):
        for jump in re.finditer(rb"\xff\x25", data):
            if len(data) - jump.start() < 6:
                continue
            (offset,) = struct.unpack_from("<i", data, jump.start() + 2)
            if address + jump.start() + 6 + offset in slots:
                targets.add(address + jump.start() // 16 * 16)
    assert targets
    return targets


def _calls(text: Section, targets: set[int]) -> Iterator[int]:
    """Where in the text the targets are called from, or jumped to as a function's last act."""
    size = (len(text.data) - 8) // 4 * 4
    for shift in range(4):
        offsets = np.frombuffer(text.data, "<i4", size // 4, shift)
        after = text.address + shift + 4 + 4 * np.arange(len(offsets), dtype=np.int64)
        went = after + offsets
        for target in targets:
            for at in np.nonzero(went == target)[0]:
                place = int(at) * 4 + shift - 1
                if text.data[place] in (0xE8, 0xE9):
                    yield place


def _name_before(text: Section, place: int, constants: Section) -> str:
    """The string whose address and length were written down last before a call."""
    before = text.data[max(0, place - _BEFORE) : place]
    start = text.address + max(0, place - _BEFORE)
    for lea in reversed([*_LEA.finditer(before)]):
        if len(before) - lea.start() < 7:
            continue
        (offset,) = struct.unpack_from("<i", before, lea.start() + 3)
        at = start + lea.start() + 7 + offset - constants.address
        if not 0 <= at < len(constants.data):
            continue
        name = constants.data[at : at + 200].split(b"\0")[0]
        if name and struct.pack("<i", len(name)) in before:
            return name.decode("latin-1")
    return ""
