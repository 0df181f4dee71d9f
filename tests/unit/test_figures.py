"""The pictures of the kit: SVG that is parsed here, as a browser would."""

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from decimal import Decimal, getcontext, localcontext
from pathlib import Path

import pytest
from repro.core.files import JsonObject
from repro.core.layout import METRICS
from repro.runs import figures
from repro.runs.chart import Curve, Mark, Panel, Style, chart
from repro.runs.compare import Group
from repro.runs.figures import draw_curves, draw_groups, draw_parting, draw_seeds
from repro.runs.run_result import Measured, RunResult
from repro.runs.scales import linear_scale, logarithmic_scale

SVG = "{http://www.w3.org/2000/svg}"
ODD = 'a<b>&"c"\' \ud800\x00\x1b\ufffe ]]> 漢字 é 🙂\n$x$'
SHOWN = 'a<b>&"c"\' \ufffd\ufffd\ufffd\ufffd ]]> 漢字 é 🙂 $x$'
Points = list[tuple[float, float]]


def parse(text: str) -> ET.Element:
    """The picture; all of it lies inside of it, and it asks for nothing."""
    root = ET.fromstring(text.encode())
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 {width:g} {height:g}"
    assert "href" not in text
    assert "url(" not in text
    for group in root.iter(f"{SVG}g"):
        left, top = map(float, re.findall(r"\d+", group.attrib["transform"]))
        for shape in group:
            for x, y in points(shape):
                assert -0.01 <= x <= width - left, shape.attrib
                assert -0.01 <= y <= height - top, shape.attrib
    return root


def points(shape: ET.Element) -> Points:
    """The coordinates of a line, a band or a dot in its panel."""
    if shape.tag == f"{SVG}circle":
        return [(float(shape.attrib["cx"]), float(shape.attrib["cy"]))]
    pairs = [pair.split(",") for pair in shape.attrib.get("points", "").split()]
    return [(float(x), float(y)) for x, y in pairs]


def shapes(root: ET.Element, kind: str) -> list[ET.Element]:
    return [element for element in root.iter() if element.get("class") == kind]


def lines(root: ET.Element, kind: str = "curve") -> list[Points]:
    return [points(shape) for shape in shapes(root, kind)]


def texts(root: ET.Element, kind: str) -> list[str]:
    found = [element.text for element in shapes(root, kind) if element.tag == f"{SVG}text"]
    return [text or "" for text in found]


def one(values: Mapping[int, float], **options: bool) -> ET.Element:
    return parse(chart("title", [Panel("loss", [Curve(values)], **options)]))


def test_points_lie_where_their_values_do() -> None:
    root = one({0: 0.0, 5: 10.0, 20: 2.5})
    ((first, second, third),) = lines(root)
    ticks = {float(e.text or ""): float(e.attrib["y"]) for e in shapes(root, "y")}
    assert [*ticks] == [0, 2, 4, 6, 8, 10]
    assert (first[1], second[1]) == (ticks[0], ticks[10])
    assert third[1] == pytest.approx(ticks[0] + (ticks[10] - ticks[0]) / 4)
    assert second[1] < third[1] < first[1]  # large values are above
    steps = {float(e.text or ""): float(e.attrib["x"]) for e in shapes(root, "x")}
    assert [*steps] == [0, 5, 10, 15, 20]
    assert [first[0], second[0], third[0]] == [steps[0], steps[5], steps[20]]


