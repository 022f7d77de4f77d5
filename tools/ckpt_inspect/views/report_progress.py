"""The progress of units of work on the page: a card for each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from ckpt_inspect.output.markup import Markup, element, named, short_named
from ckpt_inspect.output.units import age_text, duration_text
from ckpt_inspect.sources.run_report import RunReport
from ckpt_inspect.sources.run_watch import WatchedProgress
from ckpt_inspect.views.bar import percent_text
from ckpt_inspect.views.watch_lines import LAST_TIME, rate_text

_WIDTH = 1000


def progress_section(report: RunReport) -> Iterator[Markup]:
    """Yield the section, where there is any progress."""
    progresses = report.snapshot.progresses
    if not progresses:
        return
    yield element("h2", "Units of work", id="progress")
    yield element("div", (_card(progress, report.now) for progress in progresses), class_="cards")


def _card(progress: WatchedProgress, now: datetime) -> Markup:
    is_done = progress.total is not None and progress.done >= progress.total
    parts = [element("h3", short_named(progress.name))]
    if progress.total is None:
        parts.append(element("p", f"{progress.done:,} done"))
    else:
        width = _WIDTH * min(progress.done / progress.total, 1) if progress.total else _WIDTH
        bar = element("rect", width=width, height=10)
        label = f"{progress.done:,} of {progress.total:,}"
        class_ = "bar done" if is_done else "bar"
        parts.append(
            element("svg", bar, class_=class_, viewBox=f"0 0 {_WIDTH} 10", preserveAspectRatio="none", role="img", aria_label=label)
        )
        parts.append(element("p", element("b", percent_text(progress.done, progress.total)), f", {label} done"))
    parts.append(element("p", ", ".join(_details(progress, now, is_done=is_done)), class_="soft"))
    if progress.problem:
        parts.append(element("p", element("span", "damaged", class_="tag bad"), named(progress.problem)))
    return element("div", parts, class_="card")


def _details(progress: WatchedProgress, now: datetime, *, is_done: bool) -> Iterator[str]:
    if progress.failed:
        yield f"{progress.failed:,} failed"
    rate = progress.units_per_second
    if rate:
        yield f"{rate_text(rate)} per second" if rate >= 1 else f"{duration_text(1 / rate)} each"
    if not is_done and progress.total is not None:
        yield f"{progress.total - progress.done:,} left"
        if progress.eta_seconds:
            yield f"about {duration_text(progress.eta_seconds)} of work"
    if progress.last_at:
        yield f"last {age_text(datetime.fromtimestamp(min(progress.last_at, LAST_TIME), UTC), now)}"
