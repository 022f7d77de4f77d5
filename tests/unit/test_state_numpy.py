"""Arrays, scalars, dtypes and generators of numpy and ml_dtypes."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ckptfmt.errors import CheckpointError, CorruptError, UnsupportedTypeError
from ckptfmt.format.dtypes import SIZES, itemsize_bytes
from ckptfmt.state.tensors import TensorMemory
from ckptfmt.state.tree import decode_state, encode_state
from tests.unit.test_state_exactness import Stored, assert_same, round_trip

ML_TYPES = [
    scalar for name in sorted(vars(ml_dtypes)) if isinstance(scalar := getattr(ml_dtypes, name), type) and issubclass(scalar, np.generic)
]
STORED_ML_TYPES = [scalar for scalar in ML_TYPES if scalar.__name__ in SIZES]

NESTED = np.dtype([("a", "<i4"), ("b", ">f8", (2, 3)), ("c", [("x", "u1"), ("y", "U3")])], align=True)
DTYPES = [
    *(np.dtype(code) for code in "?bBhHiIlLqQefdgFDG"),
    *(np.dtype(code).newbyteorder(">") for code in "hHiIqQefdgFDG"),
    *map(np.dtype, ["S5", "U7", ">U2", "V6", "M8[ns]", "m8[D]", ">M8[25s]", "M8", "m8[Y]", "M8[D]"]),
    *(np.dtype(scalar) for scalar in STORED_ML_TYPES),
    NESTED,
    np.dtype([("a", "i1"), ("b", "<f8")]),
    np.dtype({"names": ["b", "a"], "formats": ["i4", "u1"], "offsets": [4, 0], "itemsize": 16}),
    np.dtype([("half", ml_dtypes.bfloat16), ("n", ml_dtypes.int4, (3,))]),
    np.dtype([("näme €", "f4"), ("", "i2")]),
    np.dtype({"names": ["a", "b"], "formats": ["<i4", "<i2"], "offsets": [0, 2], "itemsize": 4}),
]


def filled(dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    count = int(np.prod(shape)) * dtype.itemsize
    values = np.random.default_rng(7).integers(0, 256, count, dtype=np.uint8)
    if dtype.kind == "U" or dtype == NESTED:
        values &= 0
    return np.ndarray(shape, dtype, values.tobytes()).copy() if dtype.itemsize else np.ndarray(shape, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_array_of_every_element_type_comes_back_exactly(dtype: np.dtype[Any]) -> None:
    for shape in [(), (0,), (3,), (2, 3), (2, 0, 4), (1, 1)]:
        array = filled(dtype, shape)
        stored = Stored([array])
        (source,) = stored.encoded.tensors
        assert itemsize_bytes(source.dtype) == dtype.itemsize
        (loaded,) = stored.load()
        assert_same(array, loaded)
        assert loaded.flags.writeable


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scalar_and_dtype_come_back_exactly(dtype: np.dtype[Any]) -> None:
    scalar = filled(dtype, (1,))[0]
    loaded = round_trip([scalar, dtype])
    assert dtype == loaded[1]
    assert dtype.isalignedstruct == loaded[1].isalignedstruct
    assert loaded[0].tobytes() == scalar.tobytes()
    assert loaded[0].dtype == scalar.dtype
    if dtype.char not in "qQ":
        assert type(loaded[0]) is type(scalar)


@pytest.mark.parametrize(
    "scalar",
    [
        np.float64("nan"),
        np.bool_(True),
        np.str_("a\0"),
        np.str_(""),
        np.str_("\ud800"),
        np.bytes_(b"a\0"),
        np.bytes_(b""),
        np.void(b"abc\0"),
        np.datetime64("NaT"),
        np.datetime64("2020-01-01", "25s"),
        np.timedelta64(5),
        np.longdouble(1) / 3,
        np.clongdouble(1j) / 3,
        ml_dtypes.bfloat16(1.5),
        ml_dtypes.int4(-3),
        np.zeros(1, NESTED)[0],
    ],
    ids=lambda value: type(value).__name__,
)
def test_scalar_keeps_its_type(scalar: Any) -> None:
    loaded = round_trip(scalar)
    assert_same(scalar, loaded)
    if scalar.dtype.kind not in "SU":
        assert loaded.dtype == scalar.dtype


def test_structured_scalar_can_be_changed() -> None:
    loaded = round_trip(np.zeros(1, [("a", "i4")])[0])
    loaded["a"] = 5
    assert loaded["a"] == 5


def test_scalars_are_keys() -> None:
    state = {np.int64(3): 1, np.str_("x"): 2, np.float32(0.5): 3}
    assert_same(state, round_trip(state))


def test_empty_element_types_come_back() -> None:
    for text in ("S0", "U0", "V0"):
        array = np.ndarray((2, 3), np.dtype(text))
        loaded = round_trip(array)
        assert loaded.dtype == array.dtype
        assert loaded.shape == (2, 3)


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2), (0, 2, 1), (2, 0, 1)])
def test_memory_order_of_a_dense_array_is_kept(order: tuple[int, ...]) -> None:
    array = np.arange(24, dtype="f4").reshape(2, 3, 4).transpose(np.argsort(order)).copy("K").transpose(order)
    array = np.ascontiguousarray(np.arange(24, dtype="f4").reshape(4, 2, 3)).transpose(order)
    loaded = round_trip(array)
    assert_same(array, loaded)
    assert loaded.strides == array.strides


def test_fortran_arrays_of_odd_sizes_are_kept() -> None:
    for dtype in ("S5", "V3", "f8", NESTED, ml_dtypes.bfloat16):
        array = np.asfortranarray(filled(np.dtype(dtype), (3, 4)))
        loaded = round_trip(array)
        assert_same(array, loaded)
        assert loaded.strides == array.strides


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::-1],
        lambda a: a[:, ::2],
        lambda a: a[1:, 1:],
        lambda a: np.broadcast_to(a, (2, *a.shape)),
        lambda a: np.broadcast_to(a[0, 0], (5,)),
        lambda a: a[:, 1],
    ],
)
def test_other_strides_become_row_major(view: Any) -> None:
    array = view(np.arange(20.0).reshape(4, 5))
    stored = Stored(array, block_bytes=24)
    assert stored.encoded.tensors[0].memory() is None
    loaded = stored.load()
    assert_same(array, loaded)
    assert loaded.flags.c_contiguous


def test_contiguous_arrays_lend_their_memory() -> None:
    array = np.arange(5.0)
    memory = encode_state(array).tensors[0].memory()
    assert memory is not None
    array[0] = 7
    assert np.frombuffer(memory)[0] == 7


def test_pieces_stay_within_their_size() -> None:
    array = np.arange(1000, dtype="i2").reshape(10, 10, 10)[:, ::2, ::-1]
    sizes = [len(block) for block in encode_state(array).tensors[0].blocks(64)]
    assert max(sizes) <= 64
    assert sum(sizes) == array.nbytes


def test_read_only_and_mapped_arrays_load_as_arrays() -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    assert_same(array, round_trip(array))
    with tempfile.TemporaryDirectory() as folder:
        mapped = np.memmap(os.path.join(folder, "x"), dtype="i4", mode="w+", shape=(4,))
        mapped[:] = 5
        loaded = round_trip(mapped)
        assert type(loaded) is np.ndarray
        assert loaded.tolist() == [5] * 4


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()]),
        np.array([None, 1], dtype=object),
        np.zeros(2, [("a", "O")]),
        np.zeros(2, [("a", [("b", "O", (2,))])]),
        np.dtype(object),
        np.array(["x"], dtype=np.dtypes.StringDType()),
        np.zeros((1, 1)).view(np.matrix),
        np.ma.array([1], mask=[1]),
        np.rec.array([(1,)], dtype=[("a", "i4")]),
        np.rec.array([(1,)], dtype=[("a", "i4")])[0],
        np.zeros(1, np.dtype((np.record, [("a", "i4")]))),
        np.zeros(1, [(("title", "a"), "i4")]),
        np.dtype(("f4", (2,))),
        np.dtype(("i4", {"real": ("i2", 0), "imag": ("i2", 2)})),
        np.random.PCG64(),
        np.random.SeedSequence(1),
        np.random.RandomState(np.random.PCG64(1)),
        np,
        np.add,
        np.float64,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_is_refused_by_its_place(value: Any) -> None:
    with pytest.raises(UnsupportedTypeError) as caught:
        encode_state({"a": {"b": [value]}})
    assert caught.value.path == "a.b[0]"


def test_dtype_that_this_version_cannot_name_is_refused() -> None:
    for scalar in ML_TYPES:
        if scalar.__name__ not in SIZES:
            with pytest.raises(UnsupportedTypeError):
                encode_state(np.zeros(2, scalar))


@pytest.mark.parametrize("name", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_generator_continues_and_spawns_as_it_would_have(name: str) -> None:
    bits = getattr(np.random, name)(np.random.SeedSequence([1, 2**70], spawn_key=(3, 2**40), pool_size=8))
    generator = np.random.Generator(bits)
    generator.integers(0, 5, 7, dtype=np.uint32)
    generator.spawn(2)
    loaded = round_trip(generator)
    assert_same(generator, loaded)
    assert generator.random(5).tolist() == loaded.random(5).tolist()
    assert generator.spawn(1)[0].random() == loaded.spawn(1)[0].random()


@pytest.mark.parametrize("entropy", [5, 2**200, [1, 2], (3, 4), np.array([1, 2], dtype=np.uint32)], ids=str)
def test_seed_sequence_keeps_its_entropy(entropy: Any) -> None:
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    assert_same(generator, round_trip(generator))


def test_legacy_generator_continues_where_it_was() -> None:
    generator = np.random.RandomState(5)
    generator.normal()
    loaded = round_trip(generator)
    assert_same(generator, loaded)
    assert generator.normal(size=3).tolist() == loaded.normal(size=3).tolist()


def test_generator_without_seed_sequence_comes_back() -> None:
    bits = np.random.MT19937()
    bits._legacy_seeding(5)  # type: ignore[attr-defined]
    assert_same(np.random.Generator(bits), round_trip(np.random.Generator(bits)))


def row(dtype: str, shape: tuple[int, ...], size: int) -> Any:
    return lambda number: [TensorMemory(dtype, shape, memoryview(bytearray(size)))][number]


@pytest.mark.parametrize(
    ("attributes", "rule"),
    [
        ({"strides": [1]}, "E028"),
        ({"strides": [3, 2]}, "E028"),
        ({"strides": [1, 1]}, "E028"),
        ({"strides": [2.0, 1]}, "E028"),
        ({"strides": [1, 2], "view": [0, "uint8", [1], [1]]}, "E027"),
        ({"grad": True}, "E027"),
        ({"view": 5}, "E027"),
        ({"view": [0, "uint8", [1]]}, "E027"),
        ({"view": [-1, "uint8", [1], [1]]}, "E028"),
        ({"view": [24, "uint8", [1], [1]]}, "E028"),
        ({"view": [0, "uint8", [25], [1]]}, "E028"),
        ({"view": [0, "uint8", [2], [24]]}, "E028"),
        ({"view": [0, "uint8", [2], [-1]]}, "E028"),
        ({"view": [0, "uint8", [2**47, 2**47], [0, 0]]}, "E028"),
        ({"view": [0, "uint8", [1], [2**70]]}, "E028"),
        ({"view": [0, "uint8", [-1], [1]]}, "E028"),
        ({"view": [True, "uint8", [1], [1]]}, "E028"),
        ({"view": [25, "uint8", [0], [1]]}, "E028"),
        ({"view": [0, "what", [1], [1]]}, "E042"),
        ({"view": [0, "bits8", [1], [1]]}, "E042"),
        ({"view": [0, "numpy:|O8", [1], [1]]}, "E042"),
        ({"view": [0, "numpy:{}", [1], [1]]}, "E042"),
    ],
    ids=str,
)
def test_attributes_out_of_range_are_refused_before_memory_is_touched(attributes: Any, rule: str) -> None:
    with pytest.raises(CorruptError) as caught:
        decode_state([{"$tensor": [0, "numpy", attributes]}], row("float32", (2, 3), 24))
    assert caught.value.rule == rule


def test_views_at_the_very_end_are_accepted() -> None:
    state = decode_state(
        [
            {"$tensor": [0, "numpy", {"view": view}]}
            for view in ([20, "float32", [1], [9]], [23, "uint8", [24], [-1]], [24, "uint8", [0], [1]])
        ],
        row("float32", (2, 3), 24),
    )
    assert [array.shape for array in state] == [(1,), (24,), (0,)]


@pytest.mark.parametrize(
    "text",
    [
        "numpy:<i3",
        "numpy:<f9",
        "numpy:|O",
        "numpy:",
        "numpy:f4",
        "numpy:<U999999999",
        'numpy:{"fields":[],"size":-1}',
        'numpy:{"fields":[["a","<i4",1]],"size":4}',
        'numpy:{"fields":[["a","<i4",-1]],"size":4}',
        'numpy:{"fields":[["a","|O8",0]],"size":8}',
        'numpy:{"fields":[["a","<i4",0],["a","<i4",0]],"size":4}',
        'numpy:{"fields":[["a","<i4",0,[1000000,1000000]]],"size":4}',
        'numpy:{"fields":[["a","<i4",0,[-1]]],"size":4}',
        'numpy:{"fields":[["a","<i4",0]],"size":4,"more":1}',
        'numpy:{"fields":[["a","<i4",true]],"size":8}',
        'numpy:{"fields":[["a","numpy:<i4",0]],"size":8}',
        "numpy:" + '{"fields":[["a",' * 40 + '"<i4"' + ',0]],"size":4}' * 40,
        "numpy:" + "[" * 100_000,
        "float33",
        "bits8",
    ],
    ids=lambda text: text[:40],
)
def test_element_types_outside_of_the_grammar_are_refused(text: str) -> None:
    with pytest.raises(CorruptError) as caught:
        decode_state({"$numpy_dtype": text}, row("uint8", (), 1))
    assert caught.value.rule == "E042"


def generator_tree(**changes: Any) -> Any:
    tree: dict[str, Any] = {"bit_generator": "MT19937", "state": {"key": {"$tensor": [0, "numpy", {}]}, "pos": 5}}
    tree["state"].update(changes)
    return {"$numpy_generator": ["MT19937", tree, None]}


def test_positions_beyond_the_words_of_a_generator_are_refused() -> None:
    decode_state(generator_tree(), row("uint32", (624,), 2496))
    for position in (625, -1, 2**31, True, 1.5, "x"):
        with pytest.raises(CorruptError):
            decode_state(generator_tree(pos=position), row("uint32", (624,), 2496))
    with pytest.raises(CorruptError):
        decode_state(generator_tree(), row("uint32", (623,), 2492))
    with pytest.raises(CorruptError):
        decode_state(generator_tree(key=[1] * 624), row("uint32", (624,), 2496))


def test_memory_of_another_size_is_refused() -> None:
    with pytest.raises(CorruptError) as caught:
        decode_state({"$tensor": [0, "numpy", {}]}, row("float32", (2, 3), 20))
    assert caught.value.rule == "E043"


def test_rows_that_are_not_there_are_refused_and_errors_of_reading_pass() -> None:
    for number in (1, -1, 2**70, True, 0.0, "0", None):
        with pytest.raises(CorruptError) as caught:
            decode_state({"$tensor": [number, "numpy", {}]}, row("uint8", (), 1))
        assert caught.value.rule == "E028"

    def damaged(number: int) -> TensorMemory:
        raise CheckpointError("disk")

    with pytest.raises(CheckpointError, match="disk"):
        decode_state({"$tensor": [0, "numpy", {}]}, damaged)
