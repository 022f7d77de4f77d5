"""How the words of a stream are cut, for encoder and decoder alike. Spec 11.1."""

from __future__ import annotations

from dataclasses import dataclass

from ckptfmt.format.plane_words import FOLD_NONE, FOLD_ROTATED

HALF_BITS = 16


@dataclass(frozen=True, slots=True)
class WordLayout:
    """Words of so many bytes, how their sign is folded, their planes, and what is taken off them."""

    word_bytes: int
    fold: int
    widths: tuple[int, ...]
    base: int
    shift: int

    def places(self, spare: int) -> list[tuple[int, int, int]]:
        """Return for each plane, from the top, its lowest bit, its width in bytes and its spare bits."""
        places, bit = [], 8 * self.word_bytes - spare
        for index, width in enumerate(self.widths):
            given_up = spare if index == 1 else 0
            bit -= 8 * width - given_up
            places.append((bit, width, given_up))
        return places

    def find_upper(self, *, has_rows: bool) -> WordLayout | None:
        """Return the layout of the upper halves where nothing but rotating reaches into the lower ones, which are then a plane."""
        is_wide = (self.word_bytes, self.fold, self.widths) == (4, FOLD_ROTATED, (1, 1, 2))
        if not is_wide or self.base % (1 << HALF_BITS) or (has_rows and self.shift < HALF_BITS):
            return None
        return WordLayout(2, FOLD_NONE, (1, 1), self.base >> HALF_BITS, max(0, self.shift - HALF_BITS))
