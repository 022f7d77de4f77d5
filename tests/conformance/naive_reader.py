"""A reader of checkpoints written from spec/format-1.md alone, sharing nothing with ckptfmt: where it cannot, the spec has a hole.

Chapter 11 is in naive_codecs.
`read(path)` returns the state, with `{"$tensor": {...}}` for tensors. Every digest is checked; other damage may end in any exception.
"""

import json
import re
from math import prod
from pathlib import Path

import msgpack
import numpy as np
import zstandard
from blake3 import blake3

from tests.conformance.naive_codecs import CODECS, Refused, demand, read_chunk

__all__ = ["Refused", "read"]

NATIVE = """bool BOOL 1 uint8 U8 1 int8 I8 1 uint16 U16 2 int16 I16 2 float16 F16 2 bfloat16 BF16 2 uint32 U32 4 int32 I32 4 float32 F32 4
    uint64 U64 8 int64 I64 8 float64 F64 8 complex64 C64 8 float8_e4m3fn F8_E4M3 1 float8_e5m2 F8_E5M2 1 float8_e4m3fnuz F8_E4M3FNUZ 1
    float8_e5m2fnuz F8_E5M2FNUZ 1""".split()
STORED = {name: (stored, int(size)) for name, stored, size in zip(NATIVE[::3], NATIVE[1::3], NATIVE[2::3], strict=True)}
RAW = re.compile(r"u?int[1-7]|float8_(e8m0fnu|e3m4|e4m3|e4m3b11fnuz)|float4_e2m1fn(_x2)?|float6_(e2m3fn|e3m2fn)|bits(8|1x8|2x4|4x2)")


def digest_of(data):
    return f"blake3:{blake3(data).hexdigest()}"


def read_file(path, name, *, size_bytes, missing="E012"):  # chapter 3
    file = Path(path) / name
    demand(file.is_symlink() or file.exists(), missing)
    demand(file.is_file() and not file.is_symlink(), "E013")
    demand(size_bytes in (None, file.stat().st_size), "E014")
    return file.read_bytes()


def strict_json(data, rule):
    def unique(pairs):
        demand(len(dict(pairs)) == len(pairs), rule)
        return dict(pairs)

    return json.loads(data.decode(), object_pairs_hook=unique, parse_constant=lambda _: demand(False, rule))


def read_manifest(path):  # chapter 4
    data = read_file(path, "manifest.json", size_bytes=None, missing="E001")
    demand(len(data) <= 2**24, "E002")
    manifest = strict_json(data, "E003")
    demand(isinstance(manifest, dict) and manifest.get("format") == "ckptfmt", "E005")
    demand(re.fullmatch(r"blake3:[0-9a-f]{64}", digest := str(manifest.get("digest"))), "E008")
    demand(data.count(digest.encode()) == 1 and digest == digest_of(data.replace(digest.encode(), b"blake3:" + b"0" * 64)), "E004")
    demand(manifest["version"][0] == 1, "E006")
    demand(set(manifest["requires"]) <= {f"codec:{name}" for name in CODECS}, "E007")
    for name in (file["name"] for file in (manifest["metadata"], *manifest["shards"])):
        demand(re.fullmatch(r"(?!.*\.$)[a-z0-9_][a-z0-9._-]{0,127}", name) and name != "manifest.json", "E009")
    return manifest


