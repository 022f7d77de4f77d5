"""The metrics of a run on the page. Series of one range that end with the same word share a chart: `train.loss`, `val.loss`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from ckpt_inspect.output.chart import Chart, Series, colour_class, drawing
from ckpt_inspect.output.markup import Markup, element, named, short_named
from ckpt_inspect.output.plot import Point
from ckpt_inspect.output.units import count_text, short_number
from ckpt_inspect.sources.run_report import RunReport
from ckpt_inspect.views.history_table import range_text
from ckpt_inspect.views.run_marks import word_for

_TOGETHER = 5
_SAME_RANGE = 30
_SHOWN_CHARTS = 24
_LAST_WORD = re.compile(r"[^./_\s:-]+$")


def charts_of(report: RunReport) -> list[Chart]:
    """Return the charts, those first whose metrics were logged first."""
    points = {name: report.history.points(name) for name in report.history.names}
    marks = [(listed.step, f"step {listed.step:,} was saved") for listed in report.run.checkpoints if listed.problem is None]
    charts = []
    for names in _groups(points):
        series = [Series(name, points[name], _ringed(name, points[name])) for name in names]
        charts.append(Chart(", ".join(names), series, marks))
    return charts


def _groups(points: dict[str, list[Point]]) -> list[list[str]]:
    groups: dict[str, list[list[str]]] = {}
    ordered: list[list[str]] = []
    for name in points:
        match = _LAST_WORD.search(name)
        fitting = groups.setdefault(match[0].lower() if match else name, [])
        group = next((group for group in fitting if len(group) < _TOGETHER and _is_alike(points[group[0]], points[name])), None)
        if group is None:
            group = []
            fitting.append(group)
            ordered.append(group)
        group.append(name)
    return ordered


def _is_alike(one: Sequence[Point], other: Sequence[Point]) -> bool:
    """Tell whether two series can be read on one linear scale."""
    sizes = [max((abs(value) for _, value in points if math.isfinite(value)), default=0.0) for points in (one, other)]
    return 0 < max(sizes) <= _SAME_RANGE * min(sizes)


def _ringed(name: str, points: Sequence[Point]) -> tuple[Point, str] | None:
    word = word_for(name)
    finite = [(value, step) for step, value in points if math.isfinite(value)]
    if not word or len(finite) < 2:
        return None
    value, step = max(finite) if word == "highest" else min(finite)
    return (step, value), f"{word} {name}: {short_number(value)} at step {step:,}"


def charts_section(report: RunReport) -> Iterator[Markup]:
    """Yield the section of charts."""
    charts = charts_of(report)
    yield element("h2", "History", id="history")
    if not charts:
        yield element("p", "No metrics yet.", class_="soft")
        return
    shown = charts[:_SHOWN_CHARTS]
    figures = element("div", map(_figure, shown), class_="charts")
    if any(chart.has_log for chart in shown):
        yield element("div", _switch("linear", is_on=True), _switch("log", is_on=False), figures)
    else:
        yield figures
    if len(shown) < len(charts):
        yield element("p", f"{count_text(len(charts) - len(shown), 'more chart')}: ckpt-inspect history shows all", class_="soft")
    for remark in report.history.remarks:
        yield element("p", named(remark), class_="soft")


def _switch(scale: str, *, is_on: bool) -> list[Markup]:
    name = f"scale-{scale}"
    radio = element("input", type_="radio", name="scale", id=name, class_="switch", checked=is_on)
    return [radio, element("label", scale, for_=name)]


def _figure(chart: Chart) -> Markup:
    both = [drawing(chart, is_log=is_log, class_=f"plot {'log' if is_log else 'linear'}") for is_log in (False, True)]
    names = [legend(series, index, range_text(series.points)) for index, series in enumerate(chart.series)]
    return element("figure", element("figcaption", names), both if chart.has_log else drawing(chart, is_log=False))


def legend(series: Series, index: int, remark: str) -> Markup:
    """Return the name of a series with its colour, and a remark."""
    line = element("line", class_=f"line {colour_class(index)}", x1=0, y1=5, x2=14, y2=5)
    swatch = element("svg", line, class_="swatch", viewBox="0 0 14 10", aria_hidden="true")
    name = element("span", swatch, element("b", short_named(series.name)))
    return element("div", name, element("span", remark), class_="legend")
