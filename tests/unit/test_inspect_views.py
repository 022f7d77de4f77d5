"""What ckpt-inspect shows of a checkpoint: golden outputs at 80 columns, made from values and not from files."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.sources.checkpoint import Checkpoint, StoredFile
from ckpt_inspect.views.checkpoint_document import checkpoint_document
from ckpt_inspect.views.statistics_table import statistics_lines
from ckpt_inspect.views.summary import summary_lines
from ckpt_inspect.views.tensor_table import select_tensors, tensor_lines
from ckpt_inspect.views.tree import TreeView
from ckptfmt.errors import CorruptError
from ckptfmt.format.fingerprint import Field, FingerprintDocument, encode_document, identity_digest
from ckptfmt.format.manifest import Manifest, MetadataEntry, ShardEntry
from ckptfmt.format.metadata import Chunk, Metadata, ShardTable, TensorRow
from ckptfmt.state.statistics import TensorStats

NOW = datetime(2025, 11, 21, 3, 8, 20, tzinfo=UTC)
PATH = "runs/exp1/step-00001200"


def screen(**options):
    return Screen(io.StringIO(), **{"width": 80, "now": NOW, **options})


def digest(start):
    return "blake3:" + start.ljust(64, "0")


def row(name, dtype, shape, size_bytes, *places):
    return TensorRow(name, dtype, shape, size_bytes, tuple(Chunk(shard, slot, (0,) * len(shape), shape) for shard, slot in places))


def reference(index, kind="torch", **attributes):
    return {"$tensor": [index, kind, attributes]}


ROWS = [
    row("model.wte.weight", "float32", (50257, 768), 154_389_504, (0, 0)),
    row("model.h.0.ln.weight", "bfloat16", (768,), 1536, (0, 1)),
    row("model.steps", "int64", (), 8, (0, 2)),
    *(row(f"optimizer.state.{index}.exp_avg", "float32", (768,), 3072, (1, index)) for index in range(12)),
    row("mask", "bool", (512, 512), 262_144, (2, 0)),
]
MODEL = [
    "wte.weight", reference(0),
    "h.0.ln.weight", reference(1, "parameter", grad=False),
    "lm_head.weight", reference(0, strides=[1, 50257]),
    "first", reference(0, view=[0, "float32", [768], [1]]),
    "steps", reference(2),
]  # fmt: skip
TREE = {
    "model": {"$state_dict": [MODEL, None]},
    "optimizer": {
        "state": {"$dict": [part for index in range(12) for part in (index, {"exp_avg": reference(index + 3, "numpy")})]},
        "param_groups": [{"lr": 0.0003, "betas": {"$tuple": [0.9, 0.999]}, "params": list(range(100)), "fused": None}],
    },
    "mask": reference(15),
    "epoch": 12,
    "config": {"name": "gpt", "note": "x" * 300, "started": {"$datetime": ["2025-11-21T03:00:00", 0, {"$timezone": [0, None]}]}},
    "history": [{"loss": 1.0 / step} for step in range(1, 31)],
}
SHARDS = [
    ShardEntry("model-00001-3fa98c12.safetensors", 154_391_200, digest("3fa98c12aa01"), "model", 3),
    ShardEntry("optimizer-00001-77aa01fe.safetensors", 37_888, digest("77aa01fe0c9e"), "optimizer", 12),
    ShardEntry("state-00001-565e541e.safetensors", 262_272, digest("565e541eed63"), "", 1),
]
MANIFEST = Manifest(
    created_at_utc="2025-11-21T03:05:12.000000Z",
    writer="ckptfmt 0.1.0",
    step=1200,
    metrics={"train_loss": 2.98317, "val_loss": 3.25, "tokens": 1_228_800},
    fingerprint={"seed": 42, "config": {"lr": 0.0003, "optimizer": {"name": "adamw"}}, "data": {"train.csv": digest("aabbccddeeff")}},
    metadata=MetadataEntry("metadata-9f2c41d0.msgpack.zst", 1_420, digest("9f2c41d07ab3"), 4_000),
    shards=SHARDS,
    tensor_count=len(ROWS),
    tensor_bytes=sum(each.size_bytes for each in ROWS),
    digest=digest("d7c9bc06094f"),
)
METADATA = Metadata(
    TREE, ROWS, [ShardTable(64, (), [each.size_bytes for each in ROWS if each.chunks[0].shard == shard], b"") for shard in range(3)]
)


def stored(entry, *, names=1, problem=None):
    identity = None if problem == "missing" else (1, int(entry.digest[7:15], 16))
    return StoredFile(entry.name, entry.size_bytes, entry.digest, getattr(entry, "section", None), problem, identity, names)


def files(**problems):
    own = MetadataEntry("manifest.json", 1_812, MANIFEST.digest, 0)
    return [stored(own), stored(MANIFEST.metadata), stored(SHARDS[0], names=2), *(stored(shard, **problems) for shard in SHARDS[1:])]


CHECKPOINT = Checkpoint(PATH, MANIFEST, METADATA, files())


def text_of(lines):
    return "\n" + "\n".join(line.rstrip() for line in lines) + "\n"


SUMMARY = """
runs/exp1/step-00001200

  step     1,200
  created  2025-11-21 03:05:12 UTC (3 minutes ago)
  on disk  154.7 MB, 154.4 MB of it shared with other checkpoints
  tensors  16 with 38,869,505 elements, 154.7 MB
  format   ckptfmt 1.0, written by ckptfmt 0.1.0
  digest   blake3:d7c9bc06094f

