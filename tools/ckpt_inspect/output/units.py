"""Sizes, counts and times as people read them. Sizes are powers of 1000, as in `max_shard_size`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_PREFIXES = ("kB", "MB", "GB", "TB", "PB", "EB")
_AGES = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


def size_text(size_bytes: int) -> str:
    """Return a size with one decimal: `512 B`, `1.0 MB`, `12.4 GB`."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    # 999.95 would be rounded to 1000.0.
    power = next((power for power in range(1, len(_PREFIXES)) if size_bytes < 999.95 * 1000**power), len(_PREFIXES))
    return f"{size_bytes / 1000**power:,.1f} {_PREFIXES[power - 1]}"


def exact_size_text(size_bytes: int) -> str:
    """Return a size with its exact number of bytes behind it."""
    return size_text(size_bytes) if size_bytes < 1000 else f"{size_text(size_bytes)} ({size_bytes:,} bytes)"


def count_text(count: int, noun: str, plural: str = "") -> str:
    """Return `1 tensor`, `1,200 tensors`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def parse_utc(text: str) -> datetime | None:
    """Return the instant that a manifest's `created_at_utc` names, None if there is no such day or hour."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def utc_text(instant: datetime | None, fallback: str = "?") -> str:
    """Return `2025-11-21 03:05:12`."""
    return f"{instant:%Y-%m-%d %H:%M:%S}" if instant else fallback


def age_text(instant: datetime, now: datetime) -> str:
    """Return `3 minutes ago`; a clock that was set back gives `in the future`."""
    if instant > now + timedelta(seconds=60):
        return "in the future"
    seconds = max(int((now - instant).total_seconds()), 0)
    for unit_seconds, unit in _AGES:
        if seconds >= unit_seconds:
            return f"{count_text(seconds // unit_seconds, unit)} ago"
    return f"{count_text(seconds, 'second')} ago" if seconds else "just now"


def duration_text(seconds: float) -> str:
    """Return `0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def number_text(value: float) -> str:
    """Return a metric with six significant digits at most; an integer whole."""
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:.6g}"


def short_number(value: float) -> str:
    """Return a number with four significant digits, as it stands at an axis."""
    text = f"{value:.4g}"
    return "0" if text == "-0" else text
