"""An object store in memory whose clock, failures and past states a test can see and set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ckptfmt.disk.object_store import ChangedMeanwhileError, Condition, Entry, Expected, Listing, ObjectStatus, Piece
from ckptfmt.disk.remote import RemoteDisk

CHANGES = ("write", "begin_upload", "write_part", "complete", "abort", "remove", "copy")


@dataclass(frozen=True)
class StoredObject:
    """What lies under a key."""

    data: bytes
    version: str
    modified_at: datetime


@dataclass
class _Fault:
    kind: str
    nth: int
    times: int
    error: BaseException
    is_after: bool


@dataclass
class FakeStore:
    """Attributes: `calls` are the kinds of all calls so far; `states` what was stored after each change."""

    objects: dict[str, StoredObject] = field(default_factory=dict)
    uploads: dict[int, tuple[str, datetime, dict[int, bytes]]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    states: list[dict[str, StoredObject]] = field(default_factory=list)
    now: datetime = datetime(2026, 11, 21, tzinfo=UTC)
    has_uploads: bool = True
    _faults: list[_Fault] = field(default_factory=list)
    _made: int = 0

    def disk(self) -> RemoteDisk:
        """Return a disk that finds this store under fake://."""
        return RemoteDisk(lambda _: self)

    def fail(self, error: BaseException, *, kind: str = "any", nth: int = 1, times: int = 1, is_after: bool = False) -> None:
        """Let the `nth` call of a kind from now on fail, before it has an effect or after; and the ones that follow, `times` in all."""
        self._faults.append(_Fault(kind, self._count(kind) + nth, times, error, is_after))

    def heal(self) -> None:
        """Forget all failures."""
        self._faults.clear()

    def _count(self, kind: str) -> int:
        return len(self.calls) if kind == "any" else self.calls.count(kind)

    @contextmanager
    def _call(self, kind: str) -> Iterator[None]:
        self.calls.append(kind)
        struck = [
            fault
            for fault in self._faults
            if fault.kind in ("any", kind) and fault.nth <= self._count(fault.kind) < fault.nth + fault.times
        ]
        for fault in struck:
            if not fault.is_after:
                raise fault.error
        yield
        if kind in CHANGES:
            self.states.append(dict(self.objects))
        for fault in struck:
            raise fault.error

    def _put(self, key: str, data: bytes, expected: Expected) -> str:
        there = self.objects.get(key)
        if expected is Condition.NOTHING and there is not None:
            raise FileExistsError(key)
        if isinstance(expected, str) and (there is None or there.version != expected):
            raise ChangedMeanwhileError(key)
        self._made += 1
        self.objects[key] = StoredObject(data, f"v{self._made}", self.now)
        return f"v{self._made}"

    def _get(self, key: str) -> StoredObject:
        if key not in self.objects:
            raise FileNotFoundError(key)
        return self.objects[key]

    def status(self, key: str) -> ObjectStatus:
        with self._call("status"):
            found = self._get(key)
            return ObjectStatus(len(found.data), found.version, found.modified_at)

    def read(self, key: str, offset_bytes: int, size_bytes: int) -> Piece:
        with self._call("read"):
            found = self._get(key)
            status = ObjectStatus(len(found.data), found.version, found.modified_at)
            return Piece(found.data[offset_bytes : offset_bytes + size_bytes], status)

    def write(self, key: str, data: bytes | bytearray, expected: Expected) -> str:
        with self._call("write"):
            return self._put(key, bytes(data), expected)

    def begin_upload(self, key: str) -> FakeUpload | None:
        if not self.has_uploads:
            return None
        with self._call("begin_upload"):
            self._made += 1
            self.uploads[self._made] = (key, self.now, {})
            return FakeUpload(self, self._made)

    def list(self, prefix: str, *, is_deep: bool = False) -> Listing:
        with self._call("list"):
            below = {key[len(prefix) + 1 :]: found for key, found in self.objects.items() if key.startswith(f"{prefix}/")}
            entries = {}
            for name, found in below.items():
                first, slash, _ = name.partition("/")
                if is_deep or not slash:
                    entries[name] = Entry(name, len(found.data), found.modified_at, is_prefix=False)
                else:
                    entries[first] = Entry(first, 0, None, is_prefix=True)
            return Listing(list(entries.values()), self.now)

    def has_any(self, prefix: str) -> bool:
        with self._call("has_any"):
            return any(key.startswith(f"{prefix}/") for key in self.objects)

    def remove(self, key: str) -> None:
        with self._call("remove"):
            self.objects.pop(key, None)

    def copy(self, source: str, target: str) -> None:
        with self._call("copy"):
            self._put(target, self._get(source).data, Condition.ANYTHING)

    def abort_uploads(self, prefix: str, *, before: datetime) -> None:
        with self._call("abort_uploads"):
            for number, (key, began_at, _) in list(self.uploads.items()):
                if key.startswith(f"{prefix}/") and began_at < before:
                    del self.uploads[number]

    def wait(self, hours: float) -> None:
        """Let the store's clock go on."""
        self.now += timedelta(hours=hours)


@dataclass
class FakeUpload:
    """An upload in parts."""

    store: FakeStore
    number: int

    def write_part(self, number: int, data: bytes | bytearray) -> str:
        with self.store._call("write_part"):
            self.store.uploads[self.number][2][number] = bytes(data)
            return f"part {number}"

    def complete(self, tokens: Sequence[str], expected: Expected) -> None:
        with self.store._call("complete"):
            if self.number not in self.store.uploads:
                raise FileNotFoundError("no such upload")
            key, _, parts = self.store.uploads[self.number]
            if list(tokens) != [f"part {number}" for number in sorted(parts)]:
                raise ValueError("not all parts are there")
            self.store._put(key, b"".join(parts[number] for number in sorted(parts)), expected)
            del self.store.uploads[self.number]

    def abort(self) -> None:
        with self.store._call("abort"):
            self.store.uploads.pop(self.number, None)
