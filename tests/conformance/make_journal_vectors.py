"""Write the conformance vectors of journals anew: `python -m tests.conformance.make_journal_vectors`.

They stand beside those of checkpoints, in spec/vectors/journals-1.0. Each case is a folder `journal/` and a `case.json` with `description`,
`expected` (a code or null) and for what is read `records`, numbers and values in the form of spec/vectors/README.md. A test compares
them with what is made here, byte for byte.
"""

import json
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from ckptfmt.format.journal_header import FIRST, NEXT, SNAPSHOT, SegmentHeader, encode_header
from ckptfmt.format.journal_record import NO_LINK, ORIGIN, Position, encode_record, link_of, segment_name
from ckptfmt.format.packed import pack
from tests.conformance.vector_kit import readable

VECTORS = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "journals-1.0"
CREATED = "2026-01-02T03:04:05.678901Z"


@dataclass
class Made:
    """A segment: its name, its bytes piece by piece (header, then records), and the position after each piece."""

    name: str
    mark: bytes
    pieces: list
    positions: list

    @property
    def data(self):
        return b"".join(self.pieces)

    @property
    def files(self):
        return {self.name: self.data}

    @property
    def seen(self):
        return (self.name, len(self.data))

    def seal(self):
        last = self.positions[-1]
        self.pieces.append(encode_record(b"", mark=self.mark, after=last, acknowledged=last.number)[0])
        return self


def segment(number, values, *, base=ORIGIN, kind=None, through=None, seen=(), flushed=(), durable=True, name=None, edit=None, start=None):
    """Make a segment. Each record says that those up to the highest of `flushed` below it were acknowledged."""
    kind = kind or (NEXT if base.number else FIRST)
    through = through if through is not None else base.number + (len(values) if kind == SNAPSHOT else 0)
    mark = bytes([number, 0xAB, 0xCD, 0xEF])
    name = name or segment_name(number, mark)
    header, link = encode_header(SegmentHeader(name, kind, base, through, durable, tuple(seen), CREATED, "ckptfmt vectors"))
    if edit is not None or start is not None:
        header, link = edited(header, edit or (lambda members: members), start or (1, 0))
    made = Made(name, mark, [header], [Position(base.number, link)])
    for value in values:
        after = made.positions[-1]
        acknowledged = after.number if kind == SNAPSHOT else max([base.number, *(point for point in flushed if point <= after.number)])
        piece, position = encode_record(value if isinstance(value, Raw) else pack(value), mark=mark, after=after, acknowledged=acknowledged)
        made.pieces.append(piece)
        made.positions.append(position)
    return made


class Raw(bytes):
    """A payload as it is."""


def edited(header, edit, version):
    import msgpack

    members = edit(msgpack.unpackb(header[16:-16]))
    packed = members if isinstance(members, bytes) else pack(members)
    content = struct.pack("<8sHHI", b"ckptjrnl", *version, len(packed)) + packed
    return content + link_of(content), link_of(content)


def together(*parts):
    return {name: data for part in parts for name, data in (part if isinstance(part, dict) else part.files).items()}


def numbered(values, first=1):
    return [list(pair) for pair in enumerate(values, first)]


def with_member(name, value):
    return lambda members: {**members, name: value}


