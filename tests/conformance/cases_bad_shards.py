"""Checkpoints whose shards or tensor index break one rule each. Spec 6, 9.3, 11."""

from tests.conformance.breaking import (
    MODEL,
    encoded_floats,
    in_content,
    in_file,
    in_header,
    in_manifest,
    member,
    replaced,
    sound,
    with_encoded,
    with_row,
    with_stale_slot,
)
from tests.conformance.vector_kit import Edits, Ref, Shard, Slot, Tensor, build, floats, whole

ENTRY = b'"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'


def header_cases():
    """The header by itself."""
    beyond = sound(header=lambda _, header: (2**16 - 8).to_bytes(8, "little") + header[8:])
    yield "E030-length-beyond-file", "The header is longer than the file.", beyond
    for name, text, old, new in (
        ("key-twice", "A key stands twice.", b'"tied":"w"}', b'"tied":"w","tied":"w"}'),
        ("unknown-member", "An entry has a fourth member.", ENTRY, ENTRY[:-1] + b',"x":1}'),
        ("unknown-dtype", "An element type that safetensors does not have.", b'"F32","shape":[4]', b'"F31","shape":[4]'),
        ("size-differs", "Offsets that are not the size of the shape.", b'"shape":[4]', b'"shape":[3]'),
        ("offset-is-float", "An offset that is no integer.", b"[0,16]", b"[0.0,16]"),
        ("no-format", "`__metadata__` without a format.", b'"format":"pt"', b'"frmt":"pt"'),
        ("metadata-of-number", "`__metadata__` with something other than text.", b'"tied":"w"', b'"tied":1'),
        ("not-utf-8", "A byte that is no UTF-8.", b'"tied"', b'"ti\xffd"'),
        ("half-a-pair", "Half of a surrogate pair.", b'"tied":"w"', b'"t":"\\ud8ff"'),
        ("padded-with-newline", "The padding begins with a line break.", b"[16,20]}}", b"[16,20]}}\n"),
        ("begins-with-space", "The header begins with a space.", b'{"__metadata__"', b' {"__metadata__"'),
        ("array", "An entry is an array.", ENTRY, b'"w":[]'),
    ):
        yield f"E030-{name}", text, in_header(old, new)
    text = "One bit of a tied name: the header is well-formed, but it is another."
    yield "E031-header-bit-flipped", text, in_file(MODEL, lambda data: replaced(data, b'"tied":"w"', b'"tied":"v"'))
    other = member("shards", 0, "digest", value="blake3:" + "1" * 64)
    yield "E031-digest-of-another", "The manifest names the digest of another shard.", in_manifest(other)
    yield "E031-slot-digests-swapped", "The metadata has the digests of two slots swapped.", in_content(_swap_digests)
    yield "E033-hole", "A byte between two slots belongs to none.", in_header(b"[16,20]", b"[17,21]")
    yield "E033-overlap", "Two slots share their bytes.", in_header(b"[16,20]", b"[12,16]")
    longer = with_stale_slot(data=lambda _, data: data + bytes(4), content=lambda content: _resize_stale(content, 4))
    yield "E033-trailing-bytes", "Four bytes after the last slot.", longer
    aligned = sound(header=lambda _, header: (len(header) - 16).to_bytes(8, "little") + header[8:])
    yield "E034-data-not-aligned", "The data begins at a multiple of 8 that is none of 64.", aligned
    yield "E035-key-with-delete", "A key with a control character.", _stored_as(Slot("w\x7f", "U8", (1,), b"x"))
    yield "E036-header-of-rank-65", "A stored shape of 65 dimensions.", _stored_as(Slot("w", "U8", (1,) * 65, b"x"))


def _swap_digests(content):
    digests = content["shards"][0]["digests"]
    content["shards"][0]["digests"] = digests[32:] + digests[:32]


def _resize_stale(content, change):
    content["shards"][0]["sizes"][1] += change
    return content


def _stored_as(slot):
    return build({"model": {"w": Ref(0)}}, [Tensor("model.w", "uint8", (1,), slot.data, [[0, 0]])], [Shard("model", [slot])])


