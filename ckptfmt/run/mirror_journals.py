"""The journals of a run in its mirror: history, studies and progress, each kept equal by a `JournalCopy`.

The checkpoints that a record of a progress names are copied before the record, so that no copy names what it does not have. Claims are
not copied: they are worth nothing after their process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress

from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointError
from ckptfmt.format.journal_record import parse_segment_name
from ckptfmt.run.history import HISTORY_NAME
from ckptfmt.run.journal_copy import JournalCopy
from ckptfmt.run.mirror_copy import copy_checkpoint, is_copied
from ckptfmt.run.progress_records import UnitLink, links_in
from ckptfmt.run.progress_units import UNITS_NAME
from ckptfmt.run.progress_writers import WRITERS_NAME

STUDIES_NAME = "studies"
PROGRESS_NAME = "progress"
# How deep journals lie below each of these.
_DEPTHS = {HISTORY_NAME: 0, STUDIES_NAME: 2, PROGRESS_NAME: 2}

Names = tuple[str, ...]


def find_journals(disk: Disk, run_path: str) -> list[Names]:
    """Return where in a run journals with segments lie, as the names on the way."""
    return [names for top, depth in _DEPTHS.items() for names in _find_below(disk, run_path, (top,), depth)]


def path_below(path: str, names: Names) -> str:
    """Return the path of something in a run."""
    for name in names:
        path = join(path, name)
    return path


def _find_below(disk: Disk, run_path: str, names: Names, depth: int) -> Iterator[Names]:
    try:
        directory = disk.open_directory(path_below(run_path, names))
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        found = directory.names()
    finally:
        directory.close()
    if any(parse_segment_name(name) for name in found):
        yield names
    elif depth:
        inner = [WRITERS_NAME] if names[0] == PROGRESS_NAME and len(names) == 2 else found
        for name in inner:
            if not name.startswith("."):
                yield from _find_below(disk, run_path, (*names, name), depth - (len(names) > 1 or names[0] == STUDIES_NAME))


def units_of(payload: bytes, names: Names) -> tuple[UnitLink, ...]:
    """Return the checkpoints that a record of the journal with these names names."""
    return links_in(payload, where="/".join(names)) if names[0] == PROGRESS_NAME else ()


def unit_path(path: str, names: Names, link: UnitLink) -> str:
    """Return where the checkpoint of a unit lies in a run."""
    return path_below(path, (*names[:2], UNITS_NAME, link.name))


class MirrorJournals:
    """Copies of all journals of one run. Used by one thread."""

    def __init__(self, disk: Disk, source: str, target: str) -> None:
        self._disk = disk
        self._source = source
        self._target = target
        self._copies: dict[Names, JournalCopy] = {}

    def exist(self) -> bool:
        """Tell whether the run has anything to copy."""
        return bool(find_journals(self._disk, self._source))

    def update(self, tops: Collection[str] = tuple(_DEPTHS)) -> dict[str, Exception]:
        """Bring every copy below these names up to date; return by name what went wrong, which keeps the others from nothing."""
        failed: dict[str, Exception] = {}
        everything = find_journals(self._disk, self._source)
        found = [names for names in everything if names[0] in tops]
        for gone in self._copies.keys() - set(everything):
            self._copies.pop(gone).close()
        for names in found:
            if names not in self._copies:
                paths = (path_below(self._source, names), path_below(self._target, names))
                self._copies[names] = JournalCopy(self._disk, *paths, self._copying_units(names))
            try:
                self._copies[names].update()
            except (OSError, CheckpointError) as error:
                failed["/".join(names[:2])] = error
        return failed

    def close(self) -> None:
        """Close every copy."""
        for copy in self._copies.values():
            copy.close()
        self._copies.clear()

    def _copying_units(self, names: Names) -> Callable[[Sequence[bytes]], None]:
        def copy_units(payloads: Sequence[bytes]) -> None:
            for payload in payloads:
                for link in units_of(payload, names):
                    source, target = unit_path(self._source, names, link), unit_path(self._target, names, link)
                    # What is damaged or gone in the run itself must not keep the rest from the mirror.
                    with suppress(CheckpointError):
                        if not is_copied(self._disk, source, target):
                            copy_checkpoint(self._disk, source, target)

        return copy_units
