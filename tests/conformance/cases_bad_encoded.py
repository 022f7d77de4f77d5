"""Checkpoints with encoded tensors that break one rule each. Spec 11."""

import struct
from dataclasses import replace

from tests.conformance.breaking import member
from tests.conformance.cases_encoded import MADE, MADE_OF_ROWS, MATRIX, PLANES, WORDS, checkpoint, delta, delta_by_source, made_from
from tests.conformance.cases_good import floats
from tests.conformance.planes_kit import CONSTANT, ROTATED, SOURCE, STORED, ZIGZAG, Planes, stream
from tests.conformance.vector_kit import Edits, Slot, build

TWOS = floats(*[2.0] * 40)
TWOS_MADE = Planes(4, ROTATED, (1, 1, 2), (STORED, STORED, CONSTANT), 40)


def _with(change, *, made=MADE, raw=WORDS, **options):
    """A checkpoint of one tensor whose stream is changed: `change` is (offset, bytes), offsets below 0 from its end, or a function."""
    data = stream(raw, made)
    if callable(change):
        data = change(data)
    else:
        at, new = change
        at %= len(data)
        data = data[:at] + new + data[at + len(new) :]
    tree, rows, shards, given = checkpoint([Slot("w", "U8", (len(data),), data, raw, PLANES)], ["float32"], **options)
    return build(tree, rows, shards, **given)


def planes_cases():
    """Streams of planes."""
    u32, table = struct.Struct("<I"), 3 * (1 + 12)
    of_rows = {"made": MADE_OF_ROWS, "raw": MATRIX}
    of_odd = {"made": Planes(4, ROTATED, (4,), (STORED,), 3), "raw": floats(*range(15))}
    for name, text, change, options in (
        ("magic", "Another magic number.", (0, b"ckpm"), {}),
        ("version", "Version 2 of the stream.", (4, b"\2"), {}),
        ("word-of-3", "Words of 3 bytes.", (5, b"\3"), {}),
        ("fold", "A fold of 5.", (6, b"\5"), {}),
        (
            "by-source-without-one",
            "Words in the order of a source, where there is none.",
            (6, b"\4"),
            {"made": MADE_OF_ROWS, "raw": MATRIX},
        ),
        ("bits-of-words", "Words of 4 bytes that hold bits.", (6, b"\3"), {}),
        ("planes-of-5-bytes", "The widths of the planes are more than the word.", (9, b"\2"), {}),
        ("plane-of-3-bytes", "A plane of 3 bytes.", (7, b"\2\1\3\0"), {}),
        ("width-behind-the-last", "A width behind that of the last plane.", (11, b"\1"), {}),
        ("other-size", "The stream decodes to another size than the index says.", (16, u32.pack(156)), {}),
        ("size-of-half-words", "The size is no multiple of the word.", (16, u32.pack(158)), {}),
        ("base-too-large", "A base that is larger than a word.", (28, b"\1"), {}),
        ("block-of-nothing", "Blocks of no words.", (32, u32.pack(0)), {}),
        (
            "block-too-large",
            "Blocks that decode to more than 2^19 bytes.",
            (32, u32.pack(2**17 + 1)),
            {"made": TWOS_MADE, "raw": TWOS},
        ),
        ("row-divides-no-block", "Rows that do not divide a block.", (36, u32.pack(24)), of_rows),
        ("row-divides-no-tensor", "Rows that do not divide the number of words.", (36, u32.pack(16)), of_rows),
        ("shift", "Rows are shifted out of the word.", (40, b"\x20"), {}),
        ("reserved", "A byte that must be zero is not.", (47, b"\1"), {}),
        ("behind-the-columns", "A byte behind the columns is not zero.", (56, b"\1"), of_rows),
        ("spare-of-3", "Three spare bits.", (-table, b"\3"), {}),
        ("spare-without-a-byte", "Spare bits in a stream whose second plane has 2 bytes.", (-5, b"\1"), {"made": _two_planes()}),
        ("mode-3", "A plane of mode 3.", (-1, b"\xc0"), {"made": TWOS_MADE, "raw": TWOS}),
        (
            "plane-too-short",
            "A plane that is stored as it is has too few bytes.",
            (-12, u32.pack(39)),
            {"made": TWOS_MADE, "raw": TWOS},
        ),
        (
            "element-of-3-bytes",
            "The element of a constant plane has three bytes.",
            (-4, u32.pack(1 << 30 | 3)),
            {"made": TWOS_MADE, "raw": TWOS},
        ),
        ("frame-declares-more", "The frame of a plane declares more than the plane has.", _declare_more, {}),
        (
            "frame-damaged",
            "The frame of a plane does not decompress.",
            _damage_frame,
            {},
        ),
        ("longer", "Sixteen more bytes between the blocks and the table.", lambda data: data[:-table] + bytes(16) + data[-table:], {}),
        ("shorter", "The end is missing.", lambda data: data[:-16], {}),
        ("only-a-head", "The stream ends in its head.", lambda data: data[:40], {}),
        (
            "behind-a-block",
            "A byte behind the planes of a block is not zero.",
            _fill_block,
            of_odd,
        ),
        (
            "before-the-table",
            "A byte before the table is not zero.",
            _fill_padding,
            of_odd,
        ),
    ):
        yield f"E047-{name}", text, _with(change, **options)
    yield (
        "E045-planes-of-other-bytes",
        "A stream that decodes to other bytes than is declared.",
        _with(lambda _: stream(WORDS[4:] + floats(9), MADE)),
    )
    yield "E046-planes-not-required", "Planes are used without being in `requires`.", _with((0, b"ckpl"), requires=("codec:zstd",))


