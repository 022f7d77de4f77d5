"""What ranks plan, write and tell, for any layout of chunks, any tree and any sharing out, without processes.

A state is cut into chunks at random and dealt to ranks; writer and coordinator do their work one after the other; a plain load must
give the state back to the bit. The leaves that are found in a packed tree must be those that DCP's own flattening finds.
"""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType

import ckptfmt
from ckptfmt.adapters.torch_distributed import StorageReader, StorageWriter
from ckptfmt.adapters.torch_distributed_leaves import find_leaves
from ckptfmt.adapters.torch_distributed_tree import exact_structure, merge_structures, structure_of_paths
from ckptfmt.state.tree import encode_state

Box = tuple[tuple[int, ...], tuple[int, ...]]
DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float8_e5m2, torch.complex64]


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, ...]) -> list[Box]:
    """Cut a shape into boxes, some of them without elements."""
    found: list[Box] = []
    pending: list[Box] = [((0,) * len(shape), shape)]
    while pending:
        offset, size = pending.pop()
        axis = draw(st.integers(0, len(size))) if len(found) + len(pending) < 8 else len(size)
        if axis == len(size):
            found.append((offset, size))
            continue
        at = draw(st.integers(0, size[axis]))
        lower, upper, behind = list(size), list(size), list(offset)
        lower[axis], upper[axis], behind[axis] = at, size[axis] - at, offset[axis] + at
        pending += [(offset, tuple(lower)), (tuple(behind), tuple(upper))]
    return found


@st.composite
def layouts(draw: st.DrawFn) -> tuple[dict[str, torch.Tensor], list[list[tuple[str, Box]]]]:
    """Draw tensors, and for each rank which boxes of which it writes."""
    ranks: list[list[tuple[str, Box]]] = [[] for _ in range(draw(st.integers(1, 4)))]
    tensors = {}
    for number in range(draw(st.integers(1, 4))):
        shape = tuple(draw(st.lists(st.integers(0, 6), max_size=3)))
        name = draw(st.sampled_from(["model.w", "model.deep.v", "o", "optimizer.$m", "model.w@0"])) + str(number)
        generator = torch.Generator().manual_seed(number)
        tensors[name] = (torch.rand(shape, generator=generator) * 100).to(draw(st.sampled_from(DTYPES)))
        seen = set()
        for box in draw(boxes(shape)):
            # Of several with one offset DCP keeps one, as it does for shards without elements.
            if box[0] not in seen or 0 not in box[1]:
                ranks[draw(st.integers(0, len(ranks) - 1))].append((name, box))
                seen.add(box[0])
    return tensors, ranks


class _Planner:
    """The planner of one rank, as far as a storage writer knows it."""

    def __init__(self, tensors: dict[str, torch.Tensor], paths: dict[str, Any]) -> None:
        self.tensors = tensors
        self.mappings = paths

    def resolve_data(self, item: WriteItem) -> torch.Tensor:
        chunk = item.tensor_data.chunk  # type: ignore[union-attr]
        region = tuple(slice(begin, begin + size) for begin, size in zip(chunk.offsets, chunk.sizes, strict=True))
        return self.tensors[item.index.fqn][region]


def write_item(name: str, box: Box, tensor: torch.Tensor) -> WriteItem:
    """Return how DCP describes a chunk to be written."""
    chunk = ChunkStorageMetadata(torch.Size(box[0]), torch.Size(box[1]))
    data = TensorWriteData(chunk, TensorProperties(dtype=tensor.dtype), tensor.size())
    return WriteItem(MetadataIndex(name, box[0]), WriteItemType.SHARD, tensor_data=data)


