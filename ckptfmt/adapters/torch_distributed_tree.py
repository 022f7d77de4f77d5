"""From the flat items of torch.distributed.checkpoint (DCP) back to the tree of a state, in packed form. Spec 8, 9.

DCP flattens a state to leaves with names (`optimizer.state.0.step`) and keeps a path for each, in which every mapping key is text.
A **structure** is the packed tree of a state with `{"$leaf": name}` in the place of each leaf. It is made from DCP's paths, or,
with all types, from the state itself (`exact_structure`). The one who publishes puts structures together and fills in the leaves.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ckptfmt.checkpoint.part import Part
from ckptfmt.checkpoint.shard_plan import name_tensors
from ckptfmt.errors import CheckpointError
from ckptfmt.format.metadata import TensorRow
from ckptfmt.format.packed import pack
from ckptfmt.format.tree_walk import tag_of
from ckptfmt.state.encode_walk import Encoder, EncodeWalk
from ckptfmt.state.places import Place
from ckptfmt.state.tree import encoder_for

Path = tuple[str | int, ...]
Described = tuple[tuple[str, ...], str, tuple[int, ...], int]
"""A tensor's path, element type, shape and size in bytes."""

_LEAF = "$leaf"
_FLAT = ("$dict", "$odict")


class _Leaf:
    """What stands for a leaf of DCP while a structure is made."""

    def __init__(self, name: str) -> None:
        self.name = name


def structure_of_paths(paths: Mapping[str, Path]) -> Any:
    """Return the structure that DCP's paths tell: mappings with text as keys, and lists."""
    root: dict[Any, Any] = {}
    for name, path in paths.items():
        container: Any = root
        for key, below in pairwise(path):
            container = _member(container, key, {} if type(below) is str else [])
        _put(container, path[-1], _Leaf(name))
    return _encode_structure(root)


def _member(container: Any, key: Any, new: Any) -> Any:
    if type(container) is dict:
        return container.setdefault(key, new)
    _extend(container, key)
    if container[key] is None:
        container[key] = new
    return container[key]


def _put(container: Any, key: Any, value: Any) -> None:
    if type(container) is list:
        _extend(container, key)
    container[key] = value


def _extend(members: list[Any], index: int) -> None:
    members.extend([None] * (index + 1 - len(members)))


def exact_structure(state: Mapping[Any, Any], paths: Mapping[str, Path]) -> Any:
    """Return the structure of a state with its types: keys as they are, ordered mappings, containers without members."""
    return _encode_structure(_shadow(state, (), paths))


def _shadow(value: Any, path: Path, paths: Mapping[str, Path]) -> Any:
    name = ".".join(map(str, path))
    if path and paths.get(name) == path:
        return _Leaf(name)
    if isinstance(value, Mapping):
        members = {key: _shadow(member, (*path, str(key)), paths) for key, member in value.items()}
        return _of_same_type(value, members)
    return [_shadow(member, (*path, position), paths) for position, member in enumerate(value)]


def _of_same_type(value: Mapping[Any, Any], members: dict[Any, Any]) -> Any:
    if type(value) is OrderedDict:
        ordered = OrderedDict(members)
        ordered.__dict__.update(value.__dict__)
        return ordered
    if type(value) is defaultdict:
        return defaultdict(value.default_factory, members)
    return members


def _encode_structure(shadow: Any) -> Any:
    return EncodeWalk(_structure_encoder).run(shadow)


def _structure_encoder(value: Any, place: Place) -> Encoder:
    if type(value) is _Leaf:
        return lambda walk, leaf, place: {_LEAF: leaf.name}
    return encoder_for(value, place)


def merge_structures(first: Any, second: Any) -> Any:
    """Return a structure with the leaves of both; where they contradict each other, the first one counts."""
    tag, other = tag_of(first), tag_of(second)
    if type(first) is list and type(second) is list:
        longer = [*first, *second[len(first) :]]
        return [merge_structures(node, second[place]) if place < len(second) else node for place, node in enumerate(longer)]
    if tag != other or type(first) is not dict or type(second) is not dict or tag == _LEAF:
        return second if first is None else first
    if tag is None:
        return {key: _merged(first, second, key) for key in (*first, *(key for key in second if key not in first))}
    if tag in _FLAT:
        return {tag: _merge_pairs(first[tag], second[tag])}
    if tag in ("$state_dict", "$defaultdict"):
        place = 0 if tag == "$state_dict" else 1
        payload = list(first[tag])
        payload[place] = _merge_pairs(payload[place], second[tag][place])
        return {tag: payload}
    return first