def read_metadata(path, entry):  # chapter 7
    demand(entry["size_bytes"] <= entry["raw_size_bytes"] * 257 // 256 + 2**16, "E023")
    demand(digest_of(data := read_file(path, entry["name"], size_bytes=entry["size_bytes"])) == entry["digest"], "E020")
    demand((frame := zstandard.get_frame_parameters(data)).window_size <= 2**23, "E022")
    demand(data[:4] == b"\x28\xb5\x2f\xfd" and frame.has_checksum and not frame.dict_id and frame.content_size < 2**63, "E021")
    demand(frame.content_size == entry["raw_size_bytes"] <= 2**28, "E023")
    raw = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    demand(msgpack.packb(content := msgpack.unpackb(raw)) == raw, "E024")
    return content


def read_shard(path, entry, table):  # chapter 6; (stored dtype, stored shape, bytes) of each slot
    data = read_file(path, entry["name"], size_bytes=entry["size_bytes"])
    end = 8 + int.from_bytes(data[:8], "little")
    demand(8 <= end <= min(len(data), 25_000_008), "E030")
    demand(end % 64 == 0, "E034")
    demand(entry["digest"] == digest_of(data[:end] + table["digests"]), "E031")
    header, slots, sizes, begin = strict_json(data[8:end], "E030"), [], [], end
    demand(header.pop("__metadata__", {}).get("format") == "pt", "E030")
    keys = sorted(header, key=lambda key: header[key]["data_offsets"])
    for slot in map(header.get, keys):
        size = prod(slot["shape"]) * dict(STORED.values()).get(slot["dtype"], -1)
        demand(slot.keys() == {"dtype", "shape", "data_offsets"} and slot["data_offsets"][1] - slot["data_offsets"][0] == size, "E030")
        demand(slot["data_offsets"][0] == end - begin, "E033")
        slots.append((slot["dtype"], slot["shape"], data[end : end + size]))
        demand(blake3(slots[-1][2]).digest() == table["digests"][32 * len(sizes) :][:32], "E040")
        sizes, end = [*sizes, size], end + size
    demand(end == len(data), "E033")
    demand([keys, sizes, begin] == [table["keys"], table["sizes"], table["header_size_bytes"]], "E032")
    return slots


def itemsize_bytes(dtype):  # chapter 9.2
    if match := re.fullmatch(r"numpy:(?:[<>|]([?biufcmMSUV])(\d+)(?:\[.+\])?|(\{.+\}))", dtype):
        return json.loads(match[3])["size"] if match[3] else int(match[2]) * (4 if match[1] == "U" else 1)
    sizes = {"complex32": 4, "complex128": 16, "bits16": 2, **{name: size for name, (_, size) in STORED.items()}}
    demand(dtype in sizes or RAW.fullmatch(dtype), "E042")
    return sizes.get(dtype, 1)


def read_tensor(row, shards, tables, requires):  # chapter 9.3
    _, dtype, shape, chunks = row
    size = itemsize_bytes(dtype)
    whole, covered = np.zeros([*shape, size], np.uint8), np.zeros(shape, np.uint8)
    for shard, slot, *place in chunks:
        demand(0 <= shard < len(shards) and 0 <= slot < len(shards[shard]), "E025")
        offset, part = place or ([0] * len(shape), shape)
        stored_dtype, stored_shape, stored = shards[shard][slot]
        data, is_encoded = read_chunk(shard, slot, shards, tables, requires)
        is_native = dtype in STORED and not is_encoded
        demand((stored_dtype, stored_shape) == ((STORED[dtype][0], part) if is_native else ("U8", [len(stored)])), "E032")
        demand(whole[region := tuple(slice(o, o + p) for o, p in zip(offset, part, strict=True))].size == len(data), "E041")
        whole[region] = np.frombuffer(data, np.uint8).reshape([*part, size])
        covered[region] += 1
    demand((covered == 1).all(), "E041")
    return dtype, shape, whole.tobytes()


def resolve(node, tensors):  # chapter 8, 9.1
    if type(node) is not dict:
        return [resolve(item, tensors) for item in node] if type(node) is list else node
    if node.keys() != {"$tensor"}:
        return {key: resolve(value, tensors) for key, value in node.items()}
    row, kind, attributes = node["$tensor"]
    demand(0 <= row < len(tensors), "E028")
    dtype, shape, data = tensors[row]
    if "view" in attributes:
        offset, dtype, shape, strides = attributes["view"]
        places = offset + np.tensordot(np.array(strides, int) * (size := itemsize_bytes(dtype)), np.indices(shape), 1)
        demand(not places.size or (places.min() >= 0 and places.max() + size <= len(data)), "E028")
        data = np.frombuffer(data, np.uint8)[places[..., None] + np.arange(size)].tobytes()
    grad = attributes.get("grad", kind == "parameter")
    return {"$tensor": {"row": row, "kind": kind, "dtype": dtype, "shape": shape, "bytes": data, "grad": grad}}


def read(path):  # chapter 12
    content = read_metadata(path, (manifest := read_manifest(path))["metadata"])
    shards = [read_shard(path, *pair) for pair in zip(manifest["shards"], content["shards"], strict=True)]
    tensors = [read_tensor(row, shards, content["shards"], manifest["requires"]) for row in content["tensors"]]
    demand(sum(len(data) for *_, data in tensors) == manifest["totals"]["tensor_bytes"], "E011")
    return resolve(content["tree"], tensors)
