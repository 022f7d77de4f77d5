"""A run's checkpoints, one line each, with those metrics that fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP, Table, labelled, number_column, text_column
from ckpt_inspect.output.units import number_text, parse_utc, size_text, utc_text
from ckpt_inspect.output.visible import columns, cut_end, visible
from ckpt_inspect.sources.run_directory import ListedCheckpoint, RunDirectory
from ckpt_inspect.views.json_values import metrics_document

_MAX_METRIC_NAME = 16


def run_lines(run: RunDirectory, screen: Screen) -> Iterator[str]:
    """Yield a line on the run, and one for each checkpoint in the order of its steps."""
    yield screen.style.bold(visible(run.path))
    yield ""
    yield from labelled(_facts(run), screen)
    if not run.checkpoints:
        return
    names = _metric_names(run.checkpoints)
    heads = [number_column("step"), text_column("created (UTC)"), number_column("size")]
    plain = [_plain_cells(listed) for listed in run.checkpoints]
    shown = _fitting(Table(heads, plain, None).widths, run.checkpoints, names, screen)
    heads += [number_column(cut_end(visible(name), _MAX_METRIC_NAME)) for name in shown]
    rows = [(*cells, *_metric_cells(listed, shown)) for cells, listed in zip(plain, run.checkpoints, strict=True)]
    table = Table(heads, rows, screen.layout_width)
    yield ""
    yield screen.style.bold(table.header())
    for listed, row in zip(run.checkpoints, rows, strict=True):
        yield from _line(listed, row, table, screen)
    if len(shown) < len(names):
        hidden = ", ".join(visible(name) for name in names if name not in shown)
        yield screen.style.dim(cut_end(f"not shown: {hidden}", screen.layout_width))


def _facts(run: RunDirectory) -> list[tuple[str, str]]:
    if not run.checkpoints:
        return [("checkpoints", "none yet")]
    size = size_text(run.size_bytes)
    if run.disk_bytes < run.size_bytes:
        size += f", on disk {size_text(run.disk_bytes)}: what did not change is stored once"
    return [("checkpoints", f"{len(run.checkpoints):,}"), ("size", size)]


def _plain_cells(listed: ListedCheckpoint) -> tuple[str, str, str]:
    if listed.manifest is None:
        return f"{listed.step:,}", "", ""
    return f"{listed.step:,}", utc_text(parse_utc(listed.manifest.created_at_utc)), size_text(listed.size_bytes)


def _line(listed: ListedCheckpoint, row: Sequence[str], table: Table, screen: Screen) -> Iterator[str]:
    if listed.problem is None:
        yield table.line(row)
        return
    color = screen.style.yellow if listed.status == "incomplete" else screen.style.red
    if listed.manifest is not None:
        yield color(table.line(row))
        step = " " * table.widths[0]
    else:
        step = row[0].rjust(table.widths[0])
    room = screen.layout_width - table.widths[0] - len(GAP)
    yield color(step + GAP + cut_end(f"{listed.status}: {visible(listed.problem)}", room))


def _metric_names(checkpoints: Sequence[ListedCheckpoint]) -> list[str]:
    """Return the names of all metrics, those first that are not the same everywhere."""
    values: dict[str, set[str]] = {}
    for listed in checkpoints:
        for name, value in (listed.manifest.metrics if listed.manifest else {}).items():
            values.setdefault(name, set()).add(number_text(value))
    return sorted(values, key=lambda name: len(values[name]) == 1)


def _fitting(widths: Sequence[int], checkpoints: Sequence[ListedCheckpoint], names: Sequence[str], screen: Screen) -> list[str]:
    """Return those metrics, from the first on, whose columns have room beside the others."""
    room = screen.layout_width - sum(widths) - len(GAP) * (len(widths) - 1)
    shown = []
    for name in names:
        width = max(columns(cut_end(visible(name), _MAX_METRIC_NAME)), *(len(*_metric_cells(listed, [name])) for listed in checkpoints))
        room -= width + len(GAP)
        if room < 0:
            break
        shown.append(name)
    return shown


def _metric_cells(listed: ListedCheckpoint, names: Sequence[str]) -> list[str]:
    metrics = listed.manifest.metrics if listed.manifest else {}
    return [number_text(metrics[name]) if name in metrics else "" for name in names]


def run_document(run: RunDirectory) -> dict[str, Any]:
    """Return a run as a JSON object."""
    return {
        "kind": "run",
        "path": run.path,
        "size_bytes": run.size_bytes,
        "disk_bytes": run.disk_bytes,
        "checkpoints": [_listed_document(listed) for listed in run.checkpoints],
    }


def _listed_document(listed: ListedCheckpoint) -> dict[str, Any]:
    manifest = listed.manifest
    return {
        "step": listed.step,
        "path": listed.path,
        "status": listed.status,
        "problem": listed.problem,
        "created_at_utc": manifest.created_at_utc if manifest else None,
        "size_bytes": listed.size_bytes if manifest else None,
        "tensor_count": manifest.tensor_count if manifest else None,
        "metrics": metrics_document(manifest.metrics) if manifest else None,
        "digest": manifest.digest if manifest else None,
    }
