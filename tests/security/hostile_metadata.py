"""Hostile metadata: zstd frames that are bombs or not what they declare, and msgpack that is no packed form. Spec 7."""

import struct

import zstandard

from ckptfmt.format.packed import pack
from tests.conformance.vector_kit import stored_frame
from tests.security.attacks import OBJECT_BYTES_PER_PACKED_BYTE, Attack, hostile

MIB = 2**20
SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
SKIPPABLE_GIGABYTES = b"\x5f\x2a\x4d\x18" + (2**32 - 1).to_bytes(4, "little")


def frame_attacks():
    """The frame around the metadata."""
    for kind, value in {"nothing": 0, "few": 1000, "limit": 2**28, "most": 2**63, "unknown": 2**64 - 1, "error": 2**64 - 2}.items():
        yield Attack(f"frame-declares-{kind}", hostile(frame=lambda raw, value=value: declaring(raw, value)))
    for difference in (-1, 1):
        yield Attack(f"frame-declares-off-by-{difference}", hostile(frame=lambda raw, by=difference: declaring(raw, len(raw) + by)))
    for kind, value in {"limit": 2**28, "beyond": 2**28 + 1, "gigabytes": 2**40}.items():
        yield Attack(f"manifest-declares-{kind}", hostile(manifest=lambda document, value=value: sized(document, value)))
        lie = hostile(frame=lambda raw, value=value: declaring(raw, value), manifest=lambda document, value=value: sized(document, value))
        yield Attack(f"both-declare-{kind}", lie, declared_bytes=min(value, 2**28))
    yield Attack("bomb-of-zeros", bomb(b"\0" * 128 * MIB), declared_bytes=256 * MIB)
    yield Attack("bomb-undeclared", bomb(b"\0" * 128 * MIB, declared=False))
    yield Attack("bomb-behind-a-small-declaration", hostile(frame=lambda raw: hidden_bomb(len(raw))))
    for log in (24, 27, 30, 31, 41):
        yield Attack(f"window-of-2-to-the-{log}", hostile(frame=lambda raw, log=log: stored_frame(raw, window_log=min(log, 41))))
    parts = {
        "two-frames": lambda raw: stored_frame(raw) + stored_frame(raw),
        "many-frames": lambda raw: stored_frame(raw[:1]) * 1000,
        "empty-frames-after": lambda raw: stored_frame(raw) + stored_frame(b"") * 1000,
        "skippable-before": lambda raw: SKIPPABLE + stored_frame(raw),
        "skippable-after": lambda raw: stored_frame(raw) + SKIPPABLE,
        "skippable-alone": lambda raw: SKIPPABLE,
        "skippable-of-gigabytes": lambda raw: SKIPPABLE_GIGABYTES + stored_frame(raw),
        "no-checksum": lambda raw: stored_frame(raw, checksum=False),
        "wrong-checksum": lambda raw: stored_frame(raw, flip_checksum=True),
        "no-size": lambda raw: stored_frame(raw, size=False),
        "dictionary": with_dictionary,
        "reserved-bit": lambda raw: with_descriptor(stored_frame(raw), lambda bits: bits | 0b1000),
        "all-descriptor-bits": lambda raw: with_descriptor(stored_frame(raw), lambda bits: 0xFF),
        "empty": lambda raw: b"",
        "magic-only": lambda raw: b"\x28\xb5\x2f\xfd",
        "old-magic": lambda raw: b"\x27" + stored_frame(raw)[1:],
        "not-compressed": lambda raw: raw,
        "gzip": lambda raw: b"\x1f\x8b\x08" + bytes(20),
        "reserved-block-type": lambda raw: with_block_type(stored_frame(raw), 3),
        "compressed-block-of-noise": lambda raw: with_block_type(stored_frame(raw), 2),
        "repeated-byte-block": lambda raw: with_block_type(stored_frame(raw), 1),
        "trailing-newline": lambda raw: stored_frame(raw) + b"\n",
        "noise": lambda raw: b"\x28\xb5\x2f\xfd" + bytes(range(256)) * 4,
    }
    for kind, frame in parts.items():
        yield Attack(f"frame-{kind}", hostile(frame=frame))
    frame = stored_frame(pack([1, 2, 3]))
    for length in range(len(frame)):
        yield Attack(f"frame-cut-to-{length}", hostile(frame=lambda raw, length=length: stored_frame(raw)[:length]))


