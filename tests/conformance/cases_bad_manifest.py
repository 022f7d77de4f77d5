"""Checkpoints whose manifest or files break one rule each, and those about which a verifier has only something to say. Spec 3, 4, 13."""

from tests.conformance.breaking import (
    MANIFEST,
    METADATA,
    MODEL,
    flipped,
    in_content,
    in_file,
    in_manifest,
    in_text,
    member,
    nested,
    replaced,
    sound,
    without,
)
from tests.conformance.vector_kit import Ref, build, floats, whole


def manifest_cases():
    """Size, strict JSON, digest, format, version, features."""
    yield "E001-no-manifest", "Every data file is there, but no manifest.", in_file(MANIFEST, lambda _: None)
    yield "E003-key-twice", "A member stands twice.", in_text(b' "step": 7,', b' "step": 7,\n "step": 7,')
    yield "E003-not-a-number", "NaN as a number of JSON.", in_text(b'"loss": 0.25', b'"loss": NaN')
    yield "E003-number-out-of-range", "A number beyond the doubles.", in_text(b'"loss": 0.25', b'"loss": 1e400')
    yield "E003-integer-out-of-range", "An integer of 2^63.", in_text(b'"step": 7', b'"step": 9223372036854775808')
    yield "E003-not-ascii", "A letter that is not ASCII, in UTF-8.", in_text(b"ckptfmt vectors", "ckptfmt véctors".encode())
    yield "E003-half-a-pair", "Half of a surrogate pair.", in_text(b"ckptfmt vectors", b"ckptfmt \\ud800")
    yield "E003-nested-65", "One level more than is allowed.", in_manifest(member("fingerprint", value={"config": nested(0, 63)}))
    yield "E003-trailing-bytes", "Something after the document.", sound(text=lambda text: text + b"{}\n")
    yield "E004-step-changed", "One digit was changed.", in_file(MANIFEST, lambda data: replaced(data, b'"step": 7', b'"step": 8'))
    yield "E004-space-added", "A space was added.", in_file(MANIFEST, lambda data: data + b" ")
    text = "The digest is written with an escape, so that its text is not in the file."
    yield "E004-digest-escaped", text, in_file(MANIFEST, lambda data: replaced(data, b'\n "digest": "b', b'\n "digest": "\\u0062'))
    yield "E005-other-format", "Another format's manifest.", in_manifest(member("format", value="otherfmt"))
    yield "E005-not-an-object", "The document is an array.", in_file(MANIFEST, lambda _: b"[]\n")
    yield "E006-major-2", "The next major version.", in_manifest(member("version", value=[2, 0]))
    yield "E006-major-0", "A major version before the first.", in_manifest(member("version", value=[0, 9]))
    yield "E007-unknown-codec", "A feature that this version does not know.", in_manifest(member("requires", value=["codec:future"]))


def member_cases():
    """Members of the manifest, and the files that it names."""
    wrong = {
        "digest-missing": without("digest"),
        "created-missing": without("created_at_utc"),
        "created-without-zone": member("created_at_utc", value="2026-01-02T03:04:05.678901"),
        "version-is-text": member("version", value="1.0"),
        "requires-with-space": member("requires", value=["codec zstd"]),
        "step-negative": member("step", value=-1),
        "step-is-true": member("step", value=True),
        "metric-is-text": member("metrics", "loss", value="0.25"),
        "fingerprint-is-array": member("fingerprint", value=[]),
        "size-missing": without("metadata", "size_bytes"),
        "section-is-number": member("shards", 0, "section", value=1),
        "digest-of-other-kind": member("shards", 0, "digest", value="sha256:" + "0" * 64),
        "totals-missing": without("totals"),
    }
    for name, change in wrong.items():
        yield f"E008-{name}", f"A member of the manifest is missing or wrong: {name.replace('-', ' ')}.", in_manifest(change)
    names = {
        "parent": "../model.safetensors",
        "upper-case": "Model.safetensors",
        "hidden": ".model",
        "dot-at-end": "model.",
        "manifest": MANIFEST,
    }
    for name, text in names.items():
        yield f"E009-{name}", f"A shard named {text!r}.", in_manifest(member("shards", 0, "name", value=text))
    yield "E010-shard-twice", "Two shards are one file.", _shard_twice()
    yield "E011-tensor-bytes", "One byte too many in the totals.", in_manifest(member("totals", "tensor_bytes", value=21))
    yield "E011-tensor-count", "A tensor too few in the totals.", in_manifest(member("totals", "tensor_count", value=1))


def _shard_twice():
    shard, rows = whole([("w", "float32", (1,), floats(1))])
    return build({"model": {"w": Ref(0)}}, rows, [shard, shard])


def file_cases():
    """Files as the file system has them."""
    yield "E012-shard-missing", "A shard was removed.", in_file(MODEL, lambda _: None)
    yield "E012-metadata-missing", "The metadata was removed.", in_file(METADATA, lambda _: None)
    yield "E013-shard-is-a-directory", "A directory has the name of a shard.", _directory_for_shard()
    yield "E014-shard-truncated", "The last byte of a shard is missing.", in_file(MODEL, lambda data: data[:-1])
    yield "E014-shard-longer", "A byte after the end of a shard.", in_file(MODEL, lambda data: data + b"\0")
    yield "E014-metadata-empty", "The metadata has no bytes.", in_file(METADATA, lambda _: b"")
    yield "E020-bit-flipped", "One bit of the metadata file.", in_file(METADATA, lambda data: flipped(data, 40))
    yield "E040-bit-flipped", "One bit of a tensor.", in_file(MODEL, lambda data: flipped(data, len(data) - 10))


def _directory_for_shard():
    files = sound()
    name = next(name for name in files if name.startswith(MODEL))
    files[f"{name}/part"] = files.pop(name)
    return files


def warn_cases():
    """What loads, and about which a verifier has something to say."""
    yield "W001-extra-file", "A file that the manifest does not name.", sound() | {"notes.txt": b"not of the checkpoint\n"}
    name = ".model-00001." + "0123456789abcdef" * 2 + ".tmp"
    yield "W002-temporary-file", "What an interrupted save left.", sound() | {name: b"half a sh"}
    yield "W003-newer-minor", "Written by version 1.7.", in_manifest(member("version", value=[1, 7]))
    text = "A member that this version does not know."
    yield "W004-manifest-member", text, in_manifest(member("signature", value={"key": "k1"}))
    yield "W004-metadata-member", text, in_content(member("notes", value=["n"]))
