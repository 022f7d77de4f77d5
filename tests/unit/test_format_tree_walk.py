"""Walking a packed tree without building its values: leaves, paths, tensors, parts. Spec 8."""

import pytest

from ckptfmt.errors import LimitError
from ckptfmt.format.tree_walk import ABSENT, children_of, find_tensor, iter_leaves, iter_tensors, key_text, prune, tag_of, tensor_ids

W = {"$tensor": [0, "torch", {}]}
B = {"$tensor": [1, "parameter", {"grad": False}]}

# One container of each kind: (packed, keys of its children).
CONTAINERS = [
    ([1, 2], ["0", "1"]),
    ({"a": 1, "b": 2}, ["a", "b"]),
    ({"$dict": ["a", 1, 2, 2]}, ["a", "2"]),
    ({"$odict": ["a", 1]}, ["a"]),
    ({"$counter": ["a", 1]}, ["a"]),
    ({"$state_dict": [["a", 1], {"": {"version": 1}}]}, ["a"]),
    ({"$defaultdict": ["int", ["a", 1]]}, ["a"]),
    ({"$tuple": [1, 2]}, ["0", "1"]),
    ({"$deque": [None, [1]]}, ["0"]),
    ({"$namespace": ["simple", {"lr": 1}]}, ["lr"]),
    ({"$registered": ["point", [1, 2]]}, ["0", "1"]),
    ({"$registered": ["outer", {"$registered": ["inner", {"x": 1}]}]}, ["x"]),
]
LEAVES = [
    *(None, 1, "text", b"bytes", [], {}, W),
    *({"$set": [1, 2]}, {"$int": b"\x01" + bytes(8)}, {"$unknown": [1, [2]]}, {"$registered": ["point", 1]}),
    {"$sparse": ["coo", [2], {"indices": W, "values": B}, {}]},
]
# What a reader must refuse, and a walk must not stumble over.
MALFORMED = [
    *({"$dict": None}, {"$dict": ["odd"]}, {"$tuple": {}}, {"$deque": [1]}, {"$deque": [None, 1]}, {"$state_dict": [1, 2]}),
    *({"$namespace": ["simple"]}, {"$registered": None}, {"$defaultdict": []}, {"$counter": "x"}),
]


@pytest.mark.parametrize(("node", "keys"), CONTAINERS, ids=lambda value: str(value)[:40])
def test_every_container_has_its_children(node, keys):
    assert [key for key, _ in children_of(node)] == keys
    assert [path for path, _ in iter_leaves(node)] == [(key,) for key in keys]


@pytest.mark.parametrize("node", [*LEAVES, *MALFORMED], ids=str)
def test_everything_else_is_one_leaf(node):
    assert list(iter_leaves(node)) == [((), node)]


@pytest.mark.parametrize(("node", "keys"), CONTAINERS, ids=lambda value: str(value)[:40])
def test_a_container_of_which_everything_is_wanted_stays_as_it_is(node, keys):
    assert prune(node, lambda path: path in keys) == node


def test_leaves_come_in_the_order_of_the_state():
    tree = {"b": [1, {"x": W}], "a": {"$tuple": [{"$odict": ["k", B]}]}}
    assert [".".join(path) for path, _ in iter_leaves(tree)] == ["b.0", "b.1.x", "a.0.k"]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("a", "a"),
        (1, "1"),
        (None, "None"),
        (True, "True"),
        (1.5, "1.5"),
        (b"b\xff", "b\ufffd"),
        ({"$tuple": [1, "a", {"$tuple": []}]}, "(1, a, ())"),
        ({"$int": (2**64).to_bytes(9, "big")}, str(2**64)),
        ({"$int": bytes(2000)}, "int"),
        ({"$uuid": b"x"}, "b'x'"),
        ({"$tuple": 1}, "1"),
        ({"$int": "x"}, "x"),
    ],
)
def test_every_key_has_a_text(key, text):
    assert key_text(key) == text


def test_keys_inside_each_other_without_end_still_have_a_text():
    key = 1
    for _ in range(500):
        key = {"$tuple": [key]}
    assert key_text(key).startswith("((((")
    assert key_text({"$frozenset": [key]}) == "..."


def test_only_a_lone_key_with_a_dollar_is_a_tag():
    assert tag_of({"$tuple": []}) == "$tuple"
    assert tag_of({"$tuple": [], "a": 1}) is None
    assert tag_of({"a": 1}) is tag_of({}) is tag_of([]) is tag_of("$tuple") is None


def test_the_tensors_of_a_leaf_are_found_in_order():
    assert tensor_ids(W) == [0]
    assert tensor_ids(LEAVES[-1]) == [0, 1]
    assert tensor_ids({"$torch_generator": ["cpu", None, B]}) == [1]
    assert tensor_ids([W, {"a": W, "b": B}]) == [0, 0, 1]


