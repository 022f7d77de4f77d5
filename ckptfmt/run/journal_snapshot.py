"""A new generation of a journal: one segment that holds everything, put in the place of all that came before. Spec 16.6.

Written under a temporary name, synced, renamed: whoever sees it sees it whole. What it replaces is removed by its caller, and only after
the directory was synced.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from ckptfmt._version import __version__
from ckptfmt.disk.protocol import Directory
from ckptfmt.format.journal_header import SNAPSHOT, SegmentHeader, encode_header
from ckptfmt.format.journal_record import (
    MARK_BYTES,
    MAX_SEGMENT_NUMBER,
    NO_LINK,
    RECORD_OVERHEAD_BYTES,
    Position,
    encode_record,
    segment_name,
    temporary_segment_name,
)
from ckptfmt.format.rules import violation

_PIECE_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that has its name: where its chain ends, and its size."""

    name: str
    position: Position
    size_bytes: int


def new_header(kind: str, number: int, base: Position, *, through: int, is_durable: bool, seen: Mapping[str, int]) -> SegmentHeader:
    """Return the header of a segment that is written now, under a name that nobody else takes."""
    if number > MAX_SEGMENT_NUMBER or through >= 2**63:
        raise violation("E050", f"segment {number}", "numbers are used up", expected=f"at most {MAX_SEGMENT_NUMBER}")
    return SegmentHeader(
        name=segment_name(number, secrets.token_bytes(MARK_BYTES)),
        kind=kind,
        base=base,
        through=through,
        is_durable=is_durable,
        seen=tuple(seen.items()),
        created_at_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        writer=f"ckptfmt {__version__}",
    )


def write_snapshot(directory: Directory, payloads: list[bytes], *, number: int, base_number: int, seen: Mapping[str, int]) -> Snapshot:
    """Write a snapshot and give it its name; the caller syncs the directory. A failure leaves everything as it was."""
    through = base_number + len(payloads)
    header = new_header(SNAPSHOT, number, Position(base_number, NO_LINK), through=through, is_durable=True, seen=seen)
    head, link = encode_header(header)
    temporary = temporary_segment_name(secrets.token_hex(16))
    size_bytes = len(head) + sum(map(len, payloads)) + len(payloads) * RECORD_OVERHEAD_BYTES
    try:
        position = _write_file(directory, temporary, size_bytes, head, payloads, header.mark, Position(base_number, link))
        _rename(directory, temporary, header.name)
    except BaseException:
        with suppress(OSError):
            directory.unlink(temporary)
        raise
    return Snapshot(header.name, position, size_bytes)


def _write_file(
    directory: Directory, name: str, size_bytes: int, head: bytes, payloads: Iterable[bytes], mark: bytes, position: Position
) -> Position:
    file = directory.create(name, size_bytes=size_bytes)
    try:
        piece = bytearray(head)
        for payload in payloads:
            record, position = encode_record(payload, mark=mark, after=position, acknowledged=position.number)
            piece += record
            if len(piece) >= _PIECE_BYTES:
                file.write(piece)
                piece = bytearray()
        if piece:
            file.write(piece)
        file.sync()
    finally:
        file.close()
    return position


def _rename(directory: Directory, temporary: str, name: str) -> None:
    try:
        directory.rename(temporary, name)
    except OSError:
        # A network file system may report the failure of a rename that took place.
        if name not in directory.names():
            raise
