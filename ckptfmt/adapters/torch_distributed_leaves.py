"""The leaves that torch.distributed.checkpoint (DCP) sees in a packed tree: the reverse of its flattening. Spec 8.

DCP goes down into mappings, and into lists that hold tensors or mappings somewhere; everything else is one leaf. Leaves are found by
the same rules here, whoever saved the checkpoint, so that any checkpoint can be loaded into a sharded state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ckptfmt.adapters.torch_distributed_tree import Path
from ckptfmt.errors import UnsupportedTypeError
from ckptfmt.format.rules import shown
from ckptfmt.format.tree_walk import tag_of
from ckptfmt.state.tree import decode_leaf

_PAIRS_AT = {"$dict": None, "$odict": None, "$counter": None, "$state_dict": 0, "$defaultdict": 1}
_TORCH_KINDS = ("torch", "parameter", "buffer")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf: DCP's path of it, and its packed node. `row` is the tensor that it is, None for any other value."""

    path: Path
    node: Any
    row: int | None


def find_leaves(tree: Any, *, where: str) -> dict[str, Leaf]:
    """Return the leaves of a checked tree by DCP's names.

    Raises:
        UnsupportedTypeError: the state is no mapping, or two of its leaves have one name.
    """
    if _members(tree) is None:
        raise UnsupportedTypeError(f"{where}: the state is no mapping\nLoad it with ckptfmt.load.")
    leaves: dict[str, Leaf] = {}
    for path, node in _walk(tree):
        name = ".".join(map(str, path))
        if name in leaves:
            raise UnsupportedTypeError(f"{where}: two values have the path {shown(name)}\nLoad it with ckptfmt.load.", path=name)
        leaves[name] = Leaf(path, node, _whole_row(node))
    return leaves


def _walk(tree: Any) -> Iterator[tuple[Path, Any]]:
    pending: list[tuple[Path, Any]] = [((), tree)]
    while pending:
        path, node = pending.pop()
        members = _members(node)
        if members is not None:
            pending += [((*path, _key_text(key)), value) for key, value in reversed(members)]
        elif type(node) is list and _has_leaves(node):
            pending += [((*path, position), value) for position, value in reversed(list(enumerate(node)))]
        else:
            yield path, node


def _members(node: Any) -> list[tuple[Any, Any]] | None:
    """Return keys and values of what DCP takes for a mapping."""
    if type(node) is not dict:
        return None
    tag = tag_of(node)
    if tag is None:
        return list(node.items())
    if tag not in _PAIRS_AT:
        return None
    place = _PAIRS_AT[tag]
    pairs = node[tag] if place is None else node[tag][place]
    return list(zip(pairs[::2], pairs[1::2], strict=True))


def _key_text(key: Any) -> str:
    return str(decode_leaf(key, _refuse_tensor)) if type(key) is dict else str(key)


def _refuse_tensor(number: int) -> Any:
    raise UnsupportedTypeError(f"a key refers to tensor {number}")


def _has_leaves(node: list[Any]) -> bool:
    return any(_is_tensor(value) or _members(value) is not None or (type(value) is list and _has_leaves(value)) for value in node)


def _is_tensor(node: Any) -> bool:
    tag = tag_of(node)
    return tag == "$sparse" or (tag == "$tensor" and node[tag][1] in _TORCH_KINDS)


def _whole_row(node: Any) -> int | None:
    """Return the row of a dense tensor of torch; a view, whose bytes are not in the order of its shape, is any other value."""
    if tag_of(node) != "$tensor":
        return None
    number, kind, attributes = node["$tensor"]
    return number if kind in _TORCH_KINDS and "view" not in attributes else None
