"""`ckpt-inspect completion`: the script with which a shell completes commands and options."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.exit_status import FINE
from ckpt_inspect.output.screen import Screen

SHELLS = ("bash", "zsh", "fish")

DESCRIPTION = """\
Write the script with which a shell completes commands, options, their values
and paths by TAB. It is made from the same descriptions as --help, and starts
no program while you type."""

EXAMPLES = """\
examples:
  source <(ckpt-inspect completion bash)    in ~/.bashrc
  source <(ckpt-inspect completion zsh)     in ~/.zshrc, after compinit
  ckpt-inspect completion fish > ~/.config/fish/completions/ckpt-inspect.fish"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")


def run(arguments: Namespace, screen: Screen) -> int:
    """Write the script of SHELL."""
    from ckpt_inspect.completion import completion_script

    script = completion_script(arguments.shell, arguments.commands)
    if screen.is_json:
        screen.write_document({"kind": "completion", "shell": arguments.shell, "script": script})
    else:
        screen.write_lines(script.splitlines())
    return FINE
