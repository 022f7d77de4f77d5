"""Work in small units that a kill does not undo: which are done, with their results. Spec 17.

A unit is done when its record is in the journal of the process that did it. Keys are handed out once, to the threads of this process and
to the processes that share the progress, through claims; a claim says who works on a unit now and is worth nothing after its process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from types import TracebackType
from typing import Any

from ckptfmt.checkpoint.saving import metric_values
from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import LimitError, NameNotFoundError, RunLockedError, UnsupportedTypeError
from ckptfmt.run import at_exit
from ckptfmt.run.fingerprint import Fingerprint, checked_fingerprint, compare, mismatch_error
from ckptfmt.run.notices import warn
from ckptfmt.run.progress_bar import bar_text, live_bar
from ckptfmt.run.progress_ledger import Failure, MetricSummary
from ckptfmt.run.progress_pending import Pending
from ckptfmt.run.progress_records import MAX_ERROR_CHARACTERS, Content, Key, decode_results, plain_key
from ckptfmt.run.progress_session import Session
from ckptfmt.run.progress_units import UnitCheckpoints
from ckptfmt.state.pause import collector_paused
from ckptfmt.state.tree import encode_state

PROGRESS_NAME = "progress"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_RESULTS_AT_ONCE = 4096


class Progress:
    """Units of work and their results, in a run. Made by `Run.progress`; its methods may be called from several threads.

        with run.progress("answers") as progress:
            for question in progress.pending(questions):
                answer = ask(question)
                progress.done(question, answer.text, {"tokens": answer.tokens})

    Killed and started again, the loop goes on with what is not done. A unit whose `done` has returned is never handed out again. The
    only moment at which work can be lost, and paid twice, is between the end of the work and the one append that `done` makes:
    with flush_every=1 `done` returns when the record is on the disk; with more, the last `flush_every` units may be lost in a power
    cut or after a write error, but not by a kill of the process.

    Args:
        total: how many units there are; learned from `pending` where it is not given.
        fingerprint: what identifies the work; another one than that of the finished units is refused.
        allow_changes: globs over its fields that may differ: finished units stay, the rest is done anew.
        flush_every: how many units may share one flush.
        max_attempts: how often a unit may fail before it is not pending any more; None for any number.

    Raises:
        FingerprintMismatchError: the finished units belong to other work; `.differences` says in what.
        CorruptError: acknowledged records are missing or disturbed.

    Attributes: `name`, `path`.
    """

    def __init__(
        self,
        disk: Disk,
        path: str,
        name: str,
        *,
        total: int | None = None,
        fingerprint: Fingerprint | None = None,
        allow_changes: Sequence[str] = (),
        flush_every: int = 1,
        max_attempts: int | None = 3,
        durable: bool = True,
        before_first_write: Callable[[], None] = lambda: None,
    ) -> None:
        for label, value, is_optional in (("flush_every", flush_every, 0), ("max_attempts", max_attempts, 1), ("total", total, 1)):
            least = 0 if label == "total" else 1
            if not (value is None and is_optional) and (type(value) is not int or value < least):
                raise ValueError(f"{label}={value!r}: expected an integer of at least {least}{' or None' if is_optional else ''}")
        self.name = name
        self.path = path
        self._max_attempts = max_attempts
        self._fingerprint = checked_fingerprint(fingerprint)
        self._units = UnitCheckpoints(disk, path, durable=durable)
        self._session = Session(
            disk,
            path,
            fingerprint=fingerprint,
            max_attempts=max_attempts,
            flush_every=flush_every,
            durable=durable,
            before_first_write=self._begin_run,
        )
        self._before_first_write = before_first_write
        self._ledger = self._session.ledger
        self._mutex = self._session.mutex
        self._is_total_given = total is not None
        self._session.total = self._ledger.total if total is None else total
        try:
            self._check_fingerprint(allow_changes)
        except BaseException:
            self._session.close()
            raise

    def _begin_run(self) -> None:
        self._before_first_write()
        at_exit.remember(self)

    def _check_fingerprint(self, allow_changes: Sequence[str]) -> None:
        stored = self._ledger.fingerprint
        if stored is None or self._fingerprint is None:
            return
        checked = Fingerprint.from_document(stored, where=f"{self.path}: fingerprint of the finished units")
        differences = compare(checked, self._fingerprint, allow=allow_changes)
        notable = [difference for difference in differences if difference.severity in ("error", "warning")]
        if any(difference.severity == "error" for difference in notable):
            error = mismatch_error(stored, notable, where=self.path)
            error.add_note("The finished units belong to the stored fingerprint. allow_changes=[...] keeps them and goes on with the rest.")
            raise error
        if notable:
            warn(str(mismatch_error(stored, notable, where=self.path)))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # Reading

    def is_done(self, key: Key) -> bool:
        """Tell whether a unit is finished; also by another process, as far as this one has looked."""
        return key in self._ledger.units

    def results(self, *, device: Any = "cpu") -> dict[Key, Any]:
        """Return every finished unit's result by its key, in the order in which they were finished.

        With several processes also those that others have finished by now.
        """
        with self._mutex:
            self._session.look_around()
            units = self._ledger.ordered_units()
        results: dict[Key, Any] = {}
        with collector_paused():
            for begin in range(0, len(units), _RESULTS_AT_ONCE):
                part = units[begin : begin + _RESULTS_AT_ONCE]
                contents = [self._ledger.content(key) for key, _ in part]
                decoded = decode_results(contents, [key for key, _ in part], where=self.path, device=device)
                for (key, _), content, result in zip(part, contents, decoded, strict=True):
                    results[key] = result if content.result_link is None else self._units.load(content.result_link, device=device)
        return results

    def result(self, key: Key, *, device: Any = "cpu") -> Any:
        """Return one finished unit's result."""
        content = self._content_of(key)
        if content.result_link is not None:
            return self._units.load(content.result_link, device=device)
        return decode_results([content], [key], where=self.path, device=device)[0]

    def metrics(self, key: Key) -> dict[str, int | float]:
        """Return one finished unit's metrics."""
        return dict(self._content_of(key).metrics)

    def state_path(self, key: Key) -> str | None:
        """Return the path of the checkpoint that was given to `done` as `state`, for `ckptfmt.load`; None where there was none."""
        link = self._content_of(key).state_link
        return None if link is None else self._units.path_of(link)

    def _content_of(self, key: Key) -> Content:
        with self._mutex:
            if key not in self._ledger.units:
                raise NameNotFoundError(f"{self.path}: unit {key!r:.80} is not done", name=str(key), path=self.path)
            return self._ledger.content(key)

    @property
    def total(self) -> int | None:
        """How many units there are; None where that is not known."""
        return self._session.total

    @property
    def completed(self) -> int:
        """How many units are finished."""
        return len(self._ledger.units)

    @property
    def ratio(self) -> float | None:
        """The part of all units that is finished, from 0 to 1; None where it is not known how many there are."""
        if self.total is None:
            return None
        return min(1.0, self.completed / self.total) if self.total else 1.0

    @property
    def failed(self) -> dict[Key, Failure]:
        """The units that failed `max_attempts` times and are not pending any more, with their last error."""
        with self._mutex:
            return self._ledger.final_failures(self._max_attempts)

    @property
    def aggregate(self) -> dict[str, MetricSummary]:
        """Count, sum, mean, min and max of each metric over all finished units."""
        with self._mutex:
            return self._ledger.aggregate()

    @property
    def eta_seconds(self) -> float | None:
        """How long the rest takes at the pace of the newest units; None where that is not known."""
        with self._mutex:
            return self._ledger.eta_seconds(self.total)

    def bar(self, width: int = 50) -> str:
        """Return the progress as one line of text with a bar of `width` characters."""
        return bar_text(self.completed, self.total, self.eta_seconds, failed_count=len(self.failed), width=width)

    # Working

    def pending(self, keys: Iterable[Key], *, batch_size: int | None = None, wait: bool = False) -> Pending:
        """Yield in order the keys that are neither finished nor being worked on; with `batch_size` lists of so many.

        Each key is handed out once, to one thread of one process. After the last one come those that failed meanwhile and may be
        attempted again, and those of processes that were killed meanwhile; with `wait` the loop stays until no other process works
        on any of the keys. A loop that is left by an error or a break gives back what it was handed last.
        """
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ValueError(f"batch_size={batch_size!r}: expected an integer of at least 1, or None")
        session = self._session
        session.check_open()
        if not self._is_total_given and isinstance(keys, Sized):
            session.total = max(session.total or 0, len(keys))
        return Pending(session.is_open_for, session.claim, session.left, keys, batch_size=batch_size, wait=wait)

    def track(self, keys: Iterable[Key], *, show: bool | None = None) -> Iterator[Key]:
        """Yield as `pending` does, with a live bar on a terminal's standard error; `show=False` leaves it out.

        Where standard error is no terminal, there is never a bar.
        """
        pending = self.pending(keys)
        with live_bar(self.name, self.completed, self.total, is_wanted=show is not False) as update:
            for key in pending:
                update(self.completed, self.total)
                yield key
            update(self.completed, self.total)

    def done(self, key: Key, result: Any = None, metrics: Mapping[str, Any] | None = None, *, state: Any = None) -> None:
        """Record that a unit is finished. Durable when this returns, with flush_every=1.

        `result` is anything that a state may hold: up to 1 MiB in the record, more in a checkpoint of its own. `metrics` are numbers,
        which `aggregate` sums up. `state`, such as a fold's model, becomes a checkpoint: see `state_path`. If this raises, the unit is
        not done, and may be recorded again.

        Raises:
            CheckpointExistsError: the unit is done with another result, which stays.
            UnsupportedTypeError: key, result or metrics cannot be stored.
        """
        plain = plain_key(key)
        values = metric_values(metrics or {})
        try:
            encoded = encode_state(result)
            encoded_state = None if state is None else encode_state(state)
        except (UnsupportedTypeError, LimitError) as error:
            error.add_note(f"while recording unit {key!r:.80} of {self.path}, which is not done yet")
            raise
        if self._session.is_recorded(key, encoded, among_others=True):
            return
        # Large checkpoints are written without the mutex: other threads go on.
        content = self._units.store(plain, encoded, values, encoded_state)
        with self._mutex:
            if self._session.is_recorded(key, encoded, among_others=bool(content.links)):
                self._units.discard(content)
                return
            is_claimed = self._session.record_done(key, content)
        if is_claimed and content.links:
            self._units.remove_leftovers(plain, content)

    def fail(self, key: Key, error: BaseException | str) -> None:
        """Record that an attempt at a unit failed. It is pending again, until it has failed `max_attempts` times."""
        plain_key(key)
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        self._session.record_failure(key, text.encode("utf-8", "backslashreplace").decode()[:MAX_ERROR_CHARACTERS])

    def flush(self) -> None:
        """Make everything recorded so far durable."""
        self._session.flush()

    def close(self) -> None:
        """Make everything durable and give claims up. What was read stays readable. Closing twice is harmless."""
        at_exit.forget(self)
        self._session.close()

    def finish_at_exit(self) -> None:
        """Close at the end of the interpreter."""
        self.close()


def open_progress(
    disk: Disk, run_path: str, name: str, begin_run: Callable[[], None], opened: dict[str, Progress], options: Mapping[str, Any]
) -> Progress:
    """Open a progress of a run, and keep it in `opened` under its name; one that was there before is closed.

    `begin_run` is called before the first write; whether it gets the run's lock does not matter.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"name={name!r}: expected up to 64 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit")
    if name in opened:
        # As when a cell of a notebook is run again: what the first one had claimed is free then.
        opened.pop(name).close()

    def before_first_write() -> None:
        # Who has the lock has said what the run is; several processes may work on one progress.
        with suppress(RunLockedError):
            begin_run()

    path = join(join(run_path, PROGRESS_NAME), name)
    opened[name] = Progress(disk, path, name, before_first_write=before_first_write, **options)
    return opened[name]


def close_progress(opened: Mapping[str, Progress]) -> None:
    """Close what a run has opened."""
    for progress in opened.values():
        progress.close()
