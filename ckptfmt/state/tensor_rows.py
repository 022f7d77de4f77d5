"""Which row of the tensor index each reference of an encoded state gets, and what the rows hold. Spec 9.1 and 9.3.

Rows are in the order of their first references in the tree. Nearly every tensor has its memory for itself; those which might
share it are found by their addresses, and only they are looked at more closely.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, cast

from ckptfmt.state import numpy_arrays, torch_tensors
from ckptfmt.state.encode_leaves import Leaves, TensorLeaf
from ckptfmt.state.encode_walk import EncodeWalk
from ckptfmt.state.places import Place, names_below_all
from ckptfmt.state.source_columns import SourceColumns
from ckptfmt.state.tensors import LiveTensor
from ckptfmt.state.ties import SharedRow, find_intersecting, plan_shared_rows
from ckptfmt.state.torch_batch import Form, PlainTensors, find_plain
from ckptfmt.state.torch_sparse import encode_any_tensor

STORAGE_KEY = "__storage__"
PLAIN_SPACE = "torch"


def place_tensors(leaves: Leaves) -> SourceColumns:
    """Give every reference its row, ordinary tensors also their nodes, and return the rows' sources."""
    plain = find_plain(leaves.values)
    forms = plain.forms
    closer = {position: _closer(leaves, position) for position, form in enumerate(forms) if form is None}
    for position in _find_suspects(plain, closer):
        forms[position] = None
        closer[position] = _closer(leaves, position)
    shared = _plan_shared(closer)
    sources = SourceColumns()
    begin = 0
    for position in [*sorted(closer), len(forms)]:
        _place_plain(leaves, plain, begin, position, sources)
        begin = position + 1
        if position in shared:
            if closer[position].reference[0] < 0:
                _place_shared(shared[position], closer, len(sources))
                sources.append(_shared_source(shared[position], closer))
        elif position in closer:
            leaf = closer[position]
            leaf.reference[0] = len(sources)
            leaf.source.keys = leaf.place.names()
            sources.append(leaf.source)
    return sources


def _place_plain(leaves: Leaves, plain: PlainTensors, begin: int, end: int, sources: SourceColumns) -> None:
    """Place the plain tensors of some positions."""
    if begin == end:
        return
    some = slice(begin, end)
    rows = zip(count(len(sources)), leaves.targets[some], leaves.slots[some], plain.kinds[some], strict=False)
    for row, target, slot, (kind, attributes) in rows:
        target[slot] = {"$tensor": [row, kind, attributes]}
    paths = names_below_all(leaves.aboves[some], leaves.steps[some])
    sources.extend_plain(paths, cast(list[Form], plain.forms[some]), leaves.values[some])


def _closer(leaves: Leaves, position: int) -> TensorLeaf:
    """Look at a tensor more closely: return all that is known of it."""
    value, above, step = leaves.values[position], leaves.aboves[position], leaves.steps[position]
    if isinstance(value, TensorLeaf) or above is None:
        return cast(TensorLeaf, value)
    walk = EncodeWalk(_no_encoder)
    node = encode_any_tensor(walk, value, Place(above, step, above.level + 1, above.is_key))
    leaves.targets[position][leaves.slots[position]] = node
    return cast(TensorLeaf, walk.leaves.values[0])


def _no_encoder(value: Any, place: Place) -> Any:
    raise TypeError(f"{place.text()}: a dense tensor holds no further values")


def _find_suspects(plain: PlainTensors, closer: Mapping[int, TensorLeaf]) -> list[int]:
    """Return the positions of plain tensors that may share memory with others of torch."""
    positions = [position for position, form in enumerate(plain.forms) if form is not None]
    others = [leaf for leaf in closer.values() if leaf.space == PLAIN_SPACE and leaf.stop > leaf.start]
    starts = [plain.addresses[position] for position in positions]
    stops = [address + form.size_bytes for address, form in zip(plain.addresses, plain.forms, strict=True) if form is not None]
    starts += [leaf.start for leaf in others]
    stops += [leaf.stop for leaf in others]
    return [positions[index] for index in find_intersecting(starts, stops) if index < len(positions)]


def _plan_shared(closer: Mapping[int, TensorLeaf]) -> dict[int, SharedRow]:
    """Return for each position that shares a row with others that row, with positions in the place of indices."""
    positions = sorted(closer)
    shared: dict[int, SharedRow] = {}
    for row in plan_shared_rows([closer[position] for position in positions]):
        row.exact = [positions[index] for index in row.exact]
        row.views = [(positions[index], offset) for index, offset in row.views]
        shared.update(dict.fromkeys([*row.exact, *(position for position, _ in row.views)], row))
    return shared


def _place_shared(row: SharedRow, leaves: Mapping[int, TensorLeaf], number: int) -> None:
    for position in row.exact:
        if row.views:
            # A row with views is in C order; strides could only tell of axes of length one, and views would contradict them.
            leaves[position].reference[2].pop("strides", None)
        leaves[position].reference[0] = number
    for position, offset in row.views:
        leaf = leaves[position]
        attributes = leaf.reference[2]
        attributes.pop("strides", None)
        attributes["view"] = [offset, leaf.dtype, list(leaf.shape), list(leaf.strides)]
        leaf.reference[0] = number


def _shared_source(row: SharedRow, leaves: Mapping[int, TensorLeaf]) -> LiveTensor:
    if row.exact:
        source = leaves[row.exact[0]].source
        source.keys, *source.aliases = (leaves[position].place.names() for position in row.exact)
        return source
    members = [leaves[position] for position, _ in row.views]
    range_source = torch_tensors.range_source if members[0].space != "numpy" else numpy_arrays.range_source
    source = range_source(members, row.start, row.stop)
    source.keys = (*members[0].place.names(), STORAGE_KEY)
    return source
