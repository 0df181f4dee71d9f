"""Files that somebody cut, nested, enlarged or made to do harm: one line, in little memory."""

import io
import json
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TEMPLATE
from part_states import cut, in_all, refit
from repro.core import bounded
from repro.core.bounded import DamagedFile, parse_json, read_json_file, read_text, read_whole
from repro.core.errors import SHOWN, UserError
from repro.core.files import parse_object, write_json
from repro.core.layout import STATE, SUMS, TENSORS, part_file
from repro.core.project import author_module, author_object, parse_toml, tool_settings
from repro.core.tensor_files import fault_of_tensors
from repro.data.manifest import read_manifest, write_manifest
from repro.diagnosis.diff import first_difference
from repro.diagnosis.step_file import read_step
from repro.environment import locks
from repro.results import questions, report
from repro.results.claims import read_claims, read_recording
from repro.results.recording import parse_recording
from repro.runs.configuration import Loader, read_config_used
from repro.runs.figures import draw_parting
from repro.runs.logs import TraceLine, each_line, read_lines
from repro.runs.saved_state import load_state
from repro.runs.settings import Settings
from repro.runs.trace import _cut
from repro.runs.yaml_files import fault_of_size, load_yaml
from repro.tracking.sender import read_state
from repro.training import checkpoint
from repro.training.model_state import restore_optimizer
from repro.training.scale import parts
from repro.training.seeding import get_seed_state, set_seed_state
from repro.training.tensors import load_tensors
from safetensors.torch import save_file

DEEP = 200_000
GIGABYTE = 1 << 30
MUCH = 200 << 20  # bytes of memory that no refusal needs


def refusal(call: Callable[[], object]) -> str:
    """The line of a call that must refuse."""
    with pytest.raises(UserError) as caught:
        call()
    (line,) = caught.value.lines
    assert "\n" not in line
    return line


def peak_of(call: Callable[[], object]) -> int:
    """The most bytes that Python held at a time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# JSON, lines, TOML and YAML ----------------------------------------------------------------------


@pytest.mark.parametrize("depth", [bounded.DEEPEST + 1, 2000, DEEP])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_what_is_nested_too_deep_is_no_json(tmp_path: Path, depth: int, opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    path = tmp_path / "a.json"
    lines = tmp_path / "a.jsonl"
    for end in (f"1{closing * depth}", ""):
        path.write_text(opening * depth + end)
        lines.write_text(f'{{"step": 1, "a": {opening * depth}{end}}}\n')
        assert parse_object(path) is None
        with pytest.raises(DamagedFile, match=r"a\.json is damaged"):
            read_json_file(path)
        with pytest.raises(DamagedFile, match=r"a\.jsonl: line 1 is damaged"):
            read_lines(lines)


def test_a_hundred_levels_are_read(tmp_path: Path) -> None:
    value: Any = 1
    for _ in range(bounded.DEEPEST):
        value = [value]
    write_json(tmp_path / "a.json", value)
    assert read_json_file(tmp_path / "a.json") == value
    assert "levels" in refusal(lambda: write_json(tmp_path / "a.json", [value]))
    assert read_json_file(tmp_path / "a.json") == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1",
        '{"a": 1} 2',
        "\0",
        "9" * 5000,
        '"\\ud800"',
        '"\\udfffx"',
        b"\xff\xfe{}",
        b"[1,\xff]",
    ],
)
def test_what_is_no_json_is_told(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        parse_json(text)


def test_whole_characters_and_bytes_of_names_are_json() -> None:
    assert parse_json('["\\ud83d\\ude00", "\\udcff"]') == ["\U0001f600", "\udcff"]


def test_a_line_of_a_gigabyte_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "a": "')
    with path.open("r+b") as file:  # the disk holds none of it
        file.truncate(GIGABYTE)
    assert peak_of(lambda: refusal(lambda: read_lines(path))) < MUCH
    assert "line 2 is damaged (more than" in refusal(lambda: [*each_line(path)])


def test_more_lines_than_memory_holds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(f'{{"step": {step}, "loss": 1}}\n' for step in range(100)))
    monkeypatch.setattr(bounded, "MOST_VALUES_OF_A_LOG", 599)
    assert "more than 599 values: too many to be held" in refusal(lambda: read_lines(path))
    monkeypatch.setattr(bounded, "MOST_VALUES_OF_A_LOG", 600)
    assert len(read_lines(path)) == 100
    monkeypatch.setattr(bounded, "LARGEST_LOG", 100)
    assert "expected at most 100" in refusal(lambda: read_lines(path))


def test_a_resumed_training_cuts_a_trace_of_any_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read line by line: what is too long to be compared goes on all the same."""
    monkeypatch.setattr(bounded, "LARGEST_LOG", 0)
    path = tmp_path / "trace.jsonl"
    lines = ['{"step": 0, "header": {"a": 1}}', *(f'{{"step": {step}}}' for step in range(9))]
    path.write_text("\n".join([*lines, ""]))
    for header, more in (({"a": 1}, []), ({"a": 2}, ['{"step": 4, "header": {"a": 2}}'])):
        cut = io.StringIO()
        _cut(path, cut, 4, header)
        assert cut.getvalue().splitlines() == [*lines[:6], *more]


