"""The commands of the tool. Each is imported when it is called for, so that help and errors come at once.

A new command is one file in `commands/` and one entry here.
"""

from __future__ import annotations

from ckpt_inspect.command import Command, CommandModule


def _inspect() -> CommandModule:
    from ckpt_inspect.commands import inspect

    return inspect


def _verify() -> CommandModule:
    from ckpt_inspect.commands import verify

    return verify


def _history() -> CommandModule:
    from ckpt_inspect.commands import history

    return history


def _best() -> CommandModule:
    from ckpt_inspect.commands import best

    return best


def _cleanup() -> CommandModule:
    from ckpt_inspect.commands import cleanup

    return cleanup


def _compress() -> CommandModule:
    from ckpt_inspect.commands import compress

    return compress


def _decompress() -> CommandModule:
    from ckpt_inspect.commands import decompress

    return decompress


def _diff() -> CommandModule:
    from ckpt_inspect.commands import diff

    return diff


def _convert() -> CommandModule:
    from ckpt_inspect.commands import convert

    return convert


def _salvage() -> CommandModule:
    from ckpt_inspect.commands import salvage

    return salvage


def _report() -> CommandModule:
    from ckpt_inspect.commands import report

    return report


def _watch() -> CommandModule:
    from ckpt_inspect.commands import watch

    return watch


def _completion() -> CommandModule:
    from ckpt_inspect.commands import completion

    return completion


def _doctor() -> CommandModule:
    from ckpt_inspect.commands import doctor

    return doctor


COMMANDS = (
    Command("inspect", ("ls",), "PATH", "what is in a checkpoint, a run or a .safetensors file", _inspect),
    Command("verify", ("check",), "PATH...", "check every byte; name the damaged file and tensor", _verify),
    Command("history", ("log",), "RUN", "metrics by step, a chart of each", _history),
    Command("best", (), "RUN", "the step with the best value of a metric", _best),
    Command("cleanup", ("prune", "forget"), "RUN", "delete what no rule keeps, and say why", _cleanup),
    Command("compress", (), "PATH...", "old checkpoints in fewer bytes, without loss", _compress),
    Command("decompress", (), "PATH...", "checkpoints as they were before compress", _decompress),
    Command("diff", (), "A B", "what differs between two checkpoints", _diff),
    Command("salvage", (), "PATH", "go on with the sound records of damaged journals", _salvage),
    Command("convert", ("export",), "SRC DST", "results of a run, or tensors, in common formats", _convert),
    Command("report", (), "RUN -o FILE", "a run on one page, to mail, archive and print", _report),
    Command("watch", ("top",), "RUN", "a run while it goes on", _watch),
    Command("doctor", (), "DIR", "what a file system can promise", _doctor),
    Command("completion", (), "SHELL", "completion of commands and options by TAB", _completion),
)


def find_command(name: str) -> Command | None:
    """Return the command of this name or synonym."""
    return next((command for command in COMMANDS if name == command.name or name in command.synonyms), None)
