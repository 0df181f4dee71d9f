"""What replay and audit ask of the author's code, by the names in [tool.repro] of pyproject.toml.

`config` names the loader of settings, `trainer` the class that trains. Any class will do that has
what the protocols below name.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from repro.core.files import JsonObject
from repro.core.project import author_object

if TYPE_CHECKING:  # torch waits until the profile is in force
    from torch import Tensor, nn

    from repro.runs.fingerprints import Quantities


class Config(Protocol):
    """The settings of a training, of which the profile has to be in force before torch is there."""

    @property
    def profile(self) -> str: ...

    @property
    def threads(self) -> int: ...


class SettingsReader(Protocol):
    """Reads settings and checks them."""

    def load(self, overrides: list[str], /) -> Config:
        """Return the config that the command line's `overrides` make."""

    def revive(self, values: JsonObject, /) -> Config:
        """Return the config of an older run from its settings."""


class Trainer(Protocol):
    """Trains the author's model, a step at a time; `step` counts the steps done."""

    model: "nn.Module"
    step: int

    def initialize(self) -> None:
        """Load what a training starts from that is not drawn at random."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take over the state of a checkpoint."""

    def steps(self, steps: range, /) -> "Iterator[tuple[Tensor, list[Any]]]":
        """Yield the samples' indices and the batch of each step, by shard; the first step is 0."""

    def train_step(self, step: int, shards: list[Any], /) -> dict[str, float]:
        """Train on a batch and return the step's numbers, the loss first."""

    def quantities(
        self, indices: "Tensor", shards: list[Any], metrics: dict[str, float], /
    ) -> "tuple[Quantities | None, bool]":
        """Return the line of the trace of the step just done; None if no trace is wanted."""


@runtime_checkable
class Validating(Protocol):
    """What a trainer may have as well: audit then looks at evaluation, too."""

    def validate(self) -> object:
        """Evaluate the model as it is on the validation samples, without changing its weights."""


def loader_of(root: Path) -> SettingsReader:
    """Import the author's loader of settings."""
    loader: SettingsReader = author_object(root, "config")
    return loader


def trainer_class_of(root: Path) -> Callable[[Config], Trainer]:
    """Import the author's trainer, and torch with it: the profile has to be in force."""
    trainer_class: Callable[[Config], Trainer] = author_object(root, "trainer")
    return trainer_class
