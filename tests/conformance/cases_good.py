"""Sound checkpoints: one for each thing that a reader must understand. Spec 8 to 11."""

import json
import struct

from ckptfmt.format.dtypes import NATIVE, RAW_SIZES, itemsize_bytes
from tests.conformance.cases_sharded import by_ranks, chunked
from tests.conformance.vector_kit import Edits, Ref, Shard, Slot, Tensor, build, count, floats, stored_frame, whole


def integers(*values):
    return struct.pack(f"<{len(values)}q", *values)


def pattern(size_bytes, *, start=1):
    return bytes((start + index) % 251 for index in range(size_bytes))


def empty_state():
    """A mapping without members: no tensors, no shards."""
    return {}, [], []


def by_hand():
    """The checkpoint of spec 15."""
    shard, rows = whole([("w", "float32", (2,), floats(1, -2.5))])
    return {"model": {"w": Ref(0)}, "epoch": 3}, rows, [shard], {"step": 3}


def no_mapping():
    """The state is a list with a tensor: its section is the empty text, and its shards are named `state`."""
    shard, rows = whole([("0", "float32", (2,), floats(1.5, -2.5))], section="")
    return [Ref(0), 3, None], [Tensor("0", *_rest(rows[0]))], [shard]


def bare_tensor():
    """The state is one tensor. Its name is up to the writer, because its path is empty."""
    shard, rows = whole([("state", "int64", (), integers(-5))], section="")
    return Ref(0), [Tensor("state", *_rest(rows[0]))], [shard]


def _rest(row):
    return row.dtype, row.shape, row.data, row.chunks


def plain_values():
    """Every value without a tag, at the limits of its range and encoding."""
    numbers = [
        0,
        127,
        128,
        255,
        256,
        65535,
        65536,
        2**32 - 1,
        2**32,
        2**64 - 1,
        -1,
        -32,
        -33,
        -128,
        -129,
        -32768,
        -32769,
        -(2**31),
        -(2**63),
    ]
    tree = {
        "none": None,
        "flags": [True, False],
        "integers": numbers,
        "floats": [0.0, -0.0, 0.1, 1e308, 5e-324, float("inf"), float("-inf"), float("nan")],
        "texts": ["", "a", "x" * 31, "y" * 32, "z" * 256, "Grüße, 世界 🙂", 'quote " and \\ and \n'],
        "bytes": [b"", b"\x00\xff", bytes(range(32)) * 8],
        "lists": [[], [[]], list(range(16))],
        "maps": {"": {}, "a": {"b": {"c": 1}}, **{f"key {index}": index for index in range(16)}},
    }
    return tree, [], []


def python_tags():
    """Every tag for a value of Python."""
    tree = {
        "dict": {"$dict": [1, "int", "1", "str", None, "none", 1.5, "float", b"b", "bytes", {"$tuple": [1, "a"]}, "tuple", "$x", 1]},
        "odict": {"$odict": ["z", 1, "a", 2]},
        "state_dict": {"$state_dict": [["weight", 1], {"": {"version": 1}}]},
        "defaultdict": {"$defaultdict": ["int", ["a", 1]]},
        "defaultdict_without_factory": {"$defaultdict": [None, []]},
        "counter": {"$counter": ["a", 3, "b", -1]},
        "tuple": {"$tuple": [1, {"$tuple": []}, [2]]},
        "set": {"$set": [1, 2, {"$tuple": [1, 2]}, "a"]},
        "frozenset": {"$frozenset": []},
        "deque": {"$deque": [3, [1, 2, 3]]},
        "deque_without_end": {"$deque": [None, []]},
        "integers": [{"$int": b"\x01" + bytes(8)}, {"$int": b"\xff\x7f" + b"\xff" * 7}],
        "complex": {"$complex": [1.5, -0.0]},
        "bytearray": {"$bytearray": b"\x00\x01"},
        "range": {"$range": [0, 10, 3]},
        "slice": {"$slice": [None, 5, None]},
        "decimal": {"$decimal": "3.14159265358979323846"},
        "uuid": {"$uuid": bytes(range(16))},
        "path": {"$path": ["pure_posix", "data/train.csv"]},
        "datetime": {"$datetime": ["2026-03-29T02:30:00.000001", 0, None]},
        "datetime_with_zone": {"$datetime": ["2026-10-25T02:30:00", 1, {"zone": "Europe/Berlin"}]},
        "datetime_with_offset": {"$datetime": ["2026-01-01T00:00:00", 0, {"$timezone": [19_800_000_000, None]}]},
        "date": {"$date": "2026-02-28"},
        "time": {"$time": ["23:59:59.999999", 0, None]},
        "timedelta": {"$timedelta": [-1, 86399, 999999]},
        "timezone": {"$timezone": [-3_600_000_000, "CVT"]},
        "namespace": {"$namespace": ["argparse", {"lr": 0.1, "layers": [1, 2]}]},
        "simple_namespace": {"$namespace": ["simple", {}]},
    }
    return tree, [], []


