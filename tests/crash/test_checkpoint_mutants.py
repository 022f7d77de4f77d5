"""The proof of the proof: with any step left out or moved some check fails, and with the product as it is none does."""

from __future__ import annotations

import ast

import pytest

from tests.crash.checkpoint_check import Violation
from tests.crash.checkpoint_killers import all_killers
from tests.crash.checkpoint_mutants import MUTANTS, Mutant
from tests.crash.checkpoint_product import ROOT, Edit

KILLERS = all_killers()
STEPS = {"sync", "rename", "_sync_directory", "_sync_parent"}
MODULES = [
    *("ckptfmt.checkpoint.staging", "ckptfmt.checkpoint.part_writer", "ckptfmt.checkpoint.joint_commit", "ckptfmt.checkpoint.delete"),
    "ckptfmt.disk.paths",
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_killed(mutant: Mutant) -> None:
    with pytest.raises(Violation):
        mutant.killer((mutant.edit,))


@pytest.mark.parametrize("name", KILLERS)
def test_the_product_survives_every_killer(name: str) -> None:
    KILLERS[name](())


def test_mutants_have_distinct_names_and_there_are_enough_of_them() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) > 40


@pytest.mark.parametrize("module", MODULES)
def test_every_sync_and_rename_has_a_mutant(module: str) -> None:
    path = Edit(module, "", "").path
    source = path.read_text("utf-8")
    covered = {line for mutant in MUTANTS if mutant.edit.module == module for line in changed_lines(mutant.edit, source)}
    steps = step_lines(source)
    missing = [f"{path.relative_to(ROOT)}:{line}: {source.splitlines()[line - 1].strip()}" for line in steps if line not in covered]
    assert steps
    assert not missing, "no mutant leaves out, moves or changes:\n" + "\n".join(missing)


def changed_lines(edit: Edit, source: str) -> set[int]:
    """Return the numbers of the lines that an edit replaces by others, without those that it gives back as they were."""
    first_line = source[: edit.position(source)].count("\n") + 1
    kept = edit.new.splitlines()
    is_moved = [line for line in edit.old.splitlines() if line in kept] != [line for line in kept if line in edit.old.splitlines()]
    return {
        first_line + index for index, line in enumerate(edit.old.splitlines()) if is_moved or line not in kept or kept.index(line) != index
    }


def step_lines(source: str) -> list[int]:
    """Return the lines that sync or rename something."""
    return sorted(
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and (getattr(node.func, "attr", None) or getattr(node.func, "id", None)) in STEPS
    )
