"""Files from elsewhere are described from their header; damaged and hostile ones are refused with a reason, and status 2."""

from __future__ import annotations

import json
import os
import struct

import pytest

from ckpt_inspect.main import main
from ckptfmt.adapters.safetensors_header import MAX_HEADER_BYTES


def encode(members, data=b"", *, padding=0):
    header = members if isinstance(members, bytes) else json.dumps(members).encode()
    return struct.pack("<Q", len(header) + padding) + header + b" " * padding + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def write(tmp_path):
    def write(content, name="model.safetensors"):
        path = tmp_path / name
        path.write_bytes(content)
        return str(path)

    return write


def run(capsys, *arguments):
    status = main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_file_of_the_library_is_described(tmp_path, capsys):
    np = pytest.importorskip("numpy")
    save_file = pytest.importorskip("safetensors.numpy").save_file
    path = str(tmp_path / "model.safetensors")
    save_file({"a.weight": np.ones((4, 4), np.float32), "b": np.zeros(3, np.int64)}, path, metadata={"license": "apache-2.0"})

    status, out, _ = run(capsys, path)

    assert status == 0
    assert "  tensors   2 with 19 elements, 88 B" in out
    assert "  license  apache-2.0" in out
    assert "a.weight  float32  [4, 4]  64 B  model.safetensors" in out


def test_its_document_holds_its_tensors(write, capsys):
    path = write(encode({"w": entry("BF16", [2], 0, 4)}, b"\x80\x3f\xc0\x7f"))

    _, out, _ = run(capsys, path, "--json")
    document = json.loads(out)

    assert (document["schema_version"], document["kind"], document["tensor_count"]) == (1, "safetensors", 1)
    assert document["tensors"] == [
        {"name": "w", "dtype": "bfloat16", "shape": [2], "size_bytes": 4, "shards": ["model.safetensors"], "chunk_count": 1}
    ]


def test_statistics_are_those_of_its_data(write, capsys):
    path = write(encode({"w": entry("BF16", [2], 0, 4), "f": entry("F4", [4], 4, 6)}, b"\x80\x3f\xc0\x7f\0\0"))

    status, out, _ = run(capsys, path, "--stats", "--json")
    first, second = json.loads(out)["tensors"]

    assert status == 0
    assert first["statistics"].items() >= {"element_count": 2, "minimum": 1.0, "maximum": 1.0, "mean": 1.0}.items()
    assert first["statistics"].items() >= {"is_numeric": True, "nan_count": 1, "inf_count": 0}.items()
    assert (second["dtype"], second["statistics"]) == ("F4", None)


def test_its_tree_is_flat(write, capsys):
    path = write(encode({"$x.a": entry("F32", [], 0, 4)}, bytes(4)))

    assert run(capsys, path, "--tree") == (0, "$x.a  float32 [] 4 B\n", "")


def test_an_empty_file_of_no_tensors_is_fine(write, capsys):
    status, out, _ = run(capsys, write(encode({}, padding=6)))

    assert status == 0
    assert "  tensors   none\n" in out


def test_a_link_to_a_file_is_followed(write, tmp_path, capsys):
    target = write(encode({"w": entry("U8", [1], 0, 1)}, b"\1"), "blob")
    link = tmp_path / "model.safetensors"
    os.symlink(target, link)

    assert run(capsys, str(link))[0] == 0


