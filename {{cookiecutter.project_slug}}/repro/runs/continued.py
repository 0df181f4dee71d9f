"""Refuse to go on with another training: other settings, other data, or other code.

A run whose files say one thing and whose weights were made by another is worse than none. Settings
and data can only be put back. Other code may be meant, such as a mended fault after days of
training: `resume_changed_code=true` goes on, and the contexts of the run then hold both, so that
`compare`, `record` and `verify` take it for a run of other code. So does
`resume_other_processes=true` with ddp and fsdp, whose bits depend on the number of processes.
"""

from dataclasses import dataclass, field
from pathlib import Path

from repro.core import layout
from repro.core.errors import SHOWN, refuse
from repro.core.files import JsonObject
from repro.core.project import (
    MAX_STEPS,
    PROCESSES,
    RESUME_CHANGED_CODE,
    RESUME_OTHER_PROCESSES,
)
from repro.core.text import listed
from repro.runs.conditions import differences
from repro.runs.config_values import seeds_by_hand, setting, without_setting
from repro.runs.configuration import read_config_used
from repro.runs.context import read_context
from repro.training.packing import State


@dataclass(frozen=True)
class TrainedWith:
    """The settings of a training, and the digest of its data; None where it is not known.

    `on_disk`: code, lock, and packages that are not as locked; empty where they are not known.
    """

    config: JsonObject
    data: str | None = None
    on_disk: JsonObject = field(default_factory=dict)


def trained_with(state: State) -> TrainedWith:
    """Return what the training had whose state this is (a checkpoint's, or a trainer's)."""
    return TrainedWith(state["config"], state.get("data"), state.get("on_disk") or {})


def refuse_other_training(
    old: TrainedWith,
    new: TrainedWith,
    where: Path,
    changed_code: bool = False,
    other_processes: bool = False,
) -> None:
    """UserError if the training in `where` had other settings, data or code; its end may differ.

    `changed_code`, `other_processes`: whether these are what the user asks for.
    """
    lines = differences({"config": _comparable(old.config)}, {"config": _comparable(new.config)})
    if old.data and new.data and old.data != new.data:
        lines.append("data: not the files that it was trained with: put them back, or train anew")
    faults = [f"{where} was trained with other settings or data:", *lines] if lines else []
    if not other_processes and (others := differences_of_processes(old, new)):
        remedy = f"start as many, or {RESUME_OTHER_PROCESSES}=true goes on as a run of other bits"
        faults.append(f"{where} was trained with {others}: {remedy}")
    code = [] if changed_code else differences_of_code(old, new)
    if code:
        names = listed(code, SHOWN)
        remedy = f"put it back, or {RESUME_CHANGED_CODE}=true goes on as a run of other code"
        faults.append(f"{where} was trained with other code ({names}): {remedy}")
    refuse(faults)


def differences_of_code(old: TrainedWith, new: TrainedWith) -> list[str]:
    """Return a line for each file or package that is another one; none if `old` is not known."""
    if not old.on_disk or not new.on_disk:
        return []
    return [line.removeprefix("code: ") for line in differences(old.on_disk, new.on_disk)]


def differences_of_processes(old: TrainedWith, new: TrainedWith) -> str:
    """Say how many processes there were, and are; nothing where the bits depend on no number.

    To go from shards to ddp, or back, is another setting.
    """
    before, now = setting(old.config, PROCESSES), setting(new.config, PROCESSES)
    return f"{before} processes, and these are {now}" if before and now and before != now else ""


def code_in_contexts(start: Path) -> JsonObject:
    """Return the code with which a run last trained, by its contexts; empty if none tells.

    For a checkpoint of a kit that wrote no code into checkpoints.
    """
    run = layout.run_of(start)
    folders = layout.context_folders(run) if run else []
    for folder in reversed(folders):
        context = read_context(folder)
        if context and context.conditions.lock:
            return context.conditions.on_disk.as_json()
    return {}


def _comparable(config: JsonObject) -> JsonObject:
    """Return the settings that must be equal: not those that are judged by themselves."""
    settings = config
    for name in (MAX_STEPS, PROCESSES, RESUME_CHANGED_CODE, RESUME_OTHER_PROCESSES):
        settings = without_setting(settings, name)
    return {**settings, "seeds": seeds_by_hand(config)}


def refuse_other_run(folder: Path, settings: JsonObject) -> None:
    """UserError if `folder` holds a run of other settings that saved no checkpoint."""
    used = read_config_used(folder)
    if used:
        known = {name: value for name, value in used.items() if name in settings}
        refuse_other_training(TrainedWith(known), TrainedWith(settings), folder)
