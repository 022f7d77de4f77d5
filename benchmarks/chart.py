"""Charts as plain SVG: horizontal bars beside a limit, and lines on logarithmic axes. Text follows the reader's light or dark theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.tables import duration

WIDTH = 860
LABEL_WIDTH = 170
VALUE_WIDTH = 120
# Of a chart of lines, whose names stand behind their ends.
LINES_WIDTH, NAME_WIDTH = 980, 270
BAR_HEIGHT = 18
BAR_STEP = 26
TITLE_HEIGHT = 46

_STYLE = (
    "text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2937}"
    ".title{font-weight:600;font-size:15px}.small{font-size:11px;fill:#6b7280}.other{fill:#9ca3af}.ours{fill:#2563eb}"
    ".limit{stroke:#dc2626;stroke-width:1.5;stroke-dasharray:4 3}.spread,.grid{stroke:#6b7280;stroke-width:1}.grid{opacity:.25}"
    ".line{fill:none;stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#e5e7eb}.small{fill:#9ca3af}.other{fill:#6b7280}.ours{fill:#60a5fa}.limit{stroke:#f87171}}"
)


@dataclass(frozen=True)
class Bar:
    """One bar: a median with its lowest and highest value, in seconds."""

    label: str
    middle: float
    low: float
    high: float
    is_ours: bool


@dataclass(frozen=True)
class Panel:
    """Bars with a common scale from zero, and the limit that none of them can pass."""

    title: str
    bars: Sequence[Bar]
    limit_label: str = ""
    limit: float | None = None


@dataclass(frozen=True)
class Line:
    """One line of points (x, y), all positive."""

    label: str
    points: Sequence[tuple[float, float]]
    color: str


@dataclass(frozen=True)
class Plot:
    """Lines on two logarithmic axes."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]


def bar_chart(panels: Sequence[Panel]) -> str:
    """Draw panels of bars below one another; shorter is better."""
    parts: list[str] = []
    y = 8.0
    for panel in panels:
        parts += _panel(panel, y)
        y += TITLE_HEIGHT + BAR_STEP * len(panel.bars) + 14
    return _document(parts, y)


def _panel(panel: Panel, top: float) -> list[str]:
    longest = max([bar.high for bar in panel.bars] + ([panel.limit] if panel.limit else []))
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    first = top + TITLE_HEIGHT
    parts = [_text(8, top + 16, panel.title, "title")]
    for index, bar in enumerate(panel.bars):
        y = first + index * BAR_STEP
        length, low, high = (value / longest * room for value in (bar.middle, bar.low, bar.high))
        middle = y + BAR_HEIGHT / 2
        kind = "ours" if bar.is_ours else "other"
        parts += [
            _text(LABEL_WIDTH - 8, middle + 4.5, bar.label, anchor="end"),
            f'<rect class="{kind}" x="{LABEL_WIDTH}" y="{y:.1f}" width="{max(1.0, length):.1f}" height="{BAR_HEIGHT}" rx="2"/>',
            _line_between(LABEL_WIDTH + low, middle, LABEL_WIDTH + high, middle, "spread"),
            _text(LABEL_WIDTH + high + 8, middle + 4.5, duration(bar.middle)),
        ]
    if panel.limit:
        x = LABEL_WIDTH + panel.limit / longest * room
        parts.append(_line_between(x, first - 6, x, first + BAR_STEP * len(panel.bars) - 4, "limit"))
        anchor = "start" if x < WIDTH * 0.6 else "end"
        parts.append(_text(x, first - 10, f"{panel.limit_label}: {duration(panel.limit)}", "small", anchor=anchor))
    return parts


def line_chart(plots: Sequence[Plot]) -> str:
    """Draw plots below one another."""
    height = 300.0
    parts: list[str] = []
    for index, plot in enumerate(plots):
        parts += _plot(plot, index * height, height)
    return _document(parts, height * len(plots), LINES_WIDTH)


def _plot(plot: Plot, top: float, height: float) -> list[str]:
    left, right, above, below = 70.0, NAME_WIDTH, 40.0, 46.0
    points = [point for line in plot.lines for point in line.points]
    x_low, x_high = _decades([x for x, _ in points])
    y_low, y_high = _decades([y for _, y in points])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_low) / (x_high - x_low)
        up = (math.log10(y) - y_low) / (y_high - y_low)
        return left + across * (LINES_WIDTH - left - right), top + height - below - up * (height - above - below)

    parts = [
        _text(8, top + 20, plot.title, "title"),
        _text((left + LINES_WIDTH - right) / 2, top + height - 10, plot.x_label, "small", anchor="middle"),
    ]
    for power in range(x_low, x_high + 1):
        (x, y), (_, y_top) = at(10.0**power, 10.0**y_low), at(10.0**power, 10.0**y_high)
        parts += [_line_between(x, y, x, y_top, "grid"), _text(x, y + 16, f"{10.0**power:,.10g}", "small", anchor="middle")]
    for power in range(y_low, y_high + 1):
        (x, y), (x_right, _) = at(10.0**x_low, 10.0**power), at(10.0**x_high, 10.0**power)
        parts += [_line_between(x, y, x_right, y, "grid"), _text(x - 6, y + 4, f"{10.0**power:g} {plot.y_label}", "small", anchor="end")]
    ends: list[float] = []
    for line in sorted(plot.lines, key=lambda line: line.points[-1][1] if line.points else 0.0):
        if not line.points:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line.points))
        x, y = at(*line.points[-1])
        # Labels at the lines' ends, moved up where they would lie on one another.
        y = min([y, *(end - 15 for end in ends[-1:])])
        ends.append(y)
        parts.append(f'<polyline class="line" stroke="{line.color}" points="{path}"/>')
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" style="fill:{line.color}">{escape(line.label)}</text>')
    return parts


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _line_between(x: float, y: float, x_end: float, y_end: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" y1="{y:.1f}" x2="{x_end:.1f}" y2="{y_end:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start") -> str:
    of_class = f' class="{kind}"' if kind else ""
    return f'<text{of_class} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _document(parts: Sequence[str], height: float, width: int = WIDTH) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" height="{height:.0f}" role="img">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>"]) + "\n"
