"""How a tensor is best cut into planes, found out on a sample of it: choices that spec 11.1 leaves to the writer.

Exponents of one tensor span few values: with a base taken off, their top bits are zero, and give room for the first bits of the
mantissa, which are not quite random either. A plane is coded where a sample of it shrinks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ckptfmt.format.plane_coding import FAST, STORED, encode_plane
from ckptfmt.format.plane_layout import WordLayout
from ckptfmt.format.plane_rows import STEP_BITS, find_columns, find_rows, take_off
from ckptfmt.format.plane_source import plan_turns
from ckptfmt.format.plane_words import FOLD_BITS, FOLD_NONE, FOLD_ROTATED, FOLD_SOURCE, FOLD_ZIGZAG, cut_plane, fold, word_type

if TYPE_CHECKING:
    import numpy

    Words = numpy.ndarray[Any, Any]

MIN_SAMPLE_WORDS, ROW_OF_NONE = 2**13, 2**10
MIN_FITTED_ROWS, MAX_FITTED_ROWS = 64, 256
MIN_ROW_LENGTH = 64
MARGIN_OCTAVES, MIN_WINDOW_OCTAVES = 2, 48
WORTH_CODING, WORTH_A_LEVEL = 0.98, 0.97
LEVELS_TRIED_FROM = 3

# For each float: the bytes of its words, and how many bits stand below the exponent once the sign is the lowest one.
FLOATS = {
    "float32": (4, 24),
    "bfloat16": (2, 8),
    "float16": (2, 11),
    "float64": (8, 53),
    "complex64": (4, 24),
    "complex32": (2, 11),
    "complex128": (8, 53),
}
INTEGERS = {f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)}
FLOAT_WIDTHS = {2: (1, 1), 4: (1, 1, 2), 8: (1, 1, 2, 4)}
BLOCK_BYTES = {1: 2**17, 2: 2**18, 4: 2**19, 8: 2**19}
MANY_ROWS = 64


@dataclass(frozen=True, slots=True)
class PlanePlan:
    """How one tensor is encoded. `levels` are those of its planes, None where a plane is stored as it is.

    `base` is taken off every word. With a `row_length`, (row + column) << `shift` is too; `columns` are signed bytes, and
    `centre` is what rows are measured from. Folded by their source, words have no rows: `base` is the lowest class, and `columns` tell
    how far those of each are turned.
    """

    word_bytes: int
    fold: int
    widths: tuple[int, ...]
    block_words: int
    levels: tuple[int | None, ...] = ()
    base: int = 0
    spare: int = 0
    row_length: int = 0
    shift: int = 0
    columns: bytes = b""
    centre: int = 0

    @property
    def layout(self) -> WordLayout:
        """How the words are cut."""
        return WordLayout(self.word_bytes, self.fold, self.widths, self.base, self.shift)


def coded_type(raw: memoryview, dtype: str) -> str:
    """Return the element type as which a tensor is coded: booleans that hold anything but 0 and 1 are bytes."""
    import numpy

    is_of_bits = dtype != "bool" or int(numpy.frombuffer(raw, numpy.uint8).max(initial=0)) <= 1
    return dtype if is_of_bits else "uint8"


def take_sample(raw: memoryview, dtype: str, shape: tuple[int, ...]) -> Words:
    """Return rows from all over a tensor's bytes, as words: what `plan_planes` looks at."""
    import numpy

    word_bytes = word_bytes_of(dtype)
    words = numpy.frombuffer(raw, word_type(word_bytes), len(raw) // word_bytes)
    length = _row_length(dtype, shape) or min(ROW_OF_NONE, max(1, len(words)))
    rows = words[: len(words) // length * length].reshape(-1, length)
    wanted = max(MIN_SAMPLE_WORDS // length, min(max(len(rows) // 8, MIN_FITTED_ROWS), MAX_FITTED_ROWS) if len(shape) > 1 else 1, 1)
    return rows[:: max(1, len(rows) // wanted)]


def plan_planes(sample: Words, dtype: str, shape: tuple[int, ...], size_bytes: int, *, level: int) -> PlanePlan:
    """Plan the encoding of a tensor of an element type of spec 9.2, as `coded_type` gives it, from a sample of it."""
    import numpy

    word_bytes = word_bytes_of(dtype)
    if dtype in FLOATS:
        folded = fold(sample.ravel(), FOLD_ROTATED, numpy.empty(sample.size, sample.dtype)).reshape(sample.shape)
        return _plan_floats(folded, dtype, shape, size_bytes, level)
    words = sample.ravel()[: 4 * MIN_SAMPLE_WORDS]
    if dtype == "bool":
        return PlanePlan(1, FOLD_BITS, (1,), BLOCK_BYTES[1] // 8, (level,))
    # Folded only where both signs occur: planes of counters and indices stay as regular as they are.
    is_signed = dtype.startswith("int") and word_bytes > 1 and bool((words.view(f"<i{word_bytes}") < 0).any())
    plan = PlanePlan(word_bytes, FOLD_ZIGZAG if is_signed else FOLD_NONE, (1,) * word_bytes, BLOCK_BYTES[word_bytes] // word_bytes)
    return _with_levels(plan, fold(words, plan.fold, numpy.empty_like(words)), level)


def plan_differences(raw: memoryview, source: memoryview, dtype: str, *, level: int) -> list[PlanePlan]:
    """Plan how to encode a tensor as what is to be added to another one: as integers, and floats in the order of their source's, too."""
    size = word_bytes_of(dtype)
    kind, shape = f"int{8 * size}", (len(raw) // size,)
    sample, of_source = take_sample(raw, kind, shape), take_sample(source, kind, shape)
    plans = [plan_planes(sample - of_source, kind, shape, len(raw), level=level)]
    if dtype in FLOATS and len(raw):
        base, turns = plan_turns(_many(raw, size), _many(source, size))
        plans.append(PlanePlan(size, FOLD_SOURCE, (1,) * size, BLOCK_BYTES[8] // max(4, size), (FAST,) * size, base, columns=turns))
    return plans


def _many(raw: memoryview, word_bytes: int) -> Words:
    """Return words from all over a tensor: enough for each of their exponents."""
    import numpy

    words = numpy.frombuffer(raw, word_type(word_bytes))
    length = min(ROW_OF_NONE, len(words))
    rows = words[: len(words) // length * length].reshape(-1, length)
    return rows[:: max(1, len(rows) // MANY_ROWS)].ravel()


def word_bytes_of(dtype: str) -> int:
    """Return the bytes of the words as which an element type is coded."""
    return FLOATS[dtype][0] if dtype in FLOATS else INTEGERS.get(dtype, 1)


def _plan_floats(sample: Words, dtype: str, shape: tuple[int, ...], size_bytes: int, level: int) -> PlanePlan:
    import numpy

    word_bytes, below_exponent = FLOATS[dtype]
    plan = PlanePlan(word_bytes, FOLD_ROTATED, FLOAT_WIDTHS[word_bytes], BLOCK_BYTES[word_bytes] // word_bytes)
    row_length = _row_length(dtype, shape)
    few = sample[:: max(1, len(sample) * sample.shape[1] // (2 * MIN_SAMPLE_WORDS))]
    if row_length and len(sample) > 1:
        shift = below_exponent - STEP_BITS
        found = find_columns(sample, size_bytes // (row_length * word_bytes), shift)
        if found is not None:
            columns, centre = found
            block_words = max(1, plan.block_words // row_length) * row_length
            plan = replace(plan, row_length=row_length, shift=shift, columns=columns, centre=centre, block_words=block_words)
            table, few = numpy.frombuffer(columns, numpy.int8), few.copy()
            take_off(few, find_rows(few, table, centre, shift), table, shift)
    plan = _with_base(plan, few.ravel(), below_exponent)
    return _with_levels(plan, few.ravel()[:MIN_SAMPLE_WORDS] - few.dtype.type(plan.base), level)


def _row_length(dtype: str, shape: tuple[int, ...]) -> int:
    """Return how many words a row has: all dimensions but the first, or the last alone where those are too many; 0 for none."""
    parts = 2 if dtype.startswith("complex") else 1
    lengths = (math.prod(shape[1:]) * parts, shape[-1] * parts) if len(shape) > 1 else ()
    count, longest = math.prod(shape) * parts, BLOCK_BYTES[word_bytes_of(dtype)] // word_bytes_of(dtype)
    return next((length for length in lengths if MIN_ROW_LENGTH <= length <= min(longest, count // 2)), 0)


def _with_base(plan: PlanePlan, words: Words, below_exponent: int) -> PlanePlan:
    """Choose as base the lowest octave of a window that holds all which occur, and how many top bits are zero above it."""
    import numpy

    exponent_bits = 8 * plan.word_bytes - below_exponent
    octaves = 1 << exponent_bits
    used = numpy.flatnonzero(numpy.bincount((words >> below_exponent).astype(numpy.intp), minlength=octaves))
    if not len(used):
        return plan
    # They lie on a circle; the window ends where the widest gap begins. Smaller numbers are left more room than larger ones.
    gaps = numpy.diff(used, append=used[0] + octaves)
    top = int(used[gaps.argmax()]) + MARGIN_OCTAVES
    needed = max(octaves - int(gaps.max()) + 1 + 2 * MARGIN_OCTAVES, MIN_WINDOW_OCTAVES)
    spare = next((spare for spare in (4, 2, 1) if octaves >> spare >= needed), 0)
    if not spare:
        return plan
    return replace(plan, spare=spare, base=(top + 1 - (octaves >> spare)) % octaves << below_exponent)


def _with_levels(plan: PlanePlan, words: Words, level: int) -> PlanePlan:
    """Choose how each plane is coded by coding that of a sample of words, ready to be cut."""
    levels: list[int | None] = []
    for index, (shift, width, spare) in enumerate(plan.layout.places(plan.spare)):
        if spare:
            levels.append(None)
            continue
        plane = cut_plane(words, shift, width, 0, f"plane {index}")
        mode, fast = encode_plane(plane, width, FAST)
        chosen = FAST if mode != STORED and len(fast) <= WORTH_CODING * len(plane) else None
        # What is noise to the fast way is noise, but for the planes of integers, which repeat at a distance.
        is_tried = level >= LEVELS_TRIED_FROM and (chosen is not None or index == 0 or plan.fold != FOLD_ROTATED)
        if is_tried and len(encode_plane(plane, width, level)[1]) < WORTH_A_LEVEL * min(len(fast), len(plane)):
            chosen = level
        levels.append(chosen)
    return replace(plan, levels=tuple(levels))
