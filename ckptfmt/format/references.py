"""References of a tree to the tensor index: kinds, attributes, and whether a view stays inside its tensor. Spec 9.1.

All bounds are computed with integers, before any library sees a tensor, and without the libraries being installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ckptfmt.format.dtypes import itemsize_bytes
from ckptfmt.format.layout import MAX_DIMENSION, is_shape
from ckptfmt.format.metadata import TensorRow
from ckptfmt.format.rules import violation
from ckptfmt.format.tree_walk import tag_of

# Whether a tensor of the kind requires gradients by default; None where there is no such thing.
KINDS = {"torch": False, "parameter": True, "buffer": False, "numpy": None, "jax": None}


def check_references(tree: Any, tensors: Sequence[TensorRow], *, where: str) -> None:
    """Check every reference in a packed tree; `tensors` are the rows of its index."""
    checks = _References(tensors, where)
    pending = [tree]
    while pending:
        node = pending.pop()
        if type(node) is list:
            pending.extend(node)
        elif type(node) is dict:
            if tag_of(node) == "$tensor":
                checks.check(node["$tensor"])
            else:
                pending.extend(node.values())


class _References:
    def __init__(self, tensors: Sequence[TensorRow], where: str) -> None:
        self.tensors = tensors
        self.where = where
        self.orders: dict[int, Any] = {}

    def check(self, payload: Any) -> None:
        if type(payload) is not list or len(payload) != 3 or type(payload[1]) is not str or payload[1] not in KINDS:
            raise violation("E027", self.where, "reference to a tensor is not id, kind, attributes")
        number, kind, attributes = payload
        if type(number) is not int or not 0 <= number < len(self.tensors):
            raise violation("E028", self.where, expected=f"a row below {len(self.tensors)}", found=str(number)[:40])
        row = self.tensors[number]
        if type(attributes) is not dict or not self._are_attributes(kind, attributes):
            raise violation("E027", self.where, f"attributes of a reference to {row.name!r}", found=str(attributes)[:80], tensor=row.name)
        if not self._is_inside(kind, attributes, row):
            raise violation("E028", self.where, f"strides or view of {row.name!r}", found=str(attributes)[:120], tensor=row.name)
        # A view looks at memory in the order in which it is stored.
        order = attributes.get("strides")
        if self.orders.setdefault(number, order) != order:
            raise violation("E028", self.where, f"references to {row.name!r} differ in strides", tensor=row.name)

    def _are_attributes(self, kind: str, attributes: dict[str, Any]) -> bool:
        allowed = {"strides", "view"} if kind != "jax" else set()
        if KINDS[kind] is not None:
            allowed.add("grad")
        if "grad" in attributes and attributes["grad"] is not (not KINDS[kind]):
            return False
        return attributes.keys() <= allowed and not {"strides", "view"} <= attributes.keys()

    def _is_inside(self, kind: str, attributes: dict[str, Any], row: TensorRow) -> bool:
        if "strides" in attributes and not _is_dense_order(row.shape, attributes["strides"]):
            return False
        return "view" not in attributes or self._is_view(kind, attributes["view"], row)

    def _is_view(self, kind: str, view: Any, row: TensorRow) -> bool:
        if type(view) is not list or len(view) != 4 or type(view[1]) is not str:
            raise violation("E027", self.where, f"view of {row.name!r} is not offset, dtype, shape, strides", tensor=row.name)
        offset, dtype, shape, strides = view
        try:
            itemsize = itemsize_bytes(dtype)
        except KeyError:
            raise violation("E042", self.where, f"element type of a view of {row.name!r}", found=dtype[:80], tensor=row.name) from None
        if type(offset) is not int or not is_shape(shape) or not _are_strides(strides) or len(strides) != len(shape):
            return False
        if kind != "numpy" and (min(strides, default=0) < 0 or (itemsize and offset % itemsize)):
            return False
        reach = [(size - 1) * stride * itemsize for size, stride in zip(shape, strides, strict=True)]
        first, end = offset + sum(step for step in reach if step < 0), offset + sum(step for step in reach if step > 0) + itemsize
        return 0 <= offset <= row.size_bytes if 0 in shape else first >= 0 and end <= row.size_bytes


def _are_strides(strides: Any) -> bool:
    return type(strides) is list and all(type(stride) is int and -MAX_DIMENSION < stride < MAX_DIMENSION for stride in strides)


def _is_dense_order(shape: tuple[int, ...], strides: Any) -> bool:
    if not _are_strides(strides) or len(strides) != len(shape):
        return False
    step = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if stride != step:
            return False
        step *= size or 1
    return True
