"""Charts as SVG: one panel for each metric, below each other. Self-contained: no script, no font, nothing to fetch.

It follows the reader's light or dark setting where the viewer does. https://www.w3.org/TR/SVG11/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from xml.sax.saxutils import escape

from ckpt_inspect.output.plot import Point, Range, range_of, stretches, thinned
from ckpt_inspect.output.units import short_number
from ckpt_inspect.output.visible import cut_end, visible

_WIDTH, _PANEL_HEIGHT = 760, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 20, 40, 36
_HEAD = 40
_TICKS = 5
_MAX_TITLE = 90
_STYLE = """\
svg { color-scheme: light dark; background: #fff; font: 12px system-ui, sans-serif; }
text { fill: #444; } .title { fill: #111; font-weight: 600; font-size: 14px; } .note { fill: #777; }
.grid { stroke: #e4e4e4; } .axis { stroke: #999; } .line { fill: none; stroke: #2563b0; stroke-width: 1.8; stroke-linejoin: round; }
.dot { fill: #2563b0; }
@media (prefers-color-scheme: dark) {
  svg { background: #16181c; } text { fill: #b8bcc4; } .title { fill: #f0f0f0; } .note { fill: #8a8f98; }
  .grid { stroke: #2b2f36; } .axis { stroke: #666; } .line { stroke: #6fa8ec; } .dot { fill: #6fa8ec; }
}"""


def svg_document(title: str, series: Sequence[tuple[str, str, Sequence[Point]]]) -> str:
    """Return one drawing of several series, each (name, note, points in the order of their steps)."""
    height = _HEAD + _PANEL_HEIGHT * len(series) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{_text(title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        f'<text class="title" x="{_LEFT}" y="26">{_text(title)}</text>',
    ]
    for index, (name, note, points) in enumerate(series):
        lines.append(f'<g transform="translate(0 {_HEAD + index * _PANEL_HEIGHT})">')
        lines += _panel(name, note, points)
        lines.append("</g>")
    return "\n".join([*lines, "</svg>", ""])


def html_document(title: str, drawing: str) -> str:
    """Return a page with one drawing."""
    lines = [
        "<!doctype html>",
        "<html>",
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{_text(title)}</title>",
        "<style>svg { max-width: 100%; height: auto; }</style>",
        "</head>",
        f"<body>\n{drawing}</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    return escape(cut_end(visible(text), _MAX_TITLE))


def _panel(name: str, note: str, points: Sequence[Point]) -> Iterator[str]:
    yield f'<text class="title" x="{_LEFT}" y="24">{_text(name)}</text>'
    yield f'<text class="note" x="{_WIDTH - _RIGHT}" y="24" text-anchor="end">{_text(note)}</text>'
    finite = [value for _, value in points if math.isfinite(value)]
    if not finite:
        yield f'<text class="note" x="{_LEFT}" y="60">no value is a finite number</text>'
        return
    values, value_ticks = with_ticks(range_of(finite))
    steps, step_ticks = with_ticks(range_of([step for step, _ in points]), is_fitted=True)
    x_of, y_of = scale(steps, _LEFT, _WIDTH - _RIGHT), scale(values, _PANEL_HEIGHT - _BOTTOM, _TOP)
    for tick in value_ticks:
        y = y_of(tick)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short_number(tick)}</text>'
    base = _PANEL_HEIGHT - _BOTTOM
    yield f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{_WIDTH - _RIGHT}" y2="{base}"/>'
    for tick in step_ticks:
        if tick == int(tick):
            yield f'<text x="{x_of(tick):.1f}" y="{base + 18}" text-anchor="middle">{int(tick):,}</text>'
    for part in stretches(points):
        yield _drawn([(x_of(step), y_of(value)) for step, value in thinned(part, steps, _WIDTH)])


def _drawn(line: Sequence[tuple[float, float]]) -> str:
    if len(line) == 1:
        return f'<circle class="dot" cx="{line[0][0]:.1f}" cy="{line[0][1]:.1f}" r="2.5"/>'
    return f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in line)}"/>'


def scale(values: Range, begin: float, end: float) -> Callable[[float], float]:
    """Return the function from a value to its place in pixels."""
    return lambda value: begin + (end - begin) * values.at(value)


def with_ticks(values: Range, *, is_fitted: bool = False) -> tuple[Range, list[float]]:
    """Return round numbers within a range, about five; without `is_fitted` the range grows to the next ones."""
    distance = values.high - values.low
    if not math.isfinite(distance) or not distance / _TICKS:
        return values, [values.low, values.middle(), values.high]
    power = 10.0 ** math.floor(math.log10(distance / _TICKS))
    width = next((factor * power for factor in (1, 2, 5) if distance / (factor * power) <= _TICKS), 10 * power)
    if not width:
        return values, [values.low, values.high]
    first, last = math.floor(values.low / width), math.ceil(values.high / width)
    ticks = [index * width for index in range(first, last + 1)]
    if is_fitted:
        return values, [tick for tick in ticks if values.low <= tick <= values.high]
    return Range(ticks[0], ticks[-1]), ticks
