"""What differs between two state trees in packed form: values by their paths, and which tensors are to be compared.

No library is needed for what the trees hold. Equal means equal in value: two NaN are equal, and so are the two zeros; the order of a
mapping's keys does not count. No tensor is read here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from re import compile as compile_pattern
from typing import Any

from ckptfmt.format.metadata import TensorRow
from ckptfmt.format.packed import pack
from ckptfmt.format.rules import violation
from ckptfmt.format.tree_walk import children_of, iter_leaves, key_text, tag_of, tensor_ids
from ckptfmt.state.tensors import TensorMemory

Globs = str | Sequence[str] | None
Path = tuple[str, ...]

TIE = "tie"
_PAIR_TAGS = ("$dict", "$odict", "$counter")
_WRAPPER_TAGS = ("$namespace", "$registered")


@dataclass(frozen=True, slots=True)
class ValueDifference:
    """A value that is not the same; on the side where there is none, value and type are None.

    Values are as `OpenCheckpoint.tree()` shows them: plain Python where that is possible, outlined otherwise. The type `tie` is of a
    tensor that is tied to another one on one side only, or to another one.
    """

    path: str
    before: Any
    after: Any
    before_type: str | None
    after_type: str | None


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared. `digest_of` gives what equal tensors share, None where that is not known without reading."""

    path: str
    tree: Any
    rows: Sequence[TensorRow]
    memory: Callable[[int], TensorMemory]
    digest_of: Callable[[int], object]
    verify: Callable[[Sequence[int]], None] = lambda rows: None
    step: int | None = None
    metrics: Mapping[str, int | float] | None = None
    fingerprint: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Two numbers are close if |a - b| <= atol + rtol * max(|a|, |b|)."""

    atol: float = 0.0
    rtol: float = 0.0

    def __post_init__(self) -> None:
        for name in ("atol", "rtol"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise ValueError(f"{name}={value!r}: expected a number of at least 0")

    def is_close(self, a: float, b: float) -> bool:
        """Tell whether two numbers are close; two NaN are."""
        if a == b or (a != a and b != b):
            return True
        return math.isfinite(a) and math.isfinite(b) and abs(a - b) <= self.atol + self.rtol * max(abs(a), abs(b))


class Selection:
    """Which paths are compared: what `only` matches or everything, without what `exclude` matches; each with what is below."""

    def __init__(self, only: Globs = None, exclude: Globs = None) -> None:
        self._only = None if only is None else _matchers(only)
        self._exclude = _matchers(exclude or ())

    def has(self, path: Path) -> bool:
        """Tell whether a path is compared."""
        if self._only is None and not self._exclude:
            return True
        names = [".".join(path[: length + 1]) for length in range(len(path))]
        is_wanted = self._only is None or any(match(name) for name in names for match in self._only)
        return is_wanted and not any(match(name) for name in names for match in self._exclude)


def _matchers(globs: str | Sequence[str]) -> list[Callable[[str], Any]]:
    return [compile_pattern(translate(glob)).match for glob in ([globs] if isinstance(globs, str) else globs)]


Show = Callable[[Any, Side], tuple[str, Any]]


class TreeDiff:
    """Two packed trees, node by node. `pairs` are (path, row before, row after) of tensors on both sides."""

    def __init__(self, before: Side, after: Side, selection: Selection, tolerance: Tolerance, show: Show) -> None:
        self._before, self._after = before, after
        self._selection = selection
        self._tolerance = tolerance
        self._show = show
        self.added: list[ValueDifference] = []
        self.removed: list[ValueDifference] = []
        self.changed: list[ValueDifference] = []
        self.pairs: list[tuple[str, int, int]] = []

    def compare(self) -> None:
        """Compare everything that is selected."""
        pending: list[tuple[Path, Any, Any]] = [((), self._before.tree, self._after.tree)]
        while pending:
            path, a, b = pending.pop()
            members, others = _members(a), _members(b)
            if members is None or others is None:
                if self._selection.has(path):
                    self._compare_leaves(path, a, b)
                continue
            if self._selection.has(path) and _shell(a) != _shell(b):
                self._change(path, a, b)
            for key in others.keys() - members.keys():
                self._add(self.added, path, *others[key], self._after)
            for key in members.keys() - others.keys():
                self._add(self.removed, path, *members[key], self._before)
            both = [((*path, text), child, others[key][1]) for key, (text, child) in members.items() if key in others]
            pending += reversed(both)
        self._compare_ties()
        self.added.sort(key=lambda difference: difference.path)
        self.removed.sort(key=lambda difference: difference.path)

    def _compare_ties(self) -> None:
        """Note which tensors are one on one side, and two on the other."""
        first_before: dict[int, str] = {}
        first_after: dict[int, str] = {}
        for path, a, b in self.pairs:
            names = first_before.setdefault(a, path), first_after.setdefault(b, path)
            if names[0] != names[1]:
                before, after = ("not tied" if name == path else f"tied to {name}" for name in names)
                self.changed.append(ValueDifference(path, before, after, TIE, TIE))

    def _add(self, found: list[ValueDifference], path: Path, text: str, node: Any, side: Side) -> None:
        for below, leaf in iter_leaves(node, where=side.path):
            here = (*path, text, *below)
            if self._selection.has(here):
                kind, value = self._show(leaf, side)
                is_added = side is self._after
                pair = (None, value, None, kind) if is_added else (value, None, kind, None)
                found.append(ValueDifference(".".join(here), *pair))

    def _change(self, path: Path, a: Any, b: Any) -> None:
        (kind, value), (other_kind, other) = self._show(a, self._before), self._show(b, self._after)
        self.changed.append(ValueDifference(".".join(path), value, other, kind, other_kind))

    def _compare_leaves(self, path: Path, a: Any, b: Any) -> None:
        rows, others = self._rows(a, self._before), self._rows(b, self._after)
        if len(rows) != len(others) or not self._is_same(_without_rows(a), _without_rows(b)):
            self._change(path, a, b)
        if len(rows) == len(others):
            for part, pair in enumerate(zip(rows, others, strict=True)):
                self.pairs.append((".".join(path) + (f"[{part}]" if len(rows) > 1 else ""), *pair))

    def _rows(self, node: Any, side: Side) -> list[int]:
        rows = tensor_ids(node)
        if any(not 0 <= row < len(side.rows) for row in rows):
            raise violation("E028", side.path, "the tree refers to a tensor that is not in the index", found=max(rows))
        return rows

    def _is_same(self, a: Any, b: Any) -> bool:
        if type(a) is float and type(b) is float:
            return self._tolerance.is_close(a, b)
        return type(a) is type(b) and bool(pack(a) == pack(b))


def _members(node: Any) -> dict[bytes, tuple[str, Any]] | None:
    """Return the children of a container by their whole keys, each with its text; None for a leaf. An empty container has none."""
    children = children_of(node)
    if children is None:
        return None
    keys = _keys(node)
    if keys is None:
        return {pack(text): (text, child) for text, child in children}
    return {pack(key): (key_text(key), child) for key, (_, child) in zip(keys, children, strict=True)}


def _keys(node: Any) -> Sequence[Any] | None:
    """Return the packed keys of a mapping: 1 and "1" have one text, and are two keys. None for a sequence."""
    tag = tag_of(node)
    while tag in _WRAPPER_TAGS:
        node = node[tag][1]
        tag = tag_of(node)
    if tag is None:
        return list(node) if type(node) is dict else None
    payload = node[tag]
    if tag in _PAIR_TAGS:
        return payload[::2]  # type: ignore[no-any-return]
    position = {"$state_dict": 0, "$defaultdict": 1}.get(tag)
    return None if position is None else payload[position][::2]


def _shell(node: Any) -> object:
    """Return what a container is apart from its children: its type, and what belongs to that."""
    tag = tag_of(node)
    if tag is None:
        return "dict" if type(node) is dict else type(node).__name__
    payload = node[tag]
    if tag in _WRAPPER_TAGS:
        return tag, pack(payload[0]), _shell(payload[1])
    if tag in ("$defaultdict", "$deque"):
        return tag, pack(payload[0])
    if tag == "$state_dict":
        return tag, pack(payload[1])
    return "dict" if tag == "$dict" else tag


def _without_rows(node: Any) -> Any:
    """Return a leaf with the tensors to which it refers left open: their numbers in the index mean nothing."""
    if type(node) is list:
        return [_without_rows(item) for item in node]
    if type(node) is not dict:
        return node
    payload = node.get("$tensor")
    if len(node) == 1 and type(payload) is list and payload and type(payload[0]) is int:
        return {"$tensor": [None, *payload[1:]]}
    return {key: _without_rows(value) for key, value in node.items()}
