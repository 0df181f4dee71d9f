"""Draw line charts as SVG, with the standard library alone.

Panels lie below each other and share the axis of steps: narrow, so that a telephone shows their
letters large enough. Promises the same text for the same numbers on every machine; names may hold
any characters.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain, groupby
from operator import itemgetter
from typing import Literal, NamedTuple, TypeAlias

from repro.runs.scales import Scale, exact_numbers, linear_scale, logarithmic_scale
from repro.runs.svg import FONT, clean, fitted, tag, text_width, wrapped

Values: TypeAlias = "Mapping[int, float]"  # by step; one that is not finite interrupts a line
Style: TypeAlias = Literal["solid", "dashed", "thin"]

# Of Okabe and Ito, told apart by colour-blind readers, too; without yellow, too light for white.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_STROKES: dict[Style, dict[str, str]] = {
    "solid": {"stroke_width": "1.6"},
    "dashed": {"stroke_width": "1.6", "stroke_dasharray": "6 4"},
    "thin": {"stroke_width": "1", "stroke_opacity": "0.5"},
}
_WIDTH = 420  # of the picture, in pixels, as all below
_PANEL = 150  # height of a panel's axes
_HEADING = 36  # above them
_BELOW = 48  # the last panel: its ticks and the name of their axis
_EDGE = 12  # free at the sides
_LINE = 18  # height of a line of text
_SAMPLE = 28  # a legend's piece of line, and the space beside it


@dataclass(frozen=True)
class Curve:
    """A line; one with a label is in the legend.

    `band`: the lowest and the highest value by step, filled in the line's colour.
    """

    values: Values
    label: str = ""
    color: int = 0
    style: Style = "solid"
    band: Mapping[int, tuple[float, float]] = field(default_factory=dict)


class Mark(NamedTuple):
    """A vertical line at a step, and what stands beside it."""

    step: int
    label: str


@dataclass(frozen=True)
class Panel:
    """The curves over one axis of values, which is logarithmic only if all values allow it."""

    label: str
    curves: Sequence[Curve]
    logarithmic: bool = False
    mark: Mark | None = None

    def values(self) -> Iterator[float]:
        """Yield all that is drawn upwards: the curves' values, and the edges of their bands."""
        for curve in self.curves:
            yield from curve.values.values()
            yield from chain.from_iterable(curve.band.values())

    def steps(self) -> Iterator[int]:
        """Yield all that is drawn to the right: the steps of the curves, their bands, the mark."""
        for curve in self.curves:
            yield from curve.values
            yield from curve.band
        if self.mark:
            yield self.mark.step


class _Axes(NamedTuple):
    """The axes of a panel; `width` is that of the panel in pixels."""

    x: Scale
    y: Scale
    width: int

    def point(self, step: int, value: float) -> tuple[str, str]:
        """Return the coordinates of a point in the panel."""
        return _digits(self.x.place(step) * self.width), _digits(_PANEL * (1 - self.y.place(value)))


def chart(title: str, panels: Sequence[Panel], x_label: str = "step") -> str:
    """Return the text of an SVG file; screen readers read its title."""
    with exact_numbers():
        x = linear_scale(chain.from_iterable(panel.steps() for panel in panels), whole=True)
        scales = [
            logarithmic_scale(panel.values()) if panel.logarithmic else linear_scale(panel.values())
            for panel in panels
        ]
        labels = [label for scale in scales for label in scale.labels]
        left = _EDGE + 6 + max(math.ceil(text_width(label)) for label in ["0", *labels])
        width = _WIDTH - left - _EDGE
        parts, top = _legend(panels)
        for number, (panel, y) in enumerate(zip(panels, scales, strict=True)):
            top += _HEADING
            drawn = [*_panel(panel, _Axes(x, y, width), left)]
            if number == len(panels) - 1:
                drawn += _steps_axis(x, width, x_label)
            parts.append(tag("g", drawn, class_="panel", transform=f"translate({left},{top})"))
            top += _PANEL
        height = top + _BELOW
    return _document(title, parts, height)


def _document(title: str, parts: list[str], height: int) -> str:
    size = {"width": str(_WIDTH), "height": str(height), "viewBox": f"0 0 {_WIDTH} {height}"}
    font = {"font_family": "system-ui, sans-serif", "font_size": str(FONT), "fill": "#222"}
    ground = tag("rect", width=str(_WIDTH), height=str(height), fill="#fff")
    inside = [tag("title", clean(title)), ground, *parts]
    space = {"xmlns": "http://www.w3.org/2000/svg"}
    return tag("svg", inside, **space, **size, role="img", **font) + "\n"


