"""Walking a state tree in packed form, without building any of its values. Spec 8.

This is how an inspector shows a state whose library is not installed, and how `only=` selects before anything is read.
A path is the keys from the root, joined with dots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ckptfmt.format.canonical_json import is_deeper
from ckptfmt.format.layout import MAX_STATE_DEPTH
from ckptfmt.format.rules import violation

ABSENT: Any = object()

_MAX_KEY_DEPTH = 32
_MAX_POSITION_DIGITS = 10

_PAIR_TAGS = {"$dict", "$odict", "$counter"}
_SEQUENCE_TAGS = {"$tuple"}
_WRAPPER_TAGS = {"$namespace", "$registered"}
_TENSOR_TAGS = {"$tensor", "$sparse"}


def tag_of(node: Any) -> str | None:
    """Return the tag of a packed node, None for a plain value."""
    if type(node) is dict and len(node) == 1:
        key: str = next(iter(node))
        return key if key.startswith("$") else None
    return None


def key_text(key: Any, *, depth: int = 0) -> str:
    """Return a packed mapping key as the text that stands for it in a path."""
    tag = tag_of(key)
    if tag is None:
        return key.decode("utf-8", "replace") if type(key) is bytes else str(key)
    payload = key[tag]
    if tag == "$tuple" and type(payload) is list and depth < _MAX_KEY_DEPTH:
        return "(" + ", ".join([key_text(part, depth=depth + 1) for part in payload]) + ")"
    if tag == "$int" and type(payload) is bytes:
        return str(int.from_bytes(payload, "big", signed=True)) if len(payload) <= 1024 else "int"
    return "..." if is_deeper(payload, _MAX_KEY_DEPTH) else str(payload)


class _Container:
    """One packed node taken apart: its values with their keys, and how to put it together from other values.

    `keys` are packed keys, or None for a sequence; texts are made when they are asked for, because a sequence may be very long.
    Values are `levels` below the node.
    """

    __slots__ = ("build", "keys", "levels", "values")

    def __init__(self, keys: Sequence[Any] | None, values: Sequence[Any], build: Callable[[list[Any]], Any]) -> None:
        self.keys = keys
        self.values = values
        self.build = build
        self.levels = 1

    def children(self) -> Iterator[tuple[str, Any]]:
        """Yield (key as text, value)."""
        if self.keys is None:
            return zip(map(str, range(len(self.values))), self.values, strict=True)
        return zip(map(key_text, self.keys), self.values, strict=True)

    def nested_children(self) -> Iterator[tuple[str, Any]]:
        """Yield (key as text, value) of those values that hold others, tensors among them."""
        for position, value in enumerate(self.values):
            if type(value) is dict or type(value) is list:
                yield (str(position) if self.keys is None else key_text(self.keys[position])), value

    def matching(self, path: str) -> list[tuple[Any, str | None]]:
        """Return the values whose key begins a path, each with what is left of that path, None for nothing, in order."""
        ends = [position for position, character in enumerate(path) if character == "."]
        rests: dict[str, str | None] = {path[:end]: path[end + 1 :] for end in ends}
        rests[path] = None
        if self.keys is None:
            positions = (int(text) for text in rests if text.isdecimal() and text.isascii() and len(text) <= _MAX_POSITION_DIGITS)
            found = sorted(position for position in positions if position < len(self.values))
            return [(self.values[position], rests[str(position)]) for position in found if str(position) in rests]
        texts = (key if type(key) is str else key_text(key) for key in self.keys)
        return [(value, rests[text]) for text, value in zip(texts, self.values, strict=True) if text in rests]


def _container(node: Any) -> _Container | None:
    wrappers = []
    while (tag := tag_of(node)) in _WRAPPER_TAGS and type(payload := node[tag]) is list and len(payload) == 2:
        wrappers.append((tag, payload[0]))
        node = payload[1]
    container = _unwrapped(node)
    if container is not None and wrappers:
        build = container.build
        container.levels += len(wrappers)
        container.build = lambda values: _wrapped(build(values), wrappers)
    return container


def _wrapped(node: Any, wrappers: list[tuple[Any, Any]]) -> Any:
    for tag, name in reversed(wrappers):
        node = {tag: [name, node]}
    return node


def _unwrapped(node: Any) -> _Container | None:
    kind = type(node)
    if kind is list:
        return _sequence(node, list)
    if kind is not dict:
        return None
    tag = tag_of(node)
    if tag is None:
        return _Container(list(node), list(node.values()), lambda values: _map(list(node), values))
    payload = node[tag]
    if tag in _PAIR_TAGS:
        return _pairs(payload, lambda flat: {tag: flat})
    if tag in _SEQUENCE_TAGS:
        return _sequence(payload, lambda values: {tag: values})
    if type(payload) is not list or len(payload) != 2:
        return None
    if tag == "$state_dict":
        return _pairs(payload[0], lambda flat: {tag: [flat, payload[1]]})
    if tag == "$defaultdict":
        return _pairs(payload[1], lambda flat: {tag: [payload[0], flat]})
    if tag == "$deque":
        return _sequence(payload[1], lambda values: {tag: [payload[0], values]})
    return None


def _map(names: list[str], values: list[Any]) -> Any:
    members = {name: value for name, value in zip(names, values, strict=True) if value is not ABSENT}
    # A lone key that begins with $ would make a tagged value of what was a mapping.
    return {"$dict": [part for pair in members.items() for part in pair]} if tag_of(members) else members


def _sequence(values: Any, build: Callable[[list[Any]], Any]) -> _Container | None:
    if type(values) is not list:
        return None
    return _Container(None, values, build)


def _pairs(flat: Any, build: Callable[[list[Any]], Any]) -> _Container | None:
    if type(flat) is not list or len(flat) % 2:
        return None
    keys = flat[::2]

    def rebuild(values: list[Any]) -> Any:
        return build([part for key, value in zip(keys, values, strict=True) if value is not ABSENT for part in (key, value)])

    return _Container(keys, flat[1::2], rebuild)


def iter_leaves(tree: Any, *, where: str = "") -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (path, packed node) of everything that holds no further values, in order.

    Empty containers are leaves. A `$sparse` tensor is one leaf.
    """
    return _leaves(tree, _Container.children, where)


