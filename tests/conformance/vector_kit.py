"""Checkpoints made by hand for the conformance vectors: sound ones, and ones broken at exactly one layer.

`build` makes the files of a checkpoint from a tree and its tensors. An edit changes one layer and everything above it is sealed
again, so that the digests are right and only the rule under test is broken. Nothing here depends on a clock, a random number or the version
of a compressor: frames hold their content as it is.
"""

import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import zstandard

from ckptfmt.format import canonical_json
from ckptfmt.format.digest import digest_of, format_digest, shard_digest
from ckptfmt.format.dtypes import itemsize_bytes, stored_form
from ckptfmt.format.layout import section_stem
from ckptfmt.format.manifest import Manifest, MetadataEntry, ShardEntry, encode_manifest
from ckptfmt.format.packed import pack
from ckptfmt.format.shard_header import StoredEntry, encode_header

CREATED = "2026-01-02T03:04:05.678901Z"
ZEROED = b"blake3:" + b"0" * 64
BLOCK_BYTES = 2**17


def floats(*values):
    """Return values as float32."""
    return struct.pack(f"<{len(values)}f", *values)


@dataclass(frozen=True)
class Slot:
    """A stored chunk: `dtype` is of safetensors; `raw` is what an encoded slot decodes to, by `codecs`."""

    key: str
    dtype: str
    shape: tuple
    data: bytes
    raw: bytes | None = None
    codecs: tuple = (("zstd", {}),)


@dataclass(frozen=True)
class Shard:
    section: str
    slots: list
    ties: dict = field(default_factory=dict)
    number: int = 1


@dataclass(frozen=True)
class Tensor:
    """A row of the index, and the bytes that a reader must give for it."""

    name: str
    dtype: str
    shape: tuple
    data: bytes
    chunks: list

    def row(self):
        return [self.name, self.dtype, list(self.shape), self.chunks]


@dataclass(frozen=True)
class Ref:
    """A reference in the tree; `view` is (offset, dtype, shape, strides) and `view_data` the bytes that it shows."""

    row: int
    kind: str = "torch"
    grad: bool | None = None
    strides: tuple | None = None
    view: tuple | None = None
    view_data: bytes = b""

    def packed(self):
        attributes = {}
        if self.grad is not None:
            attributes["grad"] = self.grad
        if self.strides is not None:
            attributes["strides"] = list(self.strides)
        if self.view is not None:
            offset, dtype, shape, strides = self.view
            attributes["view"] = [offset, dtype, list(shape), list(strides)]
        return {"$tensor": [self.row, self.kind, attributes]}

    def expected(self, tensors):
        tensor = tensors[self.row]
        dtype, shape, data = (self.view[1], self.view[2], self.view_data) if self.view else (tensor.dtype, tensor.shape, tensor.data)
        grad = self.kind == "parameter" if self.grad is None else self.grad
        return {"row": self.row, "kind": self.kind, "dtype": dtype, "shape": list(shape), "bytes": data, "grad": grad}


@dataclass(frozen=True)
class Edits:
    """Changes of one layer each; what stands above it is sealed again, except by `files`."""

    header: Callable = lambda index, header: header
    data: Callable = lambda index, data: data
    content: Callable = lambda content: content
    raw: Callable = lambda raw: raw
    frame: Callable = lambda raw: stored_frame(raw)
    manifest: Callable = lambda document: document
    text: Callable = lambda text: text
    files: Callable = lambda files: files


def map_tree(node, on_ref):
    """Replace the references of a tree."""
    if isinstance(node, Ref):
        return on_ref(node)
    if isinstance(node, dict):
        return {key: map_tree(value, on_ref) for key, value in node.items()}
    return [map_tree(value, on_ref) for value in node] if isinstance(node, list) else node


def whole(tensors, *, section="model", ties=None):
    """Return one shard that holds whole tensors, and their rows: (name, dtype, shape, data) each, in slot order."""
    slots, rows = [], []
    for index, (name, dtype, shape, data) in enumerate(tensors):
        assert len(data) == itemsize_bytes(dtype) * count(shape), name
        slots.append(Slot(name, *stored_form(dtype, tuple(shape), len(data)), data))
        rows.append(Tensor(f"{section}.{name}", dtype, tuple(shape), data, [[0, index]]))
    return Shard(section, slots, ties or {}), rows


def count(shape):
    product = 1
    for size in shape:
        product *= size
    return product


