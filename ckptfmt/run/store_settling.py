"""What becomes of a run's local directory when its store is opened: the store decides.

What the directory has beyond the store goes on where it continues the same records, as after a kill before the copying. Otherwise
somebody else has gone on since, and it is set aside under a dated name. What the store has beyond the directory is brought: the journals
whole, and the newest sound checkpoints. Nothing is deleted, and the store is not changed here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum

from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointNotFoundError
from ckptfmt.run.journal_content import JournalContent
from ckptfmt.run.journal_reader import read_sound_part
from ckptfmt.run.mirror_copy import find_identity, is_same_state
from ckptfmt.run.mirror_fill import fill, is_being_filled
from ckptfmt.run.mirror_journals import MirrorJournals, Names, find_journals, path_below
from ckptfmt.run.notices import warn
from ckptfmt.run.retention import Policy
from ckptfmt.run.steps import StepDirectory, step_name


class Standing(Enum):
    """How a local journal stands to the one in the store."""

    SAME = "same"
    AHEAD = "ahead"
    BEHIND = "behind"
    APART = "apart"


def settle(disk: Disk, local: StepDirectory, store: StepDirectory, *, is_own: bool) -> str | None:
    """Bring the local directory in line with the store; return what is worth a word.

    With `is_own` nobody but this directory has written to the store since it was last opened from here.
    """
    there = {entry.step: entry.manifest for entry in store.known_entries() if entry.manifest is not None} if store.exists() else {}
    journals = find_journals(disk, store.path) if store.exists() else []
    if not there and not journals:
        return None
    if is_being_filled(disk, local.path) or not (_has_checkpoints(local) or find_journals(disk, local.path)):
        return _bring(disk, local, store)
    ours, theirs = find_identity(disk, local.path), find_identity(disk, store.path)
    if ours is not None and theirs is not None and ours.created_at_utc != theirs.created_at_utc:
        aside = local.set_everything_aside(reason="other-run", now=datetime.now(UTC))
        return _told(aside, _bring(disk, local, store))
    standings = {names: _standing(disk, local.path, store.path, names, is_own=is_own) for names in find_journals(disk, local.path)}
    have = {entry.step: entry.manifest for entry in local.known_entries() if entry.manifest is not None}
    if set(journals) <= set(standings) and not {Standing.BEHIND, Standing.APART} & set(standings.values()):
        newest = max(there, default=-1)
        return _bring(disk, local, store) if newest > max(have, default=-1) else None
    # Journals first: a history is never to be taken for that of other checkpoints.
    tops = dict.fromkeys(names[0] for names, standing in standings.items() if standing in (Standing.AHEAD, Standing.APART))
    left = [step for step, manifest in have.items() if step not in there or not is_same_state(there[step], manifest)]
    names = [*tops, *(step_name(step) for step in sorted(left, reverse=True))]
    aside = local.set_aside(names, reason="not-in-store", now=datetime.now(UTC))
    return _told(aside, _bring(disk, local, store))


def _told(aside: list[str], brought: str | None) -> str:
    shown = f"{', '.join(aside[:3])}{', ...' if len(aside) > 3 else ''}"
    return "; ".join(filter(None, (f"what only this machine had is kept as {shown}" if aside else None, brought)))


def _has_checkpoints(local: StepDirectory) -> bool:
    return bool(local.known_entries())


def _bring(disk: Disk, local: StepDirectory, store: StepDirectory) -> str | None:
    """Bring journals and the newest checkpoints."""
    journals = MirrorJournals(disk, store.path, local.path)
    try:
        failed = journals.update()
    finally:
        journals.close()
    for name, error in failed.items():
        # What is sound of it is brought by the filling.
        warn(f"{store.path}: {name}: {error}")
    before = {entry.step for entry in local.known_entries()}
    brought = fill(disk, store.path, local.path, Policy())
    local.forget()
    steps = [step for step in brought.steps if step not in before]
    return f"brought from the store: steps {', '.join(map(str, steps))}" if steps else None


def _standing(disk: Disk, local_path: str, store_path: str, names: Names, *, is_own: bool) -> Standing:
    local, store = _read(disk, path_below(local_path, names)), _read(disk, path_below(store_path, names))
    if store is None or not store.sound_count:
        return Standing.AHEAD if local is not None and local.sound_count else Standing.SAME
    if local is None or not local.sound_count:
        return Standing.BEHIND
    if local.first_number != store.first_number:
        # Compacted, which loses the numbers. Alone in the store means that it was here, and after the last copying.
        return Standing.AHEAD if is_own and local.first_number > store.first_number else Standing.APART
    if any(ours != theirs for ours, theirs in zip(local.iter_payloads(), store.iter_payloads(), strict=False)):
        return Standing.APART
    if local.sound_count == store.sound_count:
        return Standing.SAME
    return Standing.AHEAD if local.sound_count > store.sound_count else Standing.BEHIND


def _read(disk: Disk, path: str) -> JournalContent | None:
    try:
        return read_sound_part(disk, path)[0]
    except CheckpointNotFoundError:
        return None