def test_a_logarithmic_axis_has_powers_of_ten_at_equal_distances() -> None:
    root = one({1: 0.001, 2: 0.01, 3: 0.1, 4: 1.0}, logarithmic=True)
    assert texts(root, "y") == ["0.001", "0.01", "0.1", "1"]
    ((a, b, c, d),) = lines(root)
    assert a[1] - b[1] == pytest.approx(b[1] - c[1], abs=0.02)
    assert b[1] - c[1] == pytest.approx(c[1] - d[1], abs=0.02)
    # A value that has no logarithm makes it a linear one.
    assert texts(one({1: -1.0, 2: 1.0}, logarithmic=True), "y")[0].startswith("-")
    assert texts(one({1: 0.0, 2: 1.0}, logarithmic=True), "y")[0] == "0.0"


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.9, 1.0], "0.90 0.92 0.94 0.96 0.98 1.00"),
        ([3.0], "2.7 2.8 2.9 3.0 3.1 3.2 3.3"),
        ([0.0, 0.0], "-1.0 -0.5 0.0 0.5 1.0"),
        ([0.1, 0.1 + 1e-15], "0.095 0.100 0.105 0.110"),
        ([2e7, -2e7], "-2e7 -1e7 0 1e7 2e7"),
        ([0.0, 3e-9], "0 1e-9 2e-9 3e-9"),
        ([1.7e308, -1.7e308], "-1e308 0 1e308"),
        ([0.0, 5e-324], "0 1e-324 2e-324 3e-324 4e-324 5e-324"),
        ([1e6, 1e6 + 4], "1000000 1000001 1000002 1000003 1000004"),
        ([math.nan, math.inf], "0.0 0.2 0.4 0.6 0.8 1.0"),
        ([], "0.0 0.2 0.4 0.6 0.8 1.0"),
    ],
)
def test_ticks_are_round_numbers(values: list[float], labels: str) -> None:
    assert " ".join(linear_scale(values).labels) == labels


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.02, 40.0], "0.1 1 10"),
        ([0.3, 2.5], "0.5 1 2"),
        ([0.31, 0.58], "0.35 0.40 0.45 0.50 0.55"),
        ([2.0], "1 2 3 4"),
        ([1e-30, 1e30], "1e-32 1e-22 1e-12 1e-2 1e8 1e18 1e28"),
        ([5e-324, 1.0], "1e-339 1e-288 1e-237 1e-186 1e-135 1e-84 1e-33"),
    ],
)
def test_logarithmic_ticks_are_powers_of_ten_or_round_numbers(
    values: list[float], labels: str
) -> None:
    assert " ".join(logarithmic_scale(values).labels) == labels


def test_steps_are_whole_numbers() -> None:
    assert texts(one({1: 0.5}), "x") == ["1"]
    assert texts(one({1: 0.5, 2: 0.5}), "x") == ["1", "2"]
    assert texts(one({0: 1.0, 30_000_000: 1.0}), "x")[-1] == "3e7"


def test_names_may_hold_any_characters() -> None:
    curve = Curve({1: 1.0, 2: 2.0}, ODD)
    text = chart(ODD, [Panel(ODD, [curve], mark=Mark(2, ODD))], x_label=ODD)
    root = parse(text)
    assert root[0].tag == f"{SVG}title"
    assert root[0].text == SHOWN
    assert texts(root, "name") == [SHOWN, SHOWN]
    assert " ".join(texts(root, "legend")) == SHOWN
    assert texts(root, "mark")[0][:4] == SHOWN[:4]


def test_long_names_are_wrapped_or_cut() -> None:
    name = "a_metric_with_a_name_" * 20
    root = parse(chart(name, [Panel(name, [Curve({1: 1.0}, name)], mark=Mark(1, name))]))
    assert root[0].text == name
    legend = texts(root, "legend")
    assert len(legend) == 3
    for text in (legend[-1], texts(root, "name")[0], texts(root, "mark")[0]):
        assert len(text) < 60
        assert text.endswith("…")


def test_a_value_that_is_not_finite_interrupts_a_line() -> None:
    nan = math.nan
    values = {1: nan, 2: 1.0, 3: 2.0, 4: math.inf, 5: 3.0, 6: -math.inf, 7: 1.0, 8: 2.0, 9: nan}
    root = one(values)
    assert [len(line) for line in lines(root)] == [2, 1, 2]  # the 1 is a dot
    assert [shape.tag for shape in shapes(root, "curve")][1] == f"{SVG}circle"
    assert "nan" not in ET.tostring(root, "unicode").lower()
    empty = one({1: nan, 2: nan})
    assert lines(empty) == []
    assert "no finite value" in [element.text for element in empty.iter()]


def test_a_band_is_interrupted_too() -> None:
    band = {1: (0.0, 1.0), 2: (0.5, 2.0), 3: (math.nan, 2.0), 4: (0.0, 2.0)}
    root = parse(chart("t", [Panel("loss", [Curve({}, band=band)])]))
    first, lone = lines(root, "band")
    assert len(first) == 4
    assert len(lone) == 2
    assert shapes(root, "band")[1].get("stroke-width") == "6"  # else a lone one had no width


def test_a_single_point_and_equal_values_are_drawn() -> None:
    for values in ({7: 0.25}, {0: 0.0}, {10**9: -1e-300}):
        ((place,),) = lines(one(values))
        assert 0 < place[0] < 420
        assert 0 < place[1] < 150
    ((first, second),) = lines(one({1: 3.0, 9: 3.0}))
    assert first[1] == second[1]
    assert first[0] < second[0]