def registered():
    """A value of an application's own type; a reader that does not know the name may show it."""
    return {"point": {"$registered": ["vector.point", {"x": 1, "y": 2}]}}, [], []


def numpy_tags():
    """Every tag for a value of numpy, and arrays."""
    shard, rows = whole(
        [
            ("array", "float64", (2, 2), struct.pack("<4d", 1, 2, 3, 4)),
            ("legacy.1", "uint32", (624,), pattern(2496)),
        ],
        section="numpy",
    )
    seeds = [12345, [], 4, 0]
    pcg64 = {"bit_generator": "PCG64", "has_uint32": 0, "uinteger": 0}
    pcg64["state"] = {"inc": {"$int": (2**80 + 1).to_bytes(11, "big")}, "state": {"$int": (2**100 + 7).to_bytes(13, "big")}}
    tree = {
        "numpy": {
            "array": Ref(0, "numpy"),
            "scalars": [{"$numpy_scalar": ["float32", floats(1.5)]}, {"$numpy_scalar": ["numpy:<M8[s]", integers(1_700_000_000)]}],
            "dtypes": [{"$numpy_dtype": "int16"}, {"$numpy_dtype": "numpy:>f4"}],
            "generator": {"$numpy_generator": ["PCG64", pcg64, seeds]},
            "legacy": {"$numpy_random_state": ["MT19937", Ref(1, "numpy"), 624, 0, 0.0]},
        }
    }
    return tree, rows, [shard]


def python_random():
    """The state of Python's own generator."""
    words = [(index * 2_654_435_761) % 2**32 for index in range(624)]
    return {"rng": {"$python_random": [3, {"$tuple": [*words, 624]}, None]}}, [], []


def torch_tags():
    """Every small value of torch, and tensors of each kind."""
    shard, rows = whole(
        [("p", "float32", (2,), floats(1, 2)), ("b", "float32", (1,), floats(3)), ("x", "float32", (1,), floats(4))], section="torch"
    )
    tree = {
        "torch": {
            "p": Ref(0, "parameter"),
            "b": Ref(1, "buffer"),
            "x": Ref(2, "torch", grad=True),
            "size": {"$torch_size": [2, 3]},
            "dtype": {"$torch_dtype": "bfloat16"},
            "layout": {"$torch_layout": "strided"},
            "memory_format": {"$torch_memory_format": "channels_last"},
            "devices": [{"$torch_device": ["cpu", None]}, {"$torch_device": ["cuda", 1]}],
        }
    }
    return tree, rows, [shard]


def torch_generator():
    """A generator of torch on the processor."""
    words = b"".join((index * 2_654_435_761 % 2**32).to_bytes(8, "little") for index in range(624))
    state = struct.pack("<QiiQ", 7, 1, 1, 0) + words + bytes(40)
    shard, rows = whole([("generator", "uint8", (len(state),), state)], section="torch")
    return {"torch": {"generator": {"$torch_generator": ["cpu", None, Ref(0)]}}}, rows, [shard]


def jax_values():
    """An array of JAX, and a typed random key."""
    shard, rows = whole([("array", "float32", (2,), floats(1, 2)), ("key", "uint32", (2,), struct.pack("<2I", 0, 42))], section="jax")
    return {"jax": {"array": Ref(0, "jax"), "key": {"$jax_key": ["threefry2x32", Ref(1, "jax")]}}}, rows, [shard]


