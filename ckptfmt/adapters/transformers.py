"""Hugging Face Trainer: resume only from what is whole.

Two ways. `seal_callback()` leaves the Trainer's own files as they are and seals each checkpoint-N when it is complete; `trainer_class()`
is a Trainer that saves everything through ckptfmt, so that checkpoint-N is a checkpoint that ckpt-inspect shows and nothing is a pickle.
With either, `resume_from_checkpoint=last_valid(output_dir)` takes the newest one that verifies, instead of the newest by name.
The classes are made in functions, because importing this must not import transformers.

Source: https://huggingface.co/docs/transformers/main_classes/callback and `transformers.Trainer._save_checkpoint`
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ckptfmt.adapters.transformers_checkpoints import last_valid
from ckptfmt.adapters.transformers_trainer import mix_in
from ckptfmt.checkpoint.seal import seal_directory
from ckptfmt.disk.foreign_file import names_in


def seal_callback() -> Any:
    """Return a callback for `Trainer(callbacks=[...])` that seals each checkpoint-N when the Trainer has written it."""
    return _callback_class()()


@cache
def _callback_class() -> Any:
    from transformers import TrainerCallback

    class SealCallback(TrainerCallback):  # type: ignore[misc]
        """Seals what the Trainer saves."""

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Seal the checkpoint that has just been written, on the process that writes."""
            path = f"{args.output_dir}/checkpoint-{state.global_step}"
            if state.is_world_process_zero and names_in(path):
                seal_directory(path)

    return SealCallback


@cache
def trainer_class() -> Any:
    """Return a subclass of `transformers.Trainer` that saves and resumes through ckptfmt; for another base see `mix_in`."""
    from transformers import Trainer

    return mix_in(Trainer)


__all__ = ["last_valid", "mix_in", "seal_callback", "trainer_class"]