metrics
  train_loss  2.98317
  val_loss    3.25
  tokens      1,228,800

state        tensors    elements      size  holds
  model            3  38,598,145  154.4 MB  float32, bfloat16, int64
  optimizer       12       9,216   36.9 kB  float32
  mask             1     262,144  262.1 kB  bool [512, 512]
  epoch                                     int 12
  config                                    dict of 3
  history                                   list of 30

files                                       size  blake3
  manifest.json                           1.8 kB  d7c9bc06094f
  metadata-9f2c41d0.msgpack.zst           1.4 kB  9f2c41d07ab3
  model-00001-3fa98c12.safetensors      154.4 MB  3fa98c12aa01
  optimizer-00001-77aa01fe.safetensors   37.9 kB  77aa01fe0c9e
  state-00001-565e541e.safetensors      262.3 kB  565e541eed63

fingerprint
  seed    42
  config  lr 0.0003, optimizer.name adamw
  data    train.csv blake3:aabbccddeeff
"""


def test_summary_of_a_checkpoint():
    assert text_of(summary_lines(CHECKPOINT, screen())) == SUMMARY


TREE_TEXT = """
model  OrderedDict of 5
  wte.weight      float32 [50257, 768] 154.4 MB
  h.0.ln.weight   bfloat16 [768] 1.5 kB  parameter, without grad
  lm_head.weight  float32 [50257, 768] 154.4 MB  tied to model.wte.weight, st...
  first           float32 [768]  view of model.wte.weight from byte 0, stride...
  steps           int64 [] 8 B
optimizer  dict of 2
  state  dict of 12
    0  dict of 1
      exp_avg  float32 [768] 3.1 kB  numpy
    1  dict of 1
      exp_avg  float32 [768] 3.1 kB  numpy
    2  dict of 1
      exp_avg  float32 [768] 3.1 kB  numpy
    3  dict of 1
      exp_avg  float32 [768] 3.1 kB  numpy
    4  dict of 1
      exp_avg  float32 [768] 3.1 kB  numpy
    ... and 7 more (-v shows all)
  param_groups  list of 1
    0  dict of 4
      lr      float 0.0003
      betas   tuple (0.9, 0.999)
      params  list [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, ... 86 more]
      fused   None
mask   bool [512, 512] 262.1 kB
epoch  int 12
config  dict of 3
  name     str 'gpt'
  note     str 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...
  started  datetime 2025-11-21T03:00:00+00:00
history  list of 30
  0  dict of 1
    loss  float 1.0
  1  dict of 1
    loss  float 0.5
  2  dict of 1
    loss  float 0.3333333333333333
  3  dict of 1
    loss  float 0.25
  4  dict of 1
    loss  float 0.2
  ... and 25 more (-v shows all)
