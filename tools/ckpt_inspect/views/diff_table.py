"""What differs between two checkpoints: values one line each, tensors as a table, everything cut where there is much of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP, Column, Table, name_column, number_column, text_column
from ckpt_inspect.output.units import count_text, number_text, short_number
from ckpt_inspect.output.visible import columns, cut_end, cut_middle, padded, visible
from ckpt_inspect.views.json_values import plain_value
from ckpt_inspect.views.values import dtype_text, text_of, type_of
from ckptfmt.checkpoint.diff import DiffReport, TensorDifference
from ckptfmt.checkpoint.tree_diff import TIE, ValueDifference
from ckptfmt.format.fingerprint import Difference
from ckptfmt.format.tree_walk import children_of, tag_of

_SHOWN = 20
_MAX_PATH = 40
_MAX_KIND = 30


def diff_lines(report: DiffReport, screen: Screen, *, is_tensors_only: bool) -> Iterator[str]:
    """Yield what differs, or one line that nothing does."""
    room = screen.cut_width - 2 * len(GAP) - 1
    for label, path in (("A", report.before), ("B", report.after)):
        yield f"{GAP}{screen.style.dim(label)}{GAP}{cut_middle(visible(path), room)}"
    if is_tensors_only:
        yield screen.style.dim(f"{GAP}a .safetensors file holds tensors only: nothing else is compared")
    yield ""
    if report.same:
        yield f"{screen.style.green('no difference')}{GAP}{_equal_text(report)}"
        return
    yield from _section("step and metrics", report.manifest, _metric_text, screen)
    yield from _section("fingerprint", report.fingerprint, _field_text, screen)
    yield from _section("only in A", report.removed, _one_side_text, screen)
    yield from _section("only in B", report.added, _one_side_text, screen)
    yield from _section("values", report.changed, _change_text, screen)
    yield from _tensor_lines(report, screen)
    yield screen.style.dim(_equal_text(report))


def _equal_text(report: DiffReport) -> str:
    text = f"{count_text(report.equal_tensor_count, 'tensor')} equal"
    if report.equal_in_value:
        text += f", {len(report.equal_in_value):,} of them in value only: signs of zeros, or the bits of NaN"
    return text


def _section(title: str, found: Sequence[Any], text: Callable[[Any], tuple[str, str]], screen: Screen) -> Iterator[str]:
    if not found:
        return
    yield screen.style.bold(f"{title} ({len(found):,})")
    shown = found if screen.verbosity else found[:_SHOWN]
    pairs = [text(difference) for difference in shown]
    width = min(max(columns(path) for path, _ in pairs), _MAX_PATH)
    room = screen.cut_width - width - 2 * len(GAP)
    for path, described in pairs:
        yield f"{GAP}{padded(cut_middle(path, width), width)}{GAP}{cut_end(described, room)}"
    if len(shown) < len(found):
        yield GAP + screen.style.dim(f"... and {len(found) - len(shown):,} more (-v shows all)")
    yield ""


def _metric_text(difference: ValueDifference) -> tuple[str, str]:
    before, after = ("none" if value is None else number_text(value) for value in (difference.before, difference.after))
    if before == after:
        before, after = f"{difference.before_type} {difference.before!r}", f"{difference.after_type} {difference.after!r}"
    return visible(difference.path), f"{before} -> {after}"


def _field_text(difference: Difference) -> tuple[str, str]:
    before, after = ("none" if value is None else visible(str(value)) for value in (difference.expected, difference.found))
    return visible(difference.field), f"{before} -> {after}"


def _one_side_text(difference: ValueDifference) -> tuple[str, str]:
    is_before = difference.before_type is not None
    return visible(difference.path), _described(difference.before if is_before else difference.after)


def _change_text(difference: ValueDifference) -> tuple[str, str]:
    path = visible(difference.path) or "(the state)"
    if difference.before_type == TIE:
        return path, f"{visible(difference.before)} -> {visible(difference.after)}"
    before, after = _described(difference.before), _described(difference.after)
    if difference.before_type == difference.after_type:
        kind = str(difference.before_type)
        before, after = (text.removeprefix(kind).lstrip() or text for text in (before, after))
        before = f"{kind} {before}" if before != kind else before
    if before.removeprefix(str(difference.before_type)).lstrip() == after:
        return path, f"{before}, of another kind"
    return path, f"{before} -> {after}"


def _described(node: Any) -> str:
    """Return a packed value as type and text."""
    kind = type_of(node)
    if tag_of(node) == "$tensor":
        attributes = node["$tensor"][2] if len(node["$tensor"]) > 2 else {}
        return visible(f"{node['$tensor'][1]} {kind}" + (f" {attributes}" if attributes else ""))
    children = children_of(node)
    return f"{kind} of {len(children):,}" if children else f"{kind} {text_of(node)}".rstrip()


def _tensor_lines(report: DiffReport, screen: Screen) -> Iterator[str]:
    found = report.tensors
    if not found:
        return
    yield screen.style.bold(f"tensors ({len(found):,})")
    shown = found if screen.verbosity else found[:_SHOWN]
    has_nans = any(difference.nan_counts and any(difference.nan_counts) for difference in shown)
    heads = [name_column("name"), Column("type and shape")]
    heads += map(number_column, ("differ", "max abs", "max rel", "max ULP"))
    heads += [text_column("NaN")] if has_nans else []
    rows = [_tensor_row(difference, has_nans=has_nans) for difference in shown]
    table = Table(heads, rows, screen.cut_width - len(GAP))
    yield GAP + screen.style.dim(table.header())
    yield from (GAP + table.line(row) for row in rows)
    if len(shown) < len(found):
        yield GAP + screen.style.dim(f"... and {len(found) - len(shown):,} more (-v shows all)")
    yield ""


def _tensor_row(difference: TensorDifference, *, has_nans: bool) -> list[str]:
    before, after = difference.before, difference.after
    dtypes, shapes = [dtype_text(side.dtype) for side in (before, after)], [str(list(side.shape)) for side in (before, after)]
    kind = " ".join(sides[0] if sides[0] == sides[1] else " -> ".join(sides) for sides in (dtypes, shapes))
    count = "" if difference.differing_count is None else f"{difference.differing_count:,}"
    distances = ["" if value is None else short_number(value) for value in (difference.max_abs, difference.max_relative)]
    row = [
        visible(difference.path),
        cut_end(kind, _MAX_KIND),
        count,
        *distances,
        "" if difference.max_ulp is None else _ulp_text(difference.max_ulp),
    ]
    if has_nans:
        nans = difference.nan_counts or (0, 0)
        row.append(f"{nans[0]:,} -> {nans[1]:,}" if any(nans) else "")
    return row


def _ulp_text(count: int) -> str:
    return f"{count:,}" if count < 1_000_000 else f"{count:.1e}"


def diff_document(report: DiffReport, *, is_tensors_only: bool) -> dict[str, Any]:
    """Return a report as a JSON object."""
    return {
        "kind": "diff",
        "a": report.before,
        "b": report.after,
        "same": report.same,
        "tensors_only": is_tensors_only,
        "manifest": [_plain_difference(difference) for difference in report.manifest],
        "fingerprint": [
            {"field": field.field, "a": plain_value(field.expected), "b": plain_value(field.found), "severity": field.severity}
            for field in report.fingerprint
        ],
        "removed": [_value_document(difference) for difference in report.removed],
        "added": [_value_document(difference) for difference in report.added],
        "changed": [_value_document(difference) for difference in report.changed],
        "tensors": [_tensor_document(difference) for difference in report.tensors],
        "equal_tensor_count": report.equal_tensor_count,
        "equal_in_value": list(report.equal_in_value),
    }


def _plain_difference(difference: ValueDifference) -> dict[str, Any]:
    return {"path": difference.path, "a": plain_value(difference.before), "b": plain_value(difference.after)}


def _value_document(difference: ValueDifference) -> dict[str, Any]:
    is_tie = TIE in (difference.before_type, difference.after_type)
    return {
        "path": difference.path,
        "a_type": difference.before_type,
        "b_type": difference.after_type,
        "a": difference.before if is_tie or difference.before_type is None else _json_value(difference.before),
        "b": difference.after if is_tie or difference.after_type is None else _json_value(difference.after),
    }


def _json_value(node: Any) -> Any:
    return plain_value(node) if node is None or type(node) in (bool, int, float, str) else _described(node)


def _tensor_document(difference: TensorDifference) -> dict[str, Any]:
    return {
        "path": difference.path,
        "a": {"dtype": difference.before.dtype, "shape": list(difference.before.shape)},
        "b": {"dtype": difference.after.dtype, "shape": list(difference.after.shape)},
        "differing_count": difference.differing_count,
        "max_abs": plain_value(difference.max_abs),
        "max_relative": plain_value(difference.max_relative),
        "max_ulp": difference.max_ulp,
        "nan_counts": None if difference.nan_counts is None else list(difference.nan_counts),
    }
