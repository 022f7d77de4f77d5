"""A journal for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP, labelled
from ckpt_inspect.output.units import count_text, size_text
from ckpt_inspect.output.visible import cut_end, visible
from ckpt_inspect.sources.journal import Journal
from ckpt_inspect.views.json_values import plain_value

_MAX_TEXT = 10_000


def journal_lines(journal: Journal, screen: Screen) -> Iterator[str]:
    """Yield what a journal is, and its last records one line each."""
    yield screen.style.bold(visible(journal.path))
    yield ""
    facts = [("size", f"{size_text(journal.size_bytes)} in {count_text(journal.segment_count, 'segment')}")]
    if journal.damage is None:
        facts.insert(0, ("journal", _records_text(journal)))
        facts.append(("torn tail", f"{journal.torn_bytes:,} bytes that no record was confirmed in" if journal.torn_bytes else "none"))
    yield from labelled(facts, screen)
    for remark in journal.remarks:
        yield GAP + screen.style.yellow(cut_end(visible(remark), screen.cut_width - len(GAP)))
    if journal.last:
        yield ""
        yield screen.style.bold(f"last {count_text(len(journal.last), 'record')}")
        width = max(len(f"{number:,}") for number, _ in journal.last)
        for number, value in journal.last:
            yield GAP + f"{number:>{width},}{GAP}{cut_end(_text(value), screen.cut_width - width - 2 * len(GAP))}"


def _records_text(journal: Journal) -> str:
    if not journal.record_count:
        return "no records"
    text = count_text(journal.record_count, "record")
    return text + (f", from number {journal.first_number:,}: earlier ones were compacted" if journal.first_number > 1 else "")


def _text(value: Any) -> str:
    return visible(json.dumps(_bounded(value), ensure_ascii=False, allow_nan=False))[:_MAX_TEXT]


def _bounded(value: Any) -> Any:
    """Return a record as JSON has it; bytes as their size and beginning."""
    if isinstance(value, bytes):
        return f"{size_text(len(value))} {value[:16].hex()}"
    if isinstance(value, dict):
        return {str(key): _bounded(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_bounded(member) for member in value]
    return plain_value(value)


def journal_document(journal: Journal) -> dict[str, Any]:
    """Return a journal as a JSON object."""
    return {
        "kind": "journal",
        "path": journal.path,
        "segment_count": journal.segment_count,
        "size_bytes": journal.size_bytes,
        "first_number": journal.first_number,
        "record_count": journal.record_count,
        "torn_bytes": journal.torn_bytes,
        "last_records": [{"number": number, "value": _bounded(value)} for number, value in journal.last],
        "remarks": list(journal.remarks),
        "damage": journal.damage,
    }
