"""`repro audit`: every operation of the catalogue is found where a model uses it."""

from __future__ import annotations

import json
import sys

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
        "        x = functional.interpolate(x, size=(10, 10), mode='bilinear')\n"
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
        for word in ("sqrt()", "'bilinear'", "NOISE")
        if word in line
    }
    done = own_project.module("repro", "audit", "--json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    entries = {(e["kind"], e["operation"]): e for e in told["operations"]}
    pad = entries[REFUSED, "torch.nn.ReflectionPad2d"]
    assert pad["module"] == "10"
    assert pad["instead"].startswith("padding by zeros")
    root = entries[NOT_PORTABLE, "torch.sqrt, x ** 0.5"]
    assert (root["module"], root["source"]) == ("11", f"experiment/model.py:{places['sqrt()']}")
    bilinear = entries[REFUSED, "torch.nn.functional.interpolate"]
    assert bilinear["source"] == f"experiment/model.py:{places[chr(39) + 'bilinear' + chr(39)]}"
    assert (REFUSED, "torch.Tensor.put_") in entries
    assert VARIES not in {kind for kind, _ in entries}
    (source,) = told["sources"]
    assert (source["rule"], source["line"]) == ("import-time-draw", places["NOISE"])
    words = own_project.module("repro", "audit").stdout
    assert f"11 experiment/model.py:{places['sqrt()']}" in words
