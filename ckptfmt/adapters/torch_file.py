"""Files of `torch.save`, read without running them: zip archives of today, and what torch wrote before 1.6.

The pickle inside is followed by `pickle_reader`, tensors are views of the mapped file, so a file of any size costs no memory before it
is used. Lightning's `.ckpt` is such a file. TorchScript programs are refused: they are code.

Layout: https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import Any

from ckptfmt.adapters.numpy_pickles import NUMPY_FINISHERS, NUMPY_NAMES
from ckptfmt.adapters.pickle_reader import read_pickle
from ckptfmt.adapters.pickle_values import PLAIN_FINISHERS, PLAIN_NAMES, finish_values
from ckptfmt.adapters.torch_names import Storage, StorageType, element_type, storage_of, torch_names
from ckptfmt.disk.foreign_file import map_file, open_memory
from ckptfmt.errors import CorruptError, UnsupportedTypeError

_ZIP_START = b"PK\x03\x04"
_LOCAL_HEADER_BYTES = 30
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_COUNT_BYTES = 8
_FINISHERS = {**PLAIN_FINISHERS, **NUMPY_FINISHERS}

PathLike = str | os.PathLike[str]


def load_torch_file(path: PathLike, *, objects_as_data: bool = False) -> Any:
    """Return what `torch.save` was given, as plain data and tensors on the CPU; nothing of the file is run or imported.

    Objects of other classes are refused, all of their names at once. With `objects_as_data` they become mappings with their data, and
    modules of torch their state_dict, so that weights can be had from a pickled model whose code is gone. Tensors are writable, and
    live on private memory of the file.

    Raises:
        UnsupportedTypeError: it holds objects that are no plain data, or a program.
        CorruptError: it is damaged, or no file of torch.
        CheckpointNotFoundError: there is no such file.
    """
    where = os.fspath(path)
    memory = map_file(where)
    if bytes(memory[:4]) == _ZIP_START:
        value = _Archive(where, memory).read(allow_unknown=objects_as_data)
    else:
        value = _read_legacy(where, memory, allow_unknown=objects_as_data)
    return finish_values(value, _FINISHERS, where=where)


def load_torch_memory(memory: memoryview, *, where: str) -> Any:
    """Return what `torch.save` was given, from the bytes of a file that begins in the middle of another one."""
    if bytes(memory[:4]) != _ZIP_START:
        raise CorruptError(f"{where}: not a file of torch.save\nThe file is damaged.", path=where)
    return finish_values(_Archive(where, memory).read(allow_unknown=False), _FINISHERS, where=where)


def is_torch_file(start: bytes) -> bool:
    """Tell whether a file may be one of `torch.save`, from its first bytes."""
    return start.startswith((_ZIP_START, b"\x80\x02\x8a\x0a\x6c\xfc"))


def _names() -> Mapping[str, Any]:
    return {**PLAIN_NAMES, **NUMPY_NAMES, **torch_names()}


class _Archive:
    """A zip archive with data.pkl, and one uncompressed entry for each storage."""

    def __init__(self, where: str, memory: memoryview) -> None:
        self._where = where
        self._memory = memory
        self._storages: dict[str, Storage] = {}
        try:
            with zipfile.ZipFile(open_memory(memory)) as archive:
                self._entries = {entry.filename: entry for entry in archive.infolist()}
                self._prefix = self._find_prefix()
                order = self._prefix + "byteorder"
                if order in self._entries and archive.read(order) != b"little":
                    raise UnsupportedTypeError(f"{where}: was written on a machine with another byte order", path=where)
                self._pickle = archive.read(self._prefix + "data.pkl")
        except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
            raise self._damaged(f"not a sound zip archive: {error}") from error

    def _damaged(self, what: str) -> CorruptError:
        return CorruptError(f"{self._where}: {what[:200]}\nThe file is damaged or was not downloaded whole.", path=self._where)

    def _find_prefix(self) -> str:
        found = [name for name in self._entries if name.endswith("data.pkl") and name.count("/") <= 1]
        if not found:
            raise self._damaged("a zip archive without data.pkl: not a file of torch.save")
        prefix = found[0].removesuffix("data.pkl")
        if prefix + "constants.pkl" in self._entries:
            raise UnsupportedTypeError(
                f"{self._where}: holds a TorchScript program, which is code\nSave its state_dict() with torch where you trust it.",
                path=self._where,
            )
        return prefix

    def read(self, *, allow_unknown: bool) -> Any:
        return read_pickle(
            open_memory(memoryview(self._pickle)),
            _names(),
            where=self._where,
            persistent=self._storage,
            allow_unknown=allow_unknown,
        )

    def _storage(self, reference: Any) -> Storage:
        kind, storage_type, key, _, count = reference
        if kind != "storage" or type(storage_type) is not StorageType or not isinstance(key, str):
            raise ValueError(f"a reference to a {kind}")
        dtype = element_type(storage_type.dtype)
        if key not in self._storages:
            found = self._bytes_of(self._prefix + "data/" + key)
            if len(found) < count * dtype.itemsize:
                raise ValueError(f"storage {key} has {len(found):,} bytes, expected {count * dtype.itemsize:,}")
            self._storages[key] = storage_of(found, dtype)
        return Storage(self._storages[key].flat, dtype)

    def _bytes_of(self, name: str) -> memoryview:
        entry = self._entries.get(name)
        if entry is None:
            raise ValueError(f"entry {name} is missing")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"entry {name} is compressed")
        start = entry.header_offset + _LOCAL_HEADER_BYTES
        name_bytes, extra_bytes = (int.from_bytes(self._memory[start - at : start - at + 2], "little") for at in (4, 2))
        start += name_bytes + extra_bytes
        found = self._memory[start : start + entry.file_size]
        if len(found) != entry.file_size:
            raise ValueError(f"entry {name} is cut off")
        return found


def _read_legacy(where: str, memory: memoryview, *, allow_unknown: bool) -> Any:
    """Read the older layout: pickles of a magic number, a version, the machine, the state and the storages' keys, then the storages.

    The state comes before the bytes that it refers to, so it is followed twice: first to learn the type of each storage.
    """
    file = open_memory(memory)
    magic = read_pickle(file, {}, where=where)
    if magic != _LEGACY_MAGIC or read_pickle(file, {}, where=where) != _LEGACY_PROTOCOL:
        raise CorruptError(f"{where}: not a file of torch.save\nA pickle is read only where torch wrote it.", path=where)
    machine = read_pickle(file, {}, where=where)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise UnsupportedTypeError(f"{where}: was written on a machine with another byte order", path=where)
    start = file.tell()
    kinds: dict[str, Any] = {}
    counts: dict[str, int] = {}

    def learn(reference: Any) -> Storage:
        dtype, key, count = _legacy_reference(reference)
        kinds[key], counts[key] = dtype, count
        return Storage(None, dtype)

    read_pickle(file, _names(), where=where, persistent=learn, allow_unknown=allow_unknown)
    keys = read_pickle(file, {}, where=where)
    storages = {}
    position = file.tell()
    for key in keys if isinstance(keys, list) else ():
        if key not in kinds:
            raise CorruptError(f"{where}: storage {key!r} belongs to nothing\nThe file is damaged.", path=where)
        size_bytes = int.from_bytes(memory[position : position + _COUNT_BYTES], "little") * kinds[key].itemsize
        position += _COUNT_BYTES
        if position + size_bytes > len(memory) or size_bytes < counts[key] * kinds[key].itemsize:
            raise CorruptError(f"{where}: the file ends inside storage {key}\nIt is damaged or was not downloaded whole.", path=where)
        storages[key] = storage_of(memory[position : position + size_bytes], kinds[key])
        position += size_bytes

    def resolve(reference: Any) -> Storage:
        dtype, key, _ = _legacy_reference(reference)
        return Storage(storages[key].flat, dtype)

    file.seek(start)
    return read_pickle(file, _names(), where=where, persistent=resolve, allow_unknown=allow_unknown)


def _legacy_reference(reference: Any) -> tuple[Any, str, int]:
    kind, storage_type, key, _, count, view = reference
    if kind != "storage" or type(storage_type) is not StorageType or not isinstance(key, str) or type(count) is not int or view is not None:
        raise ValueError(f"a reference to a {kind}")
    return element_type(storage_type.dtype), key, count