def _merged(first: Mapping[str, Any], second: Mapping[str, Any], key: str) -> Any:
    if key in first and key in second:
        return merge_structures(first[key], second[key])
    return first[key] if key in first else second[key]


def _merge_pairs(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    members = {pack(key): (key, value) for key, value in zip(first[::2], first[1::2], strict=True)}
    for key, value in zip(second[::2], second[1::2], strict=True):
        packed = pack(key)
        members[packed] = (key, merge_structures(members[packed][1], value) if packed in members else value)
    return [part for pair in members.values() for part in pair]


def value_tensor_name(process: int, number: int) -> str:
    """Return how chunks call the tensor of this number among those that the values of one process hold. No name of DCP is like it."""
    return f"\0{process}.{number}"


class TreeFiller:
    """Fills the leaves of a structure, and numbers the tensors in the order of the tree.

    Args:
        tensors: what is known of each leaf that is a tensor.
        parts: the notes of a part hold `values`, packed values by leaf, and `tensors`, (path, dtype, shape, size) of the tensors in them.
    """

    def __init__(self, tensors: Mapping[str, Described], parts: Iterable[Part]) -> None:
        self._tensors = dict(tensors)
        self._values: dict[str, tuple[int, Any]] = {}
        self._numbers: dict[str, int] = {}
        self._left = dict.fromkeys(tensors)
        for process, part in enumerate(parts):
            for number, (path, dtype, shape, size_bytes) in enumerate(part.notes["tensors"]):
                self._tensors[value_tensor_name(process, number)] = (tuple(path), dtype, tuple(shape), size_bytes)
            for name, value in part.notes["values"].items():
                self._values[name] = (process, value)
                self._left[name] = None

    def fill(self, structure: Any) -> tuple[Any, dict[str, TensorRow]]:
        """Return the packed tree, and its tensors by name in the order of their rows. The structure is used up."""
        holder = [structure]
        self._fill(holder)
        tree = holder[0]
        if self._left:
            # A planner of the application may have added leaves for which it gives no path.
            rest: dict[str, Any] = {name: {_LEAF: name} for name in self._left}
            self._fill(leaves := [rest])
            tree = merge_structures(tree, leaves[0])
        described = [self._tensors[name] for name in self._numbers]
        paths, dtypes, shapes, sizes = map(list, zip(*described, strict=True)) if described else ([], [], [], [])
        names = name_tensors(paths, {}, dtypes, shapes, sizes).names
        rows = [TensorRow(*facts, ()) for facts in zip(names, dtypes, shapes, sizes, strict=True)]
        return tree, dict(zip(self._numbers, rows, strict=True))

    def _fill(self, holder: list[Any]) -> None:
        pending: list[tuple[Any, Any, int | None]] = [(holder, 0, None)]
        while pending:
            container, key, process = pending.pop()
            node = container[key]
            tag = tag_of(node)
            if tag == _LEAF:
                container[key], process = self._content(node[_LEAF])
                if process is not None:
                    pending.append((container, key, process))
            elif tag == "$tensor":
                node[tag][0] = self._number(value_tensor_name(process or 0, node[tag][0]))
            elif type(node) is dict:
                pending.extend([(node, member, process) for member in reversed(node)])
            elif type(node) is list:
                pending.extend([(node, member, process) for member in reversed(range(len(node)))])

    def _content(self, name: str) -> tuple[Any, int | None]:
        self._left.pop(name, None)
        if name in self._values:
            process, value = self._values[name]
            return value, process
        if name not in self._tensors:
            raise CheckpointError(f"{name}: no process has written it\nThe planner of this save leaves it out, but names it in its paths.")
        return {"$tensor": [self._number(name), "torch", {}]}, None

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))
