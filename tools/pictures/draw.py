"""Draw what a command shows on a terminal of 80 columns as an SVG: the picture in the README.

    python tools/pictures/draw.py tools/pictures/inspect.svg build/demo/killed/step-00000500
    python tools/pictures/draw.py --lines 27 tools/pictures/watch.svg watch runs/exp1 --once --metric train.loss --mode min

The command runs on a real pseudo-terminal, so the picture has its colours.
"""

from __future__ import annotations

import argparse
import html
import os
import pty
import re
import sys
from pathlib import Path

COLUMNS = 80
CHARACTER_WIDTH, LINE_HEIGHT, MARGIN = 8.4, 19, 18
COLOURS = {"31": "#e06c75", "32": "#98c379", "33": "#e5c07b", "2": "#8b95a7"}
BLANK = chr(0x2800)
DOTS = re.compile(f"[{chr(0x2801)}-{chr(0x28FF)}][{BLANK}-{chr(0x28FF)} ]*")
SGR = re.compile(r"\x1b\[([0-9;]*)m")


def shown(command: list[str]) -> list[str]:
    """Return the lines that a command shows on a terminal."""
    os.environ.update(COLUMNS=str(COLUMNS), LINES="200", TERM="xterm-256color")
    os.environ.pop("NO_COLOR", None)
    collected = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 65536)
        collected.extend(data)
        return data

    pty.spawn(command, read)
    return collected.decode("utf-8").replace("\r", "").rstrip("\n").split("\n")


def spans(line: str) -> str:
    """Return one line as tspans, one for each run of the same style."""
    parts, style, position = [], "", 0
    for match in [*SGR.finditer(line), None]:
        text = line[position : match.start() if match else None]
        if text:
            parts.append(f"<tspan{style}>{html.escape(text, quote=False)}</tspan>")
        if match:
            codes = [code for code in match[1].split(";") if code not in ("", "0")]
            weight = ' font-weight="bold"' if "1" in codes else ""
            style = weight + "".join(f' fill="{COLOURS[code]}"' for code in codes if code in COLOURS)
            position = match.end()
    return "".join(parts)


def texts(line: str, y: int) -> list[str]:
    """Return one line; dots of a chart come from another font in most viewers, so their width is set."""
    match = DOTS.search(line)
    if match is None:
        return [f'<text x="{MARGIN}" y="{y}" xml:space="preserve">{spans(line)}</text>']
    begin, end = match.span()
    place = f'x="{MARGIN + begin * CHARACTER_WIDTH:.1f}" y="{y}" textLength="{(end - begin) * CHARACTER_WIDTH:.1f}"'
    dots = f'<text {place} lengthAdjust="spacingAndGlyphs" xml:space="preserve">{match[0].replace(" ", BLANK)}</text>'
    return [*texts(line[:begin], y), dots]


def draw(title: str, lines: list[str]) -> str:
    """Return the picture of a terminal window with these lines."""
    width, height = round(COLUMNS * CHARACTER_WIDTH + 2 * MARGIN), (len(lines) + 2) * LINE_HEIGHT + 2 * MARGIN
    rows = [text for number, line in enumerate(lines) for text in texts(line, MARGIN + (number + 3) * LINE_HEIGHT - 6)]
    font = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    prompt = f'<tspan fill="#98c379">$ </tspan>{html.escape(title)}'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{font}" font-size="14" fill="#d7dae0">',
        f'<rect width="{width}" height="{height}" rx="10" fill="#1e222a"/>',
        f'<text x="{MARGIN}" y="{MARGIN + LINE_HEIGHT - 6}" xml:space="preserve">{prompt}</text>',
    ]
    return "\n".join([*head, *rows, "</svg>", ""])


def main() -> None:
    """Draw what `ckpt-inspect WORD...` shows into a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, help="draw only so many lines, as a terminal of that height shows")
    parser.add_argument("target")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    target, words = arguments.target, arguments.words
    lines = shown([sys.executable, "-m", "ckpt_inspect", *words])[: arguments.lines]
    title = " ".join(word.removeprefix("build/demo/killed/") for word in words if word != "--once")
    Path(target).write_text(draw(f"ckpt-inspect {title}", lines), encoding="utf-8")


if __name__ == "__main__":
    main()
