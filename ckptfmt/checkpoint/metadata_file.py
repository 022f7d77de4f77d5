"""Reading a checkpoint's metadata file: digest before decompression, then structure, then agreement with the manifest. Spec 7, 9."""

from __future__ import annotations

from ckptfmt.checkpoint.directory import open_named_file
from ckptfmt.disk.protocol import Directory
from ckptfmt.format.digest import digest_of, format_digest, short
from ckptfmt.format.manifest import Manifest
from ckptfmt.format.metadata import Metadata, check_codecs, decode_metadata
from ckptfmt.format.rules import violation
from ckptfmt.format.zstd_frame import decompress
from ckptfmt.state.pause import collector_paused


def read_metadata(directory: Directory, manifest: Manifest) -> Metadata:
    """Read and check the metadata that a manifest names."""
    entry = manifest.metadata
    where = f"{directory.path}/{entry.name}"
    file = open_named_file(directory, entry)
    try:
        data = file.read(0, entry.size_bytes)
    finally:
        file.close()
    actual = format_digest(digest_of(data))
    if actual != entry.digest:
        advice = "The metadata is damaged; use another copy."
        raise violation("E020", where, expected=short(entry.digest), found=short(actual), advice=advice)
    with collector_paused():
        metadata = decode_metadata(decompress(data, raw_size_bytes=entry.raw_size_bytes, where=where), where=where)
    _check_agreement(manifest, metadata, where)
    return metadata


def _check_agreement(manifest: Manifest, metadata: Metadata, where: str) -> None:
    if len(metadata.shards) != len(manifest.shards):
        raise violation("E032", where, "number of shards", expected=len(manifest.shards), found=len(metadata.shards))
    for entry, table in zip(manifest.shards, metadata.shards, strict=True):
        if len(table.sizes) != entry.tensor_count:
            raise violation("E032", where, f"slots of {entry.name}", expected=entry.tensor_count, found=len(table.sizes))
        size_bytes = table.header_size_bytes + sum(table.sizes)
        if size_bytes != entry.size_bytes:
            raise violation("E032", where, f"size of {entry.name}", expected=entry.size_bytes, found=size_bytes)
    totals = (manifest.tensor_count, manifest.tensor_bytes)
    found = (len(metadata.tensors), sum(row.size_bytes for row in metadata.tensors))
    if totals != found:
        raise violation("E011", where, "tensors and their bytes", expected=totals, found=found)
    if (error := check_codecs(metadata, manifest.requires, where=where)) is not None:
        raise error
