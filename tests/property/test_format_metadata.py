"""For all metadata: what is written is read, and nothing but a FormatError comes of anything else. Spec 7, 8, 9."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.errors import FormatError
from ckptfmt.format import metadata as metadata_module
from ckptfmt.format import zstd_frame
from ckptfmt.format.index_rows import check_rows
from ckptfmt.format.metadata import decode_metadata, encode_metadata
from ckptfmt.format.packed import pack, pack_array, pack_map, split_map, unpack, unpack_batches, unpack_member
from ckptfmt.format.tree_walk import ABSENT, iter_leaves, prune, tensor_ids
from tests.property.format_strategies import PACKABLE, metadatas


@given(PACKABLE)
def test_every_value_has_one_packed_form(value):
    data = pack(value)
    assert repr(unpack(data, where="m")) == repr(value)


@given(st.binary(max_size=60))
def test_no_bytes_unpack_to_something_that_packs_otherwise(data):
    with contextlib.suppress(FormatError):
        assert pack(unpack(data, where="m")) == data


@given(metadatas())
def test_all_metadata_is_read_as_it_was_written(metadata):
    raw = encode_metadata(metadata)
    read = decode_metadata(raw, where="m")
    assert (read.tensors, read.shards) == (metadata.tensors, metadata.shards)
    assert encode_metadata(read) == raw


@given(metadatas())
def test_rows_that_are_checked_together_are_what_they_are_one_by_one(metadata):
    raw = encode_metadata(metadata)
    together = metadata_module._decode_in_parts(raw, "m")
    rows = unpack(raw, where="m")["tensors"]
    one_by_one = check_rows(rows, metadata.shards, where="m")
    if together is not None:
        assert together == decode_metadata(raw, where="m")
        assert list(together.tensors) == one_by_one
        assert together.tensors[::-1] == one_by_one[::-1]
    else:
        assert not rows or any(len(row.chunks) != 1 or row.chunks[0].shape != row.shape for row in one_by_one)


@given(st.lists(PACKABLE, max_size=20), st.integers(1, 7))
def test_an_array_is_unpacked_in_batches_as_it_is_at_once(elements, count):
    packed = pack_map({"a": pack_array(len(elements), elements), "b": pack(None)})
    parts = split_map(packed)
    found = [element for batch in unpack_batches(packed, parts["a"], count) for element in batch]
    assert repr(found) == repr(unpack(packed, where="m")["a"])
    assert unpack_member(packed, "b", parts["b"], where="m") is None


@given(st.one_of(st.binary(max_size=40), st.dictionaries(st.text(max_size=3), PACKABLE, max_size=3).map(pack)), st.data())
def test_a_map_that_is_split_is_a_map_in_packed_form_or_has_members_that_are_not(packed, data):
    changed = bytearray(packed)
    if packed and data.draw(st.booleans()):
        changed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    parts = split_map(bytes(changed))
    if parts is None:
        return
    try:
        members = {name: unpack_member(bytes(changed), name, part, where="m") for name, part in parts.items()}
    except FormatError:
        return
    assert repr(members) == repr(unpack(bytes(changed), where="m"))


@given(metadatas(), PACKABLE, st.data())
def test_no_changed_member_raises_anything_but_a_format_error(metadata, value, data):
    holder = content = unpack(encode_metadata(metadata), where="m")
    while True:
        key = data.draw(st.sampled_from(list(holder) if isinstance(holder, dict) else list(range(len(holder)))))
        if not (isinstance(holder[key], dict | list) and holder[key]) or data.draw(st.integers(0, 3)) == 0:
            break
        holder = holder[key]
    holder[key] = value
    with contextlib.suppress(FormatError):
        decode_metadata(pack(content), where="m")


@given(st.binary(max_size=300))
def test_every_content_is_compressed_and_decompressed(raw):
    assert zstd_frame.decompress(zstd_frame.compress(raw), raw_size_bytes=len(raw), where="m") == raw


@given(st.binary(max_size=100), st.integers(0, 1000), st.booleans())
def test_no_bytes_decompress_to_anything_but_a_format_error(data, raw_size_bytes, has_magic):
    data = zstd_frame.MAGIC * has_magic + data
    for decompress in (zstd_frame.decompress, zstd_frame.decompress_frames):
        with contextlib.suppress(FormatError):
            assert len(decompress(data, raw_size_bytes=raw_size_bytes, where="m")) == raw_size_bytes


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_flipped_bit_in_a_frame_never_gives_other_content(raw, data):
    frame = bytearray(zstd_frame.compress(raw))
    position = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[position // 8] ^= 1 << position % 8
    with contextlib.suppress(FormatError):
        assert zstd_frame.decompress(bytes(frame), raw_size_bytes=len(raw), where="m") == raw


TAGS = st.sampled_from("$dict $odict $tuple $deque $state_dict $defaultdict $namespace $registered $tensor $int $new".split())
TREES = st.recursive(
    PACKABLE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.builds(lambda tag, node: {tag: node}, TAGS, inner)
    ),
    max_leaves=15,
)


@given(TREES)
def test_every_packed_tree_can_be_walked(tree):
    for path, node in iter_leaves(tree):
        assert all(isinstance(key, str) for key in path)
        assert all(isinstance(row, int) for row in tensor_ids(node))


def leaf_paths(tree):
    """The paths of leaves that are not None, which is what pruning leaves in the place of an element of a sequence."""
    return {".".join(path) for path, node in iter_leaves(tree) if node is not None}


@given(TREES, st.data())
def test_pruning_never_adds_a_leaf_and_is_done_after_once(tree, data):
    paths = sorted(leaf_paths(tree))
    wanted = data.draw(st.sets(st.sampled_from(paths)) if paths else st.just(set()))
    pruned = prune(tree, wanted.__contains__)
    if pruned is ABSENT:
        assert not wanted - {""} or all(path not in wanted for path in paths if path)
        return
    assert leaf_paths(pruned) <= set(paths)
    again = prune(pruned, wanted.__contains__)
    assert repr(again) == repr(pruned)


@pytest.mark.slow
@given(st.binary(max_size=2000))
def test_no_longer_bytes_are_metadata_by_chance(raw):
    with pytest.raises(FormatError):
        decode_metadata(raw, where="m")
