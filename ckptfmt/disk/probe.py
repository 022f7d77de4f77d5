"""What a file system can do, found out by trying, in a directory of its own that is removed afterwards.

Here are the trials that any disk can be put to, through the protocol alone; `probe_host` has those that only the system's own calls
show. A trial says what was found and never raises because of it: a refusal is an answer. What an answer means to whoever stores
something there is not known here.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Directory, Disk, LockState

SCRATCH_PREFIX = ".ckptfmt-probe-"
_LONGEST_NAME = 255
_SHORTEST_TRIED = 8
_SYNC_COUNT = 12
_SYNC_BYTES = 4096
_CONTENT = bytes(range(256)) * 16
_SECOND = 10**9


class Answer(Enum):
    """What came of a trial. DIFFERENT: it works in another way than usual, or less well; FAILED: it does not work."""

    WORKS = "works"
    DIFFERENT = "different"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing that was tried: `found` says what was seen, `value` is what was measured, in the unit that the name ends with."""

    name: str
    answer: Answer
    found: str = ""
    value: int | float | str | None = None


class _Surprise(Exception):
    """A trial came out otherwise than it has to; the text says how."""


def probe(disk: Disk, path: str, more: Callable[[Directory], Iterator[Trial]] | None = None) -> list[Trial]:
    """Try out the directory at `path`; `more` goes on in the same scratch directory, and its answers take the place of ours.

    A directory in which nothing can be made has one answer.

    Raises:
        OSError: there is no such directory.
    """
    disk.open_directory(path).close()
    scratch_path = join(path, f"{SCRATCH_PREFIX}{secrets.token_hex(8)}")
    try:
        disk.make_directory(scratch_path)
    except OSError as error:
        return [Trial("write", Answer.FAILED, reason_of(error))]
    trials: dict[str, Trial] = {}
    leftover = ""
    try:
        directory = disk.open_directory(scratch_path)
        try:
            trials.update((trial.name, trial) for trial in _try_all(directory))
            if more is not None and trials["write"].answer is Answer.WORKS:
                trials.update((trial.name, trial) for trial in more(directory))
        finally:
            leftover = _empty(directory)
            directory.close()
    except OSError as error:
        trials["write"] = Trial("write", Answer.FAILED, reason_of(error))
    finally:
        with suppress(OSError):
            disk.remove_directory(scratch_path)
    return [*trials.values(), _judge_removal(disk, scratch_path, leftover)]


