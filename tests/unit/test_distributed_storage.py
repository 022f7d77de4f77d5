"""StorageWriter and StorageReader in one process: planners of every kind, what is refused, and saves that are given up."""

from __future__ import annotations

import gc
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

import ckptfmt
from ckptfmt.adapters import torch_distributed_plan
from ckptfmt.adapters.torch_distributed import ExactSavePlanner, StorageReader, StorageWriter
from ckptfmt.checkpoint.joint_commit import JointStaging, commit_parts
from ckptfmt.checkpoint.part import Part
from ckptfmt.checkpoint.part_writer import new_generation, write_part
from ckptfmt.checkpoint.saving import check_options
from ckptfmt.checkpoint.shard_plan import name_tensors
from ckptfmt.disk.local import LocalDisk
from ckptfmt.format.manifest import ShardEntry
from ckptfmt.state.source_columns import SourceColumns
from ckptfmt.state.tree import encode_state

# DCP says so whenever it saves or loads in one process.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")
ENCODED = ["encoded", "made-from-others", "deltas", "planes-of-rows"]
VECTORS = Path(__file__).parents[2] / "spec" / "vectors" / "1.0" / "good"


def save(path: Path, state: dict[str, Any], planner: Any = None, **options: Any) -> Any:
    writer: Any = StorageWriter(path, **options)
    dcp.save(state, storage_writer=writer, planner=planner, no_dist=True)
    return writer


def load(path: Path, state: dict[str, Any], planner: Any = None) -> dict[str, Any]:
    reader: Any = StorageReader(path)
    dcp.load(state, storage_reader=reader, planner=planner, no_dist=True)
    return state


def failure_of(error: pytest.ExceptionInfo[BaseException]) -> BaseException:
    (cause, _), *_ = error.value.failures.values()  # type: ignore[attr-defined]
    return cause


def test_the_writer_describes_what_it_committed(tmp_path: Path) -> None:
    info = save(tmp_path / "c", {"w": torch.ones(3)}, step=7, metrics={"loss": 0.5}).info
    assert (info.step, info.metrics, info.tensor_count) == (7, {"loss": 0.5}, 1)
    with ckptfmt.open_checkpoint(tmp_path / "c") as checkpoint:
        assert checkpoint.info == info


def test_values_of_every_type_are_stored_as_they_are(tmp_path: Path) -> None:
    state = {"set": {1, 2}, "array": np.arange(6).reshape(2, 3), "path": Path("a/b"), "nested": {"tensors": (torch.ones(2), [1])}}
    save(tmp_path / "c", state)
    found = load(tmp_path / "c", {"set": None, "array": None, "path": None, "nested": {"tensors": None}})
    assert (found["set"], found["path"]) == ({1, 2}, Path("a/b"))
    assert np.array_equal(found["array"], state["array"])
    assert torch.equal(found["nested"]["tensors"][0], torch.ones(2))


class _Serialising(DefaultSavePlanner):
    """A planner of an application, which wants to see the bytes of each value."""

    def transform_object(self, write_item: Any, object: Any) -> Any:
        return super().transform_object(write_item, object)


class _Deserialising(DefaultLoadPlanner):
    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        super().load_bytes(read_item, value)


def test_planners_that_work_with_bytes_get_bytes(tmp_path: Path) -> None:
    state = {"w": torch.ones(2), "plain": {"a": [1, "b"], "t": (torch.zeros(1), 2)}}
    save(tmp_path / "c", state, _Serialising())
    assert ckptfmt.load(tmp_path / "c")["plain"]["t"][1] == 2
    found = load(tmp_path / "c", {"w": torch.zeros(2), "plain": {"a": None, "t": None}}, _Deserialising())
    assert found["plain"]["a"] == [1, "b"]


class _Unknown:
    pass


@pytest.mark.parametrize("planner", [None, ExactSavePlanner, _Serialising])
def test_a_value_that_cannot_be_stored_is_named(tmp_path: Path, planner: Any) -> None:
    with pytest.raises(CheckpointException) as caught:
        save(tmp_path / "c", {"deep": {"broken": _Unknown()}}, planner and planner())
    error = failure_of(caught)
    assert isinstance(error, ckptfmt.UnsupportedTypeError)
    assert "deep.broken" in str(error)
    assert "_Unknown" in str(error)
    assert not (tmp_path / "c" / "manifest.json").exists()


