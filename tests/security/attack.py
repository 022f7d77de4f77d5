"""Opening hostile checkpoints in a process of its own, which writes down everything that must not happen.

    python -m tests.security.attack DIRECTORY

reads every checkpoint in DIRECTORY in every way that the library offers, and prints one line of JSON for each: how each
way ended and how long it took, by how much memory grew, and what an audit hook saw (imports, code, processes, sockets, writes).
All libraries are imported and all good vectors are loaded before the hook counts: what is imported after that was asked for by a file.
"""

import errno
import gc
import json
import pickle
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOOD_VECTORS = ROOT / "spec" / "vectors" / "1.0" / "good"
EXTRA_MEMORY_BYTES = 4 * 2**30
CPU_SECONDS = 300
SHOWN_NAMES = 3

WATCHED = ("import", "exec", "compile", "code.", "marshal.", "pickle.", "subprocess.", "socket.", "ctypes.", "os.system", "os.exec")
CHANGING = (
    *("os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "os.putenv", "os.chdir", "pty.", "signal.pthread_kill"),
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime"),
    *("shutil.", "tempfile.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.", "winreg.", "builtins.input", "cpython.run_"),
)
WRITING_FLAGS = 0o3 | 0o100 | 0o1000 | 0o2000


class Watch:
    """The audit hook: remembers events that loading data has no reason to cause."""

    def __init__(self):
        self.is_on = False
        self.events = []
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if not self.is_on:
            return
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING_FLAGS
        if writes or event.startswith(WATCHED + CHANGING):
            self.events.append(f"{event} {arguments!r}"[:300])

    def take(self):
        events, self.events = self.events, []
        return events


class Sink:
    """An object that takes any state."""

    def load_state_dict(self, state):
        self.state = state


def ways_of_reading(ckptfmt, path):
    """Every way in which the library reads a checkpoint, by name."""

    def opened(action):
        def run():
            with ckptfmt.open_checkpoint(path) as checkpoint:
                return action(checkpoint)

        return run

    def sections(checkpoint):
        return checkpoint.sections()

    def each_tensor(checkpoint):
        for name in checkpoint.keys()[:SHOWN_NAMES]:
            checkpoint.tensor_info(name)
            checkpoint.get_slice(name).get_shape()
            checkpoint.get_tensor(name)

    return {
        "load": lambda: ckptfmt.load(path),
        "load all sections": lambda: ckptfmt.load_into(path, {name: Sink() for name in opened(sections)()}),
        "load by pattern": lambda: ckptfmt.load(path, only="*"),
        "load without digests": lambda: ckptfmt.load(path, verify=False),
        "tree": opened(lambda checkpoint: checkpoint.tree()),
        "keys": opened(lambda checkpoint: checkpoint.keys()),
        "unknown tensor": opened(lambda checkpoint: checkpoint.get_tensor("no such tensor")),
        "tensors": opened(each_tensor),
        "verify": lambda: ckptfmt.verify(path),
        "verify quick": lambda: ckptfmt.verify(path, level="quick"),
        "is_complete": lambda: ckptfmt.is_complete(path),
    }


def result_of(way):
    """What a way of reading gives or raises."""
    try:
        return way()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is reported
        return error


def described(ckptfmt, result):
    """[how it ended, detail]: a value, a refusal by an error of ckptfmt, or a failure of the reader."""
    if isinstance(result, ckptfmt.CheckpointError):
        return describe_refusal(result)
    if isinstance(result, OSError) and result.errno == errno.ENOMEM and result.filename:
        return ["no memory", result.filename]
    if isinstance(result, BaseException):
        return ["failure", f"{type(result).__name__}: {str(result)[:300]}"]
    if isinstance(result, ckptfmt.VerifyReport):
        messages = [finding.message for finding in result.findings]
        if any(not message.isprintable() for message in messages):
            return ["failure", f"a finding is not printable: {messages!r}"[:300]]
        return ["refused" if not result.ok else "value", " ".join(sorted({finding.rule for finding in result.findings})[:5])]
    return ["value", repr(result) if isinstance(result, bool) else type(result).__name__]


def describe_refusal(error):
    """A refusal, unless the error itself is not as errors should be: printable, short, picklable."""
    lines = str(error).split("\n")
    if not all(line.isprintable() for line in lines):
        return ["failure", f"message is not printable: {str(error)!r}"[:300]]
    if len(str(error)) > 1500:
        return ["failure", f"message of {len(str(error))} characters: {str(error)[:100]}"]
    copy = pickle.loads(pickle.dumps(error))
    if type(copy) is not type(error) or str(copy) != str(error):
        return ["failure", f"does not pickle: {type(error).__name__}"]
    return ["refused", f"{getattr(error, 'rule', None) or type(error).__name__}"]


def memory_bytes(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0


def reset_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def warm_up(ckptfmt):
    """Load every good vector, so that everything that loading imports is there."""
    outcomes = {}
    for vector in sorted(GOOD_VECTORS.iterdir()):
        ways = ways_of_reading(ckptfmt, str(vector / "checkpoint"))
        outcomes[vector.name] = [type(result_of(way)).__name__ for way in ways.values()]
    return outcomes


def main():
    sys.path.insert(0, str(ROOT))
    import ckptfmt

    watch = Watch()
    warm_up(ckptfmt)
    # The codec of numpy's text is loaded with the first such scalar.
    "".encode("utf-32-le")
    watch.is_on = True
    good = warm_up(ckptfmt)
    watch.is_on = False
    print(json.dumps({"name": "good vectors", "outcomes": good, "events": watch.take()}), flush=True)

    # What is there now is never collected again, which makes collecting before each case quick.
    gc.freeze()
    limit = memory_bytes("VmData") + EXTRA_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    for case in sorted(Path(sys.argv[1]).iterdir()):
        print(json.dumps({"name": case.name, "begins": True}), flush=True)
        gc.collect()
        before = memory_bytes("VmRSS")
        reset_peak()
        outcomes = {}
        for name, way in ways_of_reading(ckptfmt, str(case / "checkpoint")).items():
            watch.is_on = True
            begin = time.process_time()
            result = result_of(way)
            seconds = time.process_time() - begin
            watch.is_on = False
            outcomes[name] = [*described(ckptfmt, result), round(seconds, 3)]
            del result
        growth = memory_bytes("VmHWM") - before
        print(json.dumps({"name": case.name, "outcomes": outcomes, "grown_bytes": growth, "events": watch.take()}), flush=True)


if __name__ == "__main__":
    main()
