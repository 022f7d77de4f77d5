"""Checkpoints with tensors that are coded as planes, equal to others, or rounded from them. Spec 11."""

import struct
from dataclasses import replace

from ckptfmt.format.digest import shard_digest
from ckptfmt.format.shard_header import StoredEntry, encode_header
from tests.conformance.cases_good import floats, pattern
from tests.conformance.planes_kit import BITS, CONSTANT, FRAME, NONE, ROTATED, SOURCE, STORED, ZIGZAG, Planes, stream
from tests.conformance.vector_kit import Edits, Ref, Shard, Slot, Tensor

PLANES = (("planes", {}),)
REQUIRED = ("codec:planes", "codec:rounded", "codec:same")
MATRIX = floats(*(0.5 * (1 + row) * (column - 3) for row in range(6) for column in range(8)))
ONES = floats(*[1.0] * 24)
WORDS = floats(*(1.0 + index / 64 for index in range(40)))
MADE = Planes(4, ROTATED, (1, 1, 2), (FRAME, STORED, STORED), 16, spares=(2, 2, 0), base=100 << 24)
MADE_OF_ROWS = Planes(
    4, ROTATED, (1, 1, 2), (FRAME, STORED, STORED), 16, columns=(-128, -2, 0, 3, 1, 0, 5, 127), rows=(0, -7, 1, 2, 90, -3), shift=21
)


def slot_of(key, raw, made):
    data = stream(raw, made)
    return Slot(key, "U8", (len(data),), data, raw, PLANES)


def made_from(key, raw, shard, slot, to=None):
    name, parameters = ("same", {}) if to is None else ("rounded", {"to": to})
    return Slot(key, "U8", (0,), b"", raw, ((name, {"source": [shard, slot], **parameters}),))


