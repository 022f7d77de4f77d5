"""What a program runs on and which code it runs: asked without importing anything, told without names of people or places."""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import platform
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest

from ckptfmt._version import __version__
from ckptfmt.run import source_code
from ckptfmt.run.environment import describe_environment
from ckptfmt.run.fingerprint import Fingerprint
from ckptfmt.run.source_code import describe_code, describe_repository


def git(directory, *arguments):
    options = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false", "-c", "init.defaultBranch=main")
    return subprocess.run(["git", "-C", str(directory), *options, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "train.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    (tmp_path / "below").mkdir()
    return tmp_path


@pytest.fixture
def main_script(monkeypatch):
    def pretend(path):
        module = types.ModuleType("__main__")
        if path is not None:
            module.__file__ = str(path)
        monkeypatch.setitem(sys.modules, "__main__", module)

    return pretend


def test_the_environment_says_versions_and_kind_of_machine():
    fields = {name: field.text for name, field in Fingerprint(code=False).fields.items()}
    assert fields["environment.python"] == f"str {platform.python_version()}"
    assert fields["environment.machine"] == f"str {platform.machine()}"
    assert fields["environment.platform"] == f"str {platform.system()}"
    assert fields["environment.ckptfmt"] == f"str {__version__}"
    assert fields["environment.numpy"] == f"str {importlib.metadata.version('numpy')}"
    assert {field.match for field in Fingerprint(code=False).fields.values()} == {"warn"}
    assert not Fingerprint(code=False, environment=False).fields


def test_the_environment_says_nothing_of_people_and_places():
    text = json.dumps(Fingerprint(seed=1).to_document())
    for private in (socket.gethostname(), str(Path.home()), str(Path.cwd()), sys.prefix):
        assert len(private) < 4 or private not in text
    values = {str(value) for value in describe_environment().values()}
    assert getpass.getuser() not in values


def test_asking_for_the_environment_imports_no_library():
    program = (
        "import sys, ckptfmt.run.fingerprint as f; f.Fingerprint(code=False, config={'a': [1]}); "
        "print('numpy' in sys.modules, 'torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]


def test_a_library_that_is_loaded_but_not_installed_is_noted(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", types.SimpleNamespace(__version__="9.9"))
    assert describe_environment()["keras"] == "9.9"


def test_devices_are_noted_where_cuda_is_available(monkeypatch):
    cuda = types.SimpleNamespace(is_available=lambda: True, device_count=lambda: 2, get_device_name=lambda index: f"Device {index}")
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    assert describe_environment()["devices"] == ["Device 0", "Device 1"]
    assert Fingerprint(code=False).fields["environment.devices"].value == '["str Device 0","str Device 1"]'


@pytest.mark.parametrize(
    "error", [RuntimeError("Cannot re-initialize CUDA in forked subprocess"), AssertionError("not compiled with CUDA")]
)
def test_devices_that_cannot_be_asked_are_left_out(monkeypatch, error):
    def refuse(index):
        raise error

    cuda = types.SimpleNamespace(is_available=lambda: True, device_count=lambda: 1, get_device_name=refuse)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    assert "devices" not in describe_environment()


def test_the_commit_of_the_main_script_is_noted(repository, main_script):
    commit = git(repository, "rev-parse", "HEAD")
    main_script(repository / "train.py")
    assert describe_code() == {"commit": commit, "dirty": False}
    fields = Fingerprint(environment=False).fields
    assert {name: (field.match, field.text) for name, field in fields.items()} == {
        "code.commit": ("warn", f"str {commit}"),
        "code.dirty": ("warn", "bool false"),
    }
    assert describe_repository(str(repository / "below")) == {"commit": commit, "dirty": False}


def test_changes_of_tracked_files_make_it_dirty_and_results_do_not(repository):
    (repository / "runs").mkdir()
    (repository / "runs" / "result").write_text("1")
    assert describe_repository(str(repository))["dirty"] is False
    (repository / "train.py").write_text("x = 2\n")
    assert describe_repository(str(repository))["dirty"] is True


def test_asking_for_the_commit_writes_nothing_and_runs_no_hook(repository):
    hook = repository / "hook.sh"
    hook.write_text(f"#!/bin/sh\ntouch {repository}/ran\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    before = (repository / ".git" / "index").stat().st_mtime_ns
    (repository / "train.py").touch()
    assert describe_repository(str(repository))["dirty"] is False
    assert (repository / ".git" / "index").stat().st_mtime_ns == before
    assert not (repository / "ran").exists()


def test_no_repository_no_commit_no_git_no_script_is_no_error(tmp_path, monkeypatch, main_script):
    assert describe_repository(str(tmp_path)) == {}
    assert describe_repository(str(tmp_path / "gone")) == {}
    git(tmp_path, "init", "--quiet")
    assert describe_repository(str(tmp_path)) == {}
    main_script(None)
    assert describe_code() == {}
    assert not Fingerprint(environment=False).fields
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_repository(str(tmp_path)) == {}


def test_a_git_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(source_code, "TIMEOUT_SECONDS", 0.2)
    assert describe_repository(str(tmp_path)) == {}


def test_code_may_be_given_or_left_out():
    def code_of(code):
        return {name: field.text for name, field in Fingerprint(code=code, environment=False).fields.items()}

    assert code_of("release 1") == {"code": "str release 1"}
    assert code_of({"version": 3, "url": "https://me:hunter2@example.org"}).keys() == {"code.version", "code.url"}
    assert code_of({"url": "https://me:hunter2@example.org"})["code.url"].startswith("secret ")
    assert code_of(False) == {}
    assert code_of(True) == code_of(None)
