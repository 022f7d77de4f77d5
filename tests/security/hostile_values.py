"""Hostile state trees: every tag with every kind of wrong payload, names that mean code elsewhere, numbers without end. Spec 8, 9.1."""

from itertools import islice

from tests.security.attacks import OBJECT_BYTES_PER_PACKED_BYTE, Attack, with_tree

TENSOR = {"$tensor": [0, "torch", {}]}
SCALAR = {"$tensor": [1, "torch", {}]}
MODEL = {"w": TENSOR, "b": SCALAR}
ARRAY = {"$tensor": [0, "numpy", {}]}

TAGS = """$dict $odict $state_dict $defaultdict $counter $tuple $set $frozenset $deque $int $complex $bytearray $range $slice $decimal $uuid
    $path $datetime $date $time $timedelta $timezone $namespace $tensor $sparse $numpy_scalar $numpy_dtype $torch_size $torch_dtype
    $torch_layout $torch_memory_format $torch_device $torch_generator $jax_key $numpy_generator $numpy_random_state $python_random
    $registered $unknown $ $$ $pickle $__reduce__ $torch.load $os.system""".split()

ITEMS = {
    "nil": None,
    "true": True,
    "zero": 0,
    "minus-one": -1,
    "largest": 2**64 - 1,
    "smallest": -(2**63),
    "fraction": 1.5,
    "nan": float("nan"),
    "empty-text": "",
    "name": "os.system",
    "terminal": "\x1b[2J\u202e\n",
    "empty-bin": b"",
    "bin": b"\x80" * 20,
    "empty-list": [],
    "map": {"a": 1},
    "tensor": TENSOR,
    "array": ARRAY,
    "tuple": {"$tuple": [1]},
}


def deep(levels, wrap=lambda value: [value]):
    value = 0
    for _ in range(levels):
        value = wrap(value)
    return value


def payloads():
    """Every kind of payload by name: single values, and arrays of one to five equal values."""
    yield from ITEMS.items()
    for kind in ("nil", "largest", "name", "bin", "empty-list", "tensor"):
        for count in (1, 2, 3, 4, 5):
            yield f"{count}-times-{kind}", [ITEMS[kind]] * count
    yield "deep", deep(200)
    yield "deep-tuples", deep(100, lambda value: {"$tuple": [value]})
    yield "long-text", "9" * 100_000
    yield "many", list(range(1000))


def all_tag_attacks():
    """Each tag with each payload, as a value; and with some of them as a key."""
    for tag in TAGS:
        name = f"tag-{tag.strip('$') or len(tag)}"
        for kind, payload in payloads():
            yield Attack(f"{name}-{kind}", with_tree({"model": MODEL, "x": {tag: payload}}), refused=False)
        for kind in ("nil", "largest", "terminal", "bin", "tensor", "array", "tuple"):
            key = {"$dict": [{tag: ITEMS[kind]}, 1]}
            yield Attack(f"{name}-as-key-{kind}", with_tree({"model": MODEL, "x": key}), refused=False)


def some_tag_attacks():
    """A third of them, spread so that each payload meets every third tag."""
    return islice(all_tag_attacks(), 0, None, 3)


