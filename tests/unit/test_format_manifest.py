"""The manifest: what is written is read, and every member is checked. Spec 4."""

import json
import math
from dataclasses import replace

import pytest

from ckptfmt.errors import CorruptError, FormatError, LimitError, UnsupportedVersionError
from ckptfmt.format import canonical_json
from ckptfmt.format.digest import ZEROED, digest_of, format_digest
from ckptfmt.format.layout import max_frame_bytes
from ckptfmt.format.manifest import Manifest, MetadataEntry, ShardEntry, UncheckedManifest, decode_manifest, encode_manifest

DIGEST = format_digest(bytes(range(32)))
MANIFEST = Manifest(
    created_at_utc="2026-01-02T03:04:05.678901Z",
    writer="ckptfmt 1.0",
    step=7,
    metrics={"loss": 0.25, "epoch": 3},
    fingerprint={"seed": 1},
    metadata=MetadataEntry("metadata-00010203.msgpack.zst", 100, DIGEST, 200),
    shards=[ShardEntry("model-00001-00010203.safetensors", 64, DIGEST, "model", 1)],
    tensor_count=1,
    tensor_bytes=8,
)


def sealed(document):
    data = canonical_json.encode({**document, "digest": ZEROED})
    return data.replace(ZEROED.encode(), format_digest(digest_of(data)).encode(), 1)


def changed(**members):
    """The document of a sound manifest with some members replaced, sealed; None removes one."""
    document = json.loads(encode_manifest(MANIFEST)) | members
    return sealed({name: value for name, value in document.items() if value is not Ellipsis})


def rule_of(data):
    with pytest.raises(FormatError) as caught:
        decode_manifest(data, where="m")
    return caught.value.rule


def test_a_manifest_is_read_as_it_was_written():
    data = encode_manifest(MANIFEST)
    read = decode_manifest(data, where="m")
    assert replace(read, digest="", shards=list(read.shards)) == MANIFEST
    assert [file.name for file in read.files()] == [MANIFEST.metadata.name, MANIFEST.shards[0].name]
    assert encode_manifest(read) == data


def test_the_digest_is_of_the_file_with_its_own_digits_zeroed():
    data = encode_manifest(MANIFEST)
    declared = json.loads(data)["digest"]
    assert format_digest(digest_of(data.replace(declared.encode(), ZEROED.encode()))) == declared


def test_the_digest_that_a_manifest_carried_before_does_not_matter():
    assert encode_manifest(replace(MANIFEST, digest=DIGEST)) == encode_manifest(MANIFEST)


def test_metrics_that_are_not_finite_are_kept():
    read = decode_manifest(encode_manifest(replace(MANIFEST, metrics={"a": math.nan, "b": math.inf, "c": -math.inf, "d": -0.0})), where="m")
    assert [repr(value) for value in read.metrics.values()] == ["nan", "inf", "-inf", "-0.0"]


def test_text_that_looks_like_a_zeroed_digest_does_no_harm():
    manifest = replace(MANIFEST, writer=ZEROED, fingerprint={"digest": ZEROED, "text": '\n "digest": "' + ZEROED})
    read = decode_manifest(encode_manifest(manifest), where="m")
    assert (read.writer, read.fingerprint) == (manifest.writer, manifest.fingerprint)


def test_unknown_members_are_kept():
    manifest = replace(MANIFEST, extra={"zz": {"deep": [1]}, "aa": None}, version=(1, 7))
    read = decode_manifest(encode_manifest(manifest), where="m")
    assert (read.extra, read.version) == (manifest.extra, (1, 7))
    assert encode_manifest(read) == encode_manifest(manifest)


def test_required_features_are_sorted_and_known():
    data = encode_manifest(replace(MANIFEST, requires=("codec:zstd",)))
    assert decode_manifest(data, where="m").requires == ("codec:zstd",)


def test_a_manifest_over_the_limit_is_not_written():
    with pytest.raises(LimitError, match="E002"):
        encode_manifest(replace(MANIFEST, fingerprint={"text": "x" * 2**24}))


def test_a_manifest_over_the_limit_is_not_parsed():
    with pytest.raises(LimitError) as caught:
        decode_manifest(b" " * (2**24 + 1), where="m")
    assert caught.value.rule == "E002"


@pytest.mark.parametrize("data", [b"[]", b"null", b"{}", b'{"format": "zip"}', b'{"format": null}'])
def test_other_documents_are_no_manifest(data):
    assert rule_of(data) == "E005"


def test_any_changed_text_is_noticed():
    data = encode_manifest(MANIFEST)
    assert rule_of(data.replace(b'"step": 7', b'"step": 6')) == "E004"
    assert rule_of(data + b"\n") == "E004"
    assert rule_of(data.replace(b" ", b"  ", 1)) == "E004"


def test_a_digest_that_stands_twice_is_refused():
    data = encode_manifest(MANIFEST)
    declared = json.loads(data)["digest"]
    assert rule_of(data.replace(b"ckptfmt 1.0", declared.encode())) == "E004"


def test_digest_comes_before_version_and_version_before_members():
    assert rule_of(changed(version=[2, 0], step="x").replace(b'"x"', b'"y"')) == "E004"
    assert rule_of(changed(version=[2, 0], requires=["codec:new"], step="x")) == "E006"
    assert rule_of(changed(requires=["codec:new"], step="x")) == "E007"


