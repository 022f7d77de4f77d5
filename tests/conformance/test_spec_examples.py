"""The checkpoint of spec 15 is built from the text of that chapter, and its lines of Python run."""

import json
import re
from pathlib import Path

import msgpack
import pytest

from tests.conformance import naive_reader
from tests.conformance.make_vectors import VECTORS
from tests.conformance.vector_kit import readable

SPEC = Path(__file__).resolve().parents[2] / "spec" / "format-1.md"
CHAPTER = SPEC.read_text("utf-8").partition("## 15. One checkpoint by hand\n")[2]


def block(label):
    (text,) = re.findall(rf"(?ms)^```{label}\n(.*?)^```$", CHAPTER)
    return text


def table(heading):
    """The rows of the byte table below a heading: (offset, size, content), content without back quotes."""
    part = CHAPTER.partition(heading)[2].partition("```")[0]
    rows = re.findall(r"(?m)^\| (\d+) \| (\d+) \| [^|]* \| [^|]* \| ([^|]*) \|", part)
    return [(int(offset), int(size), content) for offset, size, content in rows]


def in_hex(content):
    return bytes.fromhex(re.search(r"`([0-9a-f ]+)`", content)[1])


def shard_bytes():
    header = block("json header").strip().encode()
    rows = table("**The shard**")
    data = in_hex(rows[3][2])
    built = int(re.match(r"\d+", rows[0][2])[0]).to_bytes(8, "little") + header + b" " * rows[2][1] + data
    assert [(offset, size) for offset, size, _ in rows] == [(0, 8), (8, len(header)), (8 + len(header), rows[2][1]), (128, len(data))]
    return built


def metadata_bytes():
    def on_object(members):
        return {key: bytes.fromhex(value[4:]) if str(value).startswith("hex:") else value for key, value in members.items()}

    content = msgpack.packb(json.loads(block("json metadata"), object_hook=on_object))
    rows = table("A compressor would store it")
    parts = [content if size == len(content) else in_hex(text) for _, size, text in rows]
    assert [size for _, size, _ in rows] == [len(part) for part in parts]
    assert [offset for offset, _, _ in rows] == [sum(map(len, parts[:index])) for index in range(len(parts))]
    assert content.startswith(in_hex(rows[4][2]))
    return b"".join(parts)


@pytest.fixture
def checkpoint(tmp_path):
    manifest = block("json manifest")
    names = json.loads(manifest)
    (tmp_path / "manifest.json").write_text(manifest, "ascii")
    (tmp_path / names["metadata"]["name"]).write_bytes(metadata_bytes())
    (tmp_path / names["shards"][0]["name"]).write_bytes(shard_bytes())
    return tmp_path


def test_the_lines_of_python_compute_the_digests_of_the_chapter(checkpoint):
    names = {
        "manifest_bytes": (checkpoint / "manifest.json").read_bytes(),
        "metadata_bytes": metadata_bytes(),
        "shard_bytes": shard_bytes(),
    }
    exec("\n".join(re.findall(r"(?ms)^```python\n(.*?)^```$", CHAPTER)), names)
    assert {"slot_digests", "shard_digest", "metadata_digest", "digits"} <= names.keys()


def test_the_chapter_is_the_vector(checkpoint):
    vector = VECTORS / "good" / "by-hand" / "checkpoint"
    built = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    assert built == {file.name: file.read_bytes() for file in vector.iterdir()}


def test_the_naive_reader_reads_the_chapter(checkpoint):
    state = readable(naive_reader.read(checkpoint))
    assert state["epoch"] == 3
    assert state["model"]["w"]["$tensor"]["bytes"] == {"$bytes": "0000803f000020c0"}


def test_ckptfmt_loads_the_chapter(checkpoint):
    import ckptfmt

    state = ckptfmt.load(str(checkpoint))
    assert state["epoch"] == 3
    assert state["model"]["w"].tolist() == [1.0, -2.5]
