"""Checkpoints whose metadata breaks one rule each: the frame, the packed form, the members, the tree. Spec 7, 8, 9.1."""

from ckptfmt.format.packed import pack
from tests.conformance.breaking import in_content, in_manifest, member, nested, replaced, sound, without
from tests.conformance.vector_kit import build, stored_frame

SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"


def frame_cases():
    """The zstd frame and its sizes."""
    yield "E021-no-checksum", "A frame without a checksum.", sound(frame=lambda raw: stored_frame(raw, checksum=False))
    yield "E021-wrong-checksum", "A frame whose checksum is another one.", sound(frame=lambda raw: stored_frame(raw, flip_checksum=True))
    yield "E021-no-content-size", "A frame that does not declare its size.", sound(frame=lambda raw: stored_frame(raw, size=False))
    yield "E021-two-frames", "A second frame, without content.", sound(frame=lambda raw: stored_frame(raw) + stored_frame(b""))
    yield "E021-skippable-frame-before", "A skippable frame comes first.", sound(frame=lambda raw: SKIPPABLE + stored_frame(raw))
    yield "E021-skippable-frame-after", "A skippable frame comes last.", sound(frame=lambda raw: stored_frame(raw) + SKIPPABLE)
    yield "E021-truncated-frame", "The frame ends early.", sound(frame=lambda raw: stored_frame(raw)[:-5])
    yield "E021-not-zstd", "The metadata is not compressed.", sound(frame=lambda raw: raw)
    yield "E022-window-of-16-mib", "A frame that asks for a window of 16 MiB.", sound(frame=lambda raw: stored_frame(raw, window_log=24))
    yield "E023-size-differs", "The manifest declares a byte less.", in_manifest(_smaller_metadata)
    larger = member("metadata", "size_bytes", value=2**17)
    yield "E023-frame-over-limit", "The frame is declared much larger than its content.", in_manifest(larger)
    yield "E023-size-over-limit", "More than 256 MiB are declared.", in_manifest(member("metadata", "raw_size_bytes", value=2**28 + 1))


def _smaller_metadata(document):
    document["metadata"]["raw_size_bytes"] -= 1


def packed_cases():
    """The packed form, and the members in it."""
    three = pack("epoch") + pack(3)
    for name, text, value in (
        ("key-twice", "A key stands twice in a map.", b"\x82\xa1a\x01\xa1a\x02"),
        ("key-is-bin", "A key is bin.", b"\x81\xc4\x01a\x01"),
        ("key-is-integer", "A key is an integer.", b"\x81\x01\x01"),
        ("long-integer", "An integer in more bytes than it needs.", b"\xcc\x01"),
        ("float-32", "A float of 32 bits.", b"\xca\x3f\x80\x00\x00"),
        ("extension-type", "A value of an extension type.", b"\xd4\x01\x00"),
        ("timestamp", "A timestamp.", b"\xd6\xff\x00\x00\x00\x00"),
        ("not-utf-8", "A text that is not UTF-8.", b"\xa1\xff"),
        ("array-declares-too-much", "An array declares more elements than there are bytes.", b"\xdd\x00\xff\xff\xff"),
    ):
        yield f"E024-{name}", text, sound(raw=lambda raw, value=value: replaced(raw, three, pack("epoch") + value))
    yield "E024-trailing-byte", "A byte after the value.", sound(raw=lambda raw: raw + b"\xc0")
    yield "E024-nested-1025", "One container more inside the others than is allowed.", sound(raw=lambda _: b"\x91" * 1025 + b"\xc0")
    wrong = {
        "tree-missing": without("tree"),
        "row-of-three": member("tensors", 0, value=["model.w", "float32", [4]]),
        "slot-not-there": member("tensors", 0, 3, value=[[0, 2]]),
        "shard-not-there": member("tensors", 0, 3, value=[[1, 0]]),
        "slot-negative": member("tensors", 0, 3, value=[[0, -1]]),
        "digests-too-short": member("shards", 0, "digests", value=bytes(63)),
        "header-size-not-aligned": member("shards", 0, "header_size_bytes", value=200),
        "sizes-missing": without("shards", 0, "sizes"),
        "codec-without-parameters": member("shards", 0, "encodings", value=[[0, [["zstd"]], 16, bytes(32)]]),
    }
    for name, change in wrong.items():
        yield f"E025-{name}", f"A member of the metadata is missing or wrong: {name.replace('-', ' ')}.", in_content(change)


def tree_cases():
    """Values and references of the tree."""
    yield "E026-nested-257", "One level more than is allowed.", build(nested(0, 257))
    for name, text, node in (
        ("unknown-tag", "A tag that this version does not know.", {"$pickle": b"\x80"}),
        ("complex-of-three", "A complex number of three numbers.", {"$complex": [1.0, 2.0, 3.0]}),
        ("odd-dict", "A mapping with a key and no value.", {"$dict": ["a"]}),
        ("list-as-key", "A key that is not hashable.", {"$dict": [[1], 2]}),
        ("factory-named", "A factory that is not in the list.", {"$defaultdict": ["eval", []]}),
        ("int-not-shortest", "A big integer with a byte too many.", {"$int": b"\x00\x01" + bytes(8)}),
        ("uuid-too-short", "A UUID of 15 bytes.", {"$uuid": bytes(15)}),
        ("device-named", "A device that is no name.", {"$torch_device": ["../cuda", 0]}),
        ("dtype-named", "An element type that torch does not have.", {"$torch_dtype": "Tensor"}),
        ("bit-generator-named", "A bit generator that is not in the list.", {"$numpy_generator": ["os", {}, None]}),
    ):
        yield f"E027-{name}", text, build({"value": node})
    for name, text, payload in (
        ("E027-unknown-kind", "A tensor of a kind that is not in the list.", [0, "tensorflow", {}]),
        ("E027-unknown-attribute", "A reference with an attribute that is not in the table.", [0, "torch", {"hook": 1}]),
        ("E028-row-not-there", "A reference to a row beyond the last.", [2, "torch", {}]),
        ("E028-row-negative", "A reference to a row before the first.", [-1, "torch", {}]),
        ("E028-view-after-end", "A view that ends after the tensor's memory.", [0, "torch", {"view": [4, "float32", [4], [1]]}]),
        ("E028-view-before-begin", "A view that begins before the tensor's memory.", [0, "numpy", {"view": [0, "float32", [2], [-1]]}]),
        ("E028-strides-not-dense", "Strides that leave gaps.", [0, "torch", {"strides": [2]}]),
        ("E028-strides-of-one-reference", "Two references to a row that differ in their strides.", [1, "torch", {"strides": [1, 2]}]),
    ):
        yield name, text, in_content(member("tree", "model", "w", value={"$tensor": payload}))
