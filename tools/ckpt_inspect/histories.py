"""Showing the history of a run, and drawing it into a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module

from ckpt_inspect.output.exit_status import FINE
from ckpt_inspect.output.files import replace_file
from ckpt_inspect.output.messages import report_error
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.svg import html_document, svg_document
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.location import NotReadableHereError, run_path
from ckpt_inspect.sources.run_history import RunHistory, read_history
from ckpt_inspect.views.history_table import history_document, history_lines, range_text

_KINDS = (".svg", ".html", ".png")


def show_history(path: str, metrics: Sequence[str], plot: str | None, screen: Screen) -> int:
    """Show the metrics of a run by step; with `plot` draw them into that file too."""
    if plot is not None:
        _check_kind(plot)
    history = read_history(run_path(path))
    names = history.chosen(metrics)
    for remark in history.remarks:
        report_error(remark)
    if plot is not None:
        _draw(history, names, plot)
    if screen.is_json:
        screen.write_document(history_document(history, names) | ({"plot": plot} if plot else {}))
    else:
        screen.write_lines(history_lines(history, names, screen))
        if plot is not None:
            screen.write_lines(["", f"drawn to {visible(plot)}"])
    return FINE


def _check_kind(plot: str) -> None:
    kind = os.path.splitext(plot)[1].lower()
    if kind not in _KINDS:
        raise NotReadableHereError(f"{plot}: cannot be drawn: expected a name that ends with {', '.join(_KINDS[:-1])} or {_KINDS[-1]}")


def _draw(history: RunHistory, names: Sequence[str], plot: str) -> None:
    if not names:
        raise NotReadableHereError(f"{history.path}: has no metrics to draw yet")
    title = os.path.basename(os.path.abspath(history.path))
    drawing = svg_document(title, [(name, range_text(points := history.points(name)), points) for name in names])
    kind = os.path.splitext(plot)[1].lower()
    if kind == ".html":
        drawing = html_document(title, drawing)
    replace_file(plot, [_png(drawing, plot) if kind == ".png" else drawing.encode("utf-8")])


def _png(drawing: str, plot: str) -> bytes:
    try:
        cairosvg = import_module("cairosvg")
    except (ImportError, OSError):
        # OSError: the package is there, the library that it wraps is not.
        advice = f"Draw {os.path.splitext(plot)[0]}.svg instead, which needs nothing, or: pip install cairosvg"
        raise NotReadableHereError(f"{plot}: drawing PNG needs cairosvg, which is not installed\n{advice}") from None
    data: bytes = cairosvg.svg2png(bytestring=drawing.encode("utf-8"), scale=2, background_color="white")
    return data
