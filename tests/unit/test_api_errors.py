"""Errors: who must act tells the class, the attributes carry the facts, the message says where, what, expected, found and what to do."""

import errno
import json
import pickle

import pytest
import torch

import ckptfmt
from ckptfmt import errors
from ckptfmt.state import codecs
from tests.conformance.vector_kit import seal

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.CheckpointError)]

MADE = [
    errors.CheckpointError("m"),
    errors.FormatError("m", rule="E031", path="p", tensor="t", expected=1, found=2),
    errors.CorruptError("m\\nadvice", rule="E031", path="p", tensor="t", expected=(1, 2), found=[3]),
    errors.UnsupportedVersionError("m", rule="E006", path="p", expected=1, found=2),
    errors.LimitError("m", rule="E002", path="p"),
    errors.IncompleteError("m", path="p"),
    errors.FingerprintMismatchError("m", differences=({"field": "lr"},)),
    errors.UnsupportedTypeError("m", path="model.w"),
    errors.CheckpointExistsError("m", path="p"),
    errors.CheckpointNotFoundError("m", path="p"),
    errors.NameNotFoundError("m 'n'", name="n", path="p"),
    errors.RunLockedError("m", path="p", host="h", pid=3, since_utc="2026"),
    errors.NotEnoughSpaceError("m", path="p", needed_bytes=5, free_bytes=3),
    errors.DurabilityUnknownError("m", path="p"),
    errors.StoreUnavailableError("m", path="s3://b/p", local_path="p"),
]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling_with_its_facts(error, protocol):
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    assert getattr(copy, "errno", None) == getattr(error, "errno", None)


def test_every_class_is_public_and_tried_here():
    assert {cls.__name__ for cls in CLASSES} <= set(ckptfmt.__all__)
    assert {type(error) for error in MADE} == set(CLASSES)


@pytest.mark.parametrize(
    ("cls", "bases"),
    [
        (errors.FormatError, ValueError),
        (errors.CorruptError, errors.FormatError),
        (errors.UnsupportedVersionError, errors.FormatError),
        (errors.LimitError, errors.FormatError),
        (errors.UnsupportedTypeError, TypeError),
        (errors.CheckpointExistsError, FileExistsError),
        (errors.CheckpointNotFoundError, FileNotFoundError),
        (errors.NameNotFoundError, KeyError),
        (errors.NotEnoughSpaceError, OSError),
        (errors.DurabilityUnknownError, OSError),
        (errors.StoreUnavailableError, OSError),
    ],
)
def test_errors_are_also_what_python_programs_expect(cls, bases):
    assert issubclass(cls, bases)
    assert issubclass(cls, ckptfmt.CheckpointError)


def test_a_full_disk_has_the_number_of_the_system():
    assert errors.NotEnoughSpaceError("m").errno == errno.ENOSPC


def test_a_name_that_is_not_found_is_shown_as_written():
    assert str(errors.NameNotFoundError("c: no tensor matches 'x'")) == "c: no tensor matches 'x'"


@pytest.fixture
def path(tmp_path):
    ckptfmt.save(tmp_path / "c", {"model": {"w": torch.arange(100.0)}, "epoch": 1}, step=3)
    return tmp_path / "c"


def rewritten(path, change):
    """Change the manifest's document and seal it again."""
    file = path / "manifest.json"
    document = json.loads(file.read_bytes())
    change(document)
    file.chmod(0o644)
    file.write_bytes(seal((json.dumps(document, indent=1) + "\n").encode()))


def edit(path, start, change):
    file = next(path.glob(f"{start}*"))
    data = change(file.read_bytes())
    file.chmod(0o644)
    file.write_bytes(data)


