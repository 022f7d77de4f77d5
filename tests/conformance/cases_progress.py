"""Progress directories for the conformance vectors: sound ones, and ones with one wrong record. Spec 17."""

import json
import struct

from ckptfmt.format.digest import digest_of, format_digest
from ckptfmt.format.journal_record import NO_LINK, Position
from ckptfmt.format.packed import pack
from tests.conformance.make_journal_vectors import SNAPSHOT, segment
from tests.conformance.vector_kit import Ref, build, whole

WRITERS = ("0123456789abcdef", "fedcba9876543210")
FLOATS = struct.pack("<3f", 1.0, -2.5, float("inf"))
FINGERPRINT = {"lr": "must float 0.001", "seed": "must int 7"}


def content(result, metrics=None, more=None):
    return pack([result, metrics or {}, more or {}])


def done(key, at, result=None, metrics=None, more=None):
    return ["done", key, float(at), content(result, metrics, more)]


def progress(*journals, **others):
    """The files of a progress: a journal for each list of records; `others` are further files by path."""
    files = {}
    for writer, records in zip(WRITERS, journals, strict=False):
        made = segment(1, records, flushed=range(1, len(records))).seal()
        files.update({f"writers/{writer}/{name}": data for name, data in made.files.items()})
    return {**files, **others}


def fingerprint():
    prefix = b"ckptfmt fingerprint 1\n"
    parts = [text.encode() for name in sorted(FINGERPRINT) for text in (name, FINGERPRINT[name].partition(" ")[2])]
    data = prefix + b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return {"version": [1, 0], "digest": format_digest(digest_of(data)), "fields": FINGERPRINT}


def unit_checkpoint(value):
    """The files of a unit's checkpoint, and the link to it under this name."""
    shard, rows = whole([("0", "float32", (2,), struct.pack("<2f", value, 0.5))], section="")
    tree = {"w": Ref(0)}
    files = build(tree, rows, [shard], step=None, metrics={})
    digest = json.loads(files["manifest.json"])["digest"]
    tensor = pack(["float32", [2]]) + rows[0].data
    state = format_digest(digest_of(pack({"w": Ref(0).packed()}) + tensor))
    return files, lambda name: {"unit": name, "manifest": digest, "content": state}


def below_units(name, files):
    return {f"units/{name}/{file}": data for file, data in files.items()}


def good_cases():
    keys = [-(2**63), 2**64 - 1, 0, "0", "ä/..\n", [], ["a", 1], [["deep", [2]], "x"]]
    yield (
        "keys",
        "A key of each kind. Integers and texts are different keys.",
        progress([done(key, 1 + index) for index, key in enumerate(keys)]),
    )
    results = [None, True, 2.5, "text", b"\0", [1, [2]], {"$tuple": [1, {"$dict": [1, "int key"]}]}, {"deep": {"$set": [1, 2]}}]
    metrics = {"tokens": 12, "loss": 0.25, "bad": float("nan")}
    records = [done(index, 10 + index, result, metrics if index == 2 else {}) for index, result in enumerate(results)]
    yield "results", "A result of each kind, and metrics.", progress(records)
    tensors = [
        ["float32", [3], FLOATS],
        ["int64", [], struct.pack("<q", -5)],
        ["bool", [0, 4], b""],
        ["bfloat16", [1, 2], b"\x80\x3f\x00\xc0"],
    ]
    tree = {"x": {"$tensor": [0, "numpy", {}]}, "all": [{"$tensor": [row, "torch", {}]} for row in range(4)]}
    yield "results-with-tensors", "Tensors in the record; one is named twice.", progress([done("t", 1, tree, {}, {"tensors": tensors})])
    begin = ["begin", 5.0, None]
    one = [begin, ["total", 5.5, 10], done("a", 6, "first"), ["fail", "b", 7.0, 1, "ValueError: no"], ["fail", "c", 8.0, 1, "one"]]
    two = [
        ["begin", 6.0, None],
        done("a", 6.5, "second"),
        done("b", 9, "after it failed"),
        ["fail", "c", 8.5, 2, "two"],
        ["total", 9.5, 12],
    ]
    yield (
        "two-writers",
        "Of two results of one unit the earlier counts, of two failures the one with more attempts, of two totals the later.",
        progress(one, two),
    )
    sessions = [["begin", 1.0, fingerprint()], done(1, 2), ["begin", 3.0, None], ["total", 3.0, None], done(2, 4)]
    yield (
        "sessions",
        "Two sessions of one writer; the fingerprint of the first counts. How many units there are is not known.",
        progress(sessions),
    )
    newer = [["note", {"any": "thing"}], [*done(1, 1), "more"], ["later", 1, 2, 3], ["total", 2.0, 1, "more"]]
    yield "newer-records", "Kinds that this version does not know, and elements that it does not know.", progress(newer)
    files, link = unit_checkpoint(1.5)
    others = {**below_units("ab-result", files), **below_units("ab-state", files), **below_units("left-over", files)}
    more = {"result": link("ab-result"), "state": link("ab-state")}
    yield (
        "result-in-a-checkpoint",
        "A result and a state that are checkpoints, and one that no record names.",
        progress([done("large", 1, None, {"loss": 0.5}, more)], **others),
    )
    snapshot = segment(7, [done(1, 1), done(2, 2, "two")], base=Position(9, NO_LINK), kind=SNAPSHOT)
    follower = segment(8, [done(3, 3)], base=snapshot.positions[-1], seen=[snapshot.seen]).seal()
    files = {f"writers/{WRITERS[0]}/{made.name}": made.data for made in (snapshot, follower)}
    yield "compacted", "A journal that was compacted, and a session after it.", files
    claim = struct.pack("<Bd16s", 1, 1.0, bytes(16))
    yield (
        "claims",
        "Claims are no part of the results; the last entry is torn.",
        progress([done(1, 1)], **{f"claims/{WRITERS[1]}-0000000000000000.claims": claim + claim[:9]}),
    )