def reason_of(error: OSError) -> str:
    """Return what the system says, in lower case."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def attempt(name: str, trial: Callable[[], Trial | None]) -> Trial:
    """Run one trial; an error of the system or a surprise is its answer, None is that it works."""
    try:
        return trial() or Trial(name, Answer.WORKS)
    except _Surprise as surprise:
        return Trial(name, Answer.FAILED, str(surprise))
    except OSError as error:
        return Trial(name, Answer.FAILED, reason_of(error))


def _try_all(directory: Directory) -> Iterator[Trial]:
    written = attempt("write", lambda: _try_write(directory))
    yield written
    if written.answer is not Answer.WORKS:
        return
    yield attempt("exclusive_create", lambda: _try_exclusive_create(directory))
    yield attempt("rename_over", lambda: _try_rename_over(directory))
    yield attempt("open_after_unlink", lambda: _try_open_after_unlink(directory))
    yield attempt("private_map", lambda: _try_private_map(directory))
    yield attempt("hard_links", lambda: _try_hard_links(directory))
    yield attempt("lock", lambda: _try_lock(directory))
    yield attempt("directory_sync", directory.sync)
    yield attempt("case", lambda: _try_case(directory))
    yield attempt("name_length", lambda: _try_name_length(directory))
    yield attempt("clock", lambda: _try_clock(directory))
    yield attempt("free_bytes", lambda: _try_free_bytes(directory))
    yield attempt("sync_seconds", lambda: _try_sync_seconds(directory))


def _put(directory: Directory, name: str, content: bytes = _CONTENT) -> None:
    file = directory.create(name, size_bytes=len(content))
    try:
        file.write(content)
        file.sync()
    finally:
        file.close()


def _get(directory: Directory, name: str) -> bytes:
    file = directory.open(name)
    try:
        return file.read(0, file.size_bytes)
    finally:
        file.close()


def _expect(is_met: bool, surprise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not is_met:
        raise _Surprise(surprise)


def _try_write(directory: Directory) -> None:
    _put(directory, "written")
    _expect(_get(directory, "written") == _CONTENT, "what was read is not what was written")


def _try_exclusive_create(directory: Directory) -> None:
    _put(directory, "exclusive", b"first")
    try:
        _put(directory, "exclusive", b"second")
    except FileExistsError:
        return
    raise _Surprise("a file that exists was created once more")


def _try_rename_over(directory: Directory) -> None:
    _put(directory, "target", b"old")
    _put(directory, "source", b"new")
    before = directory.open("target")
    try:
        directory.rename("source", "target")
        _expect(_get(directory, "target") == b"new", "the old content is there after the rename")
        _expect("source" not in directory.names(), "the old name is there after the rename")
        _expect(before.read(0, 3) == b"old", "a reader of the replaced file sees the new content")
    finally:
        before.close()


def _try_open_after_unlink(directory: Directory) -> None:
    _put(directory, "unlinked")
    file = directory.open("unlinked")
    try:
        directory.unlink("unlinked")
        _expect("unlinked" not in directory.names(), "the name is there after it was removed")
        _expect(file.read(0, len(_CONTENT)) == _CONTENT, "an open file loses its content with its name")
    finally:
        file.close()


def _try_private_map(directory: Directory) -> None:
    file = directory.open("written")
    try:
        memory = file.map_private()
        _expect(bytes(memory) == _CONTENT, "mapped memory does not hold the content of the file")
        memory[:1] = b"\xff"
    finally:
        file.close()
    _expect(_get(directory, "written") == _CONTENT, "a change of private memory reached the file")


def _try_hard_links(directory: Directory) -> Trial | None:
    if not directory.link_from(directory, "written", "linked"):
        return Trial("hard_links", Answer.DIFFERENT, "refused")
    _expect(_get(directory, "linked") == _CONTENT, "a second name has another content")
    directory.unlink("written")
    _expect(_get(directory, "linked") == _CONTENT, "a file is lost with one of its names")
    _put(directory, "written")
    return None


def _try_lock(directory: Directory) -> Trial | None:
    state = directory.try_lock()
    return Trial("lock", Answer.DIFFERENT, "refused") if state is LockState.UNSUPPORTED else None


def _try_case(directory: Directory) -> Trial | None:
    _put(directory, "case")
    try:
        _put(directory, "CASE")
    except FileExistsError:
        return Trial("case", Answer.DIFFERENT, "case and CASE are one file")
    return None


def _try_name_length(directory: Directory) -> Trial:
    if _takes_name(directory, _LONGEST_NAME):
        return Trial("name_length", Answer.WORKS, f"{_LONGEST_NAME} characters", _LONGEST_NAME)
    low, high = _SHORTEST_TRIED, _LONGEST_NAME
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _takes_name(directory, middle) else (low, middle)
    return Trial("name_length", Answer.DIFFERENT, f"{low} characters", low)


def _takes_name(directory: Directory, length: int) -> bool:
    name = "n" * length
    try:
        directory.create(name, size_bytes=0).close()
    except OSError:
        return False
    directory.unlink(name)
    return True


def _try_clock(directory: Directory) -> Trial:
    began_ns = time.time_ns()
    _put(directory, "clock")
    ended_ns = time.time_ns()
    file = directory.open("clock")
    try:
        status = file.status()
    finally:
        file.close()
    if status is None:
        return Trial("clock", Answer.UNKNOWN, "it has no times")
    # Kernels stamp with the time of their last tick, and some file systems with whole or even seconds.
    ahead = (status.modified_ns - ended_ns) / _SECOND
    behind = (began_ns - status.modified_ns) / _SECOND
    if ahead > 1 or behind > 2:
        skew = ahead if ahead > 0 else -behind
        return Trial("clock", Answer.DIFFERENT, f"its clock differs from ours by {skew:+.1f} s", skew)
    return Trial("clock", Answer.WORKS, "as ours", 0.0)


def _try_free_bytes(directory: Directory) -> Trial:
    size_bytes = directory.free_bytes()
    return Trial("free_bytes", Answer.WORKS if size_bytes else Answer.FAILED, "", size_bytes)


def _try_sync_seconds(directory: Directory) -> Trial:
    """Measure what one small append takes until it is durable: the median of several."""
    seconds = []
    file = directory.create("synced", size_bytes=_SYNC_COUNT * _SYNC_BYTES)
    try:
        for _ in range(_SYNC_COUNT):
            started = time.perf_counter()
            file.write(bytes(_SYNC_BYTES))
            file.sync()
            seconds.append(time.perf_counter() - started)
    finally:
        file.close()
    ordered = sorted(seconds)
    found = f"{1000 * ordered[0]:.2f} to {1000 * ordered[-1]:.2f} ms"
    return Trial("sync_seconds", Answer.WORKS, found, ordered[len(ordered) // 2])


def _empty(directory: Directory) -> str:
    """Remove everything from the scratch directory; return what stood in the way."""
    leftover = ""
    try:
        names = directory.names()
    except OSError as error:
        return reason_of(error)
    for name in names:
        try:
            directory.unlink(name)
        except OSError as error:
            leftover = reason_of(error)
    return leftover


def _judge_removal(disk: Disk, scratch_path: str, leftover: str) -> Trial:
    try:
        disk.open_directory(scratch_path).close()
    except FileNotFoundError:
        return Trial("removal", Answer.WORKS)
    except OSError as error:
        leftover = leftover or reason_of(error)
    return Trial("removal", Answer.FAILED, f"{scratch_path} could not be removed{f': {leftover}' if leftover else ''}")
