"""A run's checkpoints, one line each, with those metrics that fit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP, Table, fitting_count, labelled, number_column, text_column
from ckpt_inspect.output.units import count_text, number_text, parse_utc, size_text, utc_text
from ckpt_inspect.output.visible import columns, cut_end, padded, visible
from ckpt_inspect.sources.location import PROGRESS_NAME, STUDIES_NAME
from ckpt_inspect.sources.run_directory import ListedCheckpoint, RunDirectory
from ckpt_inspect.sources.run_writer import RunWriter
from ckpt_inspect.views.json_values import metrics_document
from ckpt_inspect.views.progress_lines import progress_document, progress_text
from ckpt_inspect.views.run_marks import Marks, marks_of
from ckpt_inspect.views.study_lines import study_document, study_text

_MAX_METRIC_NAME = 16
_NEWEST = "newest"
_STAR = "*"
_SHOWN_JOURNALS = 5
_SHOWN_WORK = 20
_DAMAGED = "cannot be read; see ckpt-inspect verify"


def run_lines(run: RunDirectory, screen: Screen) -> Iterator[str]:
    """Yield a line on the run, and one for each checkpoint in the order of its steps."""
    yield screen.style.bold(visible(run.path))
    yield ""
    yield from labelled(_facts(run), screen)
    if not run.checkpoints:
        return
    table, rows, hidden = _laid_out(run, screen)
    yield ""
    yield screen.style.bold(table.header())
    for listed, row in zip(run.checkpoints, rows, strict=True):
        yield from _line(listed, row, table, screen)
    if any(_STAR in cell for row in rows for cell in row):
        yield screen.style.dim(f"{_STAR} the best, as far as a metric's name tells which end is good")
    if hidden:
        yield screen.style.dim(cut_end(f"not shown: {', '.join(map(visible, hidden))}", screen.cut_width))


def _laid_out(run: RunDirectory, screen: Screen) -> tuple[Table, Sequence[Sequence[str]], Sequence[str]]:
    """Return the table, its rows, and the names of the metrics for which there is no room."""
    listed = run.checkpoints
    marks = marks_of(listed)
    has_shared = run.disk_bytes < run.size_bytes
    heads = [number_column("step"), text_column("created (UTC)"), number_column("size"), *([number_column("unique")] if has_shared else [])]
    plain = [_plain_cells(checkpoint, has_unique=has_shared) for checkpoint in listed]
    newest = [(_NEWEST if checkpoint.step == marks.newest else "",) for checkpoint in listed]
    room = screen.cut_width - sum(Table(heads, plain, None).widths) - len(GAP) * len(heads) - len(_NEWEST)
    names = metric_names(listed)
    measured = [_metric_cells(name, listed, marks) for name in names]
    titles = [cut_end(visible(name), _MAX_METRIC_NAME) + (" " if name in marks.extremes else "") for name in names]
    count = fitting_count(zip(titles, measured, strict=True), room)
    heads += map(number_column, titles[:count])
    heads.append(text_column(""))
    rows = [(*cells, *values, *note) for cells, *values, note in zip(plain, *measured[:count], newest, strict=True)]
    return Table(heads, rows, screen.cut_width), rows, names[count:]


def _facts(run: RunDirectory) -> list[tuple[str, str]]:
    facts = [("checkpoints", _count(run))]
    if run.checkpoints:
        size = size_text(run.size_bytes)
        if run.disk_bytes < run.size_bytes:
            size += f", on disk {size_text(run.disk_bytes)}: what did not change is stored once"
        facts.append(("size", size))
    facts += _work_facts(run)
    names = [name for name in run.journals if name.split("/")[0] not in (PROGRESS_NAME, STUDIES_NAME)]
    if names:
        more = f" and {len(names) - _SHOWN_JOURNALS:,} more" if len(names) > _SHOWN_JOURNALS else ""
        facts.append(("journals", ", ".join(map(visible, names[:_SHOWN_JOURNALS])) + more))
    if run.asides:
        facts.append(("set aside", f"{count_text(len(run.asides), 'entry', 'entries')} named aside-*"))
    if run.writer:
        facts.append(("locked", f"by process {run.writer.pid} on {visible(run.writer.host)} since {visible(run.writer.since_utc)}"))
    return facts


def _work_facts(run: RunDirectory) -> list[tuple[str, str]]:
    """Return a line for each progress and each study, with the word for them before the first."""
    progress = [(one.path, _DAMAGED if one.summary is None else progress_text(one.summary)) for one in run.progress]
    studies = []
    for one in run.studies:
        texts = [study_text(study) for study in one.studies] or [_DAMAGED if one.damage else "no study yet"]
        studies += [(one.path, text) for text in texts]
    facts = []
    for word, found in (("progress", progress), ("studies", studies)):
        names = [visible(os.path.basename(path)) for path, _ in found[:_SHOWN_WORK]]
        width = min(max(map(columns, names), default=0), _MAX_METRIC_NAME)
        for index, (name, (_, text)) in enumerate(zip(names, found, strict=False)):
            facts.append((word if index == 0 else "", f"{padded(cut_end(name, width), width)}  {text}"))
        if len(found) > _SHOWN_WORK:
            facts.append(("", f"and {len(found) - _SHOWN_WORK:,} more"))
    return facts


def _count(run: RunDirectory) -> str:
    if not run.checkpoints:
        return "none yet"
    words = [listed.status for listed in run.checkpoints if listed.problem is not None]
    found = [f"{words.count(word):,} {word}" for word in dict.fromkeys(words)]
    return f"{len(run.checkpoints):,}" + (f", {', '.join(found)}" if found else "")


def _plain_cells(listed: ListedCheckpoint, *, has_unique: bool) -> tuple[str, ...]:
    if listed.manifest is None:
        return (f"{listed.step:,}", "", "", *([""] if has_unique else []))
    cells = (f"{listed.step:,}", utc_text(parse_utc(listed.manifest.created_at_utc)), size_text(listed.size_bytes))
    return (*cells, size_text(listed.unique_bytes)) if has_unique else cells


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


def metric_names(checkpoints: Sequence[ListedCheckpoint]) -> list[str]:
    """Return the names of all metrics, those first that are not the same everywhere."""
    values: dict[str, set[str]] = {}
    for listed in checkpoints:
        for name, value in (listed.manifest.metrics if listed.manifest else {}).items():
            values.setdefault(name, set()).add(number_text(value))
    return sorted(values, key=lambda name: len(values[name]) == 1)


def _metric_cells(name: str, checkpoints: Sequence[ListedCheckpoint], marks: Marks) -> list[str]:
    """Return the values of one metric; what stands out has a star, and the others room for one."""
    cells = [
        number_text(listed.manifest.metrics[name]) if listed.manifest and name in listed.manifest.metrics else "" for listed in checkpoints
    ]
    if name not in marks.extremes:
        return cells
    return [cell + (_STAR if marks.is_extreme(name, listed.step) else " ") for cell, listed in zip(cells, checkpoints, strict=True)]


def run_document(run: RunDirectory) -> dict[str, Any]:
    """Return a run as a JSON object."""
    marks = marks_of(run.checkpoints)
    return {
        "kind": "run",
        "path": run.path,
        "size_bytes": run.size_bytes,
        "disk_bytes": run.disk_bytes,
        "journals": list(run.journals),
        "progress": [progress_document(found) for found in run.progress],
        "studies": [study_document(found) for found in run.studies],
        "set_aside": list(run.asides),
        "locked_by": _writer_document(run.writer),
        "checkpoints": [_listed_document(listed, marks.words(listed.step)) for listed in run.checkpoints],
    }


def _writer_document(writer: RunWriter | None) -> dict[str, Any] | None:
    return None if writer is None else {"host": writer.host, "pid": writer.pid, "since_utc": writer.since_utc}


def _listed_document(listed: ListedCheckpoint, marks: list[str]) -> dict[str, Any]:
    manifest = listed.manifest
    return {
        "step": listed.step,
        "path": listed.path,
        "status": listed.status,
        "problem": listed.problem,
        "created_at_utc": manifest.created_at_utc if manifest else None,
        "size_bytes": listed.size_bytes if manifest else None,
        "unique_bytes": listed.unique_bytes if manifest else None,
        "marks": marks,
        "tensor_count": manifest.tensor_count if manifest else None,
        "metrics": metrics_document(manifest.metrics) if manifest else None,
        "digest": manifest.digest if manifest else None,
    }
