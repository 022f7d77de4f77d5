"""Arrays and typed random keys of JAX, through arrays of numpy on the host. Spec 9.1 and 8, `$jax_key`.

Arrays are immutable, so only references to the same object are tied. An array on the processor lends its memory; from other
devices, or from several, it is brought over in pieces. Element types of 64 bits come back as they were, whatever
`jax_enable_x64` says. Placement on devices is not kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ckptfmt.state.decode_walk import DecodeWalk, Later, check_items, check_kind
from ckptfmt.state.encode_leaves import TensorLeaf
from ckptfmt.state.encode_walk import EncodeWalk
from ckptfmt.state.numpy_arrays import array_bytes, decode_array
from ckptfmt.state.numpy_dtypes import element_type
from ckptfmt.state.places import Place, refuse, wrong
from ckptfmt.state.row_memory import Row
from ckptfmt.state.tensors import LiveTensor, plan_pieces, row_major_strides

if TYPE_CHECKING:
    import jax

KEY_TYPES = ("threefry2x32", "rbg", "unsafe_rbg")


def require_jax(place: Place) -> Any:
    """Return the jax module; refuse to rebuild its values where it is not installed."""
    try:
        import jax
    except ImportError:
        raise refuse(place, "this value needs jax, which is not installed", "Install it with: pip install jax") from None
    return jax


class JaxSource(LiveTensor):
    """An array of JAX."""

    __slots__ = ("_array", "_is_direct")

    def __init__(self, dtype: str, array: jax.Array, *, is_direct: bool) -> None:
        super().__init__(dtype, tuple(array.shape), array.nbytes)
        self._array = array
        self._is_direct = is_direct

    def memory(self) -> memoryview | None:
        import numpy

        if not self._is_direct:
            return None
        host = numpy.asarray(self._array)
        return array_bytes(host) if host.flags.c_contiguous else None

    def pieces(self, block_bytes: int) -> Iterator[memoryview]:
        import numpy

        for index in plan_pieces(self.shape, self._array.dtype.itemsize, block_bytes):
            yield array_bytes(numpy.ascontiguousarray(self._array[(*index, ...)]))


def is_array(value: Any) -> bool:
    """Tell whether a value is an array of JAX, of any of its classes."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.Array)


def encode_array(walk: EncodeWalk, array: jax.Array, place: Place) -> dict[str, Any]:
    """Encode a reference to an array, or a typed random key."""
    jax = sys.modules["jax"]
    if place.is_key:
        raise refuse(place, "an array cannot be a key or an element of a set", "Use a tuple of numbers instead.")
    if isinstance(array, jax.core.Tracer):
        raise refuse(place, "an array inside a transform (jit, grad, vmap) has no data", "Save outside of the transform.")
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return _encode_key(walk, array, place)
    if array.is_deleted():
        raise refuse(place, "this array was deleted or donated", "Save it before it is donated.")
    if not array.is_fully_addressable:
        advice = "Gather it first, with jax.experimental.multihost_utils.process_allgather."
        raise refuse(place, "parts of this array are in other processes", advice)
    name = element_type(array.dtype, place)
    devices = list(array.devices())
    is_direct = len(devices) == 1 and devices[0].platform == "cpu"
    shape = tuple(array.shape)
    reference = [-1, "jax", {}]
    source = JaxSource(name, array, is_direct=is_direct)
    strides = row_major_strides(shape)
    walk.leaves.append(TensorLeaf(("jax", id(array)), 0, 0, 0, name, shape, strides, True, 0, 1, reference, source, place, array))
    return {"$tensor": reference}


def decode_jax_array(walk: DecodeWalk, row: Row, kind: str, attributes: dict[str, Any], place: Place) -> Any:
    """Rebuild an array; it takes the memory of the row where JAX can use that."""
    jax = require_jax(place)
    if attributes:
        raise wrong(place, "attributes are wrong", expected="none", found=attributes)
    if row.built is None:
        row.built = {}
    if "jax" not in row.built:
        host = decode_array(walk, row, kind, {}, place)
        try:
            with _wide_types(jax):
                array = jax.device_put(host)
        except (TypeError, ValueError, RuntimeError) as error:
            raise refuse(place, f"the installed jax has no array of {row.dtype}: {str(error)[:200]}", "Update jax.") from None
        if array.dtype != host.dtype or array.shape != host.shape:
            raise refuse(place, f"the installed jax makes {array.dtype} of {row.dtype}", "Update jax.")
        row.built["jax"] = array
    return row.built["jax"]


def _wide_types(jax: Any) -> Any:
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax import experimental

    return getattr(experimental, "enable_x64")(True)  # noqa: B009  Newer releases do not declare it.


def _encode_key(walk: EncodeWalk, keys: jax.Array, place: Place) -> dict[str, Any]:
    jax = sys.modules["jax"]
    name = str(jax.random.key_impl(keys))
    if name not in KEY_TYPES:
        raise refuse(place, f"random keys of type {name[:60]} cannot be stored", "Store jax.random.key_data(key).")
    return {"$jax_key": walk.content(jax.random.key_data(keys), place, name)}


def decode_key(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild typed random keys."""
    jax = require_jax(place)
    name, node = check_items(payload, 2, place)
    if check_kind(name, str, place) not in KEY_TYPES:
        raise wrong(place, "type of a random key is wrong", expected=", ".join(KEY_TYPES), found=name)

    def build(members: list[Any]) -> Any:
        if not is_array(members[0]) or str(members[0].dtype) != "uint32":
            raise wrong(place, "data of a random key is wrong", expected="an array of uint32")
        try:
            return jax.random.wrap_key_data(members[0], impl=name)
        except (TypeError, ValueError, RuntimeError) as error:
            raise wrong(place, f"data of a random key is wrong: {str(error)[:200]}") from None

    return Later(walk.content(node, place), build)