@pytest.mark.parametrize(
    "node", [1, {"$tensor": []}, {"$tensor": None}, {"$tensor": ["x"]}, {"$tensor": [True]}, {"a": {"$tensor": "x"}}], ids=str
)
def test_malformed_references_are_no_tensors(node):
    assert tensor_ids(node) == []


TREE = {
    "model": {"w": W, "b": B},
    "optimizer": {"state": {"$dict": [0, {"step": 1, "avg": W}, 1, {"step": 2, "avg": B}]}},
    "history": [1, 2, {"$tuple": [3, W]}],
}


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ("model", {"model": TREE["model"]}),
        ("model.b", {"model": {"b": B}}),
        ("optimizer.state.1.avg", {"optimizer": {"state": {"$dict": [1, {"avg": B}]}}}),
        ("history.2.1", {"history": [None, None, {"$tuple": [None, W]}]}),
        ("history.0", {"history": [1, None, None]}),
        ("nothing", ABSENT),
        ("", ABSENT),
    ],
)
def test_pruning_leaves_what_is_wanted_at_its_place(wanted, left):
    assert prune(TREE, lambda path: path == wanted) == left


def test_pruning_a_leaf_or_nothing_is_absent():
    assert prune(W, lambda path: True) is ABSENT
    assert prune({}, lambda path: True) is ABSENT
    assert prune({"a": {}}, lambda path: False) is ABSENT


def test_a_mapping_does_not_become_a_tag_when_its_other_members_go():
    assert prune({"$tuple": 1, "b": 2}, lambda path: path == "$tuple") == {"$dict": ["$tuple", 1]}


@pytest.mark.parametrize(
    "wrap", [lambda node: [node], lambda node: {"a": node}, lambda node: {"$registered": ["r", node]}], ids=["list", "map", "registered"]
)
def test_no_tree_is_walked_deeper_than_the_format_allows(wrap):
    node = [1]
    for _ in range(255):
        node = wrap(node)
    assert [leaf for _, leaf in iter_leaves(node)] == [1]
    assert prune(node, lambda path: path.endswith(("0", "a"))) is not ABSENT
    for walk in (lambda node: list(iter_leaves(node)), lambda node: prune(node, lambda path: False)):
        with pytest.raises(LimitError, match="E026"):
            walk(wrap(node))


def test_tensors_are_found_with_their_paths():
    found = [(".".join(path), node) for path, node in iter_tensors(TREE)]
    assert [path for path, _ in found] == ["model.w", "model.b", "optimizer.state.0.avg", "optimizer.state.1.avg", "history.2.1"]
    assert found == [(".".join(path), node) for path, node in iter_leaves(TREE) if node in (W, B)]
    assert [path for path, _ in iter_tensors({"s": [LEAVES[-1], 1]})] == [("s", "0")]
    assert list(iter_tensors(W)) == [((), W)]


def test_a_path_stands_for_everything_below_it():
    assert prune(TREE, lambda path: path.startswith("history.2")) == {"history": [None, None, {"$tuple": [3, W]}]}


AWKWARD = {
    "a": {"b": W, "b.c": B, "": {"": W}},
    "a.b": {"c": W},
    "": B,
    "1": {"$dict": [1, W, "1", B, 2.5, {"x": W}]},
    "list": [[W, B], {"$tuple": [{"$deque": [None, [W]]}]}],
    "s": LEAVES[-1],
    "empty": {},
    "$x": {"$dict": ["$y", B]},
    "plain": 1,
    "01": {"01": W, "1": [B]},
}


@pytest.mark.parametrize("tree", [TREE, AWKWARD, W, [W, [B]], {}, 1, *MALFORMED], ids=lambda value: str(value)[:30])
def test_one_tensor_is_found_by_its_path_as_in_the_list_of_all(tree):
    first = {}
    for path, node in iter_tensors(tree):
        first.setdefault(".".join(path), node)
    for path, node in first.items():
        assert find_tensor(tree, path) is node
    for path in [
        "nothing",
        "a",
        "a.",
        "list.2",
        "list.00.0",
        "list.-1",
        "list.\u0660",
        "list.1" + 50 * "0",
        "plain",
        "empty",
        "",
        ".",
        "model",
    ]:
        if path not in first:
            assert find_tensor(tree, path) is ABSENT


def test_a_tensor_is_not_looked_for_deeper_than_the_format_allows():
    node = W
    for _ in range(256):
        node = [node]
    assert find_tensor(node, ".".join(["0"] * 256)) is W
    with pytest.raises(LimitError, match="E026"):
        find_tensor([node], ".".join(["0"] * 257))
