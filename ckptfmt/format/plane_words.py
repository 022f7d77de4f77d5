"""Words as planes: folding a word's sign away, cutting words into planes of bytes, and merging planes again. Spec 11.1.

Every step is one pass over a whole block by operations on words, in memory that each thread uses again and again: a block fits into
a core's cache, so a pass costs little beside coding and hashing. Nothing here knows of streams or compressors.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

    Words = numpy.ndarray[Any, Any]

FOLD_NONE, FOLD_ROTATED, FOLD_ZIGZAG, FOLD_BITS, FOLD_SOURCE = range(5)
SPARE_BITS = (0, 1, 2, 4)
PACK_BYTES = 8

_scratch = threading.local()


def scratch(name: str, count: int, dtype: str) -> Words:
    """Return an array of this thread that keeps its memory for the next call with the same name; its content is arbitrary."""
    import numpy

    arrays: dict[str, Words] = _scratch.__dict__
    size_bytes = count * numpy.dtype(dtype).itemsize
    memory = arrays.get(name)
    if memory is None or len(memory) < size_bytes:
        memory = arrays[name] = numpy.empty(size_bytes, numpy.uint8)
    return memory[:size_bytes].view(dtype)


def word_type(word_bytes: int) -> str:
    """Return numpy's name of an unsigned little-endian word."""
    return f"<u{word_bytes}"


def fold(words: Words, kind: int, out: Words) -> Words:
    """Write words with their sign in the lowest bit to `out`: rotated (floats) or as 2n and -2n - 1 (integers)."""
    import numpy

    bits = words.dtype.itemsize * 8
    if kind == FOLD_NONE:
        return words
    sign = scratch("sign", len(words), words.dtype.str)
    if kind == FOLD_ROTATED:
        numpy.right_shift(words, bits - 1, out=sign)
        numpy.left_shift(words, 1, out=out)
        return numpy.bitwise_or(out, sign, out=out)
    numpy.right_shift(words.view(f"<i{bits // 8}"), bits - 1, out=sign.view(f"<i{bits // 8}"))
    numpy.left_shift(words, 1, out=out)
    return numpy.bitwise_xor(out, sign, out=out)


def unfold(words: Words, kind: int, out: Words) -> None:
    """Undo `fold`; overwrites `words`."""
    import numpy

    if kind == FOLD_NONE:
        numpy.copyto(out, words)
        return
    bits = words.dtype.itemsize * 8
    sign = scratch("sign", len(words), words.dtype.str)
    if kind == FOLD_ROTATED:
        numpy.left_shift(words, bits - 1, out=sign)
        numpy.right_shift(words, 1, out=words)
        numpy.bitwise_or(words, sign, out=out)
        return
    numpy.bitwise_and(words, 1, out=sign)
    numpy.negative(sign, out=sign)
    numpy.right_shift(words, 1, out=words)
    numpy.bitwise_xor(words, sign, out=out)


def split_rotated(words: Words) -> tuple[Words, Words]:
    """Return the upper and lower halves of words of 4 bytes, rotated."""
    import numpy

    upper, lower = scratch("upper", len(words), "<u2"), scratch("lower", len(words), "<u2")
    rotated = fold(words, FOLD_ROTATED, scratch("rotated", len(words), "<u4"))
    numpy.copyto(lower, rotated, casting="unsafe")
    numpy.right_shift(rotated, 16, out=rotated)
    numpy.copyto(upper, rotated, casting="unsafe")
    return upper, lower


def join_rotated(upper: Words, lower: Words, out: Words) -> None:
    """Undo `split_rotated`."""
    import numpy

    rotated, work = scratch("rotated", len(out), "<u4"), scratch("sign", len(out), "<u4")
    numpy.copyto(rotated, upper)
    numpy.left_shift(rotated, 16, out=rotated)
    numpy.copyto(work, lower)
    numpy.bitwise_or(rotated, work, out=rotated)
    unfold(rotated, FOLD_ROTATED, out)


def plane_bytes(count: int, width: int, spare: int) -> int:
    """Return the size of a plane of so many words; with `spare` of its bits at the top of each byte given up to others."""
    if not spare:
        return count * width
    groups = 8 // spare
    return (groups - 1) * _group_bytes(count, groups)


def _group_bytes(count: int, groups: int) -> int:
    return -(-count // (groups * PACK_BYTES)) * PACK_BYTES


def cut_plane(words: Words, shift: int, width: int, spare: int, name: str) -> Words:
    """Return the bytes of the plane whose lowest bit is at `shift`, packed if `spare` bits at its top are no part of it."""
    import numpy

    count = len(words)
    plane = scratch(name, plane_bytes(count, width, 0) + 8 * PACK_BYTES, "u1")
    values = plane[: count * width].view(word_type(width))
    shifted = words
    if shift:
        shifted = numpy.right_shift(words, shift, out=scratch("shifted", count, words.dtype.str))
    numpy.copyto(values, shifted, casting="unsafe")
    return _pack(plane, count, spare, name) if spare else plane[: count * width]


def _pack(plane: Words, count: int, spare: int, name: str) -> Words:
    """Spread the last of 8 / spare groups of bytes over the spare bits of the others."""
    import numpy

    groups = 8 // spare
    group_bytes = _group_bytes(count, groups)
    padded = scratch(f"{name} packed", groups * group_bytes, "u1")
    numpy.bitwise_and(plane[:count], 0xFF >> spare, out=padded[:count])
    padded[count:] = 0
    rows = padded.view("<u8").reshape(groups, -1)
    top = numpy.uint64((0xFF00 >> spare & 0xFF) * 0x0101010101010101)
    part = scratch("part", group_bytes // 8, "<u8")
    for index in range(groups - 1):
        numpy.left_shift(rows[-1], numpy.uint64(8 - spare - spare * index), out=part)
        numpy.bitwise_and(part, top, out=part)
        numpy.bitwise_or(rows[index], part, out=rows[index])
    return padded[: (groups - 1) * group_bytes]


def _unpack(packed: Words, count: int, spare: int) -> Words:
    import numpy

    groups = 8 // spare
    padded = scratch("unpacked", len(packed) // (groups - 1) * groups, "u1")
    rows = padded.view("<u8").reshape(groups, -1)
    given = packed.view("<u8").reshape(groups - 1, -1)
    top = numpy.uint64((0xFF00 >> spare & 0xFF) * 0x0101010101010101)
    part = scratch("part", rows.shape[1], "<u8")
    rows[-1] = 0
    for index in range(groups - 1):
        numpy.bitwise_and(given[index], top, out=part)
        numpy.right_shift(part, numpy.uint64(8 - spare - spare * index), out=part)
        numpy.bitwise_or(rows[-1], part, out=rows[-1])
    numpy.bitwise_and(given, ~top, out=rows[:-1])
    return padded[:count]


def merge_plane(words: Words, plane: Words, shift: int, width: int, spare: int, *, is_first: bool) -> None:
    """Put the bits of a plane at `shift` into words; the first plane also clears the others."""
    import numpy

    values = _unpack(plane, len(words), spare) if spare else plane.view(word_type(width))
    target = words if is_first else scratch("merged", len(words), words.dtype.str)
    numpy.copyto(target, values)
    if shift:
        numpy.left_shift(target, shift, out=target)
    if not is_first:
        numpy.bitwise_or(words, target, out=words)
