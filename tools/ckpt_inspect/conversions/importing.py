"""From foreign files to a checkpoint: which kind it is, and what becomes of it. Nothing of a foreign file is run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ckpt_inspect.conversions.wanted import Conversion, Written, refuse_existing
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.units import count_text, size_text
from ckpt_inspect.sources.location import NotReadableHereError
from ckptfmt.checkpoint.saving import check_options
from ckptfmt.checkpoint.writer import write_checkpoint
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.urls import is_url
from ckptfmt.errors import UnsupportedTypeError
from ckptfmt.state.tree import EncodedState, encode_state

if TYPE_CHECKING:
    from collections.abc import Mapping

FOREIGN = {
    "safetensors": "a safetensors file",
    "huggingface": "a directory of safetensors files",
    "torch": "a file of torch.save",
    "npz": "an .npz archive",
    "dcp": "a directory of torch.distributed.checkpoint",
}
_START_BYTES = 16
_NPZ_SUFFIX = ".npz"
_DCP_NAME = ".metadata"


def find_foreign_kind(source: str) -> str | None:
    """Return the kind of a foreign file or directory that can become a checkpoint, None for anything else."""
    from ckptfmt.adapters.safetensors_files import is_huggingface_directory
    from ckptfmt.adapters.torch_file import is_torch_file

    if is_url(source):
        return None
    if os.path.isdir(source):
        if is_huggingface_directory(source):
            return "huggingface"
        return "dcp" if os.path.isfile(os.path.join(source, _DCP_NAME)) else None
    if source.endswith(_NPZ_SUFFIX):
        return "npz"
    with open(source, "rb") as file:
        start = file.read(_START_BYTES)
    if is_torch_file(start):
        return "torch"
    return "safetensors" if source.endswith(".safetensors") or start[8:9] == b"{" else None


def import_checkpoint(source: str, wanted: Conversion, screen: Screen) -> Written:
    """Write a new checkpoint from a foreign file."""
    refuse_existing(wanted.target, overwrite=wanted.overwrite)
    kind = find_foreign_kind(source)
    if wanted.objects_as_data and kind != "torch":
        raise NotReadableHereError("--objects-as-data: means nothing for this conversion")
    if kind == "dcp":
        return _import_dcp(source, wanted)
    encoded = _read(source, kind, wanted)
    info = write_checkpoint(LocalDisk(), wanted.target, encoded, check_options(overwrite=wanted.overwrite))
    sections = ", ".join(dict.fromkeys(source.keys[0] for source in encoded.tensors if source.keys)) or "no tensors"
    return [wanted.target], f"{count_text(info.tensor_count, 'tensor')} ({sections}), {size_text(info.size_bytes)}"


def _import_dcp(source: str, wanted: Conversion) -> Written:
    from ckptfmt.adapters.torch_distributed import from_dcp

    info = from_dcp(source, wanted.target, overwrite=wanted.overwrite)
    return [
        wanted.target
    ], f"{count_text(info.tensor_count, 'tensor')}, {size_text(info.size_bytes)}; keys of mappings are text, as DCP has them"


def _read(source: str, kind: str | None, wanted: Conversion) -> EncodedState:
    if kind in ("safetensors", "huggingface"):
        from ckptfmt.adapters.safetensors_files import read_safetensors_state

        return read_safetensors_state(source)
    if kind == "npz":
        from ckptfmt.adapters.npz import read_npz_state

        return encode_state(read_npz_state(source))
    return encode_state(_torch_state(source, objects_as_data=wanted.objects_as_data))


def _torch_state(source: str, *, objects_as_data: bool) -> Any:
    from ckptfmt.adapters.torch_file import load_torch_file

    try:
        state = load_torch_file(source, objects_as_data=objects_as_data)
    except UnsupportedTypeError as error:
        if "no plain data" not in str(error):
            raise
        first = str(error).partition("\n")[0]
        advice = "Nothing was imported or run. --objects-as-data takes their data as plain mappings, and of modules the state_dict."
        raise UnsupportedTypeError(f"{first}\n{advice}", path=source) from None
    return {"model": state} if _is_state_dict(state) else state


def _is_state_dict(state: Any) -> bool:
    """Tell whether a state is one flat mapping from names to tensors, which makes it the section `model`."""
    import torch

    names: Mapping[Any, Any] = state if isinstance(state, dict) else {}
    return bool(names) and all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in names.items())
