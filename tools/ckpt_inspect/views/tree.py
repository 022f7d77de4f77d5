"""The state tree with types and values, long lists cut short; for JSON whole, one entry for each value.

It is shown from its packed form: no value is built, so a state of any library is shown where none is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP
from ckpt_inspect.output.visible import columns, cut_end, cut_middle, padded, visible
from ckpt_inspect.views.json_values import plain_value
from ckpt_inspect.views.tensor_nodes import TensorTexts, find_row
from ckpt_inspect.views.values import fitted, is_inline, text_of, type_of
from ckptfmt.format.layout import MAX_STATE_DEPTH
from ckptfmt.format.metadata import TensorRow
from ckptfmt.format.tree_walk import children_of, iter_leaves, tag_of

_SHOWN_ITEMS = 5
_MANY_ITEMS = 8
_MANY_MEMBERS = 200
_MAX_INDENT_LEVELS = 16
_MAX_KEY = 48
_MIN_TEXT = 20

Matches = Callable[[str], bool]


class TreeView:
    """One tree, to be shown or to be turned into JSON. `matches` selects paths, with everything below them."""

    def __init__(self, tree: Any, rows: Sequence[TensorRow], matches: Matches | None = None) -> None:
        self._tree = tree
        self._rows = rows
        self._tensors = TensorTexts(iter_leaves(tree), rows)
        self._wanted = None if matches is None else _wanted_paths(tree, matches)

    def lines(self, screen: Screen) -> Iterator[str]:
        """Yield the tree, each level indented by two columns."""
        if self._wanted is not None and () not in self._wanted:
            yield screen.style.dim("nothing in the state matches")
            return
        if is_inline(self._tree) or self._is_tensor(self._tree):
            yield self._described(self._tree, (), screen.cut_width)
            return
        yield from self._level(self._tree, (), screen)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield every value as a JSON object, what holds others before what it holds."""
        pending: list[tuple[tuple[str, ...], Any]] = [((), self._tree)]
        while pending:
            path, node = pending.pop()
            if not self._is_wanted(path):
                continue
            children = None if self._is_tensor(node) else children_of(node)
            entry: dict[str, Any] = {"path": ".".join(path), "type": type_of(node)}
            if children is not None:
                entry["item_count"] = len(children)
                if len(path) < MAX_STATE_DEPTH:
                    pending.extend(((*path, key), child) for key, child in reversed(children))
            else:
                entry |= self._entry(node, ".".join(path))
            yield entry

    def _entry(self, node: Any, path: str) -> dict[str, Any]:
        row = find_row(node, self._rows)
        if row is not None:
            _, kind, attributes = node["$tensor"]
            tied = self._tensors.tied_to(node, path)
            described = {"dtype": row.dtype, "shape": list(row.shape), "size_bytes": row.size_bytes, "kind": kind, "tied_to": tied}
            return described | ({"attributes": plain_value(attributes)} if attributes else {})
        if node is None or type(node) in (bool, int, str):
            return {"value": node}
        if type(node) is float and node - node == 0:
            return {"value": node}
        return {"value": text_of(node)}

    def _is_tensor(self, node: Any) -> bool:
        return tag_of(node) in ("$tensor", "$sparse")

    def _is_wanted(self, path: tuple[str, ...]) -> bool:
        return self._wanted is None or path in self._wanted

    def _level(self, node: Any, path: tuple[str, ...], screen: Screen) -> Iterator[str]:
        indent = "  " * min(len(path), _MAX_INDENT_LEVELS)
        children = [(key, child) for key, child in children_of(node) or () if self._is_wanted((*path, key))]
        shown = children if screen.verbosity else children[: _shown_count(node, children)]
        keys = [cut_middle(visible(key) or "''", _MAX_KEY) for key, _ in shown]
        flat = [self._is_tensor(child) or is_inline(child) for _, child in shown]
        width = max((columns(key) for key, is_flat in zip(keys, flat, strict=True) if is_flat), default=0)
        for (key, child), label, is_flat in zip(shown, keys, flat, strict=True):
            below = (*path, key)
            if is_flat:
                room = max(screen.cut_width - len(indent) - width - len(GAP), _MIN_TEXT)
                yield f"{indent}{padded(label, width)}{GAP}{self._described(child, below, room)}"
                continue
            count = len(children_of(child) or ())
            yield f"{indent}{screen.style.bold(label)}{GAP}{screen.style.dim(f'{type_of(child)} of {count:,}')}"
            if len(below) > MAX_STATE_DEPTH:
                yield f"{indent}  ..."
            else:
                yield from self._level(child, below, screen)
        if len(shown) < len(children):
            yield indent + screen.style.dim(f"... and {len(children) - len(shown):,} more (-v shows all)")

    def _described(self, node: Any, path: tuple[str, ...], width: int) -> str:
        if self._is_tensor(node):
            return cut_end(self._tensors.text(node, ".".join(path)), width)
        kind = type_of(node)
        return cut_end(f"{kind} {fitted(node, width - len(kind) - 1)}".rstrip(), width)


def _shown_count(node: Any, children: Sequence[tuple[str, Any]]) -> int:
    """Return how many children to show: of long lists the first few, of mappings nearly always all."""
    is_numbered = all(key.isdecimal() for key, _ in children)
    return _SHOWN_ITEMS if len(children) > (_MANY_ITEMS if is_numbered else _MANY_MEMBERS) else len(children)


def _wanted_paths(tree: Any, matches: Matches) -> set[tuple[str, ...]]:
    """Return the paths to show: those that match, what is below them, and what holds them."""
    wanted: set[tuple[str, ...]] = set()
    for path, _ in iter_leaves(tree):
        texts = (".".join(path[: length + 1]) for length in range(len(path)))
        if any(map(matches, texts)):
            wanted.update(path[:length] for length in range(len(path) + 1))
    return wanted
