"""References to rows of the tensor index: kinds, attributes, views. Spec 9.1."""

import pytest

from ckptfmt.errors import FormatError
from ckptfmt.format.metadata import Chunk, TensorRow
from ckptfmt.format.references import KINDS, check_references

ROWS = [
    TensorRow("matrix", "float32", (2, 3), 24, (Chunk(0, 0, (0, 0), (2, 3)),)),
    TensorRow("empty", "float32", (0, 3), 0, ()),
    TensorRow("text", "numpy:|S0", (2,), 0, (Chunk(0, 1, (0,), (2,)),)),
]


def check(*payloads):
    check_references({"a": [{"$tensor": payload} for payload in payloads]}, ROWS, where="m")


def rule_of(*payloads):
    with pytest.raises(FormatError) as caught:
        check(*payloads)
    return caught.value.rule


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_without_attributes_is_sound(kind):
    check([0, kind, {}], [1, kind, {}], [0, kind, {}])


@pytest.mark.parametrize(
    "payload",
    [None, [], [0, "torch"], [0, "torch", {}, 1], [0, "tensorflow", {}], [0, None, {}], [0, "torch", None], [0, "torch", []], {"0": 1}],
    ids=str,
)
def test_a_malformed_reference_is_refused(payload):
    assert rule_of(payload) == "E027"


@pytest.mark.parametrize("number", [-1, 3, "0", None, True, 0.0])
def test_a_reference_names_a_row_that_is_there(number):
    assert rule_of([number, "torch", {}]) == "E028"


@pytest.mark.parametrize(("kind", "grad"), [("torch", True), ("buffer", True), ("parameter", False)])
def test_gradients_are_named_where_they_are_not_the_default(kind, grad):
    check([0, kind, {"grad": grad}])
    assert rule_of([0, kind, {"grad": not grad}]) == "E027"
    assert rule_of([0, kind, {"grad": 1}]) == "E027"


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("numpy", {"grad": True}),
        ("jax", {"grad": True}),
        ("jax", {"strides": [1, 2]}),
        ("jax", {"view": [0, "float32", [1], [1]]}),
        ("torch", {"hook": 1}),
        ("torch", {"strides": [1, 2], "view": [0, "float32", [1], [1]]}),
        ("torch", {"view": [0, "float32", [1]]}),
        ("torch", {"view": None}),
        ("torch", {"view": [0, 1, [1], [1]]}),
    ],
    ids=str,
)
def test_other_attributes_are_refused(kind, attributes):
    assert rule_of([0, kind, attributes]) == "E027"


@pytest.mark.parametrize(("row", "strides"), [(0, [1, 2]), (0, [3, 1]), (1, [3, 1])])
def test_strides_are_those_of_an_order_of_the_dimensions(row, strides):
    check([row, "torch", {"strides": strides}], [row, "numpy", {"strides": strides}])


@pytest.mark.parametrize("strides", [[1, 3], [6, 1], [1], [], None, "12", [1.0, 2], [True, 2], [-1, 2], [0, 0], [2**48, 1]], ids=str)
def test_other_strides_are_refused(strides):
    assert rule_of([0, "torch", {"strides": strides}]) == "E028"


def test_references_to_one_row_agree_about_its_order():
    order = {"strides": [1, 2]}
    assert rule_of([0, "torch", order], [0, "torch", {}]) == "E028"
    assert rule_of([0, "torch", {}], [0, "numpy", order]) == "E028"
    assert rule_of([0, "torch", order], [0, "torch", {"view": [0, "float32", [1], [1]]}]) == "E028"
    check([0, "torch", {}], [0, "torch", {"view": [0, "float32", [1], [1]]}])


@pytest.mark.parametrize(
    ("kind", "view"),
    [
        ("torch", [0, "float32", [6], [1]]),
        ("torch", [20, "float32", [], []]),
        ("torch", [0, "float32", [1000], [0]]),
        ("torch", [0, "uint8", [24], [1]]),
        ("torch", [0, "float64", [3], [1]]),
        ("torch", [24, "float32", [0], [1]]),
        ("torch", [24, "float32", [0, 7], [5, 1]]),
        ("numpy", [20, "float32", [6], [-1]]),
        ("numpy", [1, "float32", [5], [1]]),
        ("numpy", [5, "numpy:|S0", [3], [1]]),
        ("parameter", [0, "float32", [2, 2], [3, 1]]),
    ],
    ids=str,
)
def test_a_view_inside_its_tensor_is_sound(kind, view):
    check([0, kind, {"view": view}])


@pytest.mark.parametrize(
    ("kind", "view", "rule"),
    [
        ("torch", [4, "float32", [6], [1]], "E028"),
        ("torch", [24, "float32", [], []], "E028"),
        ("torch", [-4, "float32", [1], [1]], "E028"),
        ("torch", [28, "float32", [0], [1]], "E028"),
        ("torch", [0, "float32", [2], [6]], "E028"),
        ("torch", [0, "float32", [2**47, 2], [2**47, 1]], "E028"),
        ("torch", [2, "float32", [1], [1]], "E028"),
        ("torch", [20, "float32", [2], [-1]], "E028"),
        ("numpy", [16, "float32", [6], [-1]], "E028"),
        ("numpy", [0, "float32", [2], [2**48]], "E028"),
        ("numpy", [0, "float32", [2, 1], [1]], "E028"),
        ("numpy", ["0", "float32", [1], [1]], "E028"),
        ("numpy", [0, "float32", [-1], [1]], "E028"),
        ("numpy", [0, "float32", [1], None], "E028"),
        ("torch", [0, "float33", [1], [1]], "E042"),
    ],
    ids=str,
)
def test_any_other_view_is_refused(kind, view, rule):
    assert rule_of([0, kind, {"view": view}]) == rule


def test_references_are_found_wherever_they_stand():
    bad = {"$tensor": [9, "torch", {}]}
    trees = [bad, [bad], {"$sparse": ["coo", [1], {"indices": bad}, {}]}, {"$registered": ["r", {"x": bad}]}, {"$dict": ["k", bad]}]
    for tree in trees:
        with pytest.raises(FormatError, match="E028"):
            check_references(tree, ROWS, where="m")
    check_references({"$tensor": [9, "torch", {}], "other": 1}, ROWS, where="m")


def test_the_tensor_is_named():
    with pytest.raises(FormatError) as caught:
        check([0, "torch", {"strides": []}])
    assert caught.value.tensor == "matrix"
