"""What compressing did, or would do: a line for each checkpoint, the sum, and the same for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ckpt_inspect.output.units import count_text, size_text
from ckpt_inspect.output.visible import columns, visible
from ckpt_inspect.views.findings import wrapped
from ckptfmt.run.compressing import RunEncodingReport, StepEncoding


def step_lines(step: StepEncoding, width: int) -> Iterator[str]:
    """Yield the line of one checkpoint, and below it the rest of a long reason."""
    what = f"  step {step.step:>12,}  {size_text(step.before_bytes):>9}"
    if step.is_changed:
        yield f"{what} -> {size_text(step.after_bytes):>9}  {_percent(step.before_bytes, step.after_bytes)}"
        return
    what += "  unchanged"
    if columns(what) + columns(visible(step.reason)) + 2 <= width:
        yield f"{what}: {visible(step.reason)}" if step.reason else what
        return
    yield f"{what}:"
    yield from (f"    {line}" for line in wrapped(visible(step.reason), width - 4))


def _percent(before_bytes: int, after_bytes: int) -> str:
    return f"{100 * after_bytes / before_bytes:.0f} %" if before_bytes else ""


def encoding_lines(report: RunEncodingReport, width: int, *, is_run: bool) -> Iterator[str]:
    """Yield what stands below the lines of the checkpoints, and for one checkpoint all of it."""
    if not is_run:
        for step in report.steps:
            yield from step_lines(step, width)
    count = sum(step.is_changed for step in report.steps)
    changed = f"{count_text(count, 'checkpoint')} {'would be ' if report.dry_run else ''}changed"
    sizes = f"{size_text(report.before_bytes)} -> {'about ' if report.dry_run else ''}{size_text(report.after_bytes)}"
    yield f"{visible(report.path)}: {changed}, {sizes}"


def encoding_document(kind: str, reports: Sequence[RunEncodingReport], errors: list[dict[str, Any]], *, is_dry: bool) -> dict[str, Any]:
    """Return it as a JSON object."""
    return {
        "kind": kind,
        "dry_run": is_dry,
        "before_bytes": sum(report.before_bytes for report in reports),
        "after_bytes": sum(report.after_bytes for report in reports),
        "checkpoints": [
            {
                "path": step.path,
                "step": step.step,
                "changed": step.is_changed,
                "before_bytes": step.before_bytes,
                "after_bytes": step.after_bytes,
                "reason": step.reason or None,
            }
            for report in reports
            for step in report.steps
        ],
        "errors": errors,
    }