def test_sparse_tensors_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointException) as caught:
        save(tmp_path / "c", {"rare": torch.eye(3).to_sparse()})
    assert "rare" in str(failure_of(caught))


def test_types_of_containers_are_kept_by_the_exact_planner_and_text_by_the_other(tmp_path: Path) -> None:
    state = {"optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"params": [0]}], "empty": {}}}
    save(tmp_path / "exact", state, ExactSavePlanner())
    save(tmp_path / "text", state)
    exact, text = ckptfmt.load(tmp_path / "exact")["optimizer"], ckptfmt.load(tmp_path / "text")["optimizer"]
    assert list(exact["state"]) == [0]
    assert exact["empty"] == {}
    assert list(text["state"]) == ["0"]
    assert text["param_groups"] == exact["param_groups"] == [{"params": [0]}]
    for name in ("exact", "text"):
        target = {"optimizer": {"state": {0: {"step": torch.tensor(0.0)}}, "param_groups": [{"params": None}]}}
        load(tmp_path / name, target)
        assert target == {"optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"params": [0]}]}}


@pytest.mark.parametrize(
    "name",
    ["by-ranks", "chunked", "encoded", "made-from-others", "deltas", "planes-of-rows", "several-shards", "linked-shard", "views", "ties"],
)
def test_conformance_vectors_are_read_as_a_plain_load_reads_them(name: str) -> None:
    path = VECTORS / name / "checkpoint"
    found = _load_state_dict_from_keys(storage_reader=StorageReader(path))  # type: ignore[arg-type]
    expected = ckptfmt.load(path)
    assert _texts(found) == _texts(expected)


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _texts(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_texts(member) for member in value]
    return repr(value.tolist()) if hasattr(value, "tolist") else value


def test_a_tensor_that_is_not_there_is_named(tmp_path: Path) -> None:
    save(tmp_path / "c", {"w": torch.ones(2)})
    with pytest.raises(CheckpointException, match=r"Missing key in checkpoint state_dict: v\."):
        load(tmp_path / "c", {"v": torch.ones(2)})


def test_nothing_there_and_a_state_that_is_no_mapping_are_told_apart(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "list", [1, 2])
    with pytest.raises(ckptfmt.CheckpointNotFoundError):
        StorageReader(tmp_path / "nothing").read_metadata()
    with pytest.raises(ckptfmt.UnsupportedTypeError, match="no mapping"):
        StorageReader(tmp_path / "list").read_metadata()


def test_saving_without_collectives_is_refused(tmp_path: Path) -> None:
    writer: Any = StorageWriter(tmp_path / "c")
    with pytest.raises(ValueError, match="use_collectives=False"):
        dcp.save({"w": torch.ones(1)}, storage_writer=writer, no_dist=True, use_collectives=False)


def test_our_classes_count_as_what_dcp_expects_and_take_its_checkpoint_id(tmp_path: Path) -> None:
    writer, reader = StorageWriter(), StorageReader()
    assert isinstance(writer, dcp.StorageWriter)
    assert isinstance(reader, dcp.StorageReader)
    assert isinstance(ExactSavePlanner(), dcp.SavePlanner)
    dcp.save({"w": torch.ones(1)}, checkpoint_id=tmp_path / "c", storage_writer=writer, no_dist=True)
    target = {"w": torch.zeros(1)}
    dcp.load(target, checkpoint_id=tmp_path / "c", storage_reader=reader, no_dist=True)
    assert target["w"].item() == 1.0
    with pytest.raises(CheckpointException, match="expected a path"):
        dcp.save({"w": torch.ones(1)}, storage_writer=StorageWriter(), no_dist=True)


def begin(path: Path) -> StorageWriter:
    """Begin a save as coordinator, and leave it."""
    writer = StorageWriter(path)
    writer.prepare_global_plan([])
    (path / f".model-00001.{writer_generation(path)}{'0' * 16}.tmp").write_bytes(b"litter")
    return writer


def writer_generation(path: Path) -> str:
    from ckptfmt.adapters.torch_distributed_writer import _BEGUN

    return _BEGUN[str(path)][1].generation


def test_a_save_that_was_left_is_given_up_by_the_next_one_of_its_thread(tmp_path: Path) -> None:
    left = begin(tmp_path / "c")
    save(tmp_path / "c", {"w": torch.ones(1)})
    assert not list((tmp_path / "c").glob(".*"))
    assert left.info is None


def test_a_save_that_is_under_way_in_another_thread_is_not_given_up(tmp_path: Path) -> None:
    begun, finish = threading.Event(), threading.Event()

    def work() -> None:
        writer = begin(tmp_path / "c")
        begun.set()
        finish.wait()
        writer.give_up()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    with pytest.raises(CheckpointException) as caught:
        save(tmp_path / "c", {"w": torch.ones(1)})
    assert isinstance(failure_of(caught), ckptfmt.RunLockedError)
    finish.set()
    thread.join()
    save(tmp_path / "c", {"w": torch.ones(1)})


def test_a_writer_that_is_gone_leaves_nothing_behind(tmp_path: Path) -> None:
    begin(tmp_path / "c")
    gc.collect()
    assert not (tmp_path / "c").exists()


def test_processes_that_do_not_share_the_directory_are_told_so(tmp_path: Path) -> None:
    disk, options = LocalDisk(), check_options()
    with pytest.raises(FileNotFoundError):
        write_part(disk, str(tmp_path / "elsewhere"), new_generation(), [], [], options)
    lost = Part([ShardEntry(".model-00001.00.tmp", 10, "blake3:" + "0" * 64, "model", 1)], [], [])
    joint, refusal = JointStaging(disk, str(tmp_path / "c"), overwrite=False, durable=True), "into one directory that they share"
    with joint as staging, pytest.raises(ckptfmt.IncompleteError, match=refusal):
        commit_parts(staging, {}, {}, [lost], options)
    assert not (tmp_path / "c").exists()


def test_a_part_that_fails_removes_its_files(tmp_path: Path) -> None:
    encoded = encode_state({"a": torch.ones(3), "b": torch.ones(3)})
    columns = SourceColumns.of(encoded.tensors)
    tensors = name_tensors(columns.paths, {}, columns.dtypes, columns.shapes, columns.sizes)

    class Failing:
        keys, aliases, dtype, shape, size_bytes = ("b",), (), "float32", (3,), 12

        def memory(self) -> memoryview | None:
            return None

        def blocks(self, block_bytes: int) -> Any:
            raise RuntimeError("the tensor is gone")

    sources: list[Any] = [encoded.tensors[0], Failing()]
    with pytest.raises(RuntimeError, match="is gone"):
        write_part(LocalDisk(), str(tmp_path), new_generation(), tensors, sources, check_options(max_shard_size=1))
    assert not list(tmp_path.iterdir())


def test_a_save_whose_index_would_be_too_large_is_refused_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {f"layer-{number}": torch.ones(2) for number in range(50)}
    monkeypatch.setattr(torch_distributed_plan, "MAX_METADATA_RAW_BYTES", 1000)
    with pytest.raises(CheckpointException) as error:
        save(tmp_path / "c", state)
    cause = failure_of(error)
    assert isinstance(cause, ckptfmt.LimitError)
    assert cause.rule == "E023"
    assert not (tmp_path / "c").exists()


def test_the_size_of_an_index_is_known_before_it_is_made(tmp_path: Path) -> None:
    state = {"model": {f"layers.{number}.weight": torch.ones(2, 3) for number in range(300)}}
    save(tmp_path / "c", state)
    with ckptfmt.open_checkpoint(tmp_path / "c") as checkpoint:
        actual = checkpoint.manifest.metadata.raw_size_bytes
    planner = DefaultSavePlanner()
    planner.set_up_planner(state, is_coordinator=True)
    estimated = sum(map(torch_distributed_plan._index_bytes, planner.create_local_plan().items))
    assert 0.5 < estimated / actual < 1
