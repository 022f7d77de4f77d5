"""`ckpt-inspect watch` as a program: in a pipe and on a terminal, ended by signals, and what it imports."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

import ckptfmt

PROGRAM = (sys.executable, "-m", "ckpt_inspect", "watch")
PATIENCE_SECONDS = 30


@pytest.fixture
def run_path(tmp_path):
    path = str(tmp_path / "run")
    with ckptfmt.Run(path, durable=False) as run:
        run.save(100, {"x": 1}, metrics={"loss": 0.5})
    return path


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *arguments, columns=80, lines=24):
        self.master, slave = pty.openpty()
        self.resize(columns, lines, slave)
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        environment.pop("COLUMNS", None)
        environment.pop("LINES", None)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen([*PROGRAM, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment, close_fds=True)
        self.slave = slave
        self.seen = ""

    def resize(self, columns, lines, number=None):
        fcntl.ioctl(number or self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def wait_for(self, text):
        until = time.monotonic() + PATIENCE_SECONDS
        while text not in self.seen:
            assert time.monotonic() < until, f"{text!r} was never shown: {self.seen[-2000:]!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")

    def end(self, number):
        self.process.send_signal(number)
        until = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None or select.select([self.master], [], [], 0.1)[0]:
            assert time.monotonic() < until
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_terminal_is_restored_however_watching_ends(run_path, number, status):
    with Terminal(run_path, "--interval", "0.2") as terminal:
        terminal.wait_for("latest")
        assert terminal.end(number) == status
        shown, _, after = terminal.seen.rpartition("\x1b[?1049l")
        assert "\x1b[?1049h" in shown
        assert terminal.seen.rindex("\x1b[?25h") > terminal.seen.rindex("\x1b[?25l")
        assert "step 100" in after
        assert "Traceback" not in terminal.seen
        assert termios.tcgetattr(terminal.slave) == terminal.before


def test_another_size_is_drawn_at_once(run_path):
    with Terminal(run_path, "--interval", "60") as terminal:
        terminal.wait_for("latest")
        terminal.seen = ""
        terminal.resize(50, 12)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.wait_for("latest")
        assert terminal.end(signal.SIGINT) == 130


def test_a_run_that_is_not_there_yet_is_waited_for(tmp_path):
    path = str(tmp_path / "later")
    with Terminal(path, "--interval", "0.1") as terminal:
        terminal.wait_for("waiting for it")
        with ckptfmt.Run(path, durable=False) as run:
            run.save(7, {})
            terminal.wait_for("step 7")
            terminal.wait_for(f"process {os.getpid()}")
        terminal.wait_for("has ended")
        assert terminal.end(signal.SIGINT) == 130


def piped(*arguments):
    command = [*PROGRAM, *arguments, "--interval", "0.1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)


def next_line(process):
    ready = select.select([process.stdout], [], [], PATIENCE_SECONDS)[0]
    assert ready, "nothing was written"
    return process.stdout.readline().decode()


def test_each_change_is_a_line_of_json(tmp_path):
    path = str(tmp_path / "later")
    with subprocess.Popen(
        [*PROGRAM, path, "--json", "--interval", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        first = json.loads(next_line(process))
        assert (first["schema_version"], first["message_type"], first["path"]) == (1, "waiting", path)
        found = []
        with ckptfmt.Run(path, durable=False) as run:
            run.save(7, {}, metrics={"loss": float("nan")})
            while not found or found[-1]["message_type"] != "writer" or found[-1]["writer"] is not None:
                found.append(json.loads(next_line(process)))
                if any(message.get("step") == 7 or (message.get("latest") or {}).get("step") == 7 for message in found):
                    run.close()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)

    assert (process.returncode, errors) == (130, b"")
    assert found[0]["message_type"] == "status"
    assert {"NaN"} == {str(message["metrics"]["loss"]) for message in found if message["message_type"] == "checkpoint"} or found[0][
        "latest"
    ]


def test_each_change_is_a_line_of_text(run_path):
    with piped(run_path) as process:
        # A path that is too long for the line is cut in its middle.
        assert next_line(process).split()[0].endswith("/run")
        with ckptfmt.Run(run_path, durable=False) as run:
            run.save(200, {}, metrics={"loss": 0.25})
            line = ""
            while "step 200 saved" not in line:
                line = next_line(process)
        process.stdout.close()
        with ckptfmt.Run(run_path, durable=False) as run:
            run.save(300, {})
        errors = process.stderr.read()

    # Nobody reads any more: the next line ends it.
    assert (process.wait(timeout=PATIENCE_SECONDS), errors) == (141, b"")


def test_watching_imports_no_framework(run_path):
    script = (
        "import sys; from ckpt_inspect.main import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'jax', 'optuna', 'safetensors'} & set(sys.modules); sys.exit(f'imported {heavy}' if heavy else status)"
    )
    finished = subprocess.run([sys.executable, "-c", script, "watch", run_path, "--once"], capture_output=True, text=True, check=False)

    assert (finished.returncode, finished.stderr) == (0, "")
