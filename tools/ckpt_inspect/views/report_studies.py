"""The studies of a run on the page: their values trial by trial, the best so far, and the best trials with their parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from ckpt_inspect.output.chart import Chart, Series, drawing
from ckpt_inspect.output.markup import Markup, element, named, short_named
from ckpt_inspect.output.plot import Point
from ckpt_inspect.output.units import count_text, number_text, short_number
from ckpt_inspect.output.visible import cut_end, visible
from ckpt_inspect.sources.run_report import RunReport
from ckpt_inspect.views.report_charts import legend
from ckpt_inspect.views.study_lines import study_text
from ckptfmt.run.study_reader import StudySummary, TrialSummary

_SHOWN_STUDIES = 12
_SHOWN_TRIALS = 10
_SHOWN_PARAMS = 12
_MAX_VALUE = 40
_WIDE_RANGE = 100


def studies_section(report: RunReport) -> Iterator[Markup]:
    """Yield the section, where there is any study."""
    if not report.studies:
        return
    yield element("h2", "Studies", id="studies")
    for found in report.studies:
        if found.damage is not None:
            message = found.damage.partition("\n")[0]
            yield element("div", element("p", named(message)), element("p", named(found.path), class_="where"), class_="card found")
    studies = [study for found in report.studies for study in found.studies]
    for study in studies[:_SHOWN_STUDIES]:
        yield from _study(study)
    if len(studies) > _SHOWN_STUDIES:
        yield element("p", f"and {count_text(len(studies) - _SHOWN_STUDIES, 'more study', 'more studies')}", class_="soft")


def _study(study: StudySummary) -> Iterator[Markup]:
    counts = ", ".join(f"{count:,} {state}" for state, count in study.states.items())
    sampler = f"; {study.sampler}" + (f" with {study.pruner}" if study.pruner else "") if study.sampler else ""
    facts = f"{study_text(study)}; {', '.join(study.directions)}{sampler}" + (f". {counts}." if counts else "")
    yield element("h3", short_named(study.name))
    yield element("p", facts, class_="soft")
    chart = _find_chart(study)
    table = _table(study)
    parts = [element("figure", _caption(chart), _drawn(chart))] if chart else []
    yield element("div", parts, table, class_="study")


def _find_chart(study: StudySummary) -> Chart | None:
    """Return values and the best so far by trial, where there is one direction and anything to see."""
    if len(study.directions) != 1:
        return None
    points: list[Point] = [(trial.number, float(trial.values[0])) for trial in study.last if trial.state == "complete" and trial.values]
    if len([value for _, value in points if math.isfinite(value)]) < 2:
        return None
    is_max = study.directions[0] == "maximize"
    best: list[Point] = []
    for number, value in points:
        if math.isfinite(value) and (not best or (value > best[-1][1] if is_max else value < best[-1][1])):
            # A step, not a slope: the best is what it is until a better trial ends.
            best += [(number, best[-1][1]), (number, value)] if best else [(number, value)]
    best.append((points[-1][0], best[-1][1]))
    winner = study.best[0] if study.best else None
    ringed = None
    if winner and winner.values:
        value = float(winner.values[0])
        ringed = ((winner.number, value), f"best: {short_number(value)} at trial {winner.number:,}")
    return Chart(f"study {study.name}", [Series("each trial", points, is_dots=True), Series("best so far", best, ringed)], axis="trial")


def _drawn(chart: Chart) -> Markup:
    """Draw on a logarithmic scale where a linear one would show nothing but the worst trials."""
    values = [value for series in chart.series for _, value in series.points if math.isfinite(value)]
    return drawing(chart, is_log=min(values) > 0 and max(values) > _WIDE_RANGE * min(values), class_="plot")


def _caption(chart: Chart) -> Markup:
    return element("figcaption", (legend(series, index, "") for index, series in enumerate(chart.series)))


def _table(study: StudySummary) -> Markup:
    """Return the best trials, or of several directions those that no other dominates."""
    if len(study.directions) == 1:
        done = [trial for trial in study.last if trial.state == "complete" and trial.values and not math.isnan(trial.values[0])]
        sign = -1 if study.directions[0] == "maximize" else 1
        ranked = sorted(done, key=lambda trial: (sign * trial.values[0] if trial.values else 0, trial.number))
    else:
        ranked = list(study.best)
    shown = ranked[:_SHOWN_TRIALS]
    if not shown:
        return element("p", "No trial is complete yet.", class_="soft")
    params = list(dict.fromkeys(name for trial in shown for name in trial.params))[:_SHOWN_PARAMS]
    heads = [element("th", "trial", class_="number"), *(element("th", title, class_="number") for title in _value_titles(study))]
    heads += [element("th", short_named(name)) for name in params]
    rows = [element("tr", _cells(trial, params)) for trial in shown]
    return element("div", element("table", element("thead", element("tr", heads)), element("tbody", rows)), class_="scroll")


def _value_titles(study: StudySummary) -> list[str]:
    return ["value"] if len(study.directions) == 1 else [f"value {index}" for index in range(len(study.directions))]


def _cells(trial: TrialSummary, params: Sequence[str]) -> Iterator[Markup]:
    yield element("th", f"{trial.number:,}", class_="number", scope="row")
    yield from (element("td", number_text(value), class_="number") for value in trial.values or ())
    yield from (element("td", named(_value_text(trial.params[name]) if name in trial.params else "")) for name in params)


def _value_text(value: Any) -> str:
    text = number_text(value) if type(value) in (int, float) else value if type(value) is str else repr(value)
    return cut_end(visible(text), _MAX_VALUE)
