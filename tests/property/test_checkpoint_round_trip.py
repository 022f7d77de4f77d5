"""Any state goes through a whole checkpoint unchanged; any changed bit is noticed; a base and a selection change nothing else."""

import glob
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import ckptfmt
from tests.conformance.describing import described
from tests.property.checkpoint_states import TEXTS, changed, states

SIZES = st.sampled_from([1, 50, "1kB", "2GB"]) | st.integers(1, 400)
EXAMPLES = settings.default.max_examples
RELAXED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@contextmanager
def directory():
    with tempfile.TemporaryDirectory(prefix="ckptfmt-") as path:
        yield Path(path)


def facts(state):
    """Everything about a state: types, values, order, bytes of tensors and which of them share memory."""
    return repr(described(state))


@given(
    states(),
    SIZES,
    st.none() | st.integers(0, 2**63 - 1),
    st.dictionaries(TEXTS, st.floats() | st.integers(-(2**63), 2**63 - 1), max_size=3),
)
@settings(suppress_health_check=RELAXED)
def test_any_state_is_loaded_as_it_was_saved(state, size, step, metrics):
    expected = facts(state)
    with directory() as path:
        info = ckptfmt.save(path / "c", state, step=step, metrics=metrics, max_shard_size=size, durable=False)
        assert facts(state) == expected
        assert (info.step, repr(sorted(info.metrics.items()))) == (step, repr(sorted(metrics.items())))
        loaded = ckptfmt.load(path / "c")
        assert facts(loaded) == expected
        report = ckptfmt.verify(path / "c")
        assert report.findings == ()
        with ckptfmt.open_checkpoint(path / "c") as checkpoint:
            assert checkpoint.info == info
            for name in checkpoint.keys():
                checkpoint.get_tensor(name)
            checkpoint.tree()
    assert facts(loaded) == expected