def tensor_attacks():
    """References that lead elsewhere, and views and strides that leave the memory."""
    references = {
        "missing": [2, "torch", {}],
        "far": [2**63, "torch", {}],
        "negative": [-1, "torch", {}],
        "most-negative": [-(2**63), "torch", {}],
        "true": [True, "torch", {}],
        "fraction": [0.0, "torch", {}],
        "text": ["0", "torch", {}],
        "kind-unknown": [0, "keras", {}],
        "kind-module": [0, "os", {}],
        "kind-list": [0, ["torch"], {}],
        "kind-nil": [0, None, {}],
        "attribute-hook": [0, "torch", {"hook": "os.system"}],
        "attribute-class": [0, "torch", {"__class__": "x"}],
        "attributes-nil": [0, "torch", None],
        "grad-text": [0, "torch", {"grad": "x"}],
        "grad-of-integers": [1, "torch", {"grad": True}],
        "parameter-of-integers": [1, "parameter", {}],
        "jax-view": [0, "jax", {"view": [0, "float32", [4], [1]]}],
        "both": [0, "torch", {"view": [0, "float32", [4], [1]], "strides": [1]}],
    }
    views = {
        "after-end": [4, "float32", [4], [1]],
        "far-after-end": [2**63, "float32", [1], [1]],
        "before-begin": [-4, "float32", [1], [1]],
        "backwards": [0, "float32", [2], [-1]],
        "backwards-allowed": [12, "float32", [4], [-1]],
        "huge-shape": [0, "float32", [2**47], [0]],
        "huge-shape-of-bits": [0, "uint8", [2**47, 2**47], [0, 0]],
        "huge-strides": [0, "float32", [2], [2**47]],
        "strides-overflow": [0, "float32", [2**47], [2**47]],
        "strides-beyond": [0, "float32", [2], [2**62]],
        "rank-65": [0, "float32", [1] * 65, [1] * 65],
        "rank-differs": [0, "float32", [1, 1], [1]],
        "misaligned": [1, "float32", [1], [1]],
        "wider": [0, "complex128", [2], [1]],
        "unknown-type": [0, "float12", [1], [1]],
        "numpy-objects": [0, "numpy:|O8", [1], [1]],
        "type-nil": [0, None, [1], [1]],
        "offset-nil": [None, "float32", [1], [1]],
        "offset-true": [True, "uint8", [1], [1]],
        "shape-nil": [0, "float32", None, [1]],
        "strides-nil": [0, "float32", [1], None],
        "empty-far": [2**62, "float32", [0], [1]],
        "empty-before": [-4, "float32", [0], [1]],
        "three": [0, "float32", [1]],
    }
    allowed = {"backwards-allowed", "huge-shape", "huge-shape-of-bits", "offset-true", "misaligned", "wider"}
    for kind, reference in references.items():
        yield Attack(f"reference-{kind}", with_tree({"model": {"w": {"$tensor": reference}, "b": SCALAR}}))
    for library in ("torch", "numpy"):
        for kind, view in views.items():
            node = {"$tensor": [0, library, {"view": view}]}
            yield Attack(f"view-of-{library}-{kind}", with_tree({"model": {"w": node, "b": SCALAR}}), refused=kind not in allowed)
        strides = {"2": [2], "negative": [-1], "zero": [0], "huge": [2**47], "beyond": [2**63], "two": [1, 1]}
        for kind, steps in strides.items():
            node = {"$tensor": [0, library, {"strides": steps}]}
            yield Attack(f"strides-of-{library}-{kind}", with_tree({"model": {"w": node, "b": SCALAR}}))
    for layout in ("coo", "csr", "csc", "bsr", "bsc", "strided", "mkldnn"):
        for kind, shape in {"fits": [4], "huge": [2**47, 2**47], "flat": [2**47], "overflow": [2**47] * 60, "nil": None}.items():
            names = {"coo": ("indices", "values")}.get(layout, ("crow_indices", "col_indices", "values"))
            node = {"$sparse": [layout, shape, dict.fromkeys(names, TENSOR), {}]}
            yield Attack(f"sparse-{layout}-{kind}", with_tree({"model": {"w": node, "b": SCALAR}}))