def test_many_points_take_little_space_and_lose_no_extreme() -> None:
    values = {step: 1.0 + step % 7 for step in range(100_000)} | {54_321: 50.0, 65_432: -50.0}
    text = chart("t", [Panel("loss", [Curve(values)])])
    assert len(text) < 40_000
    (line,) = lines(parse(text))
    few = one({0: 1.0, 54_321: 50.0, 65_432: -50.0, 99_999: 1.0 + 99_999 % 7})
    assert {*lines(few)[0]} <= {*line}


def test_the_same_numbers_give_the_same_bytes() -> None:
    """Also in a program that computes with other decimal numbers than usual."""
    panels = [Panel("loss", [Curve({1: 0.1, 2: 1 / 3, 30: 2e-5}, "a")], logarithmic=True)]
    first = chart("title", panels)
    with localcontext() as context:
        context.prec = 3
        context.Emax = 2
        assert chart("title", panels) == first
        assert getcontext().prec == 3
    assert first.endswith("</svg>\n")


def test_a_mark_has_its_label_where_there_is_space() -> None:
    for step, anchor in ((1, None), (99, "end")):
        panel = Panel("loss", [Curve({1: 1.0, 100: 1.0})], mark=Mark(step, "here"))
        line, text = shapes(parse(chart("t", [panel])), "mark")
        assert line.attrib["x1"] == line.attrib["x2"] == text.attrib["x"]
        assert text.get("text-anchor") == anchor


def test_eight_lines_are_told_apart() -> None:
    curves = [Curve({1: float(number)}, f"{number}", number) for number in range(7)]
    styles: list[Style] = ["dashed", "thin"]
    curves += [
        Curve({1: 1.0, 2: 2.0}, "seven", 7),
        *[Curve({1: 1.0, 2: 2.0}, s, 0, s) for s in styles],
    ]
    root = parse(chart("t", [Panel("loss", curves)]))
    drawn = {
        (
            shape.get("fill"),
            shape.get("stroke"),
            shape.get("stroke-dasharray"),
            shape.get("opacity"),
        )
        for shape in shapes(root, "curve")
    }
    assert len(drawn) == 9  # the eighth one has the first one's colour, and dashes
    assert texts(root, "legend")[-1] == "thin"


# The pictures of runs.


def epochs(*losses: float, **others: float) -> list[JsonObject]:
    """The lines of a run: three steps to an epoch."""
    steps: list[JsonObject] = [
        {"step": step, "loss": 2.0 / step} for step in range(1, 3 * len(losses) + 1)
    ]
    validations: list[JsonObject] = [
        {"step": 3 * epoch, "epoch": epoch, "split": "validation", "loss": loss, **others}
        for epoch, loss in enumerate(losses, 1)
    ]
    return steps + validations


def read(path: Path) -> ET.Element:
    return parse(path.read_text("utf-8"))


def test_pictures_of_a_run_without_accuracy_and_with_a_negative_loss(tmp_path: Path) -> None:
    """What an author validates is drawn, whatever it is called."""
    path = tmp_path / "new" / figures.CURVES
    draw_curves(path, epochs(1.0, -0.5, f1=0.1))
    root = read(path)
    assert path.name == "learning_curves.svg"
    assert root[0].text == "Learning curves: loss, validation f1 by step"
    assert texts(root, "name") == ["loss", "validation f1", "step"]
    assert texts(root, "legend") == ["training batch", "validation"]
    assert [len(line) for line in lines(root)] == [6, 2, 2]
    assert "-0.5" in texts(root, "y")
    draw_curves(tmp_path / "none.svg", [{"step": 1, "loss": 1.0}])
    assert not (tmp_path / "none.svg").exists()


def test_curves_over_seeds_have_their_mean_and_range(tmp_path: Path) -> None:
    runs = {"1": epochs(1.0, 0.5), "2": epochs(3.0, 1.5), "3": epochs(2.0, math.nan, 1.0)}
    draw_seeds(tmp_path, runs)
    root = read(tmp_path / "learning_curves_seeds.svg")
    assert texts(root, "legend") == ["mean of 3, lowest to highest", "each seed"]
    # The third seed has a NaN at the second epoch: there the mean of all is none.
    assert [len(line) for line in lines(root)] == [2, 2, 1, 1, 1]
    (mean,) = lines(root)[-1]
    assert mean == lines(root)[2][0]  # (1 + 3 + 2) / 3
    ((high, low),) = lines(root, "band")
    assert [high, low] == [lines(root)[1][0], lines(root)[0][0]]


