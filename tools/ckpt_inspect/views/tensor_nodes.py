"""References to tensors in the state tree, as people read them: `float32 [512, 512] 1.0 MB  tied to model.embed.weight`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ckpt_inspect.output.units import size_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.views.values import dtype_text
from ckptfmt.format.metadata import TensorRow
from ckptfmt.format.tree_walk import tag_of, tensor_ids

_DEFAULT_KIND = "torch"


def find_row(node: Any, rows: Sequence[TensorRow]) -> TensorRow | None:
    """Return the row of a `$tensor` node, None for any other node and for a reference that leads nowhere."""
    reference = _reference(node)
    return rows[reference[0]] if reference is not None and 0 <= reference[0] < len(rows) else None


def _reference(node: Any) -> tuple[int, str, Mapping[str, Any]] | None:
    payload = node["$tensor"] if tag_of(node) == "$tensor" else None
    if type(payload) is not list or len(payload) != 3:
        return None
    index, kind, attributes = payload
    if type(index) is not int or type(kind) is not str or type(attributes) is not dict:
        return None
    return index, kind, attributes


class TensorTexts:
    """Describes references; knows under which path each tensor was met first."""

    def __init__(self, leaves: Iterable[tuple[tuple[str, ...], Any]], rows: Sequence[TensorRow]) -> None:
        self._rows = rows
        self._first: dict[int, str] = {}
        for path, node in leaves:
            for index in tensor_ids(node):
                if index not in self._first:
                    self._first[index] = ".".join(path)

    def tied_to(self, node: Any, path: str) -> str | None:
        """Return the path under which the same tensor stands first, None if that is here."""
        reference = _reference(node)
        first = self._first.get(reference[0], path) if reference is not None else path
        return None if first == path else first

    def text(self, node: Any, path: str) -> str:
        """Return a `$tensor` or `$sparse` node as text."""
        if tag_of(node) == "$sparse":
            return self._sparse_text(node["$sparse"])
        reference, row = _reference(node), find_row(node, self._rows)
        if reference is None or row is None:
            return "tensor of which the index holds nothing"
        _, kind, attributes = reference
        tied = self.tied_to(node, path)
        remarks = [] if kind == _DEFAULT_KIND else [kind]
        text = f"{dtype_text(row.dtype)} {list(row.shape)} {size_text(row.size_bytes)}"
        for name, value in attributes.items():
            if name == "grad":
                remarks.append("requires grad" if value is True else "without grad")
            elif name == "view" and isinstance(value, list) and len(value) == 4:
                offset, dtype, shape, strides = value
                text = f"{dtype_text(str(dtype))} {shape}"
                remarks.append(f"view of {tied or size_text(row.size_bytes)} from byte {offset}, strides {strides}")
                tied = None
            else:
                remarks.append(f"{name} {value}")
        if tied is not None:
            remarks.insert(0, f"tied to {tied}")
        return visible(f"{text}  {', '.join(remarks)}" if remarks else text)

    def _sparse_text(self, payload: Any) -> str:
        if type(payload) is not list or len(payload) != 4:
            return "sparse tensor"
        layout, shape, parts, _ = payload
        stored = [self._rows[index] for index in tensor_ids(parts) if 0 <= index < len(self._rows)]
        size = size_text(sum(row.size_bytes for row in stored))
        values = next((self._rows[index] for index in self._ids_of_values(parts)), None)
        dtype = f"{dtype_text(values.dtype)} " if values is not None else ""
        return visible(f"{dtype}{shape} {size}  sparse {layout}"[:200])

    def _ids_of_values(self, parts: Any) -> list[int]:
        node = parts.get("values") if type(parts) is dict else None
        return [index for index in tensor_ids(node) if 0 <= index < len(self._rows)]
