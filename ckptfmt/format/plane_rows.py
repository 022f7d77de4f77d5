"""Rows and columns of a tensor, and what they say of the size of its elements: taken off before coding, put back after. Spec 11.1.

Moments of an optimizer are large where their row and their column are. Both are told in steps of an eighth of an octave, one
signed byte for each; a float's bits, read as an integer, are close enough to its logarithm for that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

    Words = numpy.ndarray[Any, Any]

STEP_BITS = 3
LOOKED_AT = 64
WORTH_PREDICTING_BITS = 0.04


def find_columns(words: Words, row_count: int, shift: int) -> tuple[bytes, int] | None:
    """Return what to take off each column, and the centre from which rows are measured, in steps.

    `words` is a sample of folded rows of a tensor that has `row_count`. None where rows and columns tell too little.
    """
    import numpy

    stride = max(1, words.shape[1] // LOOKED_AT)
    steps = _steps(words[:, ::stride], shift)
    centre = round(float(_mean(steps.reshape(1, -1), axis=1)[0]))
    steps = numpy.where(numpy.isnan(steps), 0, steps - centre)
    rest = steps - steps.mean(axis=1, keepdims=True)
    rest -= rest.mean(axis=0, keepdims=True)
    freedom = max(1, (steps.shape[0] - 1) * (steps.shape[1] - 1))
    spread, rest_spread = float(numpy.square(steps).sum()) / max(1, steps.size - 1), float(numpy.square(rest).sum()) / freedom
    # What normal distributions of these spreads would need; a step of their own width keeps it finite.
    gained_bits = 0.5 * math.log2((spread + 1) / (rest_spread + 1))
    if gained_bits < WORTH_PREDICTING_BITS + 8 / words.shape[1] + 8 / row_count:
        return None
    steps = _steps(words, shift)
    return _to_bytes(_mean(steps - _mean(steps, axis=1)[:, None], axis=0)).tobytes(), centre


def _steps(words: Words, shift: int) -> Words:
    """Return folded words in steps, NaN for zeros, which tell nothing."""
    import numpy

    steps: Words = (words >> words.dtype.type(shift)).astype(numpy.float32)
    if words.min() < 2:
        steps[words < 2] = numpy.nan
    return steps


def _mean(values: Words, axis: int) -> Words:
    import numpy

    means: Words = numpy.add.reduce(values, axis=axis) / numpy.float32(values.shape[axis])
    if numpy.isnan(means).any():
        is_known = ~numpy.isnan(values)
        means = numpy.where(is_known, values, 0).sum(axis=axis) / numpy.maximum(is_known.sum(axis=axis), 1)
    return means


def _to_bytes(values: Words) -> Words:
    import numpy

    rounded: Words = numpy.clip(numpy.rint(values), -128, 127).astype(numpy.int8)
    return rounded


def find_rows(words: Words, columns: Words, centre: int, shift: int) -> Words:
    """Return what to take off each row of folded words, given what is taken off columns."""
    stride = max(1, words.shape[1] // LOOKED_AT)
    return _to_bytes(_mean(_steps(words[:, ::stride], shift) - columns[::stride], axis=1) - centre)


def take_off(words: Words, rows: Words, columns: Words, shift: int) -> None:
    """Take rows and columns off a block of folded words, in place."""
    import numpy

    for table in (_shifted(columns, words, shift), _shifted(rows, words, shift)[:, None]):
        numpy.subtract(words, table, out=words)


def put_back(words: Words, rows: Words, columns: Words, shift: int) -> None:
    """Undo `take_off`."""
    import numpy

    for table in (_shifted(columns, words, shift), _shifted(rows, words, shift)[:, None]):
        numpy.add(words, table, out=words)


def _shifted(table: Words, words: Words, shift: int) -> Words:
    shifted: Words = table.astype(f"<i{words.dtype.itemsize}").view(words.dtype) << words.dtype.type(shift)
    return shifted
