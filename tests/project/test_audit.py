"""`repro audit`: every operation of the catalogue is found where a model uses it."""

from __future__ import annotations

import json
import sys

import pytest
from conftest import ROOT, Project

sys.path.insert(0, str(ROOT / "{{cookiecutter.project_slug}}"))

from repro.diagnosis.audit import NOT_PORTABLE, REFUSED, SLOWER, VARIES


def test_the_default_models_are_clean(project: Project) -> None:
    for model in ("small_cnn", "resnet18", "image_transformer"):
        done = project.module("repro", "audit", f"model={model}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "0 operations and 0 places in the source may change bits" in done.stdout
        assert SLOWER in done.stdout


def test_an_authors_model_is_told_module_line_and_way_round(own_project: Project) -> None:
    model = own_project.path / "experiment" / "model.py"
    own_project.edit(
        "experiment/model.py",
        "        nn.MaxPool2d(2),\n    ]\n",
        "        nn.ReflectionPad2d(1),\n        Root(),\n        nn.MaxPool2d(2),\n    ]\n",
    )
    own_project.edit("experiment/model.py", "(height // 4) * (rows // 4)", "25 * 1")
    own_project.edit(
        "experiment/model.py",
        "\ndef small_cnn(",
        "\nNOISE = torch.rand(3)\n\n\nclass Root(nn.Module):\n"
        "    def forward(self, x: Tensor) -> Tensor:\n"
        "        x = functional.interpolate(x, size=(10, 10), mode='bicubic')\n"
        "        torch.zeros(4).put_(torch.arange(2), torch.ones(2))  # refused here too\n"
        "        return (x.abs() + 1).sqrt()\n\n\ndef small_cnn(",
    )
    own_project.edit(
        "experiment/model.py",
        "from torch import Tensor, nn\n",
        "from torch import Tensor, nn\nfrom torch.nn import functional\n",
    )
    lines = model.read_text().splitlines()
    places = {
        word: n
        for n, line in enumerate(lines, 1)
        for word in ("sqrt()", "'bicubic'", "NOISE")
        if word in line
    }
    done = own_project.module("repro", "audit", "--json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    entries = {(e["kind"], e["operation"]): e for e in told["operations"]}
    pad = entries[SLOWER, "torch.nn.ReflectionPad2d"]
    assert pad["module"] == "10"
    assert pad["instead"].startswith("padding by zeros")
    root = entries[NOT_PORTABLE, "torch.sqrt, x ** 0.5"]
    assert (root["module"], root["source"]) == ("11", f"experiment/model.py:{places['sqrt()']}")
    bicubic = entries[REFUSED, "torch.nn.functional.interpolate"]
    assert bicubic["source"] == f"experiment/model.py:{places[chr(39) + 'bicubic' + chr(39)]}"
    assert (REFUSED, "torch.Tensor.put_") in entries
    assert VARIES not in {kind for kind, _ in entries}
    (source,) = told["sources"]
    assert (source["rule"], source["line"]) == ("import-time-draw", places["NOISE"])
    words = own_project.module("repro", "audit").stdout
    assert f"11 experiment/model.py:{places['sqrt()']}" in words


def test_roots_before_the_first_step_are_told(own_project: Project) -> None:
    """The CPU does them: what is refused on CUDA alone does no harm there."""
    task = own_project.path / "experiment" / "task.py"
    start = "    def initialize(self, datasets: object) -> None:\n"
    made = "        import torch\n\n        torch.rand(3).histc(4).sqrt()\n"
    assert start in task.read_text()
    own_project.edit("experiment/task.py", start, start + made)
    (line,) = [n for n, text in enumerate(task.read_text().splitlines(), 1) if "sqrt()" in text]
    done = own_project.module("repro", "audit", "--json")
    assert done.returncode == 1, done.stderr
    early = [e for e in json.loads(done.stdout)["operations"] if e["phase"] != "training"]
    assert [(e["operation"], e["source"], e["phase"], e["calls"]) for e in early] == [
        ("torch.sqrt, x ** 0.5", f"experiment/task.py:{line}", "before the first step", 1)
    ]
    words = own_project.module("repro", "audit").stdout
    assert f"experiment/task.py:{line} (before the first step)\n" in words


ATTENDING = """

class Attend(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2)
        drop = 0.1 if self.training else 0.0
        with torch.no_grad():
            frozen = functional.scaled_dot_product_attention(tokens, tokens, tokens)
        tokens = functional.scaled_dot_product_attention(tokens, tokens, frozen, dropout_p=drop)
        if not self.training:
            torch.histc(tokens, 4)
        return tokens.view_as(x)


def small_cnn("""


def test_calls_of_attention_and_what_only_evaluation_does_are_told(own_project: Project) -> None:
    own_project.edit("experiment/model.py", "\n\ndef small_cnn(", ATTENDING)
    own_project.edit(
        "experiment/model.py",
        "        nn.MaxPool2d(2),\n    ]\n",
        "        Attend(),\n        nn.MaxPool2d(2),\n    ]\n",
    )
    own_project.edit(
        "experiment/model.py",
        "from torch import Tensor, nn\n",
        "from torch import Tensor, nn\nfrom torch.nn import functional\n",
    )
    lines = (own_project.path / "experiment" / "model.py").read_text().splitlines()
    (dropping,) = [n for n, line in enumerate(lines, 1) if "dropout_p=drop" in line]
    (evaluating,) = [n for n, line in enumerate(lines, 1) if "histc" in line]
    done = own_project.module("repro", "audit", "evaluation.batch_size=16", "--json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["evaluated"]
    attention, histogram = [e for e in told["operations"] if e["kind"] in (REFUSED, VARIES)][::-1]
    assert attention["operation"] == "torch.nn.functional.scaled_dot_product_attention"
    assert attention["source"] == f"experiment/model.py:{dropping}"
    assert (attention["module"], attention["phase"], attention["calls"]) == ("10", "training", 1)
    assert "SDPBackend.MATH" in attention["instead"]
    assert histogram["operation"] == "torch.histc"
    assert histogram["source"] == f"experiment/model.py:{evaluating}"
    # In one chunk of evaluation, and not in all of them.
    assert (histogram["phase"], histogram["calls"]) == ("evaluation", 1)

    best = '    best = ("accuracy", "max")\n'
    never = "    validate_on = None\n"
    own_project.edit("experiment/task.py", best, f"    best = None\n{never}")
    words = own_project.module("repro", "audit").stdout
    assert f"10 experiment/model.py:{dropping}\n" in words
    assert "torch.histc" not in words
    reason = "the loop does not validate after its first step"
    assert f"Evaluation was not looked at: {reason}." in words


def test_a_mean_passed_as_a_sum_is_told(own_project: Project) -> None:
    """In one shard and with dropout, too; the project's own test of it fails."""
    plain = 'labels, reduction="sum")\n        return Weighted('
    own_project.edit("experiment/task.py", plain, plain.replace("sum", "mean"))
    for settings in ((), ("training.precision=bf16", "training.shards=4")):
        done = own_project.module("repro", "audit", "--json", *settings)
        assert done.returncode == 1, done.stderr
        (difference,) = json.loads(done.stdout)["sums"]
        assert difference["of"] == "sum"
        assert sum(difference["halves"]) == pytest.approx(2 * difference["whole"], rel=0.3)
    told = own_project.module("repro", "audit").stdout
    assert "The loss's sum is" in told
    assert "is a mean passed as a sum?" in told
    done = own_project.module("pytest", "-q", "-m", "not gpu", "-k", "loss_is_a_sum")
    assert done.returncode == 1
    assert "1 failed" in done.stdout
