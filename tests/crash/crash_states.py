"""What a kill or a power cut may leave of a recorded piece of work: enumerated, and made into disks.

The model. A file's bytes are certain once the file was synced; of what was written after that, all, nothing,
half, or zeros in some or all places may be there. A directory's names are certain once the directory was synced;
of the changes after that, in the *ordered* model any prefix per directory took effect, in the *weak* model any
subset; a rename is one change. A new directory is a change of its parent. After every prefix of the recorded
operations, each combination of these is one state, and so is the plain kill, after which everything done is there.

Many combinations are the same state; each is given out once. Where there are too many, extremes and a seeded
sample are taken. Nothing here knows what a checkpoint is: workloads and checks are in the tests.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.memory_store import ROOT, Tree
from ckptfmt.disk.recording import (
    Created,
    Linked,
    MadeDirectory,
    Marked,
    Record,
    RemovedDirectory,
    Renamed,
    SyncedDirectory,
    SyncedFile,
    SyncedName,
    Unlinked,
    Wrote,
)

SECTOR_BYTES = 512

# All subsets of so many pending changes are tried; of more, a sample of as many as that gives.
MAX_EXHAUSTIVE_CHANGES = 8
MAX_NAME_CHOICES = 2**MAX_EXHAUSTIVE_CHANGES
MAX_DATA_CHOICES = 64


@dataclass(frozen=True)
class CrashState:
    """A disk as it may be found after the first `cut_index` operations; `acknowledged_marks` were made before that."""

    cut_index: int
    description: str
    disk: MemoryDisk
    acknowledged_marks: tuple[str, ...]


@dataclass(frozen=True)
class _Change:
    """One change of names in a directory that was not synced since; it takes effect as a whole or not at all."""

    directory: int
    effects: Mapping[str, int | None]
    text: str


@dataclass(frozen=True)
class _Plan:
    """One combination: which pending changes took effect, and what became of the data of each dirty file."""

    kept: tuple[bool, ...]
    data: tuple[tuple[int, str, bytes], ...]


def iter_states(
    records: Sequence[Record], initial: Tree, *, weak: bool = True, seed: int = 0, limit: int | None = None
) -> Iterator[CrashState]:
    """Yield each distinct state that the recorded work, begun on `initial`, may leave.

    `limit` bounds how many are yielded; they are spread evenly over the cuts, and the kill state of a cut comes first.
    The same arguments give the same states.
    """
    replay = _Replay(initial)
    seen: set[int] = set()
    yielded_count = 0
    for cut_index in range(len(records) + 1):
        if cut_index:
            replay.apply(records[cut_index - 1])
        share = None if limit is None else -(-(limit - yielded_count) // (len(records) + 1 - cut_index))
        where = f"after {cut_index} of {len(records)} operations" + (f", {records[cut_index - 1]}" if cut_index else "")
        plans = _plans(replay, random.Random(f"{seed}/{cut_index}"), weak, share)
        for state in itertools.islice(_states_at(replay, cut_index, where, plans, seen), share):
            yielded_count += 1
            yield state


def _states_at(replay: _Replay, cut_index: int, where: str, plans: Sequence[_Plan], seen: set[int]) -> Iterator[CrashState]:
    marks = tuple(replay.marks)
    for plan in plans:
        tree, fingerprint = replay.materialise(plan, marks)
        if fingerprint not in seen:
            seen.add(fingerprint)
            yield CrashState(cut_index, f"{where}: {replay.describe(plan)}", MemoryDisk(tree), marks)


def _plans(replay: _Replay, generator: random.Random, weak: bool, wanted_count: int | None) -> list[_Plan]:
    """Return the combinations at one cut, shuffled; the first is the kill, where everything is there."""
    choices = _subsets(len(replay.pending), generator) if weak else _prefixes(replay.pending, generator)
    max_data_choices = MAX_DATA_CHOICES
    if wanted_count is not None:
        # Some plans give the same state, so a few times as many as are wanted.
        max_data_choices = min(MAX_DATA_CHOICES, 2 + 4 * wanted_count // len(choices))
    plans = []
    for kept in choices:
        variants = [[(inode, label, content) for label, content in replay.variants(inode)] for inode in replay.find_dirty_files(kept)]
        plans += [_Plan(kept, data) for data in _data_choices(variants, generator, max_data_choices)]
    rest = plans[1:]
    generator.shuffle(rest)
    return [plans[0], *rest]


def _subsets(count: int, generator: random.Random) -> list[tuple[bool, ...]]:
    if count <= MAX_EXHAUSTIVE_CHANGES:
        return list(itertools.product((True, False), repeat=count))
    prefixes = [tuple(index < length for index in range(count)) for length in range(count, -1, -1)]
    one_lost = [tuple(index != lost for index in range(count)) for lost in range(count)]
    one_kept = [tuple(index == kept for index in range(count)) for kept in range(count)]
    chosen = dict.fromkeys((*prefixes, *one_lost, *one_kept))
    while len(chosen) < MAX_NAME_CHOICES:
        chosen[tuple(generator.random() < 0.5 for _ in range(count))] = None
    return list(chosen)


def _prefixes(pending: Sequence[_Change], generator: random.Random) -> list[tuple[bool, ...]]:
    counts = Counter(change.directory for change in pending)
    lengths_by_directory = [range(count, -1, -1) for count in counts.values()]
    if math.prod(map(len, lengths_by_directory)) <= MAX_NAME_CHOICES:
        chosen = list(itertools.product(*lengths_by_directory))
    else:
        sample: dict[tuple[int, ...], None] = {tuple(counts.values()): None, (0,) * len(counts): None}
        while len(sample) < MAX_NAME_CHOICES:
            sample[tuple(generator.choice(lengths) for lengths in lengths_by_directory)] = None
        chosen = list(sample)
    return [_keep_prefixes(pending, dict(zip(counts, lengths, strict=True))) for lengths in chosen]


def _keep_prefixes(pending: Sequence[_Change], length_by_directory: Mapping[int, int]) -> tuple[bool, ...]:
    seen: Counter[int] = Counter()
    kept = []
    for change in pending:
        kept.append(seen[change.directory] < length_by_directory[change.directory])
        seen[change.directory] += 1
    return tuple(kept)


def _data_choices(
    variants: Sequence[Sequence[tuple[int, str, bytes]]], generator: random.Random, max_count: int
) -> list[tuple[tuple[int, str, bytes], ...]]:
    if math.prod(map(len, variants)) <= max_count:
        return list(itertools.product(*variants))
    # Complete and empty come first and second in each list.
    chosen: dict[tuple[int, ...], None] = {(0,) * len(variants): None, (1,) * len(variants): None}
    one_damaged = [
        tuple(variant if other == index else 0 for other in range(len(variants)))
        for index, of_file in enumerate(variants)
        for variant in range(1, len(of_file))
    ]
    generator.shuffle(one_damaged)
    chosen.update(dict.fromkeys(one_damaged[: max(0, (max_count - len(chosen)) // 2)]))
    while len(chosen) < max_count:
        chosen[tuple(generator.randrange(len(of_file)) for of_file in variants)] = None
    return [tuple(of_file[variant] for of_file, variant in zip(variants, indices, strict=True)) for indices in chosen]


def _torn(content: bytes, certain_bytes: int) -> bytes:
    """Return the content with every second sector of the uncertain part zeroed, beginning with the first whole one."""
    torn = bytearray(content)
    first_sector = -(-certain_bytes // SECTOR_BYTES)
    for offset in range(first_sector * SECTOR_BYTES, len(content), 2 * SECTOR_BYTES):
        end = min(offset + SECTOR_BYTES, len(content))
        torn[offset:end] = bytes(end - offset)
    return bytes(torn)


class _Replay:
    """What is visible, what is certain, and which changes lie in between, after some of the operations."""

    def __init__(self, initial: Tree) -> None:
        self._visible = {inode: dict(entries) for inode, entries in initial.directories.items()}
        self._certain = {inode: dict(entries) for inode, entries in initial.directories.items()}
        self._content = dict(initial.files)
        self._certain_bytes = {inode: len(content) for inode, content in initial.files.items()}
        self._inode_of_file: dict[int, int] = {}
        self._next_inode = 1 + max((ROOT, *self._visible, *self._content))
        self._variants: dict[int, list[tuple[str, bytes]]] = {}
        self.pending: list[_Change] = []
        self.marks: list[str] = []

    def apply(self, record: Record) -> None:
        """Do one recorded operation."""
        match record:
            case Marked(name):
                self.marks.append(name)
            case MadeDirectory(path):
                inode = self._new_inode()
                self._visible[inode] = {}
                self._certain[inode] = {}
                parent, name = path.rsplit("/", 1)
                self._change(parent, {name: inode}, f"make {path}")
            case RemovedDirectory(path):
                parent, name = path.rsplit("/", 1)
                self._change(parent, {name: None}, f"remove {path}")
            case Created(directory, name, file):
                inode = self._inode_of_file[file] = self._new_inode()
                self._content[inode] = b""
                self._certain_bytes[inode] = 0
                self._change(directory, {name: inode}, f"create {name}")
            case Wrote(file, offset_bytes, data):
                inode = self._inode_of_file[file]
                self._content[inode] = self._content[inode][:offset_bytes] + data
                self._variants.pop(inode, None)
            case SyncedFile(file):
                inode = self._inode_of_file[file]
                self._certain_bytes[inode] = len(self._content[inode])
                self._variants.pop(inode, None)
            case SyncedName(directory, name):
                inode = self._visible[self._find(directory)][name]
                self._certain_bytes[inode] = len(self._content[inode])
                self._variants.pop(inode, None)
            case Renamed(directory, source, target):
                entries = self._visible[self._find(directory)]
                if entries[source] != entries.get(target):
                    self._change(directory, {source: None, target: entries[source]}, f"rename {source} to {target}")
            case Linked(source_directory, source, directory, target):
                inode = self._visible[self._find(source_directory)][source]
                self._change(directory, {target: inode}, f"link {target}")
            case Unlinked(directory, name):
                self._change(directory, {name: None}, f"unlink {name}")
            case SyncedDirectory(directory):
                inode = self._find(directory)
                self._certain[inode] = dict(self._visible[inode])
                self.pending = [change for change in self.pending if change.directory != inode]

    def _new_inode(self) -> int:
        self._next_inode += 1
        return self._next_inode - 1

    def _find(self, path: str) -> int:
        inode = ROOT
        for name in filter(None, path.split("/")):
            inode = self._visible[inode][name]
        return inode

    def _change(self, directory: str, effects: Mapping[str, int | None], text: str) -> None:
        change = _Change(self._find(directory), effects, text)
        _take_effect(self._visible[change.directory], change)
        self.pending.append(change)

    def variants(self, inode: int) -> list[tuple[str, bytes]]:
        """Return what may be there of a file, each content once; complete comes first, empty second."""
        if inode not in self._variants:
            content, certain_bytes = self._content[inode], self._certain_bytes[inode]
            certain, uncertain_bytes = content[:certain_bytes], len(content) - certain_bytes
            half = content[: certain_bytes + uncertain_bytes // 2]
            distinct: dict[bytes, str] = {}
            for label, candidate in (
                ("complete", content),
                ("empty", certain),
                ("half", half),
                ("zeros", certain + bytes(uncertain_bytes)),
                ("half, then zeros", half + bytes(len(content) - len(half))),
                ("torn", _torn(content, certain_bytes)),
            ):
                distinct.setdefault(candidate, label)
            self._variants[inode] = [(label, candidate) for candidate, label in distinct.items()]
        return self._variants[inode]

    def find_dirty_files(self, kept: Sequence[bool]) -> list[int]:
        """Return the files that can be reached with the kept changes and hold bytes that were not synced."""
        return sorted(
            {
                inode
                for _, inode in self._walk(self._entries(kept))
                if len(self._content.get(inode, b"")) > self._certain_bytes.get(inode, 0)
            }
        )

    def materialise(self, plan: _Plan, marks: tuple[str, ...]) -> tuple[Tree, int]:
        """Return the contents of one state, and a number that is equal for equal states."""
        entries = self._entries(plan.kept)
        chosen = {inode: content for inode, _, content in plan.data}
        directories: dict[int, Mapping[str, int]] = {ROOT: entries[ROOT]}
        files: dict[int, bytes] = {}
        found: list[tuple[str, bytes | None]] = []
        for path, inode in self._walk(entries):
            if inode in entries:
                directories[inode] = entries[inode]
                found.append((path, None))
            else:
                files[inode] = chosen.get(inode, self._content[inode])
                found.append((path, files[inode]))
        return Tree(directories, files), hash((marks, frozenset(found)))

    def describe(self, plan: _Plan) -> str:
        """Say what is lost in one state."""
        lost = [change.text for change, is_kept in zip(self.pending, plan.kept, strict=True) if not is_kept]
        damaged = [f"{self._name(inode)} {label}" for inode, label, _ in plan.data if label != "complete"]
        if not lost and not damaged:
            return "killed, nothing lost"
        return "power cut, " + "; ".join([*(f"lost: {text}" for text in lost), *damaged])

    def _name(self, inode: int) -> str:
        for path, found in self._walk(self._visible):
            if found == inode:
                return path
        return "a nameless file"

    def _entries(self, kept: Sequence[bool]) -> Mapping[int, Mapping[str, int]]:
        entries: dict[int, Mapping[str, int]] = dict(self._certain)
        copies: dict[int, dict[str, int]] = {}
        for change, is_kept in zip(self.pending, kept, strict=True):
            if is_kept:
                if change.directory not in copies:
                    entries[change.directory] = copies[change.directory] = dict(self._certain[change.directory])
                _take_effect(copies[change.directory], change)
        return entries

    @staticmethod
    def _walk(entries: Mapping[int, Mapping[str, int]]) -> Iterator[tuple[str, int]]:
        pending = [("", ROOT)]
        while pending:
            path, directory = pending.pop()
            for name, inode in entries[directory].items():
                yield f"{path}/{name}", inode
                if inode in entries:
                    pending.append((f"{path}/{name}", inode))


def _take_effect(entries: dict[str, int], change: _Change) -> None:
    for name, inode in change.effects.items():
        if inode is None:
            entries.pop(name, None)
        else:
            entries[name] = inode
