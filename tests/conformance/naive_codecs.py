"""Chapter 11 of spec/format-1.md for the naive reader, from the text alone and sharing nothing with ckptfmt:
encoded slots, planes, rounding."""

import struct

import numpy as np
import zstandard
from blake3 import blake3

CODECS = ("zstd", "planes", "same", "rounded", "delta")


class Refused(Exception):
    """Bytes that break the rule with this code."""


def demand(condition, rule="E047"):
    if not condition:
        raise Refused(rule)


def read_chunk(shard, slot, shards, tables, requires, deltas=0):  # chapter 11; the bytes of a slot's chunk, and whether it is encoded
    data = shards[shard][slot][2]
    codecs, *raw = {slot: rest for slot, *rest in tables[shard].get("encodings", ())}.get(slot, [[]])
    names = [name for name, _ in codecs]
    demand((len(codecs) < 2 and names != ["delta"]) or {*names} == {"zstd"} or names == ["planes", "delta"], "E048")
    for name, parameters in codecs:
        demand(f"codec:{name}" in requires, "E046")
        if name in CODECS[2:]:
            place, is_delta = parameters.get("source", [-1, -1]), name == "delta"
            demand(place[0] in range(len(shards)) and place[1] in range(len(shards[place[0]])) and deltas + is_delta <= 32, "E048")
            of_source = {slot: codecs[0][0] for slot, codecs, *_ in tables[place[0]].get("encodings", ())}.get(place[1])
            demand((is_delta or data == b"") and of_source not in CODECS[2:4], "E048")
            source = read_chunk(*place, shards, tables, requires, deltas + is_delta)[0]
            data = added(data, source, parameters.get("word")) if is_delta else source
            data = rounded(data, parameters["to"]) if name == "rounded" else data
        elif name == "planes":
            data = data if names[-1] == "delta" else decode_planes(data)
        else:
            data = zstandard.ZstdDecompressor(max_window_size=2**23).stream_reader(data, read_across_frames=True).read(raw[0] + 1)
    demand(not codecs or [len(data), blake3(data).digest()] == raw, "E045")
    return data, bool(codecs)


def added(data, source, w):  # 11.4
    demand(w in (1, 2, 4, 8) and len(source) % w == 0, "E048")
    return decode_planes(data, source, w)