def agreement_cases():
    """The header, the index and the manifest together."""
    for name, text, old, new in (
        ("other-key", "The header has another key than the index.", b'"b":{', b'"c":{'),
        ("other-dtype", "The header has another element type than the index.", b'"F32","shape":[4]', b'"I32","shape":[4]'),
        ("other-shape", "The header has another shape than the index.", b'"shape":[4]', b'"shape":[2,2]'),
    ):
        yield f"E032-{name}", text, in_header(old, new)
    yield "E032-slot-count", "The manifest counts three slots, the index two.", in_manifest(member("shards", 0, "tensor_count", value=3))
    yield "E032-shard-count", "The index has no slots for the second shard.", _extra_shard()
    smaller = with_stale_slot(content=lambda content: _resize_stale(content, -1))
    yield "E032-sizes", "The sizes of the index are not those of the file.", smaller


def _extra_shard():
    shard, rows = whole([("w", "float32", (1,), floats(1))])
    shards = [shard, Shard("other", [Slot("x", "U8", (1,), b"x")])]
    edits = Edits(content=lambda content: content | {"shards": content["shards"][:1]})
    return build({"model": {"w": Ref(0)}}, rows, shards, edits=edits)


def row_cases():
    """Rows of the index."""
    yield "E035-row-with-newline", "A row's name with a line break.", in_content(member("tensors", 0, 0, value="model\nw"))
    yield "E035-row-without-name", "A row without a name.", in_content(member("tensors", 0, 0, value=""))
    yield "E035-row-of-513-bytes", "A row's name of 513 bytes.", in_content(member("tensors", 0, 0, value="é" * 256 + "x"))
    yield "E036-row-of-rank-65", "A row with 65 dimensions.", in_content(member("tensors", 0, 2, value=[1] * 65))
    yield "E036-dimension-of-2-48", "A dimension of 2^48, without elements.", in_content(member("tensors", 0, 2, value=[0, 2**48]))
    yield "E036-dimension-negative", "A negative dimension.", in_content(member("tensors", 0, 2, value=[-4]))
    row, column = [0, 0, [0, 0], [1, 2]], [0, 1, [0, 0], [2, 1]]
    top, left, all_of_it = ((1, 2), b"ab"), ((2, 1), b"ac"), ((2, 2), b"abcd")
    for name, text, chunks, slots in (
        ("hole", "A row of the tensor is in no chunk.", [row], [top]),
        ("no-chunks", "A tensor with elements and without chunks.", [], []),
        ("overlap", "Two chunks of together the right size overlap.", [row, column], [top, left]),
        ("outside", "A chunk leaves the tensor.", [row, [0, 1, [2, 0], [1, 2]]], [top, top]),
        ("other-rank", "A chunk has another rank than the tensor.", [[0, 0, [0], [4]]], [((4,), b"abcd")]),
        ("whole-twice", "A tensor is stored whole, twice.", [[0, 0], [0, 1]], [all_of_it, all_of_it]),
    ):
        yield f"E041-{name}", text, with_row(chunks=chunks, slots=slots)
    dtypes = {"float12": "float12", "object": "numpy:|O8", "no-structure": 'numpy:{"fields":[]}', "safetensors-name": "F32"}
    for name, dtype in dtypes.items():
        yield f"E042-{name}", f"The element type {dtype!r}.", with_row(dtype=dtype)
    yield "E043-slot-too-long", "The slot has more bytes than the shape.", with_row(slots=[((5,), b"abcde")])
    yield "E043-dtype-too-large", "The element type needs more bytes than the slot has.", with_row(dtype="int16")
    yield "E044-name-twice", "Two rows of one name.", in_content(member("tensors", 1, 0, value="model.w"))


def encoding_cases():
    """Encoded slots."""
    yield "E045-not-zstd", "The slot does not hold frames.", with_encoded(b"not a frame")
    yield "E045-longer", "The slot decodes to more than is declared.", with_encoded(encoded_floats(1, 2) * 2)
    yield "E045-shorter", "The slot decodes to less than is declared.", with_encoded(encoded_floats(1))
    yield "E045-other-bytes", "The slot decodes to other bytes than is declared.", with_encoded(encoded_floats(1, 3))
    yield "E046-not-required", "A codec is used without being in `requires`.", with_encoded(encoded_floats(1, 2), requires=())
    unknown = member("shards", 0, "encodings", 0, 1, value=[["future", {}]])
    yield "E046-unknown-codec", "An unknown codec is used without being in `requires`.", with_encoded(encoded_floats(1, 2), change=unknown)
