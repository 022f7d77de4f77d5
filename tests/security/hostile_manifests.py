"""Hostile manifests and hostile directories: names that lead elsewhere, absurd JSON, members of wrong types, special files."""

from ckptfmt.format.shard_header import StoredEntry, encode_header
from tests.conformance.vector_kit import seal
from tests.security.attacks import Attack, Special, hostile

MANIFEST = "manifest.json"
HUGE = 2**40

NAMES = {
    "parent": "../outside.safetensors",
    "absolute": "/etc/passwd",
    "below": "sub/model.safetensors",
    "dot": ".",
    "two-dots": "..",
    "empty": "",
    "nul": "model\0.safetensors",
    "line-break": "model\n.safetensors",
    "escape": "\x1b]0;title\x07model",
    "backslash": "..\\model",
    "drive": "c:model",
    "device": "CON",
    "upper-case": "MODEL.safetensors",
    "not-ascii": "m\u00f6del",
    "right-to-left": "\u202esrotsnefas.ledom",
    "too-long": "m" * 101,
    "far-too-long": "m" * 2**20,
    "hidden": ".hidden",
    "dot-at-end": "model.",
    "space": "model 1",
    "manifest": "manifest.json",
    "hyphen-first": "-rf",
}

WRONG = {
    "null": None,
    "true": True,
    "minus-one": -1,
    "fraction": 1.5,
    "text": "x",
    "terminal-text": "\x1b[2J\u202e",
    "array": [],
    "object": {},
    "largest": 2**63 - 1,
    "nested": [[[[[[[[[[0]]]]]]]]]],
    "long": "x" * 100_000,
}

PLACES = [
    *(("format",), ("version",), ("requires",), ("digest",), ("created_at_utc",), ("writer",), ("step",), ("metrics",), ("fingerprint",)),
    *(("metadata",), ("metadata", "name"), ("metadata", "size_bytes"), ("metadata", "digest"), ("metadata", "raw_size_bytes")),
    *(("shards",), ("shards", 0), ("shards", 0, "name"), ("shards", 0, "size_bytes"), ("shards", 0, "digest")),
    *(("shards", 0, "section"), ("shards", 0, "tensor_count"), ("totals",), ("totals", "tensor_count"), ("totals", "tensor_bytes")),
]


def changed(*path, value):
    """The files of a checkpoint whose manifest has another member; None in the path's place removes it."""

    def change(document):
        holder = document
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = value
        return document

    return hostile(manifest=change)


def name_attacks():
    """Names that leave the directory or confuse whoever prints them."""
    for kind, name in NAMES.items():
        yield Attack(f"shard-name-{kind}", changed("shards", 0, "name", value=name))
        yield Attack(f"metadata-name-{kind}", changed("metadata", "name", value=name))


def member_attacks():
    """Every member with every wrong value; some of them are harmless."""
    for place in PLACES:
        for kind, value in WRONG.items():
            yield Attack(f"member-{'-'.join(map(str, place))}-{kind}", changed(*place, value=value), refused=False)
    yield Attack("version-absurd", changed("version", value=[1, 10**18]), refused=False)
    yield Attack("version-negative", changed("version", value=[1, -1]))
    yield Attack("version-nested", changed("version", value=[[1], [0]]))
    yield Attack("requires-100000", changed("requires", value=[f"codec:{number}" for number in range(100_000)]))
    yield Attack("requires-nested", changed("requires", value=[["codec:zstd"]]))
    yield Attack("metric-names", changed("metrics", value={"\x1b[31m\u202e\n": 1.0, "x" * 10_000: 2}), refused=False)
    yield Attack("unknown-member-names", hostile(manifest=lambda document: document | {"\x1b]8;;\u202e\n": 1}), refused=False)
    yield Attack("3000-shards", changed("shards", value=[_shard(number) for number in range(3_000)]))


def _shard(number):
    return {"name": f"m{number}", "size_bytes": 1, "digest": "blake3:" + "0" * 64, "section": "", "tensor_count": 0}


