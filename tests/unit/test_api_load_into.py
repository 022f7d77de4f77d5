"""ckptfmt.load_into: sections go into live objects, after everything was verified, and the report says what became of each."""

import pytest
import torch

import ckptfmt


class Sink:
    """An object that takes any state."""

    def __init__(self):
        self.states = []

    def load_state_dict(self, state):
        self.states.append(state)


class StrictSink(Sink):
    def load_state_dict(self, state, strict=True):
        self.states.append((state, strict))


def trained():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).pow(2).sum().backward()
        optimizer.step()
        scheduler.step()
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler}


def fresh():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    return {"model": model, "optimizer": optimizer, "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 7)}


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    ckptfmt.save(tmp_path / "c", {**trained(), "epoch": 5}, step=7)
    return tmp_path / "c"


def step_together(first, second):
    torch.manual_seed(1)
    data = torch.randn(8, 4)
    for objects in (first, second):
        objects["optimizer"].zero_grad()
        objects["model"](data).pow(2).sum().backward()
        objects["optimizer"].step()
        objects["scheduler"].step()


def test_training_goes_on_bit_by_bit(tmp_path):
    original, restored = trained(), fresh()
    ckptfmt.save(tmp_path / "c", original)
    report = ckptfmt.load_into(tmp_path / "c", restored)
    assert report.restored == ("model", "optimizer", "scheduler")
    for _ in range(3):
        step_together(original, restored)
    for ours, theirs in zip(restored["model"].state_dict().values(), original["model"].state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert restored["scheduler"].state_dict() == original["scheduler"].state_dict()


def test_the_report_says_what_became_of_each_component(path):
    report = ckptfmt.load_into(path, {"model": fresh()["model"], "ema": Sink()}, strict=False)
    assert isinstance(report, ckptfmt.LoadReport)
    assert (report.path, report.step) == (str(path), 7)
    assert report.restored == ("model",)
    assert report.skipped == ("optimizer", "scheduler", "epoch")
    assert report.missing == ("ema",)
    assert (report.missing_keys, report.unexpected_keys) == ({}, {})


def test_a_missing_section_is_an_error_that_names_what_there_is(path):
    model, sink = fresh()["model"], Sink()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        ckptfmt.NameNotFoundError, match=r"no section matches 'ema'\nThere are: model, optimizer, scheduler, epoch\."
    ) as caught:
        ckptfmt.load_into(path, {"model": model, "ema": sink})
    assert (caught.value.name, caught.value.path) == ("ema", str(path))
    assert "strict=False" in str(caught.value)
    assert sink.states == []
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_keys_that_a_module_lacks_or_has_more_are_reported(path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    model.extra = torch.nn.Linear(1, 1)
    report = ckptfmt.load_into(path, {"model": model}, strict=False)
    assert report.missing_keys == {"model": ("extra.weight", "extra.bias")}
    assert report.unexpected_keys == {"model": ("2.weight", "2.bias")}


def test_a_strict_module_refuses_other_keys_and_says_where(path):
    with pytest.raises(RuntimeError, match="Missing key") as caught:
        ckptfmt.load_into(path, {"scheduler": Sink(), "model": torch.nn.Linear(9, 9)})
    assert f"while restoring 'model' from {path}; restored before it: scheduler" in caught.value.__notes__


def test_strict_is_passed_to_objects_that_take_it(path):
    plain, strict = Sink(), StrictSink()
    ckptfmt.load_into(path, {"model": plain, "optimizer": strict}, strict=False)
    ckptfmt.load_into(path, {"optimizer": strict})
    assert [flag for _, flag in strict.states] == [False, True]
    assert list(plain.states[0]) == list(fresh()["model"].state_dict())


@pytest.mark.parametrize("damaged", ["model", "optimizer", "state"])
def test_nothing_is_touched_when_anything_is_damaged(tmp_path, damaged):
    torch.manual_seed(0)
    ckptfmt.save(tmp_path / "c", {**trained(), "extra": torch.ones(4)})
    file = next((tmp_path / "c").glob(f"{damaged}-*"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    sinks = {name: Sink() for name in ("scheduler", "model", "optimizer", "extra")}
    with pytest.raises(ckptfmt.CorruptError):
        ckptfmt.load_into(tmp_path / "c", sinks)
    assert [sink.states for sink in sinks.values()] == [[], [], [], []]


def test_damage_to_sections_that_are_not_asked_for_is_no_obstacle(path):
    file = next(path.glob("optimizer-*"))
    file.chmod(0o644)
    file.write_bytes(bytes(file.stat().st_size))
    assert ckptfmt.load_into(path, {"model": fresh()["model"]}).restored == ("model",)


def test_any_section_can_be_restored_also_plain_values(path):
    sink = Sink()
    ckptfmt.load_into(path, {"epoch": sink})
    assert sink.states == [5]


@pytest.mark.parametrize("target", [None, 5, {"a": 1}, torch.ones(2)], ids=repr)
def test_an_object_that_takes_no_state_is_refused_before_anything_is_read(tmp_path, target):
    with pytest.raises((TypeError, ckptfmt.CheckpointNotFoundError)):
        ckptfmt.load_into(tmp_path / "nothing", {"model": target})
    ckptfmt.save(tmp_path / "c", {"model": 1})
    with pytest.raises(TypeError, match=f"model: expected an object with load_state_dict\\(\\), found {type(target).__name__}"):
        ckptfmt.load_into(tmp_path / "c", {"model": target})


def test_ties_between_sections_are_kept(tmp_path):
    shared = torch.arange(3.0)
    ckptfmt.save(tmp_path / "c", {"a": {"w": shared}, "b": {"w": shared}})
    sinks = {"a": Sink(), "b": Sink()}
    ckptfmt.load_into(tmp_path / "c", sinks)
    sinks["a"].states[0]["w"].fill_(9)
    assert sinks["b"].states[0]["w"].tolist() == [9, 9, 9]


def test_nothing_to_restore_is_fine(path):
    report = ckptfmt.load_into(path, {})
    assert report.restored == ()
    assert report.skipped == ("model", "optimizer", "scheduler", "epoch")
