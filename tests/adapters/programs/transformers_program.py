"""Train a tiny language model with a Hugging Face Trainer: DIRECTORY sealed|ckptfmt [KILL_AT_STEP]. Prints the digest of the weights."""

import os
import signal
import sys
import warnings

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from ckptfmt.adapters.transformers import last_valid, seal_callback, trainer_class
from tests.adapters.programs.outcome import print_digest


class Kill(TrainerCallback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def main(directory: str, way: str, kill_at: str = "0") -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    tokens = torch.randint(0, 64, (40, 16))
    data = [{"input_ids": row, "labels": row} for row in tokens]
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0))
    arguments = TrainingArguments(
        directory,
        max_steps=12,
        per_device_train_batch_size=4,
        save_steps=3,
        save_total_limit=2,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=7,
    )
    kind = Trainer if way == "sealed" else trainer_class()
    callbacks = [*([seal_callback()] if way == "sealed" else []), Kill(int(kill_at))]
    trainer = kind(model=model, args=arguments, train_dataset=data, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=last_valid(directory))
    print_digest(model.state_dict())


if __name__ == "__main__":
    main(*sys.argv[1:])
