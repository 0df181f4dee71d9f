"""Read the state of a training from a checkpoint, and refuse what no training can have saved.

The checkpoint's sums tell of accidents. What somebody wrote with sums of its own is looked at here
as far as the kit itself takes it apart: the settings, the steps, the weights by name.
"""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from repro.core.bounded import DamagedFile
from repro.core.files import JsonObject
from repro.core.layout import STATE
from repro.training import checkpoint
from repro.training.packing import LoadedState
from repro.training.part import Part

_KINDS: dict[str, tuple[type, ...]] = {
    "config": (dict,),
    "model": (dict,),
    "buffers": (dict,),
    "generators": (dict,),
    "notes": (dict,),
    "on_disk": (dict, type(None)),
    "best": (dict, type(None)),
    "data": (str, type(None)),
    "finished": (str,),
    "step": (int,),
    "steps": (int, type(None)),
}
_NEEDED = ("config", "model", "step")  # older kits did not write all


def load_state(folder: Path, load: Callable[[Path], LoadedState] = checkpoint.load) -> LoadedState:
    """Load the state of a training; UserError if the checkpoint is damaged, or of no training.

    `load(folder)` reads it: all, or what this process holds of it.
    """
    state = load(folder)
    if fault := _fault_of(state):
        raise DamagedFile(folder / STATE, fault, "take another checkpoint")
    return state


def _fault_of(state: LoadedState) -> str | None:
    for name in _NEEDED:
        if name not in state:
            return f"it has no {name}"
    for name, kinds in _KINDS.items():
        if name in state and (not isinstance(state[name], kinds) or state[name] is True):
            return f"its {name} is a {type(state[name]).__name__}"
    if state["step"] < 0:
        return "its step is below 0"
    best = state.get("best")
    if best and (type(best.get("step")) is not int or not _are_numbers(best)):
        return "its best has no step, or something else than numbers"
    for name in ("model", "buffers"):
        there = state.get(name, {})
        strange = [key for key, value in there.items() if not isinstance(value, Tensor | Part)]
        if strange:
            return f"its {name} holds {strange[0]!a:.80}, which is no tensor"
    return None


def _are_numbers(values: JsonObject) -> bool:
    return all(isinstance(value, int | float) for value in values.values())
