"""What the engines need of the processes that were started, and of NCCL, before they meet.

Promises that another number of processes is refused, and each order of NCCL's sums but one.
"""

import os

import torch

from repro.core.errors import UserError, refuse
from repro.core.launch import launched
from repro.training.engine import EngineSettings
from repro.training.processes import Processes

# A ring adds in one order, whatever the size of a message; sums inside the switches were seen to
# differ from call to call (NVIDIA/nccl#1497).
_NCCL = {"NCCL_ALGO": "Ring", "NCCL_NVLS_ENABLE": "0"}


def refuse_other_launch(settings: EngineSettings, device: torch.device) -> None:
    """Set NCCL's variables; UserError for other values, and for another number of processes."""
    size = launched().size
    if settings.processes != size:
        words = (
            f"training.processes={settings.processes}, a condition of training.parallel="
            f"{settings.parallel}, and {size} were started"
        )
        launcher = f"python -m torch.distributed.run --nproc-per-node={settings.processes} -m"
        raise UserError(f"{words}: start as many, by {launcher} in place of python -m")
    if device.type == "cuda":
        refuse(
            [
                f"{name}={os.environ[name]}: the sums of training.parallel={settings.parallel} "
                f"have one order with {name}={value} alone: expected that, or nothing"
                for name, value in _NCCL.items()
                if os.environ.get(name, value) != value
            ]
        )
        os.environ.update(_NCCL)


def environment(
    settings: EngineSettings, device: torch.device, processes: Processes | None
) -> dict[str, str]:
    """Return the backend with its version, the processes of each node, and NCCL's variables.

    `processes`: those of a training, which all call this. None tells what `record` and `verify`
    start: all of them on this machine.
    """
    layout = str(settings.processes)
    if processes:
        nodes = processes.texts(os.environ.get("GROUP_RANK", "0"))
        layout = "+".join(str(nodes.count(node)) for node in dict.fromkeys(nodes))
    backend = "gloo"
    variables = {}
    if device.type == "cuda":
        backend = "nccl " + ".".join(map(str, torch.cuda.nccl.version()))
        there = {name: value for name, value in os.environ.items() if name.startswith("NCCL_")}
        variables = {**_NCCL, **there}
    return {
        "processes per node": layout,
        "backend": f"{backend}, torch {torch.__version__}",
        **variables,
    }
