"""Safetensors files and Hugging Face directories of them: to checkpoints, and back.

Reading needs no library: tensors are ranges of the mapped files, so a checkpoint is made of a directory of any size while little memory
is touched. Writing gives pieces of files, each tensor once, as a stream; who writes them, and whether something is in the way, is the
caller's to decide. Layout of a directory: model.safetensors, or numbered files with model.safetensors.index.json.

Source: https://huggingface.co/docs/safetensors and `huggingface_hub.split_torch_state_dict_into_shards`
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ckptfmt.adapters.safetensors_header import decode_foreign_header, foreign_header_size_bytes
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.disk.foreign_file import map_file, names_in
from ckptfmt.errors import CheckpointNotFoundError, CorruptError, NameNotFoundError, UnsupportedTypeError
from ckptfmt.format.dtypes import NATIVE, SIZES
from ckptfmt.format.layout import HEADER_LENGTH_BYTES, is_tensor_name
from ckptfmt.format.rules import visible
from ckptfmt.format.shard_header import StoredEntry, encode_header
from ckptfmt.format.tree_walk import iter_leaves, iter_tensors, tag_of
from ckptfmt.state.tensors import LiveTensor
from ckptfmt.state.tree import EncodedState, encode_state

FILE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
CONFIG_NAME = "config.json"
SECTION = "model"
_MAX_JSON_BYTES = 100_000_000
_SHOWN = 5


class _FileTensor(LiveTensor):
    """A tensor that lies in C order in a mapped file."""

    __slots__ = ("_memory",)

    def __init__(self, dtype: str, shape: tuple[int, ...], memory: memoryview) -> None:
        super().__init__(dtype, shape, len(memory))
        self._memory = memory

    def memory(self) -> memoryview:
        return self._memory

    def pieces(self, block_bytes: int) -> Iterator[memoryview]:
        yield self._memory


def read_safetensors_state(path: str) -> EncodedState:
    """Return the tensors of a file or of a Hugging Face directory as a state: section "model", and "config" where there is one.

    Raises:
        CorruptError: a file is damaged, or the index names what is not there.
        CheckpointNotFoundError: there is no such file, or nothing that is known in the directory.
        UnsupportedTypeError: an element type that a checkpoint cannot hold.
    """
    tensors: dict[str, _FileTensor] = {}
    values: dict[str, Any] = {}
    if names := names_in(path):
        files, index = _files_of(path, names)
        for name in files:
            _read_file(f"{path}/{name}", tensors)
        missing = sorted(index.keys() - tensors.keys())
        if missing:
            where = f"{path}/{INDEX_NAME}"
            raise CorruptError(f"{where}: names {len(missing)} tensors that no file holds, first {visible(missing[0])}", path=where)
        if CONFIG_NAME in names:
            values["config"] = _json(f"{path}/{CONFIG_NAME}")
    else:
        metadata = _read_file(path, tensors)
        if metadata.keys() - {"format"}:
            values["metadata"] = dict(metadata)
    encoded = encode_state(values)
    sources: list[LiveTensor] = []
    members: list[Any] = []
    for name, tensor in tensors.items():
        tensor.keys = (SECTION, name)
        members += [name, {"$tensor": [len(sources), "torch", {}]}]
        sources.append(tensor)
    return EncodedState({"$dict": [SECTION, {"$dict": members}, *_members(encoded.tree)]}, sources)


def _members(tree: Any) -> list[Any]:
    return list(tree["$dict"]) if "$dict" in tree else [part for item in tree.items() for part in item]


def is_huggingface_directory(path: str) -> bool:
    """Tell whether a directory holds weights as Hugging Face's libraries name them."""
    return not names_in(path).isdisjoint((FILE_NAME, INDEX_NAME))


def _files_of(path: str, names: set[str]) -> tuple[list[str], dict[str, str]]:
    if INDEX_NAME in names:
        where = f"{path}/{INDEX_NAME}"
        document = _json(where)
        index = document.get("weight_map") if isinstance(document, dict) else None
        if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
            raise CorruptError(f"{where}: has no weight_map from tensors to names of files", path=where)
        lost = sorted(set(index.values()) - names)
        if lost:
            raise CorruptError(f"{where}: names {len(lost)} files that are not there, first {visible(lost[0])}", path=where)
        return sorted(set(index.values())), index
    if FILE_NAME in names:
        return [FILE_NAME], {}
    raise CheckpointNotFoundError(f"{path}: holds neither {FILE_NAME} nor {INDEX_NAME}", path=path)


def _json(path: str) -> Any:
    data = map_file(path)
    if len(data) > _MAX_JSON_BYTES:
        raise CorruptError(f"{path}: {len(data):,} bytes are too many for a JSON document", path=path)
    try:
        return json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path}: not JSON: {visible(str(error)[:120])}", path=path) from None


