"""The metrics of a run by step, as a table, as charts and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ckpt_inspect.output.plot import Point, plot_lines
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP, Table, fitting_count, number_column, text_column
from ckpt_inspect.output.units import count_text, number_text, parse_utc, short_number, utc_text
from ckpt_inspect.output.visible import columns, cut_end, visible
from ckpt_inspect.sources.run_history import RunHistory
from ckpt_inspect.views.json_values import metrics_document

_SHOWN_ROWS = 20
_SHOWN_CHARTS = 6
_MAX_METRIC_NAME = 24


def history_lines(history: RunHistory, names: Sequence[str], screen: Screen) -> Iterator[str]:
    """Yield a table and one chart for each metric."""
    yield screen.style.bold(visible(history.path))
    rows = [row for row in history.rows if any(name in row for name in names)]
    if not rows:
        yield ""
        yield GAP + "no metrics yet"
        return
    yield ""
    yield from _table_lines(rows, names, screen)
    charted = names if screen.verbosity else names[:_SHOWN_CHARTS]
    for name in charted:
        yield ""
        yield from _chart_lines(name, history.points(name), screen)
    if len(charted) < len(names):
        yield ""
        yield screen.style.dim(f"{count_text(len(names) - len(charted), 'more metric')}: --metric chooses, -v draws all")


def _table_lines(rows: Sequence[Mapping[str, Any]], names: Sequence[str], screen: Screen) -> Iterator[str]:
    shown = rows if screen.verbosity else _thinned_rows(rows, names)
    heads = [number_column("step"), text_column("created (UTC)")]
    plain = [(f"{row['step']:,}", utc_text(parse_utc(str(row.get("created_at_utc"))), "")) for row in shown]
    measured = [[number_text(row[name]) if name in row else "" for row in shown] for name in names]
    titles = [cut_end(visible(name), _MAX_METRIC_NAME) for name in names]
    room = screen.cut_width - sum(Table(heads, plain, None).widths) - len(GAP)
    count = max(fitting_count(zip(titles, measured, strict=True), room), 1)
    cells = [(*first, *values) for first, *values in zip(plain, *measured[:count], strict=True)]
    table = Table([*heads, *map(number_column, titles[:count])], cells, screen.cut_width)
    yield screen.style.bold(table.header())
    yield from map(table.line, cells)
    if len(shown) < len(rows):
        yield screen.style.dim(f"{len(shown):,} of {count_text(len(rows), 'row')}; -v shows all, --json has them exactly")
    if count < len(names):
        yield screen.style.dim(cut_end(f"not shown: {', '.join(map(visible, names[count:]))} (--metric chooses)", screen.cut_width))


def _thinned_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return some of many rows, evenly; of neighbours the one with the most metrics, and always the last."""
    if len(rows) <= _SHOWN_ROWS:
        return list(rows)
    bounds = [len(rows) * index // _SHOWN_ROWS for index in range(_SHOWN_ROWS + 1)]
    parts = [rows[begin:end] for begin, end in pairwise(bounds)]
    return [*(max(part, key=lambda row: sum(name in row for name in names)) for part in parts[:-1]), rows[-1]]


def _chart_lines(name: str, points: Sequence[Point], screen: Screen) -> Iterator[str]:
    title = cut_end(visible(name), screen.layout_width // 2)
    room = screen.layout_width - columns(title) - len(GAP)
    yield screen.style.bold(title) + GAP + screen.style.dim(cut_end(range_text(points), room))
    lines = plot_lines(points, screen.layout_width, is_ascii=screen.is_ascii)
    yield from lines or [GAP + "no value is a finite number"]


def range_text(points: Sequence[Point]) -> str:
    """Return the extremes of a series, its last value, and how much of it is no finite number."""
    finite = [(value, step) for step, value in points if math.isfinite(value)]
    parts = []
    if finite:
        (low, low_step), (high, high_step) = min(finite), max(finite)
        parts = [f"min {short_number(low)} at {low_step:,}", f"max {short_number(high)} at {high_step:,}"]
        parts.append(f"last {short_number(points[-1][1])}")
    if len(finite) < len(points):
        parts.append(f"{len(points) - len(finite):,} not finite")
    return ", ".join(parts)


def history_document(history: RunHistory, names: Sequence[str]) -> dict[str, Any]:
    """Return a history as a JSON object."""
    wanted = set(names)
    rows = []
    for row in history.rows:
        metrics = {name: value for name, value in row.items() if name in wanted}
        if metrics:
            rows.append({"step": row["step"], "created_at_utc": row.get("created_at_utc"), "metrics": metrics_document(metrics)})
    return {"kind": "history", "path": history.path, "metrics": list(names), "rows": rows, "remarks": list(history.remarks)}
