"""Digests in memory and in text. Spec 1 and 6."""

import pytest

from ckptfmt.format import digest

EMPTY = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_a_digest_is_blake3():
    assert digest.format_digest(digest.digest_of(b"")) == EMPTY


def test_the_text_form_goes_both_ways():
    raw = bytes(range(32))
    assert digest.parse_digest(digest.format_digest(raw)) == raw


def test_a_shard_digest_covers_header_and_slot_digests_in_order():
    header, slots = b"header", bytes(64)
    assert digest.shard_digest(header, slots) == digest.digest_of(header + slots)
    assert digest.shard_digest(b"", b"") == digest.digest_of(b"")


@pytest.mark.parametrize(
    "text", [EMPTY[:-1], EMPTY + "0", EMPTY.upper(), EMPTY.replace("blake3", "sha256"), EMPTY + "\n", "", None, 1, b"blake3:"]
)
def test_other_texts_are_no_digests(text):
    assert not digest.is_digest(text)


def test_a_digest_is_cut_for_messages():
    assert digest.is_digest(EMPTY)
    assert digest.short(EMPTY) == digest.short(digest.parse_digest(EMPTY)) == "blake3:af1349b9f5f9"


def test_a_memoryview_and_a_bytearray_hash_as_their_bytes():
    assert digest.digest_of(memoryview(b"abc")) == digest.digest_of(bytearray(b"abc")) == digest.digest_of(b"abc")