def sparse():
    """A sparse tensor in each layout: its parts are rows of the index."""
    parts = [
        ("coo.indices", "int64", (2, 2), integers(0, 1, 1, 2)),
        ("csr.crow_indices", "int64", (3,), integers(0, 1, 2)),
        ("csr.col_indices", "int64", (2,), integers(1, 2)),
        ("csc.ccol_indices", "int64", (4,), integers(0, 0, 1, 2)),
        ("csc.row_indices", "int64", (2,), integers(0, 1)),
        ("bsr.crow_indices", "int64", (2,), integers(0, 1)),
        ("bsr.col_indices", "int64", (1,), integers(0)),
        ("coo.values", "float32", (2,), floats(5, 6)),
        ("bsr.values", "float32", (1, 2, 2), floats(1, 2, 3, 4)),
    ]
    shard, rows = whole(parts, section="sparse")
    tree = {
        "coo": {"$sparse": ["coo", [2, 3], {"indices": Ref(0), "values": Ref(7)}, {"coalesced": True}]},
        "csr": {"$sparse": ["csr", [2, 3], {"crow_indices": Ref(1), "col_indices": Ref(2), "values": Ref(7)}, {}]},
        "csc": {"$sparse": ["csc", [2, 3], {"ccol_indices": Ref(3), "row_indices": Ref(4), "values": Ref(7)}, {}]},
        "bsr": {"$sparse": ["bsr", [2, 2], {"crow_indices": Ref(5), "col_indices": Ref(6), "values": Ref(8)}, {}]},
        "bsc": {"$sparse": ["bsc", [2, 2], {"ccol_indices": Ref(5), "row_indices": Ref(6), "values": Ref(8)}, {"grad": True}]},
    }
    return {"sparse": tree}, rows, [shard]


def dtypes_native():
    """Every element type that safetensors has, larger alignment first."""
    return _every_dtype(sorted(NATIVE, key=lambda name: -itemsize_bytes(name)), "torch")


def dtypes_raw():
    """Every element type of torch that safetensors lacks, stored as U8."""
    names = [
        name
        for name in RAW_SIZES
        if not name.startswith(("float6", "float4_e2m1fn", "float8")) or name in ("float8_e8m0fnu", "float4_e2m1fn_x2")
    ]
    return _every_dtype(sorted(names, key=lambda name: -itemsize_bytes(name)), "torch")


