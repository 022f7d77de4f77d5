"""Charts of a page: several series over steps in one drawing, on a linear or a logarithmic scale. Inline SVG without any style of its own.

What is not finite is a gap, with a mark at its step below the axis. Long series are thinned to the extremes of each column.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ckpt_inspect.output.markup import Markup, element
from ckpt_inspect.output.plot import Point, Range, range_of, stretches, thinned
from ckpt_inspect.output.svg import scale, with_ticks
from ckpt_inspect.output.units import short_number

WIDTH, HEIGHT = 440, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 20, 12, 36
_MARKS = 40
_MAX_LOG_TICKS = 7
_GAP_MARKS = 30
_COLOURS = 6
_MAX_EXPONENT = 308
_UNITS = ((10**9, "G"), (10**6, "M"), (10**3, "k"))


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart; `ringed` is a point that stands out, with what is said of it. `is_dots` draws points, not lines."""

    name: str
    points: Sequence[Point]
    ringed: tuple[Point, str] | None = None
    is_dots: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Several series; `marks` are steps at which something happened, with what."""

    title: str
    series: Sequence[Series]
    marks: Sequence[tuple[int, str]] = field(default_factory=tuple)
    axis: str = "step"

    @property
    def has_log(self) -> bool:
        """Whether a logarithmic scale can show anything."""
        positive = [value for series in self.series for _, value in series.points if math.isfinite(value) and value > 0]
        return len(set(positive)) > 1


def colour_class(index: int) -> str:
    """Return the class of a series' colour."""
    return f"s{index % _COLOURS}"


