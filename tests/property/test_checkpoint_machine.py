"""A few checkpoints under any sequence of saves, overwrites, deletions and reads behave like a dictionary from path to state."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

import ckptfmt
from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.disk.local import LocalDisk
from tests.conformance.describing import described
from tests.property.checkpoint_states import changed, states

NAMES = st.sampled_from(["a", "b", "deep/c"])
SIZES = st.sampled_from([1, 100, "2GB"])


def facts(state):
    return repr(described(state))


class Checkpoints(RuleBasedStateMachine):
    """The model: for each path the state that was saved last, its step, and what it looks like."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="ckptfmt-machine-"))
        self.model = {}
        self.steps = 0

    def teardown(self):
        shutil.rmtree(self.root)

    @initialize(state=states())
    def begin(self, state):
        self.state = state

    @rule(data=st.data())
    def train(self, data):
        """Change a part of the state, as training does."""
        self.state = changed(data.draw, self.state)

    @rule(state=states())
    def start_anew(self, state):
        self.state = state

    @rule(name=NAMES, size=SIZES, is_async=st.booleans())
    def save(self, name, size, is_async):
        self.write(name, name not in self.model, is_async=is_async, max_shard_size=size)

    @rule(name=NAMES, size=SIZES, is_async=st.booleans())
    def overwrite(self, name, size, is_async):
        self.write(name, True, is_async=is_async, max_shard_size=size, overwrite=True)

    @precondition(lambda self: self.model)
    @rule(name=NAMES, data=st.data(), is_async=st.booleans())
    def save_with_base(self, name, data, is_async):
        base = data.draw(st.sampled_from(sorted(self.model)))
        self.write(name, True, is_async=is_async, overwrite=True, base=self.root / base)

    def write(self, name, is_allowed, *, is_async, **options):
        self.steps += 1

        def run():
            if is_async:
                return ckptfmt.async_save(self.root / name, self.state, step=self.steps, durable=False, **options).result()
            return ckptfmt.save(self.root / name, self.state, step=self.steps, durable=False, **options)

        if not is_allowed:
            with pytest.raises(ckptfmt.CheckpointExistsError):
                run()
            return
        info = run()
        self.model[name] = (facts(self.state), self.steps, info.digest)

    @rule(name=NAMES)
    def load(self, name):
        if name in self.model:
            assert facts(ckptfmt.load(self.root / name)) == self.model[name][0]
        else:
            with pytest.raises((ckptfmt.CheckpointNotFoundError, ckptfmt.IncompleteError)):
                ckptfmt.load(self.root / name)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def keep_reading_while_it_is_replaced(self, data):
        name = data.draw(st.sampled_from(sorted(self.model)))
        expected = self.model[name][0]
        with ckptfmt.open_checkpoint(self.root / name) as checkpoint:
            self.write(name, True, is_async=False, overwrite=True)
            assert facts(checkpoint.load()) == expected

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data):
        name = data.draw(st.sampled_from(sorted(self.model)))
        delete_checkpoint(LocalDisk(), str(self.root / name))
        del self.model[name]
        assert not (self.root / name).exists()

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def copy(self, data):
        source = data.draw(st.sampled_from(sorted(self.model)))
        target = data.draw(NAMES)
        if target not in self.model:
            shutil.copytree(self.root / source, self.root / target, dirs_exist_ok=True)
            self.model[target] = self.model[source]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def fail_to_save(self, data):
        name = data.draw(st.sampled_from(sorted(self.model)))
        with pytest.raises(ckptfmt.UnsupportedTypeError):
            ckptfmt.save(self.root / name, {"state": self.state, "bad": object()}, overwrite=True)

    @invariant()
    def every_checkpoint_is_what_was_saved_last(self):
        for name in ("a", "b", "deep/c"):
            assert ckptfmt.is_complete(self.root / name) == (name in self.model)
        for name, (_, step, digest) in self.model.items():
            report = ckptfmt.verify(self.root / name)
            assert report.findings == ()
            with ckptfmt.open_checkpoint(self.root / name) as checkpoint:
                assert (checkpoint.info.step, checkpoint.info.digest) == (step, digest)


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def test_checkpoints_behave_like_a_dictionary():
    run_state_machine_as_test(Checkpoints, settings=settings(max_examples=15, stateful_step_count=20, suppress_health_check=SLOW))


@pytest.mark.slow
def test_checkpoints_behave_like_a_dictionary_for_long():
    run_state_machine_as_test(Checkpoints, settings=settings(max_examples=300, stateful_step_count=60, suppress_health_check=SLOW))
