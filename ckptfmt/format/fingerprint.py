"""The fingerprint of an experiment as a document: its fields, their digest, and what differs between two. Spec fingerprint-1.

A document is flat, from dotted field to one line of text, `<class> <type> <value>`. Every value has exactly one text, so that
equality of texts is equality of values and any program can compare. Which texts a Python value has is not known here,
and nothing is measured here: neither files nor versions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from ckptfmt.errors import UnsupportedVersionError
from ckptfmt.format.digest import Hasher, digest_of, format_digest, is_digest, short
from ckptfmt.format.rules import violation

VERSION: Final = (1, 0)
MAX_VALUE_BYTES: Final = 1024
MAX_SEGMENT_BYTES: Final = 256
MAX_DOCUMENT_BYTES: Final = 4 * 2**20
SALT_BYTES: Final = 32

MUST, WARN, FREE = CLASSES = ("must", "warn", "free")
SECRET: Final = "secret"
DIGEST_SUFFIX: Final = "-digest"
SURROUNDINGS: Final = ("code", "environment")
"""Sections that describe the machine and the program; where one side could not be asked, that is no difference of experiments."""

_IDENTITY_PREFIX = b"ckptfmt fingerprint 1\n"
_TYPE = re.compile(r"[a-z][a-z0-9-]{0,63}")
_KEYED = re.compile(r"[0-9a-f]{64}")
# Separators, the wildcards of globs, and what moves the cursor or the direction of writing on a terminal.
_ESCAPED = re.compile("[%.*?\\[\\]\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_ESCAPED_IN_NAME = re.compile(_ESCAPED.pattern.replace(".", "", 1))


@dataclass(frozen=True, slots=True)
class Field:
    """One field: how much it matters (`must`, `warn`, `free`), its type, and the text of its value."""

    match: str
    type: str
    value: str

    @property
    def text(self) -> str:
        """Type and value, which is what is compared."""
        return f"{self.type} {self.value}"


@dataclass(frozen=True, slots=True)
class FingerprintDocument:
    """A checked document. `salt` is the key of its secrets' digests, None where it has none."""

    fields: Mapping[str, Field]
    digest: str
    salt: bytes | None


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs. `expected` is stored, `found` is current; None where the field is not there.

    Numbers, booleans and texts are themselves; anything else is text to read. `severity`: "error", "warning", "allowed", "info".
    """

    field: str
    expected: Any
    found: Any
    severity: str


def escape_segment(text: str) -> str:
    """Return a mapping's key of type str as one segment of a field name: no dots, no wildcards, no control characters.

    Different keys give different segments. Raises UnicodeEncodeError for surrogates.
    """
    if text.isidentifier() and len(text) < MAX_SEGMENT_BYTES // 4:
        return text
    return _escape(text, _ESCAPED)


def typed_segment(key_type: str, text: str) -> str:
    """Return a mapping's key of another type as one segment; `text` is the text of its value."""
    return f"({key_type}){_escape(text, _ESCAPED)}"


def escape_name(text: str) -> str:
    """Return a name that is the rest of a field's name: dots stay, wildcards and control characters go."""
    return _escape(text, _ESCAPED_IN_NAME)


def _escape(text: str, pattern: re.Pattern[str]) -> str:
    escaped = pattern.sub(_percent, text)
    if escaped.startswith("("):
        escaped = "%28" + escaped[1:]
    data = escaped.encode("utf-8")
    return escaped if len(data) <= MAX_SEGMENT_BYTES else f"(long){digest_of(data).hex()}"


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8"))


def bounded_value(value_type: str, value: str) -> tuple[str, str]:
    """Return type and text as they are stored: a long text is replaced by its digest, and its type says so."""
    if len(value) <= MAX_VALUE_BYTES // 4:
        return value_type, value
    data = value.encode("utf-8")
    if len(data) <= MAX_VALUE_BYTES:
        return value_type, value
    return value_type + DIGEST_SUFFIX, format_digest(digest_of(data))


def secret_core(text: str) -> bytes:
    """Return what stands for a secret in memory, from its field's type and value: enough to compare it, not to read it."""
    return digest_of(text.encode("utf-8"))


def keyed_secret(core: bytes, salt: bytes) -> str:
    """Return what stands for a secret in a document."""
    return Hasher(core, key=salt).hexdigest()


