"""For every manifest: what is written is read, and no changed bit goes unnoticed. Spec 4."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.errors import FormatError
from ckptfmt.format import canonical_json
from ckptfmt.format.manifest import decode_manifest, encode_manifest
from tests.property.format_strategies import DOCUMENTS, manifests


def comparable(manifest):
    metrics = {name: repr(value) for name, value in manifest.metrics.items()}
    return replace(manifest, digest="", metrics=metrics, shards=list(manifest.shards), requires=tuple(sorted(manifest.requires)))


@given(DOCUMENTS)
def test_every_document_is_read_as_it_was_written(document):
    data = canonical_json.encode(document)
    assert repr(canonical_json.decode(data, where="m", rule="E003", max_depth=64)) == repr(ordered(document))


def ordered(value):
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value)}
    return [ordered(item) for item in value] if isinstance(value, list) else value


@given(manifests())
def test_every_manifest_is_read_as_it_was_written(manifest):
    data = encode_manifest(manifest)
    read = decode_manifest(data, where="m")
    assert comparable(read) == comparable(manifest)
    assert encode_manifest(read) == data


@given(manifests(), st.data())
def test_any_flipped_bit_is_refused(manifest, data):
    encoded = bytearray(encode_manifest(manifest))
    position = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[position // 8] ^= 1 << position % 8
    with pytest.raises(FormatError):
        decode_manifest(bytes(encoded), where="m")


@given(manifests(), st.data())
def test_any_part_of_a_manifest_is_refused(manifest, data):
    encoded = encode_manifest(manifest)
    with pytest.raises(FormatError):
        decode_manifest(encoded[: data.draw(st.integers(0, len(encoded) - 1))], where="m")


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_raise_anything_but_a_format_error(data):
    with pytest.raises(FormatError):
        decode_manifest(data, where="m")


@given(manifests(), DOCUMENTS, st.data())
def test_no_sealed_document_raises_anything_but_a_format_error(manifest, value, data):
    document = canonical_json.decode(encode_manifest(manifest), where="m", rule="E003", max_depth=64)
    holder = document
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = data.draw(st.sampled_from(keys))
        if not (isinstance(holder[key], dict | list) and holder[key]) or data.draw(st.booleans()):
            break
        holder = holder[key]
    holder[key] = value
    with contextlib.suppress(FormatError):
        decode_manifest(resealed(document), where="m")


def resealed(document):
    from tests.conformance.vector_kit import seal

    return seal(canonical_json.encode(document))