def good_cases():
    plain = segment(1, ["one", {"two": [2, None]}, b"\x03"], flushed=(1, 2)).seal()
    yield "one-session", "A session that was closed: three records and a seal.", plain.files, numbered(["one", {"two": [2, None]}, b"\x03"])
    values = [None, True, -(2**63), 2**64 - 1, 0.5, float("inf"), "text", b"\0\xff", [], {}, {"nested": [{"deep": [1]}]}]
    yield "values", "A value of each type.", segment(1, values).seal().files, numbered(values)
    yield "no-seal", "A session that was killed after its last flush.", segment(1, ["a", "b"], flushed=(1,)).files, numbered("ab")
    yield "header-only", "A session that was killed before its first record was written.", segment(1, []).files, []
    second = segment(2, ["d"], base=plain.positions[-1], seen=[plain.seen]).seal()
    records = numbered(["one", {"two": [2, None]}, b"\x03", "d"])
    yield "two-sessions", "A second session goes on after the seal of the first.", together(plain, second), records
    killed = segment(1, ["a", "b", "c"], flushed=(1, 2))
    after_kill = segment(2, ["c", "d"], base=killed.positions[2], through=3, seen=[killed.seen], flushed=(3,)).seal()
    yield (
        "repeated-after-kill",
        "The second session repeats the record of which the first does not say that it was flushed.",
        together(killed, after_kill),
        numbered("abcd"),
    )
    unflushed = segment(1, ["a", "b"])
    again = segment(2, ["a", "b", "c"], through=2, seen=[unflushed.seen], flushed=(2,)).seal()
    description = "Nothing was flushed in the first session: the second one begins the journal again. The first is replaced."
    yield "begun-again-given-up", description, together(again), numbered("abc")
    given_up = segment(
        3, ["c", "d"], base=killed.positions[2], through=3, seen=[killed.seen, (segment_name(2, b"gone"), 500)], flushed=(3,)
    )
    yield (
        "seen-and-removed",
        "The segment lists one that was given up after a failed write, and removed.",
        together(killed, given_up.seal()),
        numbered("abcd"),
    )
    not_durable = segment(1, ["a", "b", "c"], flushed=(1, 2), durable=False)
    durable = segment(2, ["a", "b", "c", "d"], through=3, seen=[not_durable.seen], flushed=(3,)).seal()
    yield (
        "durable-after-not-durable",
        "A durable session repeats all that one without durability has flushed.",
        together(durable),
        numbered("abcd"),
    )
    snapshot = segment(5, ["x", "y"], base=Position(7, NO_LINK), kind=SNAPSHOT, seen=[killed.seen])
    follower = segment(6, ["z"], base=snapshot.positions[-1], seen=[snapshot.seen]).seal()
    yield "snapshot", "A compaction, and a session after it. Numbers go on.", together(snapshot, follower), numbered("xyz", 8)
    empty = segment(5, [], base=Position(7, NO_LINK), kind=SNAPSHOT)
    yield (
        "empty-snapshot",
        "A compaction to nothing, and a session after it.",
        together(empty, segment(6, ["z"], base=empty.positions[-1], seen=[empty.seen])),
        numbered("z", 8),
    )
    large = segment(1, ["x" * 5_000, "y"], flushed=(1,))
    yield "large-record", "A record of more than a page.", large.files, numbered(["x" * 5_000, "y"])
    other = segment(1, ["inner", "more"], flushed=(1,)).data
    holder = segment(1, ["a", other, "b"], flushed=(1, 2)).seal()
    yield (
        "journal-in-a-record",
        "A record holds the bytes of another segment with the same mark.",
        holder.files,
        numbered(["a", other, "b"]),
    )


def warn_cases():
    plain = segment(1, ["a", "b", "c"], flushed=(1, 2))
    yield "W002-temporary-file", "A compaction was killed.", together(plain, {".segment." + "0" * 32 + ".tmp": b"half"}), numbered("abc")
    yield "W003-newer-minor", "Written by version 1.7.", segment(1, ["a"], start=(1, 7)).files, numbered("a")
    yield (
        "W004-unknown-member",
        "The header has a member that this version does not know.",
        segment(1, ["a"], edit=with_member("zone", 3)).files,
        numbered("a"),
    )
    for name, tail in {
        "zeros": bytes(600),
        "garbage": b"\xa5garbage" * 9,
        "one-byte": plain.mark[:1],
        "half-a-record": plain.pieces[1][:40],
    }.items():
        yield f"W010-tail-of-{name}", "The end of the last segment was torn.", {plain.name: plain.data + tail}, numbered("abc")
    group = segment(1, ["a", "b", "c", "d"], flushed=(1,))
    group.pieces[2] = bytes(len(group.pieces[2]))
    yield (
        "W010-sector-of-a-group-lost",
        "Records 2 to 4 were not flushed, and only some of their sectors were written.",
        group.files,
        numbered("a"),
    )
    begun = segment(2, ["c", "d"], base=plain.positions[2], through=3, seen=[plain.seen])
    yield (
        "W010-half-a-header",
        "A second session was killed while it wrote its header.",
        together(plain, {begun.name: begun.data[:50]}),
        numbered("abc"),
    )
    yield (
        "W010-empty-segment",
        "A second session was killed after it made its segment.",
        together(plain, {begun.name: b""}),
        numbered("abc"),
    )
    yield (
        "W010-repeats-incomplete",
        "A second session was killed before what it repeats was written.",
        together(plain, {begun.name: begun.pieces[0] + begun.pieces[1][:-1]}),
        numbered("abc"),
    )
    after = segment(3, ["c", "d"], base=plain.positions[2], through=3, seen=[plain.seen, (begun.name, 50)]).seal()
    yield (
        "W010-half-a-header-seen",
        "A third session lists what the second one left.",
        together(plain, {begun.name: begun.data[:50]}, after),
        numbered("abcd"),
    )
    snapshot = segment(5, ["x"], base=Position(3, NO_LINK), kind=SNAPSHOT, seen=[plain.seen])
    yield (
        "W011-replaced-segment",
        "A compaction was killed before it removed what it replaces.",
        together(plain, snapshot),
        numbered("x", 4),
    )
    yield "W012-other-file", "A file that does not belong to the journal.", together(plain, {"notes.txt": b"mine"}), numbered("abc")


