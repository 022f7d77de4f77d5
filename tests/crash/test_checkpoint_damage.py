"""P4: every byte of a small checkpoint is changed, every file cut, lengthened and exchanged; the reader and the verifier notice."""

from __future__ import annotations

import pytest

from tests.crash.checkpoint_damage import DamageCheck
from tests.crash.checkpoint_product import load_product

CHECK = DamageCheck(load_product())


def test_a_flipped_bit_in_any_byte_is_noticed() -> None:
    for damage in CHECK.flips(every_bit=False):
        CHECK.check(damage, is_verified=True)


def test_a_file_that_is_cut_lengthened_or_exchanged_is_noticed() -> None:
    for damage in CHECK.others():
        CHECK.check(damage, is_verified=True)


@pytest.mark.slow
def test_every_flipped_bit_is_noticed() -> None:
    for damage in CHECK.flips(every_bit=True):
        CHECK.check(damage, is_verified=True)