@given(states(), SIZES)
@settings(suppress_health_check=RELAXED, max_examples=EXAMPLES // 2)
def test_saving_what_was_loaded_gives_the_same_checkpoint(state, size):
    # References to one empty array are told apart after loading: they share no memory that could show it.
    assume("'$bytes': ''" not in facts(state))
    with directory() as path:
        ckptfmt.save(path / "a", state, max_shard_size=size, durable=False)
        ckptfmt.save(path / "b", ckptfmt.load(path / "a"), max_shard_size=size, durable=False)
        first, second = ({file.name: file.read_bytes() for file in (path / name).iterdir() if file.suffix != ".json"} for name in "ab")
        assert facts(ckptfmt.load(path / "b")) == facts(state)
        assert first == second


@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_a_tensor_with_an_axis_of_length_one_is_loaded_beside_its_view(library):
    tensor = torch.arange(4.0).reshape(2, 1, 2).permute(0, 2, 1)
    tensor = tensor if library == "torch" else tensor.numpy()
    state = {"whole": tensor, "part": tensor[1:]}
    with directory() as path:
        ckptfmt.save(path / "c", state)
        assert facts(ckptfmt.load(path / "c")) == facts(state)


def flip_one_bit(path, draw):
    files = sorted(file for file in path.iterdir() if file.stat().st_size)
    file = draw(st.sampled_from(files))
    data = bytearray(file.read_bytes())
    position = draw(st.integers(0, len(data) * 8 - 1))
    data[position // 8] ^= 1 << position % 8
    file.chmod(0o644)
    file.write_bytes(data)
    return file


@given(states(), SIZES, st.data())
@settings(suppress_health_check=RELAXED)
def test_any_flipped_bit_in_any_file_is_found(state, size, data):
    with directory() as path:
        ckptfmt.save(path / "c", state, max_shard_size=size, durable=False)
        file = flip_one_bit(path / "c", data.draw)
        with pytest.raises(ckptfmt.FormatError):
            ckptfmt.load(path / "c")
        findings = [finding for finding in ckptfmt.verify(path / "c").findings if finding.level == "error"]
        assert [finding.path for finding in findings] == [str(file)]


@given(states(), SIZES, st.data())
@settings(suppress_health_check=RELAXED)
def test_a_save_with_a_base_outlives_the_base_and_equals_a_full_save(state, size, data):
    later = changed(data.draw, state)
    with directory() as path:
        ckptfmt.save(path / "base", state, max_shard_size=size, durable=False)
        before = {file.name: file.read_bytes() for file in (path / "base").iterdir()}
        info = ckptfmt.save(path / "c", later, base=path / "base", max_shard_size=data.draw(SIZES), durable=False)
        assert {file.name: file.read_bytes() for file in (path / "base").iterdir()} == before
        ckptfmt.save(path / "full", later, max_shard_size=size, durable=False)
        shutil.rmtree(path / "base")
        assert facts(ckptfmt.load(path / "c")) == facts(ckptfmt.load(path / "full")) == facts(later)
        assert ckptfmt.verify(path / "c").findings == ()
        with ckptfmt.open_checkpoint(path / "c") as checkpoint:
            assert checkpoint.info.digest == info.digest
            assert checkpoint.info.unique_bytes == checkpoint.info.size_bytes == info.size_bytes


SIMPLE_KEYS = st.text("abc*?[]$", min_size=1, max_size=3) | st.integers(0, 3)


@st.composite
def trees(draw):
    """A state of mappings and sequences; every leaf is a number of its own, and its path belongs to it alone."""
    numbers = iter(range(10**6))

    def leaf(_):
        return torch.tensor(next(numbers)) if draw(st.booleans()) else next(numbers)

    def containers(inner):
        lists = st.lists(inner, min_size=1, max_size=3)
        return lists | lists.map(tuple) | st.dictionaries(SIMPLE_KEYS, inner, min_size=1, max_size=3)

    state = draw(containers(st.recursive(st.none().map(leaf), containers, max_leaves=8)))
    paths = [path for path, _ in leaves_of(state)]
    assume(len(set(paths)) == len(paths))
    return state


def leaves_of(value, path=()):
    """(path as `only` sees it, leaf) of everything that is no container."""
    if type(value) in (list, tuple, dict):
        items = value.items() if type(value) is dict else enumerate(value)
        for key, item in items:
            yield from leaves_of(item, (*path, str(key)))
    else:
        yield ".".join(path), value


MISSING = object()


def selected(value, wanted, path=()):
    """What is expected of `only`: mappings lose members, sequences keep their places."""
    if type(value) is dict:
        kept = {key: selected(item, wanted, (*path, str(key))) for key, item in value.items()}
        kept = {key: item for key, item in kept.items() if item is not MISSING}
        return kept or MISSING
    if type(value) in (list, tuple):
        kept = [selected(item, wanted, (*path, str(index))) for index, item in enumerate(value)]
        return type(value)(None if item is MISSING else item for item in kept) if any(item is not MISSING for item in kept) else MISSING
    return value if ".".join(path) in wanted else MISSING


@given(trees(), st.data())
@settings(suppress_health_check=RELAXED)
def test_only_gives_exactly_the_leaves_that_are_asked_for(state, data):
    paths = [path for path, _ in leaves_of(state)]
    wanted = data.draw(st.sets(st.sampled_from(paths), min_size=1))
    with directory() as path:
        ckptfmt.save(path / "c", state, durable=False, max_shard_size=data.draw(SIZES))
        loaded = ckptfmt.load(path / "c", only=[glob.escape(name) for name in sorted(wanted)])
        assert facts(loaded) == facts(selected(state, wanted))
        with ckptfmt.open_checkpoint(path / "c") as checkpoint:
            tensors = [name for name, leaf in leaves_of(state) if isinstance(leaf, torch.Tensor)]
            assert checkpoint.keys() == tensors
            assert [checkpoint.get_tensor(name).item() for name in tensors] == [dict(leaves_of(state))[name].item() for name in tensors]
