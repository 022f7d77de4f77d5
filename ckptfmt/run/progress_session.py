"""One process at work on a progress: what it has claimed, and the order in which it reads and writes. Spec 17.4.

Everything here happens under one mutex, except the writing of large checkpoints. Nothing is written before the first claim or record.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointExistsError
from ckptfmt.run.fingerprint import Fingerprint
from ckptfmt.run.progress_claims import CLAIMS_NAME, DIGEST_BYTES, Claims, remove_claims_of
from ckptfmt.run.progress_ledger import Ledger
from ckptfmt.run.progress_records import BEGIN, DONE, FAIL, TOTAL, Content, Key, content_digest, encode_content, key_digest, plain_key
from ckptfmt.run.progress_writers import ProgressWriters
from ckptfmt.state.tree import EncodedState


class Session:
    """The writing side of a `Progress`.

    `left` takes keys of loops that were left; it is filled without the mutex, because a loop may end anywhere.
    """

    def __init__(
        self,
        disk: Disk,
        path: str,
        *,
        fingerprint: Fingerprint | None,
        max_attempts: int | None,
        flush_every: int,
        durable: bool,
        before_first_write: Callable[[], None],
    ) -> None:
        self.path = path
        self.mutex = threading.RLock()
        self.ledger = Ledger(path)
        self.left: deque[tuple[Key, list[Key]]] = deque()
        self.total: int | None = None
        self.is_closed = False
        self._disk = disk
        self._fingerprint = fingerprint
        self._max_attempts = max_attempts
        self._before_first_write = before_first_write
        self._process = os.getpid()
        # Keys that this process works on, each with the list of what its loop is to come back to.
        self._working: dict[Key, list[Key]] = {}
        self._writers = ProgressWriters(disk, path, self.ledger, durable=durable, flush_every=flush_every)
        self._claims: Claims | None = None
        if self._writers.own:
            # At once: while this process holds the lock, the claims of the one before would count.
            remove_claims_of(disk, join(path, CLAIMS_NAME), self._writers.own)

    def check_open(self) -> None:
        """Refuse to go on with what is closed, or was opened by the parent of a forked process."""
        if self.is_closed:
            raise ValueError(f"{self.path}: this progress is closed; open it again")
        if self._process != os.getpid():
            raise ValueError(f"{self.path}: this progress was opened in another process; open it again in this one")

    def look_around(self) -> None:
        """Read what others have written by now, if anybody may."""
        if not self.is_closed and self._process == os.getpid():
            self._writers.refresh()

    def begin(self) -> Claims:
        """Become a writer, with the first call."""
        self.check_open()
        if self._claims is None:
            self._before_first_write()
            self._writers.begin()
            claims = Claims(self._disk, join(self.path, CLAIMS_NAME), self._writers.path, self._writers.own)
            try:
                self._append([BEGIN, self._now(), None if self._fingerprint is None else self._fingerprint.to_document()])
            except BaseException:
                claims.close(is_owner=True)
                raise
            self._claims = claims
        if self.total != self.ledger.total:
            self._append([TOTAL, self._now(), self.total])
        return self._claims

    def is_open_for(self, key: Key) -> bool:
        """Tell whether a unit is to be done and not being worked on, as far as is known here."""
        if self.left:
            self._take_back_left()
        if type(key) is not int and type(key) is not str:
            plain_key(key)
        if key in self.ledger.units or key in self._working:
            return False
        failure = self.ledger.failures.get(key)
        return failure is None or self._max_attempts is None or failure.attempts < self._max_attempts

    def claim(self, candidates: list[Key], come_back: list[Key], busy: list[Key]) -> list[Key]:
        """Claim those of the candidates that are to be done; those of other processes go to `busy`."""
        digests = {key: _digest(key) for key in candidates}
        with self.mutex:
            claims = self.begin()
            with claims.turn():
                # What others have finished is read after what they claim, so that nothing slips through in between.
                of_others = claims.of_others()
                self._writers.refresh()
                still_open = [key for key in digests if self.is_open_for(key)]
                busy += [key for key in still_open if digests[key] in of_others]
                free = [key for key in still_open if digests[key] not in of_others]
                if free:
                    claims.take([digests[key] for key in free])
            self._working.update(dict.fromkeys(free, come_back))
        return free

    def is_recorded(self, key: Key, result: EncodedState, *, among_others: bool) -> bool:
        """Tell whether a unit is done with this result; `among_others` looks first what they have done by now.

        Raises:
            CheckpointExistsError: it is done with another one.
        """
        with self.mutex:
            self.begin()
            if among_others:
                self.look_around()
            if key not in self.ledger.units:
                return False
            if self.ledger.content(key).identity == content_digest(result):
                return True
        raise CheckpointExistsError(
            f"{self.path}: unit {key!r:.80} is done with another result\n"
            "The first result stays. Ask is_done(key), or take keys from pending(), so that no unit is done twice.",
            path=self.path,
        )

    def record_done(self, key: Key, content: Content) -> bool:
        """Record a finished unit; tell whether it was claimed here."""
        with self.mutex:
            claims = self.begin()
            self._append([DONE, plain_key(key), self._now(), encode_content(content)])
            claims.forget(_digest(key))
            return self._working.pop(key, None) is not None

    def record_failure(self, key: Key, text: str) -> None:
        """Record a failed attempt, and give the unit back."""
        with self.mutex:
            claims = self.begin()
            if key not in self._working:
                self.look_around()
            known = self.ledger.failures.get(key)
            self._append([FAIL, plain_key(key), self._now(), known.attempts + 1 if known else 1, text])
            come_back = self._working.pop(key, None)
            claims.release([_digest(key)])
            if come_back is not None and self._max_attempts is not None and self.is_open_for(key):
                come_back.append(key)

    def flush(self) -> None:
        """Acknowledge everything recorded so far."""
        with self.mutex:
            self.check_open()
            self._writers.flush()

    def close(self) -> None:
        """Make everything durable and give claims and lock up."""
        with self.mutex:
            if self.is_closed:
                return
            self.is_closed = True
            try:
                if self._claims is not None:
                    self._claims.close(is_owner=self._process == os.getpid())
            finally:
                self._writers.close()

    def _take_back_left(self) -> None:
        with self.mutex, suppress(IndexError):
            while True:
                key, come_back = self.left.popleft()
                if self._working.get(key) is come_back:
                    del self._working[key]
                    if self._claims is not None:
                        self._claims.release([_digest(key)])

    def _append(self, record: list[Any]) -> None:
        self._writers.append(record)
        self.ledger.add(self._writers.own, [record])

    def _now(self) -> float:
        """Return the time, never earlier than that of a record that is known."""
        return max(time.time(), self.ledger.last_at)


def _digest(key: Key) -> bytes:
    return key_digest(plain_key(key))[:DIGEST_BYTES]
