"""Which tensor goes into which shard, at which slot, under which key. Pure: nothing is read or written here.

Sections keep their order and never mix; a section is cut at the size limit in the order of the state, so that a shard
holds neighbours; inside a shard chunks of larger alignment come first, so that each is aligned to its elements. Spec 3 and 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckptfmt.format.digest import digest_of
from ckptfmt.format.dtypes import alignment_bytes, stored_forms
from ckptfmt.format.layout import MAX_NAME_BYTES, SPLIT_HEADER_BYTES, are_tensor_names, is_tensor_name
from ckptfmt.format.shard_header import encode_columns

MAX_SECTIONS = 256
_HEADER_ENTRY_BYTES = 160


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """The tensors of a state, each to be stored whole, as columns with an entry for each row of the tensor index.

    `tied_keys` are further names of a row's tensor in its section.
    """

    sections: Sequence[str]
    keys: Sequence[str]
    names: Sequence[str]
    dtypes: Sequence[str]
    shapes: Sequence[tuple[int, ...]]
    sizes: Sequence[int]
    tied_keys: Mapping[int, Sequence[str]]


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard to be written: rows, keys and sizes in slot order, its header, and the size of the file."""

    section: str
    rows: Sequence[int]
    keys: Sequence[str]
    sizes: Sequence[int]
    header: bytes
    size_bytes: int


def name_tensors(
    paths: Sequence[tuple[str, ...]],
    ties: Mapping[int, Sequence[tuple[str, ...]]],
    dtypes: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    sizes: Sequence[int],
) -> TensorPlan:
    """Give each tensor its section, key and name. `ties` holds further paths of some tensors.

    A tensor at the top of the state has the section "", and so has everything when there are very many sections.
    Names that cannot be stored are shortened or escaped, and made distinct by a suffix; the tree holds the real paths.
    """
    sections = [path[0] if len(path) > 1 else "" for path in paths]
    if len(set(sections) - {""}) > MAX_SECTIONS:
        sections = [""] * len(paths)
    wanted = [".".join(path) or "state" for path in paths]
    wanted_keys = [name[len(section) + 1 :] or "state" if section else name for section, name in zip(sections, wanted, strict=True)]
    tied_keys = {row: _tied_keys(paths[row], further, sections[row]) for row, further in ties.items()}
    return TensorPlan(sections, _distinct_keys(sections, wanted_keys), _distinct(wanted), dtypes, shapes, sizes, tied_keys)


def _tied_keys(path: tuple[str, ...], ties: Sequence[tuple[str, ...]], section: str) -> list[str]:
    depth = 1 if section else 0
    return [".".join(tie[depth:]) for tie in ties if len(tie) > depth and tie[:depth] == path[:depth]]


def _distinct_keys(sections: Sequence[str], wanted: list[str]) -> list[str]:
    """Return storable keys, each once in its section."""
    if len(set(zip(sections, wanted, strict=True))) == len(wanted) and are_tensor_names(wanted):
        return wanted
    taken = {section: _Distinct() for section in set(sections)}
    return [taken[section].name(key) for section, key in zip(sections, wanted, strict=True)]


def _distinct(wanted: list[str]) -> list[str]:
    """Return storable names, each once; nearly always those that are wanted."""
    if len(set(wanted)) == len(wanted) and are_tensor_names(wanted):
        return wanted
    names = _Distinct()
    return [names.name(name) for name in wanted]


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


def plan_shards(plan: TensorPlan, rows: Sequence[int], *, max_shard_size_bytes: int) -> list[ShardPlan]:
    """Distribute some rows over shards; a tensor larger than the limit has a shard of its own."""
    by_section: dict[str, list[int]] = {}
    for row in rows:
        by_section.setdefault(plan.sections[row], []).append(row)
    return [
        _plan_shard(plan, section, group)
        for section, members in by_section.items()
        for group in _cut(plan, members, max_shard_size_bytes=max_shard_size_bytes)
    ]


def _cut(plan: TensorPlan, rows: list[int], *, max_shard_size_bytes: int) -> Iterator[list[int]]:
    keys = [plan.keys[row] for row in rows]
    tied_keys = [plan.tied_keys.get(row, ()) for row in rows] if plan.tied_keys else []
    key_bytes = len("".join(keys).encode()) + sum(len(key.encode()) for tied in tied_keys for key in tied)
    is_small = _HEADER_ENTRY_BYTES * len(rows) + 2 * key_bytes <= SPLIT_HEADER_BYTES
    if is_small and sum([plan.sizes[row] for row in rows]) <= max_shard_size_bytes:
        yield rows
        return
    entry_bytes = [_HEADER_ENTRY_BYTES + 2 * len(key.encode()) for key in keys]
    for index, tied in enumerate(tied_keys):
        entry_bytes[index] += sum(2 * len(key.encode()) for key in tied)
    group: list[int] = []
    data_bytes = header_bytes = 0
    for row, in_header in zip(rows, entry_bytes, strict=True):
        if group and (data_bytes + plan.sizes[row] > max_shard_size_bytes or header_bytes + in_header > SPLIT_HEADER_BYTES):
            yield group
            group, data_bytes, header_bytes = [], 0, 0
        group.append(row)
        data_bytes += plan.sizes[row]
        header_bytes += in_header
    if group:
        yield group


def _plan_shard(plan: TensorPlan, section: str, rows: list[int]) -> ShardPlan:
    alignments = {dtype: alignment_bytes(dtype) for dtype in set(map(plan.dtypes.__getitem__, rows))}
    if len(set(alignments.values())) > 1:
        rows.sort(key=lambda row: -alignments[plan.dtypes[row]])
    keys = [plan.keys[row] for row in rows]
    sizes = [plan.sizes[row] for row in rows]
    forms = stored_forms([plan.dtypes[row] for row in rows], [plan.shapes[row] for row in rows], sizes)
    ties = {tied: plan.keys[row] for row in rows for tied in plan.tied_keys.get(row, ()) if is_tensor_name(tied)} if plan.tied_keys else {}
    header = encode_columns(keys, forms, sizes, ties)
    return ShardPlan(section, rows, keys, sizes, header, len(header) + sum(sizes))