def json_attacks():
    """Documents that are no strict JSON, or absurd as JSON. The digest is right where there can be one."""
    texts = {
        "empty": b"",
        "null": b"null",
        "number": b"1",
        "string": b'"x"',
        "empty-object": b"{}",
        "byte-order-mark": b"\xef\xbb\xbf{}",
        "utf-16": "{}".encode("utf-16"),
        "nul-bytes": bytes(10_000),
        "comment": b'// {"format": "ckptfmt"}',
        "arrays-100000-deep": b"[" * 100_000,
        "closed-arrays-100000-deep": b"[" * 100_000 + b"]" * 100_000,
        "objects-100000-deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "megabytes-of-arrays": b"[" * 14_000_000,
        "megabytes-of-empty-arrays": b"[" + b"[]," * 300_000 + b"[]]",
        "digits": b"9" * 3_000_000,
        "fraction-of-many-digits": b"0." + b"9" * 3_000_000,
        "exponent": b"1e" + b"9" * 1_000_000,
        "unterminated-string": b'{"format": "' + b"x" * 3_000_000,
        "backslashes": b'{"format": "' + b"\\\\" * 1_000_000 + b'"}',
    }
    for kind, text in texts.items():
        yield Attack(f"json-{kind}", hostile() | {MANIFEST: text}, declared_bytes=80 * len(text))
    inside = {
        "nan": b"NaN",
        "infinity": b"-Infinity",
        "beyond-doubles": b"1e999",
        "minus-beyond-doubles": b"-1e999",
        "too-large-integer": b"9223372036854775808",
        "integer-of-5000-digits": b"1" * 5000,
        "integer-of-a-million-digits": b"1" * 1_000_000,
        "leading-zero": b"01",
        "hexadecimal": b"0x1",
        "half-a-pair": b'"\\ud800"',
        "control-character": b'"\x01"',
        "deep": b"[" * 70 + b"]" * 70,
        "900-deep": b"[" * 900 + b"]" * 900,
    }
    for kind, text in inside.items():
        yield Attack(f"json-member-{kind}", hostile(text=lambda old, text=text: old.replace(b'"step": 7', b'"step": 7, "x": ' + text)))
    for kind, text in {"digest": b'"digest": "blake3:' + b"0" * 64 + b'"', "step": b'"step": 8', "escaped": b'"st\\u0065p": 8'}.items():
        twice = hostile(text=lambda old, text=text: old.removesuffix(b"}\n") + b", " + text + b"}\n")
        yield Attack(f"json-twice-{kind}", twice)
    yield Attack("manifest-of-17-megabytes", _padded(17 * 10**6))
    yield Attack("manifest-at-the-limit", _padded(2**24), refused=False)
    yield Attack("manifest-of-a-terabyte", hostile() | {MANIFEST: Special("sparse", "{", 2**40)})


def _padded(size_bytes):
    files = hostile()
    return files | {MANIFEST: seal(files[MANIFEST].ljust(size_bytes))}


def file_attacks():
    """Something else in the place of a file, and files far larger than what they hold."""
    files = hostile()
    for name, role in zip(sorted(files), ("manifest", "metadata", "shard"), strict=True):
        for kind, special in {
            "link": Special("link", "/etc/hostname"),
            "link-to-itself": Special("link", name),
            "dangling-link": Special("link", "/nonexistent/file"),
            "fifo": Special("fifo"),
            "directory": Special("directory"),
            "device": Special("device"),
        }.items():
            yield Attack(f"{role}-is-a-{kind}", files | {name: special})
    metadata, shard = (next(name for name in files if name.startswith(start)) for start in ("metadata", "model"))
    sparse = Special("sparse", files[shard].decode("latin-1"), HUGE)
    yield Attack("shard-of-a-terabyte", changed("shards", 0, "size_bytes", value=HUGE) | {shard: sparse})
    sparse = Special("sparse", files[metadata].decode("latin-1"), HUGE)
    yield Attack("metadata-of-a-terabyte", changed("metadata", "size_bytes", value=HUGE) | {metadata: sparse})
    yield slot_of_a_terabyte()


def slot_of_a_terabyte():
    """A tensor of a terabyte in a sparse shard, declared everywhere; only its digest is not that of so many zeros."""
    entries = [StoredEntry("w", "F32", (HUGE // 4,), HUGE), StoredEntry("b", "I64", (), 8)]
    header = encode_header(entries)

    def content(content):
        content["shards"][0]["header_size_bytes"] = len(header)
        content["shards"][0]["sizes"][0] = HUGE
        content["tensors"][0][2] = [HUGE // 4]
        return content

    def manifest(document):
        document["shards"][0]["size_bytes"] = len(header) + HUGE + 8
        document["totals"]["tensor_bytes"] = HUGE + 8
        return document

    files = hostile(header=lambda *_: header, content=content, manifest=manifest)
    shard = next(name for name in files if name.startswith("model"))
    return Attack(
        "slot-of-a-terabyte", files | {shard: Special("sparse", header.decode("latin-1"), len(header) + HUGE + 8)}, lacks_memory=True
    )
