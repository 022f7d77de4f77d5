"""The header of a safetensors file that another writer made. Nothing in it is trusted.

Other writers neither align their data nor order their tensors as ckptfmt does, so this check is more tolerant than the format's: what
could mislead or overrun is an error, what other readers may stumble over is a remark.

Layout: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptfmt.errors import CorruptError
from ckptfmt.format.dtypes import NATIVE
from ckptfmt.format.layout import HEADER_LENGTH_BYTES, HEADER_METADATA_KEY
from ckptfmt.format.metadata import Chunk, TensorRow
from ckptfmt.format.rules import shown, visible

# What the safetensors library itself accepts.
MAX_HEADER_BYTES = 100_000_000
_MAX_DIMENSION = 2**63
_MAX_RANK = 64

_DTYPES = {stored: name for name, (stored, _) in NATIVE.items()} | {"F8_E8M0": "float8_e8m0fnu", "C128": "complex128"}
_BITS = {stored: size * 8 for stored, size in NATIVE.values()} | {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "C128": 128}


@dataclass(frozen=True, slots=True)
class ForeignHeader:
    """A file's tensors in the order of their data; `offsets` are from the start of the file."""

    tensors: Sequence[TensorRow]
    offsets: Sequence[int]
    metadata: Mapping[str, str]
    remarks: Sequence[str]


def foreign_header_size_bytes(start: bytes, *, file_size_bytes: int, where: str) -> int:
    """Return the size of the JSON after the first 8 bytes, checked before it is read."""
    if len(start) < HEADER_LENGTH_BYTES:
        raise _damaged(where, f"the file ends after {len(start)} bytes, inside its header's length")
    length = int.from_bytes(start[:HEADER_LENGTH_BYTES], "little")
    if length > min(MAX_HEADER_BYTES, file_size_bytes - HEADER_LENGTH_BYTES):
        raise _damaged(where, f"header of {length:,} bytes declared, in a file of {file_size_bytes:,} bytes")
    return length


def decode_foreign_header(header: bytes, *, file_size_bytes: int, where: str) -> ForeignHeader:
    """Decode and check the JSON of a header.

    Raises:
        CorruptError: it is damaged, cut off or hostile.
    """
    data_bytes = file_size_bytes - HEADER_LENGTH_BYTES - len(header)
    rows, offsets, metadata = _Header(where, data_bytes).decode(header)
    base = HEADER_LENGTH_BYTES + len(header)
    return ForeignHeader(rows, [base + offset for offset in offsets], metadata, _remarks(rows, offsets, data_bytes))


def _damaged(path: str, what: str) -> CorruptError:
    return CorruptError(f"{path}: not a sound safetensors file: {what}\nThe file is damaged or was not downloaded whole.", path=path)


class _Header:
    """Decodes one header, refusing what could mislead."""

    def __init__(self, path: str, data_bytes: int) -> None:
        self.path = path
        self.data_bytes = data_bytes

    def decode(self, header: bytes) -> tuple[list[TensorRow], list[int], dict[str, str]]:
        try:
            members = json.loads(header.decode("utf-8"), object_pairs_hook=self._unique, parse_constant=self._constant)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else visible(str(error)[:120])
            raise _damaged(self.path, f"its header is not JSON: {reason}") from None
        if type(members) is not dict:
            raise _damaged(self.path, "its header is not a JSON object")
        metadata = members.pop(HEADER_METADATA_KEY, {})
        if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
            raise _damaged(self.path, f"{HEADER_METADATA_KEY} is not an object of strings")
        located = sorted((self._located(name, entry) for name, entry in members.items()), key=lambda item: item[:2])
        rows = [
            TensorRow(name, dtype, shape, end - begin, (Chunk(0, slot, (0,) * len(shape), shape),))
            for slot, (begin, end, name, dtype, shape) in enumerate(located)
        ]
        return rows, [begin for begin, *_ in located], metadata

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ValueError("a key stands twice in one object")
        return members

    def _constant(self, text: str) -> Any:
        raise ValueError(f"{text} is not a number of JSON")

    def _located(self, name: str, entry: Any) -> tuple[int, int, str, str, tuple[int, ...]]:
        label = repr(shown(name, 60))
        if type(entry) is not dict or not {"dtype", "shape", "data_offsets"} <= entry.keys():
            raise _damaged(self.path, f"entry {label} is not dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if type(dtype) is not str or not 0 < len(dtype) <= 40:
            raise _damaged(self.path, f"entry {label} has no dtype")
        if type(shape) is not list or len(shape) > _MAX_RANK or not all(type(size) is int and 0 <= size < _MAX_DIMENSION for size in shape):
            raise _damaged(self.path, f"entry {label} has a shape that no tensor has")
        if type(offsets) is not list or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
            raise _damaged(self.path, f"entry {label} has no two data_offsets")
        begin, end = offsets
        if not 0 <= begin <= end <= self.data_bytes:
            found = f"bytes {begin:,} to {end:,} of {self.data_bytes:,}"
            raise _damaged(self.path, f"tensor {label} lies outside the file's data: {found}")
        bits = _BITS.get(dtype)
        if bits is not None and math.prod(shape) * bits != (end - begin) * 8:
            expected = f"{math.prod(shape) * bits // 8:,} bytes"
            raise _damaged(self.path, f"size of {label}: expected {expected} for {dtype} {shape}, found {end - begin:,} bytes")
        return begin, end, name, _DTYPES.get(dtype, dtype), tuple(shape)


def _remarks(rows: Sequence[TensorRow], offsets: Sequence[int], data_bytes: int) -> list[str]:
    """Return what the safetensors library would refuse to open the file for."""
    remarks = []
    position = holes = overlaps = 0
    for row, begin in zip(rows, offsets, strict=True):
        holes += begin > position
        overlaps += begin < position and row.size_bytes > 0
        position = max(position, begin + row.size_bytes)
    if overlaps:
        remarks.append(f"tensors overlap in {overlaps:,} places")
    if holes:
        remarks.append(f"unused bytes between tensors in {holes:,} places")
    if position < data_bytes:
        remarks.append(f"{data_bytes - position:,} unused bytes at the end")
    return remarks