def bad_cases():
    def wrong(record):
        return progress([done(1, 1), record, done(2, 3)])

    yield "E057-record-is-a-map", "A record is no array.", wrong({"done": 1})
    yield "E057-record-is-empty", "A record without a kind.", wrong([])
    yield "E057-kind-is-an-integer", "The kind of a record is no text.", wrong([3, 1])
    yield "E057-done-without-content", "A finished unit without content.", wrong(["done", 1, 2.0])
    yield "E057-content-is-an-array", "Content that is not a bin.", wrong(["done", 3, 2.0, [None, {}, {}]])
    yield "E057-content-of-two", "Content of two members.", wrong(["done", 3, 2.0, pack([None, {}])])
    yield "E057-time-is-an-integer", "The time of a unit is an integer.", wrong(["done", 3, 2, content(1)])
    yield "E057-time-is-not-a-number", "The time of a unit is NaN.", wrong(done(3, float("nan")))
    yield "E057-key-is-a-float", "A key that is a float.", wrong(done(1.5, 2))
    deep = 1
    for _ in range(17):
        deep = [deep]
    yield "E057-key-nested-17", "A key that is nested 17 deep.", wrong(done(deep, 2))
    yield "E057-metrics-hold-a-text", "A metric that is no number.", wrong(done(3, 2, 1, {"loss": "low"}))
    yield "E057-tensor-of-two", "A tensor without bytes.", wrong(done(3, 2, None, {}, {"tensors": [["float32", [1]]]}))
    link = {"unit": "../../elsewhere", "manifest": "blake3:" + "0" * 64, "content": "blake3:" + "0" * 64}
    yield "E057-link-leads-out", "A link to a checkpoint that is not under units.", wrong(done(3, 2, None, {}, {"result": link}))
    yield "E057-link-without-digest", "A link without a digest.", wrong(done(3, 2, None, {}, {"state": {"unit": "a"}}))
    yield "E057-fail-without-attempts", "A failure that does not say how many there were.", wrong(["fail", 3, 2.0])
    yield "E057-error-is-a-bin", "A failure whose text is a bin.", wrong(["fail", 3, 2.0, 1, b"no"])
    yield "E057-total-negative", "A negative number of units.", wrong(["total", 2.0, -1])
    yield "E057-fingerprint-is-a-text", "A fingerprint that is no map.", wrong(["begin", 2.0, "seed 7"])
    yield "E024-content-not-packed", "Content that is not in packed form.", wrong(["done", 3, 2.0, b"\xc1"])
    yield "E027-unknown-tag", "A result with a tag that there is not.", wrong(done(3, 2, {"$nothing": 1}))
    yield "E028-no-such-tensor", "A result that names a tensor that there is not.", wrong(done(3, 2, {"$tensor": [1, "numpy", {}]}))
    for code, row in {
        "E036-shape-negative": ["float32", [-1], b""],
        "E042-float12": ["float12", [1], b"\0\0"],
        "E043-three-bytes": ["float32", [1], b"\0\0\0"],
    }.items():
        tree = {"$tensor": [0, "numpy", {}]}
        yield code, "A tensor in a record that breaks a rule of tensors.", wrong(done(3, 2, tree, {}, {"tensors": [row]}))
    _, link = unit_checkpoint(1.5)
    yield "E012-unit-missing", "The checkpoint of a unit is not there.", wrong(done(3, 2, None, {}, {"result": link("gone")}))
    other, _ = unit_checkpoint(2.5)
    record = done(3, 2, None, {}, {"result": link("ab")})
    yield "E004-unit-of-another", "The checkpoint of a unit is another one.", {**wrong(record), **below_units("ab", other)}
    changed = {**fingerprint(), "fields": {**FINGERPRINT, "seed": "must int 8"}}
    yield "E008-fingerprint-changed", "A fingerprint whose digest is another.", wrong(["begin", 2.0, changed])
