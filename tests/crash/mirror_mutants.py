"""Steps of mirroring that are left out or moved, each with the job in which some crash must show it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.crash.checkpoint_product import Edit


@dataclass(frozen=True)
class Mutant:
    """A changed product, and the job in which some crash must show it."""

    name: str
    edit: Edit
    job: str


def _copy(name: str, old: str, new: str, job: str = "first commits") -> Mutant:
    return Mutant(name, Edit("ckptfmt.run.mirror_copy", old, new), job)


def _fill(name: str, old: str, new: str, job: str = "units, fill") -> Mutant:
    return Mutant(name, Edit("ckptfmt.run.mirror_fill", old, new), job)


_TEMPORARY = '        temporary = temporary_name("copy", secrets.token_hex(16))\n'
_UNNAMED = "            _remove_unnamed(target, {entry.name for entry in manifest.files()})\n"
_SWAP = "            target.sync()\n            target.unlink(target_name)\n"
_LEFT = """        for step in left:
            self._verified.pop(step, None)
        self._target.set_aside(map(step_name, left), reason="left", now=now)
"""

MUTANTS = [
    _copy(
        "the manifest comes first",
        _UNNAMED,
        _UNNAMED + "            _copy_file(source, target, MANIFEST_NAME)\n            target.sync()\n",
    ),
    _copy("no copied file is synced", "        copy.sync()\n", ""),
    _copy("names are not synced before the manifest", "            target.sync()\n            _check(", "            _check("),
    _copy(
        "the name of the manifest is not synced",
        "            _copy_file(source, target, MANIFEST_NAME)\n            target.sync()\n",
        "            _copy_file(source, target, MANIFEST_NAME)\n",
    ),
    _copy(
        "a file is written under its own name",
        _TEMPORARY,
        "        temporary = target_name if target_name not in target.names() else temporary_name('copy', secrets.token_hex(16))\n",
    ),
    _copy(
        "the new run.json has no certain name when the old one goes", _SWAP, "            target.unlink(target_name)\n", "another identity"
    ),
    _copy(
        "the new run.json is found under no other name",
        "    for name in filter(is_temporary_name, names):\n",
        "    for name in ():\n",
        "another identity",
    ),
    _copy(
        "a copy does not get its name",
        "        target.rename(temporary, target_name)\n",
        "        target.rename(temporary, f'{target_name}.part')\n",
    ),
    Mutant("fewer generations stay", Edit("ckptfmt.run.mirror_copy", "MIN_GENERATIONS = 2", "MIN_GENERATIONS = 1"), "first commits"),
    Mutant(
        "the old ones go first",
        Edit("ckptfmt.run.mirror", "            first_error = self._copy_steps(wanted)\n", "            self._verified = dict(wanted)\n"),
        "first commits",
    ),
    Mutant(
        "what the run left goes before anything is there",
        Edit("ckptfmt.run.mirror", "for step in [step for step in wanted if step not in left][:1]:", "for step in []:"),
        "branch from what is not mirrored",
    ),
    Mutant("what the run left stays", Edit("ckptfmt.run.mirror", _LEFT, ""), "branch"),
    Mutant(
        "a record comes before what it names",
        Edit("ckptfmt.run.journal_copy", "        self._before_records(payloads)\n", ""),
        "units",
    ),
    Mutant(
        "a journal is copied but for its last record",
        Edit("ckptfmt.run.journal_copy", "target.append_segment(payloads)", "target.append_segment(payloads[:-1])"),
        "units, second session",
    ),
    _fill(
        "nothing says that a run is being filled",
        "directory.create(FILLING_NAME, size_bytes=0).close()",
        "pass",
    ),
    _fill(
        "a run counts as filled too early", "    journals = find_journals", "    end_filling(disk, run_path)\n    journals = find_journals"
    ),
]
