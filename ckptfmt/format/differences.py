"""Words added to words and taken off each other, modulo what they hold: what a slot with the codec `delta` needs. Spec 11.4."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptfmt.format.plane_words import word_type

if TYPE_CHECKING:
    from ckptfmt.format.plane_words import Words


def add_words(total: memoryview, part: memoryview, word_bytes: int) -> None:
    """Add little-endian words to those in `total`, in place."""
    _words(total, word_bytes).__iadd__(_words(part, word_bytes))


def subtract_words(total: memoryview, part: memoryview, word_bytes: int) -> None:
    """Write `part` less `total` to `total`: what has to be added to the words that were there."""
    import numpy

    words = _words(total, word_bytes)
    numpy.subtract(_words(part, word_bytes), words, out=words)


def _words(data: memoryview, word_bytes: int) -> Words:
    import numpy

    return numpy.frombuffer(data, word_type(word_bytes))
