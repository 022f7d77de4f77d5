"""Pytrees of JAX as plain data: custom nodes by their paths, and how arrays were sharded, as names.

ckptfmt saves arrays of JAX in nested dicts, lists and tuples as they are. This is for what else a pytree is made of (flax modules,
optax states, dataclasses), and for arrays over several devices: a sharding is kept as the axes of its mesh and its partition spec, both
names, and is made again on whatever mesh with such axes is given when loading. Nothing of a mesh's devices is stored.

Source: https://docs.jax.dev/en/latest/pytrees.html and https://docs.jax.dev/en/latest/sharded-computation.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptfmt.errors import NameNotFoundError, UnsupportedTypeError


def tree_state(tree: Any) -> dict[str, Any]:
    """Return a pytree as a part of a state: its leaves by path, and the shardings of those that have a named one."""
    import jax

    leaves, shardings = {}, {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path)
        leaves[name] = leaf
        if isinstance(leaf, jax.Array) and isinstance(leaf.sharding, jax.sharding.NamedSharding):
            shardings[name] = {"mesh": dict(leaf.sharding.mesh.shape), "spec": [_axes(axis) for axis in leaf.sharding.spec]}
    return {"leaves": leaves, "shardings": shardings}


def tree_from_state(state: Mapping[str, Any], template: Any, *, mesh: Any = None) -> Any:
    """Rebuild a pytree of the structure of `template`, whose leaves are not looked at.

    With `mesh` arrays that were sharded are put on it in the same way; without, they lie on the default device.

    Raises:
        NameNotFoundError: the structures differ; a leaf of the template is not in the state.
        UnsupportedTypeError: the mesh lacks an axis that a sharding names.
    """
    import jax

    paths, structure = jax.tree_util.tree_flatten_with_path(template)
    names = [jax.tree_util.keystr(path) for path, _ in paths]
    leaves: Mapping[str, Any] = state["leaves"]
    missing = [name for name in names if name not in leaves]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise NameNotFoundError(f"the state has no leaf {missing[0]}{more}: expected the structure that was saved", name=missing[0])
    unused = sorted(leaves.keys() - set(names))
    if unused:
        raise NameNotFoundError(f"the template has no leaf {unused[0]}: expected the structure that was saved", name=unused[0])
    placed = [leaves[name] if mesh is None else _placed(name, leaves[name], state["shardings"].get(name), mesh) for name in names]
    return jax.tree_util.tree_unflatten(structure, placed)


def _axes(axis: Any) -> Any:
    return list(axis) if isinstance(axis, tuple) else axis


def _placed(name: str, leaf: Any, sharding: Mapping[str, Any] | None, mesh: Any) -> Any:
    import jax

    if sharding is None:
        return leaf
    expected, found = sharding["mesh"], dict(mesh.shape)
    used = {axis for axes in sharding["spec"] for axis in (axes if isinstance(axes, list) else [axes]) if axis is not None}
    wrong = sorted(axis for axis in used if axis not in found)
    if wrong:
        raise UnsupportedTypeError(
            f"{name}: is sharded over axis {wrong[0]!r}: expected a mesh with axes {expected}, found {found}\n"
            "Give a mesh with axes of these names; their sizes may differ.",
            path=name,
        )
    make_spec: Any = jax.sharding.PartitionSpec
    spec = make_spec(*(tuple(axes) if isinstance(axes, list) else axes for axes in sharding["spec"]))
    return jax.device_put(leaf, jax.sharding.NamedSharding(mesh, spec))
