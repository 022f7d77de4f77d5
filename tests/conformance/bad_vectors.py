"""Checkpoints that break one rule each, and those about which a verifier has only something to say.

Every case starts from the same sound checkpoint and changes one layer; whatever covers that layer is sealed again.
"""

from ckptfmt.format.packed import pack
from tests.conformance.good_vectors import floats
from tests.conformance.vector_kit import Edits, Ref, Shard, Slot, Tensor, build, count, stored_frame, whole

MODEL, METADATA, MANIFEST = "model-", "metadata-", "manifest.json"


def sound(**edits):
    """The checkpoint from which bad ones are made: two tensors, a tie and a number, with some edits of its layers."""
    shard, rows = whole([("w", "float32", (4,), floats(1, 2, 3, 4)), ("b", "float32", (), floats(5))], ties={"tied": "w"})
    tree = {"model": {"w": Ref(0), "tied": Ref(0), "b": Ref(1)}, "epoch": 3}
    return build(tree, rows, [shard], edits=Edits(**edits))


def in_manifest(change):
    """Break the manifest's content."""

    def edit(document):
        change(document)
        return document

    return sound(manifest=edit)


def in_content(change):
    """Break the metadata's content."""

    def edit(content):
        change(content)
        return content

    return sound(content=edit)


def in_header(old, new):
    """Replace text in the header without moving the data: padding takes the difference."""

    def edit(_, header):
        assert header.count(old) == 1, old
        text = header[8:].rstrip(b" ").replace(old, new)
        assert len(text) <= len(header) - 8, new
        return header[:8] + text.ljust(len(header) - 8)

    return sound(header=edit)


def in_files(start, change):
    """Break the bytes of one file and seal nothing."""

    def edit(files):
        name = next(name for name in files if name.startswith(start))
        changed = change(files.pop(name))
        return files if changed is None else files | (changed if isinstance(changed, dict) else {name: changed})

    return sound(files=edit)


