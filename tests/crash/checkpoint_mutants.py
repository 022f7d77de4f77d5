"""The table of mutants: the product with one step of the commit, of the deletion or of the reader's checks left out or moved.

For each there is one check that must fail with it. A sync or rename without a mutant fails `test_checkpoint_mutants`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.crash.checkpoint_killers import (
    THREADED,
    Killer,
    crash,
    crash_after_kill,
    damage,
    damaged_manifest,
    fault,
    filling,
    locked,
    race,
    short_base,
    without_locks,
)
from tests.crash.checkpoint_product import Edit
from tests.crash.checkpoint_workloads import OTHER, TARGET


@dataclass(frozen=True)
class Mutant:
    """One change of the product, and the check that notices it."""

    name: str
    edit: Edit
    killer: Killer


def _staging(name: str, old: str, new: str, killer: Killer) -> Mutant:
    return Mutant(name, Edit("ckptfmt.checkpoint.staging", old, new), killer)


def _paths(name: str, old: str, new: str, killer: Killer) -> Mutant:
    return Mutant(name, Edit("ckptfmt.disk.paths", old, new), killer)


def _delete(name: str, old: str, new: str, killer: Killer) -> Mutant:
    return Mutant(name, Edit("ckptfmt.checkpoint.delete", old, new), killer)


def _checkpoint(module: str, name: str, old: str, new: str, killer: Killer) -> Mutant:
    return Mutant(name, Edit(f"ckptfmt.checkpoint.{module}", old, new), killer)


_NEW_PARENTS = "first save below missing directories"
_NAME = 'self._free_name(lambda length: f"{stem}-{digest_hex[:length]}{suffix}")'
_LOOK = (
    "            with suppress(FormatError, OSError):\n                visible = find_manifest(self.directory)\n                self._is"
)
_SYNC_PARENT = "    if durable and parent != path:\n        _sync_parent(disk, parent, is_required=is_new)"
_CLOSE = "self._unfinished.discard(file)\n        file.close()\n"

MUTANTS = [
    # Staging: what is synced.
    _staging("no file is synced", "file.sync()", "pass", crash("first save")),
    _staging("no file is synced, ordered model", "file.sync()", "pass", crash("overwrite", weak=False)),
    _staging("data files are not synced", "self._finish(file)\n        name =", f"{_CLOSE}        name =", crash("overwrite")),
    _staging(
        "the manifest is not synced",
        "file.write(manifest)\n        self._finish(file)\n",
        f"file.write(manifest)\n        {_CLOSE}",
        crash("overwrite", weak=False),
    ),
    _staging("no directory is synced", "if self._durable:\n            self.directory.sync()", "pass", crash("overwrite", weak=False)),
    _staging(
        "the directory is not synced before the manifest",
        '        self._sync_directory()\n        file = self.create("manifest"',
        '        file = self.create("manifest"',
        crash("first save"),
    ),
    _staging(
        "the directory is not synced before old files are removed",
        "        try:\n            self._sync_directory()\n        except OSError as error:",
        "        try:\n            pass\n        except OSError as error:",
        crash("overwrite", weak=False),
    ),
    _staging(
        "the directory is not synced after the first manifest",
        "        try:\n            self._sync_directory()\n        except OSError as error:",
        "        try:\n            pass\n        except OSError as error:",
        crash("first save", weak=False),
    ),
    _staging(
        "litter is removed without a sync before it",
        "            self._sync_directory()\n            self._remove(litter)",
        "            self._remove(litter)",
        crash_after_kill("overwrite"),
    ),
    _staging(
        "a linked file is taken for synced",
        "        self._made.append(name)\n        self._sync_file(name)\n",
        "        self._made.append(name)\n",
        crash("save with a base that was not synced"),
    ),
    # Staging: the order.
    _staging(
        "the manifest is renamed before it is synced",
        "        self._finish(file)\n        self._replace_manifest(temporary, digest)\n",
        "        self._replace_manifest(temporary, digest)\n        self._finish(file)\n",
        crash("overwrite", weak=False),
    ),
    _staging(
        "a data file is renamed before it is synced",
        f"        self._finish(file)\n        name = {_NAME}\n        self.directory.rename(temporary, name)\n",
        f"        name = {_NAME}\n        self.directory.rename(temporary, name)\n        self._finish(file)\n",
        fault("overwrite"),
    ),
    _staging(
        "the manifest is removed before it is replaced",
        "            self.directory.rename(temporary, MANIFEST_NAME)",
        "            self._remove([MANIFEST_NAME])\n            self.directory.rename(temporary, MANIFEST_NAME)",
        crash("overwrite", weak=False),
    ),
    _staging(
        "the manifest is written under its final name",
        '        file = self.create("manifest", size_bytes=len(manifest))\n        temporary = self.last_created\n',
        "        temporary = MANIFEST_NAME\n        file = self.directory.create(temporary, size_bytes=len(manifest))\n",
        crash("first save", weak=False),
    ),
    _staging(
        "old files are removed before the commit",
        "        file.write(manifest)\n",
        "        file.write(manifest)\n        self._remove([old.name for old in (self.previous.files() if self.previous else [])])\n",
        crash("overwrite", weak=False),
    ),
    _staging(
        "old files are removed between rename and sync",
        "        self._replace_manifest(temporary, digest)\n",
        "        self._replace_manifest(temporary, digest)\n        self._remove_replaced(digest)\n",
        crash("overwrite"),
    ),
    _staging(
        "old files are not removed", "        if self._is_locked:\n            self._remove_replaced(digest)\n", "", fault("overwrite")
    ),
    # Staging: names.
    _staging("a name that exists is taken", "if name not in self._taken:", "if True:", fault("overwrite with the same state")),
    _staging(
        "files have the same name in every save",
        f"        name = {_NAME}\n        self.directory.rename(temporary, name)\n",
        '        name = f"{stem}-00000000{suffix}"\n        self.directory.rename(temporary, name)\n',
        crash("overwrite", weak=False),
    ),
    # Staging: failures.
    _staging(
        "old files are removed though the last sync failed",
        "        except OSError as error:\n            raise DurabilityUnknownError(",
        "        except OSError as error:\n            self._remove_replaced(digest)\n            raise DurabilityUnknownError(",
        fault("overwrite"),
    ),
    _staging(
        "a failed last sync is undone",
        "        except OSError as error:\n            raise DurabilityUnknownError(",
        "        except OSError as error:\n            self._is_published = False\n            raise DurabilityUnknownError(",
        fault("overwrite"),
    ),
    _staging(
        "a failed last sync is acknowledged",
        "        except OSError as error:\n            raise DurabilityUnknownError(",
        "        except OSError as error:\n            return\n            raise DurabilityUnknownError(",
        fault("overwrite", kind="sync_directory"),
    ),
    _staging(
        "a rename that took place and reports failure is undone",
        "                if self._is_published:\n                    return\n",
        "                self._is_published = False\n",
        fault("first save", happens="after"),
    ),
    _staging(
        "a rename of unknown outcome is undone",
        _LOOK,
        f"            self._is_published = False\n{_LOOK}",
        fault("overwrite", happens="after"),
    ),
    _staging(
        "a failed save leaves what it has written",
        "    for name in names:\n        with suppress(OSError):\n            directory.unlink(name)",
        "",
        fault("overwrite"),
    ),
    _staging(
        "a failed save leaves what it has linked",
        "        self._taken.add(name)\n        self._made.append(name)\n",
        "        self._taken.add(name)\n",
        fault("save with a base"),
    ),
    _staging(
        "a failed save leaves its files open",
        "    for file in tuple(unfinished):\n        with suppress(OSError):\n            file.close()\n",
        "",
        filling("overwrite"),
    ),
    _staging(
        "a file is renamed though its sync failed",
        "                file.sync()\n",
        "                with suppress(OSError):\n                    file.sync()\n",
        fault("overwrite", kind="sync"),
    ),
    # Staging: other writers, and a base or an old checkpoint that is damaged.
    _staging("another writer is ignored", "if state is LockState.BUSY:", "if False:", locked),
    _staging("a new directory is removed without the lock", "if self._is_new and self._is_locked and", "if self._is_new and", race),
    _staging(
        "files are swept without the lock",
        "self._is_locked = self._may_sweep = state is LockState.HELD",
        "self._is_locked = self._may_sweep = True",
        without_locks,
    ),
    _staging("what a damaged manifest may name is swept", "            self._may_sweep = False\n", "", damaged_manifest),
    _staging("a shard of a base is linked unseen", "        open_named_file(source, entry).close()\n", "", short_base(OTHER)),
    _staging(
        "a shard is kept unseen", "            open_named_file(self.directory, entry).close()\n", "            pass\n", short_base(TARGET)
    ),
    # New directories.
    _paths("new names of directories are left to the system", _SYNC_PARENT, "", crash(_NEW_PARENTS, weak=False)),
    _paths("no parent is synced", "        directory.sync()\n", "        pass\n", crash(_NEW_PARENTS, weak=False)),
    _paths(
        "only the parent of the last directory is synced",
        "make_directories(disk, parent, durable=durable)",
        "make_directories(disk, parent, durable=False)",
        crash(_NEW_PARENTS, weak=False),
    ),
    _paths(
        "the name of a directory that exists is taken for durable",
        _SYNC_PARENT,
        "    if durable and is_new:\n        _sync_parent(disk, parent, is_required=is_new)",
        crash_after_kill(_NEW_PARENTS),
    ),
    _paths(
        "the parent is synced before the directory is made",
        f"        is_new = _make_if_missing(disk, path)\n{_SYNC_PARENT}",
        f"        is_new = True\n{_SYNC_PARENT}\n    if is_new:\n        _make_if_missing(disk, path)",
        crash(_NEW_PARENTS, weak=False),
    ),
    # Deleting.
    _delete(
        "the manifest goes last",
        "    with suppress(FileNotFoundError):\n        directory.unlink(MANIFEST_NAME)\n    directory.sync()\n"
        "    for name in directory.names():\n        if is_data_name(name) or is_temporary_name(name):",
        "    directory.sync()\n    for name in reversed(directory.names()):\n"
        "        if is_data_name(name) or is_temporary_name(name) or name == MANIFEST_NAME:",
        crash("delete", weak=False),
    ),
    _delete("the removed manifest is not synced", "    directory.sync()\n", "", crash("delete")),
    _delete("the removed directory is not synced", "        parent.sync()\n", "        pass\n", crash("delete", weak=False)),
    _delete("a writer at work is ignored", "if directory.try_lock() is LockState.BUSY:", "if False:", locked),
    # Several processes.
    _checkpoint("part_writer", "the files of a part are not synced", "file.sync()", "pass", crash("overwrite by two processes")),
    _checkpoint(
        "part_writer",
        "a file that a part links is taken for synced",
        "            self.directory.sync_file(name)\n",
        "            pass\n",
        crash("save by two processes with a base that was not synced", weak=False),
    ),
    _checkpoint(
        "joint_commit",
        "files of parts do not get their final names",
        "        self.directory.rename(entry.name, name)\n",
        "        pass\n",
        crash("first save by two processes", weak=False),
    ),
    _checkpoint("joint_commit", "what another process left stays", "        super().abort()\n", "", fault("overwrite by two processes")),
    # The second thread.
    _checkpoint(
        "shard_writer",
        "errors of the second thread are not waited for",
        "            stream.drain()\n",
        "",
        fault("overwrite", extra=(THREADED,), kind="sync"),
    ),
    # The reader.
    _checkpoint("shard_file", "no slot is checked against its digest", "if actual != expected:", "if False:", damage),
    _checkpoint("shard_file", "no header is checked against its digest", "if actual != self.entry.digest:", "if False:", damage),
    _checkpoint("reader", "no header is looked at", "self.store.check_headers(rows)", "pass", damage),
    _checkpoint("metadata_file", "the metadata is not checked against its digest", "if actual != entry.digest:", "if False:", damage),
    _checkpoint("directory", "no size is checked", "if file.size_bytes != entry.size_bytes:", "if False:", damage),
    Mutant(
        "the manifest is not checked against its digest",
        Edit("ckptfmt.format.manifest", "if actual != declared:", "if False:"),
        damage,
    ),
]
