"""Hugging Face Accelerate: everything that an `Accelerator` prepared, in one atomic checkpoint instead of a folder of pickles.

    save_state(accelerator, path)        instead of   accelerator.save_state(path)
    load_state(accelerator, path)        instead of   accelerator.load_state(path)

Models, optimizers, schedulers, the gradient scaler, stateful data loaders, random states and what `register_for_checkpointing` was given
are sections, so single ones can be loaded and looked at. Every process saves nothing but its random states; the main one commits. For
FSDP, DeepSpeed and Megatron use their own ways: those states are sharded.

Source: https://huggingface.co/docs/accelerate/usage_guides/checkpoint
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.loading import load, load_into
from ckptfmt.checkpoint.objects import LoadReport
from ckptfmt.checkpoint.saving import save
from ckptfmt.errors import UnsupportedTypeError
from ckptfmt.state.rng import rng_state, set_rng_state

PathLike = str | os.PathLike[str]
_SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM")


def save_state(
    accelerator: Any,
    path: PathLike,
    *,
    step: int | None = None,
    metrics: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> CheckpointInfo | None:
    """Save everything that was prepared; call it on all processes. Returns what was committed on the main one, None on others.

    `extra` is any further state, and comes back from `load_state`.

    Raises:
        UnsupportedTypeError: the model is sharded, or something registered has no state that can be stored.
    """
    _refuse_sharded(accelerator)
    sections = {name: part.state_dict() for name, part in _parts(accelerator).items()}
    ranks = _gathered(accelerator, rng_state())
    accelerator.wait_for_everyone()
    info = None
    if accelerator.is_main_process:
        state = {**sections, "rng": ranks, "accelerate_step": int(accelerator.step), "extra": dict(extra or {})}
        info = save(path, state, step=step, metrics=metrics, overwrite=overwrite)
    accelerator.wait_for_everyone()
    return info


def load_state(accelerator: Any, path: PathLike) -> tuple[LoadReport, dict[str, Any]]:
    """Load everything back into what was prepared, on all processes; return what was restored, and `extra`.

    Everything is read and verified before the first object is touched.

    Raises:
        NameNotFoundError: something was prepared that the checkpoint does not hold.
        UnsupportedTypeError: the number of processes differs, so that random states would be made up.
    """
    _refuse_sharded(accelerator)
    where = os.fspath(path)
    rest = load(where, only=["rng", "accelerate_step", "extra"])
    if len(rest["rng"]) != accelerator.num_processes:
        raise UnsupportedTypeError(
            f"{where}: was saved by {len(rest['rng'])} processes, found {accelerator.num_processes}\n"
            "Random states of other processes would be made up. Load the sections that you need with ckptfmt.load_into(path, ...).",
            path="rng",
        )
    report = load_into(where, _parts(accelerator))
    accelerator.step = rest["accelerate_step"]
    set_rng_state(rest["rng"][accelerator.process_index])
    return report, rest["extra"]


def _parts(accelerator: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    loaders = [loader for loader in accelerator._dataloaders if getattr(loader, "use_stateful_dataloader", False)]
    for name, objects in (
        ("model", [accelerator.unwrap_model(model, keep_torch_compile=False) for model in accelerator._models]),
        ("optimizer", accelerator._optimizers),
        ("scheduler", accelerator._schedulers),
        ("data", loaders),
        ("scaler", [accelerator.scaler] if getattr(accelerator, "scaler", None) is not None else []),
        ("registered", accelerator._custom_objects),
    ):
        for number, each in enumerate(objects):
            parts[name if number == 0 else f"{name}_{number}"] = each
    return parts


def _refuse_sharded(accelerator: Any) -> None:
    kind = accelerator.distributed_type.value
    if kind in _SHARDED:
        raise UnsupportedTypeError(
            f"{kind}: the states are sharded over processes\nSave them with ckptfmt.adapters.torch_distributed.", path="model"
        )


def _gathered(accelerator: Any, state: Any) -> list[Any]:
    if accelerator.num_processes == 1:
        return [state]
    from accelerate.utils import gather_object

    gathered: list[Any] = gather_object([state])
    return gathered
