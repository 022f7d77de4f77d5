"""A progress for people and for programs: how far it is, how fast, what it measured, and what came last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP, Table, labelled, name_column, number_column, text_column
from ckpt_inspect.output.units import count_text, duration_text, number_text, size_text, utc_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.work import FoundProgress, Journals
from ckpt_inspect.views.json_values import metrics_document, plain_value
from ckptfmt.run.progress_bar import bar_text
from ckptfmt.run.progress_ledger import MetricSummary
from ckptfmt.run.progress_reader import ProgressSummary, UnitRecord

_BAR_WIDTH = 24
_SHORT_BAR_WIDTH = 16
_SHOWN_METRICS = 12


def progress_lines(found: FoundProgress, screen: Screen) -> Iterator[str]:
    """Yield what a progress is, its metrics, and its last records one line each."""
    yield screen.style.bold(visible(found.path))
    yield ""
    summary = found.summary
    facts = [] if summary is None else _facts(summary)
    yield from labelled([*facts, ("size", journals_text(found.journals))], screen)
    if summary is None:
        return
    if summary.metrics:
        yield ""
        yield from _metric_lines(summary.metrics, screen)
    if summary.last:
        yield ""
        yield from _record_lines(summary, screen)


def progress_text(summary: ProgressSummary) -> str:
    """Return a progress as one line with a bar."""
    return bar_text(summary.done, summary.total, summary.eta_seconds, failed_count=summary.failed, width=_SHORT_BAR_WIDTH)


def journals_text(journals: Journals) -> str:
    """Return how much the journals of something take."""
    return f"{size_text(journals.size_bytes)} in {count_text(journals.count, 'journal')}"


def _facts(summary: ProgressSummary) -> list[tuple[str, str]]:
    left = None if summary.total is None else max(0, summary.total - summary.done)
    bar = bar_text(summary.done, summary.total, None, failed_count=0, width=_BAR_WIDTH)
    done = count_text(summary.done, "unit") + ("" if left is None else f", {left:,} left of {summary.total:,}")
    facts = [("progress", bar), ("done", done)]
    facts.append(("claimed", f"{count_text(summary.claimed, 'unit')} that somebody works on now" if summary.claimed else "none"))
    facts.append(("failed", f"{count_text(summary.failed, 'unit')} at the last attempt" if summary.failed else "none"))
    facts.append(("rate", _rate_text(summary.units_per_second)))
    is_over = left == 0
    facts.append(("time left", "nothing is left to do" if is_over else "not known" if summary.eta_seconds is None else _time(summary)))
    return facts


def _time(summary: ProgressSummary) -> str:
    return duration_text(summary.eta_seconds or 0.0) + " at this rate"


def _rate_text(units_per_second: float | None) -> str:
    """Return how many units were finished of late, in the unit of time that makes the number one to read."""
    if units_per_second is None:
        return "not known"
    for unit, seconds in (("second", 1), ("minute", 60), ("hour", 3600)):
        if units_per_second * seconds >= 1 or unit == "hour":
            return f"{number_text(round(units_per_second * seconds, 2))} units a {unit} of late"
    return ""


def _metric_lines(metrics: Mapping[str, MetricSummary], screen: Screen) -> Iterator[str]:
    shown = list(metrics.items())[: None if screen.verbosity else _SHOWN_METRICS]
    rows = []
    for name, one in shown:
        values = (one.sum, one.mean, one.min, one.max)
        rows.append((GAP + visible(name), f"{one.count:,}", *("" if value is None else number_text(value) for value in values)))
    table = Table([name_column("metrics"), *map(number_column, ("count", "sum", "mean", "min", "max"))], rows, screen.cut_width)
    yield screen.style.bold(table.header())
    yield from map(table.line, rows)
    if len(shown) < len(metrics):
        yield screen.style.dim(f"{GAP}... and {len(metrics) - len(shown):,} more (-v shows all)")


def _record_lines(summary: ProgressSummary, screen: Screen) -> Iterator[str]:
    rows = [(GAP + utc_text(_instant(record.at)), visible(_key_text(record.key)), visible(_outcome(record))) for record in summary.last]
    heads = [text_column(f"last {count_text(len(rows), 'record')} (UTC)"), name_column("unit"), text_column("outcome")]
    table = Table(heads, rows, screen.cut_width)
    yield screen.style.bold(table.header())
    for record, row in zip(summary.last, rows, strict=True):
        line = table.line(row)
        yield line if record.error is None else screen.style.yellow(line)


def _key_text(key: Any) -> str:
    return key if isinstance(key, str) else repr(key)


def _outcome(record: UnitRecord) -> str:
    if record.error is not None:
        return f"failed: {record.error.partition(chr(10))[0]}"
    return "done" + "".join(f", {name} {number_text(value)}" for name, value in record.metrics.items())


def _instant(at: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(at, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def progress_document(found: FoundProgress) -> dict[str, Any]:
    """Return a progress as a JSON object."""
    document: dict[str, Any] = {
        "kind": "progress",
        "path": found.path,
        "journal_count": found.journals.count,
        "size_bytes": found.journals.size_bytes,
        "damage": found.damage,
    }
    return document if found.summary is None else {**document, **summary_document(found.summary)}


def summary_document(summary: ProgressSummary) -> dict[str, Any]:
    """Return where a progress stands as a JSON object."""
    return {
        "total": summary.total,
        "done": summary.done,
        "failed": summary.failed,
        "claimed": summary.claimed,
        "ratio": summary.ratio,
        "units_per_second": summary.units_per_second,
        "eta_seconds": summary.eta_seconds,
        "metrics": {
            name: {"count": one.count, **{word: plain_value(getattr(one, word)) for word in ("sum", "mean", "min", "max")}}
            for name, one in summary.metrics.items()
        },
        "last_records": [
            {
                "key": plain_value(record.key),
                "at_utc": f"{instant:%Y-%m-%dT%H:%M:%S.%fZ}" if (instant := _instant(record.at)) else None,
                "metrics": metrics_document(record.metrics),
                "error": record.error,
            }
            for record in summary.last
        ],
    }
