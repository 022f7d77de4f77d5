"""The figures as text: one table for each state, one beside the best peer and the machine's limit, and the goals."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import cases, limits, startup, states
from benchmarks.goals import Verdict, judge
from benchmarks.results import OURS, Results
from benchmarks.tables import MISSING, digits, duration, megabytes, table, with_spread

LIMIT_OF = {
    cases.SAVE: limits.BUFFERED_WRITE,
    cases.DURABLE_SAVE: limits.DIRECT_WRITE,
    cases.WARM_LOAD: limits.HASH_2,
    cases.COLD_LOAD: limits.DIRECT_READ,
    cases.ONE_TENSOR: limits.READ_ONE,
    cases.ASYNC_STALL: limits.MEMCPY,
    **dict.fromkeys(("incremental 1 %", "incremental 10 %"), limits.HASH_2),
    "incremental 100 %": limits.DIRECT_WRITE,
}
LIMITS = (
    limits.BUFFERED_WRITE,
    limits.BUFFERED_WRITE_SYNC,
    limits.DIRECT_WRITE,
    limits.DIRECT_READ,
    limits.MEMCPY,
    limits.HASH_1,
    limits.HASH_2,
    limits.READ_ONE,
)
_SECONDS = (cases.DURABLE_SAVE, cases.SAVE, cases.WARM_LOAD, cases.COLD_LOAD)


def report(results: Results) -> str:
    """Return the whole report as Markdown."""
    parts = [_about(results)]
    for state in results.states():
        if state in states.STATES:
            parts += [f"### {_title(state, results)}", _libraries(state, results)]
    parts += ["### Beside the best peer and the machine's limit", _ratios(results)]
    parts += ["### The machine's limits", _limits(results)]
    if startup.STATE in results.states():
        parts += ["### Start-up", _startup(results)]
    parts += ["### Goals", _goals(judge(results))]
    if failed := results.errors():
        parts += ["### What could not be measured", _errors(results, len(failed))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(results: Results) -> str:
    machine, settings = results.machine, results.settings
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    left_out = f" Not installed: {', '.join(settings['left_out'])}." if settings["left_out"] else ""
    count = settings["rounds"] * settings["repeats"]
    return (
        f"{settings['date']}: {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}, "
        f"{machine['file_system']}. Python {machine['python']}, {libraries}.{left_out}\n"
        f"Medians of {count} measurements in {settings['rounds']} rounds, lowest and highest in brackets; "
        "times in seconds where no unit is given."
    )


def _title(state: str, results: Results) -> str:
    text = f"{state}: {states.STATES[state].description}"
    scale = results.settings["scales"][state]
    return text if scale == 1 else f"{text}, times {scale:g} ({_tensor_bytes(results)[state] / 1e6:,.0f} MB)"


def _tensor_bytes(results: Results) -> dict[str, int]:
    found: dict[str, int] = results.settings["tensor_bytes"]
    return found


def _libraries(state: str, results: Results) -> str:
    headings = ["", *_SECONDS, "one tensor, ms", "stall, async", "memory, save, MB", "memory, load, MB", "disk, MB"]
    rows = []
    for row in results.rows(state):
        times = [with_spread(results.seconds(state, case, row)) for case in _SECONDS]
        one = with_spread(results.seconds(state, cases.ONE_TENSOR, row), factor=1e3)
        stall = with_spread(results.seconds(state, cases.ASYNC_STALL, row))
        facts = [
            megabytes(results.fact(state, cases.DURABLE_SAVE, row, cases.EXTRA_MEMORY)),
            megabytes(results.fact(state, cases.WARM_LOAD, row, cases.EXTRA_MEMORY)),
            megabytes(results.fact(state, cases.DURABLE_SAVE, row, cases.SIZE)),
        ]
        rows.append([row, *times, one, stall, *facts])
    kept = [column for column in range(len(headings)) if column == 0 or any(row[column] != MISSING for row in rows)]
    lines = [table([headings[column] for column in kept], [[row[column] for column in kept] for row in rows])]
    lines += _on_base(state, results)
    return "\n\n".join(lines)


def _on_base(state: str, results: Results) -> Iterator[str]:
    rows = []
    for case in cases.INCREMENTAL:
        written, changed = (results.fact(state, case, OURS, name) for name in (cases.WRITTEN, cases.CHANGED))
        if written is not None:
            rows.append([case, with_spread(results.seconds(state, case, OURS)), megabytes(changed), megabytes(written)])
    if rows:
        yield table(["ckptfmt.save(base=...)", "durable save", "changed, MB", "written, MB"], rows)


def _ratios(results: Results) -> str:
    rows = []
    for state in results.states():
        for case, limit in LIMIT_OF.items():
            ours = results.median(state, case, OURS)
            if ours is None:
                continue
            peer, least = results.best_peer(state, case), results.median(state, limit, limits.ROW)
            rows.append(
                [
                    f"{state}, {case}",
                    duration(ours),
                    f"{peer[0]} {duration(peer[1])}" if peer else MISSING,
                    digits(peer[1] / ours) if peer else MISSING,
                    f"{limit} {duration(least)}" if least else MISSING,
                    f"{least / ours:.0%}" if least else MISSING,
                ]
            )
    return table(["", OURS, "best peer", "times as fast", "limit", "of the limit"], rows)


def _limits(results: Results) -> str:
    headings = ["", *(state for state in results.states() if state in states.STATES)]
    rows = []
    for limit in LIMITS:
        cells = [_limit_cell(results, state, limit) for state in headings[1:]]
        if any(cell != MISSING for cell in cells):
            rows.append([limit, *cells])
    return table(headings, rows) if rows else ""


def _limit_cell(results: Results, state: str, limit: str) -> str:
    seconds = results.median(state, limit, limits.ROW)
    if seconds is None:
        return MISSING
    if limit == limits.READ_ONE:
        return duration(seconds)
    return f"{duration(seconds)}, {digits(_tensor_bytes(results)[state] / seconds / 1e9)} GB/s"


def _startup(results: Results) -> str:
    nothing = results.median(startup.STATE, startup.NOTHING, OURS) or 0.0
    rows = []
    for case in (startup.NOTHING, startup.IMPORT_NUMPY, startup.IMPORT, startup.HELP, startup.INSPECT):
        values = results.seconds(startup.STATE, case, OURS)
        if values:
            more = (results.median(startup.STATE, case, OURS) or 0.0) - nothing
            rows.append([case, with_spread(values, factor=1e3), MISSING if case == startup.NOTHING else digits(max(0.0, more) * 1e3)])
    return table(["", "whole process, ms", "more than nothing, ms"], rows)


def _goals(verdicts: list[Verdict]) -> str:
    rows = []
    for verdict in verdicts:
        outcome = MISSING if verdict.is_met is None else "met" if verdict.is_met else "NOT MET"
        rows.append([f"{verdict.goal.state}, {verdict.goal.case}: {verdict.goal.text()}", verdict.measured, outcome])
    return table(["goal", "measured", ""], rows)


def _errors(results: Results, count: int) -> str:
    lines = {f"- {found.state}, {found.case}, {found.row}: {found.error}" for found in results.errors()}
    return "\n".join([f"{count} measurements failed:", "", *sorted(lines)])