def dtypes_ml():
    """Element types of ml_dtypes that torch lacks, as arrays of numpy."""
    return _every_dtype(
        ["float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "int4", "uint2"], "numpy"
    )


def dtypes_numpy():
    """Element types of numpy: other byte orders, text, times, raw bytes, structures."""
    point = json.dumps({"fields": [["x", "<f4", 0], ["y", "<i2", 4], ["m", "|u1", 8, [2, 2]]], "size": 12, "align": True})
    names = ["numpy:>f4", "numpy:<M8[ns]", "numpy:<m8[25s]", "numpy:<U3", "numpy:|S3", "numpy:|V6", f"numpy:{point}"]
    texts = {"numpy:<U3": "añ".ljust(3, "\0").encode("utf-32-le"), "numpy:|S3": b"ab\0"}
    return _every_dtype(names, "numpy", data=texts)


def _every_dtype(names, kind, *, data=None):
    tensors = []
    for index, name in enumerate(names):
        size = itemsize_bytes(name)
        content = bytes([1, 0]) if name == "bool" else pattern(2 * size) if size > 1 else bytes([0, 1])
        tensors.append((str(index), name, (2,), (data or {}).get(name, b"") * 2 or content))
    shard, rows = whole(tensors, section="dtypes")
    return {"dtypes": [Ref(index, kind) for index in range(len(rows))]}, rows, [shard]


def shapes():
    """No dimensions, no elements, many dimensions."""
    many = (1,) * 20 + (2,)
    tensors = [
        ("scalar", "float32", (), floats(1)),
        ("many", "float32", many, floats(1, 2)),
        ("empty", "float32", (0,), b""),
        ("empty_inside", "float32", (3, 0, 2), b""),
        ("after_empty", "uint8", (1,), b"\x07"),
    ]
    shard, rows = whole(tensors)
    rows[3] = Tensor(rows[3].name, "float32", (3, 0, 2), b"", [])
    return {"model": {name: Ref(index) for index, (name, *_) in enumerate(tensors)}}, rows, [shard]


def ties():
    """Two references to one row share memory; the header names the tied keys."""
    shard, rows = whole([("wte.weight", "float32", (2, 2), floats(1, 2, 3, 4))], ties={"lm_head.weight": "wte.weight"})
    tied = {"wte.weight": Ref(0, "parameter"), "lm_head.weight": Ref(0, "parameter")}
    return {"model": tied, "shared": [Ref(0), Ref(0, grad=True)]}, rows, [shard]


def views():
    """Values that view a part of another tensor's memory: overlapping, strided, repeated, of another element type."""
    data = floats(0, 1, 2, 3, 4, 5)
    shard, rows = whole([("base", "uint8", (24,), data)])
    tree = {
        "all": Ref(0, view=(0, "float32", (2, 3), (3, 1)), view_data=data),
        "row": Ref(0, view=(12, "float32", (3,), (1,)), view_data=floats(3, 4, 5)),
        "column": Ref(0, view=(4, "float32", (2,), (3,)), view_data=floats(1, 4)),
        "repeated": Ref(0, view=(8, "float32", (3,), (0,)), view_data=floats(2, 2, 2)),
        "transposed": Ref(0, view=(0, "float32", (3, 2), (1, 3)), view_data=floats(0, 3, 1, 4, 2, 5)),
        "bits": Ref(0, view=(4, "int32", (), ()), view_data=floats(1)),
        "nothing": Ref(0, view=(24, "float32", (0,), (1,)), view_data=b""),
        "reversed": Ref(0, "numpy", view=(20, "float32", (3,), (-1,)), view_data=floats(5, 4, 3)),
    }
    return {"model": tree}, rows, [shard]


def strides():
    """Dense tensors in another memory order: their bytes are stored in the order of their shape all the same."""
    image = floats(*range(12))
    shard, rows = whole([("columns", "float32", (2, 3), floats(*range(6))), ("image", "float32", (1, 3, 2, 2), image)])
    tree = {"columns": Ref(0, strides=(1, 2)), "again": Ref(0, strides=(1, 2)), "image": Ref(1, strides=(12, 1, 6, 3))}
    return {"model": tree}, rows, [shard]


def several_shards():
    """Sections with shards of their own, one of them split; section names that no file can have."""
    sections = [("model", "a", 1), ("model", "b", 2), ("optimizer", "a", 1), ("Überschrift / 1", "a", 1)]
    shards = [
        Shard(section, [Slot(key, "F32", (1,), floats(index))], number=number) for index, (section, key, number) in enumerate(sections)
    ]
    rows = [Tensor(f"{section}.{key}", "float32", (1,), floats(index), [[index, 0]]) for index, (section, key, _) in enumerate(sections)]
    tree = {"model": {"a": Ref(0), "b": Ref(1)}, "optimizer": {"a": Ref(2)}, "Überschrift / 1": {"a": Ref(3)}, "epoch": 3}
    return tree, rows, shards


def linked_shard():
    """A shard of a base with a stale slot: `head` was written anew into the shard with the higher number."""
    base = Shard("model", [Slot("body", "F32", (2,), floats(1, 2)), Slot("head", "F32", (1,), floats(3))])
    new = Shard("model", [Slot("head", "F32", (1,), floats(4))], number=2)
    rows = [Tensor("model.body", "float32", (2,), floats(1, 2), [[0, 0]]), Tensor("model.head", "float32", (1,), floats(4), [[1, 0]])]
    return {"model": {"body": Ref(0), "head": Ref(1)}}, rows, [base, new]


def encoded():
    """Slots encoded with zstd beside one that is not: one frame, two frames without checksums, a chunk, no bytes at all."""
    ones = floats(*[1.0] * 8)
    halves = stored_frame(ones[:12], checksum=False) + stored_frame(ones[12:], checksum=False)
    frames = [(stored_frame(ones), ones), (halves, ones), (stored_frame(ones[:16]), ones[:16]), (b"", b"")]
    slots = [Slot("plain", "F32", (1,), floats(9))]
    slots += [Slot(f"encoded.{index}", "U8", (len(stored),), stored, raw) for index, (stored, raw) in enumerate(frames)]
    slots.append(Slot("second half", "F32", (4,), ones[16:]))
    rows = [
        Tensor("model.plain", "float32", (1,), floats(9), [[0, 0]]),
        Tensor("model.one", "float32", (8,), ones, [[0, 1]]),
        Tensor("model.two", "float32", (2, 4), ones, [[0, 2]]),
        Tensor("model.half", "float32", (8,), ones, [[0, 3, [0], [4]], [0, 5, [4], [4]]]),
        Tensor("model.nothing", "float32", (0,), b"", [[0, 4]]),
    ]
    tree = {"model": {row.name.partition(".")[2]: Ref(index) for index, row in enumerate(rows)}}
    return tree, rows, [Shard("model", slots)], {"requires": ("codec:zstd",)}


def names():
    """Names of every kind: other scripts, quotes, dots, spaces, the longest, what looks like a format's own."""
    keys = ["gewichte.größe", "层.0", "🙂", 'quote"d', "back\\slash", "a b", "..", "/", "format", "$x", "é" * 256]
    shard, _ = whole([(key, "uint8", (1,), bytes([index])) for index, key in enumerate(keys)])
    rows = [Tensor(f"m.{key}"[:250], "uint8", (1,), bytes([index]), [[0, index]]) for index, key in enumerate(keys)]
    return {"model": {"$dict": [part for index, key in enumerate(keys) for part in (key, Ref(index))]}}, rows, [shard]


def manifest_members():
    """Metrics that are not finite, a fingerprint, no step."""
    metrics = {"loss": float("nan"), "best": float("-inf"), "worst": float("inf"), "steps": 2**63 - 1, "größe": -0.0}
    fingerprint = {"seed": 1, "config": {"lr": 0.001, "note": "blake3:" + "0" * 64, "größe": None}}
    return {"epoch": 3}, [], [], {"metrics": metrics, "fingerprint": fingerprint, "step": None}


def large_window():
    """Metadata in a frame that declares the largest window, and a header padded by more than it needs."""
    shard, rows = whole([("w", "float32", (1,), floats(1))])
    edits = Edits(
        frame=lambda raw: stored_frame(raw, window_log=23),
        header=lambda _, header: (len(header) + 56).to_bytes(8, "little") + header[8:] + b" " * 64,
        content=lambda content: (
            content | {"shards": [content["shards"][0] | {"header_size_bytes": content["shards"][0]["header_size_bytes"] + 64}]}
        ),
    )
    return {"model": {"w": Ref(0)}}, rows, [shard], {"edits": edits}


def deepest():
    """A state with as many levels as are allowed."""
    tree = []
    for _ in range(255):
        tree = [tree]
    return [tree], [], []


CASES = [
    *(empty_state, by_hand, no_mapping, bare_tensor, plain_values, python_tags, registered, numpy_tags, python_random, torch_tags),
    *(torch_generator, jax_values, sparse),
    *(dtypes_native, dtypes_raw, dtypes_ml, dtypes_numpy, shapes, ties, views, strides, chunked, by_ranks, several_shards),
    *(linked_shard, encoded, names, manifest_members, large_window, deepest),
]


def cases(makers=CASES):
    """Yield (name, description, tree, tensors, files) of every case."""
    for case in makers:
        tree, tensors, shards, *options = case()
        assert all(len(tensor.data) == itemsize_bytes(tensor.dtype) * count(tensor.shape) for tensor in tensors), case.__name__
        yield case.__name__.replace("_", "-"), case.__doc__, tree, tensors, build(tree, tensors, shards, **(options[0] if options else {}))