def iter_tensors(tree: Any, *, where: str = "") -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (path, packed node) of every reference to a tensor and of every sparse tensor, in order."""
    return ((path, node) for path, node in _leaves(tree, _Container.nested_children, where) if tag_of(node) in _TENSOR_TAGS)


def find_tensor(tree: Any, name: str, *, where: str = "") -> Any:
    """Return the first node in order that `iter_tensors` gives with this path, joined with dots; ABSENT if there is none.

    Only containers on the way are looked at, so that one tensor is found without walking over all of them.
    """
    # A node, and what of the name lies below it; None at its end.
    pending: list[tuple[Any, int, str | None]] = [(tree, 0, name)] if name or tag_of(tree) not in _TENSOR_TAGS else [(tree, 0, None)]
    while pending:
        node, level, rest = pending.pop()
        container = _container(node)
        if container is None or not container.values:
            if rest is None and tag_of(node) in _TENSOR_TAGS:
                return node
        elif rest is not None:
            below = _level_below(level, container, where)
            pending += [(value, below, rest_below) for value, rest_below in reversed(container.matching(rest))]
    return ABSENT


def _leaves(tree: Any, children: Callable[[_Container], Iterator[tuple[str, Any]]], where: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    pending: list[tuple[tuple[str, ...], int, Iterator[tuple[str, Any]]]] = [((), 0, iter([("", tree)]))]
    while pending:
        path, level, members = pending[-1]
        for key, node in members:
            here = (*path, key) if len(pending) > 1 else ()
            container = _container(node)
            if container is None or not container.values:
                yield here, node
            else:
                pending.append((here, _level_below(level, container, where), children(container)))
                break
        else:
            pending.pop()


def _level_below(level: int, container: _Container, where: str) -> int:
    below = level + container.levels
    if below > MAX_STATE_DEPTH:
        raise violation("E026", where, expected=f"at most {MAX_STATE_DEPTH} levels")
    return below


def children_of(node: Any) -> list[tuple[str, Any]] | None:
    """Return the children of a container with their keys, None for a leaf."""
    container = _container(node)
    return None if container is None else list(container.children())


def tensor_ids(node: Any) -> list[int]:
    """Return the ids of the tensors to which one leaf refers: one, or the parts of a sparse tensor or generator."""
    found: list[int] = []
    pending = [node]
    while pending:
        item = pending.pop()
        if type(item) is dict:
            payload = item.get("$tensor")
            if len(item) == 1 and type(payload) is list and payload and type(payload[0]) is int:
                found.append(payload[0])
            else:
                pending.extend(reversed(list(item.values())))
        elif type(item) is list:
            pending.extend(reversed(item))
    return found


def referenced_rows(tree: Any) -> set[int]:
    """Return all that `tensor_ids` finds in a tree, each once."""
    found: set[int] = set()
    level = [tree]
    while level:
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                payload = item.get("$tensor") if len(item) == 1 else None
                if type(payload) is list and payload and type(payload[0]) is int:
                    found.add(payload[0])
                else:
                    below += item.values()
            elif type(item) is list:
                below += item
        level = below
    return found


def prune(tree: Any, is_wanted: Callable[[str], bool], *, where: str = "") -> Any:
    """Return the tree with only those values whose path, or a path above it, is wanted; ABSENT if there is none.

    Mappings lose their other members. Sequences keep their length, so that positions stay what they are: elements
    without anything wanted become None.
    """
    return _pruned(tree, (), 0, is_wanted, where)


def _pruned(node: Any, path: tuple[str, ...], level: int, is_wanted: Callable[[str], bool], where: str) -> Any:
    if path and is_wanted(".".join(path)):
        return node
    container = _container(node)
    if container is None or not container.values:
        return ABSENT
    below = _level_below(level, container, where)
    values = []
    for key, child in container.children():
        values.append(_pruned(child, (*path, key), below, is_wanted, where))
    if all(value is ABSENT for value in values):
        return ABSENT
    return container.build([None if value is ABSENT else value for value in values] if container.keys is None else values)