"""


def test_tree_of_a_state():
    assert text_of(TreeView(TREE, ROWS).lines(screen())) == TREE_TEXT


def test_tree_with_everything_shown_has_no_count():
    text = text_of(TreeView(TREE, ROWS).lines(screen(verbosity=1)))

    assert "(-v shows all)" not in text
    assert text.count("exp_avg") == 12


def test_filtered_tree_shows_what_matches_and_what_holds_it():
    text = text_of(TreeView(TREE, ROWS, lambda path: path.endswith(".lr") or path == "model.steps").lines(screen()))

    assert (
        text
        == """
model  OrderedDict of 5
  steps  int64 [] 8 B
optimizer  dict of 2
  param_groups  list of 1
    0  dict of 4
      lr  float 0.0003
"""
    )


def test_filtered_tree_says_that_nothing_matches():
    assert list(TreeView(TREE, ROWS, lambda path: False).lines(screen())) == ["nothing in the state matches"]


def test_tensors_of_a_checkpoint():
    selection = select_tensors(ROWS, [shard.name for shard in SHARDS], matches=lambda name: "state.1" not in name, order="size")

    assert (
        text_of(tensor_lines(selection, screen()))
        == """
name                       dtype     shape             size  shard
model.wte.weight           float32   [50257, 768]  154.4 MB  model-00001
mask                       bool      [512, 512]    262.1 kB  state-00001
optimizer.state.0.exp_avg  float32   [768]           3.1 kB  optimizer-00001
optimizer.state.2.exp_avg  float32   [768]           3.1 kB  optimizer-00001
optimizer.state.3.exp_avg  float32   [768]           3.1 kB  optimizer-00001
optimizer.state.4.exp_avg  float32   [768]           3.1 kB  optimizer-00001
optimizer.state.5.exp_avg  float32   [768]           3.1 kB  optimizer-00001
optimizer.state.6.exp_avg  float32   [768]           3.1 kB  optimizer-00001
optimizer.state.7.exp_avg  float32   [768]           3.1 kB  optimizer-00001
optimizer.state.8.exp_avg  float32   [768]           3.1 kB  optimizer-00001
optimizer.state.9.exp_avg  float32   [768]           3.1 kB  optimizer-00001
model.h.0.ln.weight        bfloat16  [768]           1.5 kB  model-00001
model.steps                int64     []                 8 B  model-00001
"""
    )


def test_names_of_tensors_are_ordered_by_their_numbers():
    selection = select_tensors(ROWS, [], matches=lambda name: name.startswith("optimizer"), order="name")

    assert [each.name.split(".")[2] for _, each in selection.rows] == [str(index) for index in range(12)]


def test_long_names_are_cut_only_where_there_is_an_edge():
    long = row("model." + "block." * 30 + "weight", "float32", (2,), 8, (0, 0))
    selection = select_tensors([long], ["model-00001-3fa98c12.safetensors"], matches=None, order=None)

    assert long.name in text_of(tensor_lines(selection, screen(width=None)))
    assert max(map(len, tensor_lines(selection, screen()))) == 80
    assert ".weight  float32" in text_of(tensor_lines(selection, screen()))


STATISTICS = [
    TensorStats(38_597_376, -1.0234567, 1.5, 0.00012345),
    TensorStats(768, 1e-30, 65504.0, 1.0, nan_count=12, inf_count=1),
    TensorStats(1, 1200, 1200, 1200.0),
    CorruptError("model-00001: digest differs [E040]", rule="E040"),
    TensorStats(3, is_numeric=False),
    TensorStats(0),
]


def test_statistics_of_tensors():
    selection = select_tensors(ROWS[:6], [shard.name for shard in SHARDS], matches=None, order=None)

    assert (
        text_of(statistics_lines(selection, screen(), STATISTICS))
        == """
