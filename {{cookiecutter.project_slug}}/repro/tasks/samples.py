"""Say what an author's data set may have beside its samples: how batches are made and chosen."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch.utils.data import Dataset, default_collate

from repro.training.loading import Collate

_SAMPLERS = ("order", "batches", "batch")


class Samples(Protocol):
    """A data set of `datasets(...)`: only the first two methods must be there.

    The last three are asked of the training samples, which have one of them or none: without one
    each epoch has a random order of its own. They may draw random numbers from the global
    generators, which are seeded for each call.
    """

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return a sample: tensors, numbers and text, in tuples, lists or dicts.

        It may draw random numbers, which follow from the epoch and the sample.
        """
        ...

    def collate(self, samples: list[Any], /) -> Any:
        """Make a batch of the samples of a shard; without it, `torch.utils.data.default_collate`.

        Called for each shard alone, so it may pad to the longest sample, and it may draw.
        """
        ...

    def order(self, seed: int, epoch: int, /) -> Sequence[int]:
        """Return the indices of an epoch, as many in each, some more than once if you like."""
        ...

    def batches(self, seed: int, epoch: int, /) -> Sequence[Sequence[int]]:
        """Return the batches of an epoch, lists of indices: as many in each epoch, of any sizes.

        training.batch_size is then read by nobody else.
        """
        ...

    def batch(self, seed: int, step: int, /) -> Sequence[int]:
        """Return the indices of a step, where there are no epochs: training.steps is its length."""
        ...


def collate_of(dataset: Dataset[Any]) -> Collate:
    """Return what makes a batch of a data set's samples: its own `collate`, or torch's."""
    own: Collate = getattr(dataset, "collate", default_collate)
    return own


def samplers_of(dataset: Dataset[Any]) -> dict[str, Any]:
    """Return how a data set chooses the samples of a step, by the names that `steps` has.

    Data sets of Hugging Face's `datasets` package choose none: their own `batch` groups rows.
    """
    if type(dataset).__module__.startswith("datasets."):
        return {}
    return {name: getattr(dataset, name) for name in _SAMPLERS if hasattr(dataset, name)}