def value_attacks():
    """Single values that are absurd, mean something elsewhere, or cost far more than their bytes."""
    values = {
        "decimal-exponent": {"$decimal": "1E+999999999"},
        "decimal-beyond": {"$decimal": "1E+999999999999999999999"},
        "decimal-signalling": {"$decimal": "sNaN123"},
        "decimal-key-signalling": {"$dict": [{"$decimal": "sNaN"}, 1]},
        "decimal-digits": {"$decimal": "9" * 100_000},
        "decimal-underscores": {"$decimal": "1_000"},
        "decimal-arabic": {"$decimal": "\u0661"},
        "timedelta-days": {"$timedelta": [10**9, 0, 0]},
        "timedelta-most": {"$timedelta": [2**63, 2**63, 2**63]},
        "timezone-day": {"$timezone": [86_400_000_000, None]},
        "datetime-year-0": {"$datetime": ["0000-01-01T00:00:00", 0, None]},
        "datetime-year-10000": {"$datetime": ["10000-01-01T00:00:00", 0, None]},
        "datetime-offset": {"$datetime": ["2026-01-01T00:00:00+00:00", 0, None]},
        "datetime-zone-parent": {"$datetime": ["2026-01-01T00:00:00", 0, {"zone": "../../../etc/passwd"}]},
        "datetime-zone-absolute": {"$datetime": ["2026-01-01T00:00:00", 0, {"zone": "/etc/passwd"}]},
        "datetime-zone-terminal": {"$datetime": ["2026-01-01T00:00:00", 0, {"zone": "\x1b[2J"}]},
        "datetime-zone-unknown": {"$datetime": ["2026-01-01T00:00:00", 0, {"zone": "Mars/Olympus"}]},
        "datetime-zone-bidi": {"$datetime": ["2026-01-01T00:00:00", 0, {"zone": "\u202e"}]},
        "date-week": {"$date": "2026-W01-1"},
        "integer-of-megabytes": {"$int": b"\x01" + bytes(4_000_000)},
        "integer-of-megabytes-as-key": {"$dict": [{"$int": b"\x01" + bytes(4_000_000)}, 1]},
        "integers-of-kilobytes-in-tuple-key": {"$dict": [{"$tuple": [{"$int": b"\x01" + bytes(2000)}]}, {"$unknown": 1}]},
        "range-endless": {"$range": [0, {"$int": b"\x01" + bytes(100)}, 1]},
        "range-by-zero": {"$range": [0, 1, 0]},
        "deque-of-2-to-the-63": {"$deque": [2**63, []]},
        "deque-long": {"$deque": [2**63 - 1, [1]]},
        "factory-eval": {"$defaultdict": ["eval", []]},
        "factory-import": {"$defaultdict": ["__import__", []]},
        "factory-type": {"$defaultdict": ["type", []]},
        "namespace-class": {"$namespace": ["argparse", {"__class__": 1, "__dict__": {}, "__init__": 2}]},
        "namespace-module": {"$namespace": ["os", {}]},
        "registered-system": {"$registered": ["os.system", "true"]},
        "registered-builtin": {"$registered": ["builtins.eval", "1"]},
        "registered-terminal": {"$registered": ["\x1b[2J", 1]},
        "registered-long": {"$registered": ["x" * 100_000, 1]},
        "registered-nested": deep(250, lambda value: {"$registered": ["x", value]}),
        "dtype-function": {"$torch_dtype": "load"},
        "dtype-dunder": {"$torch_dtype": "__class__"},
        "layout-function": {"$torch_layout": "save"},
        "memory-format-function": {"$torch_memory_format": "_C"},
        "device-function": {"$torch_device": ["__import__('os')", None]},
        "device-absent": {"$torch_device": ["cuda", 127]},
        "device-unicode": {"$torch_device": ["\u1d9cpu", None]},
        "generator-device": {"$torch_generator": ["cuda", 0, TENSOR]},
        "generator-state": {"$torch_generator": ["cpu", None, TENSOR]},
        "bit-generator-class": {"$numpy_generator": ["Generator", {}, None]},
        "bit-generator-dunder": {"$numpy_generator": ["__builtins__", {}, None]},
        "bit-generator-state": {"$numpy_generator": ["MT19937", {"bit_generator": "MT19937", "state": {"key": ARRAY, "pos": 2**40}}, None]},
        "seed-pool": {"$numpy_generator": ["PCG64", {}, [1, [], 2**40, 0]]},
        "random-state": {"$numpy_random_state": ["MT19937", ARRAY, 2**40, 0, 0.0]},
        "python-random-position": {"$python_random": [3, {"$tuple": [0] * 624 + [10**6]}, None]},
        "python-random-version": {"$python_random": [99, {"$tuple": [0] * 625}, None]},
        "scalar-objects": {"$numpy_scalar": ["numpy:|O8", bytes(8)]},
        "scalar-text-beyond-unicode": {"$numpy_scalar": ["numpy:<U1", b"\xff\xff\xff\x7f"]},
        "scalar-void": {"$numpy_scalar": ["numpy:|V0", b""]},
        "numpy-dtype-objects": {"$numpy_dtype": "numpy:|O8"},
        "numpy-dtype-of-gigabytes": {"$numpy_dtype": "numpy:|V2147483647"},
        "numpy-dtype-nested": {"$numpy_dtype": "numpy:" + '{"size":4,"fields":[["a",' * 300 + '"<f4"' + ",0]]}" * 300},
        "jax-key": {"$jax_key": ["threefry2x32", {"$tensor": [0, "jax", {}]}]},
        "jax-key-of-module": {"$jax_key": ["os.system", {"$tensor": [0, "jax", {}]}]},
        "path-of-nul": {"$path": ["posix", "a\0b"]},
        "path-to-home": {"$path": ["windows", "~\\..\\x"]},
        "unhashable-key": {"$dict": [[1], 2]},
        "tensor-as-key": {"$dict": [TENSOR, 2]},
        "tensor-in-set": {"$set": [TENSOR]},
        "tensor-in-tuple-in-set": {"$set": [{"$tuple": [TENSOR]}]},
        "set-not-in-order": {"$set": [2, 1]},
        "set-twice": {"$set": [1, 1]},
        "set-equal": {"$set": [1, 1.0]},
        "keys-equal": {"$dict": [1, "a", True, "b"]},
        "keys-nan": {"$dict": [float("nan"), 1, float("nan"), 2]},
        "keys-terminal": {"\x1b]0;owned\x07": {"\u202e\u2066": {"$unknown": 1}}},
        "keys-of-all-kinds": {"$dict": [b"\xff\x1b[2J", 1, 2.5, {"$tensor": [9, "torch", {}]}]},
        "key-deep-frozensets": {"$dict": [deep(200, lambda value: {"$frozenset": [value]}), {"x": TENSOR}]},
        "key-deep-unknown": {"$dict": [{"$unknown": deep(600)}, {"x": TENSOR}]},
        "key-deep-tuples": {"$dict": [deep(250, lambda value: {"$tuple": [value, value] if value == 0 else [value]}), {"x": TENSOR}]},
        "nested-257": deep(257),
        "nested-300-maps": deep(300, lambda value: {"a": value}),
        "nested-300-tuples": deep(300, lambda value: {"$tuple": [value]}),
        "wrappers-500": deep(500, lambda value: {"$namespace": ["simple", value]}),
        "state-dict-metadata-deep": {"$state_dict": [[], deep(300)]},
    }
    harmless = {
        *(
            "decimal-exponent",
            "decimal-signalling",
            "decimal-digits",
            "integer-of-megabytes",
            "integer-of-megabytes-as-key",
            "range-endless",
        ),
        *(
            "deque-long",
            "namespace-class",
            "device-absent",
            "path-of-nul",
            "path-to-home",
            "keys-nan",
            "key-deep-frozensets",
            "key-deep-tuples",
        ),
        *("scalar-void", "scalar-text-beyond-unicode", "numpy-dtype-of-gigabytes"),
    }
    for kind, value in values.items():
        files = with_tree({"model": MODEL, "x": value})
        yield Attack(f"value-{kind}", files, refused=kind not in harmless)
        yield Attack(f"root-{kind}", with_tree(value), refused=kind not in harmless, has_sections=False)


