"""Good vectors with anything inside exchanged for anything else and sealed again: each way of reading refuses them, or gives a value.

What is exchanged comes from all vectors, so that every tag meets the payloads of every other.
"""

import copy
import json
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.format.digest import digest_of, format_digest
from ckptfmt.format.packed import pack, unpack
from ckptfmt.format.zstd_frame import decompress
from tests.conformance.vector_kit import seal, stored_frame
from tests.security.attack import describe_refusal, ways_of_reading

GOOD = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "1.0" / "good"
NAMES = sorted(path.name for path in GOOD.iterdir() if "jax" not in path.name and path.name != "deepest")
EXTREMES = [
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64 - 1,
    -(2**63),
    0.5,
    float("nan"),
    "",
    "\x1b[2J",
    "x" * 600,
    b"",
    bytes(40),
    [],
    {},
    [[]],
]


def parts_of(name):
    """Document, content and other files of a vector."""
    files = {path.name: path.read_bytes() for path in (GOOD / name / "checkpoint").iterdir()}
    document = json.loads(files.pop("manifest.json"))
    frame = files.pop(document["metadata"]["name"])
    raw = decompress(frame, raw_size_bytes=document["metadata"]["raw_size_bytes"], where=name)
    return document, unpack(raw, where=name), files


PARTS = {name: parts_of(name) for name in NAMES}


def places_in(node, path=()):
    """The path of every node below this one."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places_in(item, (*path, key))


def node_at(node, path):
    for step in path:
        node = node[step]
    return node


POOL = [node_at(content, path) for _, content, _ in PARTS.values() for path in places_in(content) if len(path) < 9]


def sealed(document, content, files):
    """The files of a checkpoint with this content, sizes and digests put right."""
    raw = pack(content)
    frame = stored_frame(raw)
    entry = document["metadata"]
    if isinstance(entry, dict):
        entry |= {"size_bytes": len(frame), "digest": format_digest(digest_of(frame)), "raw_size_bytes": len(raw)}
        files = files | ({entry["name"]: frame} if isinstance(entry.get("name"), str) and entry["name"].isprintable() else {})
    return files | {"manifest.json": seal((json.dumps(document, indent=1) + "\n").encode())}


def exchanged(draw, tree, fitting):
    """A copy of a tree with one node exchanged, removed or doubled."""
    tree = copy.deepcopy(tree)
    *above, last = draw(st.sampled_from(list(places_in(tree))))
    holder = node_at(tree, above)
    what = draw(st.integers(0, 9))
    if what == 0:
        del holder[last]
    elif what == 1 and isinstance(holder, list):
        holder.insert(last, copy.deepcopy(holder[last]))
    else:
        holder[last] = copy.deepcopy(draw(fitting))
    return tree


def check_every_way(files):
    with tempfile.TemporaryDirectory(prefix="ckptfmt-") as path, warnings.catch_warnings():
        for name, data in files.items():
            target = Path(path, name.replace("/", "_") or "_")
            target.write_bytes(data)
        outcomes = {way: outcome_of(read) for way, read in ways_of_reading(ckptfmt, path).items()}
    assert {way: detail for way, (kind, detail) in outcomes.items() if kind == "failure"} == {}


def outcome_of(read):
    """Anything but an error of ckptfmt is left to fail the test where it happens."""
    try:
        read()
    except ckptfmt.CheckpointError as error:
        return describe_refusal(error)
    return ["value", ""]


VALUES = st.sampled_from(POOL) | st.sampled_from(EXTREMES)
JSON_VALUES = st.sampled_from([value for value in EXTREMES if not isinstance(value, bytes) and value == value])
RELAXED = settings(max_examples=settings.default.max_examples * 3, suppress_health_check=list(HealthCheck))


@given(st.sampled_from(NAMES), st.data())
@RELAXED
def test_metadata_with_any_part_exchanged_is_refused_or_read(name, data):
    document, content, files = copy.deepcopy(PARTS[name])
    for _ in range(data.draw(st.integers(1, 2))):
        content = exchanged(data.draw, content, VALUES)
    check_every_way(sealed(document, content, files))


@given(st.sampled_from(NAMES), st.data())
@RELAXED
def test_a_manifest_with_any_part_exchanged_is_refused_or_read(name, data):
    document, content, files = copy.deepcopy(PARTS[name])
    whole = sealed(document, content, files)
    document = exchanged(data.draw, json.loads(whole["manifest.json"]), JSON_VALUES)
    check_every_way(whole | {"manifest.json": seal((json.dumps(document, indent=1) + "\n").encode())})


@pytest.mark.slow
@settings(RELAXED, max_examples=8_000)
@given(st.sampled_from(NAMES), st.data())
def test_metadata_with_any_part_exchanged_is_refused_or_read_for_long(name, data):
    document, content, files = copy.deepcopy(PARTS[name])
    check_every_way(sealed(document, exchanged(data.draw, content, VALUES), files))
