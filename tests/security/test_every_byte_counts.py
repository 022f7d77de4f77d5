"""Damage to any byte of a complete checkpoint: load refuses, verify says so, and nothing wrong is handed out. Promise P4."""

import random

import pytest

import ckptfmt
from tests.conformance.describing import described
from tests.security.small_checkpoints import by_hand, saved

SECTOR_BYTES = 512
MAKERS = {"saved": saved, "by-hand": by_hand}


@pytest.fixture(params=MAKERS)
def whole(request, tmp_path):
    return MAKERS[request.param](tmp_path / "checkpoint")


def outcome_of_load(path):
    """The error with which load refuses, or the state in comparable form."""
    try:
        return described(ckptfmt.load(path))
    except ckptfmt.CheckpointError as error:
        return error


def check_refused(whole, name, data, what):
    """Put damaged bytes into one file; everything that reads must notice, and nothing else may happen."""
    whole.write(name, data)
    outcome = outcome_of_load(whole.path)
    if not isinstance(outcome, ckptfmt.CheckpointError):
        assert is_in_no_tensor(whole, name, data), f"{name}: load did not notice {what}"
        assert outcome == whole.state, f"{name}: load gave something else after {what}"
    report = ckptfmt.verify(whole.path)
    assert not report.ok, f"{name}: verify did not notice {what}"
    assert all(finding.path.startswith(str(whole.path)) for finding in report.findings)
    assert ckptfmt.is_complete(whole.path) in ((False,) if name == "manifest.json" or len(data) != len(whole.files[name]) else (True,))


def is_in_no_tensor(whole, name, data):
    """Whether all that changed are bytes of a slot to which no tensor refers."""
    sound = whole.files[name]
    header = 8 + int.from_bytes(sound[:8], "little")
    ranges = [(0, header), *((begin, end) for places in whole.places.values() for shard, begin, end in places if shard == name)]
    return name.endswith(".safetensors") and len(data) == len(sound) and all(data[begin:end] == sound[begin:end] for begin, end in ranges)


def flipped(data, position, bit):
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def check_flips(whole, bits_at):
    for name, data in whole.files.items():
        for position in range(len(data)):
            for bit in bits_at(position):
                check_refused(whole, name, flipped(data, position, bit), f"bit {bit} of byte {position}")
        whole.mend(name)
    assert ckptfmt.verify(whole.path).ok


def test_a_flipped_bit_in_any_byte_is_noticed(whole):
    check_flips(whole, lambda position: [position * 5 % 8])


@pytest.mark.slow
def test_every_flipped_bit_is_noticed(whole):
    check_flips(whole, lambda position: range(8))


@pytest.mark.slow
def test_any_two_flipped_bits_are_noticed(whole):
    generator = random.Random(0)
    places = [(name, position) for name, data in whole.files.items() for position in range(len(data) * 8)]
    for _ in range(20_000):
        (first, one), (second, other) = generator.sample(places, 2)
        for name, position in ((first, one), (second, other)):
            data = (whole.path / name).read_bytes()
            whole.write(name, flipped(data, position // 8, position % 8))
        outcome = outcome_of_load(whole.path)
        if not isinstance(outcome, ckptfmt.CheckpointError):
            assert outcome == whole.state
            assert all(is_in_no_tensor(whole, name, (whole.path / name).read_bytes()) for name in (first, second))
        assert not ckptfmt.verify(whole.path).ok
        whole.mend(first)
        whole.mend(second)


def test_every_truncation_of_every_file_is_noticed(whole):
    for name, data in whole.files.items():
        for length in range(len(data)):
            check_refused(whole, name, data[:length], f"a cut after {length} bytes")
        whole.mend(name)


def test_bytes_after_the_end_of_any_file_are_noticed(whole):
    for name, data in whole.files.items():
        for extra in (b"\0", b" ", b"\n", b"}", bytes(64), data):
            check_refused(whole, name, data + extra, f"{len(extra)} more bytes")
        whole.mend(name)


def test_a_removed_byte_or_two_exchanged_bytes_are_noticed(whole):
    for name, data in whole.files.items():
        for position in range(0, len(data) - 1, 3):
            check_refused(whole, name, data[:position] + data[position + 1 :], f"without byte {position}")
            pair = data[position : position + 2][::-1]
            if pair != data[position : position + 2]:
                check_refused(whole, name, data[:position] + pair + data[position + 2 :], f"bytes {position} exchanged")
        whole.mend(name)


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_an_overwritten_sector_of_any_size_is_noticed(whole, fill):
    for name, data in whole.files.items():
        for size in (8, 64, SECTOR_BYTES, 4096):
            for begin in range(0, len(data), size):
                changed = (data[:begin] + fill * size + data[begin + size :])[: len(data)]
                if changed != data:
                    check_refused(whole, name, changed, f"{size} bytes at {begin} overwritten")
        whole.mend(name)


def test_a_removed_or_emptied_file_is_noticed(whole):
    for name, data in whole.files.items():
        check_refused(whole, name, b"", "no content")
        (whole.path / name).unlink()
        with pytest.raises((ckptfmt.CorruptError, ckptfmt.IncompleteError)):
            ckptfmt.load(whole.path)
        assert not ckptfmt.verify(whole.path).ok
        assert not ckptfmt.is_complete(whole.path)
        (whole.path / name).write_bytes(data)
    assert ckptfmt.verify(whole.path).ok


def test_files_of_one_checkpoint_exchanged_for_each_other_are_noticed(whole):
    for name in whole.files:
        for other, data in whole.files.items():
            if other != name:
                check_refused(whole, name, data, f"the content of {other}")
        whole.mend(name)


def test_files_of_another_checkpoint_of_the_same_shape_are_noticed(tmp_path):
    ours, theirs = saved(tmp_path / "a", first=1.0), saved(tmp_path / "b", first=2.0)
    pairs = list(zip(ours.files, theirs.files, strict=True))
    assert [len(ours.files[name]) for name, _ in pairs] == [len(theirs.files[other]) for _, other in pairs]
    for name, other in pairs:
        check_refused(ours, name, theirs.files[other], f"the content of {other} of another checkpoint")
        ours.mend(name)
    for name, other in pairs:
        ours.write(name, theirs.files[other])
    report = ckptfmt.verify(ours.path)
    assert [finding.rule for finding in report.findings if finding.level == "error"] != []
    assert isinstance(outcome_of_load(ours.path), ckptfmt.CheckpointError)


def test_damage_to_one_tensor_leaves_the_others_readable(whole):
    sound = read_all(whole.path)
    for damaged, places in whole.places.items():
        for name, begin, end in places:
            whole.write(name, flipped(whole.files[name], (begin + end) // 2, 3))
            with ckptfmt.open_checkpoint(whole.path) as checkpoint:
                for tensor in checkpoint.keys():
                    if row_of(checkpoint, tensor) == damaged:
                        with pytest.raises(ckptfmt.CorruptError) as caught:
                            checkpoint.get_tensor(tensor)
                        assert caught.value.rule == "E040"
                        assert caught.value.tensor.partition("@")[0] in damaged
                    else:
                        assert described(checkpoint.get_tensor(tensor)) == sound[tensor]
            report = ckptfmt.verify(whole.path)
            assert [(finding.rule, finding.path) for finding in report.findings] == [("E040", f"{whole.path}/{name}")]
            whole.mend(name)


def row_of(checkpoint, tensor):
    return checkpoint.tensor_info(tensor).name


def read_all(path):
    with ckptfmt.open_checkpoint(path) as checkpoint:
        return {name: described(checkpoint.get_tensor(name)) for name in checkpoint.keys()}
