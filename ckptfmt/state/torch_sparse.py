"""Sparse tensors of torch, as their dense parts. Spec 8, `$sparse`.

The attributes are `grad` (true where gradients are required) and, for layout coo, `coalesced`. When a sparse tensor is
rebuilt, torch checks its invariants: indices in range, sorted where the layout or the flag says so.
"""

from __future__ import annotations

import sys
import warnings
from math import prod
from typing import TYPE_CHECKING, Any

from ckptfmt.format.layout import is_shape
from ckptfmt.state.decode_walk import DecodeWalk, Later, check_items, check_kind
from ckptfmt.state.encode_walk import EncodeWalk
from ckptfmt.state.places import Place, refuse, wrong
from ckptfmt.state.torch_tensors import encode_tensor, require_torch

if TYPE_CHECKING:
    import torch

_PARTS = {
    "coo": ("indices", "values"),
    "csr": ("crow_indices", "col_indices", "values"),
    "bsr": ("crow_indices", "col_indices", "values"),
    "csc": ("ccol_indices", "row_indices", "values"),
    "bsc": ("ccol_indices", "row_indices", "values"),
}


def encode_any_tensor(walk: EncodeWalk, tensor: torch.Tensor, place: Place) -> dict[str, Any]:
    """Encode a tensor or Parameter of any layout that can be stored."""
    torch = sys.modules["torch"]
    if place.is_key:
        raise refuse(place, "a tensor cannot be a key or an element of a set", "Use its name or position instead.")
    try:
        if tensor.layout is torch.strided:
            return encode_tensor(walk, tensor, place)
        layout = str(tensor.layout).removeprefix("torch.sparse_")
        if layout not in _PARTS:
            raise refuse(place, f"a tensor of layout {tensor.layout} cannot be stored", "Convert it to a dense or sparse tensor first.")
        if type(tensor) is not torch.Tensor:
            raise refuse(place, "a sparse Parameter cannot be stored", "Store its data, and make it a Parameter after loading.")
        return {"$sparse": _encode_sparse(walk, tensor, layout, place)}
    except RuntimeError as error:
        raise refuse(place, f"torch does not give this tensor's data: {error}", "Save a plain tensor that holds the data.") from error


def _encode_sparse(walk: EncodeWalk, tensor: torch.Tensor, layout: str, place: Place) -> list[Any]:
    plain = tensor.detach()
    attributes: dict[str, Any] = {}
    if tensor.requires_grad:
        attributes["grad"] = True
    if layout == "coo":
        attributes["coalesced"] = plain.is_coalesced()
        parts = {"indices": plain._indices(), "values": plain._values()}
    else:
        parts = {name: getattr(plain, name)() for name in _PARTS[layout]}
    return [layout, list(tensor.shape), walk.members(parts, place), attributes]


def decode_sparse(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild a sparse tensor on its parts."""
    layout, shape, parts, attributes = check_items(payload, 4, place)
    torch = require_torch(place)
    if place.is_key:
        raise wrong(place, "a tensor is a key or an element of a set")
    if type(layout) is not str or layout not in _PARTS:
        raise wrong(place, "layout is wrong", expected=", ".join(_PARTS), found=layout)
    if not is_shape(shape) or prod(shape) >= 2**63:
        raise wrong(place, "shape is wrong", found=shape)
    known = {"grad", "coalesced"} if layout == "coo" else {"grad"}
    if type(attributes) is not dict or not attributes.keys() <= known or not all(type(flag) is bool for flag in attributes.values()):
        raise wrong(place, "attributes are wrong", expected="flags " + ", ".join(sorted(known)))
    if tuple(check_kind(parts, dict, place)) != _PARTS[layout]:
        raise wrong(place, "parts are wrong", expected=", ".join(_PARTS[layout]))
    members = walk.members(parts, place)

    def build(_: list[Any]) -> Any:
        tensors = [members[name] for name in _PARTS[layout]]
        if any(type(tensor) is not torch.Tensor for tensor in tensors):
            raise wrong(place, "parts are wrong", expected="dense tensors")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse .* tensor support is in beta", category=UserWarning)
                tensor = _build_sparse(torch, layout, shape, tensors, is_coalesced=attributes.get("coalesced"))
                return tensor.requires_grad_(True) if attributes.get("grad") else tensor
        except RuntimeError as error:
            raise wrong(place, f"parts do not make a sparse tensor: {error}", rule="E028") from None

    return Later([], build)


def _build_sparse(torch: Any, layout: str, shape: list[int], tensors: list[Any], *, is_coalesced: bool | None) -> Any:
    if layout == "coo":
        return torch.sparse_coo_tensor(*tensors, shape, is_coalesced=is_coalesced or None, check_invariants=True)
    return torch.sparse_compressed_tensor(*tensors, shape, layout=getattr(torch, f"sparse_{layout}"), check_invariants=True)
