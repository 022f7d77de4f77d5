"""Words in the order of their source's: the fold of a difference between floats. Spec 11.4.

How far a float moves, in steps of its last bit, depends on its exponent, and the reader has that of the source. Sorted by it, words that
move alike stand together, and each class of them is turned until its significant bits fill the bytes that are coded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptfmt.format.plane_coding import FAST, encode_plane
from ckptfmt.format.plane_words import FOLD_ROTATED, FOLD_ZIGZAG, cut_plane, fold, scratch, unfold

if TYPE_CHECKING:
    import numpy

    Words = numpy.ndarray[Any, Any]

CLASS_LIMIT = 256
MIN_RUN_WORDS = 3000
MAX_TRIED_WORDS, MIN_TRIED_WORDS = 2**12, 2**7
RARE = 0.001


@dataclass(frozen=True, slots=True)
class SourceOrder:
    """The order of a block's words: where each stands in the source, and the runs of those of one class with how far they are turned."""

    places: Words
    runs: tuple[tuple[int, int, int], ...]

    @property
    def cuts(self) -> list[int]:
        """Where words begin to behave otherwise, with some thousands between."""
        cuts: list[int] = []
        for begin, _, _ in self.runs[1:]:
            if begin - (cuts[-1] if cuts else 0) >= MIN_RUN_WORDS and len(self.places) - begin >= MIN_RUN_WORDS:
                cuts.append(begin)
        return cuts


def find_order(source: Words, base: int, turns: Words) -> SourceOrder:
    """Return the order for the words of a source, given the lowest class and how far the words of each class are turned."""
    import numpy

    classes = scratch("classes", len(source), "u1")
    numpy.copyto(classes, _top_bytes(source), casting="unsafe")
    numpy.maximum(classes, base, out=classes)
    numpy.subtract(classes, base, out=classes)
    numpy.minimum(classes, len(turns) - 1, out=classes)
    places = numpy.argsort(classes, kind="stable")
    begins = numpy.searchsorted(classes[places], numpy.arange(len(turns), dtype=numpy.uint8)).tolist()
    runs = zip(begins, [*begins[1:], len(source)], turns.tolist(), strict=True)
    return SourceOrder(places, tuple(run for run in runs if run[0] < run[1]))


def _top_bytes(words: Words) -> Words:
    """Return the highest bytes of words of which the sign was moved to the lowest bit."""
    import numpy

    shifted = numpy.left_shift(words, 1, out=scratch("shifted", len(words), words.dtype.str))
    return numpy.right_shift(shifted, 8 * words.itemsize - 8, out=shifted)


def differences(words: Words, source: Words, name: str) -> Words:
    """Return what is to be added to a source, both rotated, as 2n and -2n - 1, in memory of this thread."""
    import numpy

    count, dtype = len(words), words.dtype.str
    moved = fold(words, FOLD_ROTATED, scratch(f"{name} moved", count, dtype))
    numpy.subtract(moved, fold(source, FOLD_ROTATED, scratch("of source", count, dtype)), out=moved)
    return fold(moved, FOLD_ZIGZAG, scratch(name, count, dtype))


def put_in_order(words: Words, order: SourceOrder, name: str) -> Words:
    """Return words in an order, turned left by class."""
    import numpy

    ordered = scratch(name, len(words), words.dtype.str)
    numpy.take(words, order.places, out=ordered, mode="clip")
    for begin, end, turn in order.runs:
        _turn(ordered[begin:end], turn)
    return ordered


def put_back_in_place(ordered: Words, order: SourceOrder, source: Words, out: Words) -> None:
    """Undo `put_in_order` and `differences`: write the words that differ so from a source to `out`; overwrites `ordered`."""
    import numpy

    count, dtype = len(ordered), ordered.dtype.str
    for begin, end, turn in order.runs:
        _turn(ordered[begin:end], -turn % (8 * ordered.itemsize))
    unfold(ordered, FOLD_ZIGZAG, ordered)
    words = scratch("in place", count, dtype)
    words[order.places] = ordered
    numpy.add(words, fold(source, FOLD_ROTATED, scratch("of source", count, dtype)), out=words)
    unfold(words, FOLD_ROTATED, out)


def _turn(words: Words, bits: int) -> None:
    """Rotate words to the left, in place."""
    import numpy

    if not bits:
        return
    top = numpy.right_shift(words, 8 * words.itemsize - bits, out=scratch("top", len(words), words.dtype.str))
    numpy.left_shift(words, bits, out=words)
    numpy.bitwise_or(words, top, out=words)


def plan_turns(words: Words, source: Words) -> tuple[int, bytes]:
    """Return the lowest class and how far the words of each class are turned, from samples of a tensor and of its source."""
    import numpy

    difference = differences(words, source, "sampled")
    tops = _top_bytes(source)
    known = numpy.flatnonzero(numpy.bincount(tops, minlength=CLASS_LIMIT) > RARE * len(tops))
    first, last = int(known[0]), int(known[-1])
    turns = bytearray()
    for top in range(first, last + 1):
        of_class = difference[tops == top]
        is_known = len(of_class) >= MIN_TRIED_WORDS
        turns.append(_best_turn(of_class[:MAX_TRIED_WORDS]) if is_known else turns[-1] if turns else 0)
    return first, bytes(turns)


def _best_turn(words: Words) -> int:
    """Return how far words are best turned before their bytes are coded one by one, by coding some of them."""
    import numpy

    bits: int = 8 * words.itemsize
    lengths: list[int] = numpy.sort(numpy.frexp(words.astype(numpy.float64))[1]).tolist()
    most, many = lengths[-1 - len(lengths) // 100], lengths[len(lengths) // 2]
    tried: list[int] = sorted({0, *range(max(0, bits - most - 2), min(bits, bits - many + 2))})
    coded_bytes = {turn: _coded_bytes(words, turn) for turn in tried}
    return next(turn for turn in tried if coded_bytes[turn] == min(coded_bytes.values()))


def _coded_bytes(words: Words, turn: int) -> int:
    turned = scratch("tried", len(words), words.dtype.str)
    turned[:] = words
    _turn(turned, turn)
    planes = (cut_plane(turned, shift, 1, 0, "tried plane") for shift in range(0, 8 * words.itemsize, 8))
    return sum(len(encode_plane(plane, 1, FAST)[1]) for plane in planes)