def test_a_baseline_is_a_line_in_the_panel_of_what_is_to_be_better(tmp_path: Path) -> None:
    """One value at all steps and a name that ends as another one; else it has a panel."""

    def run(seed: int) -> list[JsonObject]:
        return [
            {
                **{"split": "validation", "step": step, "mae": 5.0 - step, "ridge_mae": 4.0 + seed},
                **{"old_ridge_mae": 5.0, "top_mae": 1.0 + step, "stuck": 0.1},
            }
            for step in (1, 2, 3)
        ]

    draw_curves(tmp_path / "of_one.svg", run(0))
    draw_seeds(tmp_path, {"0": run(0), "1": run(1)})
    for name, count in (("of_one.svg", 3), ("learning_curves_seeds.svg", 5)):
        root = parse((tmp_path / name).read_text())
        panels = [f"validation {of}" for of in ("mae", "top_mae", "stuck")]
        assert [text for text in texts(root, "name") if text != "step"] == panels
        assert {"ridge_mae", "old_ridge_mae"} <= {*texts(root, "legend")}
        mae = next(root.iter(f"{SVG}g"))
        curves = [shape for shape in mae if shape.get("class") == "curve"]
        assert len(curves) == count
        flat = [shape for shape in curves if len({y for _, y in points(shape)}) == 1]
        assert [shape.get("stroke-dasharray") for shape in flat] == ["6 4", "6 4"]
    draw_curves(tmp_path / "once.svg", run(0)[:1])  # nothing tells that it would stay
    once = parse((tmp_path / "once.svg").read_text())
    assert "validation ridge_mae" in texts(once, "name")


def test_values_that_overflow_a_sum_have_a_mean(tmp_path: Path) -> None:
    draw_seeds(tmp_path, {"1": epochs(1.7e308), "2": epochs(1.6e308)})
    assert len(lines(read(tmp_path / "learning_curves_seeds.svg"))) == 3


def group(losses: Sequence[float], **conditions: str) -> Group:
    curves = [[line for line in epochs(loss, 0.1) if "epoch" in line] for loss in losses]
    runs = [
        RunResult(
            run="run",
            step=6,
            goal=6,
            seed=1,
            seeds={},
            bits=None,
            measured={METRICS: Measured(6, {}, {"loss": 0.1})},
            checkpoints=[],
            curve=curve,
            conditions={},
        )
        for curve in curves
    ]
    return Group({f"config: {k}": v for k, v in conditions.items()}, len(runs), {}, [], runs)


def test_groups_have_a_colour_and_their_settings(tmp_path: Path) -> None:
    path = tmp_path / "groups.svg"
    draw_groups(path, [group([1.0, 2.0], width=ODD), group([3.0], width="8")])
    root = read(path)
    assert " ".join(texts(root, "legend")) == f"1: width={SHOWN} 2: width=8"
    assert len({shape.get("stroke") for shape in shapes(root, "curve")}) == 2
    assert len(shapes(root, "band")) == 1  # a single run has no range
    draw_groups(path, [group([1.0])])
    assert texts(read(path), "legend") == ["group 1"]


def test_two_traces_and_where_they_part(tmp_path: Path) -> None:
    runs = tmp_path / "one", tmp_path / "two"
    for factor, run in enumerate(runs, 1):
        run.mkdir()
        entries = [{"step": s, "loss": (factor * 0.1**s).hex()} for s in (1, 2, 3)]
        (run / "trace.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    draw_parting(tmp_path / "diff.svg", runs, 2)
    root = read(tmp_path / "diff.svg")
    assert texts(root, "legend") == ["A: one", "B: two"]
    assert texts(root, "mark") == ["step 2"]
    assert [len(line) for line in lines(root)] == [3, 3]
    assert [shape.get("stroke-dasharray") for shape in shapes(root, "curve")] == [None, "6 4"]
    assert texts(root, "y") == ["0.001", "0.01", "0.1"]
    draw_parting(tmp_path / "same.svg", runs, None)
    assert texts(read(tmp_path / "same.svg"), "mark") == []


def test_places_are_exact() -> None:
    scale = linear_scale([0.1, 0.3])
    assert scale.place(Decimal("0.2")) == pytest.approx(Decimal("0.5"))
