"""Many encoded slots at once, with all cores: decoding them for a load, and checking them for a verification. Spec 11, 12.

Small slots are decoded side by side, one core each; a large one is decoded by all cores, block by block. Slots that are made from others
come after those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

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
    """Decode encoded slots, keeping nothing, and tell of each that is damaged, and of each that is made from a damaged one.

    Deltas that stand on each other are decoded once, from the lowest up.
    """
    made_from: dict[Place, list[Place]] = {}
    for place in places:
        if (source := decoder.source(place)) is not None:
            made_from.setdefault(source, []).append(place)
    wanted = {place for place in places if decoder.encoding(place) is not None and decoder.source(place) is None} | made_from.keys()
    chains = [decoder.chain(place) for place in sorted(wanted)]
    below = {place for chain in chains for place in chain[:-1]}
    tasks: dict[Place, list[Place]] = {}
    told: dict[Place, set[Place]] = {}
    claimed: set[Place] = set()
    for chain in chains:
        if chain[-1] not in below:
            tasks[chain[-1]] = chain
            told[chain[-1]] = {place for place in chain if place not in claimed}
            claimed.update(chain)

    def check(place: Place, threads: int) -> None:
        for of_place, error in _damage(decoder, tasks[place], made_from, threads):
            if of_place in told[place]:
                on_damage(error)
        on_bytes(sum(decoder.stored_size_bytes(each) for each in told[place] if decoder.encoding(each) is not None))

    for_each(decoder, sorted(tasks), check)


def _damage(
    decoder: SlotDecoder, chain: Sequence[Place], made_from: Mapping[Place, Sequence[Place]], threads: int
) -> Iterator[tuple[Place, FormatError]]:
    """Decode the slots of a chain once, and what is made from each with it; give what is wrong, and of which of them it comes."""
    total = decoder.allocate(chain[-1]) if len(chain) > 1 else None
    for index, place in enumerate(chain):
        if total is None or index == 0:
            pieces = decoder.pieces(place, total, threads=threads)
        else:
            pieces = decoder.sums(place, total, threads=threads)
        damage = _damage_of_one(decoder, place, pieces, made_from.get(place, ()))
        yield from ((place, error) for error in (damage.own, *damage.dependents) if error is not None)
        if damage.own is None:
            continue
        told = f"is made from {decoder.key(place)!r}, which is damaged"
        for above in chain[index + 1 :]:
            for each in (above, *made_from.get(above, ())):
                yield above, decoder.refused(damage.own.rule or "E045", each, f"tensor {decoder.key(each)!r} {told}")
        return


class _Damage(NamedTuple):
    own: FormatError | None
    dependents: Sequence[FormatError]


def _damage_of_one(decoder: SlotDecoder, place: Place, pieces: Iterator[memoryview], dependents: Sequence[Place]) -> _Damage:
    """Take the pieces of a slot's chunk, and return what is wrong with it and with what is made from it."""
    hashers = {dependent: Hasher() for dependent in dependents}
    try:
        for piece in whole_elements(pieces) if dependents else pieces:
            made = {to: _rounded(piece, to) for to in {_rounded_to(decoder, dependent) for dependent in dependents} if to}
            for dependent, hasher in hashers.items():
                hasher.update(made.get(_rounded_to(decoder, dependent), piece))
    except FormatError as error:
        told = f"is made from {decoder.key(place)!r}, which is damaged"
        return _Damage(error, [decoder.refused(error.rule or "E045", each, f"tensor {decoder.key(each)!r} {told}") for each in dependents])
    digests = {each: encoding.raw_digest for each in dependents if (encoding := decoder.encoding(each)) is not None}
    wrong = [each for each in dependents if hashers[each].digest() != digests[each]]
    return _Damage(
        None, [decoder.refused("E045", each, f"decoded bytes of {decoder.key(each)!r}", expected=short(digests[each])) for each in wrong]
    )


def _rounded_to(decoder: SlotDecoder, place: Place) -> str:
    encoding = decoder.encoding(place)
    return str(encoding.codecs[0][1].get("to", "")) if encoding is not None else ""


def _rounded(piece: memoryview, to: str) -> memoryview:
    made = memoryview(bytearray(len(piece) // 2))
    round_floats(piece, to, made)
    return made
