"""The rule codes, and how a broken rule becomes an error.

Every MUST of the specification has one code; `violation` is the only place that words
*where: what: expected, found [rule]*. Texts for people: spec/validation-codes.md. What comes from a file may be anything,
so messages show it cut to a length, and with escapes for whatever a terminal could act on. Spec 14.
"""

from __future__ import annotations

from reprlib import Repr
from typing import Any

from ckptfmt.errors import CorruptError, FormatError, LimitError, UnsupportedVersionError

TITLES = {
    "E001": "no manifest",
    "E002": "manifest is too large",
    "E003": "manifest is not strict JSON",
    "E004": "manifest digest differs",
    "E005": "not a ckptfmt manifest",
    "E006": "major version is not supported",
    "E007": "a required feature is not supported",
    "E008": "manifest member is missing or wrong",
    "E009": "file name is not allowed",
    "E010": "file is named twice",
    "E011": "totals differ from the tensor index",
    "E012": "file is missing",
    "E013": "not a regular file",
    "E014": "file size differs",
    "E020": "metadata digest differs",
    "E021": "metadata is not one zstd frame with size and checksum",
    "E022": "zstd window is too large",
    "E023": "metadata size differs from what is declared",
    "E024": "metadata is not in packed form",
    "E025": "metadata member is missing or wrong",
    "E026": "nested too deeply",
    "E027": "unknown tag or wrong payload",
    "E028": "reference to a tensor is wrong",
    "E030": "shard header is malformed",
    "E031": "digest differs",
    "E032": "shard header and tensor index disagree",
    "E033": "holes, overlaps or trailing bytes in a shard",
    "E034": "shard data is not aligned",
    "E035": "tensor name is not allowed",
    "E036": "shape is not allowed",
    "E040": "tensor digest differs",
    "E041": "chunks do not tile the tensor",
    "E042": "unknown element type",
    "E043": "stored size differs from shape and element type",
    "E044": "tensor is named twice",
    "E045": "encoded tensor does not decode to what is declared",
    "E046": "codec is used without being required",
    "E047": "stream of planes is malformed",
    "E048": "source of a slot without bytes is wrong",
    "E050": "journal segment header is malformed",
    "E051": "segment name and header disagree",
    "E052": "journal version is not supported",
    "E053": "record is too large",
    "E054": "acknowledged records are missing",
    "E055": "chain of records is broken",
    "E056": "two writers at the same time",
    "E057": "record of a progress is malformed",
    "E058": "record of a study is malformed",
    "E059": "record does not fit the studies of before",
    "W001": "file is not named by the manifest",
    "W002": "temporary file of an interrupted save",
    "W003": "written by a newer minor version",
    "W004": "unknown member is ignored",
    "W010": "torn tail is not part of the journal",
    "W011": "segment is replaced by a later one",
    "W012": "file is not part of the journal",
}

_CLASSES: dict[str, type[FormatError]] = {
    "E002": LimitError,
    "E006": UnsupportedVersionError,
    "E007": UnsupportedVersionError,
    "E022": LimitError,
    "E026": LimitError,
    "E036": LimitError,
    "E052": UnsupportedVersionError,
    "E053": LimitError,
}

MAX_SHOWN = 120

_NESTED = Repr()


def visible(text: str) -> str:
    """Return the text with an escape for each character that is not printable."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return {"\n": "\\n", "\t": "\\t"}.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shown(value: Any, limit: int = MAX_SHOWN) -> str:
    """Return any decoded value as text for a message: of bounded length, at bounded depth, printable."""
    text = value if isinstance(value, str) else _NESTED.repr(value)
    return visible(text if len(text) <= limit else text[: limit - 3] + "...")


def violation(
    rule: str,
    where: str,
    what: str | None = None,
    *,
    expected: Any = None,
    found: Any = None,
    tensor: str | None = None,
    advice: str = "",
) -> FormatError:
    """Return the error for a broken rule, ready to be raised.

    `where` names the file, `what` the fact (default: the rule's title); `expected` and `found` are shown as text.
    """
    message = f"{visible(where)}: {shown(what or TITLES[rule], 2 * MAX_SHOWN)}"
    if expected is not None and found is not None:
        message += f": expected {shown(expected)}, found {shown(found)}"
    elif found is not None:
        message += f": found {shown(found)}"
    elif expected is not None:
        message += f": expected {shown(expected)}"
    message += f" [{rule}]"
    if advice:
        message += "\n" + advice
    return _CLASSES.get(rule, CorruptError)(message, rule=rule, path=where, tensor=tensor, expected=expected, found=found)


def located(error: FormatError, where: str) -> FormatError:
    """Return the error of something inside a larger thing with the place of that thing before it."""
    message = f"{visible(where)}: {error}"
    return type(error)(message, rule=error.rule, path=where, tensor=error.tensor, expected=error.expected, found=error.found)