def costly_attacks():
    """Trees that are sound, or nearly, and whose paths, keys or hashes cost far more than their bytes."""

    def room(count):
        return count * OBJECT_BYTES_PER_PACKED_BYTE

    modulus = 2**61 - 1
    colliding = [{"$int": (number * modulus).to_bytes(12, "big")} for number in range(2**20, 2**20 + 10_000)]
    yield Attack("colliding-integers-in-a-set", with_tree({"x": {"$set": colliding}}), refused=False, declared_bytes=room(300_000))
    pairs = [part for key in colliding for part in (key, 1)]
    yield Attack("colliding-integers-as-keys", with_tree({"x": {"$dict": pairs}}), refused=False, declared_bytes=room(300_000))
    many = {str(number): TENSOR for number in range(5_000)}
    yield Attack("long-paths-of-many-tensors", with_tree({"k" * 100_000: many}), refused=False, declared_bytes=2**30, seconds=10)
    nested = deep(200, lambda value: {"k" * 10_000: value, "w": TENSOR})
    yield Attack("long-paths-of-deep-tensors", with_tree(nested), refused=False, declared_bytes=2**30, seconds=10)
    doubled = {"a.b": {"c": TENSOR}, "a": {"b.c": TENSOR, "b": {"c": TENSOR}}, "a.b.c": TENSOR}
    yield Attack("paths-that-look-the-same", with_tree(doubled), refused=False)
    wide = {"$tuple": [[{"$tuple": [number]} for number in range(50_000)]]}
    yield Attack("many-tuples", with_tree({"x": wide}), refused=False, declared_bytes=room(600_000), seconds=6)
    sets = [{"$frozenset": [number]} for number in range(50_000)]
    yield Attack("many-sets", with_tree({"x": sets}), refused=False, declared_bytes=room(900_000), seconds=6)
    same = [TENSOR] * 50_000
    yield Attack(
        "one-tensor-referred-to-often", with_tree({"model": same, "b": SCALAR}), refused=False, declared_bytes=room(900_000), seconds=10
    )
    parameters = [{"$tensor": [0, "parameter", {"view": [0, "float32", [4], [1]]}]}] * 5_000
    yield Attack("many-views-of-one-tensor", with_tree({"model": parameters, "b": SCALAR}), refused=False, declared_bytes=2**27, seconds=10)
    generators = [{"$python_random": [3, {"$tuple": [1] * 624 + [1]}, None]}] * 300
    yield Attack("many-generators", with_tree({"x": generators}), refused=False, declared_bytes=room(300_000), seconds=6)
    seeds = [{"$numpy_generator": ["PCG64", {"x": 1}, [1, [], 1024, 0]]}] * 300
    yield Attack("many-seed-sequences", with_tree({"x": seeds}), refused=False, seconds=6)


def old_holes():
    """What once passed the state floor, or took it too long to refuse."""
    nodes = {
        "random-state-of-tensors": {"$python_random": [TENSOR] * 3},
        "scalar-of-swapped-text-beyond-unicode": {"$numpy_scalar": ["numpy:>U1", b"\x7f\xff\xff\xff"]},
        "seed-of-50000-bytes": {"$numpy_generator": ["PCG64", {}, [{"$int": b"\x01" + bytes(50_000)}, [], 4, 0]]},
        "strides-nil": {"$tensor": [0, "torch", {"strides": None}]},
    }
    return [Attack(f"hole-{kind}", with_tree({"model": MODEL, "x": node}), seconds=0.2) for kind, node in nodes.items()]
