"""Differences of fingerprints in words: what differs, and what to do about it. Values are cut, and never more than ten are shown."""

from __future__ import annotations

from collections.abc import Sequence

from ckptfmt.format.digest import PREFIX, short
from ckptfmt.format.fingerprint import Difference, printable

MAX_SHOWN = 10
MAX_SHOWN_VALUE = 60
MAX_SHOWN_FIELD = 80
MAX_LINE = 120
MAX_ADVISED = 5


def difference_text(difference: Difference) -> str:
    """Return one difference in words: `config.lr 0.001 -> 0.0003`."""
    name = _cut(printable(difference.field), MAX_SHOWN_FIELD)
    if difference.expected is None:
        return f"{name} added: {_cut_value(difference.found)}"
    if difference.found is None:
        return f"{name} missing: was {_cut_value(difference.expected)}"
    if difference.expected == "<secret>":
        return f"{name} {difference.found}"
    before, after = _cut_value(difference.expected), _cut_value(difference.found)
    if before == after:
        before, after = f"{type(difference.expected).__name__} {before}", f"{type(difference.found).__name__} {after}"
    return f"{name} {before} -> {after}"


def mismatch_text(differences: Sequence[Difference], *, field_count: int, where: str | None = None) -> str:
    """Return what to say about differences: the errors, or where there are none, all of them; then what to do."""
    errors = [difference for difference in differences if difference.severity == "error"]
    shown = errors or list(differences)
    head = f"{where}: " if where else ""
    head += f"fingerprint differs in {len(shown)} of {field_count} fields"
    lines = [difference_text(difference) for difference in shown[:MAX_SHOWN]]
    if len(shown) > MAX_SHOWN:
        lines.append(f"and {len(shown) - MAX_SHOWN} more (.differences has all)")
    one_line = f"{head}: {'; '.join(lines)}"
    text = one_line if len(one_line) <= MAX_LINE else "\n  ".join([f"{head}:", *lines])
    return f"{text}\n{_advice(errors)}"


def _advice(errors: Sequence[Difference]) -> str:
    if not errors:
        return "Results may differ from those of an uninterrupted run."
    names = [f'"{_cut(printable(difference.field), MAX_SHOWN_FIELD)}"' for difference in errors[:MAX_ADVISED]]
    if len(errors) > MAX_ADVISED:
        names.append("...")
    return f"This is a sound checkpoint of another experiment. Allow it with allow_changes=[{', '.join(names)}] if the change is meant."


def _cut_value(value: object) -> str:
    text = printable(str(value))
    if text.startswith(PREFIX):
        return f"{short(text)}..."
    return _cut(text, MAX_SHOWN_VALUE)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