def test_names_cannot_reach_the_terminal(write, capsys):
    hostile = "\x1b]0;owned\x07\r\n\u202egpj.exe\x9b2J"
    path = write(encode({"__metadata__": {hostile: hostile}, hostile: entry("U8", [1], 0, 1)}, b"\1"))

    for arguments in ([path], [path, "--tree"], [path, "--tensors"], [path, "--stats"], [path, "--json"], [path, "--tree", "--json"]):
        status, out, err = run(capsys, *arguments)
        assert status == 0
        assert all(character.isprintable() or character == "\n" for character in out + err)
    assert "\\x1b]0;owned\\x07\\r\\n\\u202egpj.exe\\x9b2J" in run(capsys, path, "--tree")[1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file ends after 0 bytes"),
        (b"\x05\0\0", "the file ends after 3 bytes"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{}", "header of 100,000,001 bytes declared, in a file of 10 bytes"),
        (struct.pack("<Q", 2**63) + b"{}", "header of 9,223,372,036,854,775,808 bytes declared"),
        (encode(b"[]"), "its header is not a JSON object"),
        (encode(b'{"a": '), "its header is not JSON"),
        (encode(b"\xff\xfe"), "its header is not JSON"),
        (encode(b"[" * 100_000), "its header is not JSON: nested too deeply"),
        (encode(b'{"a": 1, "a": 2}'), "its header is not JSON: a key stands twice in one object"),
        (encode(b'{"a": NaN}'), "its header is not JSON: NaN is not a number of JSON"),
        (encode(b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, ' + b"9" * 5000 + b"]}}"), "its header is not JSON"),
        (encode({"a": 1}), "entry 'a' is not dtype, shape and data_offsets"),
        (encode({"a": entry(7, [1], 0, 1)}, b"\0"), "entry 'a' has no dtype"),
        (encode({"a": entry("U8", [-1], 0, 1)}, b"\0"), "entry 'a' has a shape that no tensor has"),
        (encode({"a": entry("U8", [1] * 65, 0, 1)}, b"\0"), "entry 'a' has a shape that no tensor has"),
        (encode({"a": entry("U8", [True], 0, 1)}, b"\0"), "entry 'a' has a shape that no tensor has"),
        (encode({"a": entry("U8", [1], 0, "1")}, b"\0"), "entry 'a' has no two data_offsets"),
        (encode({"a": entry("U8", [4], 0, 4)}, b"\0"), "tensor 'a' lies outside the file's data: bytes 0 to 4 of 1"),
        (encode({"a": entry("U8", [1], 1, 0)}, b"\0"), "tensor 'a' lies outside the file's data"),
        (encode({"a": entry("F32", [2], 0, 4)}, bytes(4)), "size of 'a': expected 8 bytes for F32 [2], found 4 bytes"),
        (encode({"a": entry("F32", [2**62] * 60, 0, 4)}, bytes(4)), "size of 'a': expected "),
        (encode({"__metadata__": {"a": 1}}), "__metadata__ is not an object of strings"),
        (encode({"\x1b[2J" * 100: 1}), "entry '\\\\x1b[2J"),
    ],
)
def test_what_is_damaged_or_hostile_is_refused(content, reason, write, capsys):
    path = write(content)
    status, out, err = run(capsys, path)

    assert (status, out) == (2, "")
    assert err.startswith(f"ckpt-inspect: {path}: not a sound safetensors file: {reason}")
    assert err.endswith("\n  The file is damaged or was not downloaded whole.\n")
    assert all(character.isprintable() or character == "\n" for character in err)


@pytest.mark.parametrize(
    ("members", "data", "remark"),
    [
        ({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"\0" * 3, "tensors overlap in 1 places"),
        ({"a": entry("U8", [1], 2, 3)}, b"\0" * 3, "unused bytes between tensors in 1 places"),
        ({"a": entry("U8", [1], 0, 1)}, b"\0" * 3, "2 unused bytes at the end"),
    ],
)
def test_what_other_readers_refuse_is_remarked(members, data, remark, write, capsys):
    status, out, _ = run(capsys, write(encode(members, data)))

    assert status == 0
    assert f"  remark    {remark}\n" in out


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("model.pt", b"PK\x03\x04" + bytes(20), "a zip archive, such as torch.save writes"),
        ("model.pkl", b"\x80\x04\x95" + bytes(20), "a pickle; reading one would run its code"),
        ("model.gguf", b"GGUF" + bytes(20), "a GGUF file"),
        ("notes.txt", b"hello", "a file of a kind that it does not know"),
        ("empty", b"", "a file of a kind that it does not know"),
    ],
)
def test_files_of_other_kinds_are_named(name, content, found, write, capsys):
    status, out, err = run(capsys, write(content, name))

    assert (status, out) == (2, "")
    assert f"expected a checkpoint, a run or a .safetensors file, found {found}" in err


def test_a_pipe_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.safetensors")

    assert run(capsys, str(tmp_path / "pipe.safetensors"))[0] == 2


def test_many_tensors_are_counted_and_listed_on_demand(write, capsys):
    members = {f"layer.{index}": entry("U8", [1], index, index + 1) for index in range(50)}
    path = write(encode(members, bytes(50)))

    assert "... and 30 more (--tensors shows all)" in run(capsys, path)[1]
    assert run(capsys, path, "--tensors")[1].count("\n") == 51
    assert run(capsys, path, "--filter", "layer.4*")[1].count("\n") == 12