name                      dtype            min         max        mean  NaN  Inf
model.wte.weight          float32       -1.023         1.5   0.0001234    0    0
model.h.0.ln.weight       bfloat16       1e-30       65504           1   12    1
model.steps               int64           1200        1200        1200    0    0
optimiz...tate.0.exp_avg  float32  damaged [E040]
optimiz...tate.1.exp_avg  float32            -           -           -    -    -
optimiz...tate.2.exp_avg  float32            -           -           -    0    0
"""
    )


def test_nothing_is_wider_than_eighty_columns():
    selection = select_tensors(ROWS, [shard.name for shard in SHARDS], matches=None, order=None)
    views = [
        summary_lines(CHECKPOINT, screen()),
        TreeView(TREE, ROWS).lines(screen()),
        tensor_lines(selection, screen()),
    ]

    for lines in views:
        assert max(map(len, lines)) <= 80


def test_files_that_are_not_as_declared_are_marked():
    checkpoint = Checkpoint(PATH, MANIFEST, METADATA, files(problem="missing"))

    assert "  optimizer-00001-77aa01fe.safetensors   37.9 kB  77aa01fe0c9e  missing" in list(summary_lines(checkpoint, screen()))


def test_many_files_are_counted():
    checkpoint = Checkpoint(PATH, MANIFEST, METADATA, files() * 20)

    assert "  ... and 88 more (-v shows all)" in list(summary_lines(checkpoint, screen()))
    assert "more (-v" not in text_of(summary_lines(checkpoint, screen(verbosity=1)))


def test_verbose_summary_is_exact():
    text = text_of(summary_lines(CHECKPOINT, screen(verbosity=1)))

    assert MANIFEST.digest in text
    assert f"154.7 MB ({CHECKPOINT.size_bytes:,} bytes)" in text


def test_fields_of_a_fingerprint_are_shown_by_their_values():
    fields = {
        "seed": Field("must", "int", "42"),
        "config.name": Field("must", "str", "gpt"),
        "environment.gpu": Field("free", "none", "none"),
    }
    document = encode_document(FingerprintDocument(fields, identity_digest(fields, {}), None))
    manifest = Manifest(**{name: getattr(MANIFEST, name) for name in MANIFEST.__slots__} | {"fingerprint": document})
    lines = list(summary_lines(Checkpoint(PATH, manifest, METADATA, files()), screen()))

    assert lines[-4:] == [
        f"  digest       {document['digest'][:19]}",
        "  seed         42",
        "  config       name 'gpt'",
        "  environment  gpu None",
    ]


def test_documents_are_json_with_every_fact():
    document = checkpoint_document(CHECKPOINT)

    json.dumps(document, allow_nan=False)
    assert document.keys() == {
        *("kind", "path", "step", "created_at_utc", "size_bytes", "unique_bytes", "tensor_count", "element_count", "tensor_bytes"),
        *("stored_tensor_bytes", "metrics", "digest", "version", "requires", "writer", "fingerprint", "sections", "files"),
    }
    assert [section["name"] for section in document["sections"]] == ["model", "optimizer", ""]
    assert document["sections"][0]["dtypes"][1] == {"dtype": "bfloat16", "tensor_count": 1, "element_count": 768, "size_bytes": 1536}


def test_tree_as_json_has_one_entry_for_each_value():
    entries = list(TreeView(TREE, ROWS).entries())
    by_path = {entry["path"]: entry for entry in entries}

    json.dumps(entries, allow_nan=False)
    assert len(by_path) == len(entries)
    assert by_path["epoch"] == {"path": "epoch", "type": "int", "value": 12}
    assert by_path["history"] == {"path": "history", "type": "list", "item_count": 30}
    assert by_path["model.lm_head.weight"]["tied_to"] == "model.wte.weight"
    assert by_path["config.started"]["value"] == "2025-11-21T03:00:00+00:00"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_documents_hold_no_number_that_json_lacks(value):
    manifest = Manifest(**{name: getattr(MANIFEST, name) for name in MANIFEST.__slots__} | {"metrics": {"loss": value}})

    json.dumps(checkpoint_document(Checkpoint(PATH, manifest, METADATA, files())), allow_nan=False)
    json.dumps(list(TreeView({"loss": value}, []).entries()), allow_nan=False)