def checkpoint(slots, dtypes, *, edits=None, requires=REQUIRED):
    """Slots of one section, and a row of one dimension for each."""
    sizes = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8, "int16": 2, "int32": 4, "bool": 1, "uint8": 1}
    rows = []
    for index, (slot, dtype) in enumerate(zip(slots, dtypes, strict=True)):
        raw = slot.data if slot.raw is None else slot.raw
        rows.append(Tensor(f"model.{slot.key}", dtype, (len(raw) // sizes[dtype],), raw, [[0, index]]))
    tree = {"model": {row.name.partition(".")[2]: Ref(index) for index, row in enumerate(rows)}}
    return tree, rows, [Shard("model", list(slots))], {"requires": requires, **({"edits": edits} if edits else {})}


def planes():
    """Tensors as planes: words of every size, every fold, every mode, spare bits, a base, several blocks, the last one short."""
    halves = b"".join(struct.pack("<H", 0x3F80 + 5 * index % 300 ^ (index % 2 << 15)) for index in range(37))
    doubles = struct.pack("<20d", *((-1) ** index * 1.5**index for index in range(20)))
    shorts = struct.pack("<9h", -32768, -3, -1, 0, 1, 2, 300, 32767, -300)
    made = {
        "float32": (WORDS, MADE),
        "bfloat16": (halves, Planes(2, ROTATED, (1, 1), (STORED, STORED), 16, spares=(1,), base=64 << 8)),
        "float64": (doubles, Planes(8, ROTATED, (1, 1, 2, 4), (STORED, STORED, FRAME, STORED), 16, spares=(4,), base=1000 << 53)),
        "int16": (shorts, Planes(2, ZIGZAG, (1, 1), (STORED, FRAME), 4)),
        "int32": (struct.pack("<8I", *range(7, 15)), Planes(4, NONE, (2, 1, 1), (CONSTANT, CONSTANT, STORED), 3)),
        "bool": (bytes(index % 3 == 0 for index in range(21)), Planes(1, BITS, (1,), (FRAME,), 2)),
        "uint8": (pattern(13), Planes(1, NONE, (1,), (STORED,), 8)),
    }
    slots = [slot_of(f"of {dtype}", raw, how) for dtype, (raw, how) in made.items()]
    slots.append(slot_of("empty", b"", Planes(4, ROTATED, (4,), (STORED,), 8)))
    slots.append(slot_of("one value", ONES, Planes(4, ROTATED, (1, 1, 2), (CONSTANT,) * 3, 16, spares=(1, 2), base=100 << 24)))
    return checkpoint(slots, [*made, "float32", "float32"])


def planes_of_rows():
    """A matrix whose rows and columns are taken off its words; beside it a tensor that is stored as it is."""
    slots = [slot_of("m", MATRIX, MADE_OF_ROWS), Slot("b", "F32", (1,), floats(7))]
    tree, rows, shards, options = checkpoint(slots, ["float32", "float32"])
    return tree, [Tensor("model.m", "float32", (6, 8), MATRIX, [[0, 0]]), rows[1]], shards, options


def made_from_others():
    """Tensors that are equal to others or rounded from them, in another section too: ties, overflow, denormal numbers, NaN."""
    numbers = (1.00390625, 1.01171875, 65520.0, 65519.0, 3e-8, 1e-45, 3.4e38, -0.0, float("inf"), -2.5, 0.1, -1e-8)
    source = floats(*numbers) + struct.pack("<2I", 0x7FC12345, 0xFF800001)
    brains = bytes.fromhex("803f823f80478047 01330000807f 0080 807f 20c0 cd3d 2cb2 c07f c07f".replace(" ", ""))
    halves = bytes.fromhex("043c0c3c007cff7b 01000000007c 0080 007c 00c1 662e 0080 007e 007e".replace(" ", ""))
    first = [Slot("stored", "F32", (14,), source), slot_of("coded", WORDS, MADE)]
    words = struct.unpack("<40I", WORDS)
    coarse = b"".join(struct.pack("<H", word + 0x7FFF + (word >> 16 & 1) >> 16) for word in words)
    second = [
        made_from("equal", source, 0, 0),
        made_from("bfloat16", brains, 0, 0, "bfloat16"),
        made_from("float16", halves, 0, 0, "float16"),
        made_from("of coded", coarse, 0, 1, "bfloat16"),
    ]
    dtypes = ["float32", "float32", "float32", "bfloat16", "float16", "bfloat16"]
    counts = [14, 40, 14, 14, 14, 40]
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)]
    rows = []
    for dtype, count, (shard, slot) in zip(dtypes, counts, places, strict=True):
        stored = (first, second)[shard][slot]
        raw = stored.data if stored.raw is None else stored.raw
        rows.append(Tensor(f"{('model', 'ema')[shard]}.{stored.key}", dtype, (count,), raw, [[shard, slot]]))
    tree = {
        "model": {"stored": Ref(0), "coded": Ref(1)},
        "ema": {row.name.partition(".")[2]: Ref(2 + at) for at, row in enumerate(rows[2:])},
    }
    return tree, rows, [Shard("model", first), Shard("ema", second)], {"requires": REQUIRED}


def delta(key, raw, of, place, word, made=None):
    """A slot whose chunk is `raw`, as the difference from `of`, which is the chunk at a place."""
    size = 8 * word
    pairs = zip(struct.iter_unpack(f"<{WORD[word]}", raw), struct.iter_unpack(f"<{WORD[word]}", of), strict=True)
    difference = b"".join(((new - old) % 2**size).to_bytes(word, "little") for (new,), (old,) in pairs)
    data = stream(difference, made or Planes(word, ZIGZAG if word > 1 else NONE, (1,) * word, (FRAME,) * word, 16))
    return Slot(key, "U8", (len(data),), data, raw, (*PLANES, ("delta", {"source": list(place), "word": word})))


def delta_by_source(key, raw, of, place, made):
    """A slot whose chunk is `raw`, as the difference from `of` in the order of its exponents."""
    data = stream(raw, replace(made, source=of))
    return Slot(key, "U8", (len(data),), data, raw, (*PLANES, ("delta", {"source": list(place), "word": made.word})))


WORD = {1: "B", 2: "H", 4: "I", 8: "Q"}


def deltas():
    """Differences from slots of a second shard to which nothing else refers: words of every size, wrapping round, one on the other."""
    older = floats(*(1.0 + index / 64 for index in range(24)))
    newer = floats(*(1.0 - index / 60 for index in range(24)))
    newest = floats(*(index / 59 - 1.0 for index in range(24)))
    halves = [b"".join(struct.pack("<H", (0x3F80 + by * at) % 2**16) for at in range(37)) for by in (900, 2_000)]
    doubles = [struct.pack("<20d", *((-by) ** at for at in range(20))) for by in (1.5, 2.0)]
    source = [
        Slot("w", "F32", (24,), older),
        slot_of("coded", halves[0], Planes(2, ROTATED, (1, 1), (STORED, FRAME), 16)),
        delta("middle", newer, older, (1, 0), 4),
        Slot("double", "F64", (20,), doubles[0]),
        Slot("byte", "U8", (13,), pattern(13)),
    ]
    own = [
        delta("w", newest, newer, (1, 2), 4),
        delta("half", halves[1], halves[0], (1, 1), 2),
        delta("double", doubles[1], doubles[0], (1, 3), 8),
        delta("byte", pattern(13)[::-1], pattern(13), (1, 4), 1),
        made_from("equal", newest, 0, 0),
    ]
    types, counts = ("float32", "bfloat16", "float64", "uint8", "float32"), (24, 37, 20, 13, 24)
    rows = [
        Tensor(f"model.{slot.key}", dtype, (count,), slot.raw, [[0, at]])
        for at, (slot, dtype, count) in enumerate(zip(own, types, counts, strict=True))
    ]
    tree = {"model": {row.name.partition(".")[2]: Ref(index) for index, row in enumerate(rows)}}
    return tree, rows, [Shard("model", own), Shard("model", source)], {"requires": ("codec:delta", "codec:planes", "codec:same")}


def deltas_by_source():
    """Differences of floats in the order of the exponents of their source: signs that change, classes at both ends, several blocks."""
    older = floats(*((-1) ** at * 1.7 ** (at % 11 - 5) for at in range(40)))
    newer = floats(*((-1) ** (at // 2) * 1.7 ** (at % 11 - 5) * (1 + at / 500) for at in range(40)))
    newest = floats(*((-1) ** at * 1.6 ** (at % 11 - 5) for at in range(40)))
    halves = [b"".join(struct.pack("<H", (0x3F00 + by * at) % 2**16) for at in range(37)) for by in (90, 91)]
    doubles = [struct.pack("<20d", *((-by) ** at for at in range(20))) for by in (1.5, 1.75)]
    source = [Slot("w", "F32", (40,), older), Slot("half", "BF16", (37,), halves[0]), Slot("double", "F64", (20,), doubles[0])]
    turned = Planes(4, SOURCE, (1, 1, 1, 1), (FRAME, STORED, FRAME, STORED), 16, base=124, columns=(0, 3, 9, 31, 1))
    own = [
        delta_by_source("w", newest, newer, (0, 1), turned),
        delta_by_source("middle", newer, older, (1, 0), replace(turned, widths=(2, 2), modes=(STORED, FRAME), block_words=7)),
        delta_by_source("half", halves[1], halves[0], (1, 1), Planes(2, SOURCE, (1, 1), (FRAME, FRAME), 37, base=126, columns=(5, 8))),
        delta_by_source("double", doubles[1], doubles[0], (1, 2), Planes(8, SOURCE, (8,), (STORED,), 20, base=0, columns=(63,))),
    ]
    types, counts = ("float32", "float32", "bfloat16", "float64"), (40, 40, 37, 20)
    rows = [
        Tensor(f"model.{slot.key}", dtype, (count,), slot.raw, [[0, at]])
        for at, (slot, dtype, count) in enumerate(zip(own, types, counts, strict=True))
    ]
    tree = {"model": {row.name.partition(".")[2]: Ref(index) for index, row in enumerate(rows)}}
    return tree, rows, [Shard("model", own), Shard("model", source)], {"requires": ("codec:delta", "codec:planes")}


def original_shard():
    """A shard that tells from which one it was made, with the header that one had."""
    slots = [slot_of("w", WORDS, MADE), Slot("b", "F32", (1,), floats(7))]
    header = encode_header([StoredEntry("w", "F32", (40,), 160), StoredEntry("b", "F32", (1,), 4)], {})

    def add(content):
        table = content["shards"][0]
        digest = shard_digest(header, table["encodings"][0][3] + table["digests"][32:])
        table["original"] = ["model-00001-0badcafe.safetensors", header, digest]
        return content

    return checkpoint(slots, ["float32", "float32"], edits=Edits(content=add))


CASES = [planes, planes_of_rows, made_from_others, deltas, deltas_by_source, original_shard]
