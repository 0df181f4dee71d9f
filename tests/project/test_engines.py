"""training.parallel=ddp and fsdp keep each promise of a session: 4 real processes, real signals.

With two processes a sum is the same in any order; with four it is not. The model has a bucket of
DDP, and a block of FSDP2, for each of its layers.
"""

import os
import signal
import time
from pathlib import Path

import pytest
from background import Forked, contents, wait_for_steps
from conftest import Project, generate

PROCESSES = 4
STEPS = 16
SETTINGS = (
    f"++training.processes={PROCESSES}",
    f"training.shards={PROCESSES}",
    "++training.bucket_mib=1",  # as the first one of DDP is in any case
    "model.width=16",
    "output.log_every=1",
    "output.keep_checkpoints=99",
    "output.checkpoint_every=4",
    "evaluation.every=8",
    "threads=1",
)

MODEL = '''

class Block(nn.Module):
    """A residual layer of 1 MiB: a bucket of DDP, and a block of FSDP2."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        return values + self.dropout(self.linear(self.norm(values)).relu())


class Wide(nn.Module):
    """Layers that are not defined in the order in which they are used."""

    def __init__(self, settings: SmallCNN, shape: Shape, classes: int) -> None:
        super().__init__()
        width = 32 * settings.width
        self.head = nn.Linear(width, classes)
        self.unused = nn.Parameter(torch.ones(3))
        self.blocks = nn.ModuleList([Block(width, settings.dropout) for _ in range(5)])
        self.first = nn.Linear(shape[0] * shape[1] * shape[2], width)

    def forward(self, images: Tensor) -> Tensor:
        values = self.first(images.flatten(1))
        for block in reversed(self.blocks):
            values = block(values)
        logits: Tensor = self.head(values)
        return logits
'''


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of a model with five large layers."""
    project = generate(tmp_path_factory.mktemp("wide"), "scale=many")
    model = project.path / "experiment" / "model.py"
    model.write_text(model.read_text() + MODEL)
    old = "        return small_cnn(settings, shape, classes)\n"
    project.edit("experiment/model.py", old, old.replace("small_cnn", "Wide"))
    return project


@pytest.fixture
def own_wide(wide: Project, tmp_path: Path) -> Project:
    """A copy to change."""
    return wide.copy(tmp_path / wide.path.name)


def words(parallel: str, name: str, *settings: str) -> list[str]:
    """The settings of a training in runs/<name>; the last one of a name is in force."""
    given = [f"++training.parallel={parallel}", f"training.max_steps={STEPS}", *SETTINGS]
    chosen = {word.partition("=")[0]: word for word in [*given, *settings]}
    return [f"run_dir=runs/{name}", *chosen.values()]


def train(project: Project, parallel: str, name: str, *settings: str) -> dict[str, bytes]:
    """Train with four processes in runs/<name>; every byte that must be the same."""
    done = project.processes(PROCESSES, "experiment.train", *words(parallel, name, *settings))
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return contents(project.path / "runs" / name)


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def parallel(request: pytest.FixtureRequest) -> str:
    """The engine."""
    return str(request.param)


@pytest.fixture(scope="module")
def trained(wide: Project, parallel: str) -> dict[str, bytes]:
    """The files of a training in runs/<engine>."""
    return train(wide, parallel, parallel)


# Bits -----------------------------------------------------------------------------------------


def test_an_engine_gives_the_same_files_again(
    wide: Project, trained: dict[str, bytes], parallel: str
) -> None:
    """With data workers, too; other seeds give others."""
    assert train(wide, parallel, f"{parallel}-workers", "num_workers=2") == trained
    assert len(trained) == 2 + 3 * len({4, 8, 12, 16})


def test_kills_at_three_steps_change_no_byte(
    wide: Project, trained: dict[str, bytes], parallel: str
) -> None:
    """All processes at once, then a single one, which ends the others, then all again."""
    name = f"{parallel}-kills"
    run = wide.path / "runs" / name
    for number in range(3):
        process = Forked(wide, PROCESSES, *words(parallel, name, "resume=auto"))
        wait_for_steps(run, 4, process)  # a checkpoint more: each goes on from another one
        assert process.poll() is None, "it ended before it was killed"
        if number == 1:
            os.killpg(process.commands[2].pid, signal.SIGKILL)
            codes = [command.wait() for command in process.commands]
            assert codes == [2, 2, -signal.SIGKILL, 2]  # 2: a line, no traceback
        else:
            process.kill()
    assert train(wide, parallel, name, "resume=auto") == trained