def bad_cases():
    plain = segment(1, ["a", "b", "c"], flushed=(1, 2))
    yield "E024-payload-is-two-values", "A payload of two values.", segment(1, ["a", Raw(b"\x01\x02"), Raw(b"\x03")]).files
    yield "E024-payload-has-an-integer-key", "A map with a key that is no str.", segment(1, [Raw(b"\x81\x01\x02")]).files
    yield "E024-members-not-packed", "The members of a header are not in packed form.", segment(1, ["a"], edit=lambda _: b"\x81\xa1").files
    yield "E050-members-are-an-array", "The members of a header are no map.", segment(1, ["a"], edit=lambda _: b"\x90").files
    wrong = {"kind": "last", "base": [0], "through": -1, "durable": 1, "seen": [["segment-00000001-01abcdef.journal", 3]], "writer": None}
    for member, value in wrong.items():
        yield f"E050-{member}-is-wrong", f"Member {member} of a header is wrong.", segment(1, ["a"], edit=with_member(member, value)).files
    yield (
        "E050-base-of-a-first-segment",
        "A segment of kind first does not begin with 0.",
        segment(1, ["a"], base=Position(1, NO_LINK), kind=FIRST).files,
    )
    yield "E050-base-of-a-next-segment", "A segment of kind next begins with 0.", segment(1, ["a"], kind=NEXT).files
    yield "E051-renamed", "A segment has the name of another.", segment(1, ["a"], edit=with_member("name", segment_name(2, b"abcd"))).files
    yield "E052-major-2", "Written by version 2.0.", segment(1, ["a"], start=(2, 0)).files
    middle = segment(1, ["a", "b", "c"], flushed=(1, 2))
    middle.pieces[1] = middle.pieces[1][:-3] + b"bad"
    yield "E054-middle", "A record is damaged, and later ones say that it was acknowledged.", middle.files
    sealed = segment(1, ["a", "b"]).seal()
    sealed.pieces[2] = bytes(len(sealed.pieces[2]))
    yield "E054-before-the-seal", "The last record is lost, and the seal says that it was acknowledged.", sealed.files
    header = segment(1, ["a", "b", "c"], flushed=(1, 2))
    header.pieces[0] = b"x" + header.pieces[0][1:]
    yield "E054-header-lost", "The header of the only segment is damaged; a record says that others were acknowledged.", header.files
    second = segment(2, ["c", "d"], base=plain.positions[2], through=3, seen=[plain.seen], flushed=(3,)).seal()
    yield "E054-segment-missing", "The first segment is missing.", second.files
    yield (
        "E054-segment-cut",
        "The first segment ends before the place where the second goes on.",
        together({plain.name: plain.data[:200]}, second),
    )
    snapshot = segment(5, ["x", "y"], base=Position(3, NO_LINK), kind=SNAPSHOT)
    yield "E054-snapshot-cut", "A snapshot is shorter than it says.", {snapshot.name: b"".join(snapshot.pieces[:2])}
    swapped = segment(1, ["a", "b", "c"])
    swapped.pieces[1:3] = swapped.pieces[2:0:-1]
    yield "E055-records-swapped", "Two records are in the wrong order.", swapped.files
    twice = segment(1, ["a", "b"])
    twice.pieces.append(twice.pieces[-1])
    yield "E055-record-twice", "A record is there twice.", twice.files
    after_seal = segment(1, ["a", "b"]).seal()
    after_seal.pieces[2:4] = after_seal.pieces[3:1:-1]
    after_seal.pieces[2] = segment(1, ["a"]).seal().pieces[-1]
    yield "E055-record-after-the-seal", "A record stands after the seal.", after_seal.files
    elsewhere = segment(2, ["d"], base=segment(1, ["a", "b", "x"]).positions[-1], seen=[plain.seen])
    yield (
        "E055-continues-from-elsewhere",
        "The second segment continues from a record that is not in the journal.",
        together(plain, elsewhere),
    )
    one = segment(2, ["d"], base=plain.positions[-1], seen=[plain.seen])
    renamed = segment(2, ["e"], base=plain.positions[-1], seen=[plain.seen], name=segment_name(2, b"\x02zzz"))
    yield "E056-same-number", "Two segments of the same number.", together(one, renamed) | plain.files
    yield (
        "E056-grown",
        "The first segment has grown after the second one was made.",
        together(segment(1, ["a", "b", "c", "more"], flushed=(1, 2)), second),
    )
    unseen = segment(3, ["e"], base=plain.positions[-1], seen=[plain.seen])
    yield "E056-not-seen", "The third segment does not know of the second.", together(plain, one, unseen)


def all_vectors():
    """Return the bytes of every file of every vector by its path below the folder of vectors."""
    vectors = {}

    def add(case, files, document):
        vectors[f"{case}/case.json"] = (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
        vectors.update({f"{case}/journal/{name}": data for name, data in files.items()})

    for name, description, files, records in good_cases():
        add(f"good/{name}", files, {"description": description, "expected": None, "records": readable(records)})
    for name, description, files, records in warn_cases():
        add(f"warn/{name}", files, {"description": description, "expected": name[:4], "records": readable(records)})
    for name, description, files in bad_cases():
        add(f"bad/{name}", files, {"description": description, "expected": name[:4]})
    return vectors


def write_vectors():
    """Replace the vectors on disk."""
    if VECTORS.exists():
        shutil.rmtree(VECTORS)
    for path, data in all_vectors().items():
        file = VECTORS / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


if __name__ == "__main__":
    write_vectors()
