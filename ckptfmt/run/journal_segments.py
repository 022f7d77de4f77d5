"""The segment files of a journal: which there are, and what their headers say. Spec 16.1, 16.2."""

from __future__ import annotations

from dataclasses import dataclass

from ckptfmt.disk.protocol import Directory, Disk, NotARegularFileError, ReadableFile
from ckptfmt.errors import CheckpointNotFoundError, FormatError
from ckptfmt.format.journal_header import FIXED_BYTES, StoredHeader, decode_header, header_size
from ckptfmt.format.journal_record import parse_segment_name
from ckptfmt.format.rules import violation

_FIRST_READ_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment file as it was found. `stored` is None where its header is not sound, `error` says which rule it breaks."""

    name: str
    path: str
    number: int
    mark: bytes
    size_bytes: int
    stored: StoredHeader | None
    error: FormatError | None


def open_journal_directory(disk: Disk, path: str) -> Directory:
    """Open the directory of a journal that must exist."""
    try:
        return disk.open_directory(path)
    except FileNotFoundError:
        raise CheckpointNotFoundError(f"{path}: no such journal\nThere is nothing under this path.", path=path) from None
    except NotADirectoryError:
        raise CheckpointNotFoundError(f"{path}: not a journal: expected a directory, found a file", path=path) from None


def segment_names(directory: Directory) -> list[str]:
    """Return the names of all segments."""
    return [name for name in directory.names() if parse_segment_name(name)]


def find_segment(directory: Directory, name: str) -> Segment:
    """Look at one segment and its header."""
    path = f"{directory.path}/{name}"
    number, mark = parse_segment_name(name) or (0, b"")
    try:
        file = directory.open(name)
    except NotARegularFileError:
        return Segment(name, path, number, mark, 0, None, violation("E013", path))
    try:
        stored = _read_header(file, name, path)
        return Segment(name, path, number, mark, file.size_bytes, stored, None)
    except FormatError as error:
        return Segment(name, path, number, mark, file.size_bytes, None, error)
    finally:
        file.close()


def find_segments(directory: Directory, names: list[str]) -> list[Segment]:
    """Look at the segments of these names, in the order of the chain: by number, then by mark."""
    return sorted((find_segment(directory, name) for name in names), key=lambda segment: (segment.number, segment.mark))


def _read_header(file: ReadableFile, name: str, path: str) -> StoredHeader | None:
    data = file.read(0, _FIRST_READ_BYTES)
    size_bytes = header_size(data[:FIXED_BYTES])
    if _FIRST_READ_BYTES < size_bytes <= file.size_bytes:
        data = file.read(0, size_bytes)
    return decode_header(data, name=name, where=path)
