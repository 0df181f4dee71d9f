"""Read single facts from the files of an archive, before it is written.

Promises that a file which is missing or damaged gives None or nothing, and that of a checkpoint no
more than its header is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from repro.core import layout
from repro.core.bounded import parse_json
from repro.core.errors import UserError
from repro.core.files import Json, JsonObject
from repro.publishing.contents import Contents, content_bytes, content_size

_MODEL = ".model."  # how the names of a model's tensors begin in a checkpoint
_LONGEST_HEADER = 1 << 20  # bytes of a checkpoint that are read, to count its values


@dataclass(frozen=True)
class TrainedOn:
    """On what a recorded training ran, as its experiment_context.json says; `source` is that."""

    source: str
    hardware_class: str
    cpu: str
    cores: int | None
    memory_gib: float | None
    gpus: list[str]
    python: str
    torch: str | None

    @property
    def size(self) -> str:
        """Return how large the machine is, in words; empty if that is not known."""
        parts = []
        if self.cores is not None:
            parts.append(f"{self.cores} logical cores")
        if self.memory_gib is not None:
            parts.append(f"{self.memory_gib:.0f} GiB of memory")
        return ", ".join(parts)


def read_packed(contents: Contents, name: str) -> bytes | None:
    """Return a file of the archive; None if it has none of that name."""
    content = contents.files.get(name)
    return None if content is None else content_bytes(content)


def packed_size(contents: Contents, name: str) -> int:
    """Return the bytes of a file of the archive."""
    return content_size(contents.files[name])


def packed_object(contents: Contents, name: str) -> JsonObject:
    """Return the JSON object that a file of the archive holds; empty if there is none."""
    try:
        value = parse_json(read_packed(contents, name) or b"null")
    except (ValueError, UserError):
        return {}
    return value if isinstance(value, dict) else {}


def machine_of(contents: Contents, place: str) -> TrainedOn | None:
    """Return on what a packed run was trained; None where its context says nothing."""
    name = f"{place}/{layout.CONTEXT}"
    context = packed_object(contents, name)
    hardware = _object(context.get("hardware"))
    software = _object(context.get("software"))
    if not hardware:
        return None
    cores = hardware.get("logical_cores")
    memory = hardware.get("memory_gib")
    gpus = hardware.get("gpus")
    torch = software.get("torch")
    return TrainedOn(
        name,
        str(context.get("hardware_class", "")),
        str(hardware.get("cpu_model", "")),
        cores if isinstance(cores, int) else None,
        memory if isinstance(memory, int | float) else None,
        [str(gpu) for gpu in gpus] if isinstance(gpus, list) else [],
        str(software.get("python", "")),
        torch if isinstance(torch, str) else None,
    )


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def packed_figures(contents: Contents, claim: str) -> list[str]:
    """Return the names of a claim's figures in results/, sorted."""
    folder = f"{layout.RESULTS}/{layout.FIGURES}/{claim}/"
    return sorted(name for name in contents.files if name.startswith(folder))


def model_size(contents: Contents, place: str) -> tuple[int, str] | None:
    """Count the values of a run's model, and name the checkpoint's file whose header says them.

    Buffers, such as running means, are among them. None if there is no such file: of a model that
    several processes saved in parts, or where an archive leaves the checkpoints out.
    """
    start = f"{place}/{layout.CHECKPOINTS}/"
    for name in sorted(contents.files, reverse=True):
        if name.startswith(start) and name.endswith(f"/{layout.TENSORS}"):
            shapes = _shapes(contents, name)
            values = sum(prod(shape) for key, shape in shapes.items() if key.startswith(_MODEL))
            return (values, name) if values else None
    return None


def _shapes(contents: Contents, name: str) -> Mapping[str, list[int]]:
    """Return the shapes of the tensors of a safetensors file, by the header at its beginning."""
    content = contents.files[name]
    if isinstance(content, bytes):
        start = content[: _LONGEST_HEADER + 8]
    else:
        with content.open("rb") as file:
            start = file.read(_LONGEST_HEADER + 8)
    length = int.from_bytes(start[:8], "little")
    try:
        header = parse_json(start[8 : 8 + length])
    except ValueError:  # longer than what was read, or damaged
        return {}
    return {
        key: entry["shape"]
        for key, entry in header.items()
        if isinstance(entry, dict) and isinstance(entry.get("shape"), list)
    }
