"""What makes a training repeatable: seeds, the order of samples, fixed sums, checkpoints.

`__all__` holds what an author may call. The modules import torch, so a name is imported only when
it is used: this package may be imported before the profile is in force.
"""

from typing import TYPE_CHECKING

from repro.core.lazy import importer, listed_names

_NAMES = {
    "repro.training.seeding": (
        "ExperimentSeeds",
        "get_seed_state",
        "seed_generators",
        "set_seed",
        "set_seed_state",
        "worker_init_fn",
    ),
    "repro.training.determinism": (
        "compiled",
        "flags",
        "refuse_changed_flags",
        "set_determinism",
        "set_threads",
        "single_thread",
    ),
    "repro.training.scatter": (
        "deterministic_bincount",
        "deterministic_index_add",
        "deterministic_scatter_add",
    ),
    "repro.training.sampling": (
        "SampleKey",
        "Schedule",
        "naming_samples",
        "refuse_not_finite",
        "sample_seed",
        "split_indices",
    ),
    "repro.training.loading": (
        "IndexedBatch",
        "SeededDataset",
        "batches_in_order",
        "batches_of_steps",
    ),
    "repro.training.batches": ("cut", "mapped", "moved", "size_of", "tensors_of"),
    "repro.training.weighted": ("Weighted",),
    "repro.training.parallel": (
        "Processes",
        "TreeSum",
        "backward_in_shards",
        "choose_device",
        "shard_slices",
        "slices_here",
    ),
    "repro.training.model_state": (
        "load_fitting",
        "restore_optimizer",
        "weights_digest",
    ),
    "repro.training.interruption": ("Interruption",),
}

if TYPE_CHECKING:
    from repro.training.batches import cut as cut
    from repro.training.batches import mapped as mapped
    from repro.training.batches import moved as moved
    from repro.training.batches import size_of as size_of
    from repro.training.batches import tensors_of as tensors_of
    from repro.training.determinism import compiled as compiled
    from repro.training.determinism import flags as flags
    from repro.training.determinism import refuse_changed_flags as refuse_changed_flags
    from repro.training.determinism import set_determinism as set_determinism
    from repro.training.determinism import set_threads as set_threads
    from repro.training.determinism import single_thread as single_thread
    from repro.training.interruption import Interruption as Interruption
    from repro.training.loading import IndexedBatch as IndexedBatch
    from repro.training.loading import SeededDataset as SeededDataset
    from repro.training.loading import batches_in_order as batches_in_order
    from repro.training.loading import batches_of_steps as batches_of_steps
    from repro.training.model_state import load_fitting as load_fitting
    from repro.training.model_state import restore_optimizer as restore_optimizer
    from repro.training.model_state import weights_digest as weights_digest
    from repro.training.parallel import Processes as Processes
    from repro.training.parallel import TreeSum as TreeSum
    from repro.training.parallel import backward_in_shards as backward_in_shards
    from repro.training.parallel import choose_device as choose_device
    from repro.training.parallel import shard_slices as shard_slices
    from repro.training.parallel import slices_here as slices_here
    from repro.training.sampling import SampleKey as SampleKey
    from repro.training.sampling import Schedule as Schedule
    from repro.training.sampling import naming_samples as naming_samples
    from repro.training.sampling import refuse_not_finite as refuse_not_finite
    from repro.training.sampling import sample_seed as sample_seed
    from repro.training.sampling import split_indices as split_indices
    from repro.training.scatter import deterministic_bincount as deterministic_bincount
    from repro.training.scatter import deterministic_index_add as deterministic_index_add
    from repro.training.scatter import deterministic_scatter_add as deterministic_scatter_add
    from repro.training.seeding import ExperimentSeeds as ExperimentSeeds
    from repro.training.seeding import get_seed_state as get_seed_state
    from repro.training.seeding import seed_generators as seed_generators
    from repro.training.seeding import set_seed as set_seed
    from repro.training.seeding import set_seed_state as set_seed_state
    from repro.training.seeding import worker_init_fn as worker_init_fn
    from repro.training.weighted import Weighted as Weighted
else:
    __getattr__ = importer(__name__, _NAMES)

__all__ = listed_names(_NAMES)
