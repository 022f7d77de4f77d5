"""A fingerprint for people: one line for each part of the experiment's identity, or with -v one for each field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import labelled
from ckpt_inspect.output.visible import visible
from ckptfmt.errors import FormatError
from ckptfmt.format.digest import PREFIX
from ckptfmt.format.fingerprint import decode_document, show_value

_DIGEST_LENGTH = len(PREFIX) + 12
_MAX_VALUE = 500


def fingerprint_lines(fingerprint: Mapping[str, Any], screen: Screen) -> list[str]:
    """Return the lines of any JSON object; the fields of one that `Fingerprint` made are shown by their values."""
    fields = dict(fingerprint_fields(fingerprint))
    if screen.verbosity:
        return labelled(list(fields.items()), screen)
    parts: dict[str, list[str]] = {}
    for name, value in fields.items():
        head, _, rest = name.partition(".")
        shown = value[:_DIGEST_LENGTH] if value.startswith(PREFIX) else value
        parts.setdefault(head, []).append(f"{rest} {shown}" if rest else shown)
    return labelled([(head, ", ".join(members)) for head, members in parts.items()], screen)


def fingerprint_fields(fingerprint: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each field with its value as text."""
    try:
        document = decode_document(fingerprint, where="fingerprint")
    except FormatError:
        yield from _flattened(fingerprint, "")
        return
    yield "digest", document.digest
    for name, field in document.fields.items():
        yield visible(name), visible(show_value(field)[:_MAX_VALUE])


def _flattened(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, member in value.items():
            yield from _flattened(member, f"{path}.{key}" if path else key)
    else:
        text = "none" if value is None else str(value)
        yield visible(path), visible(text[:_MAX_VALUE])
