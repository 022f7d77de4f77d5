"""Values that the format can hold, for tests that hold for all of them."""

import math

from hypothesis import strategies as st

from ckptfmt.format.dtypes import NATIVE, RAW_SIZES, itemsize_bytes, stored_form
from ckptfmt.format.layout import is_tensor_name, max_frame_bytes
from ckptfmt.format.manifest import Manifest, MetadataEntry, ShardEntry
from ckptfmt.format.metadata import Chunk, Encoding, Metadata, ShardTable, TensorRow
from ckptfmt.format.shard_header import StoredEntry

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1, max_size=30).filter(is_tensor_name)
COUNTS = st.integers(0, 2**63 - 1)
DIGESTS = st.binary(min_size=32, max_size=32)
DIGEST_TEXTS = DIGESTS.map(lambda digest: f"blake3:{digest.hex()}")
FILE_NAMES = st.from_regex(r"[a-z0-9_][a-z0-9._-]{0,20}[a-z0-9]", fullmatch=True).filter(lambda name: name != "manifest.json")

PLAIN = st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | TEXT
DOCUMENTS = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12)
PACKABLE = st.recursive(
    PLAIN | st.integers(0, 2**64 - 1) | st.binary(max_size=40) | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
DTYPES = st.sampled_from([*NATIVE, *RAW_SIZES, "numpy:>f4", "numpy:<U2", "numpy:|S0"])


@st.composite
def manifests(draw):
    names = draw(st.lists(FILE_NAMES, unique=True, min_size=1, max_size=4))
    raw_size_bytes = draw(st.integers(0, 2**28))
    metadata = MetadataEntry(names[0], draw(st.integers(0, max_frame_bytes(raw_size_bytes))), draw(DIGEST_TEXTS), raw_size_bytes)
    shards = [ShardEntry(name, draw(COUNTS), draw(DIGEST_TEXTS), draw(TEXT), draw(COUNTS)) for name in names[1:]]
    members = {
        "format",
        "version",
        "requires",
        "digest",
        "created_at_utc",
        "writer",
        "step",
        "metrics",
        "fingerprint",
        "metadata",
        "shards",
        "totals",
    }
    return Manifest(
        created_at_utc=draw(st.datetimes()).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0"),
        writer=draw(TEXT),
        step=draw(st.none() | COUNTS),
        metrics=draw(st.dictionaries(TEXT, INT64 | st.floats(), max_size=4)),
        fingerprint=draw(st.none() | st.dictionaries(TEXT, DOCUMENTS, max_size=4)),
        metadata=metadata,
        shards=shards,
        tensor_count=draw(COUNTS),
        tensor_bytes=draw(COUNTS),
        requires=tuple(draw(st.sets(st.just("codec:zstd")))),
        version=(1, draw(COUNTS)),
        extra=draw(st.dictionaries(TEXT.filter(lambda name: name not in members), DOCUMENTS, max_size=2)),
    )


@st.composite
def stored_entries(draw, dtypes=DTYPES):
    """Entries of a header; whatever safetensors stores."""
    entries = []
    for key in draw(st.lists(NAMES, unique=True, max_size=6)):
        dtype, shape = draw(dtypes), draw(SHAPES)
        size_bytes = math.prod(shape) * itemsize_bytes(dtype)
        entries.append(StoredEntry(key, *stored_form(dtype, shape, size_bytes), size_bytes))
    return entries


@st.composite
def tilings(draw, shape):
    """Chunks (offset, shape) that cover a shape, made by straight cuts."""
    pending, done = [((0,) * len(shape), shape)], []
    while pending:
        offset, size = pending.pop()
        axes = [axis for axis, length in enumerate(size) if length > 1]
        if not axes or len(done) + len(pending) > 12 or draw(st.integers(0, 2)) == 0:
            done.append((offset, size))
            continue
        axis = draw(st.sampled_from(axes))
        cut = draw(st.integers(1, size[axis] - 1))
        pending.append((offset, (*size[:axis], cut, *size[axis + 1 :])))
        pending.append(((*offset[:axis], offset[axis] + cut, *offset[axis + 1 :]), (*size[:axis], size[axis] - cut, *size[axis + 1 :])))
    return draw(st.permutations(done))


@st.composite
def metadatas(draw):
    """A tree of any packable value, and rows over slots that fit them, some encoded."""
    sizes, encodings, rows = [], {}, []
    for name in draw(st.lists(NAMES, unique=True, max_size=4)):
        dtype, shape = draw(DTYPES), draw(SHAPES)
        itemsize = itemsize_bytes(dtype)
        chunks = []
        for offset, part in draw(tilings(shape)):
            slot, size_bytes = len(sizes), math.prod(part) * itemsize
            if draw(st.booleans()):
                encodings[slot] = Encoding((("zstd", {}),), size_bytes, draw(DIGESTS))
                size_bytes = draw(st.integers(0, 100))
            sizes.append(size_bytes)
            chunks.append(Chunk(0, slot, offset, part))
        rows.append(TensorRow(name, dtype, shape, math.prod(shape) * itemsize, tuple(chunks)))
    digests = b"".join(bytes([slot % 256]) * 32 for slot in range(len(sizes)))
    table = ShardTable(64 * draw(st.integers(1, 1000)), [f"slot {slot}" for slot in range(len(sizes))], sizes, digests, encodings)
    return Metadata(draw(PACKABLE), rows, [table])
