"""Streams of planes made by hand for the conformance vectors, from the text of spec 11.1 and in plain integers.

No compressor is asked: a plane of mode 2 is a frame that holds its content as it is.
"""

import struct
from dataclasses import dataclass

from tests.conformance.vector_kit import stored_frame

NONE, ROTATED, ZIGZAG, BITS, SOURCE = range(5)
STORED, CONSTANT, FRAME = range(3)


@dataclass(frozen=True)
class Planes:
    """How a stream is made: `modes` of the planes, from the top, `spares` of the blocks, `rows` and `columns` that are taken off.

    By SOURCE, `base` is the lowest class, `columns` tell how far the words of each are turned, and `source` is what they are added to.
    """

    word: int
    fold: int
    widths: tuple
    modes: tuple
    block_words: int
    spares: tuple = (0,)
    base: int = 0
    columns: tuple = ()
    rows: tuple = ()
    shift: int = 0
    source: bytes = b""


def folded(word, fold, bits):
    if fold == ROTATED:
        return (word << 1 | word >> bits - 1) % 2**bits
    if fold == ZIGZAG:
        signed = word - (word >> bits - 1 << bits)
        return 2 * signed if signed >= 0 else -2 * signed - 1
    return word


def words_of(raw, made):
    if made.fold == BITS:
        return [sum(bit << place for place, bit in enumerate(raw[start : start + 8])) for start in range(0, len(raw), 8)]
    words = [int.from_bytes(raw[start : start + made.word], "little") for start in range(0, len(raw), made.word)]
    if made.fold == SOURCE:
        return in_order(words, made)
    words = [folded(word, made.fold, 8 * made.word) for word in words]
    length = len(made.columns)
    taken = [(made.rows[index // length] + made.columns[index % length] << made.shift) if length else 0 for index in range(len(words))]
    return [(word - made.base - off) % 2 ** (8 * made.word) for word, off in zip(words, taken, strict=True)]


def in_order(words, made):
    bits, ordered = 8 * made.word, []
    sources = [int.from_bytes(made.source[start : start + made.word], "little") for start in range(0, len(made.source), made.word)]
    for start in range(0, len(words), made.block_words):
        block = []
        for word, source in zip(words[start : start + made.block_words], sources[start : start + made.block_words], strict=True):
            word, source = folded(word, ROTATED, bits), folded(source, ROTATED, bits)
            of_class = min(max((source >> bits - 8) - made.base, 0), len(made.columns) - 1)
            difference, turn = folded((word - source) % 2**bits, ZIGZAG, bits), made.columns[of_class]
            block.append((of_class, (difference << turn | difference >> bits - turn) % 2**bits))
        ordered += [word for _, word in sorted(block, key=lambda pair: pair[0])]
    return ordered


def packed(values, spare):
    groups = 8 // spare
    size = -(-len(values) // (8 * groups)) * 8
    values = values + [0] * (groups * size - len(values))
    last = values[(groups - 1) * size :]
    return bytes(
        value | (last[index % size] >> spare * (index // size)) % 2**spare << 8 - spare for index, value in enumerate(values[:-size])
    )


def plane(words, bit, width, spare, mode):
    values = [word >> bit & 2 ** (8 * width - spare) - 1 for word in words]
    content = packed(values, spare) if spare else b"".join(value.to_bytes(width, "little") for value in values)
    if mode == CONSTANT:
        assert content == content[:width] * (len(content) // width)
        return content[:width]
    return stored_frame(content, checksum=False) if mode == FRAME else content


def aligned(data, size):
    return data + bytes(-len(data) % size)


def stream(raw, made):
    """Return the bytes of a stream that decodes to `raw`."""
    head = struct.pack(
        "<4s4B8sQQIIB7x",
        b"ckpl",
        1,
        made.word,
        made.fold,
        len(made.widths),
        bytes(made.widths),
        len(raw),
        made.base,
        made.block_words,
        len(made.columns),
        made.shift,
    )
    data = aligned(head + struct.pack(f"{len(made.columns)}b", *made.columns), 16)
    words, spares, fields = words_of(raw, made), b"", b""
    for number, start in enumerate(range(0, len(words), made.block_words)):
        block, spare = words[start : start + made.block_words], made.spares[number % len(made.spares)]
        assert not any(word >> 8 * made.word - spare for word in block)
        stored, bit, sizes = [], 0, []
        for index in reversed(range(len(made.widths))):
            given_up = spare if index == 1 else 0
            stored.append(plane(block, bit, made.widths[index], given_up, made.modes[index]))
            sizes.insert(0, made.modes[index] << 30 | len(stored[-1]))
            bit += 8 * made.widths[index] - given_up
        if made.columns and made.fold != SOURCE:
            first, count = start // len(made.columns), len(block) // len(made.columns)
            stored.append(struct.pack(f"{count}b", *made.rows[first : first + count]))
        data += aligned(b"".join(stored), 8)
        spares += bytes([spare])
        fields += struct.pack(f"<{len(sizes)}I", *sizes)
    table = spares + fields
    return data + bytes(-(len(data) + len(table)) % 16) + table
