"""Tell what of a file must not change when names in it are replaced, because it states conditions.

Such a file is no condition itself, but a reader compares with what it states: what was recorded,
the context and the trace of a run, the settings in a checkpoint, the names of tensors.
"""

import ast
import json
from pathlib import PurePosixPath

from repro.core import layout
from repro.core.bounded import parse_json
from repro.core.files import Json
from repro.core.project import parse_toml
from repro.data.manifest import data_digest
from repro.publishing.anonymity.identity_sources import parse_yaml

_RECORDED_WORDS = ("text", "shows", "cost", "dataset", "added")  # for people, no condition


def stated_conditions(name: str, data: bytes) -> object:
    """Return what a file states of conditions and of code; None if it states nothing.

    ValueError, UserError or SyntaxError for a file that is not what its name says.
    """
    file = PurePosixPath(name).name
    if file == layout.CONTEXT:
        return _some_of(parse_json(data), "conditions", "hardware_class", "seed")
    if file == layout.TRACE:
        return [_of_trace(line) for line in data.splitlines() if line]
    if file == layout.STATE:
        return _some_of(parse_json(data), "config", "on_disk", "data", "model", "step")
    if file == layout.DATA_FACTS:
        return data_digest(parse_json(data))
    if name == f"{layout.RESULTS}/expected_metrics.json":
        return _recorded(parse_json(data))
    if name == "configs/claims.yaml":
        return [_but(claim, "text", "shows") for claim in parse_yaml(data.decode())]
    if name == "pyproject.toml":
        own = parse_toml(data.decode()).get("tool", {})
        parts = own.get("repro") if isinstance(own, dict) else None
        return _some_of(parts, "prepare", "train", "evaluate", "task", "data", "config", "claims")
    if name.endswith(".py"):
        return type(ast.parse(data)).__name__  # it can still be read
    if name.endswith(".safetensors"):
        return _tensors(data)
    return None


def _some_of(content: Json, *names: str) -> object:
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    return {name: content[name] for name in names if name in content}


def _but(content: Json, *names: str) -> object:
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    return {name: value for name, value in content.items() if name not in names}


def _of_trace(line: bytes) -> object:
    entry = parse_json(line)
    header = entry.get("header") if isinstance(entry, dict) else None
    return _some_of(header, "conditions", "hardware_class") if header else json.dumps(entry)


def _recorded(content: Json) -> object:
    claims = content.get("claims") if isinstance(content, dict) else None
    if not isinstance(claims, dict):
        raise ValueError("no claims")
    return {name: _but(claim, *_RECORDED_WORDS) for name, claim in claims.items()}


def _tensors(data: bytes) -> object:
    """Return all of a safetensors file but its metadata."""
    length = int.from_bytes(data[:8], "little")
    header = parse_json(data[8 : 8 + length])
    return _but(header, "__metadata__"), data[8 + length :]
