"""Hostile tensor indexes and shard headers: absurd shapes, chunks that do not tile, slots that are not there. Spec 6, 9, 11."""

import copy
import json
import struct

from ckptfmt.format.shard_header import StoredEntry, encode_header
from tests.conformance.vector_kit import Edits, Ref, Shard, Slot, Tensor, build, stored_frame
from tests.security.attacks import OBJECT_BYTES_PER_PACKED_BYTE, Attack, hostile

WRONG = {
    "nil": None,
    "true": True,
    "minus-one": -1,
    "one": 1,
    "2-to-the-62": 2**62,
    "largest": 2**64 - 1,
    "fraction": 0.5,
    "nan": float("nan"),
    "text": "x",
    "terminal-text": "\x1b[2J\u202e",
    "long-text": "x" * 10_000,
    "bin": b"x",
    "array": [],
    "nested": [[[[0]]]],
    "map": {},
    "tag": {"$tensor": [0, "torch", {}]},
}

PLACES = [
    *(("tree",), ("tensors",), ("tensors", 0), ("tensors", 0, 0), ("tensors", 0, 1), ("tensors", 0, 2), ("tensors", 0, 2, 0)),
    *(("tensors", 0, 3), ("tensors", 0, 3, 0), ("tensors", 0, 3, 0, 0), ("tensors", 0, 3, 0, 1)),
    *(("shards",), ("shards", 0), ("shards", 0, "header_size_bytes"), ("shards", 0, "keys"), ("shards", 0, "keys", 0)),
    *(("shards", 0, "sizes"), ("shards", 0, "sizes", 0), ("shards", 0, "digests"), ("shards", 0, "encodings")),
]

SHAPES = {
    "rank-65": [1] * 65,
    "rank-1000": [1] * 1000,
    "rank-100000": [1] * 100_000,
    "2-to-the-62": [2**62],
    "2-to-the-47-times-0": [2**47, 0],
    "many-2-to-the-47-times-0": [2**47] * 63 + [0],
    "rank-64-of-0": [0] * 64,
    "rank-64-of-1": [1] * 64,
    "overflowing": [2**47] * 64,
    "negative": [-1, -4],
    "fraction": [2.0, 2],
    "deep": None,
}


def nested(levels):
    value = 0
    for _ in range(levels):
        value = [value]
    return value


SHAPES["deep"] = nested(900)

DTYPES = {
    "object": "numpy:|O8",
    "zero-sized": "numpy:|V0",
    "text-of-no-characters": "numpy:<U0",
    "void-of-2-gigabytes": "numpy:|V2147483647",
    "text-of-2-gigabytes": "numpy:<U536870911",
    "text-of-4-gigabytes": "numpy:<U999999999",
    "python-name": "numpy:os.system",
    "comma-string": "numpy:i4,i4",
    "parenthesised": "numpy:(2,)f4",
    "datetime-of-nonsense": "numpy:<M8[xx]",
    "datetime-of-many": "numpy:<M8[999999999s/7]",
    "empty": "numpy:",
    "brace": "numpy:{",
    "json-deep": "numpy:" + '{"fields":[["a",' * 500 + '"<f4",0]],"size":4}' * 1,
    "json-deep-closed": "numpy:" + '{"size":4,"fields":[["a",' * 200 + '"<f4"' + ",0]]}" * 200,
    "json-of-many-fields": "numpy:" + json.dumps({"fields": [[f"f{n}", "|V0", 0] for n in range(20_000)], "size": 4}),
    "json-field-twice": 'numpy:{"fields":[["a","<i2",0],["a","<i2",2]],"size":4}',
    "json-overlapping-objects": 'numpy:{"fields":[["a","|O8",0]],"size":8}',
    "json-out-of-item": 'numpy:{"fields":[["a","<f4",4]],"size":4}',
    "json-negative-offset": 'numpy:{"fields":[["a","<f4",-4]],"size":4}',
    "json-large-subarray": 'numpy:{"fields":[["a","|V0",0,[281474976710655,281474976710655]]],"size":4}',
    "json-empty-names": 'numpy:{"fields":[["","<f4",0]],"size":4}',
    "json-size-absurd": 'numpy:{"fields":[],"size":2147483648}',
    "json-align": 'numpy:{"fields":[["a","<f4",0]],"size":4,"align":true}',
    "json-terminal-names": 'numpy:{"fields":[["\\u001b[2J","<f4",0]],"size":4}',
    "json-titles": 'numpy:{"fields":[[["t","a"],"<f4",0]],"size":4}',
    "json-nan": 'numpy:{"fields":[],"size":NaN}',
    "safetensors-name": "F32",
    "torch-name": "torch.float32",
    "long": "x" * 2**20,
    "long-numpy": "numpy:" + "x" * 2**20,
    "control": "\x1b[2J",
}


