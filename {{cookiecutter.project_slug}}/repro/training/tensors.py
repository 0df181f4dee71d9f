"""Write tensors to a safetensors file, and load them from one that may be damaged.

The library's own `save` has all tensors twice more in memory before the first byte is written, and
the digest needs a second look at them. Here each piece is written as it lies in memory, and another
thread hashes it at the same time: to hash a file takes as long as to bring it to the disk.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from repro.core.bounded import RESTORE, DamagedFile
from repro.core.errors import UserError, reason_of
from repro.core.files import JsonObject
from repro.core.special_files import fault_of_kind
from repro.core.tensor_files import fault_of_tensors

# The library's names of torch's types, in the order of its files: an equal state has equal bytes,
# whichever of the two wrote them. Types that are not here are left to the library.
_NAMES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
TYPES = {name: dtype for dtype, name in _NAMES.items()}
_ORDER = {dtype: place for place, dtype in enumerate(_NAMES)}
_PIECE = 1 << 23  # bytes: both threads can work while one of them reads or hashes a piece


class Streamed(NamedTuple):
    """A tensor that is read while it is written: `read` gives it in pieces, rows after rows.

    Two threads read it, each for itself.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Iterable[Tensor]]


Source: TypeAlias = Tensor | Streamed


def name_of_type(dtype: torch.dtype) -> str:
    """Return the library's name of a type; UserError for one that it may order in another way."""
    if dtype not in _NAMES:
        known = ", ".join(str(each) for each in _NAMES)
        raise UserError(f"a sharded tensor of {dtype} cannot be saved: expected one of {known}")
    return _NAMES[dtype]


def write_tensors(
    path: Path, tensors: Mapping[str, Source], flush: Callable[[Path], object]
) -> str:
    """Write contiguous tensors to a file; return its SHA-256.

    They may share memory, and be on any device: of those elsewhere a piece is copied at a time. The
    bytes are those that safetensors' own `save` gives, without metadata: several keys come out in
    random order there (measured). `flush(path)` brings them to the disk; they are hashed in the
    meantime.
    """
    size = sum(_bytes_of(tensor) for tensor in tensors.values())
    with ThreadPoolExecutor(max_workers=1) as beside:
        digest = None
        if size >= _PIECE:  # else to start a thread would take longer
            with suppress(RuntimeError):  # at a limit of the machine none can be started
                digest = beside.submit(_digest_of, tensors)
        _write(path, tensors)
        flush(path)
        return digest.result() if digest else _digest_of(tensors)


def _write(path: Path, tensors: Mapping[str, Source]) -> None:
    with path.open("wb", buffering=0) as file:
        for piece in _pieces(tensors):
            left = piece
            while left:  # a write may take less than all of it
                left = left[file.write(left) :]


def _digest_of(tensors: Mapping[str, Source]) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(tensors):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(tensors: Mapping[str, Source]) -> Iterator[memoryview]:
    """Yield the bytes of a safetensors file."""
    if any(tensor.dtype not in _NAMES for tensor in tensors.values()):
        yield memoryview(serialize({name: _whole(tensor) for name, tensor in tensors.items()}))
        return
    names = sorted(tensors, key=lambda name: (_ORDER[tensors[name].dtype], name.encode()))
    entries: JsonObject = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + _bytes_of(tensor)
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    yield memoryview(len(header).to_bytes(8, "little") + header)
    for name in names:
        tensor = tensors[name]
        for rows in tensor.read() if isinstance(tensor, Streamed) else [tensor]:
            yield from _bytes_in_pieces(rows)


def _bytes_of(tensor: Source) -> int:
    return prod(tensor.shape) * tensor.dtype.itemsize


def _bytes_in_pieces(tensor: Tensor) -> Iterator[memoryview]:
    if tensor.numel():
        content = tensor.reshape(-1).view(torch.uint8)
        for start in range(0, len(content), _PIECE):
            array: Any = content[start : start + _PIECE].cpu().numpy()
            yield memoryview(array)


def _whole(tensor: Source) -> Tensor:
    if isinstance(tensor, Streamed):
        return torch.cat([*tensor.read()]).reshape(tensor.shape)
    return tensor.cpu()


def load_tensors(path: Path, *needed: str, remedy: str = RESTORE) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    DamagedFile if it is not whole, or lacks one of the `needed` tensors.
    """
    _refuse_fault(path, remedy)
    try:
        tensors = load_file(path)
    except (SafetensorError, KeyError, ValueError) as error:  # a type of another version
        raise DamagedFile(path, reason_of(error), remedy) from error
    if missing := [name for name in needed if name not in tensors]:
        raise DamagedFile(path, f"it lacks the tensor {', '.join(missing)}", remedy)
    return tensors


def _refuse_fault(path: Path, remedy: str) -> None:
    if fault := fault_of_kind(path) or fault_of_tensors(path):
        raise DamagedFile(path, fault, remedy)


class OpenTensors:
    """A safetensors file of which some rows are read, and no more; DamagedFile if it is not whole.

    `kinds`: the type, by the library's name, and the shape of each tensor. What is read lies in the
    file's own pages: copy what has to stay when the file does not.
    """

    def __init__(self, path: Path, remedy: str = RESTORE) -> None:
        _refuse_fault(path, remedy)
        try:
            file: Any = safe_open(path, "pt")
            names = file.keys()
            slices = {name: file.get_slice(name) for name in names}
        except (SafetensorError, KeyError, ValueError) as error:
            raise DamagedFile(path, reason_of(error), remedy) from error
        self._file = file
        self.kinds = {
            name: (str(each.get_dtype()), tuple(each.get_shape())) for name, each in slices.items()
        }

    def tensor(self, name: str) -> Tensor:
        """Return a tensor of the file."""
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a tensor."""
        rows: Tensor = self._file.get_slice(name)[start:stop]
        return rows
