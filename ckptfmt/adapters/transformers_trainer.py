"""A Trainer of Hugging Face whose checkpoints are ckptfmt checkpoints.

checkpoint-N holds the model, optimizer, scheduler, scaler, random states and the Trainer's own state as sections of one checkpoint, which
appears at once; beside it lies trainer_state.json, because the Trainer reads that file itself, written before the commit and put right
from the checkpoint when training resumes. Older checkpoints are rotated away after the commit. One process only: with several, FSDP or
DeepSpeed the states are spread, and `seal_callback` is the way.

Overridden: the methods of `transformers.Trainer` that save and load its parts, tried with transformers 5.23.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from ckptfmt.adapters.transformers_checkpoints import STATE_NAME, is_ours, last_valid
from ckptfmt.checkpoint.loading import load, load_into
from ckptfmt.checkpoint.saving import save
from ckptfmt.disk.foreign_file import names_in, write_file
from ckptfmt.errors import UnsupportedTypeError
from ckptfmt.state.rng import rng_state, set_rng_state


def mix_in(base: Any) -> Any:
    """Return a subclass of `base`, a Trainer, that saves and resumes through ckptfmt."""

    class CkptfmtTrainer(base):  # type: ignore[misc]
        """A Trainer whose checkpoints are atomic, digested and free of pickle."""

        def train(self, resume_from_checkpoint: Any = None, *arguments: Any, **named: Any) -> Any:
            """Train, or go on from a checkpoint; True means the newest one that is whole."""
            _refuse_several_processes(self)
            if resume_from_checkpoint is True:
                resume_from_checkpoint = last_valid(self.args.output_dir)
            if isinstance(resume_from_checkpoint, str) and is_ours(resume_from_checkpoint):
                text = load(resume_from_checkpoint, only="trainer_state")["trainer_state"]
                write_file(f"{resume_from_checkpoint}/{STATE_NAME}", text.encode())
            return super().train(resume_from_checkpoint, *arguments, **named)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

            _refuse_several_processes(self)
            if self.hp_search_backend is None and trial is None:
                self.store_flos()
            directory = self._get_output_dir(trial=trial)
            path = f"{directory}/{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            if self.state.best_global_step:
                best = f"{directory}/{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
                # It may be the one that is being saved.
                if best == path or names_in(best):
                    self.state.best_model_checkpoint = best
            _export_callbacks(self)
            text = _state_text(self.state)
            state = {**_parts(self), "rng": rng_state(), "trainer_state": text}
            if getattr(self.model, "config", None) is not None:
                state["config"] = json.loads(self.model.config.to_json_string(use_diff=False))
            write_file(f"{path}/{STATE_NAME}", text.encode())
            save(path, state, step=self.state.global_step, metrics=_last_metrics(self.state), overwrite=True)
            rotate_checkpoints(
                output_dir=directory,
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            if not is_ours(resume_from_checkpoint):
                super()._load_from_checkpoint(resume_from_checkpoint, model)
                return
            load_into(resume_from_checkpoint, {"model": self.model if model is None else model})

        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
            if checkpoint is None or not is_ours(checkpoint):
                super()._load_optimizer_and_scheduler(checkpoint)
                return
            parts = {name: part for name, part in (("optimizer", self.optimizer), ("scheduler", self.lr_scheduler)) if part is not None}
            load_into(checkpoint, parts)

        def _load_scaler(self, checkpoint: str | None) -> None:
            if checkpoint is None or not is_ours(checkpoint):
                super()._load_scaler(checkpoint)
            elif getattr(self.accelerator, "scaler", None) is not None:
                load_into(checkpoint, {"scaler": self.accelerator.scaler})

        def _load_rng_state(self, checkpoint: str | None) -> None:
            if checkpoint is None or not is_ours(checkpoint):
                super()._load_rng_state(checkpoint)
                return
            set_rng_state(load(checkpoint, only="rng")["rng"])

        def _load_best_model(self) -> None:
            if is_ours(self.state.best_model_checkpoint):
                load_into(self.state.best_model_checkpoint, {"model": self.model})
            else:
                super()._load_best_model()

    CkptfmtTrainer.__name__ = f"Ckptfmt{base.__name__}"
    return CkptfmtTrainer


def _refuse_several_processes(trainer: Any) -> None:
    if trainer.args.world_size > 1 or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise UnsupportedTypeError(
            f"{type(trainer).__name__}: saves what one process holds, found {trainer.args.world_size} processes\n"
            "Use transformers.Trainer with ckptfmt.adapters.transformers.seal_callback().",
            path="model",
        )


def _parts(trainer: Any) -> dict[str, Any]:
    parts = {"model": trainer.accelerator.unwrap_model(trainer.model)}
    if not trainer.args.save_only_model:
        scaler = getattr(trainer.accelerator, "scaler", None)
        named = (("optimizer", trainer.optimizer), ("scheduler", trainer.lr_scheduler), ("scaler", scaler))
        parts |= {name: part for name, part in named if part is not None}
    return parts


def _export_callbacks(trainer: Any) -> None:
    from transformers.trainer_callback import ExportableState

    exported = [part for part in [*trainer.callback_handler.callbacks, trainer.control] if isinstance(part, ExportableState)]
    for part in exported:
        name, kept = type(part).__name__, trainer.state.stateful_callbacks
        if isinstance(kept[name], list):
            kept[name].append(part.state())
        else:
            kept[name] = part.state()


def _state_text(state: Any) -> str:
    """Return the Trainer's state as the text of trainer_state.json."""
    return json.dumps(asdict(state), indent=2, sort_keys=True) + "\n"


def _last_metrics(state: Any) -> dict[str, float]:
    """Return what was logged last, as far as it is numbers."""
    metrics: dict[str, float] = {}
    for row in state.log_history:
        metrics.update({name: value for name, value in row.items() if isinstance(value, (int, float)) and name != "step"})
    return metrics