def index_attacks():
    """Every member of the index with every wrong value."""
    for place in PLACES:
        for kind, value in WRONG.items():
            files = hostile(content=lambda content, place=place, value=value: changed(content, place, value))
            yield Attack(f"index-{'-'.join(map(str, place))}-{kind}", files, refused=False)
    for kind, shape in SHAPES.items():
        yield Attack(f"shape-{kind}", hostile(content=lambda content, shape=shape: changed(content, ("tensors", 0, 2), shape)))
        yield Attack(f"empty-shape-{kind}", without_bytes(shape), refused=False)
    for kind, dtype in DTYPES.items():
        yield Attack(
            f"dtype-{kind}", hostile(content=lambda content, dtype=dtype: changed(content, ("tensors", 0, 1), dtype)), refused=False
        )
        yield Attack(f"numpy-dtype-{kind}", of_dtype(dtype), refused=False)
    for kind, name in {
        "escape": "\x1b[2J",
        "bidi": "\u202etfel",
        "line": "a\nb",
        "nul": "\0",
        "empty": "",
        "metadata": "__metadata__",
    }.items():
        files = hostile(content=lambda content, name=name: changed(content, ("tensors", 0, 0), name))
        yield Attack(f"row-name-{kind}", files, refused=False)
    yield Attack("name-twice", hostile(content=lambda content: changed(content, ("tensors", 1, 0), "model.w")))
    for kind, row in {"codecs": [0, [["zstd", {}]] * 10_000, 4, bytes(32)], "huge": [0, [["zstd", {}]], 2**47, bytes(32)]}.items():
        files = hostile(content=lambda content, row=row: changed(content, ("shards", 0, "encodings"), [row]), manifest=requiring)
        yield Attack(f"encoding-{kind}", files)


def requiring(document):
    return document | {"requires": ["codec:zstd"]}


def changed(content, place, value):
    content = copy.deepcopy(content)
    holder = content
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = value
    return content


def totals(count, size_bytes):
    def change(document):
        document["totals"] = {"tensor_count": count, "tensor_bytes": size_bytes}
        return document

    return change


def one_row(row, slots, *, tree=None, count=1, size_bytes=0, **edits):
    """A checkpoint of one shard and hand-made rows."""
    edits = Edits(content=lambda content: content | {"tensors": row}, manifest=totals(count, size_bytes), **edits)
    return build({"model": Ref(0)} if tree is None else tree, [], [Shard("model", slots)] if slots else [], edits=edits)


def without_bytes(shape):
    """A tensor of this shape and no bytes, which needs no chunk."""
    return one_row([["model", "float32", shape, []]], [])


def of_dtype(dtype):
    """A numpy array of four elements of this dtype over four bytes each."""
    return one_row([["model", dtype, [1], [[0, 0]]]], [Slot("model", "U8", (4,), bytes(4))], tree={"model": Ref(0, "numpy")}, size_bytes=4)


def chunk_attacks():
    """Chunks that are absurd in number or place. An element type of no bytes lets one slot serve any shape."""
    nothing = Slot("t", "U8", (0,), b"")

    def tiled(name, shape, chunks, **options):
        row = ["model", "numpy:|V0", shape, [[0, 0, list(offset), list(size)] for offset, size in chunks]]
        return Attack(name, one_row([row], [nothing], tree={"model": Ref(0, "numpy")}), **options)

    yield tiled("chunks-spiral", *spiral(2_000), refused=False, declared_bytes=2**28)
    yield tiled("chunks-pinwheels", *pinwheels(2_000), refused=False, declared_bytes=2**28)
    yield tiled("chunks-pinwheels-overlap", *overlapping(pinwheels(2_000)))
    yield tiled("chunks-rows", [10_000], [((start,), (1,)) for start in range(20_000)], refused=False, declared_bytes=2**28)
    yield tiled("chunks-all-the-same", [20_000], [((0,), (1,))] * 20_000)
    yield tiled("chunks-corner", [2**40] * 8, [((0,) * 8, (2**39,) * 8)] * 256)
    yield tiled("chunks-diagonal", [100] * 60, [((place,) * 60, (1,) * 60) for place in range(100)])
    yield tiled("chunks-out-of-range", [4], [((4,), (1,))])
    yield tiled("chunks-beyond-the-end", [4], [((2**48 - 1,), (2**48 - 1,))])
    for kind, chunk in {
        "negative": [0, 0, [-1], [4]],
        "rank": [0, 0, [0, 0], [4, 1]],
        "three": [0, 0, [0]],
        "slot": [0, 7],
        "shard": [7, 0],
    }.items():
        yield Attack(f"chunk-{kind}", one_row([["model", "uint8", [4], [chunk]]], [Slot("t", "U8", (4,), b"abcd")], size_bytes=4))
    one = Slot("t", "U8", (1024,), bytes(1024))
    row = ["model", "uint8", [2**30], [[0, 0, [start * 1024], [1024]] for start in range(2**14)]]
    yield Attack("slot-used-again-and-short", one_row([row], [one], size_bytes=2**30))
    row = ["model", "uint8", [2**24], [[0, 0, [start * 1024], [1024]] for start in range(2**14)]]
    yield Attack("slot-used-again", one_row([row], [one], size_bytes=2**24), refused=False, declared_bytes=2**24 * 3, seconds=4)
    many = [[f"t{number}", "float32", [0], []] for number in range(20_000)]
    tree = {f"t{number}": Ref(number) for number in range(20_000)}
    room = 20_000 * 30 * OBJECT_BYTES_PER_PACKED_BYTE
    yield Attack("many-empty-tensors", one_row(many, [], tree=tree, count=20_000), refused=False, declared_bytes=room, seconds=10)


