"""How many tensors, elements and bytes each section holds, by element type."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ckpt_inspect.views.values import dtype_text
from ckptfmt.format.metadata import TensorRow


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


def totals_by_section(rows: Iterable[TensorRow], section_of_shard: Sequence[str]) -> Mapping[str, SectionTotal]:
    """Return the totals of each section. Tensors at the top of the state are in section ""."""
    counts: dict[tuple[str, str], TypeTotal] = {}
    for row in rows:
        section = section_of_shard[row.chunks[0].shard] if row.chunks else row.name.partition(".")[0]
        total = counts.get((section, row.dtype))
        if total is None:
            total = counts[section, row.dtype] = TypeTotal(row.dtype)
        total.tensor_count += 1
        total.element_count += math.prod(row.shape)
        total.size_bytes += row.size_bytes
    sections: dict[str, list[TypeTotal]] = {}
    for (section, _), total in counts.items():
        sections.setdefault(section, []).append(total)
    return {name: SectionTotal(sorted(types, key=lambda total: -total.size_bytes)) for name, types in sections.items()}