def decode_planes(data, source=b"", added_word=0):  # 11.1, and what is added to a source
    demand(len(data) >= 48)
    magic, version, w, fold, count, widths, size, base, block_words, classes, shift = struct.unpack("<4s4B8sQQIIB", data[:41])
    demand(magic == b"ckpl" and version == 1 and w in (1, 2, 4, 8) and fold <= 4 and base < 256**w and shift < 8 * w)
    by_source, row_words = fold == 4, classes if fold < 4 else 0
    demand(added_word in (0, w) and not (by_source and not (added_word and 0 < classes <= 256 and base < 256 and shift == 0)))
    source = np.frombuffer(source, f"<u{w}") if added_word else np.zeros(1, f"<u{w}")
    widths, word_count = list(widths[:count]), -(-size // 8) if fold == 3 else size // w
    demand(sum(widths) == w and set(widths) <= {1, 2, 4, 8} and not any(data[41:48]) and not any(data[16 - (8 - count) : 16]))
    demand(0 < block_words * (8 if fold == 3 else w) <= 2**19 and size % w == 0 and (fold != 3 or (w == 1 and not row_words)))
    demand(not row_words or (block_words % row_words == 0 and word_count % row_words == 0))
    columns, position = np.frombuffer(data, np.int8, classes, 48), 48 + -(-classes // 16) * 16
    demand(not any(data[48 + classes : position]) and not (by_source and any(column not in range(8 * w) for column in columns)))
    block_count = -(-word_count // block_words)
    table = len(data) - block_count * (1 + 4 * count)
    fields = np.frombuffer(data, "<u4", block_count * count, table + block_count).reshape(block_count, count).tolist()
    words = []
    for block, k in enumerate(data[table : table + block_count]):
        n = min(block_words, word_count - block * block_words)
        demand(k in (0, 1, 2, 4) and (not k or widths[:2] == [1, 1]))
        block_begin, merged, bit = position, np.zeros(n, f"<u{w}"), 0
        for index in reversed(range(count)):
            spare, mode, stored = k if index == 1 else 0, fields[block][index] >> 30, fields[block][index] & 2**30 - 1
            plane, position = data[position : position + stored], position + stored
            groups, m = (8 // spare, -(-n // (8 // spare * 8)) * 8) if spare else (1, n * widths[index])
            plane = decode_plane(mode, plane, (groups - 1) * m if spare else m, widths[index])
            values = (
                unpack(np.frombuffer(plane, np.uint8).reshape(groups - 1, m), spare)[:n]
                if spare
                else np.frombuffer(plane, f"<u{widths[index]}")
            )
            merged |= values.astype(f"<u{w}") << bit
            bit += 8 * widths[index] - spare
        if by_source:
            merged = sum_by_source(merged, source[block * block_words :][:n], base, columns.astype(f"<u{w}"))
        else:
            merged += np.array(base, f"<u{w}")
        if row_words:
            rows = np.frombuffer(data, np.int8, n // row_words, position).astype(int)
            taken = (rows[:, None] + columns.astype(int)).astype(f"<i{w}").view(f"<u{w}") << shift
            merged, position = merged + taken.ravel(), position + n // row_words
        end = block_begin + -(-(position - block_begin) // 8) * 8
        demand(not any(data[position:end]))
        words.append(merged)
        position = end
    demand(position <= table and not any(data[position:table]) and len(data) == -(-(position + len(data) - table) // 16) * 16)
    raw = unfold(np.concatenate([np.zeros(0, f"<u{w}"), *words]), 1 if by_source else fold, 8 * w)[:size]
    demand(not added_word or len(raw) == len(source) * w, "E048")
    return (np.frombuffer(raw, f"<u{w}") + source).tobytes() if added_word and not by_source else raw


def sum_by_source(words, source, base, columns):  # 11.4; what is given is rotated
    bits = 8 * words.itemsize
    rotated = source << 1 | source >> bits - 1
    of_class = np.clip((rotated >> bits - 8).astype(int) - base, 0, len(columns) - 1)
    places = np.argsort(of_class, kind="stable")
    turns = columns[of_class[places]]
    words = words >> turns | words << (bits - turns) % bits
    differences = np.zeros_like(words)
    differences[places] = words >> 1 ^ (0 - (words & 1))
    return rotated + differences


def decode_plane(mode, data, size, width):
    if mode == 1:
        demand(len(data) == width)
        data *= size // width
    elif mode == 2:
        demand(zstandard.frame_content_size(data) == size)
        data = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    demand(mode < 3 and len(data) == size)
    return data


def unpack(groups, k):
    last = np.zeros(groups.shape[1], np.uint8)
    for j, group in enumerate(groups):
        last |= group >> 8 - k << j * k
    return np.concatenate([groups.ravel() & (0xFF >> k), last])


def unfold(words, fold, bits):
    if fold == 3:
        return np.unpackbits(words, bitorder="little").tobytes()
    sign = words & 1
    other = [words, words >> 1 | sign << bits - 1, words >> 1 ^ (0 - sign)]
    return other[fold].tobytes()


def rounded(data, to):  # 11.2
    values = np.frombuffer(data, "<f4")
    if to == "float16":
        with np.errstate(over="ignore"):
            made = values.astype("<f2").view("<u2").copy()
    else:
        words = values.view("<u4").astype("<u8")
        made = (words + 0x7FFF + (words >> 16 & 1) >> 16).astype("<u2")
    made[np.isnan(values)] = 0x7E00 if to == "float16" else 0x7FC0
    return made.tobytes()