def spiral(count):
    """Chunks that can be cut off only one after the other."""
    chunks, low, high = [], [0, 0], [2**40, 2**40]
    for turn in range(count):
        axis, is_low = turn % 2, turn % 4 < 2
        offset, size = list(low), [high[0] - low[0], high[1] - low[1]]
        size[axis] = 1
        if is_low:
            low[axis] += 1
        else:
            high[axis] -= 1
            offset[axis] = high[axis]
        chunks.append((offset, size))
    chunks.append((low, [high[0] - low[0], high[1] - low[1]]))
    return [2**40, 2**40], chunks


def pinwheels(count):
    """Four chunks around a fifth, which is made of four around a fifth again: no straight cut separates any of them."""
    size = 2 * count + 1
    chunks = []
    for ring in range(count):
        length = size - 2 * ring - 1
        first, last = ring, size - ring - 1
        chunks += [
            ((first, first), (1, length)),
            ((first, last), (length, 1)),
            ((last, first + 1), (1, length)),
            ((first + 1, first), (length, 1)),
        ]
    chunks.append(((count, count), (1, 1)))
    return [size, size], chunks


def overlapping(shape_and_chunks):
    """The same volume with one chunk moved onto its neighbour."""
    shape, chunks = shape_and_chunks
    return shape, [*chunks[:-1], ((0, 0), (1, 1))]


