"""Put a state into a model and an optimizer, and give a model's weights their digest, the `bits`.

Promises that a checkpoint's state of another model or optimizer is refused, and so is a model that
could not be seeded, saved or trained here. Only `load_fitting`, which starts a new training, takes
what fits of other weights, and names what does not.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from repro.core.bounded import DamagedFile
from repro.core.errors import UserError, reason_of
from repro.core.hashing import sha256_bytes, sha256_file
from repro.core.stand_ins import stand_in
from repro.training.packing import LoadedState, State
from repro.training.seeding import set_seed_state
from repro.training.tensors import load_tensors


def load_fitting(network: nn.Module, path: Path, expected: str) -> None:
    """Start `network` from the safetensors file `path`, whose SHA-256 is `expected`.

    Layers whose shape is another one (the head for other classes, a small stem) stay random, and
    are named. UserError if the file is another one or fits nothing.
    """
    there = f"SHA-256 {sha256_file(path)}" if path.is_file() else "there is no such file"
    if there != f"SHA-256 {expected}":
        what = stand_in(path)
        remedy = f"; this is {what}" if what else ""
        raise UserError(f"weights={path}: {there}, expected SHA-256 {expected}{remedy}")
    try:
        given = load_tensors(path)
    except DamagedFile as error:
        remedy = "safetensors.torch.save_file(torch.load(PATH, weights_only=True), NEW)"
        words = f"no safetensors ({error.reason}); convert it once: {remedy}"
        raise UserError(f"weights={path}: {words}") from error
    wanted = network.state_dict()
    fitting = {
        name: tensor
        for name, tensor in given.items()
        if name in wanted and wanted[name].shape == tensor.shape
    }
    if not fitting:
        raise UserError(f"weights={path}: no tensor of it fits the model")
    network.load_state_dict(fitting, strict=False)
    random = sorted(wanted.keys() - fitting.keys())
    print(f"weights of {path.name}: {len(fitting)} tensors; random: {' '.join(random) or 'none'}")


def restore(state: State, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Put a state's weights into the model; with an optimizer, its state and the generators', too.

    `state` has "model" and "buffers", and for an optimizer "optimizer" and "generators". UserError
    if something does not fit.
    """
    try:
        model.load_state_dict(state["model"])
        for name, value in state.get("buffers", {}).items():
            owner, _, name_there = name.rpartition(".")
            _put_buffer(model.get_submodule(owner), name_there, value)
    except (RuntimeError, AttributeError, KeyError) as error:
        reason = reason_of(error, 300)
        raise UserError(f"the checkpoint is of another model: {reason}") from error
    if optimizer:
        try:
            restore_optimizer(optimizer, state["optimizer"])
            set_seed_state(state["generators"])
        except ValueError as error:
            raise UserError(f"the checkpoint cannot be continued here: {error}") from error


def _put_buffer(module: nn.Module, name: str, value: Tensor) -> None:
    """Write a value into the buffer that is there, or put it there as a new one.

    New are caches that steps made or let grow.
    """
    there = module._buffers.get(name)
    if there is not None and there.shape == value.shape and there.dtype == value.dtype:
        with suppress(RuntimeError):  # an expanded one cannot be written to
            there.copy_(value)
            return
    if there is not None:
        device: torch.device | None = there.device
    else:
        device = next((weight.device for weight in module.parameters()), None)
    module.register_buffer(name, value.to(device), persistent=False)


def hidden_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that `state_dict` leaves out (persistent=False): steps may change them."""
    known = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in known}


def refuse_unusable(model: nn.Module) -> None:
    """Raise UserError for weights that cannot be seeded, saved or trained here."""
    for name, weight in model.named_parameters():
        if is_lazy(weight):
            raise UserError(
                f"{name}: a lazy layer has no weights yet, and they would be drawn at the first "
                "batch, under another seed: give it its size"
            )
        if weight.is_complex():
            raise UserError(
                f"{name}: the fused optimizers take no complex weights: keep torch.view_as_real of "
                "them, and use torch.view_as_complex in forward"
            )


def restore_optimizer(optimizer: torch.optim.Optimizer, state: LoadedState) -> None:
    """Put an optimizer's state back, the moments laid out in memory as their weights are.

    Fused kernels take both in that order; files hold tensors row by row, and a model may be
    channels_last.
    """
    try:
        optimizer.load_state_dict(state)
    except (TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise ValueError(f"no state of an optimizer: {type(error).__name__}: {error}") from error
    for weight, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                there = value.device  # a count of steps may be on the host
                laid_out = torch.empty_like(
                    weight, dtype=value.dtype, device=there, requires_grad=False
                )
                moments[name] = laid_out.copy_(value)


def weights_digest(
    weights: Mapping[str, Tensor], whole: Callable[[Tensor], Tensor] = Tensor.detach
) -> str:
    """Return the `bits` of a model: SHA-256 over names, dtypes, shapes and bytes, by name.

    `whole(tensor)` returns all of a tensor of which a process may hold a part.
    """
    digests = []
    for name in sorted(weights):
        tensor = whole(weights[name]).detach().cpu().contiguous()
        data = tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        shape = list(tensor.shape)
        digests.append(f"{name} {tensor.dtype} {shape} {sha256_bytes(data)}\n")
    return sha256_bytes("".join(digests).encode())
