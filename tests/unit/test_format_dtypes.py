"""Element types: sizes, and how each is stored. Spec 9.2."""

import pytest

from ckptfmt.format import dtypes


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("bool", 1),
        ("float32", 4),
        ("complex128", 16),
        ("uint7", 1),
        ("numpy:>f4", 4),
        ("numpy:<U5", 20),
        ("numpy:|S0", 0),
        ("numpy:<M8[25s]", 8),
        ("numpy:<f16", 16),
        ('numpy:{"fields":[],"size":12}', 12),
    ],
)
def test_the_size_of_an_element_follows_from_its_type(dtype, size):
    assert dtypes.itemsize_bytes(dtype) == size


@pytest.mark.parametrize(
    "dtype",
    [
        "",
        "F32",
        "Float32",
        "float32 ",
        "int8\n",
        "numpy:",
        "numpy:float32",
        "numpy:=f4",
        "numpy:|O8",
        "numpy:<f",
        "numpy:<f4\n",
        "numpy:<U9999999999",
        "numpy:<U999999999",
        "numpy:{}",
        "numpy:[]",
        "numpy:1",
        'numpy:"size"',
        'numpy:{"size":-1}',
        'numpy:{"size":1.0}',
        'numpy:{"size":true}',
        'numpy:{"size":2147483648}',
        'numpy:{"size":' + "9" * 5000 + "}",
        "numpy:" + "[" * 100_000,
        "numpy:" + " " * 2**20 + '{"size":1}',
    ],
    ids=lambda dtype: dtype[:30],
)
def test_what_is_not_in_the_table_is_no_type(dtype):
    with pytest.raises(KeyError):
        dtypes.itemsize_bytes(dtype)


def test_native_types_keep_their_shape_and_others_are_bytes():
    assert dtypes.stored_form("bfloat16", (2, 3), 12) == ("BF16", (2, 3))
    assert dtypes.stored_form("complex128", (2,), 32) == ("U8", (32,))
    assert dtypes.stored_form("numpy:<U1", (), 4) == ("U8", (4,))


@pytest.mark.parametrize(
    ("dtype", "alignment"), [("uint8", 1), ("float64", 8), ("complex128", 16), ("numpy:|V6", 2), ("numpy:|S64", 16), ("numpy:|S0", 1)]
)
def test_alignment_is_the_power_of_two_in_the_size(dtype, alignment):
    assert dtypes.alignment_bytes(dtype) == alignment


def test_names_and_stored_names_are_distinct():
    assert len(dtypes.STORED_SIZES) == len(dtypes.NATIVE)
    assert not dtypes.NATIVE.keys() & dtypes.RAW_SIZES.keys()
    assert dtypes.SIZES.keys() == dtypes.NATIVE.keys() | dtypes.RAW_SIZES.keys()
