"""A safetensors file from anywhere, described from its header alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt_inspect.sources.location import NotReadableHereError
from ckptfmt.adapters.safetensors_header import decode_foreign_header, foreign_header_size_bytes
from ckptfmt.format.layout import HEADER_LENGTH_BYTES
from ckptfmt.format.metadata import TensorRow

_OTHER_FORMATS = (
    (b"PK\x03\x04", "a zip archive, such as torch.save writes"),
    (b"\x80", "a pickle; reading one would run its code"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a numpy file"),
    (b"GGUF", "a GGUF file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"{", "a JSON document"),
)


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """A file's tensors in the order of their data; `offsets` are from the start of the file."""

    path: str
    size_bytes: int
    modified_at_seconds: float
    header_metadata: Mapping[str, str]
    tensors: Sequence[TensorRow]
    offsets: Sequence[int]
    remarks: Sequence[str]

    @property
    def tree(self) -> Any:
        """Return its tensors as a state in packed form: one flat mapping."""
        return {"$dict": [part for index, row in enumerate(self.tensors) for part in (row.name, {"$tensor": [index, "torch", {}]})]}


def read_safetensors(path: str) -> SafetensorsFile:
    """Read and check the header of a safetensors file.

    Raises:
        CorruptError: it is damaged, cut off or hostile.
        NotReadableHereError: it is a file of another kind.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise NotReadableHereError(f"{path}: not a regular file")
        start = file.read(16)
        _check_kind(path, start)
        length = foreign_header_size_bytes(start, file_size_bytes=status.st_size, where=path)
        file.seek(HEADER_LENGTH_BYTES)
        text = file.read(length)
    header = decode_foreign_header(text, file_size_bytes=status.st_size, where=path)
    return SafetensorsFile(path, status.st_size, status.st_mtime, header.metadata, header.tensors, header.offsets, header.remarks)


def _check_kind(path: str, start: bytes) -> None:
    if path.endswith(".safetensors") or start[8:9] == b"{":
        return
    found = next((name for magic, name in _OTHER_FORMATS if start.startswith(magic)), "a file of a kind that it does not know")
    if os.path.basename(path) == "manifest.json":
        found += "\nGive the directory that holds it"
    raise NotReadableHereError(f"{path}: expected a checkpoint, a run or a .safetensors file, found {found}.")