def identity_digest(fields: Mapping[str, Field], cores: Mapping[str, bytes]) -> str:
    """Return the digest that identifies the experiment: of all `must` fields in the order of their names."""
    hasher = Hasher(_IDENTITY_PREFIX)
    for name in sorted(fields):
        field = fields[name]
        if field.match == MUST:
            text = f"{SECRET} {cores[name].hex()}" if field.type == SECRET else field.text
            for data in (name.encode("utf-8"), text.encode("utf-8")):
                hasher.update(len(data).to_bytes(8, "little") + data)
    return format_digest(hasher.digest())


def encode_document(document: FingerprintDocument) -> dict[str, Any]:
    """Return the document as plain JSON."""
    encoded: dict[str, Any] = {"version": list(VERSION), "digest": document.digest}
    if document.salt is not None:
        encoded["salt"] = document.salt.hex()
    encoded["fields"] = {name: f"{field.match} {field.text}" for name, field in document.fields.items()}
    return encoded


def decode_document(encoded: Mapping[str, Any], *, where: str) -> FingerprintDocument:
    """Check a document. Unknown members are ignored.

    Raises:
        UnsupportedVersionError: it was written by something newer.
        CorruptError: it is no fingerprint, or was changed.
    """
    version: Any = encoded.get("version")
    lines, digest, salt = encoded.get("fields"), encoded.get("digest"), encoded.get("salt")
    if not _is_pair(version):
        raise violation("E008", where, "not a fingerprint: member 'version' is missing or wrong", found=repr(version)[:80])
    if version[0] != VERSION[0]:
        message = f"{where}: version of the fingerprint is not supported: expected {VERSION[0]}, found {version[0]} [E006]"
        raise UnsupportedVersionError(
            message + "\nUpdate ckptfmt to read it.", rule="E006", path=where, expected=VERSION[0], found=version[0]
        )
    if not isinstance(digest, str) or not is_digest(digest):
        raise violation("E008", where, "fingerprint: member 'digest' is missing or wrong", found=repr(digest)[:80])
    if salt is not None and not (isinstance(salt, str) and _KEYED.fullmatch(salt)):
        raise violation("E008", where, "fingerprint: member 'salt' is wrong")
    if not isinstance(lines, Mapping):
        raise violation("E008", where, "fingerprint: member 'fields' is missing or wrong", found=repr(lines)[:80])
    fields = {name: _decode_field(name, line, where) for name, line in lines.items()}
    has_secrets = any(field.type == SECRET for field in fields.values())
    if has_secrets and salt is None:
        raise violation("E008", where, "fingerprint: member 'salt' is missing, but there are secrets")
    # Who does not know the secrets cannot compute the digest.
    if not has_secrets and (actual := identity_digest(fields, {})) != digest:
        raise violation("E008", where, "fingerprint: digest differs", expected=short(digest), found=short(actual))
    return FingerprintDocument(fields, digest, None if salt is None else bytes.fromhex(salt))


def _is_pair(version: object) -> bool:
    return isinstance(version, list | tuple) and len(version) == 2 and all(type(part) is int and part >= 0 for part in version)


def _decode_field(name: object, line: object, where: str) -> Field:
    parts = line.split(" ", 2) if isinstance(line, str) else []
    if isinstance(name, str) and len(parts) == 3 and parts[0] in CLASSES and _TYPE.fullmatch(parts[1]):
        field = Field(*parts)
        if _is_text(name + field.value) and (field.type != SECRET or _KEYED.fullmatch(field.value)):
            return field
    raise violation("E008", where, f"fingerprint: field {printable(str(name))[:80]!r} is wrong", found=repr(line)[:80])


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def compare_documents(
    stored: FingerprintDocument,
    current: FingerprintDocument,
    *,
    cores: Mapping[str, bytes],
    match_of: Callable[[str], str],
    allow: Iterable[str] = (),
) -> tuple[Difference, ...]:
    """Return every field that differs, errors first, then by name.

    `cores` are those of the current document's secrets, as far as they are known; `match_of` gives a field's class.
    """
    patterns = tuple(allow)
    differences = []
    for name in sorted(stored.fields.keys() | current.fields.keys()):
        expected, found = stored.fields.get(name), current.fields.get(name)
        if expected is not None and found is not None:
            if expected.type != SECRET and found.type != SECRET:
                is_same: bool | None = expected.text == found.text
            else:
                is_same = _is_same_secret(expected, found, stored.salt, current.salt, cores.get(name))
            if is_same:
                continue
        else:
            is_same = False
        severity = _severity(name, match_of(name), patterns, stored, current) if is_same is False else "info"
        differences.append(Difference(name, *_shown_pair(expected, found, is_known=is_same is not None), severity))
    return tuple(sorted(differences, key=lambda difference: difference.severity != "error"))


