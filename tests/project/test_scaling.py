"""docs/scaling.md: its traffic formula beside what real processes send, its tables beside its
formulas.
"""

import json

import pytest
from conftest import Project

RESNET18 = 11.18e6  # values, as docs/scaling.md says

# A step of a real training, every collective's bytes counted on their way into torch.distributed.
COUNT = """
import json, os, sys
from contextlib import nullcontext
from experiment import ROOT
from experiment.config import LOADER
from repro import environment

config = LOADER.load(sys.argv[1:])
environment.enter(config.profile, config.threads)
import torch.distributed as dist
from experiment.train import train
from repro.runs.training_session import TrainingSession


class Session(TrainingSession):
    def register(self, *, model, **others):
        self.model = model
        super().register(model=model, **others)


session = Session(ROOT, config, lambda run: nullcontext())
sent = {}


def count(name, bytes_of):
    collective = getattr(dist, name)

    def counted(*arguments):
        sent[name] = sent.get(name, 0) + bytes_of(*arguments)
        return collective(*arguments)

    setattr(dist, name, counted)


W = dist.get_world_size()
count("all_to_all_single", lambda _, own: own.nbytes * (W - 1) // W)  # its own slice stays
count("all_gather", lambda _, own: own.nbytes * (W - 1))  # every other process gets it
count("all_gather_single", lambda _, own: own.nbytes * (W - 1))
count("broadcast", lambda own, source: own.nbytes * (W - 1))
count("all_reduce", lambda own, *_: 1 / 0)  # never: its order is the library's
train(session)
model = session.model
floating = [b for b in model.buffers() if b.is_floating_point()]
counters = sum(b.nbytes for b in model.buffers() if not b.is_floating_point())
values = [*model.parameters(), *floating, *(b.new_zeros(()) for b in floating)]
facts = {"values": sum(v.numel() for v in values), "tensors": len(values)}
facts |= {"sent": sent, "counters": counters}
with open(f"sent-{os.environ['RANK']}.json", "w") as file:
    json.dump(facts, file)
dist.destroy_process_group()
"""


def per_process(values: int, tensors: int, processes: int) -> tuple[int, int]:
    """What a process sends in a step: gradients and buffers; words that say which there are.

    Of each floating buffer one value says whether it changed. Zeros fill the values up to a
    multiple of the processes. One word per tensor, three numbers of the loss (its sum, its weight,
    whether a weight cannot be used) and three of the trace (samples, inputs, whether to stop) go to
    every other process.
    """
    padded = -(-values // processes) * processes
    others = processes - 1
    return 2 * 4 * padded * others // processes, (4 * tensors + 8 * 3 + 8 * 3) * others


@pytest.mark.parametrize(("processes", "model"), [(2, "resnet18"), (4, "small_cnn")])
def test_the_traffic_is_that_of_the_formula(
    own_project: Project, processes: int, model: str
) -> None:
    (own_project.path / "experiment" / "count.py").write_text(COUNT)
    steps = 2
    settings = [f"training.max_steps={steps}", f"training.shards={processes}", f"model={model}"]
    settings += ["training.batch_size=16"]
    done = own_project.processes(processes, "experiment.count", *settings)
    assert done.returncode == 0, done.stderr
    found = [json.loads(path.read_text()) for path in own_project.path.glob("sent-*.json")]
    assert len(found) == processes
    for facts in found:
        large, small = per_process(facts["values"], facts["tensors"], processes)
        sent = facts["sent"]
        assert sent["all_to_all_single"] == steps * large // 2
        assert sent["broadcast"] == steps * facts["counters"] * (processes - 1)
        # Once, whatever the steps: how many tensors there are, words when all are ready, the names
        # of what the loss tells beside itself, and who hashes which files.
        once = sum(sent.values()) - sent["broadcast"] - steps * (large + small)
        assert 0 < once <= 1024 * (processes - 1)
        if model == "resnet18":
            assert facts["values"] == pytest.approx(RESNET18, rel=1e-3)
