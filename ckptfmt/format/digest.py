"""BLAKE3 digests: 32 bytes in memory, `blake3:` and 64 hexadecimal digits in text. Spec 1.

Source: https://github.com/BLAKE3-team/BLAKE3
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

from blake3 import blake3

PREFIX = "blake3:"
ZEROED = PREFIX + "0" * 64
PARALLEL_BYTES = 32 * 2**20

_TEXT = re.compile(r"blake3:[0-9a-f]{64}")

Hasher = blake3


def hasher_for(size_bytes: int) -> blake3:
    """Return a hasher for so many bytes that come in pieces, with all cores where that pays."""
    return blake3(max_threads=blake3.AUTO if size_bytes >= PARALLEL_BYTES else 1)


def digest_of(data: bytes | bytearray | memoryview) -> bytes:
    """Return the 32 bytes of BLAKE3 of `data`, with all cores where that pays. Releases the interpreter's lock for large inputs."""
    return blake3(data, max_threads=blake3.AUTO if len(data) >= PARALLEL_BYTES else 1).digest()


def digests_of(data: memoryview, sizes: Sequence[int]) -> bytes:
    """Return the digests of the consecutive parts of `data`, 32 bytes for each."""
    ends = list(accumulate(sizes))
    return b"".join([blake3(data[begin:end]).digest() for begin, end in zip([0, *ends], ends, strict=False)])


def shard_digest(header: bytes, slot_digests: bytes) -> bytes:
    """Return the digest of a shard from its header bytes and its slots' digests in order. Spec 6."""
    hasher = blake3(header)
    hasher.update(slot_digests)
    return hasher.digest()


def format_digest(digest: bytes) -> str:
    """Return the text form."""
    return PREFIX + digest.hex()


def is_digest(text: object) -> bool:
    """Tell whether `text` is the text form of a digest."""
    return isinstance(text, str) and _TEXT.fullmatch(text) is not None


def parse_digest(text: str) -> bytes:
    """Return the 32 bytes of a digest's text form, which has been checked with `is_digest`."""
    return bytes.fromhex(text[len(PREFIX) :])


def short(digest: bytes | str) -> str:
    """Return a digest for a message: cut to 12 hexadecimal digits."""
    text = digest if isinstance(digest, str) else format_digest(digest)
    return text[: len(PREFIX) + 12]
