"""Refuse optimizers whose bits depend on the CPU model, in the portable profile.

The default implementations of torch's adaptive optimizers take a root with MKL, whose last bit
differs between CPU models (measured; docs/guarantees.md); the fused kernels do not. An optimizer
that is not torch's is left to `repro audit`, which sees the operation.
"""

from collections.abc import Mapping

from torch import optim
from torch.optim import Optimizer

from repro.core.errors import refuse

_FUSED = (optim.Adam, optim.AdamW, optim.Adagrad)
_NEVER_FUSED = (optim.NAdam, optim.RAdam, optim.RMSprop, optim.Adadelta, optim.LBFGS)


def refuse_other_bits(optimizers: Mapping[str, Optimizer]) -> None:
    """Raise UserError for each optimizer of torch's that takes a root with MKL."""
    faults = []
    for name, optimizer in optimizers.items():
        kind = type(optimizer).__name__
        if isinstance(optimizer, _NEVER_FUSED):
            faults.append(
                f"the optimizer {name} is {kind}, which has no fused kernel: with profile=portable "
                "its bits would depend on the CPU model; take AdamW, Adagrad or SGD, or "
                "profile=native"
            )
        elif isinstance(optimizer, _FUSED) and not optimizer.defaults.get("fused"):
            faults.append(
                f"the optimizer {name} is {kind} without fused=True: with profile=portable its "
                f"bits would depend on the CPU model; write {kind}(..., fused=True)"
            )
    refuse(faults)
