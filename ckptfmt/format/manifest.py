"""The manifest: what a checkpoint consists of, and the one digest that fixes every byte of it. Spec 4.

Bytes are believed in steps: size, strict JSON, digest (`UncheckedManifest`), then format, version, features and every
member (`Manifest`). Nothing that a manifest names is opened before it has become a `Manifest`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ckptfmt.errors import LimitError
from ckptfmt.format import canonical_json
from ckptfmt.format.digest import ZEROED, digest_of, format_digest, is_digest, short
from ckptfmt.format.layout import (
    FORMAT_NAME,
    KNOWN_FEATURES,
    MAX_INTEGER,
    MAX_MANIFEST_BYTES,
    MAX_MANIFEST_DEPTH,
    MAX_METADATA_RAW_BYTES,
    VERSION,
    is_feature_name,
    is_file_name,
    max_frame_bytes,
)
from ckptfmt.format.rules import shown, violation

MEMBERS = frozenset(
    "format version requires digest created_at_utc writer step metrics fingerprint metadata shards totals".split(),
)
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, slots=True)
class FileEntry:
    """How one file is pointed at; `digest` is in text form."""

    name: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class MetadataEntry(FileEntry):
    """The metadata file; `raw_size_bytes` is its size before compression."""

    raw_size_bytes: int


@dataclass(frozen=True, slots=True)
class ShardEntry(FileEntry):
    """A shard; `tensor_count` counts its slots."""

    section: str
    tensor_count: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked manifest. `extra` holds members that this version does not know."""

    created_at_utc: str
    writer: str
    step: int | None
    metrics: Mapping[str, int | float]
    fingerprint: Mapping[str, Any] | None
    metadata: MetadataEntry
    shards: Sequence[ShardEntry]
    tensor_count: int
    tensor_bytes: int
    requires: Sequence[str] = ()
    version: tuple[int, int] = VERSION
    digest: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def files(self) -> list[FileEntry]:
        """Return every file that the manifest names, metadata first."""
        return [self.metadata, *self.shards]


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode a manifest, its digest included; `manifest.digest` is not looked at.

    Raises:
        LimitError: it would exceed the format's limit.
    """
    shards = [
        {
            "name": shard.name,
            "size_bytes": shard.size_bytes,
            "digest": shard.digest,
            "section": shard.section,
            "tensor_count": shard.tensor_count,
        }
        for shard in manifest.shards
    ]
    metadata = manifest.metadata
    document = {
        **manifest.extra,
        "format": FORMAT_NAME,
        "version": list(manifest.version),
        "requires": sorted(manifest.requires),
        "digest": ZEROED,
        "created_at_utc": manifest.created_at_utc,
        "writer": manifest.writer,
        "step": manifest.step,
        "metrics": {name: _encode_number(value) for name, value in manifest.metrics.items()},
        "fingerprint": manifest.fingerprint,
        "metadata": {
            "name": metadata.name,
            "size_bytes": metadata.size_bytes,
            "digest": metadata.digest,
            "raw_size_bytes": metadata.raw_size_bytes,
        },
        "shards": shards,
        "totals": {"tensor_count": manifest.tensor_count, "tensor_bytes": manifest.tensor_bytes},
    }
    data = canonical_json.encode(document)
    if len(data) > MAX_MANIFEST_BYTES:
        raise LimitError(f"manifest of {len(data):,} bytes exceeds {MAX_MANIFEST_BYTES:,} bytes [E002]", rule="E002")
    # A line that begins so is the member of the top level: deeper ones are indented further, strings hold no line breaks.
    member = b'\n "digest": "'
    return data.replace(member + ZEROED.encode(), member + format_digest(digest_of(data)).encode(), 1)


def _encode_number(value: int | float) -> int | float | str:
    if isinstance(value, int) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


@dataclass(frozen=True, slots=True)
class UncheckedManifest:
    """A strict JSON document whose digest is right; nothing else is known of it."""

    document: dict[str, Any]
    where: str

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> UncheckedManifest:
        """Check size, JSON and digest. `where` names the file in messages."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise violation("E002", where, expected=f"at most {MAX_MANIFEST_BYTES} bytes", found=len(data))
        document = canonical_json.decode(data, where=where, rule="E003", max_depth=MAX_MANIFEST_DEPTH)
        if type(document) is not dict or document.get("format") != FORMAT_NAME:
            raise violation("E005", where)
        declared = document.get("digest")
        if not isinstance(declared, str) or not is_digest(declared):
            raise violation("E008", where, "digest", found=shown(declared))
        if data.count(declared.encode()) != 1:
            raise violation("E004", where, "the digest's text does not stand exactly once in the manifest")
        actual = format_digest(digest_of(data.replace(declared.encode(), ZEROED.encode())))
        if actual != declared:
            raise violation("E004", where, expected=short(declared), found=short(actual), advice="The manifest is damaged.")
        return cls(document, where)

    def checked(self) -> Manifest:
        """Check format, version, features and every member."""
        document = self.document
        version = document.get("version")
        if type(version) is not list or len(version) != 2 or not all(type(part) is int and part >= 0 for part in version):
            raise self._wrong("version", version)
        if version[0] != VERSION[0]:
            advice = "Update ckptfmt to read it." if version[0] > VERSION[0] else ""
            raise violation("E006", self.where, expected=VERSION[0], found=version[0], advice=advice)
        requires = self._member("requires", list)
        if not all(map(is_feature_name, requires)):
            raise self._wrong("requires", requires)
        if unknown := sorted(set(requires) - KNOWN_FEATURES):
            advice = "Update ckptfmt to read it."
            raise violation("E007", self.where, found=shown(", ".join(unknown)), advice=advice)
        created, step = self._member("created_at_utc", str), document.get("step")
        if not _CREATED.fullmatch(created):
            raise self._wrong("created_at_utc", created)
        if "step" not in document or (step is not None and not _is_count(step)):
            raise self._wrong("step", step)
        fingerprint = document.get("fingerprint")
        if "fingerprint" not in document or not (fingerprint is None or type(fingerprint) is dict):
            raise self._wrong("fingerprint", fingerprint)
        metadata, shards = self._metadata(), [self._shard(shard) for shard in self._member("shards", list)]
        self._check_names([metadata, *shards])
        totals = self._member("totals", dict)
        if not _is_count(totals.get("tensor_count")) or not _is_count(totals.get("tensor_bytes")):
            raise self._wrong("totals", totals)
        return Manifest(
            created_at_utc=created,
            writer=self._member("writer", str),
            step=step,
            metrics={name: self._metric(name, value) for name, value in self._member("metrics", dict).items()},
            fingerprint=fingerprint,
            metadata=metadata,
            shards=shards,
            tensor_count=totals["tensor_count"],
            tensor_bytes=totals["tensor_bytes"],
            requires=tuple(requires),
            version=(version[0], version[1]),
            digest=document["digest"],
            extra={name: value for name, value in document.items() if name not in MEMBERS},
        )

    def _wrong(self, member: str, found: Any) -> Exception:
        return violation("E008", self.where, f"member {member!r} is missing or wrong", found=shown(found))

    def _member(self, name: str, kind: type) -> Any:
        value = self.document.get(name)
        if type(value) is not kind:
            raise self._wrong(name, value)
        return value

    def _metric(self, name: str, value: Any) -> int | float:
        if type(value) in (int, float):
            return value  # type: ignore[no-any-return]
        if type(value) is str and value in _NOT_FINITE:
            return _NOT_FINITE[value]
        raise self._wrong(f"metrics.{name}", value)

    def _file(self, entry: Any, member: str, *counts: str) -> dict[str, Any]:
        if type(entry) is not dict or type(entry.get("name")) is not str:
            raise self._wrong(member, entry)
        if not is_file_name(entry["name"]):
            raise violation("E009", self.where, found=repr(entry["name"][:120]))
        if not is_digest(entry.get("digest")) or not all(_is_count(entry.get(name)) for name in ("size_bytes", *counts)):
            raise self._wrong(member, entry)
        return entry

    def _metadata(self) -> MetadataEntry:
        entry = self._file(self.document.get("metadata"), "metadata", "raw_size_bytes")
        if entry["raw_size_bytes"] > MAX_METADATA_RAW_BYTES:
            expected = f"at most {MAX_METADATA_RAW_BYTES} bytes"
            raise violation("E023", self.where, "declared size of the metadata", expected=expected, found=entry["raw_size_bytes"])
        if entry["size_bytes"] > (limit := max_frame_bytes(entry["raw_size_bytes"])):
            what = "declared size of the compressed metadata"
            raise violation("E023", self.where, what, expected=f"at most {limit} bytes", found=entry["size_bytes"])
        return MetadataEntry(entry["name"], entry["size_bytes"], entry["digest"], entry["raw_size_bytes"])

    def _shard(self, shard: Any) -> ShardEntry:
        entry = self._file(shard, "shards", "tensor_count")
        if type(entry.get("section")) is not str:
            raise self._wrong("shards.section", entry.get("section"))
        return ShardEntry(entry["name"], entry["size_bytes"], entry["digest"], entry["section"], entry["tensor_count"])

    def _check_names(self, files: Sequence[FileEntry]) -> None:
        names: set[str] = set()
        for file in files:
            if file.name in names:
                raise violation("E010", self.where, found=file.name)
            names.add(file.name)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_INTEGER


def decode_manifest(data: bytes, *, where: str) -> Manifest:
    """Decode and check a manifest from its bytes."""
    return UncheckedManifest.from_bytes(data, where=where).checked()
