"""What two paths of `diff` are, as sides that can be compared: checkpoints, or files from somewhere else.

A file knows only flat names of tensors. Against one, a checkpoint is compared by the tensors alone, whole or one section of it,
whichever has more names in common.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from ckpt_inspect.sources.location import Kind, NotReadableHereError, kind_of, without_final_slash
from ckpt_inspect.sources.safetensors_file import read_safetensors
from ckptfmt.checkpoint.diff import side_of
from ckptfmt.checkpoint.loading import open_checkpoint
from ckptfmt.checkpoint.tree_diff import Side
from ckptfmt.format.tree_walk import iter_tensors, tag_of
from ckptfmt.state.tensors import TensorMemory


def open_sides(paths: Sequence[str], stack: ExitStack) -> tuple[list[Side], bool]:
    """Open two paths; return the sides, and whether only tensors are compared. The stack closes them."""
    kinds = [_checked_kind(path) for path in paths]
    sides = [_open_file(path) if kind is Kind.FILE else _open(path, stack) for path, kind in zip(paths, kinds, strict=True)]
    if len(set(kinds)) == 1:
        return sides, kinds[0] is Kind.FILE
    file = sides[kinds.index(Kind.FILE)]
    names = {row.name for row in file.rows}
    return [side if side is file else _flattened(side, names) for side in sides], True


def _checked_kind(path: str) -> Kind:
    kind = kind_of(path)
    if kind is Kind.RUN:
        raise NotReadableHereError(
            f"{path}: expected a checkpoint, found a run\nGive one of its steps, such as {os.path.join(path, 'step-00000100')}"
        )
    if kind is Kind.JOURNAL:
        raise NotReadableHereError(f"{path}: expected a checkpoint, found a journal")
    return kind


def _open(path: str, stack: ExitStack) -> Side:
    return side_of(stack.enter_context(open_checkpoint(without_final_slash(path))))


def _open_file(path: str) -> Side:
    file = read_safetensors(path)
    with open(path, "rb") as opened:
        # Never closed by hand: arrays may still look at it. The memory goes with the last of them.
        whole = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))

    def memory(index: int) -> TensorMemory:
        row, begin = file.tensors[index], file.offsets[index]
        return TensorMemory(row.dtype, row.shape, whole[begin : begin + row.size_bytes])

    return Side(path, file.tree, file.tensors, memory, lambda index: None)


def _flattened(side: Side, names: set[str]) -> Side:
    """Return only the tensors of a checkpoint, under flat names, without that of their section if more of the given names fit then."""
    leaves = [(path, node) for path, node in iter_tensors(side.tree, where=side.path) if tag_of(node) == "$tensor"]
    candidates = [{".".join(path): node for path, node in leaves}]
    for section in dict.fromkeys(path[0] for path, _ in leaves if len(path) > 1):
        candidates.append({".".join(path[1:]): node for path, node in leaves if path[0] == section and len(path) > 1})
    best = max(candidates, key=lambda candidate: len(names & candidate.keys()))
    flat = [part for name, node in best.items() for part in (name, {"$tensor": [node["$tensor"][0], "torch", {}]})]
    return replace(side, tree={"$dict": flat}, step=None, metrics=None, fingerprint=None)
