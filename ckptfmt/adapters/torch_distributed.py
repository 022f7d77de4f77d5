"""Checkpoints of sharded training: torch.distributed.checkpoint (DCP) saves into and loads from this format.

`StorageWriter` and `StorageReader` are handed to `dcp.save`, `dcp.async_save` and `dcp.load`; `ExactSavePlanner` keeps the types of a
state's containers; `DistributedRun` is a `Run` on all processes; `from_dcp` and `to_dcp` convert directories that DCP wrote. This module
only names what is public; each has a file of its own.
"""

from ckptfmt.adapters.torch_distributed_convert import from_dcp as from_dcp
from ckptfmt.adapters.torch_distributed_convert import to_dcp as to_dcp
from ckptfmt.adapters.torch_distributed_planner import ExactSavePlanner as ExactSavePlanner
from ckptfmt.adapters.torch_distributed_reader import StorageReader as StorageReader
from ckptfmt.adapters.torch_distributed_run import DistributedRun as DistributedRun
from ckptfmt.adapters.torch_distributed_writer import StorageWriter as StorageWriter