def header_attacks():
    """Headers of shards; the digest of the shard is right."""
    good = encode_header([StoredEntry("w", "F32", (4,), 16), StoredEntry("b", "I64", (), 8)])
    for kind, length in {
        "largest": 2**64 - 1,
        "2-to-the-63": 2**63,
        "limit": 25_000_000,
        "beyond": 25_000_001,
        "zero": 0,
        "one": 1,
        "less": len(good) - 72,
    }.items():
        header = struct.pack("<Q", length) + good[8:]
        yield Attack(f"header-length-{kind}", hostile(header=lambda *_, header=header: header))
    entry = '{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'
    rest = '"b":{"dtype":"I64","shape":[],"data_offsets":[16,24]}'
    texts = {
        "empty": "",
        "null": "null",
        "array": "[]",
        "no-metadata": f'{{"w":{entry},{rest}}}',
        "metadata-deep": '{"__metadata__":' + "[" * 5000 + "]" * 5000 + "}",
        "deep": '{"__metadata__":{"format":"pt"},"w":' + "[" * 100_000 + "]" * 100_000 + "}",
        "deep-shape": '{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":' + "[" * 900 + "]" * 900 + ',"data_offsets":[0,16]}}',
        "deep-dtype": '{"__metadata__":{"format":"pt"},"w":{"dtype":' + "[" * 900 + "]" * 900 + ',"shape":[4],"data_offsets":[0,16]}}',
        "deep-offsets": '{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[4],"data_offsets":' + "[" * 900 + "]" * 900 + "}}",
        "metadata-twice": f'{{"__metadata__":{{"format":"pt"}},"__metadata__":{{"format":"pt"}},"w":{entry},{rest}}}',
        "key-twice": f'{{"__metadata__":{{"format":"pt"}},"w":{entry},"w":{entry},{rest}}}',
        "key-twice-escaped": f'{{"__metadata__":{{"format":"pt"}},"w":{entry},"\\u0077":{entry},{rest}}}',
        "nan-offset": f'{{"__metadata__":{{"format":"pt"}},"w":{entry.replace("[0,16]", "[NaN,16]")},{rest}}}',
        "huge-offset": f'{{"__metadata__":{{"format":"pt"}},"w":{entry.replace("[0,16]", "[0," + "9" * 4000 + "]")},{rest}}}',
        "digits-offset": f'{{"__metadata__":{{"format":"pt"}},"w":{entry.replace("[0,16]", "[0," + "9" * 100_000 + "]")},{rest}}}',
        "exponent-shape": f'{{"__metadata__":{{"format":"pt"}},"w":{entry.replace("[4]", "[4e0]")},{rest}}}',
        "rank-1000": f'{{"__metadata__":{{"format":"pt"}},"w":{entry.replace("[4]", str([1] * 1000))},{rest}}}',
        "shape-2-to-the-62": f'{{"__metadata__":{{"format":"pt"}},"w":{entry.replace("[4]", "[4611686018427387904]")},{rest}}}',
        "shape-of-0": f'{{"__metadata__":{{"format":"pt"}},"w":{entry.replace("[4]", "[140737488355328,0]").replace("16]", "0]")},{rest}}}',
        "terminal-key": f'{{"__metadata__":{{"format":"pt"}},"\\u001b[2J":{entry},{rest}}}',
        "bidi-key": f'{{"__metadata__":{{"format":"pt"}},"\\u202e":{entry},{rest}}}',
        "parent-key": f'{{"__metadata__":{{"format":"pt"}},"../../w":{entry},{rest}}}',
        "long-key": f'{{"__metadata__":{{"format":"pt"}},"{"w" * 100_000}":{entry},{rest}}}',
        "surrogate-key": f'{{"__metadata__":{{"format":"pt"}},"\\ud800":{entry},{rest}}}',
        "fourth-member": f'{{"__metadata__":{{"format":"pt"}},"w":{entry[:-1]},"x":1}},{rest}}}',
        "metadata-as-entry": f'{{"__metadata__":{entry},{rest}}}',
        "overlap": f'{{"__metadata__":{{"format":"pt"}},"w":{entry},{rest.replace("[16,24]", "[8,16]")}}}',
        "hole": f'{{"__metadata__":{{"format":"pt"}},"w":{entry},{rest.replace("[16,24]", "[17,25]")}}}',
    }
    for kind, text in texts.items():
        yield Attack(f"header-{kind}", with_header(text.encode()))
    yield Attack("header-not-utf-8", with_header(b'{"__metadata__":{"format":"pt"},"\xff":1}'))
    yield Attack("header-nul-padding", with_header(good[8:].rstrip() + b"\0" * 64))
    yield Attack("header-of-24-megabytes", with_header(b"{" + b"x" * 24_000_000))
    yield Attack("header-of-many-arrays", with_header(b'{"a":[' + b"[]," * 300_000 + b"[]]}"), declared_bytes=240 * 2**20, seconds=4)
    entries = ",".join(f'"{number}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for number in range(20_000))
    yield Attack("header-of-many-empty-tensors", with_header(b'{"__metadata__":{"format":"pt"},' + entries.encode() + b"}"), seconds=4)


def with_header(text):
    """The sound checkpoint with another header, sealed: sizes and digests are those of the new file."""
    padded = text + b" " * (-(len(text) + 8) % 64)
    header = struct.pack("<Q", len(padded)) + padded
    return hostile(header=lambda *_: header, content=lambda content: changed(content, ("shards", 0, "header_size_bytes"), len(header)))


def encoded_attacks():
    """Encoded slots that decode to something else, or to far more."""
    frames = {
        "bomb": stored_frame(bytes(4))[:13]
        + ((2**17 << 3 | 0b010).to_bytes(3, "little") + b"\0") * 2000
        + (1).to_bytes(3, "little")
        + bytes(4),
        "noise": bytes(range(256)),
        "empty": b"",
        "many-empty-frames": stored_frame(b"") * 10_000 + stored_frame(bytes(16)),
        "skippable": b"\x50\x2a\x4d\x18" + (2**32 - 1).to_bytes(4, "little"),
        "large-window": stored_frame(bytes(16), window_log=31),
    }
    for kind, frame in frames.items():
        yield Attack(f"encoded-{kind}", encoded(frame, 16), refused=kind not in ("many-empty-frames", "large-window"))
    for size in (2**30, 2**40, 2**47):
        yield Attack(f"encoded-declares-{size}", encoded(stored_frame(bytes(16)), size))
    yield Attack("encoded-declares-2-to-the-44-over-zeros", encoded(bytes(2**20), 2**35 - 2**10), lacks_memory=True)


def encoded(frame, size_bytes):
    shard = Shard("model", [Slot("t", "U8", (len(frame),), frame, bytes(16))])
    row = Tensor("model", "uint8", (16,), bytes(16), [[0, 0]])

    def content(content):
        content["shards"][0]["encodings"][0][2] = size_bytes
        content["tensors"][0][2] = [size_bytes]
        return content

    edits = Edits(content=content, manifest=totals(1, size_bytes))
    return build({"model": Ref(0)}, [row], [shard], requires=["codec:zstd"], edits=edits)
