"""Values of Python's standard library that hold no others: numbers, bytes, dates, paths, random generators. Spec 8.

Each tag has an encoder and, below it, its decoder. A decoder accepts only the text or number that its encoder would
have written, so that a value has one packed form.
"""

from __future__ import annotations

import random
import zoneinfo
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from uuid import UUID

from ckptfmt.state.decode_walk import DecodeWalk, Later, check_integer, check_items, check_kind
from ckptfmt.state.encode_walk import END_INTEGER, MIN_INTEGER, EncodeWalk, check_text
from ckptfmt.state.places import Place, refuse, wrong

_MICROSECOND = timedelta(microseconds=1)
_DAY_MICROSECONDS = 86_400_000_000
_MAX_DAYS = 999_999_999
_RANDOM_WORDS = 624
_FLAVOURS: dict[type[PurePath], str] = {
    PosixPath: "posix",
    WindowsPath: "windows",
    PurePosixPath: "pure_posix",
    PureWindowsPath: "pure_windows",
}


def encode_itself(walk: EncodeWalk, value: Any, place: Place) -> Any:
    """Encode a value that stands for itself: None, bool, float, bytes."""
    return value


def encode_text(walk: EncodeWalk, value: str, place: Place) -> str:
    """Encode a str."""
    check_text(value, place)
    return value


def encode_integer(walk: EncodeWalk, value: int, place: Place) -> Any:
    """Encode an int; beyond 64 bits as two's complement in as few bytes as possible."""
    if MIN_INTEGER <= value < END_INTEGER:
        return value
    return {"$int": _two_complement(value)}


def decode_integer(walk: DecodeWalk, payload: Any, place: Place) -> int:
    """Rebuild an int beyond 64 bits."""
    value = int.from_bytes(check_kind(payload, bytes, place), "big", signed=True)
    if MIN_INTEGER <= value < END_INTEGER or payload != _two_complement(value):
        raise wrong(place, "integer is wrong", expected="the shortest bytes of an integer beyond 64 bits", found=payload)
    return value