def _is_same_secret(
    expected: Field, found: Field, stored_salt: bytes | None, current_salt: bytes | None, found_core: bytes | None
) -> bool | None:
    """Tell whether two values are the same, at least one of them a secret; None where nobody knows."""
    expected_core = None if expected.type == SECRET else secret_core(expected.text)
    if found.type != SECRET:
        found_core = secret_core(found.text)
    if expected_core is not None and found_core is not None:
        return expected_core == found_core
    if found_core is not None and stored_salt is not None:
        return keyed_secret(found_core, stored_salt) == expected.value
    if expected_core is not None and current_salt is not None:
        return keyed_secret(expected_core, current_salt) == found.value
    return expected.value == found.value if stored_salt == current_salt else None


def _severity(name: str, match: str, allow: tuple[str, ...], stored: FingerprintDocument, current: FingerprintDocument) -> str:
    if match == FREE:
        return "info"
    if any(fnmatchcase(name, pattern) for pattern in allow):
        return "allowed"
    if match == MUST:
        return "error"
    section = name.partition(".")[0]
    if section in SURROUNDINGS and not (_has_section(stored, section) and _has_section(current, section)):
        return "info"
    return "warning"


def _has_section(document: FingerprintDocument, section: str) -> bool:
    return any(name.partition(".")[0] == section for name in document.fields)


def _shown_pair(expected: Field | None, found: Field | None, *, is_known: bool) -> tuple[Any, Any]:
    before = None if expected is None else _plain_value(expected)
    after = None if found is None else _plain_value(found)
    if expected is None or found is None:
        return before, after
    if SECRET in (expected.type, found.type):
        # One of them may be plain, written by a program that did not take it for a secret.
        return "<secret>", "<secret changed>" if is_known else "<secret not comparable>"
    if show_value(expected) == show_value(found) and type(before) is type(after):
        return f"{expected.type} {before}", f"{found.type} {after}"
    return before, after


def _plain_value(field: Field) -> Any:
    """Return a field's value as Python has it where it is a number, a boolean or a text, and as text to read otherwise."""
    if field.type == "bool":
        return field.value == "true"
    if field.type == "str":
        return field.value
    try:
        return {"int": int, "float": float}[field.type](field.value)
    except (KeyError, ValueError):
        return show_value(field)


def show_value(field: Field) -> str:
    """Return a field's value as people write it; long digests and texts are whole, control characters are escaped."""
    return _show(field.type, field.value)


def _show(value_type: str, value: str) -> str:
    if value_type == SECRET:
        return "<secret>"
    if value_type == "str":
        return f"'{printable(value)}'"
    if value_type in ("bool", "none"):
        return printable(value).capitalize()
    if value_type in _BRACKETS:
        return _show_container(value_type, value)
    if value_type.endswith(DIGEST_SUFFIX):
        return f"{value_type.removesuffix(DIGEST_SUFFIX)} {printable(value)}"
    return printable(value)


_BRACKETS = {"list": "[]", "tuple": "()", "set": "{}", "frozenset": "{}", "mapping": "{}"}


def _brackets(kind: str) -> tuple[str, str]:
    pair = _BRACKETS.get(kind, "[]")
    return pair[0], pair[1]


def _show_container(value_type: str, value: str) -> str:
    opening, closing = _brackets(value_type)
    if value.isdecimal():
        return f"{opening}{value} items{closing}"
    try:
        return opening + _show_members(json.loads(value)) + closing
    except (ValueError, RecursionError):
        return printable(value)


def _show_members(members: Any) -> str:
    if isinstance(members, dict):
        return ", ".join(f"{printable(key)}: {_show_member(member)}" for key, member in members.items())
    return ", ".join(map(_show_member, members)) if isinstance(members, list) else printable(str(members))


def _show_member(member: Any) -> str:
    if isinstance(member, str):
        value_type, _, value = member.partition(" ")
        return _show(value_type, value)
    kind, content = next(iter(member.items()), ("mapping", {})) if isinstance(member, dict) else ("list", member)
    opening, closing = _brackets(kind)
    return opening + _show_members(content) + closing


def printable(text: str) -> str:
    """Return the text with everything escaped that a terminal would not show as a character."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
