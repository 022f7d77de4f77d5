"""Completion for shells, made from the parsers of the commands: a script that starts no program while somebody types.

Whatever takes a path is completed by the shell's own completion of files.
"""

from __future__ import annotations

import shlex
from argparse import Action
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckpt_inspect.command import Command, make_parser
from ckpt_inspect.output.messages import PROGRAM

_FUNCTION = "_ckpt_inspect"
_GENERAL = (("--help", "the commands and options"), ("--version", "the version, and the format that it reads"))


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command; `value` is what it takes, "" where it takes nothing, `choices` what that may be."""

    flags: tuple[str, ...]
    summary: str
    value: str
    choices: tuple[str, ...]

    @property
    def is_file(self) -> bool:
        """Whether it takes a path."""
        return self.value.startswith(("FILE", "DIR", "PATH"))


@dataclass(frozen=True, slots=True)
class Words:
    """What may stand behind a command; `choices` are those of its operand, which otherwise is a path."""

    command: Command
    options: Sequence[Option]
    choices: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and its synonyms."""
        return (self.command.name, *self.command.synonyms)


def words_of(commands: Sequence[Command]) -> list[Words]:
    """Return what may stand behind each command."""
    found = []
    for command in commands:
        actions = make_parser(command)._actions
        operands = [action for action in actions if not action.option_strings]
        choices = tuple(str(choice) for action in operands for choice in action.choices or ())
        found.append(Words(command, [_option(action) for action in actions if action.option_strings], choices))
    return found


def _option(action: Action) -> Option:
    choices = tuple(map(str, action.choices or ()))
    value = "" if action.nargs == 0 else str(action.metavar or "value")
    return Option(tuple(action.option_strings), action.help or "", value, choices)


def completion_script(shell: str, commands: Sequence[Command]) -> str:
    """Return the script for bash, zsh or fish."""
    makers = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    return "\n".join(makers[shell](words_of(commands))) + "\n"


def _bash(words: Sequence[Words]) -> Iterator[str]:
    names = [name for each in words for name in each.names]
    yield f"# Completion of {PROGRAM} for bash. In ~/.bashrc: source <({PROGRAM} completion bash)"
    yield f"{_FUNCTION}() {{"
    yield "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command= words= index"
    yield "    COMPREPLY=()"
    yield "    for ((index = 1; index < COMP_CWORD; index++)); do"
    yield "        case ${COMP_WORDS[index]} in"
    yield "            -*) ;;"
    for each in words:
        yield f"            {'|'.join(each.names)}) command={each.command.name}; break ;;"
    # A path alone is inspected.
    yield f"            *) command={words[0].command.name}; break ;;"
    yield "        esac"
    yield "    done"
    yield "    case $command:$previous in"
    for each in words:
        for option in each.options:
            if option.value:
                pattern = "|".join(f"{each.command.name}:{flag}" for flag in option.flags)
                chosen = f'COMPREPLY=($(compgen -W {shlex.quote(" ".join(option.choices))} -- "$current")); ' if option.choices else ""
                yield f"        {pattern}) {chosen}return ;;"
    yield "    esac"
    yield "    case $command in"
    general = " ".join(flag for flag, _ in _GENERAL)
    yield f"        '') words={shlex.quote(' '.join(names))}; [[ $current == -* ]] && words={shlex.quote(general)} ;;"
    for each in words:
        flags = " ".join(flag for option in each.options for flag in option.flags)
        operand = f"; [[ $current != -* ]] && words={shlex.quote(' '.join(each.choices))}" if each.choices else ""
        yield f"        {each.command.name}) [[ $current == -* ]] && words={shlex.quote(flags)}{operand} ;;"
    yield "    esac"
    yield '    [[ -n $words ]] && COMPREPLY=($(compgen -W "$words" -- "$current"))'
    yield "    return 0"
    yield "}"
    # Where nothing of ours fits, the shell completes the names of files.
    yield f"complete -o bashdefault -o default -F {_FUNCTION} {PROGRAM}"


def _zsh(words: Sequence[Words]) -> Iterator[str]:
    yield f"#compdef {PROGRAM}"
    yield f"# Completion of {PROGRAM} for zsh. In ~/.zshrc, after compinit: source <({PROGRAM} completion zsh)"
    yield f"{_FUNCTION}() {{"
    yield "    local -a commands"
    yield "    commands=("
    for each in words:
        for name in each.names:
            yield f"        {_zsh_quoted(f'{name}:{_zsh_text(each.command.summary)}')}"
    yield "    )"
    yield "    if (( CURRENT == 2 )); then"
    general = " ".join(_zsh_quoted(f"{flag}[{_zsh_text(text)}]") for flag, text in _GENERAL)
    yield f"        if [[ $PREFIX == -* ]]; then _arguments {general}; return; fi"
    yield "        _describe -t commands command commands"
    yield "        _files"
    yield "        return"
    yield "    fi"
    yield "    local command=$words[2]"
    yield "    shift words; (( CURRENT-- ))"
    yield "    case $command in"
    for each in words:
        pattern = "|".join(each.names) + ("|*" if each is words[-1] else "")
        yield f"        {pattern})"
        yield "            _arguments -s \\"
        for option in each.options:
            for flag in option.flags:
                yield f"                {_zsh_quoted(_zsh_option(flag, option))} \\"
        operand = f"*:operand:({' '.join(each.choices)})" if each.choices else "*:path:_files"
        yield f"                {_zsh_quoted(operand)} ;;"
    yield "    esac"
    yield "}"
    is_called = f"$funcstack[1] == {_FUNCTION} || $funcstack[1] == _{PROGRAM}"
    yield f'if [[ {is_called} ]]; then {_FUNCTION} "$@"; else compdef {_FUNCTION} {PROGRAM}; fi'


def _zsh_option(flag: str, option: Option) -> str:
    text = f"*{flag}[{_zsh_text(option.summary)}]"
    if not option.value:
        return text
    values = f"({' '.join(option.choices)})" if option.choices else "_files" if option.is_file else " "
    return f"{text}:{_zsh_text(option.value)}:{values}"


def _zsh_text(text: str) -> str:
    for character in "\\[]:":
        text = text.replace(character, f"\\{character}")
    return text


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(words: Sequence[Words]) -> Iterator[str]:
    yield f"# Completion of {PROGRAM} for fish: {PROGRAM} completion fish > ~/.config/fish/completions/{PROGRAM}.fish"
    for flag, text in _GENERAL:
        yield f"complete -c {PROGRAM} -n __fish_use_subcommand -l {flag[2:]} -d {_fish_quoted(text)}"
    for each in words:
        for name in each.names:
            yield f"complete -c {PROGRAM} -n __fish_use_subcommand -a {name} -d {_fish_quoted(each.command.summary)}"
        condition = _fish_quoted(f"__fish_seen_subcommand_from {' '.join(each.names)}")
        for option in each.options:
            flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
            takes = (
                f" -x -a {_fish_quoted(' '.join(option.choices))}"
                if option.choices
                else " -r"
                if option.is_file
                else " -x"
                if option.value
                else ""
            )
            yield f"complete -c {PROGRAM} -n {condition} {flags}{takes} -d {_fish_quoted(option.summary)}"
        if each.choices:
            yield f"complete -c {PROGRAM} -n {condition} -f -a {_fish_quoted(' '.join(each.choices))}"


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