@given(layout=layouts(), limit=st.sampled_from([1, 64, 10_000]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_layout_of_chunks_over_any_ranks_is_loaded_whole(layout: Any, limit: int) -> None:
    tensors, ranks = layout
    paths = {name: tuple(name.split(".")) for name in tensors}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "c"
        writers = [StorageWriter(path, max_shard_size=limit, durable=False) for _ in ranks]
        for rank, writer in enumerate(writers):
            writer.set_up_storage_writer(rank == 0, rank=rank, use_collectives=True)
        planner = _Planner(tensors, paths)
        local = [SavePlan([write_item(name, box, tensors[name]) for name, box in rank]) for rank in ranks]
        _, metadata = dcp.default_planner.create_default_global_save_plan(local)
        plans = writers[0].prepare_global_plan(local)
        results = [writer.write_data(plan, planner).value() for writer, plan in zip(writers, plans, strict=True)]
        writers[0].finish(dataclasses.replace(metadata, planner_data=paths), results)
        assert ckptfmt.verify(path).findings == ()
        loaded = flatten_state_dict(ckptfmt.load(path))[0]
        template = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(template, storage_reader=StorageReader(path), no_dist=True)  # type: ignore[arg-type]
    for name, tensor in tensors.items():
        for found in (loaded[name], template[name]):
            assert found.dtype == tensor.dtype
            assert found.shape == tensor.shape
            assert same_bytes(found, tensor)


def same_bytes(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Tell whether two tensors are equal to the bit."""
    return not first.numel() or torch.equal(_bytes_of(first), _bytes_of(second))


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).contiguous().view(torch.uint8)


KEYS = st.one_of(st.text("ab.$", min_size=1, max_size=3), st.integers(-1, 3), st.booleans())
LEAVES = st.one_of(st.integers(), st.none(), st.text(max_size=3), st.just(torch.ones(2)), st.just((1, torch.ones(1))), st.just({3}))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
        st.lists(inner, max_size=3),
    ),
    max_leaves=8,
)


@given(state=st.dictionaries(st.text("abc", min_size=1, max_size=2), TREES, max_size=3))
@settings(max_examples=150)
def test_the_leaves_of_a_packed_tree_are_those_that_dcp_finds(state: dict[str, Any]) -> None:
    try:
        flat, paths = flatten_state_dict(state)
    except ValueError:
        # Two leaves with one name: DCP does not save them, and says so.
        with pytest.raises(ckptfmt.UnsupportedTypeError, match="two values have the path"):
            find_leaves(encode_state(state).tree, where="c")
        return
    leaves = find_leaves(encode_state(state).tree, where="c")
    assert {name: leaf.path for name, leaf in leaves.items()} == paths
    assert {name for name, leaf in leaves.items() if leaf.row is not None} == {
        name for name, value in flat.items() if isinstance(value, torch.Tensor)
    }


@given(state=st.dictionaries(st.text("abc", min_size=1, max_size=2), TREES, max_size=3))
@settings(max_examples=100)
def test_a_structure_has_the_containers_of_its_state_and_merging_it_with_its_parts_changes_nothing(state: dict[str, Any]) -> None:
    try:
        _, paths = flatten_state_dict(state)
    except ValueError:
        return
    whole = exact_structure(state, paths)
    assert _leaf_names(whole) == list(paths)
    assert sorted(_leaf_names(structure_of_paths(paths))) == sorted(paths)
    for name in state:
        part = exact_structure({name: state[name]}, {leaf: path for leaf, path in paths.items() if path[0] == name})
        assert merge_structures(whole, part) == whole
    merged: Any = {}
    for name in state:
        merged = merge_structures(
            merged, exact_structure({name: state[name]}, {leaf: path for leaf, path in paths.items() if path[0] == name})
        )
    assert merged == whole


def _leaf_names(structure: Any) -> list[str]:
    if isinstance(structure, dict):
        if structure.keys() == {"$leaf"}:
            return [structure["$leaf"]]
        return [name for value in structure.values() for name in _leaf_names(value)]
    return [name for value in structure for name in _leaf_names(value)] if isinstance(structure, list) else []
