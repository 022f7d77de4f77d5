"""Segments and records as bytes."""

from __future__ import annotations

import pytest

from ckptfmt.errors import CorruptError, FormatError, UnsupportedVersionError
from ckptfmt.format.journal_header import FIRST, SegmentHeader, decode_header, encode_header, header_size
from ckptfmt.format.journal_record import (
    NO_LINK,
    ORIGIN,
    RECORD_OVERHEAD_BYTES,
    Position,
    decode_values,
    encode_record,
    encode_value,
    find_lone_record,
    lone_record_size,
    parse_segment_name,
    segment_name,
    set_aside_name,
    take_records,
)

MARK = b"mark"


def chain(count: int, *, acknowledged: int = 0) -> tuple[bytes, list[bytes]]:
    data, position, payloads = b"", ORIGIN, []
    for index in range(count):
        payloads.append(encode_value(index))
        record, position = encode_record(payloads[-1], mark=MARK, after=position, acknowledged=acknowledged)
        data += record
    return data, payloads


def test_records_are_taken_up_to_the_first_byte_that_does_not_belong_to_one() -> None:
    data, payloads = chain(4)
    for tail in (b"", b"x", bytes(200), MARK):
        found = take_records(data + tail, mark=MARK, after=ORIGIN)
        assert (found.payloads, found.size_bytes, found.is_sealed) == (payloads, len(data), False)
        assert bool(found.needed_bytes) == (len(tail) < RECORD_OVERHEAD_BYTES)
    assert take_records(b"", mark=MARK, after=ORIGIN).payloads == []


def test_a_record_that_is_cut_is_asked_for_again() -> None:
    data, payloads = chain(3)
    for size in range(len(data)):
        found = take_records(data[:size], mark=MARK, after=ORIGIN)
        assert found.payloads == payloads[: len(found.payloads)]
        assert found.size_bytes <= size < found.needed_bytes <= len(data)


def test_a_record_says_what_was_acknowledged_before_it() -> None:
    record, position = encode_record(b"\x01", mark=MARK, after=Position(9, NO_LINK), acknowledged=7)
    assert take_records(record, mark=MARK, after=Position(9, NO_LINK)).acknowledged == 7
    seal, _ = encode_record(b"", mark=MARK, after=position, acknowledged=10)
    found = take_records(record + seal, mark=MARK, after=Position(9, NO_LINK))
    assert (found.acknowledged, found.is_sealed, len(found.payloads)) == (10, True, 1)
    lone = find_lone_record(seal + b"more", mark=MARK)
    assert lone is not None
    assert (lone.number, lone.acknowledged, lone.payload) == (11, 10, b"")


def test_only_the_mark_of_its_segment_makes_a_record_sound() -> None:
    data, _ = chain(1)
    assert lone_record_size(data) == len(data)
    assert find_lone_record(data, mark=MARK) is not None
    assert find_lone_record(data, mark=b"kram") is None
    assert find_lone_record(data[:-1], mark=MARK) is None
    assert take_records(data, mark=b"kram", after=ORIGIN).payloads == []
    assert lone_record_size(MARK + b"\xff" * 40) == 0


@pytest.mark.parametrize("count", [0, 1, 15, 16, 70_000])
def test_values_are_decoded_many_at_once(count: int) -> None:
    payloads = [encode_value(index) for index in range(count)]
    sizes = [len(payload) for payload in payloads]
    assert decode_values(b"".join(payloads), sizes, first_number=1, where="j") == list(range(count))


def test_values_nested_to_the_limit_are_decoded_too() -> None:
    value: object = 0
    for _ in range(1023):
        value = [value]
    payload = encode_value(value)
    decoded = decode_values(payload + b"\x01", [len(payload), 1], first_number=1, where="j")
    assert [encode_value(value) for value in decoded] == [payload, b"\x01"]


@pytest.mark.parametrize(
    "payloads", [[b"\x01\x02", b""], [b"\x01", b"\x92\x01", b"\x02"], [b"\x01", b"\x81\x01\x02"], [b"\x01", b"\xcc\x01"]]
)
def test_a_payload_that_is_not_one_value_in_packed_form_is_named(payloads: list[bytes]) -> None:
    with pytest.raises(CorruptError, match=r"record [56]: not in packed form") as caught:
        decode_values(b"".join(payloads), [len(payload) for payload in payloads], first_number=5, where="j")
    assert caught.value.rule == "E024"


def test_names_of_segments_are_exact() -> None:
    assert segment_name(7, b"\x01\xab\x00\xff") == "segment-00000007-01ab00ff.journal"
    assert parse_segment_name("segment-00000007-01ab00ff.journal") == (7, b"\x01\xab\x00\xff")
    assert parse_segment_name(segment_name(2**63 - 1, MARK)) == (2**63 - 1, MARK)
    for name in ("segment-7-01ab00ff.journal", "segment-000000007-01ab00ff.journal", "segment-00000000-01ab00ff.journal"):
        assert parse_segment_name(name) is None
    assert parse_segment_name("segment-00000007-01AB00FF.journal") is None
    assert parse_segment_name(f"segment-{2**63}-01ab00ff.journal") is None
    assert parse_segment_name(set_aside_name("segment-00000007-01ab00ff.journal", "00000000")) is None


def header_bytes() -> bytes:
    name = segment_name(3, MARK)
    seen = ((segment_name(1, MARK), 10), (segment_name(2, b"abcd"), 0))
    return encode_header(SegmentHeader(name, FIRST, ORIGIN, 2, True, seen, "now", "me"))[0]


def test_a_header_is_read_back() -> None:
    data = header_bytes()
    stored = decode_header(data + b"records", name=segment_name(3, MARK), where="j")
    assert stored is not None
    assert stored.size_bytes == header_size(data) == len(data)
    assert encode_header(stored.header) == (data, stored.link)
    assert (stored.header.mark, stored.header.begins_chain, stored.header.acknowledged) == (MARK, True, 0)


def test_a_header_with_any_byte_changed_or_cut_off_is_not_sound() -> None:
    data = header_bytes()
    for index in range(len(data)):
        damaged = bytearray(data)
        damaged[index] ^= 0x55
        assert decode_header(bytes(damaged), name=segment_name(3, MARK), where="j") is None
        assert decode_header(data[:index], name=segment_name(3, MARK), where="j") is None


def test_a_header_of_a_newer_major_version_is_refused_by_name() -> None:
    from ckptfmt.format.journal_record import link_of

    content = bytearray(header_bytes()[:-16])
    content[8] = 2
    with pytest.raises(UnsupportedVersionError, match=r"expected 1\.x, found 2\.0"):
        decode_header(bytes(content) + link_of(content), name=segment_name(3, MARK), where="j")


def test_a_header_under_another_name_is_refused() -> None:
    with pytest.raises(FormatError, match="E051"):
        decode_header(header_bytes(), name=segment_name(4, MARK), where="j")
