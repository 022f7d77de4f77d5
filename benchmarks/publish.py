"""Where figures go: the JSON, the chart, and the tables between two markers of benchmarks/README.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks import cases, limits
from benchmarks.chart import Bar, Panel, bar_chart
from benchmarks.report import report
from benchmarks.results import OURS, Results

README = Path(__file__).resolve().parent / "README.md"
CHART_NAME = "durable-save-and-load.svg"
SHOWN_STATE = "2GB"
_PANELS = (
    (cases.DURABLE_SAVE, "Durable save", "direct write", limits.DIRECT_WRITE),
    (cases.COLD_LOAD, "Load from a cold disk", "direct read", limits.DIRECT_READ),
    (cases.WARM_LOAD, "Load from the page cache", "BLAKE3 of all bytes", limits.HASH_2),
)


def publish(results: Results, directory: Path, *, readme: Path | None) -> None:
    """Write the JSON and the chart into a directory, and the tables into a document."""
    results.write(directory / "last.json")
    if SHOWN_STATE in results.states():
        (directory / CHART_NAME).write_text(chart(results), "utf-8")
    if readme is not None:
        replace_between(readme, "tables", report(results))


def chart(results: Results) -> str:
    """Return the chart of durable saves and loads of the transformer's state."""
    size_gb = results.settings["tensor_bytes"][SHOWN_STATE] / 1e9
    panels = []
    for case, title, limit_label, limit in _PANELS:
        bars = []
        for row in results.rows(SHOWN_STATE):
            values = results.seconds(SHOWN_STATE, case, row)
            if values:
                middle = results.median(SHOWN_STATE, case, row) or 0.0
                bars.append(Bar(_label(row, case), middle, min(values), max(values), row == OURS))
        bars.sort(key=lambda bar: (not bar.label.startswith(OURS), bar.middle))
        if bars:
            panels.append(Panel(f"{title}, {size_gb:.1f} GB", bars, limit_label, results.median(SHOWN_STATE, limit, limits.ROW)))
    return bar_chart(panels)


def _label(row: str, case: str) -> str:
    """Say what only ckptfmt does by default: checking every byte that it loads."""
    return f"{row}, verified" if row == OURS and case != cases.DURABLE_SAVE else row


def replace_between(document: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- end of name -->`."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = document.read_text("utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{document.name}: expected the markers {begin} and {end}")
    document.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", "utf-8")