def _panel(panel: Panel, axes: _Axes, left: int) -> Iterator[str]:
    """Draw a panel; the place of its axes' upper left corner is (0, 0)."""
    start = str(_EDGE - left)
    name = fitted(panel.label, _WIDTH - 2 * _EDGE)
    yield tag("text", name, class_="name", x=start, y="-10", font_weight="600")
    for tick, label in zip(axes.y.ticks, axes.y.labels, strict=True):
        y = _digits(_PANEL * (1 - axes.y.place(tick)))
        yield tag("line", x2=str(axes.width), y1=y, y2=y, stroke="#ddd")
        yield tag("text", label, class_="y", x="-6", y=y, dy="0.35em", text_anchor="end")
    bottom = str(_PANEL)
    yield tag("line", x2=str(axes.width), y1=bottom, y2=bottom, stroke="#777")
    for curve in panel.curves:
        yield from _band(curve, axes)
    for curve in panel.curves:
        yield from _curve(curve, axes)
    if panel.mark:
        yield from _mark(panel.mark, axes)
    if not any(map(math.isfinite, panel.values())):
        middle = {"x": str(axes.width // 2), "y": str(_PANEL // 2)}
        yield tag("text", "no finite value", **middle, text_anchor="middle")


def _steps_axis(x: Scale, width: int, label: str) -> Iterator[str]:
    """Write the steps below the last panel."""
    for tick, written in zip(x.ticks, x.labels, strict=True):
        at = _digits(x.place(tick) * width)
        yield tag("line", x1=at, x2=at, y1=str(_PANEL), y2=str(_PANEL + 4), stroke="#777")
        yield tag("text", written, class_="x", x=at, y=str(_PANEL + 18), text_anchor="middle")
    place = {"x": str(width // 2), "y": str(_PANEL + 38)}
    yield tag("text", fitted(label, width), class_="name", **place, text_anchor="middle")


def _curve(curve: Curve, axes: _Axes) -> Iterator[str]:
    """Draw a line, interrupted where a value is not finite; a lone point is a dot."""
    color = _color(curve)
    points = sorted(curve.values.items())
    for is_finite, run in groupby(points, lambda point: math.isfinite(point[1])):
        if not is_finite:
            continue
        places = [axes.point(*point) for point in _thinned(run, axes)]
        if len(places) == 1:
            (x, y) = places[0]
            opacity = _stroke(curve).get("stroke_opacity", "1")
            yield tag("circle", class_="curve", cx=x, cy=y, r="3", fill=color, opacity=opacity)
        else:
            stroke = {"fill": "none", "stroke": color, "stroke_linejoin": "round"}
            stroke |= _stroke(curve)
            yield tag("polyline", class_="curve", points=_joined(places), **stroke)


def _band(curve: Curve, axes: _Axes) -> Iterator[str]:
    """Fill what lies between the lowest and the highest values; a lone step has a narrow bar."""
    bounds = sorted(curve.band.items())
    for is_finite, run in groupby(bounds, lambda bound: all(map(math.isfinite, bound[1]))):
        if not is_finite:
            continue
        steps = [*run]
        lowest = _thinned(((step, low) for step, (low, _) in steps), axes)
        highest = _thinned(((step, high) for step, (_, high) in steps), axes)
        places = [axes.point(*point) for point in [*highest, *reversed(lowest)]]
        bar = {} if len(steps) > 1 else {"stroke": _color(curve), "stroke_width": "6"}
        fill = {"fill": _color(curve), "opacity": "0.2"}
        yield tag("polygon", class_="band", points=_joined(places), **fill, **bar)


def _mark(mark: Mark, axes: _Axes) -> Iterator[str]:
    place = axes.x.place(mark.step)
    x = _digits(place * axes.width)
    yield tag("line", class_="mark", x1=x, x2=x, y2=str(_PANEL), stroke="#222")
    is_left = place <= Decimal("0.5")  # the label stands where there is more space
    side = {"dx": "5"} if is_left else {"dx": "-5", "text_anchor": "end"}
    label = fitted(mark.label, axes.width // 2)
    halo = {"stroke": "#fff", "stroke_width": "4", "paint_order": "stroke"}  # over curves
    yield tag("text", label, class_="mark", x=x, y="12", **side, **halo)


def _legend(panels: Sequence[Panel]) -> tuple[list[str], int]:
    """Draw a line's sample and words for each label, and return them with their height."""
    labelled = {c.label: c for panel in panels for c in panel.curves if c.label}
    entries = sorted(labelled.items(), key=lambda entry: entry[1].style == "thin")  # these last
    x = row = 0
    below = 0  # the first free row
    parts: list[str] = []
    for label, curve in entries:
        lines = wrapped(label, _WIDTH - 2 * _EDGE - _SAMPLE)
        width = _SAMPLE + math.ceil(max(map(text_width, lines)))
        if x and x + width > _WIDTH - 2 * _EDGE:
            x, row = 0, below
        parts += _legend_entry(curve, lines, _EDGE + x, 6 + row * _LINE)
        x += width + FONT
        below = max(below, row + len(lines))
    return parts, 6 + below * _LINE if parts else 0


def _legend_entry(curve: Curve, lines: list[str], x: int, y: int) -> Iterator[str]:
    color = _color(curve)
    ends = {"x1": str(x), "x2": str(x + 20)}
    middle = str(y + 9)
    if curve.band:
        fill = {"fill": color, "opacity": "0.2"}
        yield tag("rect", x=str(x), y=str(y + 2), width="20", height="14", **fill)
    yield tag("line", **ends, y1=middle, y2=middle, stroke=color, **_stroke(curve))
    for number, line in enumerate(lines):
        place = {"x": str(x + _SAMPLE), "y": str(y + 14 + number * _LINE)}
        yield tag("text", clean(line), class_="legend", **place)


def _thinned(points: Iterator[tuple[int, float]], axes: _Axes) -> list[tuple[int, float]]:
    """Keep the first, lowest, highest and last point of each column of pixels: all that shows."""
    kept: list[tuple[int, float]] = []
    for _, column in groupby(points, lambda point: int(axes.x.place(point[0]) * axes.width)):
        inside = [*column]
        lowest = min(inside, key=itemgetter(1))
        highest = max(inside, key=itemgetter(1))
        kept += sorted({inside[0], lowest, highest, inside[-1]})
    return kept


def _color(curve: Curve) -> str:
    return _COLORS[curve.color % len(_COLORS)]


def _stroke(curve: Curve) -> dict[str, str]:
    """Return how a line is drawn; dashes tell a colour that comes a second time from the first."""
    is_second = curve.style == "solid" and curve.color // len(_COLORS) % 2
    return _STROKES["dashed" if is_second else curve.style]


def _digits(value: Decimal) -> str:
    """Return a length in pixels, with two digits behind the point at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _joined(places: list[tuple[str, str]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)
