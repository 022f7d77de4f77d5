"""What differs between two checkpoints: values of the state by path, tensors, metrics, step and fingerprint.

Two passes: the trees, which gives pairs of tensors, and then those pairs that are not equal by their digests. Of equal ones nothing
is read. What counts as equal is said in tree_diff and tensor_diff.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from ckptfmt.checkpoint.reader import OpenCheckpoint, TensorInfo
from ckptfmt.checkpoint.tensor_diff import compare_elements
from ckptfmt.checkpoint.tree_diff import Globs, Selection, Show, Side, Tolerance, TreeDiff, ValueDifference
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.disk.urls import location
from ckptfmt.errors import FormatError
from ckptfmt.format.fingerprint import Difference, FingerprintDocument, compare_documents, decode_document
from ckptfmt.format.metadata import TensorRow
from ckptfmt.format.tree_walk import ABSENT, tag_of
from ckptfmt.state.tree import outline_state

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """A tensor that is on both sides and not the same. Of different shapes nothing else is compared: the rest is None.

    `differing_count` counts elements beyond the tolerance; distances are None where there are no numbers to take one of.
    """

    path: str
    before: TensorInfo
    after: TensorInfo
    differing_count: int | None = None
    max_abs: int | float | None = None
    max_relative: float | None = None
    max_ulp: int | None = None
    nan_counts: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class DiffReport:
    """What differs between two checkpoints.

    `added`, `removed` and `changed` are values of the state, tensors that are on one side only among them; `manifest` holds step and
    metrics, `fingerprint` the fields of the experiment's identity. `equal_tensor_count` counts tensors without a difference,
    `equal_in_value` names those of them whose bytes are not the same.
    """

    before: str
    after: str
    added: tuple[ValueDifference, ...]
    removed: tuple[ValueDifference, ...]
    changed: tuple[ValueDifference, ...]
    tensors: tuple[TensorDifference, ...]
    manifest: tuple[ValueDifference, ...]
    fingerprint: tuple[Difference, ...]
    equal_tensor_count: int
    equal_in_value: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.added or self.removed or self.changed or self.tensors or self.manifest or self.fingerprint)


def diff(a: PathLike, b: PathLike, only: Globs = None, exclude: Globs = None, atol: float = 0.0, rtol: float = 0.0) -> DiffReport:
    """Compare two checkpoints.

    `only` and `exclude` are globs over paths of the state, each with everything below; step, metrics and fingerprint have the paths
    `@step`, `@metrics.loss`, `@fingerprint.config.lr`. Numbers are the same within `atol + rtol * max(|a|, |b|)`.

    Raises:
        CheckpointNotFoundError, IncompleteError: one of them is no checkpoint.
        CorruptError: a tensor that has to be read is damaged.
    """
    tolerance, selection = Tolerance(atol, rtol), Selection(only, exclude)
    with ExitStack() as stack:
        sides = [side_of(stack.enter_context(OpenCheckpoint(AnyDisk(), location(path)))) for path in (a, b)]
        return compare(sides[0], sides[1], selection, tolerance, _outlined)


def side_of(checkpoint: OpenCheckpoint) -> Side:
    """Return an open checkpoint as a side to compare."""
    metadata, manifest = checkpoint.metadata, checkpoint.manifest

    def digest_of(index: int) -> object:
        parts = []
        for chunk in metadata.tensors[index].chunks:
            table = metadata.shards[chunk.shard]
            encoding = table.encodings.get(chunk.slot)
            parts.append((chunk.offset, chunk.shape, encoding.raw_digest if encoding else table.digest(chunk.slot)))
        return tuple(sorted(parts))

    def verify(rows: Sequence[int]) -> None:
        checkpoint.store.check_headers(rows)
        checkpoint.store.verify_rows(rows)

    store = checkpoint.store
    described = (manifest.step, manifest.metrics, manifest.fingerprint)
    return Side(checkpoint.path, metadata.tree, metadata.tensors, store.memory, digest_of, verify, *described)


def _outlined(node: Any, side: Side) -> tuple[str, Any]:
    """Return type and value of a packed node for programs."""

    def describe(index: int) -> TensorInfo:
        return _info(side.rows[index])

    value = outline_state(node, describe)
    kind = "tensor" if isinstance(value, TensorInfo) else (tag_of(node) or type(value).__name__).removeprefix("$")
    return kind, value


def _info(row: TensorRow) -> TensorInfo:
    return TensorInfo(row.name, row.dtype, row.shape, row.size_bytes)


def compare(
    before: Side, after: Side, selection: Selection, tolerance: Tolerance, show: Show, on_bytes: Callable[[int], None] = lambda size: None
) -> DiffReport:
    """Compare two sides; `show` gives type and value of a packed node, `on_bytes` is told how much was compared."""
    trees = TreeDiff(before, after, selection, tolerance, show)
    trees.compare()
    tensors, in_value = _compare_tensors(before, after, trees.pairs, tolerance, on_bytes)
    return DiffReport(
        before=before.path,
        after=after.path,
        added=tuple(trees.added),
        removed=tuple(trees.removed),
        changed=tuple(trees.changed),
        tensors=tuple(tensors),
        manifest=tuple(_compare_manifests(before, after, selection, tolerance)),
        fingerprint=tuple(_compare_fingerprints(before, after, selection)),
        equal_tensor_count=len(trees.pairs) - len(tensors),
        equal_in_value=tuple(in_value),
    )


def _compare_tensors(
    before: Side, after: Side, pairs: Sequence[tuple[str, int, int]], tolerance: Tolerance, on_bytes: Callable[[int], None]
) -> tuple[list[TensorDifference], list[str]]:
    """The second pass. Return what differs, and the names of what is equal in value but not in bytes."""
    unequal = [(path, a, b) for path, a, b in pairs if not _is_equal_by_digest(before, a, after, b)]
    read = [(a, b) for _, a, b in unequal if before.rows[a].shape == after.rows[b].shape]
    before.verify(sorted({a for a, _ in read}))
    after.verify(sorted({b for _, b in read}))
    found: dict[tuple[int, int], TensorDifference | None] = {}
    distinct = list(dict.fromkeys((a, b) for _, a, b in unequal))
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="ckptfmt-diff") as pool:
        compared = pool.map(lambda pair: _compare_pair(before, pair[0], after, pair[1], tolerance), distinct)
        for (a, b), outcome in zip(distinct, compared, strict=True):
            found[a, b] = outcome
            on_bytes(before.rows[a].size_bytes + after.rows[b].size_bytes)
    differences, in_value = [], []
    for path, a, b in unequal:
        difference = found[a, b]
        if difference is None:
            if before.digest_of(a) is not None and after.digest_of(b) is not None:
                in_value.append(path)
        else:
            differences.append(replace(difference, path=path))
    return differences, in_value


def _is_equal_by_digest(before: Side, a: int, after: Side, b: int) -> bool:
    one, other = before.rows[a], after.rows[b]
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    digest = before.digest_of(a)
    return digest is not None and digest == after.digest_of(b)


def _compare_pair(before: Side, a: int, after: Side, b: int, tolerance: Tolerance) -> TensorDifference | None:
    one, other = before.rows[a], after.rows[b]
    if one.shape != other.shape:
        return TensorDifference("", _info(one), _info(other))
    found = compare_elements(before.memory(a), after.memory(b), atol=tolerance.atol, rtol=tolerance.rtol)
    if not found.differing_count and one.dtype == other.dtype:
        return None
    distances = (found.differing_count, found.max_abs, found.max_relative, found.max_ulp, found.nan_counts)
    return TensorDifference("", _info(one), _info(other), *distances)


def _compare_manifests(before: Side, after: Side, selection: Selection, tolerance: Tolerance) -> Iterator[ValueDifference]:
    if before.step != after.step and selection.has(("@step",)):
        yield ValueDifference("step", before.step, after.step, _type_name(before.step), _type_name(after.step))
    metrics, others = before.metrics or {}, after.metrics or {}
    for name in sorted(metrics.keys() | others.keys()):
        a, b = metrics.get(name), others.get(name)
        is_same = a is not None and b is not None and type(a) is type(b) and tolerance.is_close(a, b)
        if not is_same and selection.has(("@metrics", name)):
            yield ValueDifference(f"metrics.{name}", a, b, _type_name(a), _type_name(b))


def _type_name(value: Any) -> str | None:
    return None if value is None else type(value).__name__


def _compare_fingerprints(before: Side, after: Side, selection: Selection) -> Iterator[Difference]:
    if before.fingerprint == after.fingerprint:
        return
    try:
        one, other = (_document_of(side) for side in (before, after))
    except FormatError:
        # Any JSON object may be given to `save`; one that no Fingerprint made is compared by its members.
        yield from _compare_members(before.fingerprint or {}, after.fingerprint or {}, selection)
        return
    classes = {name: field.match for name, field in (*one.fields.items(), *other.fields.items())}
    for difference in compare_documents(one, other, cores={}, match_of=classes.__getitem__):
        if selection.has(("@fingerprint", *difference.field.split("."))):
            yield difference


def _document_of(side: Side) -> FingerprintDocument:
    return FingerprintDocument({}, "", None) if side.fingerprint is None else decode_document(side.fingerprint, where=side.path)


def _compare_members(before: Mapping[str, Any], after: Mapping[str, Any], selection: Selection) -> Iterator[Difference]:
    for name in sorted(before.keys() | after.keys()):
        a, b = before.get(name, ABSENT), after.get(name, ABSENT)
        if a != b and selection.has(("@fingerprint", name)):
            yield Difference(name, None if a is ABSENT else a, None if b is ABSENT else b, "error")
