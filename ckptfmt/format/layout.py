"""Names, limits and version of the format: the constants that reader and writer share. Spec 3 to 9 and 13."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

FORMAT_NAME = "ckptfmt"
VERSION = (1, 0)
KNOWN_FEATURES = frozenset({"codec:zstd", "codec:planes", "codec:same", "codec:rounded", "codec:delta"})

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 16 * 2**20
MAX_MANIFEST_DEPTH = 64
MAX_INTEGER = 2**63

MAX_METADATA_RAW_BYTES = 256 * 2**20
FRAME_SLACK_BYTES = 2**16
MAX_WINDOW_BYTES = 8 * 2**20
MAX_CONTAINER_ITEMS = 2**24
MAX_STATE_DEPTH = 256

HEADER_METADATA_KEY = "__metadata__"
MAX_HEADER_BYTES = 25_000_000
SPLIT_HEADER_BYTES = 20_000_000
HEADER_LENGTH_BYTES = 8
DATA_ALIGNMENT_BYTES = 64
MAX_RANK = 64
MAX_DIMENSION = 2**48
MAX_NAME_BYTES = 512
DIGEST_BYTES = 32

# No rule of the format: how many rows of an index are worked on before the next, so that the memory of their objects is used again.
BATCH_ROWS = 1000

STEM_LENGTHS_HEX = (8, 16, 32, 64)

_FILE_NAME = re.compile(r"[a-z0-9_][a-z0-9._-]{0,127}")
_DATA_NAME = re.compile(r"[a-z0-9_]+(-[0-9]{5,})?-[0-9a-f]{8,64}\.(safetensors|msgpack\.zst)")
_TEMPORARY_NAME = re.compile(r"\.[a-z0-9_-]+\.[0-9a-f]{32}\.tmp")
_NOT_IN_STEM = re.compile(r"[^a-z0-9_]")
_FEATURE = re.compile(r"[a-z0-9:._-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def is_file_name(name: str) -> bool:
    """Tell whether a manifest may name a file so. Spec 3."""
    return _FILE_NAME.fullmatch(name) is not None and not name.endswith(".") and name != MANIFEST_NAME


def max_frame_bytes(raw_size_bytes: int) -> int:
    """Return the size that a frame of so many bytes may have: what cannot be compressed grows a little. Spec 7."""
    return raw_size_bytes + raw_size_bytes // 256 + FRAME_SLACK_BYTES


def is_data_name(name: str) -> bool:
    """Tell whether a writer of this format gives data files such names, so that unnamed ones are litter."""
    return _DATA_NAME.fullmatch(name) is not None


def is_temporary_name(name: str) -> bool:
    """Tell whether a writer of this format gives temporary files such names."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def is_feature_name(name: object) -> bool:
    """Tell whether `requires` may hold this. Spec 4."""
    return isinstance(name, str) and _FEATURE.fullmatch(name) is not None


def is_tensor_name(name: str) -> bool:
    """Tell whether a tensor may be stored under this name. Spec 6."""
    if not 0 < len(name) <= MAX_NAME_BYTES or name == HEADER_METADATA_KEY or _CONTROL.search(name):
        return False
    try:
        return len(name.encode("utf-8")) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def are_tensor_names(names: Sequence[str]) -> bool:
    """Tell whether `is_tensor_name` holds for all of them; plain names are looked at all at once."""
    text = "".join(names)
    if not text.isascii() or not text.isprintable():
        return all(map(is_tensor_name, names))
    lengths = set(map(len, names))
    return 0 not in lengths and max(lengths, default=1) <= MAX_NAME_BYTES and HEADER_METADATA_KEY not in names


def section_stem(section: str | None) -> str:
    """Return the part of a shard's file name that stands for its section. Spec 3."""
    return _NOT_IN_STEM.sub("_", section.lower())[:40] if section else "state"


def temporary_name(stem: str, nonce: str) -> str:
    """Return the name under which a file is written before it is complete."""
    return f".{stem}.{nonce}.tmp"


def is_shape(shape: object) -> bool:
    """Tell whether a decoded value is a shape within the limits of spec 6."""
    if type(shape) is not list or len(shape) > MAX_RANK:
        return False
    return all(type(size) is int and 0 <= size < MAX_DIMENSION for size in shape)


def are_shapes(shapes: Sequence[Any]) -> bool:
    """Tell whether `is_shape` holds for all of them."""
    if not set(map(type, shapes)) <= {list} or max(map(len, shapes), default=0) > MAX_RANK:
        return False
    numbers = list(chain.from_iterable(shapes))
    return not numbers or (set(map(type, numbers)) == {int} and min(numbers) >= 0 and max(numbers) < MAX_DIMENSION)