def build(tree, tensors=(), shards=(), *, requires=(), step=7, edits=None, **members):
    """Return the files of a checkpoint by name. `members` are further arguments of the manifest."""
    edits = edits or Edits()
    files, tables, entries = {}, [], []
    for index, shard in enumerate(shards):
        header = encode_header([StoredEntry(slot.key, slot.dtype, slot.shape, len(slot.data)) for slot in shard.slots], shard.ties)
        table = {
            "header_size_bytes": len(header),
            "keys": [slot.key for slot in shard.slots],
            "sizes": [len(slot.data) for slot in shard.slots],
        }
        table["digests"] = b"".join(digest_of(slot.data) for slot in shard.slots)
        encoded = {slot: shard.slots[slot].raw for slot in range(len(shard.slots)) if shard.slots[slot].raw is not None}
        if encoded:
            codecs = {slot: [list(codec) for codec in shard.slots[slot].codecs] for slot in encoded}
            table["encodings"] = [[slot, codecs[slot], len(raw), digest_of(raw)] for slot, raw in encoded.items()]
        header = edits.header(index, header)
        data = edits.data(index, b"".join(slot.data for slot in shard.slots))
        content = header + data
        digest = shard_digest(content[: 8 + int.from_bytes(header[:8], "little")], table["digests"])
        name = f"{section_stem(shard.section)}-{shard.number:05d}-{digest.hex()[:8]}.safetensors"
        files[name] = content
        tables.append(table)
        entries.append(ShardEntry(name, len(content), format_digest(digest), shard.section, len(shard.slots)))
    packed = map_tree(tree, Ref.packed)
    raw = edits.raw(pack(edits.content({"tree": packed, "tensors": [tensor.row() for tensor in tensors], "shards": tables})))
    frame = edits.frame(raw)
    digest = digest_of(frame)
    name = f"metadata-{digest.hex()[:8]}.msgpack.zst"
    files[name] = frame
    manifest = Manifest(
        created_at_utc=CREATED,
        writer="ckptfmt vectors",
        step=step,
        metrics=members.pop("metrics", {"loss": 0.25}),
        fingerprint=members.pop("fingerprint", None),
        metadata=MetadataEntry(name, len(frame), format_digest(digest), len(raw)),
        shards=entries,
        tensor_count=len(tensors),
        tensor_bytes=sum(len(tensor.data) for tensor in tensors),
        requires=requires,
        **members,
    )
    document = edits.manifest(json.loads(encode_manifest(manifest)))
    files["manifest.json"] = seal(edits.text(canonical_json.encode(document)))
    return edits.files(files)


def seal(text):
    """Give a manifest its digest anew."""
    zeroed = re.sub(rb'(?m)^( "digest": ")blake3:[0-9a-f]{64}', rb"\1" + ZEROED, text, count=1)
    return zeroed.replace(b' "digest": "' + ZEROED, b' "digest": "' + format_digest(digest_of(zeroed)).encode(), 1)


def stored_frame(raw, *, checksum=True, size=True, window_log=None, flip_checksum=False):
    """Return one zstd frame that holds its content uncompressed. RFC 8878, 3.1.1."""
    is_single_segment = size and window_log is None
    descriptor = (0b11 << 6 if size else 0) | is_single_segment << 5 | checksum << 2
    window = b"" if is_single_segment else bytes([((window_log or 20) - 10) << 3])
    declared = len(raw).to_bytes(8, "little") if size else b""
    blocks = [raw[start : start + BLOCK_BYTES] for start in range(0, max(len(raw), 1), BLOCK_BYTES)]
    body = b"".join((len(block) << 3 | (block is blocks[-1])).to_bytes(3, "little") + block for block in blocks)
    check = zstandard.ZstdCompressor(write_checksum=True).compress(raw)[-4:]
    check = bytes([check[0] ^ flip_checksum]) + check[1:]
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + window + declared + body + (check if checksum else b"")


def readable(value):
    """Return a value as JSON holds it: bytes as hexadecimal digits, numbers that are not finite as text."""
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"$float": {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]}
    if isinstance(value, dict):
        return {key: readable(item) for key, item in value.items()}
    return [readable(item) for item in value] if isinstance(value, list | tuple) else value


def expected_tree(tree, tensors):
    """Return what a reader must give for a tree, in readable form."""
    return readable(map_tree(tree, lambda ref: {"$tensor": ref.expected(tensors)}))