def flipped(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def with_tree(tree, rows=(), shards=(), **options):
    return build(tree, rows, shards, **options)


def with_row(*, name="model.t", dtype="uint8", shape=(2, 2), chunks=None, slots=(b"abcd",), tensor_bytes=None):
    """One tensor whose row is as given, over slots of these bytes."""
    stored = [Slot(f"t@{index}", "U8", (len(data),), data) for index, data in enumerate(slots)]
    size_bytes = tensor_bytes if tensor_bytes is not None else count(shape)
    row = Tensor(name, dtype, tuple(shape), bytes(min(size_bytes, 64)), chunks or [[0, 0]])
    return build({"model": Ref(0)}, [row], [Shard("model", stored)])


def with_encoded(raw=floats(1, 2), stored=None, *, requires=("codec:zstd",), content=lambda content: content):
    stored = stored_frame(raw) if stored is None else stored
    row = Tensor("model.t", "float32", (2,), floats(1, 2), [[0, 0]])
    shard = Shard("model", [Slot("t", "U8", (len(stored),), stored, raw)])
    return build({"model": Ref(0)}, [row], [shard], requires=requires, edits=Edits(content=content))


def member(*path, value):
    """Return a change that sets a member deep inside."""

    def change(document):
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return change


def without(*path):
    def change(document):
        for step in path[:-1]:
            document = document[step]
        del document[path[-1]]

    return change


def nested(value, levels):
    for _ in range(levels):
        value = [value]
    return value


def text_edit(old, new):
    def edit(text):
        assert text.count(old) == 1, old
        return text.replace(old, new)

    return sound(text=edit)


def manifest_cases():
    yield "E001-no-manifest", "Every data file is there, but no manifest.", in_files(MANIFEST, lambda _: None)
    yield "E003-key-twice", "A member stands twice.", text_edit(b' "step": 7,', b' "step": 7,\n "step": 7,')
    yield "E003-not-a-number", "NaN as a number of JSON.", text_edit(b'"loss": 0.25', b'"loss": NaN')
    yield "E003-number-out-of-range", "A number beyond the doubles.", text_edit(b'"loss": 0.25', b'"loss": 1e400')
    yield "E003-integer-out-of-range", "An integer of 2^63.", text_edit(b'"step": 7', b'"step": 9223372036854775808')
    yield "E003-not-ascii", "A letter that is not ASCII, in UTF-8.", text_edit(b"ckptfmt vectors", "ckptfmt véctors".encode())
    yield "E003-half-a-pair", "Half of a surrogate pair.", text_edit(b"ckptfmt vectors", b"ckptfmt \\ud800")
    yield "E003-nested-65", "One level more than is allowed.", in_manifest(member("fingerprint", value={"config": nested(0, 63)}))
    yield "E003-trailing-bytes", "Something after the document.", sound(text=lambda text: text + b"{}\n")
    yield "E004-step-changed", "One digit was changed.", in_files(MANIFEST, lambda data: data.replace(b'"step": 7', b'"step": 8'))
    yield "E004-space-added", "A space was added.", in_files(MANIFEST, lambda data: data + b" ")
    yield "E004-digest-escaped", "The digest is written with an escape, so its text is not in the file.", in_files(MANIFEST, escaped_digest)
    yield "E005-other-format", "Another format's manifest.", in_manifest(member("format", value="otherfmt"))
    yield "E005-not-an-object", "The document is an array.", in_files(MANIFEST, lambda _: b"[]\n")
    yield "E006-major-2", "The next major version.", in_manifest(member("version", value=[2, 0]))
    yield "E006-major-0", "A major version before the first.", in_manifest(member("version", value=[0, 9]))
    yield "E007-unknown-codec", "A feature that this version does not know.", in_manifest(member("requires", value=["codec:future"]))
    wrong = {
        "digest-missing": without("digest"),
        "created-missing": without("created_at_utc"),
        "created-without-zone": member("created_at_utc", value="2026-01-02T03:04:05.678901"),
        "version-is-text": member("version", value="1.0"),
        "requires-with-space": member("requires", value=["codec zstd"]),
        "step-negative": member("step", value=-1),
        "step-is-true": member("step", value=True),
        "metric-is-text": member("metrics", "loss", value="0.25"),
        "fingerprint-is-array": member("fingerprint", value=[]),
        "size-missing": without("metadata", "size_bytes"),
        "section-is-number": member("shards", 0, "section", value=1),
        "digest-of-other-kind": member("shards", 0, "digest", value="sha256:" + "0" * 64),
        "totals-missing": without("totals"),
    }
    for name, change in wrong.items():
        yield f"E008-{name}", f"A member of the manifest is missing or wrong: {name.replace('-', ' ')}.", in_manifest(change)
    for name, text in (
        ("parent", "../model.safetensors"),
        ("upper-case", "Model.safetensors"),
        ("hidden", ".model"),
        ("dot-at-end", "model."),
    ):
        yield f"E009-{name}", f"A shard named {text!r}.", in_manifest(member("shards", 0, "name", value=text))
    yield "E009-manifest", "A shard that is the manifest.", in_manifest(member("shards", 0, "name", value=MANIFEST))
    yield "E010-shard-twice", "Two shards are one file.", shard_twice()
    yield "E011-tensor-bytes", "One byte too many in the totals.", in_manifest(member("totals", "tensor_bytes", value=21))
    yield "E011-tensor-count", "A tensor too few in the totals.", in_manifest(member("totals", "tensor_count", value=1))


def escaped_digest(data):
    return data.replace(b' "digest": "b', b' "digest": "\\u0062', 1) if data.startswith(b'{\n "created') else data


def shard_twice():
    shard, rows = whole([("w", "float32", (1,), floats(1))])
    return build({"model": {"w": Ref(0)}}, rows, [shard, shard])


def file_cases():
    yield "E012-shard-missing", "A shard was removed.", in_files(MODEL, lambda _: None)
    yield "E012-metadata-missing", "The metadata was removed.", in_files(METADATA, lambda _: None)
    yield "E013-shard-is-a-directory", "A directory has the name of a shard.", directory_for_shard()
    yield "E014-shard-truncated", "The last byte of a shard is missing.", in_files(MODEL, lambda data: data[:-1])
    yield "E014-shard-longer", "A byte after the end of a shard.", in_files(MODEL, lambda data: data + b"\0")
    yield "E014-metadata-empty", "The metadata has no bytes.", in_files(METADATA, lambda _: b"")


def directory_for_shard():
    files = sound()
    name = next(name for name in files if name.startswith(MODEL))
    return {**files, f"{name}/part": files[name]} | {name: None}


def metadata_cases():
    yield "E020-bit-flipped", "One bit of the metadata file.", in_files(METADATA, lambda data: flipped(data, 40))
    yield "E021-no-checksum", "A frame without a checksum.", sound(frame=lambda raw: stored_frame(raw, checksum=False))
    yield "E021-wrong-checksum", "A frame whose checksum is another one.", sound(frame=lambda raw: stored_frame(raw, flip_checksum=True))
    yield "E021-no-content-size", "A frame that does not declare its size.", sound(frame=lambda raw: stored_frame(raw, size=False))
    yield "E021-two-frames", "A second frame, without content.", sound(frame=lambda raw: stored_frame(raw) + stored_frame(b""))
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
    yield "E021-skippable-frame-before", "A skippable frame comes first.", sound(frame=lambda raw: skippable + stored_frame(raw))
    yield "E021-skippable-frame-after", "A skippable frame comes last.", sound(frame=lambda raw: stored_frame(raw) + skippable)
    yield "E021-truncated-frame", "The frame ends early.", sound(frame=lambda raw: stored_frame(raw)[:-5])
    yield "E021-not-zstd", "The metadata is not compressed.", sound(frame=lambda raw: raw)
    yield "E022-window-of-16-mib", "A frame that asks for a window of 16 MiB.", sound(frame=lambda raw: stored_frame(raw, window_log=24))
    yield "E023-size-differs", "The manifest declares a byte less.", sound(manifest=smaller_metadata)
    yield "E023-size-over-limit", "More than 256 MiB are declared.", in_manifest(member("metadata", "raw_size_bytes", value=2**28 + 1))
    head = len(pack({"tree": {}, "tensors": [], "shards": []}))
    for name, text, raw in (
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
        yield f"E024-{name}", text, sound(raw=lambda raw, value=raw: raw.replace(pack({"epoch": 3})[1:], pack("epoch") + value, 1))
    yield "E024-trailing-byte", "A byte after the value.", sound(raw=lambda raw: raw + b"\xc0")
    yield "E024-nested-1025", "More containers inside each other than any decoder need hold.", sound(raw=lambda _: b"\x91" * 1025 + b"\xc0")
    assert head
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


def smaller_metadata(document):
    document["metadata"]["raw_size_bytes"] -= 1
    return document


def tree_cases():
    yield "E026-nested-257", "One level more than is allowed.", with_tree(nested(0, 257))
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
        yield f"E027-{name}", text, with_tree({"value": node})
    yield "E027-unknown-kind", "A tensor of a kind that is not in the list.", in_content(reference([0, "tensorflow", {}]))
    yield (
        "E027-unknown-attribute",
        "A reference with an attribute that is not in the table.",
        in_content(reference([0, "torch", {"hook": 1}])),
    )
    for name, text, payload in (
        ("row-not-there", "A reference to a row beyond the last.", [2, "torch", {}]),
        ("row-negative", "A reference to a row before the first.", [-1, "torch", {}]),
        ("view-after-end", "A view that ends after the tensor's memory.", [0, "torch", {"view": [4, "float32", [4], [1]]}]),
        ("view-before-begin", "A view that begins before the tensor's memory.", [0, "numpy", {"view": [0, "float32", [2], [-1]]}]),
        ("strides-not-dense", "Strides that leave gaps.", [0, "torch", {"strides": [2]}]),
    ):
        yield f"E028-{name}", text, in_content(reference(payload))


def reference(payload):
    return member("tree", "model", "w", value={"$tensor": payload})


def shard_cases():
    yield (
        "E030-length-beyond-file",
        "The header is longer than the file.",
        sound(header=lambda _, header: b"\xf8\xff" + bytes(6) + header[8:]),
    )
    entry = b'"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'
    for name, text, old, new in (
        ("key-twice", "A key stands twice.", b'"tied":"w"}', b'"tied":"w","tied":"w"}'),
        ("unknown-member", "An entry has a fourth member.", entry, entry[:-1] + b',"x":1}'),
        ("unknown-dtype", "An element type that safetensors does not have.", b'"F32","shape":[4]', b'"F31","shape":[4]'),
        ("size-differs", "Offsets that are not the size of the shape.", b'"shape":[4]', b'"shape":[3]'),
        ("offset-is-float", "An offset that is no integer.", b"[0,16]", b"[0.0,16]"),
        ("no-format", "`__metadata__` without a format.", b'"format":"pt"', b'"frmt":"pt"'),
        ("metadata-of-number", "`__metadata__` with something other than text.", b'"tied":"w"', b'"tied":1'),
        ("not-utf-8", "A byte that is no UTF-8.", b'"tied"', b'"ti\xffd"'),
        ("half-a-pair", "Half of a surrogate pair.", b'"tied":"w"', b'"t":"\\ud8ff"'),
        ("padded-with-newline", "The padding begins with a line break.", b"[16,20]}}", b"[16,20]}}\n"),
        ("begins-with-space", "The header begins with a space.", b'{"__metadata__"', b' {"__metadata__"'),
        ("array", "An entry is an array.", entry, b'"w":[]'),
    ):
        yield f"E030-{name}", text, in_header(old, new)
    yield "E031-header-bit-flipped", "One bit of a tied name: the header is well-formed, but another.", in_files(MODEL, flip_tie)
    yield (
        "E031-digest-of-another",
        "The manifest names the digest of another shard.",
        in_manifest(member("shards", 0, "digest", value="blake3:" + "1" * 64)),
    )
    yield "E031-slot-digests-swapped", "The metadata has the digests of two slots swapped.", in_content(swap_digests)
    for name, text, old, new in (
        ("other-key", "The header has another key than the index.", b'"b":{', b'"c":{'),
        ("other-dtype", "The header has another element type than the index.", b'"F32","shape":[4]', b'"I32","shape":[4]'),
        ("other-shape", "The header has another shape than the index.", b'"shape":[4]', b'"shape":[2,2]'),
    ):
        yield f"E032-{name}", text, in_header(old, new)
    yield "E032-slot-count", "The manifest counts three slots, the index two.", in_manifest(member("shards", 0, "tensor_count", value=3))
    yield "E032-shard-count", "The index has no slots for the second shard.", extra_shard()
    yield "E032-sizes", "The sizes of the index are not those of the file.", in_content(smaller_slot)
    yield "E033-hole", "A byte between two slots belongs to none.", in_header(b"[16,20]", b"[17,21]")
    yield "E033-overlap", "Two slots share their bytes.", in_header(b"[16,20]", b"[12,16]")
    yield "E033-trailing-bytes", "Four bytes after the last slot.", trailing()
    yield "E034-data-not-aligned", "The data begins at a multiple of 8 that is none of 64.", sound(header=shorter_header)
    yield "E035-row-with-newline", "A row's name with a line break.", in_content(member("tensors", 0, 0, value="model\nw"))
    yield "E035-row-without-name", "A row without a name.", in_content(member("tensors", 0, 0, value=""))
    yield "E035-row-of-513-bytes", "A row's name of 513 bytes.", in_content(member("tensors", 0, 0, value="é" * 256 + "x"))
    yield "E035-key-with-delete", "A key with a control character.", in_header(b'"b":{', b'"\x7f":{')
    yield "E036-row-of-rank-65", "A row with 65 dimensions.", in_content(member("tensors", 0, 2, value=[1] * 65))
    yield "E036-dimension-of-2-48", "A dimension of 2^48, without elements.", in_content(member("tensors", 0, 2, value=[0, 2**48]))
    yield "E036-dimension-negative", "A negative dimension.", in_content(member("tensors", 0, 2, value=[-4]))
    yield "E036-header-of-rank-65", "A header with 65 dimensions.", many_dimensions()


def flip_tie(data):
    return data.replace(b'"tied":"w"', b'"tied":"v"')


def swap_digests(content):
    digests = content["shards"][0]["digests"]
    content["shards"][0]["digests"] = digests[32:] + digests[:32]


def smaller_slot(content):
    content["shards"][0]["sizes"][0] -= 1


def extra_shard():
    shard, rows = whole([("w", "float32", (1,), floats(1))])
    other = Shard("other", [Slot("x", "U8", (1,), b"x")])
    return build(
        {"model": {"w": Ref(0)}}, rows, [shard, other], edits=Edits(content=lambda content: content | {"shards": content["shards"][:1]})
    )


def trailing():
    def more_bytes(content):
        content["shards"][0]["sizes"][1] += 4
        content["tensors"][1][1] = "float64"
        return content

    def totals(document):
        document["totals"]["tensor_bytes"] += 4
        return document

    return sound(data=lambda _, data: data + bytes(4), content=more_bytes, manifest=totals)


def shorter_header(_, header):
    return (len(header) - 16).to_bytes(8, "little") + header[8:]


def many_dimensions():
    shape = (1,) * 65
    shard = Shard("model", [Slot("t", "U8", shape, b"x")])
    row = Tensor("model.t", "uint8", (1,), b"x", [[0, 0]])
    return build({"model": Ref(0)}, [row], [shard])


def tensor_cases():
    yield "E040-bit-flipped", "One bit of a tensor.", in_files(MODEL, lambda data: flipped(data, len(data) - 10))
    halves = (b"ab", b"cd")
    for name, text, chunks, slots in (
        ("hole", "A row of the tensor is in no chunk.", [[0, 0, [0, 0], [1, 2]]], halves[:1]),
        ("no-chunks", "A tensor with elements and without chunks.", [], ()),
        ("overlap", "Two chunks of together the right size overlap.", [[0, 0, [0, 0], [1, 2]], [0, 1, [0, 0], [2, 1]]], halves),
        ("outside", "A chunk leaves the tensor.", [[0, 0, [0, 0], [1, 2]], [0, 1, [2, 0], [1, 2]]], halves),
        ("other-rank", "A chunk has another rank than the tensor.", [[0, 0, [0], [4]]], (b"abcd",)),
        ("chunk-twice", "A tensor is stored whole, twice.", [[0, 0], [0, 1]], (b"abcd", b"abcd")),
    ):
        yield f"E041-{name}", text, with_row(chunks=chunks or [], slots=slots) if chunks else without_chunks()
    for name, dtype in (
        ("float12", "float12"),
        ("object", "numpy:|O8"),
        ("structure-without-size", 'numpy:{"fields":[]}'),
        ("safetensors-name", "F32"),
    ):
        yield f"E042-{name}", f"An element type {dtype!r}.", with_row(dtype=dtype)
    yield "E043-slot-too-long", "The slot has more bytes than the shape.", with_row(slots=(b"abcde",))
    yield "E043-dtype-too-large", "The element type needs more bytes than the slot has.", with_row(dtype="int16")
    yield "E044-name-twice", "Two rows of one name.", in_content(member("tensors", 1, 0, value="model.w"))
    frames = stored_frame(floats(1, 2))
    yield "E045-not-zstd", "The slot does not hold frames.", with_encoded(stored=b"not a frame")
    yield "E045-longer", "The slot decodes to more than is declared.", with_encoded(stored=frames + frames)
    yield "E045-shorter", "The slot decodes to less than is declared.", with_encoded(stored=stored_frame(floats(1)))
    yield "E045-other-bytes", "The slot decodes to other bytes than is declared.", with_encoded(stored=stored_frame(floats(1, 3)))
    yield "E045-window", "The slot's frame asks for a window of 16 MiB.", with_encoded(stored=stored_frame(floats(1, 2), window_log=24))
    yield "E046-not-required", "A codec is used without being in `requires`.", with_encoded(requires=())
    unknown = member("shards", 0, "encodings", 0, 1, value=[["future", {}]])
    yield "E046-unknown-codec", "An unknown codec is used without being in `requires`.", with_encoded(content=lambda c: unknown(c) or c)


def without_chunks():
    return build({"model": Ref(0)}, [Tensor("model.t", "uint8", (2, 2), b"abcd", [])], [])


def bad_cases():
    """Yield (name, description, files) of every case; the name begins with the code."""
    for group in (manifest_cases, file_cases, metadata_cases, tree_cases, shard_cases, tensor_cases):
        yield from group()


def warn_cases():
    """Yield (name, description, files) of every case about which a verifier has something to say, and which loads."""
    extra = sound() | {"notes.txt": b"not of the checkpoint\n"}
    yield "W001-extra-file", "A file that the manifest does not name.", extra
    temporary = sound() | {".model-00001." + "0123456789abcdef" * 2 + ".tmp": b"half a sh"}
    yield "W002-temporary-file", "What an interrupted save left.", temporary
    yield "W003-newer-minor", "Written by version 1.7.", in_manifest(member("version", value=[1, 7]))
    yield (
        "W004-manifest-member",
        "A member of the manifest that this version does not know.",
        in_manifest(member("signature", value={"key": "k1"})),
    )
    yield "W004-metadata-member", "A member of the metadata that this version does not know.", in_content(member("notes", value=["n"]))


def sound_tree():
    """The tree of the sound checkpoint and its tensors, for those that load."""
    _, rows = whole([("w", "float32", (4,), floats(1, 2, 3, 4)), ("b", "float32", (), floats(5))])
    return {"model": {"w": Ref(0), "tied": Ref(0), "b": Ref(1)}, "epoch": 3}, rows