@pytest.mark.parametrize("step", ["-1", "true", "1.0", '"1"', "null", str(2**53), "9" * 400])
def test_a_line_has_a_step_that_a_training_can_have(tmp_path: Path, step: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": {step}}}\n')
    assert "line 1 is damaged (it has no step)" in refusal(lambda: read_lines(path))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(GIGABYTE)
    assert peak_of(lambda: refusal(lambda: read_json_file(path))) < MUCH
    assert "expected at most" in refusal(lambda: read_whole(path))
    assert "expected at most" in refusal(lambda: read_text(path))
    path.write_bytes(b"[" + b"{}," * (bounded.MOST_VALUES // 2) + b"{}]")  # ten times its size
    assert peak_of(lambda: refusal(lambda: read_json_file(path))) < MUCH


@pytest.mark.parametrize("text", ["a = " + "[" * DEEP, "a = ", "\0", "a = 1\na = 2", "a" * 10])
def test_toml_that_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    assert "is damaged" in refusal(lambda: parse_toml(text))
    (tmp_path / "pyproject.toml").write_text(text)
    assert "pyproject.toml is damaged" in refusal(lambda: tool_settings(tmp_path))


@pytest.mark.parametrize(
    "named", ["#own.config:x", ":x", ".x:y", "own..x:y", "no_such:x", "json:x"]
)
def test_a_name_of_nothing_is_one_line(tmp_path: Path, named: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[tool.repro]\nconfig = "{named}"\n')
    told = refusal(lambda: author_object(tmp_path, "config"))
    assert f'config = "{named}"' in told
    assert "of your own code" in told
    (tmp_path / "pyproject.toml").write_text(f'[tool.repro]\ndata = "{named.partition(":")[0]}"\n')
    if named != "json:x":  # a module that there is
        assert "expected a module of" in refusal(lambda: author_module(tmp_path, "data"))


def test_a_module_that_a_named_one_lacks_is_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lacking_one.py").write_text("import no_such_package\n")
    (tmp_path / "pyproject.toml").write_text('[tool.repro]\nconfig = "lacking_one:x"\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        author_object(tmp_path, "config")


def test_a_report_of_a_project_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b'[project]\nname = "\xf4"\n')
    assert "no UTF-8 text at byte 18" in refusal(lambda: report._read_project(tmp_path))


def test_a_package_whose_metadata_are_no_text_is_as_if_it_were_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "odd-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_bytes(b"Name: odd\xf4\nVersion: 1.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert locks.installed_versions() == {}


@pytest.mark.parametrize("text", ["", "tool = 1", "[tool]\nrepro = 1", "[tool.repro]\ndata = 1"])
def test_a_project_without_its_table_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert "expected a table [tool.repro]" in refusal(lambda: tool_settings(tmp_path))


YAMLS = {
    "deep": "a: " + "[" * DEEP,
    "deep by lines": "\n".join(f"{' ' * depth}a:" for depth in range(300)),
    "aliases": "a0: &a0 [1]\n"
    + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(20)),
    "merges": "a0: &a0 {b: 1}\n"
    + "".join(f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}\n" for n in range(20)),
    "itself": "a: &a [*a]",
    "large": "a: " + "x" * (1 << 21),
    "object": "a: !!python/object/apply:os.system [exit]",
    "binary": "a: !!binary x",
    "NUL": 'a: "\\0"',
    "half": 'a: "\\ud800"',
    "no UTF-8": "a: \udcff",
    "odd name": "? [1, 2]\n: 3",
    "interpolation": "a: ${",
}


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_that_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config_used.yaml"
    path.write_bytes(YAMLS[name].encode(errors="surrogateescape"))
    assert "config_used.yaml is damaged" in refusal(lambda: read_config_used(tmp_path))
    assert peak_of(lambda: refusal(lambda: load_yaml(path))) < MUCH


@pytest.mark.parametrize("name", ["deep", "deep by lines", "aliases", "merges", "itself", "large"])
def test_what_would_become_too_large_is_told_before_it_is_built(tmp_path: Path, name: str) -> None:
    """A loader in C ends the process at 200,000 levels."""
    path = tmp_path / "config.yaml"
    path.write_text(YAMLS[name])
    assert fault_of_size(path)


# safetensors -------------------------------------------------------------------------------------


def tensor_file(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(start: int, end: int, shape: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    shape = [(end - start) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS: dict[str, tuple[Any, int, int | None]] = {
    "longer than the file": ({}, 0, 1 << 40),
    "impossibly long": ({}, 0, (1 << 64) - 1),
    "empty": (b"", 0, 0),
    "no JSON": (b"{a}", 0, None),
    "deep": (b'{"a":' * DEEP, 0, None),
    "no object": ([1], 0, None),
    "metadata": ({"__metadata__": {"a": 1}}, 0, None),
    "no entry": ({"a": 5}, 0, None),
    "another field": ({"a": {**entry(0, 4), "b": 1}}, 4, None),
    "type": ({"a": entry(0, 4, dtype="X9")}, 4, None),
    "type is a list": ({"a": entry(0, 4, dtype=["F32"])}, 4, None),
    "shape": ({"a": entry(0, 4, shape=[2])}, 4, None),
    "negative shape": ({"a": entry(0, 4, shape=[-1])}, 4, None),
    "shape of true": ({"a": entry(0, 4, shape=[True])}, 4, None),
    "shape that overflows": ({"a": entry(0, 0, shape=[2**62, 4])}, 0, None),
    "offsets beyond the end": ({"a": entry(0, 8)}, 4, None),
    "offsets backwards": ({"a": entry(8, 4, shape=[1])}, 8, None),
    "huge offsets": ({"a": entry(2**63, 2**63 + 4, shape=[1])}, 4, None),
    "overlap": ({"a": entry(0, 8), "b": entry(4, 8)}, 8, None),
    "gap": ({"a": entry(0, 4), "b": entry(8, 12)}, 12, None),
    "rest": ({"a": entry(0, 4)}, 8, None),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies_is_one_line_with_and_without_sums(tmp_path: Path, name: str) -> None:
    header, size, length = HEADERS[name]
    path = tensor_file(tmp_path / TENSORS, header, bytes(size), length)
    assert fault_of_tensors(path)  # before the library sees it
    assert f"{TENSORS} is damaged" in refusal(lambda: load_tensors(path))
    (tmp_path / STATE).write_text("{}")
    (tmp_path / SUMS).write_text(checkpoint._sums(tmp_path))
    assert f"{TENSORS} is damaged" in refusal(lambda: checkpoint.load(tmp_path))


def test_what_the_library_refuses_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of it may know other types, and other faults."""
    monkeypatch.setattr("repro.training.tensors.fault_of_tensors", lambda path: None)
    path = tensor_file(tmp_path / TENSORS, {"a": entry(0, 8)}, bytes(4))
    assert f"{TENSORS} is damaged" in refusal(lambda: load_tensors(path))


def test_what_the_library_writes_is_whole(tmp_path: Path) -> None:
    kinds = [torch.bool, torch.uint8, torch.bfloat16, torch.float16, torch.float64, torch.int64]
    tensors = {str(kind): torch.ones(2, 3, dtype=kind) for kind in kinds}
    tensors |= {"empty": torch.empty(0, 3), "scalar": torch.tensor(1.0)}
    path = tmp_path / TENSORS
    save_file(tensors, path, metadata={"format": "pt"})
    assert fault_of_tensors(path) is None
    assert load_tensors(path, "empty").keys() == tensors.keys()
    save_file({}, path)
    assert load_tensors(path) == {}
    assert "lacks the tensor images" in refusal(lambda: load_tensors(path, "images"))


# Checkpoints -------------------------------------------------------------------------------------

STATES: dict[str, tuple[Any, str]] = {
    "no object": ([], "no JSON object"),
    "a missing tensor": ({"model": {"w": {"$tensor": ".gone"}}}, "lacks the tensor '.gone'"),
    "a tensor of no name": ({"model": {"$tensor": [1]}}, "lacks the tensor"),
    "no pairs": ({"a": {"$items": [1]}}, "$items holds no pairs"),
    "pairs of lists": ({"a": {"$items": [[[1], 2]]}}, "$items holds no pairs"),
    "no config": ({"model": {}, "step": 1}, "it has no config"),
    "no step": ({"model": {}, "config": {}}, "it has no step"),
    "a text as step": ({"model": {}, "config": {}, "step": "1"}, "its step is a str"),
    "true as step": ({"model": {}, "config": {}, "step": True}, "its step is a bool"),
    "a step below 0": ({"model": {}, "config": {}, "step": -1}, "below 0"),
    "a list as model": ({"model": [], "config": {}, "step": 1}, "its model is a list"),
    "a number as weight": ({"model": {"w": 1}, "config": {}, "step": 1}, "'w'"),
    "a best of text": ({"model": {}, "config": {}, "step": 1, "best": {"step": "1"}}, "its best"),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_with_matching_sums_is_looked_at(tmp_path: Path, name: str) -> None:
    state, words = STATES[name]
    checkpoint.save(tmp_path / "c", {"model": {"w": torch.ones(1)}})
    (tmp_path / "c" / STATE).write_text(json.dumps(state))
    (tmp_path / "c" / SUMS).write_text(checkpoint._sums(tmp_path / "c"))
    line = refusal(lambda: load_state(tmp_path / "c"))
    assert words in line
    assert line.endswith("take another checkpoint")


def in_parts(folder: Path) -> Path:
    """A checkpoint that two processes wrote."""
    state = {"model": {"w": torch.ones(4)}, "config": {}, "step": 1}
    assert not in_all(2, lambda own: parts.save(folder, cut(state, own.rank, 2), own))
    assert load_state(folder)["step"] == 1
    return folder


@pytest.mark.parametrize("name", STATES)
def test_a_state_of_several_processes_is_looked_at(tmp_path: Path, name: str) -> None:
    state, words = STATES[name]
    folder = in_parts(tmp_path / "c")
    (folder / STATE).write_text(json.dumps(state))
    refit(folder, STATE)
    assert checkpoint.find_fault(folder) is None
    for load in (checkpoint.load, partial(parts.load, rank=1, size=2)):
        assert words in refusal(lambda load=load: load_state(folder, load))  # type: ignore[misc]


@pytest.mark.parametrize("name", HEADERS)
def test_a_part_whose_header_lies_is_one_line_with_and_without_sums(
    tmp_path: Path, name: str
) -> None:
    header, size, length = HEADERS[name]
    folder = in_parts(tmp_path / "c")
    tensor_file(folder / part_file(1, 2), header, bytes(size), length)
    for words in ("does not agree", "part-1-of-2.safetensors is damaged: "):
        fault = checkpoint.find_fault(folder)
        assert fault
        assert words in fault
        assert "\n" not in fault
        refusal(lambda: checkpoint.load(folder))
        refit(folder, part_file(1, 2))
    assert "part-1-of-2.safetensors is damaged" in refusal(lambda: parts.load(folder, 1, 2))


def test_a_state_that_could_not_be_read_again_is_not_saved(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    line = refusal(lambda: checkpoint.save(tmp_path / "c", {"notes": deep}))
    assert "the state of the training" in line
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "change", [{"python": None}, {"numpy": [1]}, {"torch": 5}, {"python": [3, torch.ones(3), None]}]
)
def test_states_of_generators_that_are_none_are_told(change: dict[str, Any]) -> None:
    before = get_seed_state()
    with pytest.raises(ValueError, match=r"."):
        set_seed_state({**before, **change})  # type: ignore[typeddict-item]
    set_seed_state(before)


@pytest.mark.parametrize("state", [{}, {"state": {}}, {"state": 1, "param_groups": [1]}, []])
def test_a_state_of_no_optimizer_is_told(state: Any) -> None:
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    with pytest.raises(ValueError, match=r"."):
        restore_optimizer(optimizer, state)


# Other files -------------------------------------------------------------------------------------

CLAIM = {
    "text": "t",
    "arguments": [],
    "metric": "m",
    "values": {"42": 0.5},
    "bits": {"cpu": {"42": "0" * 64}},
    "steps": 3,
    "conditions": {
        **{name: {} for name in ("code", "config", "environment", "packages")},
        **dict.fromkeys(("data", "lock"), ""),
    },
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("values", {"42": "abc"}),
        ("values", {"42": None}),
        ("values", {"42": float("nan")}),
        ("values", {}),
        ("values", {"abc": 0.5, "42": 0.5}),
        ("values", []),
        ("bits", []),
        ("bits", {}),
        ("bits", {"cpu": []}),
        ("bits", {"cpu": {}}),
        ("bits", {"cpu": {"43": "0"}}),
        ("steps", "many"),
        ("arguments", ["a=\0"]),
        ("conditions", {}),
        ("best", {"cpu": {}}),
        ("environments", {"gpu": {}}),
    ],
)
def test_a_recording_that_cannot_be_is_refused_before_training(
    tmp_path: Path, name: str, value: Any
) -> None:
    assert parse_recording({"claims": {"a": CLAIM}})
    path = tmp_path / "results/expected_metrics.json"
    write_json(path, {"claims": {"a": {**CLAIM, name: value}}})
    assert "is damaged: restore it, or delete it and make record" in refusal(
        lambda: read_recording(tmp_path)
    )


@pytest.mark.parametrize("name", [None, "../a", "", "a/b", "a\n"])
def test_a_recording_of_nothing_or_of_other_folders_is_none(name: str | None) -> None:
    claims = {} if name is None else {name: CLAIM}
    assert parse_recording({"claims": claims}) is None


def test_a_manifest_that_somebody_edited_is_named(tmp_path: Path) -> None:
    """An author's code takes its facts as `prepare` returned them."""
    path = tmp_path / "manifest.json"
    write_manifest(path, {"files": {}, "code": [], "classes": ["a", "b"]})
    assert read_manifest(path)["classes"] == ["a", "b"]
    text = path.read_text()
    for old, new in (('"a"', '"c"'), ('"classes"', '"clashes"'), ('"code": []', '"code": 1')):
        path.write_text(text.replace(old, new))
        assert "manifest.json is damaged (it is not as it was written)" in refusal(
            lambda: read_manifest(path)
        )
    path.write_text('{"files": {}, "code": [], "classes": []}')  # of an older kit
    assert read_manifest(path) == {}


@pytest.mark.parametrize(
    "value", [5, [], {"line": 1}, {"run": "a", "step": "x"}, {"header": [], "line": {"step": 1}}]
)
def test_a_file_of_a_step_that_is_none_is_one_line(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "step.json"
    path.write_text(json.dumps(value))
    assert "was not written by repro trace-step" in refusal(lambda: read_step(path))


@pytest.mark.parametrize("loss", ["0xzz", "0x1p99999", "loud", "None"])
def test_a_trace_whose_loss_is_no_number_is_told(tmp_path: Path, loss: str) -> None:
    parting = first_difference(TraceLine(1, {"loss": loss}), TraceLine(1, {"loss": "0x1p0"}))
    assert parting
    assert parting.values == (loss, "1 (0x1p0)")
    (tmp_path / "trace.jsonl").write_text(json.dumps({"step": 1, "loss": loss}) + "\n")
    line = refusal(lambda: draw_parting(tmp_path / "a.svg", (tmp_path, tmp_path), None))
    assert "the loss of step 1" in line


@pytest.mark.parametrize("text", ["[" * DEEP, "5", '{"id": 1}', "\xff"])
def test_a_trackers_state_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "tracker.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"."):
        read_state(tmp_path)


def test_an_archive_that_would_unpack_to_more_is_damaged(tmp_path: Path) -> None:
    """`make archive` compresses nothing, so a bomb is none of its archives."""
    path = tmp_path / "a.zip"
    for method, is_damaged in ((zipfile.ZIP_STORED, False), (zipfile.ZIP_DEFLATED, True)):
        with zipfile.ZipFile(path, "w", method) as file:
            file.writestr("a", bytes(1 << 20))
        assert questions._is_damaged(path) is is_damaged
    path.write_bytes(path.read_bytes()[:-30])
    assert questions._is_damaged(path)


def test_claims_with_many_faults_are_told_in_few_lines(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/claims.yaml").write_text("- 1\n" * 2000)
    (tmp_path / "pyproject.toml").write_text('[tool.repro]\nclaims = "configs/claims.yaml"\n')
    with pytest.raises(UserError) as refused:
        read_claims(tmp_path)
    assert len(refused.value.lines) == SHOWN + 1
    assert refused.value.lines[-1] == f"... and {2000 - SHOWN} more"


def test_json_is_parsed_in_one_place_only() -> None:
    """Whoever reads a file reads it within the bounds; what stands here reads no file."""
    allowed = {
        "core/bounded.py",
        "core/project.py",  # TOML
        "environment/profile.py",  # a variable
        "tracking/__main__.py",  # a line of the training's own
    }
    exchanged = {"training/beside.py", "training/rows.py", "training/processes.py"}
    exchanged |= {"training/scale/parts.py", "training/scale/library.py", "runs/restarts.py"}
    exchanged |= {"tasks/outputs.py", "tasks/task_in_session.py"}  # between processes
    exchanged |= {"data/digests.py", "data/known_digests.py", "data/tar_check.py"}
    exchanged |= {"runs/recheck.py", "diagnosis/recheck_file.py", "training/patience.py"}
    kit = TEMPLATE / "repro"
    found = {
        path.relative_to(kit).as_posix()
        for path in kit.rglob("*.py")
        for call in ("json.load", "tomllib.load", "load_file(", "safe_open(", "validate_json")
        if call in path.read_text()
    }
    assert found - allowed - exchanged == {"training/tensors.py"}


def test_settings_with_many_faults_are_told_in_few_lines(tmp_path: Path) -> None:
    """Whichever of the three places finds them: the command line, the text, or validation."""
    unknown = "".join(f"there_is_none{number}: 1\n" for number in range(2000))
    (tmp_path / "config.yaml").write_text(f'{unknown}odd: "\\0"\n')
    with pytest.raises(UserError) as refused:
        Loader(Settings, tmp_path).load(["=1"])
    assert len(refused.value.lines) == SHOWN + 1
    assert refused.value.lines[-1] == f"... and {2003 - SHOWN} more"
