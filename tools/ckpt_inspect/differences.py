"""Comparing what lies under two paths."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from ckpt_inspect.output.exit_status import FINE, FOUND_SOMETHING
from ckpt_inspect.output.progress import ByteProgress
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.sources.diff_sides import open_sides
from ckpt_inspect.sources.location import NotReadableHereError
from ckpt_inspect.views.diff_table import diff_document, diff_lines
from ckpt_inspect.views.values import type_of
from ckptfmt.checkpoint.diff import compare
from ckptfmt.checkpoint.tree_diff import Selection, Side, Tolerance


def show_differences(paths: Sequence[str], selection: Selection, tolerances: tuple[float, float], screen: Screen) -> int:
    """Show what differs between two checkpoints or files, and return whether anything does."""
    try:
        tolerance = Tolerance(*tolerances)
    except ValueError as error:
        raise NotReadableHereError(f"--{error}") from None
    with ExitStack() as stack:
        (before, after), is_tensors_only = open_sides(paths, stack)
        total_bytes = sum(row.size_bytes for side in (before, after) for row in side.rows)
        is_wanted = not screen.is_json and not screen.is_quiet
        with ByteProgress(total_bytes=total_bytes, is_wanted=is_wanted) as progress:
            report = compare(before, after, selection, tolerance, _packed, progress.advance)
    if screen.is_json:
        screen.write_document(diff_document(report, is_tensors_only=is_tensors_only))
    else:
        screen.write_lines(diff_lines(report, screen, is_tensors_only=is_tensors_only))
    return FINE if report.same else FOUND_SOMETHING


def _packed(node: Any, side: Side) -> tuple[str, Any]:
    """Leave a value packed: its text is made for what is shown only."""
    return type_of(node), node
