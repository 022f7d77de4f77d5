"""Pytrees of JAX with nodes of their own, and shardings as names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import ckptfmt
from ckptfmt.adapters.jax_trees import tree_from_state, tree_state


class Moments(NamedTuple):
    first: Any
    second: Any


@jax.tree_util.register_dataclass
@dataclass
class Layer:
    weight: Any
    bias: Any


def tree() -> Any:
    return {"layers": [Layer(jnp.ones((2, 3)), jnp.zeros(3, jnp.bfloat16))], "moments": Moments(jnp.arange(4), jnp.float32(2)), "step": 3}


def test_a_pytree_with_nodes_of_its_own_comes_back_equal(tmp_path: Path) -> None:
    original = tree()
    ckptfmt.save(tmp_path / "c", {"params": tree_state(original)})
    found = tree_from_state(ckptfmt.load(tmp_path / "c")["params"], tree())
    assert jax.tree_util.tree_structure(found) == jax.tree_util.tree_structure(original)
    assert type(found["moments"]) is Moments
    for one, two in zip(jax.tree_util.tree_leaves(original), jax.tree_util.tree_leaves(found), strict=True):
        assert jnp.array_equal(one, two)
        assert jnp.asarray(one).dtype == jnp.asarray(two).dtype


def test_another_structure_is_refused_with_the_leaf_that_differs() -> None:
    state = tree_state(tree())
    with pytest.raises(ckptfmt.NameNotFoundError, match=r"the state has no leaf \['extra'\]"):
        tree_from_state(state, {**tree(), "extra": 1})
    smaller = tree()
    del smaller["step"]
    with pytest.raises(ckptfmt.NameNotFoundError, match=r"the template has no leaf \['step'\]"):
        tree_from_state(state, smaller)


def test_shardings_are_kept_as_names_and_made_again_on_a_given_mesh(tmp_path: Path) -> None:
    mesh = jax.make_mesh((1, 1), ("data", "model"))
    spec = jax.sharding.PartitionSpec(("data", "model"), None)
    original = {"w": jax.device_put(jnp.arange(8.0).reshape(4, 2), jax.sharding.NamedSharding(mesh, spec)), "b": jnp.ones(2)}
    ckptfmt.save(tmp_path / "c", tree_state(original))
    state = ckptfmt.load(tmp_path / "c")
    assert state["shardings"] == {"['w']": {"mesh": {"data": 1, "model": 1}, "spec": [["data", "model"], None]}}
    found = tree_from_state(state, original, mesh=mesh)
    assert found["w"].sharding == original["w"].sharding
    assert jnp.array_equal(found["w"], original["w"])
    with pytest.raises(ckptfmt.UnsupportedTypeError, match="is sharded over axis 'data': expected a mesh with axes"):
        tree_from_state(state, original, mesh=jax.make_mesh((1,), ("model",)))
