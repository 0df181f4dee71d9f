"""The page on results and verdicts, as readers meet it: in a real browser (browser.py)."""

import os
from pathlib import Path

from conftest import Project, faults
from reports import PAGE
from repro.runs.figures import draw_seeds
from repro.runs.logs import read_lines


def test_the_same_results_give_the_same_bytes(reported: Project, tmp_path: Path) -> None:
    copy = reported.copy(tmp_path / "elsewhere")
    for path in sorted(reported.path.glob("runs/verify/*/verdict.json")):
        target = copy.path / path.relative_to(reported.path)
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
        os.utime(target, ns=(path.stat().st_mtime_ns,) * 2)
    page = tmp_path / "page.html"
    done = copy.module("repro", "report", "--output", str(page), TZ="Asia/Tokyo")
    assert done.stdout == f"written: {page}\n"
    assert page.read_bytes() == (reported.path / PAGE).read_bytes()
    assert str(reported.path) not in page.read_text()


def test_a_report_of_nothing_is_one_line(own_project: Project) -> None:
    done = own_project.module("repro", "report", "--output", "nowhere/page.html")
    assert faults(done) == ["error: nowhere/page.html: No such file or directory"]
    (own_project.path / "results/expected_metrics.json").unlink()
    (line,) = faults(own_project.module("repro", "report"))
    assert "nothing is recorded yet: make record" in line


def test_curves_over_seeds_have_every_number_and_the_same_bytes(
    project: Project, tmp_path: Path
) -> None:
    done = project.train("training.epochs=2", f"run_dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    # As a second seed the same numbers, made a little smaller: saves a training.
    other = [{k: v * 0.9 if isinstance(v, float) else v for k, v in e.items()} for e in lines]
    runs = {"1": lines, "2": other}
    name = "learning_curves_seeds.svg"
    draw_seeds(tmp_path / "one", runs)
    draw_seeds(tmp_path / "two", runs)
    first = (tmp_path / "one" / name).read_bytes()
    assert first == (tmp_path / "two" / name).read_bytes()
    # One panel for the loss, one for the accuracy; a third for what the author adds.
    for entry in [e for entries in runs.values() for e in entries if "epoch" in e]:
        entry["f1"] = entry["accuracy"] / 2
    draw_seeds(tmp_path / "three", runs)
    panels = [
        (tmp_path / folder / name).read_text().count('class="panel"') for folder in ("one", "three")
    ]
    assert panels == [2, 3]
    # A seed that stopped early has a curve; without epochs there is nothing to draw.
    draw_seeds(tmp_path / "short", {**runs, "3": runs["1"][: len(runs["1"]) // 2]})
    draw_seeds(tmp_path / "none", {"1": [e for e in runs["1"] if "epoch" not in e]})
    assert (tmp_path / "short" / name).is_file()
    assert not (tmp_path / "none").exists()
