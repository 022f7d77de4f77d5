"""The checkpoints of a run on the page: what each takes, what it alone takes, its metrics, and what it stands out by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckpt_inspect.output.markup import Markup, element, named, short_named
from ckpt_inspect.output.units import age_text, count_text, number_text, size_text, utc_text
from ckpt_inspect.sources.run_directory import ListedCheckpoint
from ckpt_inspect.sources.run_report import RunReport, created_at
from ckpt_inspect.views.report_checks import Checks
from ckpt_inspect.views.run_marks import Marks, marks_of
from ckpt_inspect.views.run_table import metric_names

_SHOWN = 60
_METRICS = 5
_BAR = 90


def checkpoints_section(report: RunReport, checks: Checks) -> Iterator[Markup]:
    """Yield the table of checkpoints, the newest first."""
    yield element("h2", "Checkpoints", id="checkpoints")
    listed = list(report.run.checkpoints)[::-1]
    if not listed:
        yield element("p", "None yet.", class_="soft")
        return
    marks = marks_of(checks.sound_of(report))
    # What stands out is never among those that are folded away.
    near = [one for index, one in enumerate(listed) if index < _SHOWN or marks.words(one.step) or one.problem is not None]
    far = [one for one in listed if one not in near]
    yield _table(near, report, checks, marks)
    if far:
        summary = element("summary", f"{count_text(len(far), 'older checkpoint')}")
        yield element("details", summary, _table(far, report, checks, marks))
    if report.run.asides:
        yield element("p", f"{count_text(len(report.run.asides), 'entry', 'entries')} set aside (aside-*), never deleted.", class_="soft")


def _table(listed: Sequence[ListedCheckpoint], report: RunReport, checks: Checks, marks: Marks) -> Markup:
    every = report.run.checkpoints
    names = metric_names(every)[:_METRICS]
    has_shared = report.run.disk_bytes < report.run.size_bytes
    largest = max((one.size_bytes for one in every), default=0)
    heads = [element("th", "step", class_="number"), element("th", "created (UTC)"), element("th", "size", class_="number")]
    heads += [element("th", "only here", class_="number")] if has_shared else []
    heads += [element("th"), *(element("th", short_named(name), class_="number") for name in names), element("th", "stands out as")]
    bad = {verified.report.path for verified in checks.bad}
    rows = [_row(one, names, marks, report, largest, has_shared=has_shared, is_bad=one.path in bad) for one in listed]
    head = element("thead", element("tr", heads))
    return element("div", element("table", head, element("tbody", rows)), class_="scroll")


def _row(
    listed: ListedCheckpoint, names: Sequence[str], marks: Marks, report: RunReport, largest: int, *, has_shared: bool, is_bad: bool
) -> Markup:
    cells = [element("th", f"{listed.step:,}", class_="number", scope="row")]
    if listed.manifest is None:
        span = 4 + has_shared + len(names)
        cells.append(element("td", _status_tag(listed), " ", named(listed.problem or ""), class_="wide", colspan=span))
        return element("tr", cells)
    created = created_at(listed)
    age = age_text(created, report.now) if created else ""
    cells += [element("td", utc_text(created), title=age), element("td", size_text(listed.size_bytes), class_="number")]
    cells += [element("td", size_text(listed.unique_bytes), class_="number")] if has_shared else []
    cells.append(element("td", _share(listed, largest)))
    metrics = listed.manifest.metrics
    cells += [element("td", number_text(metrics[name]) if name in metrics else "", class_="number") for name in names]
    tags = [element("span", short_named(word), class_="tag good") for word in marks.words(listed.step)]
    tags += [element("span", "damaged", class_="tag bad")] if is_bad and listed.problem is None else []
    tags += [_status_tag(listed), named(listed.problem)] if listed.problem is not None else []
    cells.append(element("td", tags))
    return element("tr", cells)


def _status_tag(listed: ListedCheckpoint) -> Markup:
    return element("span", listed.status, class_=f"tag {'warn' if listed.status == 'incomplete' else 'bad'}")


def _share(listed: ListedCheckpoint, largest: int) -> Markup:
    """Draw how large a checkpoint is beside the largest one, and how much of that nobody else has."""
    whole, own = (_BAR * size / largest if largest else 0 for size in (listed.size_bytes, listed.unique_bytes))
    bars = [element("rect", class_="all", width=whole, height=8), element("rect", class_="own", width=own, height=8)]
    title = f"{size_text(listed.size_bytes)}, of it {size_text(listed.unique_bytes)} in no other checkpoint"
    return element("svg", element("title", title), bars, class_="share", viewBox=f"0 0 {_BAR} 8", role="img")