@pytest.mark.parametrize(("major", "advice"), [(2, "Update ckptfmt"), (0, "E006")])
def test_another_major_version_is_refused_by_number(major, advice):
    with pytest.raises(UnsupportedVersionError, match=advice) as caught:
        decode_manifest(changed(version=[major, 0]), where="m")
    assert (caught.value.rule, caught.value.found) == ("E006", major)


def test_unknown_features_are_refused_by_name():
    with pytest.raises(UnsupportedVersionError, match="found codec:a, codec:b") as caught:
        decode_manifest(changed(requires=["codec:b", "codec:zstd", "codec:a"]), where="m")
    assert caught.value.rule == "E007"


SHARD = {"name": "a", "size_bytes": 1, "digest": DIGEST, "section": "model", "tensor_count": 0}
METADATA = {"name": "b", "size_bytes": 1, "digest": DIGEST, "raw_size_bytes": 1}


@pytest.mark.parametrize(
    "members",
    [
        *({name: ...} for name in "version requires created_at_utc writer step metrics fingerprint metadata shards totals".split()),
        *({"version": version} for version in (1, [1], [1, 0, 0], ["1", "0"], [1, -1], [1.0, 0], [True, 0])),
        *({"requires": requires} for requires in ("codec:zstd", [1], ["codec zstd"], [""], {})),
        *({"created_at_utc": text} for text in (1, "2026-01-02", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678901Z\n")),
        *({"step": step} for step in (-1, 1.0, True, "7", [])),
        *({"metrics": metrics} for metrics in ([], {"a": None}, {"a": True}, {"a": "nan"}, {"a": [1]}, None)),
        *({"fingerprint": fingerprint} for fingerprint in ([], "x", 1)),
        *(
            {"totals": totals}
            for totals in ([], {}, {"tensor_count": 1}, {"tensor_count": -1, "tensor_bytes": 0}, {"tensor_count": 0, "tensor_bytes": 1.5})
        ),
        *({"writer": writer} for writer in (None, 1)),
        *(
            {"metadata": metadata}
            for metadata in (None, [], {}, METADATA | {"name": 1}, METADATA | {"digest": "x"}, METADATA | {"size_bytes": -1})
        ),
        {"metadata": {name: value for name, value in METADATA.items() if name != "raw_size_bytes"}},
        *({"shards": [shard]} for shard in (None, "a", SHARD | {"section": None}, SHARD | {"tensor_count": "1"}, SHARD | {"digest": None})),
        {"shards": SHARD},
    ],
    ids=str,
)
def test_a_member_that_is_missing_or_wrong_is_refused(members):
    assert rule_of(changed(**members)) == "E008"


@pytest.mark.parametrize("digest", [None, "", "blake3:00", ZEROED.upper(), 1])
def test_a_manifest_without_a_digest_is_refused(digest):
    document = json.loads(encode_manifest(MANIFEST)) | {"digest": digest}
    assert rule_of(canonical_json.encode(document)) == "E008"


@pytest.mark.parametrize("name", ["../a", "/a", "A", "a.", "manifest.json", "", "a\n"])
def test_names_that_could_lead_elsewhere_are_refused(name):
    assert rule_of(changed(shards=[SHARD | {"name": name}])) == "E009"
    assert rule_of(changed(metadata=METADATA | {"name": name})) == "E009"


def test_no_file_is_named_twice():
    assert rule_of(changed(shards=[SHARD, SHARD])) == "E010"
    assert rule_of(changed(shards=[SHARD | {"name": "b"}], metadata=METADATA)) == "E010"


def test_metadata_over_the_limit_is_refused_before_it_is_opened():
    assert rule_of(changed(metadata=METADATA | {"raw_size_bytes": 2**28 + 1})) == "E023"
    assert decode_manifest(changed(metadata=METADATA | {"raw_size_bytes": 2**28}), where="m").metadata.raw_size_bytes == 2**28


def test_a_frame_much_larger_than_its_content_is_refused_before_it_is_opened():
    for raw_size_bytes in (0, 1, 2**28):
        entry = METADATA | {"raw_size_bytes": raw_size_bytes, "size_bytes": max_frame_bytes(raw_size_bytes)}
        assert decode_manifest(changed(metadata=entry), where="m").metadata.size_bytes == entry["size_bytes"]
        assert rule_of(changed(metadata=entry | {"size_bytes": entry["size_bytes"] + 1})) == "E023"


def test_nothing_is_checked_but_size_json_and_digest_before_checked_is_called():
    unchecked = UncheckedManifest.from_bytes(changed(version=[9, 9], shards=None), where="m")
    assert unchecked.document["version"] == [9, 9]
    with pytest.raises(UnsupportedVersionError):
        unchecked.checked()


def test_messages_are_short_whatever_the_manifest_holds():
    for data in (changed(step="x" * 10_000), changed(shards=[SHARD | {"name": "y" * 10_000}]), changed(requires=["z" * 60] * 1000)):
        with pytest.raises(FormatError) as caught:
            decode_manifest(data, where="m")
        assert len(str(caught.value).partition("\n")[0]) < 250
    with pytest.raises(CorruptError, match="found '\\.\\./a'"):
        decode_manifest(changed(shards=[SHARD | {"name": "../a"}]), where="m")
