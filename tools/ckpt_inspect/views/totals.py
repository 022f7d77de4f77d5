"""How many tensors, elements and bytes each section holds, by element type."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckpt_inspect.views.values import dtype_text
from ckptfmt.format.metadata import TensorIndex, TensorRow


@dataclass(slots=True)
class TypeTotal:
    """The tensors of one element type."""

    dtype: str
    tensor_count: int = 0
    element_count: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SectionTotal:
    """The tensors of one section; its element types begin with the one that takes most bytes."""

    types: Sequence[TypeTotal]

    @property
    def tensor_count(self) -> int:
        """Tensors of every type."""
        return sum(total.tensor_count for total in self.types)

    @property
    def element_count(self) -> int:
        """Elements of every type."""
        return sum(total.element_count for total in self.types)

    @property
    def size_bytes(self) -> int:
        """Bytes of every type."""
        return sum(total.size_bytes for total in self.types)

    @property
    def types_text(self) -> str:
        """The element types for people."""
        return ", ".join(dtype_text(total.dtype) for total in self.types)


def totals_by_section(rows: Sequence[TensorRow], section_of_shard: Sequence[str]) -> Mapping[str, SectionTotal]:
    """Return the totals of each section. Tensors at the top of the state are in section ""."""
    index = TensorIndex.of(rows)
    # Equal tensors are counted together, because there may be a million of them.
    equal = Counter(zip(index.shards, index.dtypes, index.shapes, index.sizes, strict=True))
    found = [
        (section_of_shard[shard], dtype, shape, size_bytes, count)
        for (shard, dtype, shape, size_bytes), count in equal.items()
        if shard >= 0
    ]
    for number, chunks in index.parts.items():
        section = section_of_shard[chunks[0].shard] if chunks else index.names[number].partition(".")[0]
        found.append((section, index.dtypes[number], index.shapes[number], index.sizes[number], 1))
    totals: dict[str, dict[str, TypeTotal]] = {}
    for section, dtype, shape, size_bytes, count in found:
        total = totals.setdefault(section, {}).setdefault(dtype, TypeTotal(dtype))
        total.tensor_count += count
        total.element_count += count * math.prod(shape)
        total.size_bytes += count * size_bytes
    return {name: SectionTotal(sorted(types.values(), key=lambda total: -total.size_bytes)) for name, types in totals.items()}