def declaring(raw, size_bytes):
    """A frame of one segment that declares another content size than it has."""
    frame = stored_frame(raw)
    return frame[:5] + size_bytes.to_bytes(8, "little") + frame[13:]


def hidden_bomb(size_bytes):
    """A frame that declares few bytes and holds blocks that repeat one byte 128 KiB times each."""
    frame = stored_frame(bytes(size_bytes))
    block = (2**17 << 3 | 0b010).to_bytes(3, "little") + b"\0"
    return frame[:13] + block * 2000 + (1).to_bytes(3, "little") + bytes(4)


def sized(document, size_bytes):
    document["metadata"]["raw_size_bytes"] = size_bytes
    return document


def bomb(raw, *, declared=True):
    """Metadata that decompresses to far more than its file; sealed with the right sizes."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=20, write_content_size=declared, write_checksum=True)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compress(raw)
    return hostile(frame=lambda _: packed, manifest=lambda document: sized(document, len(raw)))


def with_descriptor(frame, change):
    return frame[:4] + bytes([change(frame[4])]) + frame[5:]


def with_block_type(frame, kind):
    header = int.from_bytes(frame[13:16], "little") & ~0b110 | kind << 1
    return frame[:13] + header.to_bytes(3, "little") + frame[16:]


def with_dictionary(raw):
    dictionary = zstandard.ZstdCompressionDict(raw + bytes(range(256)), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(dict_data=dictionary, write_checksum=True).compress(raw)


def packed_attacks():
    """Content that is not in packed form, or absurd in it: in the place of a number of the tree, and in the place of everything."""
    three = pack("epoch") + pack(3)
    for kind, value in PACKED.items():
        files = hostile(raw=lambda raw, value=value: raw.replace(three, pack("epoch") + value))
        yield Attack(f"value-{kind}", files, declared_bytes=room(value))
        yield Attack(f"content-{kind}", hostile(raw=lambda _, value=value: value), declared_bytes=room(value))
    for kind, value in ALLOWED.items():
        files = hostile(raw=lambda raw, value=value: raw.replace(three, pack("epoch") + value))
        yield Attack(f"value-{kind}", files, refused=False, declared_bytes=room(value), seconds=10)
    raw = pack({"tree": {"a": [1, "b", b"c", 1.5, None, True]}, "tensors": [], "shards": []})
    for length in range(len(raw)):
        yield Attack(f"content-cut-to-{length}", hostile(raw=lambda _, length=length: raw[:length]))
    for position in range(len(raw)):
        flipped = raw[:position] + bytes([raw[position] ^ 0x80]) + raw[position + 1 :]
        yield Attack(f"content-flipped-at-{position}", hostile(raw=lambda _, flipped=flipped: flipped))


def room(value):
    return OBJECT_BYTES_PER_PACKED_BYTE * len(value) if len(value) > MIB // 4 else 0


PACKED = {
    "array-bomb": b"\x91" * 1_000_000,
    "array-bomb-closed": b"\x91" * 1_000_000 + b"\xc0",
    "map-bomb": b"\x81\xa1a" * 300_000 + b"\xc0",
    "mixed-bomb": b"\x91\x81\xa1a" * 200_000 + b"\xc0",
    "array-of-2-to-the-32": b"\xdd\xff\xff\xff\xff",
    "array-of-2-to-the-24": b"\xdd\x01\x00\x00\x00",
    "map-of-2-to-the-32": b"\xdf\xff\xff\xff\xff",
    "nested-large-arrays": (b"\xdd" + (2**20).to_bytes(4, "big")) * 1000 + bytes(2**20),
    "nested-large-maps": (b"\xdf" + (2**18).to_bytes(4, "big") + b"\xa1a") * 1000 + bytes(2**18),
    "str-of-2-to-the-32": b"\xdb\xff\xff\xff\xff",
    "bin-of-2-to-the-32": b"\xc6\xff\xff\xff\xff",
    "ext-of-2-to-the-32": b"\xc9\xff\xff\xff\xff\x01",
    "ext-8": b"\xc7\x03\x01abc",
    "ext-16": b"\xc8\x00\x03\x01abc",
    "fixext-1": b"\xd4\x05x",
    "fixext-2": b"\xd5\x05xx",
    "fixext-8": b"\xd7\x05xxxxxxxx",
    "fixext-16": b"\xd8\x05" + b"x" * 16,
    "timestamp-32": b"\xd6\xff\x00\x00\x00\x01",
    "timestamp-64": b"\xd7\xff" + b"\xff" * 8,
    "timestamp-96": b"\xc7\x0c\xff" + b"\xff" * 12,
    "never-used": b"\xc1",
    "key-twice": b"\x82\xa1a\x01\xa1a\x02",
    "key-is-integer": b"\x81\x01\x01",
    "key-is-nil": b"\x81\xc0\x01",
    "key-is-bin": b"\x81\xc4\x01a\x01",
    "key-is-array": b"\x81\x90\x01",
    "key-is-map": b"\x81\x80\x01",
    "key-is-float": b"\x81\xcb" + struct.pack(">d", 1.0) + b"\x01",
    "key-is-ext": b"\x81\xd4\x05x\x01",
    "integer-8-too-long": b"\xcc\x01",
    "integer-64-too-long": b"\xcf" + bytes(7) + b"\x01",
    "negative-too-long": b"\xd3" + b"\xff" * 8,
    "positive-as-signed": b"\xd1\x7f\xff",
    "float-32": b"\xca\x3f\x80\x00\x00",
    "str-8-too-long": b"\xd9\x01a",
    "str-32-too-long": b"\xdb\x00\x00\x00\x01a",
    "bin-16-too-long": b"\xc5\x00\x01a",
    "array-16-too-long": b"\xdc\x00\x01\xc0",
    "map-16-too-long": b"\xde\x00\x01\xa1a\xc0",
    "not-utf-8": b"\xa2\xc3\x28",
    "overlong-utf-8": b"\xa2\xc0\x80",
    "surrogate-in-utf-8": b"\xa3\xed\xa0\x80",
    "beyond-unicode": b"\xa4\xf4\x90\x80\x80",
    "trailing": b"\xc0\xc0",
}
DEPTH = 1100
MANY = 50_000
PACKED |= {
    "arrays-of-depth-1100": b"\x91" * DEPTH + b"\xc0",
    "maps-of-depth-1100": b"\x81\xa1a" * DEPTH + b"\xc0",
    "arrays-of-depth-1000": b"\x91" * 1000 + b"\xc0",
    "maps-of-depth-1000": b"\x81\xa1a" * 1000 + b"\xc0",
    "tuples-of-depth-500": b"\x81\xa6$tuple\x91" * 500 + b"\xc0",
    "lists-of-depth-260": b"\x91" * 260 + b"\xc0",
}
ALLOWED = {
    "many-empty-lists": b"\xdd" + MANY.to_bytes(4, "big") + b"\x90" * MANY,
    "many-empty-maps": b"\xdd" + MANY.to_bytes(4, "big") + b"\x80" * MANY,
    "many-nils": b"\xdd" + MANY.to_bytes(4, "big") + b"\xc0" * MANY,
    "signalling-nan": b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x01",
    "negative-nan": b"\xcb\xff\xff\xff\xff\xff\xff\xff\xff",
    "controls": pack("\x1b[2J\x00\u202e\u2028\ud7ff"),
    "control-keys": pack({"\x1b]0;x\x07": {"\u202e": {"\n": 1}}}),
    "long-key": pack({"k" * 10**6: 1}),
    "long-keys-of-many": pack({"k" * 10**5: {str(number): None for number in range(1000)}}),
}
