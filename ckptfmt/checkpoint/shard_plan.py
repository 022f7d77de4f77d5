"""Which tensor goes into which shard, at which slot, under which key. Pure: nothing is read or written here.

Sections keep their order and never mix; a section is cut at the size limit in the order of the state, so that a shard
holds neighbours; inside a shard chunks of larger alignment come first, so that each is aligned to its elements. Spec 3 and 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckptfmt.format.digest import digest_of
from ckptfmt.format.dtypes import alignment_bytes, stored_form
from ckptfmt.format.layout import MAX_NAME_BYTES, SPLIT_HEADER_BYTES, is_tensor_name
from ckptfmt.format.shard_header import StoredEntry, encode_header

MAX_SECTIONS = 256
_HEADER_ENTRY_BYTES = 160


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor to be stored whole. `index` is its row in the tensor index; `tied_keys` are further names of it."""

    index: int
    section: str
    key: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    tied_keys: tuple[str, ...] = ()

    def stored_entry(self) -> StoredEntry:
        """Return the tensor as a shard's header describes it."""
        return StoredEntry(self.key, *stored_form(self.dtype, self.shape, self.size_bytes), self.size_bytes)


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard to be written: its tensors in slot order, and its header."""

    section: str
    tensors: tuple[PlannedTensor, ...]
    header: bytes

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return len(self.header) + sum(tensor.size_bytes for tensor in self.tensors)


def name_tensors(
    described: Sequence[tuple[tuple[str, ...], Sequence[tuple[str, ...]], str, tuple[int, ...], int]],
) -> list[PlannedTensor]:
    """Give each tensor its section, key and name, from (path, further paths, dtype, shape, size in bytes).

    A tensor at the top of the state has the section "", and so has everything when there are very many sections.
    Names that cannot be stored are shortened or escaped, and made distinct by a suffix; the tree holds the real paths.
    """
    sections = {path[0] for path, *_ in described if len(path) > 1}
    has_sections = len(sections) <= MAX_SECTIONS
    names, keys = _Distinct(), {section: _Distinct() for section in (*sections, "")}
    planned = []
    for index, (path, ties, dtype, shape, size_bytes) in enumerate(described):
        section = path[0] if len(path) > 1 and has_sections else ""
        depth = 1 if section else 0
        tied = tuple(".".join(tie[depth:]) for tie in ties if len(tie) > depth and tie[:depth] == path[:depth])
        key = keys[section].name(".".join(path[depth:]) or "state")
        planned.append(PlannedTensor(index, section, key, names.name(".".join(path) or "state"), dtype, shape, size_bytes, tied))
    return planned


class _Distinct:
    """Hands out storable names, each once."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def name(self, wanted: str) -> str:
        if not is_tensor_name(wanted):
            visible = "".join(character if character.isprintable() else "?" for character in wanted)
            stem = visible.encode("utf-8")[: MAX_NAME_BYTES - 40].decode("utf-8", "ignore")
            wanted = f"{stem}~{digest_of(wanted.encode('utf-8', 'surrogatepass')).hex()[:16]}"
        name, suffix = wanted, 2
        while name in self.taken:
            name = f"{wanted}#{suffix}"
            suffix += 1
            if not is_tensor_name(name):
                name = wanted = f"{wanted[:200]}~{digest_of(name.encode()).hex()[:16]}"
        self.taken.add(name)
        return name


def plan_shards(tensors: Sequence[PlannedTensor], *, max_shard_size_bytes: int) -> list[ShardPlan]:
    """Distribute tensors over shards; a tensor larger than the limit has a shard of its own."""
    by_section: dict[str, list[PlannedTensor]] = {}
    for tensor in tensors:
        by_section.setdefault(tensor.section, []).append(tensor)
    return [
        _plan_shard(section, group)
        for section, members in by_section.items()
        for group in _cut(members, max_shard_size_bytes=max_shard_size_bytes)
    ]


def _cut(tensors: Sequence[PlannedTensor], *, max_shard_size_bytes: int) -> Iterator[list[PlannedTensor]]:
    group: list[PlannedTensor] = []
    data_bytes = header_bytes = 0
    for tensor in tensors:
        entry_bytes = _HEADER_ENTRY_BYTES + 2 * len(tensor.key.encode()) + sum(2 * len(key.encode()) for key in tensor.tied_keys)
        is_full = data_bytes + tensor.size_bytes > max_shard_size_bytes or header_bytes + entry_bytes > SPLIT_HEADER_BYTES
        if group and is_full:
            yield group
            group, data_bytes, header_bytes = [], 0, 0
        group.append(tensor)
        data_bytes += tensor.size_bytes
        header_bytes += entry_bytes
    if group:
        yield group


def _plan_shard(section: str, tensors: Sequence[PlannedTensor]) -> ShardPlan:
    ordered = tuple(sorted(tensors, key=lambda tensor: -alignment_bytes(tensor.dtype)))
    return ShardPlan(section, ordered, encode_header([tensor.stored_entry() for tensor in ordered], _ties(ordered)))


def _ties(tensors: Sequence[PlannedTensor]) -> Mapping[str, str]:
    return {tied: tensor.key for tensor in tensors for tied in tensor.tied_keys if is_tensor_name(tied)}
