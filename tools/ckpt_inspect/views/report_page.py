"""The report of a run: one HTML page that needs nothing but itself, runs no script and may load nothing.

Its policy allows the one style sheet by its digest, so even a hole in the escaping could not fetch or run anything.
https://www.w3.org/TR/CSP3/
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from importlib.resources import files

from ckpt_inspect.output.markup import Markup, element, join, named, trusted
from ckpt_inspect.output.units import age_text, count_text, duration_text, number_text, size_text, utc_text
from ckpt_inspect.output.visible import cut_middle, visible
from ckpt_inspect.sources.run_report import RunReport, created_at
from ckpt_inspect.views.fingerprint_lines import fingerprint_fields
from ckpt_inspect.views.report_charts import charts_section
from ckpt_inspect.views.report_checkpoints import checkpoints_section
from ckpt_inspect.views.report_checks import Checks, checks_section
from ckpt_inspect.views.report_commands import commands_section
from ckpt_inspect.views.report_progress import progress_section
from ckpt_inspect.views.report_studies import studies_section
from ckpt_inspect.views.run_marks import marks_of
from ckpt_inspect.views.watch_lines import next_save_at
from ckptfmt._version import __version__

GENERATOR = "ckpt-inspect report"
_MAX_TITLE = 80
_SHOWN_FIELDS = 16


def report_page(report: RunReport, checks: Checks, names: Sequence[str]) -> str:
    """Return the page. `names` are the commands that it may advise."""
    style = files("ckpt_inspect.output").joinpath("report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = cut_middle(visible(os.path.basename(report.path) or report.path), _MAX_TITLE)
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=f"{GENERATOR} {__version__}"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title}: report"),
        element("style", trusted(style)),
    ]
    page = element("html", element("head", *head), element("body", *_body(report, checks, names, title)), lang="en")
    return f"<!doctype html>\n{page}\n"


def is_report(beginning: bytes) -> bool:
    """Tell whether a file begins as a report does."""
    return f'name="generator" content="{GENERATOR} '.encode() in beginning and beginning.startswith(b"<!doctype html>")


def _body(report: RunReport, checks: Checks, names: Sequence[str], title: str) -> Iterator[Markup]:
    sections = [
        *charts_section(report),
        *studies_section(report),
        *progress_section(report),
        *checkpoints_section(report, checks),
        *checks_section(checks, report),
        *_fingerprint_section(report),
        *commands_section(report, checks, names),
    ]
    yield element("h1", named(title))
    yield element("p", named(report.path), class_="where")
    yield _state(report, checks)
    yield element("dl", _tiles(report, checks), class_="tiles")
    yield element("nav", [_link(section) for section in sections if section.startswith("<h2")])
    yield element("main", sections)
    told = f"As of {utc_text(report.now)} UTC, by ckpt-inspect {__version__}. This page loads nothing and runs nothing."
    yield element("footer", element("p", told))


def _link(heading: Markup) -> Markup:
    name = heading.partition('id="')[2].partition('"')[0]
    return element("a", trusted(heading.partition(">")[2].removesuffix("</h2>")), href=f"#{name}")


def _state(report: RunReport, checks: Checks) -> Markup:
    """Say in one sentence where the run stands."""
    writer, sound = report.snapshot.writer, checks.sound_of(report)
    newest = report.run.checkpoints[-1] if report.run.checkpoints else None
    resume = f"it resumes from step {sound[-1].step:,}" if sound else "there is nothing to resume from yet"
    damaged = [listed for listed in report.run.checkpoints if listed not in sound and listed.status != "incomplete"]
    if writer:
        words: list[str | Markup] = [f"Process {writer.pid} on ", named(writer.host), f" is writing. Stopped now, {resume}."]
        level = "good"
    elif newest is not None and newest in damaged:
        words, level = [f"The newest checkpoint, step {newest.step:,}, is damaged: {resume}."], "bad"
    else:
        words, level = [f"Nobody is writing: {resume}."], "good" if sound else ""
    if damaged and level != "bad":
        words.append(f" {count_text(len(damaged), 'checkpoint')} of it {'is' if len(damaged) == 1 else 'are'} damaged.")
        level = "warn"
    return element("div", element("span", words), class_=f"state {level}".strip())


def _tiles(report: RunReport, checks: Checks) -> Iterator[Markup]:
    sound, logged, run = checks.sound_of(report), report.snapshot.logged, report.run
    if sound:
        created = created_at(sound[-1])
        yield _tile("newest checkpoint", f"step {sound[-1].step:,}", age_text(created, report.now) if created else "")
    if logged and (not sound or logged.step > sound[-1].step):
        yield _tile("last logged", f"step {logged.step:,}", age_text(logged.at, report.now) if logged.at else "")
    for name, (word, step) in list(marks_of(sound).extremes.items())[:2]:
        manifest = next(listed.manifest for listed in sound if listed.step == step)
        if manifest:
            yield _tile(f"{word} {cut_middle(visible(name), 40)}", number_text(manifest.metrics[name]), f"at step {step:,}")
    count = len(run.checkpoints)
    yield _tile("checkpoints", f"{len(sound):,}", f"of {count:,}" if len(sound) < count else "all there" if count else "none yet")
    if run.checkpoints:
        shared = run.size_bytes - run.disk_bytes
        yield _tile(
            "on the disk", size_text(run.disk_bytes), f"{size_text(shared)} more without sharing" if shared else "nothing is shared"
        )
    if report.snapshot.begun_at:
        age = age_text(report.snapshot.begun_at, report.now).removesuffix(" ago")
        yield _tile("begun", age, f"{utc_text(report.snapshot.begun_at)} UTC")
    expected = next_save_at(report.snapshot)
    if expected and report.snapshot.pace:
        yield _tile("next save", f"step {expected[0]:,}", f"every {duration_text(report.snapshot.pace.seconds)} of late")
    if checks.level != "none" and checks.results:
        depth = "every byte" if checks.level == "full" else "quickly"
        yield _tile("verified", "sound" if checks.is_fine else f"{len(checks.bad) + len(checks.failures):,} damaged", depth)


def _tile(label: str, value: str, note: str) -> Markup:
    return element("div", element("dt", label), element("dd", value), element("dd", note))


def _fingerprint_section(report: RunReport) -> Iterator[Markup]:
    if not report.fingerprint:
        return
    yield element("h2", "Fingerprint", id="fingerprint")
    rows = [
        element("tr", element("th", named(name), class_="wide", scope="row"), element("td", named(value), class_="wide"))
        for name, value in fingerprint_fields(report.fingerprint)
    ]
    yield _table(rows[:_SHOWN_FIELDS])
    if len(rows) > _SHOWN_FIELDS:
        more = element("summary", count_text(len(rows) - _SHOWN_FIELDS, "more field"))
        yield element("details", more, _table(rows[_SHOWN_FIELDS:]))


def _table(rows: list[Markup]) -> Markup:
    return element("div", element("table", element("tbody", join(rows))), class_="scroll")
