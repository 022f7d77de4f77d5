"""Rounding float32 to the floats of two bytes: what a slot with the codec `rounded` holds. Spec 11.2.

Exactly what torch does when it casts; a writer compares before it relies on that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptfmt.format.plane_words import scratch

if TYPE_CHECKING:
    import numpy

    Words = numpy.ndarray[Any, Any]

BFLOAT16_NAN, FLOAT16_NAN = 0x7FC0, 0x7E00
LARGEST_NUMBER = 0x7F800000


def round_floats(raw: memoryview, to: str, out: memoryview) -> None:
    """Round the bytes of float32 values to `bfloat16` or `float16`, to the nearest, ties to even."""
    import numpy

    words, target = numpy.frombuffer(raw, "<u4"), numpy.frombuffer(out, "<u2")
    if not len(words):
        return
    work = scratch("rounded", len(words), "<u4")
    if to == "bfloat16":
        numpy.right_shift(words, 16, out=work)
        numpy.bitwise_and(work, 1, out=work)
        numpy.add(work, 0x7FFF, out=work)
        numpy.add(work, words, out=work)
        numpy.right_shift(work, 16, out=work)
        numpy.copyto(target, work, casting="unsafe")
    else:
        with numpy.errstate(over="ignore", invalid="ignore"):
            numpy.copyto(target.view("<f2"), words.view("<f4"), casting="same_kind")
    numpy.bitwise_and(words, 0x7FFFFFFF, out=work)
    if int(work.max()) > LARGEST_NUMBER:
        target[work > LARGEST_NUMBER] = BFLOAT16_NAN if to == "bfloat16" else FLOAT16_NAN
