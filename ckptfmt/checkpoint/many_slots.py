"""Many encoded slots at once, with all cores: decoding them for a load, and checking them for a verification. Spec 11, 12.

Small slots are decoded side by side, one core each; a large one is decoded by all cores, block by block. Slots that are made from others
come after those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ckptfmt.checkpoint.slot_decoding import MANY_PIECES_BYTES, Place, SlotDecoder, default_threads, whole_elements
from ckptfmt.errors import FormatError
from ckptfmt.format.digest import Hasher, short
from ckptfmt.format.rounding import round_floats

OnDamage = Callable[[FormatError], None]
OnBytes = Callable[[int], None]


def for_each(decoder: SlotDecoder, places: Iterable[Place], work: Callable[[Place, int], None]) -> None:
    """Call `work(place, threads)` for each slot: small ones in threads, then large ones with all threads."""
    threads = default_threads()
    small: list[Place] = []
    large: list[Place] = []
    for place in places:
        (large if decoder.raw_size_bytes(place) > MANY_PIECES_BYTES else small).append(place)
    if len(small) < 2 or threads < 2:
        large = small + large
    else:
        with ThreadPoolExecutor(threads, thread_name_prefix="ckptfmt-slots") as pool:
            for _ in pool.map(lambda place: work(place, 1), small):
                pass
    for place in large:
        work(place, threads)


def decode_slots(decoder: SlotDecoder, places: Iterable[Place]) -> None:
    """Decode slots into `decoder.kept`, each verified.

    Raises:
        CorruptError: one of them is damaged.
    """

    def decode(place: Place, threads: int) -> None:
        decoder.kept[place] = decoder.decode(place, threads=threads)

    wanted = sorted({place for place in places if decoder.encoding(place) is not None} - decoder.kept.keys())
    for_each(decoder, (place for place in wanted if decoder.source(place) is None), decode)
    for_each(decoder, (place for place in wanted if decoder.source(place) is not None), decode)


def check_slots(decoder: SlotDecoder, places: Sequence[Place], *, on_bytes: OnBytes, on_damage: OnDamage) -> None:
    """Decode encoded slots, keeping nothing, and tell of each that is damaged, and of each that is made from a damaged one."""
    made_from: dict[Place, list[Place]] = {}
    for place in places:
        if (source := decoder.source(place)) is not None:
            made_from.setdefault(source, []).append(place)
    first = {place for place in places if decoder.encoding(place) is not None and decoder.source(place) is None}

    def check(place: Place, threads: int) -> None:
        for error in _damage(decoder, place, made_from.get(place, ()), threads):
            on_damage(error)
        on_bytes(decoder.stored_size_bytes(place) if place in first else 0)

    for_each(decoder, sorted(first | made_from.keys()), check)


def _damage(decoder: SlotDecoder, place: Place, dependents: Sequence[Place], threads: int) -> Sequence[FormatError]:
    """Decode a slot once, and what is made from it with it; return what is wrong with each."""
    hashers = {dependent: Hasher() for dependent in dependents}
    try:
        for piece in whole_elements(decoder.pieces(place, threads=threads)) if dependents else decoder.pieces(place, threads=threads):
            made = {to: _rounded(piece, to) for to in {_rounded_to(decoder, dependent) for dependent in dependents} if to}
            for dependent, hasher in hashers.items():
                hasher.update(made.get(_rounded_to(decoder, dependent), piece))
    except FormatError as error:
        told = f"is made from {decoder.key(place)!r}, which is damaged"
        return [error, *(decoder.refused(error.rule or "E045", each, f"tensor {decoder.key(each)!r} {told}") for each in dependents)]
    digests = {each: encoding.raw_digest for each in dependents if (encoding := decoder.encoding(each)) is not None}
    wrong = [each for each in dependents if hashers[each].digest() != digests[each]]
    return [decoder.refused("E045", each, f"decoded bytes of {decoder.key(each)!r}", expected=short(digests[each])) for each in wrong]


def _rounded_to(decoder: SlotDecoder, place: Place) -> str:
    encoding = decoder.encoding(place)
    return str(encoding.codecs[0][1].get("to", "")) if encoding is not None else ""


def _rounded(piece: memoryview, to: str) -> memoryview:
    made = memoryview(bytearray(len(piece) // 2))
    round_floats(piece, to, made)
    return made