def _two_planes():
    return Planes(4, ROTATED, (2, 2), (STORED, STORED), 40)


def _damage_frame(data):
    return data.replace(b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfc")


def _declare_more(data):
    at = data.index(b"\x28\xb5\x2f\xfd") + 5
    return data[:at] + bytes([data[at] + 1]) + data[at + 1 :]


def _fill_block(data):
    # 48 bytes of head, then a block of 3 words, of which the last 4 bytes are padding.
    return data[:60] + b"\1" + data[61:]


def _fill_padding(data):
    table = 5 * 5
    assert data[-table - 1] == 0
    return data[: -table - 1] + b"\1" + data[-table:]


def source_cases():
    """Slots without bytes, and what they are made from."""
    source = Slot("source", "F32", (4,), floats(1, 2, 3, 4))

    def with_slot(slot, *others, change=lambda content: content):
        dtypes = ["float32", "bfloat16" if len(slot.raw or b"") == 8 else "float32", *("float32" for _ in others)]
        tree, rows, shards, options = checkpoint(
            [source, slot, *others], dtypes, edits=Edits(content=lambda content: change(content) or content)
        )
        return build(tree, rows, shards, **options)

    same = made_from("w", source.data, 0, 0)
    brains = b"".join(source.data[at + 2 : at + 4] for at in range(0, 16, 4))
    rounded = made_from("w", brains, 0, 0, "bfloat16")
    too_large = made_from("w", source.data, 0, 0, "bfloat16")
    place = ("shards", 0, "encodings", 0, 1, 0, 1)
    for name, text, files in (
        ("source-is-not-there", "The source of a slot is not there.", with_slot(same, change=member(*place, "source", value=[0, 9]))),
        ("no-source", "A slot that is the same as none.", with_slot(same, change=member(*place, value={}))),
        ("source-is-itself", "A slot is its own source.", with_slot(same, change=member(*place, "source", value=[0, 1]))),
        ("source-of-a-source", "The source of a slot has a source itself.", with_slot(same, made_from("v", source.data, 0, 1))),
        ("same-of-another-size", "A slot is the same as one of another size.", with_slot(made_from("w", floats(1, 2), 0, 0))),
        ("rounded-to-float32", "A slot is rounded to float32.", with_slot(rounded, change=member(*place, "to", value="float32"))),
        ("rounded-from-another-size", "A slot is rounded from one of its own size.", with_slot(too_large)),
        ("has-bytes", "A slot that is the same as another has bytes.", with_slot(Slot("w", "U8", (1,), b"x", same.raw, same.codecs))),
        ("planes-in-a-chain", "Planes behind another codec.", with_slot(_chain())),
    ):
        yield f"E048-{name}", text, files
    wrong = with_slot(made_from("w", floats(1, 2, 3, 5), 0, 0))
    yield "E045-same-is-not", "A slot is not the same as its source.", wrong
    yield "E045-rounded-is-not", "A slot is not what its source is when rounded.", with_slot(made_from("w", brains[::-1], 0, 0, "bfloat16"))


def delta_cases():
    """Differences, and what they are differences from."""
    base, raw = floats(1, 2, 3, 4), floats(2, 3, 4, 5)
    source = Slot("source", "F32", (4,), base)

    def with_slots(*slots, change=lambda content: content, requires=("codec:delta", "codec:planes", "codec:same")):
        edits = Edits(content=lambda content: change(content) or content)
        tree, rows, shards, options = checkpoint([source, *slots], ["float32"] * (1 + len(slots)), edits=edits, requires=requires)
        return build(tree, rows, shards, **options)

    def chain(length):
        chunks = [floats(1 + at, 2, 3, 4) for at in range(length + 1)]
        return [delta(f"w{at}", chunks[at + 1], chunks[at], (0, at), 4) for at in range(length)]

    def one():
        # Made anew for each, because parameters are changed in place.
        return delta("w", raw, base, (0, 0), 4)

    parameters = ("shards", 0, "encodings", 0, 1, 1, 1)
    of_missing, of_itself = (member(*parameters, "source", value=place) for place in ([1, 0], [0, 1]))
    of_slot_without_bytes = delta("w", raw, base, (0, 2), 4), made_from("v", base, 0, 0)
    circle = member(*parameters, "source", value=[0, 2])
    alone = Slot("w", "F32", (4,), b"\0" * 16, base, (("delta", {"source": [0, 0], "word": 4}),))
    behind_zstd = replace(one(), codecs=(("zstd", {}), one().codecs[1]))
    for name, text, files in (
        ("delta-of-none", "A difference from nothing.", with_slots(one(), change=member(*parameters, value={"word": 4}))),
        (
            "delta-of-missing",
            "A difference from a slot that is not there.",
            with_slots(one(), change=of_missing),
        ),
        ("delta-of-itself", "A difference from itself.", with_slots(one(), change=of_itself)),
        ("delta-of-another-size", "A difference from a larger slot.", with_slots(delta("w", raw[:8], base[:8], (0, 0), 4))),
        (
            "delta-of-the-same",
            "A difference from a slot without bytes.",
            with_slots(*of_slot_without_bytes),
        ),
        ("delta-without-word", "Words without a size are added.", with_slots(one(), change=member(*parameters, value={"source": [0, 0]}))),
        ("delta-of-3-bytes", "Words of 3 bytes are added.", with_slots(one(), change=member(*parameters, "word", value=3))),
        ("delta-alone", "A difference that is no stream of planes.", with_slots(alone)),
        ("delta-behind-zstd", "A difference behind another codec.", with_slots(behind_zstd)),
        (
            "deltas-in-a-circle",
            "Two differences, each from the other.",
            with_slots(*chain(2), change=circle),
        ),
        ("deltas-33", "33 differences, one on the other.", with_slots(*chain(33))),
    ):
        yield f"E048-{name}", text, files
    by_source = Planes(4, SOURCE, (4,), (STORED,), 4, base=126, columns=(3, 2))
    for name, text, made in (
        ("no-classes", "Words in the order of a source without a class.", None),
        ("class-above-255", "The lowest class is more than a byte.", replace(by_source, base=256)),
        ("classes-shifted", "Classes are shifted.", replace(by_source, shift=1)),
        ("turned-too-far", "Words of 4 bytes are turned by 32 bits.", replace(by_source, columns=(32, 2))),
        ("words-of-2-for-4", "The stream has words of another size than those that are added.", Planes(2, ZIGZAG, (2,), (STORED,), 8)),
    ):
        slot = delta_by_source("w", raw, base, (0, 0), made or by_source)
        if made is None:
            slot = _without_classes(slot)
        yield f"E047-{name}", text, with_slots(replace(slot, codecs=one().codecs))
    wrong = delta("w", raw, floats(1, 2, 3, 5), (0, 0), 4)
    yield "E045-delta-of-other-bytes", "A difference that does not lead to what is declared.", with_slots(wrong)
    yield "E046-delta-not-required", "A difference without being in `requires`.", with_slots(one(), requires=("codec:planes",))


def _without_classes(slot):
    # The columns, of 16 bytes with what fills them up, stand behind 48 bytes of head.
    data = slot.data[:36] + bytes(4) + slot.data[40:48] + slot.data[64:]
    return replace(slot, data=data, shape=(len(data),))


def _chain():
    data = stream(WORDS, MADE)
    return Slot("w", "U8", (len(data),), data, WORDS, (("zstd", {}), ("planes", {})))
