"""`run.json`: what a run is, written when it begins and whenever its identity is changed on purpose.

    {"format": "ckptfmt-run", "version": [1, 0], "created_at_utc": ..., "fingerprint": {...} or null, "digest": ...}

Strict JSON with a digest of itself, under the rules of a manifest (spec 4).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptfmt.disk.protocol import Directory
from ckptfmt.format import canonical_json
from ckptfmt.format.digest import ZEROED, digest_of, format_digest, is_digest, short
from ckptfmt.format.layout import MAX_MANIFEST_BYTES, MAX_MANIFEST_DEPTH
from ckptfmt.format.rules import violation

RUN_FILE_NAME = "run.json"
_FORMAT = "ckptfmt-run"
_VERSION = [1, 0]


@dataclass(frozen=True, slots=True)
class RunFile:
    """The identity of a run."""

    created_at_utc: str
    fingerprint: Mapping[str, Any] | None


def find_run_file(directory: Directory, name: str = RUN_FILE_NAME) -> RunFile | None:
    """Read `run.json`, or a copy of it under another name; None where there is none.

    Raises:
        FormatError: it is damaged or of another version.
    """
    where = f"{directory.path}/{name}"
    try:
        file = directory.open(name)
    except FileNotFoundError:
        return None
    try:
        if file.size_bytes > MAX_MANIFEST_BYTES:
            raise violation("E002", where, expected=f"at most {MAX_MANIFEST_BYTES} bytes", found=file.size_bytes)
        data = file.read(0, file.size_bytes)
    finally:
        file.close()
    return _decode(data, where)


def _decode(data: bytes, where: str) -> RunFile:
    document = canonical_json.decode(data, where=where, rule="E003", max_depth=MAX_MANIFEST_DEPTH)
    if type(document) is not dict or document.get("format") != _FORMAT:
        raise violation("E005", where, "not the description of a run")
    digest, version = document.get("digest"), document.get("version")
    if not isinstance(digest, str) or not is_digest(digest):
        raise violation("E008", where, "member 'digest' is missing or wrong")
    actual = format_digest(digest_of(data.replace(digest.encode(), ZEROED.encode())))
    if actual != digest:
        raise violation("E004", where, expected=short(digest), found=short(actual))
    if type(version) is not list or len(version) != 2 or version[0] != _VERSION[0]:
        raise violation("E006", where, expected=_VERSION[0], found=str(version)[:40])
    created, fingerprint = document.get("created_at_utc"), document.get("fingerprint")
    if not isinstance(created, str) or not (fingerprint is None or isinstance(fingerprint, dict)):
        raise violation("E008", where, "member 'created_at_utc' or 'fingerprint' is missing or wrong")
    return RunFile(created, fingerprint)


def write_run_file(directory: Directory, run_file: RunFile) -> None:
    """Put `run.json` in place, durably and at once."""
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "digest": ZEROED,
        "created_at_utc": run_file.created_at_utc,
        "fingerprint": run_file.fingerprint,
    }
    data = canonical_json.encode(document)
    data = data.replace(ZEROED.encode(), format_digest(digest_of(data)).encode())
    replace_file(directory, RUN_FILE_NAME, data)


def replace_file(directory: Directory, name: str, data: bytes) -> None:
    """Replace one small file atomically and durably. Spec 5, steps 5 to 8 for a single file."""
    temporary = f".{name.replace('.', '-')}.{secrets.token_hex(16)}.tmp"
    file = directory.create(temporary, size_bytes=len(data))
    try:
        try:
            file.write(data)
            file.sync()
        finally:
            file.close()
        directory.rename(temporary, name)
    except BaseException:
        _discard(directory, temporary)
        raise
    directory.sync()


def _discard(directory: Directory, name: str) -> None:
    try:
        directory.unlink(name)
    except OSError:
        # The error that brought us here is the one to report.
        return