def _two_complement(value: int) -> bytes:
    return value.to_bytes((value if value >= 0 else ~value).bit_length() // 8 + 1, "big", signed=True)


def encode_complex(walk: EncodeWalk, value: complex, place: Place) -> dict[str, Any]:
    """Encode a complex."""
    return {"$complex": [value.real, value.imag]}


def decode_complex(walk: DecodeWalk, payload: Any, place: Place) -> complex:
    """Rebuild a complex."""
    real, imaginary = check_items(payload, 2, place)
    return complex(check_kind(real, float, place), check_kind(imaginary, float, place))


def encode_bytearray(walk: EncodeWalk, value: bytearray, place: Place) -> dict[str, Any]:
    """Encode a bytearray."""
    return {"$bytearray": bytes(value)}


def decode_bytearray(walk: DecodeWalk, payload: Any, place: Place) -> bytearray:
    """Rebuild a bytearray."""
    return bytearray(check_kind(payload, bytes, place))


def encode_decimal(walk: EncodeWalk, value: Decimal, place: Place) -> dict[str, Any]:
    """Encode a Decimal."""
    return {"$decimal": str(value)}


def decode_decimal(walk: DecodeWalk, payload: Any, place: Place) -> Decimal:
    """Rebuild a Decimal."""
    try:
        value = Decimal(check_kind(payload, str, place))
    except (InvalidOperation, ValueError):
        value = None
    if value is None or str(value) != payload:
        raise wrong(place, "decimal number is wrong", found=payload)
    return value


def encode_uuid(walk: EncodeWalk, value: UUID, place: Place) -> dict[str, Any]:
    """Encode a UUID."""
    return {"$uuid": value.bytes}


def decode_uuid(walk: DecodeWalk, payload: Any, place: Place) -> UUID:
    """Rebuild a UUID."""
    if len(check_kind(payload, bytes, place)) != 16:
        raise wrong(place, "UUID is wrong", expected="16 bytes", found=payload)
    return UUID(bytes=payload)


def encode_path(walk: EncodeWalk, value: PurePath, place: Place) -> dict[str, Any]:
    """Encode a path with its flavour."""
    text = str(value)
    check_text(text, place)
    return {"$path": [_FLAVOURS[type(value)], text]}


def decode_path(walk: DecodeWalk, payload: Any, place: Place) -> PurePath:
    """Rebuild a path; one of the other system becomes its pure class."""
    flavour, text = check_items(payload, 2, place)
    check_kind(text, str, place)
    here = PosixPath if issubclass(type(PurePath()), PurePosixPath) else WindowsPath
    for cls, name in _FLAVOURS.items():
        if flavour == name:
            is_foreign = cls in (PosixPath, WindowsPath) and cls is not here
            pure = PurePosixPath if cls is PosixPath else PureWindowsPath
            return pure(text) if is_foreign else cls(text)
    raise wrong(place, "flavour of a path is wrong", expected=", ".join(_FLAVOURS.values()), found=flavour)


def encode_datetime(walk: EncodeWalk, value: datetime, place: Place) -> dict[str, Any]:
    """Encode a datetime: what the clock shows, the fold, and the zone."""
    clock = value.replace(tzinfo=None, fold=0)
    return {"$datetime": [clock.isoformat(), value.fold, _encode_zone(value.tzinfo, place)]}


def decode_datetime(walk: DecodeWalk, payload: Any, place: Place) -> datetime:
    """Rebuild a datetime."""
    text, fold, zone = check_items(payload, 3, place)
    value: datetime = _parsed(datetime, text, place)
    return value.replace(fold=check_integer(fold, 0, 1, place), tzinfo=_decode_zone(zone, place))


def encode_time(walk: EncodeWalk, value: time, place: Place) -> dict[str, Any]:
    """Encode a time."""
    clock = value.replace(tzinfo=None, fold=0)
    return {"$time": [clock.isoformat(), value.fold, _encode_zone(value.tzinfo, place)]}


def decode_time(walk: DecodeWalk, payload: Any, place: Place) -> time:
    """Rebuild a time."""
    text, fold, zone = check_items(payload, 3, place)
    value: time = _parsed(time, text, place)
    return value.replace(fold=check_integer(fold, 0, 1, place), tzinfo=_decode_zone(zone, place))


def encode_date(walk: EncodeWalk, value: date, place: Place) -> dict[str, Any]:
    """Encode a date."""
    return {"$date": value.isoformat()}


def decode_date(walk: DecodeWalk, payload: Any, place: Place) -> date:
    """Rebuild a date."""
    value: date = _parsed(date, payload, place)
    return value


def _parsed(cls: Any, text: Any, place: Place) -> Any:
    try:
        value = cls.fromisoformat(check_kind(text, str, place))
    except (ValueError, OverflowError):
        value = None
    if value is None or value.isoformat() != text or getattr(value, "tzinfo", None) is not None:
        raise wrong(place, f"{cls.__name__} is wrong", expected="ISO 8601 without offset", found=text)
    return value


def _encode_zone(zone: Any, place: Place) -> Any:
    if zone is None:
        return None
    if type(zone) is timezone:
        return {"$timezone": _timezone_payload(zone, place)}
    if type(zone) is zoneinfo.ZoneInfo and zone.key in _zone_names():
        return {"zone": zone.key}
    advice = "Use datetime.timezone or a zoneinfo.ZoneInfo of an IANA zone."
    raise refuse(place, f"the time zone {type(zone).__name__} cannot be stored", advice)


def _decode_zone(packed: Any, place: Place) -> Any:
    if packed is None:
        return None
    if type(packed) is dict and len(packed) == 1:
        if "$timezone" in packed:
            return _timezone_of(packed["$timezone"], place)
        name = packed.get("zone")
        if type(name) is str and name in _zone_names():
            return zoneinfo.ZoneInfo(name)
        if type(name) is str and name.isprintable() and 0 < len(name) <= 100:
            raise refuse(place, f"this machine does not know the time zone {name!r}", "Install its data with: pip install tzdata")
    raise wrong(place, "time zone is wrong", expected="nil, a timezone, or a zone's name", found=packed)


@cache
def _zone_names() -> set[str]:
    return zoneinfo.available_timezones()


def encode_timezone(walk: EncodeWalk, value: timezone, place: Place) -> dict[str, Any]:
    """Encode a fixed offset from UTC."""
    return {"$timezone": _timezone_payload(value, place)}


def decode_timezone(walk: DecodeWalk, payload: Any, place: Place) -> timezone:
    """Rebuild a fixed offset from UTC."""
    return _timezone_of(payload, place)


def _timezone_payload(value: timezone, place: Place) -> list[Any]:
    offset, *name = value.__getinitargs__()  # type: ignore[attr-defined]
    for text in name:
        check_text(text, place)
    return [offset // _MICROSECOND, name[0] if name else None]


def _timezone_of(payload: Any, place: Place) -> timezone:
    microseconds, name = check_items(payload, 2, place)
    offset = timedelta(microseconds=check_integer(microseconds, 1 - _DAY_MICROSECONDS, _DAY_MICROSECONDS - 1, place))
    return timezone(offset) if name is None else timezone(offset, check_kind(name, str, place))


def encode_timedelta(walk: EncodeWalk, value: timedelta, place: Place) -> dict[str, Any]:
    """Encode a duration."""
    return {"$timedelta": [value.days, value.seconds, value.microseconds]}


def decode_timedelta(walk: DecodeWalk, payload: Any, place: Place) -> timedelta:
    """Rebuild a duration."""
    days, seconds, microseconds = check_items(payload, 3, place)
    check_integer(days, -_MAX_DAYS, _MAX_DAYS, place)
    check_integer(seconds, 0, 86_399, place)
    check_integer(microseconds, 0, 999_999, place)
    return timedelta(days, seconds, microseconds)


def encode_random(walk: EncodeWalk, value: random.Random, place: Place) -> dict[str, Any]:
    """Encode Python's generator."""
    return {"$python_random": walk.array(value.getstate(), place)}


def decode_random(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild Python's generator."""

    def build(members: list[Any]) -> random.Random:
        generator = random.Random(0)
        check_random_state(members, place)
        generator.setstate(tuple(members))
        return generator

    return Later(walk.array(check_items(payload, 3, place), place), build)


def check_random_state(state: Any, place: Place) -> None:
    """Check what `random.getstate` gives: the version, 624 words with the position, the second number of a pair or None."""
    is_right = len(state) == 3 and type(state[0]) is int and state[0] == random.Random.VERSION
    is_right = is_right and type(state[1]) is tuple and len(state[1]) == _RANDOM_WORDS + 1
    if not is_right or type(state[2]) not in (float, type(None)):
        raise wrong(place, "state of a generator is wrong", expected=f"[{random.Random.VERSION}, {_RANDOM_WORDS + 1} words, number or nil]")
    for word in state[1][:-1]:
        check_integer(word, 0, 2**32 - 1, place)
    check_integer(state[1][-1], 0, _RANDOM_WORDS, place)