def _read_file(path: str, tensors: dict[str, _FileTensor]) -> dict[str, str]:
    memory = map_file(path)
    length = foreign_header_size_bytes(bytes(memory[:HEADER_LENGTH_BYTES]), file_size_bytes=len(memory), where=path)
    text = bytes(memory[HEADER_LENGTH_BYTES : HEADER_LENGTH_BYTES + length])
    header = decode_foreign_header(text, file_size_bytes=len(memory), where=path)
    unknown = [row.dtype for row in header.tensors if row.dtype not in SIZES]
    if unknown:
        raise UnsupportedTypeError(f"{path}: element types that a checkpoint cannot hold: {', '.join(sorted(set(unknown)))}", path=path)
    for row, offset in zip(header.tensors, header.offsets, strict=True):
        if row.name in tensors:
            raise CorruptError(f"{path}: tensor {visible(row.name)} is in another file as well", path=path)
        tensors[row.name] = _FileTensor(row.dtype, row.shape, memory[offset : offset + row.size_bytes])
    return dict(header.metadata)


@dataclass(frozen=True, slots=True)
class Section:
    """The whole tensors of one section of an open checkpoint, as (name, row); and the names of what is none: views, sparse tensors."""

    name: str
    tensors: Sequence[tuple[str, int]]
    left_out: Sequence[str]


def choose_section(checkpoint: OpenCheckpoint, wanted: str | None) -> Section:
    """Return the section of this name, or the only one with tensors, or "model" or "state_dict"; "" is what lies at the top.

    Raises:
        NameNotFoundError: it is not there, or there are several.
        UnsupportedTypeError: it holds an element type or a name that safetensors lacks.
    """
    where = checkpoint.path
    leaves = [(path[0] if len(path) > 1 else "", path, node) for path, node in iter_tensors(checkpoint.metadata.tree, where=where)]
    sections = list(dict.fromkeys(section for section, _, _ in leaves))
    usual = [name for name in (SECTION, "state_dict") if name in sections]
    name = wanted if wanted is not None else sections[0] if len(sections) == 1 else usual[0] if usual else None
    if name is None or name not in sections:
        problem = "several sections hold tensors" if wanted is None else f"no section with tensors is named {wanted!r}"
        names = ", ".join(visible(section) or "''" for section in sections[:20])
        raise NameNotFoundError(f"{where}: {problem if sections else 'no tensors'}\nThere are: {names or 'none'}.", name=name or "")
    tensors, left_out = [], []
    for section, path, node in leaves:
        key = ".".join(path[1:] if section else path)
        if section == name and tag_of(node) == "$tensor" and "view" not in node["$tensor"][2]:
            tensors.append((key, node["$tensor"][0]))
        elif section == name:
            left_out.append(key)
    rows = [checkpoint.metadata.tensors[row] for _, row in tensors]
    odd = [key for (key, _), row in zip(tensors, rows, strict=True) if row.dtype not in NATIVE or not is_tensor_name(key)]
    if odd:
        names = ", ".join(odd[:_SHOWN]) + (f" and {len(odd) - _SHOWN:,} more" if len(odd) > _SHOWN else "")
        raise UnsupportedTypeError(f"{where}: safetensors has no such element type or name: {names}", path=odd[0])
    checkpoint.store.check_headers([row for _, row in tensors])
    return Section(name, tensors, left_out)


def safetensors_pieces(checkpoint: OpenCheckpoint, tensors: Sequence[tuple[str, int]]) -> Iterator[bytes | memoryview]:
    """Yield a safetensors file with these tensors, each verified when its turn comes; a tied one stands under each of its names."""
    rows = checkpoint.metadata.tensors
    yield encode_header([StoredEntry(name, NATIVE[rows[row].dtype][0], rows[row].shape, rows[row].size_bytes) for name, row in tensors])
    for _, row in tensors:
        yield checkpoint.store.memory(row).data


def huggingface_files(
    checkpoint: OpenCheckpoint, section: Section, *, max_shard_size_bytes: int
) -> Iterator[tuple[str, Iterator[bytes | memoryview]]]:
    """Yield name and pieces of each file of a Hugging Face directory; the index comes last."""
    rows = checkpoint.metadata.tensors
    groups: list[list[tuple[str, int]]] = [[]]
    filled_bytes = 0
    for name, row in section.tensors:
        if groups[-1] and filled_bytes + rows[row].size_bytes > max_shard_size_bytes:
            groups.append([])
            filled_bytes = 0
        groups[-1].append((name, row))
        filled_bytes += rows[row].size_bytes
    names = [FILE_NAME] if len(groups) == 1 else [f"model-{at:05d}-of-{len(groups):05d}.safetensors" for at in range(1, len(groups) + 1)]
    for name, group in zip(names, groups, strict=True):
        yield name, safetensors_pieces(checkpoint, group)
    config = _config_of(checkpoint)
    if config is not None:
        yield CONFIG_NAME, iter([_json_bytes(config)])
    if len(groups) > 1:
        weight_map = {key: name for name, group in zip(names, groups, strict=True) for key, _ in group}
        total = sum(rows[row].size_bytes for _, row in section.tensors)
        yield INDEX_NAME, iter([_json_bytes({"metadata": {"total_size": total}, "weight_map": weight_map})])


def _config_of(checkpoint: OpenCheckpoint) -> dict[str, Any] | None:
    """Return the configuration that came with an imported model, where the state still has it as JSON can hold it."""
    if not any(path[0] == "config" for path, _ in iter_leaves(checkpoint.metadata.tree, where=checkpoint.path)):
        return None
    config = checkpoint.load_sections(["config"])["config"]
    try:
        json.dumps(config)
    except (TypeError, ValueError):
        return None
    return config if isinstance(config, dict) and "model_type" in config else None


def _json_bytes(document: Any) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
