"""The progress of units of work on the page: a card for each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from ckpt_inspect.output.markup import Markup, element, named, short_named
from ckpt_inspect.output.units import age_text, duration_text, number_text, short_number
from ckpt_inspect.sources.run_report import RunReport
from ckpt_inspect.sources.run_watch import WatchedProgress
from ckpt_inspect.views.bar import percent_text
from ckpt_inspect.views.watch_lines import LAST_TIME, rate_text
from ckptfmt.run.progress_ledger import MetricSummary

_WIDTH = 1000
_SHOWN_METRICS = 6


def progress_section(report: RunReport) -> Iterator[Markup]:
    """Yield the section, where there is any progress."""
    progresses = report.snapshot.progresses
    if not progresses:
        return
    yield element("h2", "Units of work", id="progress")
    metrics = {os.path.basename(found.path): found.summary.metrics for found in report.run.progress if found.summary}
    yield element("div", (_card(progress, metrics.get(progress.name, {}), report.now) for progress in progresses), class_="cards")


def _card(progress: WatchedProgress, metrics: Mapping[str, MetricSummary], now: datetime) -> Markup:
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
    for name, one in list(metrics.items())[:_SHOWN_METRICS]:
        parts.append(element("p", element("b", short_named(name)), f" {_sum_text(one)}"))
    if progress.problem:
        parts.append(element("p", element("span", "damaged", class_="tag bad"), named(progress.problem)))
    return element("div", parts, class_="card")


def _sum_text(one: MetricSummary) -> str:
    mean = "" if one.mean is None else f", {short_number(one.mean)} each"
    return f"{number_text(one.sum)} in all{mean}"


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
