"""`ckpt-inspect completion`: the script for bash is run; those for zsh and fish too, where the machine has these shells."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from ckpt_inspect.command import make_parser
from ckpt_inspect.completion import completion_script, words_of
from ckpt_inspect.main import main
from ckpt_inspect.registry import COMMANDS

SHELLS = ("bash", "zsh", "fish")


def completed_by_bash(*words):
    """What bash offers for the last of these words."""
    script = completion_script("bash", COMMANDS)
    asked = script + '\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ckpt_inspect; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-uc", asked, "bash", "ckpt-inspect", *words], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def completed_by_fish(*words):
    script = completion_script("fish", COMMANDS)
    asked = f"{script}\ncomplete -C 'ckpt-inspect {' '.join(words)}'"
    done = subprocess.run(["fish", "--no-config", "-c", asked], capture_output=True, text=True, check=True)
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


def test_bash_completes_commands_and_synonyms():
    assert completed_by_bash("ver") == ["verify"]
    assert set(completed_by_bash("")) == {name for command in COMMANDS for name in (command.name, *command.synonyms)}
    assert completed_by_bash("--v") == ["--version"]


def test_bash_completes_options_and_their_values():
    assert completed_by_bash("cleanup", "runs/x", "--keep-") == ["--keep-last", "--keep-best", "--keep-every", "--keep-within"]
    assert completed_by_bash("prune", "x", "--mode", "") == ["min", "max"]
    assert completed_by_bash("report", "x", "--verify", "f") == ["full"]
    assert completed_by_bash("completion", "") == ["bash", "zsh", "fish"]
    assert "--tree" in completed_by_bash("runs/exp1", "--t")
    assert completed_by_bash("--json", "his") == ["history"]


def test_bash_leaves_paths_to_itself():
    for words in (["verify", ""], ["verify", "run"], ["report", "x", "-o", ""], ["best", "x", "--metric", ""], ["no-command"]):
        assert completed_by_bash(*words) == []


def test_every_option_of_every_command_is_in_every_script():
    scripts = {shell: completion_script(shell, COMMANDS) for shell in SHELLS}
    for words in words_of(COMMANDS):
        flags = {flag for action in make_parser(words.command)._actions for flag in action.option_strings}
        assert flags == {flag for option in words.options for flag in option.flags}
        for flag in flags:
            assert flag in scripts["bash"]
            assert flag in scripts["zsh"]
            assert (f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}") in scripts["fish"]


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_the_script_is_one_for_its_shell(shell, check, tmp_path):
    script = completion_script(shell, COMMANDS)
    (tmp_path / "script").write_text(script)

    assert script.isascii()
    if shutil.which(shell):
        done = subprocess.run([shell, check, str(tmp_path / "script")], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_fish_completes_where_there_is_fish():
    if shutil.which("fish"):
        assert completed_by_fish("ver") == ["verify"]
        assert sorted(completed_by_fish("best", "--mode", "m")) == ["max", "min"]
        assert "--keep-last" in completed_by_fish("cleanup", "--keep")


def test_the_script_is_written(capsys):
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == completion_script("bash", COMMANDS)
    assert main(["completion", "fish", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"] == completion_script("fish", COMMANDS)
    assert main(["completion", "tcsh"]) == 2
    assert "invalid choice: 'tcsh'" in capsys.readouterr().err
