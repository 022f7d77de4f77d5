"""A directory that torch.distributed.checkpoint (DCP) wrote, read without running anything of it.

Its `.metadata` is a pickle of DCP's own classes. It is followed as data; the few names that it may hold are listed here, and what they
would be is compared before it is believed. The data files hold a file of `torch.save` for each chunk and each value. They are mapped, so
what is not asked for costs no memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from ckptfmt.adapters.pickle_reader import Builder, Instance, read_pickle
from ckptfmt.adapters.pickle_values import PLAIN_NAMES
from ckptfmt.adapters.torch_distributed_tree import Path
from ckptfmt.adapters.torch_file import load_torch_memory
from ckptfmt.adapters.torch_names import torch_names
from ckptfmt.disk.foreign_file import map_file, open_memory
from ckptfmt.disk.paths import join
from ckptfmt.errors import CheckpointNotFoundError, CorruptError, UnsupportedTypeError

METADATA_NAME = ".metadata"
_MODULE = "torch.distributed.checkpoint.metadata"
_CLASSES = (
    *(f"{_MODULE}.{name}" for name in ("Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata")),
    *(f"{_MODULE}.{name}" for name in ("TensorProperties", "_MEM_FORMAT_ENCODING", "MetadataIndex", "StorageMeta")),
    *(f"torch.distributed.checkpoint.filesystem.{name}" for name in ("_StorageInfo", "_StoragePrefix")),
)

PathLike = str | os.PathLike[str]
Offset = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ForeignTensor:
    """A tensor of the directory: its dtype, its shape, and offset and shape of each chunk."""

    dtype: Any
    shape: tuple[int, ...]
    chunks: tuple[tuple[Offset, tuple[int, ...]], ...]


class ForeignDirectory:
    """What a directory holds: tensors and other values by DCP's names, and DCP's path of each.

    Raises:
        CheckpointNotFoundError: there is no `.metadata`.
        UnsupportedTypeError: it names anything but what DCP writes.
        CorruptError: it is not what DCP writes.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = os.fspath(path)
        self._where = join(self.path, METADATA_NAME)
        self._files: dict[str, memoryview] = {}
        try:
            memory = map_file(self._where)
        except CheckpointNotFoundError:
            raise CheckpointNotFoundError(f"{self.path}: no checkpoint of DCP: it has no {METADATA_NAME}", path=self.path) from None
        described = _fields(read_pickle(open_memory(memory), _names(), where=self._where), "Metadata")
        try:
            self._read(described)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise self._damaged(str(error)) from error

    def _read(self, described: Mapping[str, Any]) -> None:
        self.tensors: dict[str, ForeignTensor] = {}
        self.values: list[str] = []
        for name, found in _mapping(described["state_dict_metadata"]).items():
            if _class_of(found) == "BytesStorageMetadata":
                self.values.append(_text(name))
            else:
                self.tensors[_text(name)] = _tensor(_fields(found, "TensorStorageMetadata"))
        self._places: dict[tuple[str, Offset | None], tuple[str, int, int]] = {}
        for index, place in _mapping(described["storage_data"]).items():
            at, info = _fields(index, "MetadataIndex"), _fields(place, "_StorageInfo")
            if info.get("transform_descriptors"):
                raise UnsupportedTypeError(f"{self.path}: its data is transformed by extensions of DCP\nLoad and save it with DCP first.")
            offset = at.get("offset")
            found = (_text(info["relative_path"]), _count(info["offset"]), _count(info["length"]))
            self._places[_text(at["fqn"]), None if offset is None else _sizes(offset)] = found
        paths = described.get("planner_data") or {}
        self.paths: dict[str, Path] = {_text(name): _path(path) for name, path in _mapping(paths).items()}

    def tensor(self, name: str, offset: Offset) -> Any:
        """Return a chunk of a tensor, on private memory of the file."""
        import torch

        found = self._load(name, offset)
        expected = next(shape for at, shape in self.tensors[name].chunks if at == offset)
        if not isinstance(found, torch.Tensor) or (tuple(found.shape), found.dtype) != (expected, self.tensors[name].dtype):
            raise self._damaged(f"what is stored of {name!r} at {offset} is no tensor of shape {expected}")
        return found

    def value(self, name: str) -> Any:
        """Return a value that is no tensor."""
        return self._load(name, None)

    def _load(self, name: str, offset: Offset | None) -> Any:
        place = self._places.get((name, offset))
        if place is None:
            raise self._damaged(f"it does not say where {name!r} at {offset} is")
        file, begin, length = place
        if file not in self._files:
            try:
                self._files[file] = map_file(join(self.path, file))
            except ValueError as error:
                raise self._damaged(str(error)) from error
        memory = self._files[file][begin : begin + length]
        if len(memory) != length:
            raise self._damaged(f"{file} ends at {len(self._files[file]):,} bytes, before {name!r}")
        return load_torch_memory(memory, where=f"{self.path}/{file}: {name}")

    def _damaged(self, what: str) -> CorruptError:
        return CorruptError(f"{self._where}: not what DCP writes: {what[:200]}\nThe checkpoint is damaged.", path=self._where)


def _names() -> dict[str, Any]:
    return {**PLAIN_NAMES, **torch_names(), **{name: Builder(partial(_instance, name)) for name in _CLASSES}}


def _instance(name: str, *arguments: Any, **members: Any) -> Instance:
    return Instance(name, arguments, None, [], list(members.items()))


def _class_of(found: Any) -> str:
    if not isinstance(found, Instance):
        raise TypeError(f"a value of type {type(found).__name__} where a class of DCP is expected")
    return found.name.rpartition(".")[2]


def _fields(found: Any, name: str) -> Mapping[str, Any]:
    if _class_of(found) != name:
        raise TypeError(f"a {_class_of(found)} where a {name} is expected")
    return _mapping(found.state if found.state is not None else {})


def _mapping(found: Any) -> Mapping[Any, Any]:
    if not isinstance(found, Mapping):
        raise TypeError(f"a {type(found).__name__} where a mapping is expected")
    return found


def _text(found: Any) -> str:
    if type(found) is not str:
        raise TypeError(f"a {type(found).__name__} where text is expected")
    return found


def _count(found: Any) -> int:
    if type(found) is not int or found < 0:
        raise ValueError(f"{found!r:.40} where a count is expected")
    return found


def _sizes(found: Any) -> tuple[int, ...]:
    return tuple(_count(size) for size in found)


def _path(found: Any) -> Path:
    if not isinstance(found, tuple) or not found or not all(type(step) in (str, int) for step in found):
        raise TypeError("a path of a leaf is no tuple of text and numbers")
    return found


def _tensor(fields: Mapping[str, Any]) -> ForeignTensor:
    import torch

    properties = fields["properties"]
    # TensorProperties pickles itself as the tuple of its fields.
    dtype = properties.state[0] if _class_of(properties) == "TensorProperties" and isinstance(properties.state, tuple) else None
    if not isinstance(dtype, torch.dtype):
        raise TypeError("a tensor without a dtype")
    chunks = [_fields(chunk, "ChunkStorageMetadata") for chunk in fields["chunks"]]
    placed = [(_sizes(chunk["offsets"]), _sizes(chunk["sizes"])) for chunk in chunks]
    filled = [(offset, shape) for offset, shape in placed if prod(shape)]
    return ForeignTensor(dtype, _sizes(fields["size"]), tuple(dict.fromkeys(filled)))