def drawing(chart: Chart, *, is_log: bool, class_: str = "plot") -> Markup:
    """Return the chart as SVG. Both drawings of one chart need classes that tell them apart."""
    shown = [_transformed(series.points) if is_log else list(series.points) for series in chart.series]
    finite = [value for points in shown for _, value in points if math.isfinite(value)]
    label = f"{chart.title}, {'logarithmic' if is_log else 'linear'} scale"
    if not finite:
        nothing = element("text", "no value is a finite number", x=WIDTH / 2, y=HEIGHT / 2, text_anchor="middle")
        return element("svg", nothing, viewBox=f"0 0 {WIDTH} {HEIGHT}", class_=class_, role="img", aria_label=label)
    values, ticks = _log_ticks(range_of(finite)) if is_log else with_ticks(range_of(finite))
    steps, step_ticks = with_ticks(range_of([step for points in shown for step, _ in points]), is_fitted=True)
    parts = [*_axes(chart, _Axis(values, ticks), _Axis(steps, step_ticks), is_log=is_log), *_gap_marks(chart, steps)]
    for index, points in enumerate(shown):
        parts += _line(chart.series[index], points, values, steps, colour_class(index), is_log=is_log)
    return element("svg", parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", class_=class_, role="img", aria_label=label)


def _transformed(points: Sequence[Point]) -> list[Point]:
    return [(step, math.log10(value) if math.isfinite(value) and value > 0 else math.nan) for step, value in points]


def _log_ticks(values: Range) -> tuple[Range, list[float]]:
    """Return the logarithms of round numbers: powers of ten, or where there are few of them also twice and five times those."""
    first, last = math.floor(values.low), math.ceil(values.high)
    every = max(1, math.ceil((last - first) / _MAX_LOG_TICKS))
    ticks = [float(power) for power in range(first, last + 1, every)]
    if last - first <= 2:
        ticks = [power + math.log10(factor) for power in range(first, last) for factor in (1, 2, 5)] + [float(last)]
    inner = [tick for tick in ticks if values.low <= tick <= values.high]
    if len(inner) >= 2:
        return values, inner
    return Range(ticks[0], ticks[-1]), ticks


@dataclass(frozen=True, slots=True)
class _Axis:
    shown: Range
    ticks: Sequence[float]


def _axes(chart: Chart, values: _Axis, steps: _Axis, *, is_log: bool) -> Iterator[Markup]:
    x_of, y_of = scale(steps.shown, _LEFT, WIDTH - _RIGHT), scale(values.shown, HEIGHT - _BOTTOM, _TOP)
    for tick in values.ticks:
        y = y_of(tick)
        yield element("line", class_="grid", x1=_LEFT, y1=y, x2=WIDTH - _RIGHT, y2=y)
        yield element("text", _value_text(_power(tick) if is_log else tick), x=_LEFT - 7, y=y + 4, text_anchor="end")
    base = HEIGHT - _BOTTOM
    yield element("line", class_="axis", x1=_LEFT, y1=base, x2=WIDTH - _RIGHT, y2=base)
    for step, title in _few(chart.marks):
        if steps.shown.low <= step <= steps.shown.high:
            x = x_of(step)
            yield element("path", element("title", title), class_="saved", d=f"M{x:.1f} {base} l-3 6 h6 z")
    whole = [tick for tick in steps.ticks if tick == int(tick)]
    for tick in whole:
        yield element("text", _step_text(int(tick)), x=x_of(tick), y=base + 20, text_anchor="middle")
    yield element("text", chart.axis, class_="unit", x=WIDTH - _RIGHT, y=base + 33, text_anchor="end")


def _few(marks: Sequence[tuple[int, str]]) -> Sequence[tuple[int, str]]:
    """Return marks, evenly left out where they would touch; the last one stays."""
    every = -(-len(marks) // _MARKS) if marks else 1
    return [*marks[-1::-every]][::-1]


def _step_text(step: int) -> str:
    return _value_text(float(step)) if abs(step) >= 10_000 else f"{step:,}"


def _power(exponent: float) -> float:
    return 10.0**exponent if exponent < _MAX_EXPONENT else math.inf


def _value_text(value: float) -> str:
    """Return a number as short as an axis wants it: `0.25`, `40k`, `1.5M`."""
    for unit, letter in _UNITS:
        if 10 * unit <= abs(value) < 10_000 * unit:
            return f"{value / unit:.4g}{letter}"
    return short_number(value)


def _gap_marks(chart: Chart, steps: Range) -> Iterator[Markup]:
    x_of = scale(steps, _LEFT, WIDTH - _RIGHT)
    gaps = [(step, series.name) for series in chart.series for step, value in series.points if not math.isfinite(value)]
    every = -(-len(gaps) // _GAP_MARKS) if gaps else 1
    for step, name in gaps[::every]:
        x, y = x_of(step), _TOP + 4
        title = element("title", f"{name} is not finite at step {step:,}")
        yield element("path", title, class_="gap", d=f"M{x - 3:.1f} {y - 3} l6 6 m0 -6 l-6 6")


def _line(series: Series, points: Sequence[Point], values: Range, steps: Range, colour: str, *, is_log: bool) -> Iterator[Markup]:
    x_of, y_of = scale(steps, _LEFT, WIDTH - _RIGHT), scale(values, HEIGHT - _BOTTOM, _TOP)
    for part in stretches(points):
        places = [(x_of(step), y_of(value)) for step, value in thinned(part, steps, WIDTH - _LEFT - _RIGHT)]
        if series.is_dots:
            yield element("path", class_=f"dots {colour}", d="".join(f"M{x:.1f} {y:.1f}h0" for x, y in places))
        elif len(places) == 1:
            yield element("circle", class_=f"dot {colour}", cx=places[0][0], cy=places[0][1], r=2.5)
        else:
            yield element("polyline", class_=f"line {colour}", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places))
    if series.ringed is not None:
        (step, value), title = series.ringed
        height = (math.log10(value) if value > 0 else math.nan) if is_log else value
        if math.isfinite(height):
            yield element("circle", element("title", title), class_=f"ring {colour}", cx=x_of(step), cy=y_of(height), r=5)
