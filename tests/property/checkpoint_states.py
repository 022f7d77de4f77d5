"""States for tests of whole checkpoints: plain values, arrays and tensors of many types, tied, viewed and strided, in any nesting."""

from collections import OrderedDict
from datetime import date, timedelta
from pathlib import PurePosixPath

import numpy as np
import torch
from hypothesis import strategies as st

TORCH_TYPES = [
    *(
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.complex64,
        torch.complex128,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
    ),
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint64, torch.bool),
]
NUMPY_TYPES = ["<f4", ">f4", "<f8", "<f2", "<i8", ">i2", "|u1", "|b1", "<c16", "<U3", "|S5", "<M8[s]", "<m8[ms]", "|V3"]

SHAPES = st.lists(st.integers(1, 4), max_size=3) | st.lists(st.integers(0, 4), max_size=3)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
KEYS = st.one_of(TEXTS, st.integers(-3, 3), st.booleans(), st.none(), st.binary(max_size=2), st.tuples(st.integers(0, 2), TEXTS))
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    TEXTS,
    st.binary(max_size=6),
    st.complex_numbers(),
    st.sets(st.integers(0, 9) | TEXTS, max_size=4),
    st.frozensets(st.integers(0, 9), max_size=3),
    st.sampled_from(
        [date(2026, 1, 2), timedelta(1, 2, 3), PurePosixPath("a/b"), torch.float32, torch.Size([2, 3]), np.float32(1.5), range(3)]
    ),
)


@st.composite
def torch_tensors(draw):
    """A tensor of any type and strides."""
    dtype = draw(st.sampled_from(TORCH_TYPES))
    shape = draw(SHAPES)
    size = torch.Size(shape).numel() * torch.empty(0, dtype=dtype).element_size()
    data = bytearray(draw(st.binary(min_size=size, max_size=size)))
    if dtype is torch.bool:
        data = bytearray(byte % 2 for byte in data)
    tensor = torch.frombuffer(data, dtype=dtype).view(shape) if size else torch.empty(shape, dtype=dtype)
    for axis, length in enumerate(shape):
        if length > 1 and draw(st.booleans()):
            tensor = tensor.narrow(axis, 0, draw(st.integers(1, length)))
    tensor = tensor.permute(draw(st.permutations(range(tensor.dim()))))
    return torch.nn.Parameter(tensor, requires_grad=dtype.is_floating_point) if draw(st.booleans()) else tensor


@st.composite
def numpy_arrays(draw):
    """An array of any type and strides."""
    dtype = np.dtype(draw(st.sampled_from(NUMPY_TYPES)))
    shape = tuple(draw(SHAPES))
    array = np.zeros(shape, dtype)
    if dtype.kind in "iufcbSV" and array.size:
        flat = array.reshape(-1).view(np.uint8)
        flat[:] = np.frombuffer(draw(st.binary(min_size=flat.size, max_size=flat.size)), np.uint8) % (2 if dtype.kind == "b" else 128)
    if array.ndim:
        array = array[tuple(slice(None, None, draw(st.sampled_from([1, -1, 2]))) for _ in shape)]
        array = array.transpose(draw(st.permutations(range(array.ndim))))
    return array


VIEWS = [
    lambda tensor: tensor[1:],
    lambda tensor: tensor[:-1],
    lambda tensor: tensor[..., :1],
    lambda tensor: tensor.reshape(-1),
    lambda tensor: tensor[None],
    lambda tensor: tensor[0],
    lambda tensor: tensor.T if tensor.ndim == 2 else tensor[...],
    lambda tensor: tensor[::2],
]


@st.composite
def tensor_pools(draw):
    """Some tensors, among them views of each other; using one several times in a state ties it."""
    pool = draw(st.lists(torch_tensors() | numpy_arrays(), min_size=1, max_size=4))
    for view in draw(st.lists(st.sampled_from(VIEWS), max_size=3)):
        tensor = draw(st.sampled_from(pool))
        if tensor.ndim and tensor.shape[0] > 1:
            pool.append(view(tensor.detach() if isinstance(tensor, torch.Tensor) else tensor))
    return pool


@st.composite
def states(draw):
    """A state over a pool of tensors: most have sections as training has, some are anything at all."""
    pool = draw(tensor_pools())
    of_pool = st.integers(0, len(pool) - 1).map(pool.__getitem__)

    def containers(inner):
        lists = st.lists(inner, max_size=4)
        mappings = st.dictionaries(KEYS, inner, max_size=4)
        return st.one_of(lists, lists.map(tuple), mappings, mappings.map(OrderedDict), st.dictionaries(TEXTS, inner, max_size=4))

    anything = st.recursive(PLAIN | of_pool, containers, max_leaves=8)
    if draw(st.integers(0, 3)) == 3:
        return draw(anything)
    named = st.dictionaries(TEXTS, of_pool, min_size=1, max_size=5)
    others = {"optimizer": st.dictionaries(st.integers(0, 3), named, min_size=1, max_size=2), "extra": anything}
    return draw(st.fixed_dictionaries({"model": named}, optional={**others, "epoch": PLAIN}))


def changed(draw, value):
    """A copy of a state in which some tensors and values are others; what is kept is the same object."""
    if isinstance(value, dict):
        return type(value)((key, changed(draw, item)) for key, item in value.items() if draw(st.integers(0, 5)))
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(changed(draw, item) for item in value)
    return draw(PLAIN | torch_tensors()) if not draw(st.integers(0, 3)) else value