def flip_last(data):
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGE = {
    "tensor": (lambda path: edit(path, "model", flip_last), "E040", ckptfmt.CorruptError, "tensor 'w' of section 'model': digest differs"),
    "header": (lambda path: edit(path, "model", lambda data: data.replace(b'"w"', b'"v"')), "E031", ckptfmt.CorruptError, "digest differs"),
    "metadata": (lambda path: edit(path, "metadata", flip_last), "E020", ckptfmt.CorruptError, "metadata digest differs"),
    "manifest": (
        lambda path: edit(path, "manifest", lambda data: data.replace(b'"step": 3', b'"step": 4')),
        "E004",
        ckptfmt.CorruptError,
        "digest",
    ),
    "size": (lambda path: edit(path, "model", lambda data: data + b"x"), "E014", ckptfmt.CorruptError, "file size differs: expected"),
    "missing": (lambda path: next(path.glob("model*")).unlink(), "E012", ckptfmt.CorruptError, "file is missing"),
    "version": (
        lambda path: rewritten(path, lambda d: d.update(version=[2, 0])),
        "E006",
        ckptfmt.UnsupportedVersionError,
        "expected 1, found 2",
    ),
    "feature": (
        lambda path: rewritten(path, lambda d: d.update(requires=["codec:new"])),
        "E007",
        ckptfmt.UnsupportedVersionError,
        "codec:new",
    ),
    "limit": (lambda path: edit(path, "manifest", lambda data: seal(data.ljust(2**24 + 1))), "E002", ckptfmt.LimitError, "too large"),
    "name": (lambda path: rewritten(path, lambda d: d["shards"][0].update(name="../x")), "E009", ckptfmt.CorruptError, "'../x'"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_with_its_rule_place_and_facts(path, kind):
    break_it, rule, cls, text = DAMAGE[kind]
    break_it(path)
    with pytest.raises(cls) as caught:
        ckptfmt.load(path)
    error = caught.value
    first, *advice = str(error).split("\n")
    assert type(error) is cls
    assert error.rule == rule
    assert error.path.startswith(str(path))
    assert first.startswith(f"{error.path}: ")
    assert first.endswith(f" [{rule}]")
    assert text in first
    assert len(first) - len(error.path) < 120
    assert first.isprintable()
    assert all(line.endswith(".") for line in advice)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_digests_in_messages_are_cut_and_those_in_the_attributes_agree(path):
    edit(path, "model", flip_last)
    with pytest.raises(ckptfmt.CorruptError) as caught:
        ckptfmt.load(path)
    error = caught.value
    assert error.tensor == "w"
    assert error.expected.startswith("blake3:")
    assert len(error.expected) == len(error.found) == len("blake3:") + 12
    assert f"expected {error.expected}, found {error.found}" in str(error)
    assert str(error).endswith("\nThe data of this tensor is damaged; use another copy.")


def test_newer_versions_are_told_how_to_be_read(path):
    rewritten(path, lambda document: document.update(version=[2, 0]))
    with pytest.raises(ckptfmt.UnsupportedVersionError, match="\nUpdate ckptfmt to read it"):
        ckptfmt.load(path)


def test_a_type_that_is_not_registered_is_told_by_name(tmp_path):
    class Point:
        pass

    class Known:
        pass

    with pytest.raises(
        ckptfmt.UnsupportedTypeError, match=r"^a\.b\[0\]: values of type .*Point are not stored\nRegister it with"
    ) as caught:
        ckptfmt.save(tmp_path / "c", {"a": {"b": [Point()]}})
    assert caught.value.path == "a.b[0]"
    ckptfmt.register_codec(Known, name="test.api.known", encode=lambda value: 1, decode=lambda value: Known())
    ckptfmt.save(tmp_path / "c", {"x": Known()})
    known = codecs._by_name.pop("test.api.known")
    try:
        with pytest.raises(
            ckptfmt.UnsupportedTypeError, match=r"no class is registered under the name 'test.api.known'\nCall ckptfmt.register_codec"
        ):
            ckptfmt.load(tmp_path / "c")
    finally:
        codecs._by_name["test.api.known"] = known
    assert isinstance(ckptfmt.load(tmp_path / "c")["x"], Known)
    assert ckptfmt.verify(tmp_path / "c").ok


def test_a_disk_without_room_is_refused_before_the_first_byte(tmp_path, monkeypatch):
    from ckptfmt.disk import local

    monkeypatch.setattr(local.LocalDirectory, "free_bytes", lambda self: 1000)
    with pytest.raises(ckptfmt.NotEnoughSpaceError, match=r"not enough space: needed .* bytes, free 1,000 bytes\nFree at least") as caught:
        ckptfmt.save(tmp_path / "c", {"w": torch.zeros(1000)})
    error = caught.value
    assert (error.errno, error.free_bytes, error.path) == (errno.ENOSPC, 1000, str(tmp_path / "c"))
    assert error.needed_bytes > 4000
    assert not (tmp_path / "c").exists()
