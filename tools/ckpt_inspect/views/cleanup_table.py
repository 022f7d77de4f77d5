"""A clean-up: for each checkpoint whether it stays, and the rules that keep it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP, Column, Table, number_column, text_column
from ckpt_inspect.output.units import count_text, parse_utc, size_text, utc_text
from ckpt_inspect.output.visible import padded, visible
from ckpt_inspect.sources.run_directory import RunDirectory
from ckpt_inspect.views.findings import wrapped
from ckptfmt.run.cleaning import CleanupReport

_TO_MINUTES = len("2025-11-21 03:05")
_MIN_REASON = 20


def cleanup_lines(report: CleanupReport, run: RunDirectory, screen: Screen) -> Iterator[str]:
    """Yield one line for each checkpoint, and what it comes to; `run` is the state before."""
    yield screen.style.bold(visible(run.path))
    yield ""
    if not report.decisions:
        yield "  this run has no checkpoints"
        return
    listed = {checkpoint.step: checkpoint for checkpoint in run.checkpoints}
    heads = [number_column("step"), text_column("created"), number_column("size"), text_column(""), Column("because")]
    rows = []
    for decision in report.decisions:
        checkpoint = listed.get(decision.step)
        manifest = checkpoint.manifest if checkpoint else None
        created = utc_text(parse_utc(manifest.created_at_utc))[:_TO_MINUTES] if manifest else ""
        size = size_text(checkpoint.size_bytes) if checkpoint and manifest else ""
        reason = ", ".join(map(visible, decision.reasons)) or _loss(checkpoint.status if checkpoint else "")
        rows.append((f"{decision.step:,}", created, size, "keep" if decision.is_kept else "delete", reason))
    others = Table(heads[:-1], [row[:-1] for row in rows], None)
    indent = sum(others.widths) + len(GAP) * len(others.widths)
    yield screen.style.bold(padded(others.header(), indent) + heads[-1].title)
    for *cells, reason in rows:
        color = screen.style.yellow if cells[-1] == "delete" else str
        first, *more = wrapped(reason, max(screen.cut_width - indent, _MIN_REASON))
        yield color(padded(others.line(cells), indent) + first)
        yield from (" " * indent + line for line in more)
    yield ""
    would = "would be " if report.dry_run else ""
    kept = f"{count_text(len(report.kept), 'checkpoint')} kept"
    yield f"{kept}, {len(report.removed):,} {would}deleted, {size_text(freed_bytes(report, run))} {would}freed"


def freed_bytes(report: CleanupReport, run: RunDirectory) -> int:
    """Return what is freed; while nothing is deleted, the library does not count what only deleted checkpoints share."""
    return max(report.freed_bytes, run.freed_bytes(report.removed)) if report.dry_run else report.freed_bytes


def _loss(status: str) -> str:
    return f"no rule keeps it; {status}" if status in ("damaged", "unreadable") else "no rule keeps it"


def cleanup_document(report: CleanupReport, run: RunDirectory) -> dict[str, Any]:
    """Return a clean-up as a JSON object."""
    return {
        "kind": "cleanup",
        "path": run.path,
        "dry_run": report.dry_run,
        "freed_bytes": freed_bytes(report, run),
        "kept": report.kept,
        "removed": report.removed,
        "checkpoints": [
            {"step": decision.step, "kept": decision.is_kept, "reasons": list(decision.reasons)} for decision in report.decisions
        ],
    }
