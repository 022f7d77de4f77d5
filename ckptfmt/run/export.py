"""Taking results out of a run in formats that everything reads: JSON, CSV, npy, safetensors.

    history.json  history.csv             metrics by step
    step-00001200/values.json             plain values, by path
    step-00001200/<section>.safetensors   the tensors of a section, whole, under their plain names
    step-00001200/arrays/<path>.npy       arrays of numpy

Each file appears whole or not at all. What is there with the same bytes is left; anything else is not overwritten unasked, so an
interrupted export is finished by calling it again.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.disk.paths import join, make_directories
from ckptfmt.disk.protocol import Directory, Disk
from ckptfmt.errors import CheckpointExistsError
from ckptfmt.format.dtypes import stored_form
from ckptfmt.format.layout import section_stem, temporary_name
from ckptfmt.format.shard_header import StoredEntry, encode_header
from ckptfmt.format.tree_walk import iter_leaves, tag_of, tensor_ids
from ckptfmt.run.steps import StepEntry

_COMPARE_BYTES = 8 * 2**20
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9._-]")
_MAX_NAME = 120


def export_run(
    disk: Disk, target: str, history: Sequence[Mapping[str, Any]], entries: Iterable[StepEntry], *, overwrite: bool
) -> list[str]:
    """Write history and the given checkpoints below `target`; return the paths written or found equal."""
    exporter = _Exporter(disk, overwrite=overwrite)
    with exporter.directory(target) as place:
        place.write("history.json", [_json([_finite_row(row) for row in history])])
        place.write("history.csv", [_csv(history)])
    for entry in entries:
        with OpenCheckpoint(disk, entry.path) as checkpoint:
            _export_checkpoint(exporter, join(target, f"step-{entry.step:08d}"), checkpoint)
    return exporter.written


def _export_checkpoint(exporter: _Exporter, path: str, checkpoint: OpenCheckpoint) -> None:
    values: dict[str, Any] = {}
    arrays: list[tuple[str, int]] = []
    sections: dict[str, list[tuple[str, int]]] = {}
    for keys, node in iter_leaves(checkpoint.metadata.tree, where=checkpoint.path):
        name = ".".join(keys)
        payload = node.get("$tensor") if tag_of(node) == "$tensor" else None
        if payload is None or "view" in payload[2]:
            values[name] = f"<{tag_of(node)}>" if tensor_ids(node) else _plain(node)
        elif payload[1] == "numpy":
            arrays.append((name, payload[0]))
        else:
            section = keys[0] if len(keys) > 1 else ""
            sections.setdefault(section, []).append((".".join(keys[1:]) if section else name, payload[0]))
    with exporter.directory(path) as place:
        place.write("values.json", [_json(values)])
        taken: set[str] = set()
        for section, tensors in sections.items():
            place.write(_free_name(section_stem(section), taken) + ".safetensors", _safetensors(checkpoint, tensors))
    if arrays:
        from ckptfmt.state.npy import npy_header

        with exporter.directory(join(path, "arrays")) as place:
            taken = set()
            for name, row in arrays:
                memory = checkpoint.store.memory(row)
                place.write(_free_name(_file_name(name), taken) + ".npy", [npy_header(memory.dtype, memory.shape), memory.data])


def _safetensors(checkpoint: OpenCheckpoint, tensors: Sequence[tuple[str, int]]) -> Iterator[bytes | memoryview]:
    rows = [checkpoint.metadata.tensors[row] for _, row in tensors]
    entries = [
        StoredEntry(name, *stored_form(row.dtype, row.shape, row.size_bytes), row.size_bytes)
        for (name, _), row in zip(tensors, rows, strict=True)
    ]
    yield encode_header(entries)
    for _, row in tensors:
        yield checkpoint.store.memory(row).data


def _plain(node: Any) -> Any:
    """Return a packed leaf as JSON can hold it; what JSON lacks is text."""
    if isinstance(node, float) and not math.isfinite(node):
        return repr(node)
    if isinstance(node, bytes):
        return node.hex()
    tag = tag_of(node)
    return f"{tag[1:]}: {node[tag]!r}"[:1000] if tag else node


def _finite_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: repr(value) if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")


def _csv(history: Sequence[Mapping[str, Any]]) -> bytes:
    columns = ["step", "created_at_utc", *sorted({name for row in history for name in row} - {"step", "created_at_utc"})]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode("utf-8")


def _file_name(name: str) -> str:
    return _NOT_IN_NAME.sub("_", name)[:_MAX_NAME].lstrip(".") or "array"


def _free_name(name: str, taken: set[str]) -> str:
    """Return a name that no other has, also where case does not count; the order of the state makes it the same each time."""
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    found = next(candidate for candidate in candidates if candidate.lower() not in taken)
    taken.add(found.lower())
    return found


class _Exporter:
    """Writes files once, and remembers which."""

    def __init__(self, disk: Disk, *, overwrite: bool) -> None:
        self._disk = disk
        self.overwrite = overwrite
        self.written: list[str] = []

    def directory(self, path: str) -> _Place:
        make_directories(self._disk, path)
        return _Place(self, self._disk.open_directory(path))


class _Place:
    """One directory of an export."""

    def __init__(self, exporter: _Exporter, directory: Directory) -> None:
        self._exporter = exporter
        self._directory = directory

    def __enter__(self) -> _Place:
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.sync()
        self._directory.close()

    def write(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        temporary = temporary_name("export", secrets.token_hex(16))
        try:
            file = self._directory.create(temporary, size_bytes=0)
            try:
                for piece in pieces:
                    file.write(piece)
                file.sync()
            finally:
                file.close()
            self._publish(temporary, name)
        except BaseException:
            self._discard(temporary)
            raise

    def _publish(self, temporary: str, name: str) -> None:
        path = join(self._directory.path, name)
        if name in self._directory.names() and not self._exporter.overwrite:
            if not self._is_equal(temporary, name):
                raise CheckpointExistsError(
                    f"{path}: exists with other content\nExport to another directory, or pass overwrite=True.", path=path
                )
            self._discard(temporary)
        else:
            self._directory.rename(temporary, name)
        self._exporter.written.append(path)

    def _is_equal(self, one: str, other: str) -> bool:
        first, second = self._directory.open(one), self._directory.open(other)
        try:
            offsets = range(0, max(first.size_bytes, 1), _COMPARE_BYTES)
            return first.size_bytes == second.size_bytes and all(
                first.read(offset, _COMPARE_BYTES) == second.read(offset, _COMPARE_BYTES) for offset in offsets
            )
        finally:
            first.close()
            second.close()

    def _discard(self, name: str) -> None:
        try:
            self._directory.unlink(name)
        except OSError:
            return
