"""Loading: from a directory up to a state, every byte checked before it is handed out. Mirror of writer.

`OpenCheckpoint` opens all files at once, unless they are very many, so that a later deletion or overwrite cannot disturb it; tensors
are read when they are asked for, verified, and handed out as private writable memory. The first tensor that is asked for by name is
found without
decoding what belongs to the others. Spec 12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fnmatch import translate
from functools import partial
from itertools import islice
from re import compile as compile_pattern
from types import TracebackType
from typing import Any

from ckptfmt.checkpoint.directory import describe_directory, open_checkpoint_directory, read_manifest
from ckptfmt.checkpoint.many_files import ManyFiles
from ckptfmt.checkpoint.metadata_file import decode_raw_metadata, find_one_tensor, read_raw_metadata
from ckptfmt.checkpoint.neighbours import find_ready
from ckptfmt.checkpoint.shard_file import ShardFile
from ckptfmt.checkpoint.slicing import find_leading_run
from ckptfmt.checkpoint.tensor_store import TensorStore
from ckptfmt.disk.protocol import Directory, Disk, ReadableFile
from ckptfmt.errors import CorruptError, FormatError, LimitError, NameNotFoundError
from ckptfmt.format.manifest import Manifest
from ckptfmt.format.metadata import Metadata, ShardTable
from ckptfmt.format.metadata_scan import OneTensor
from ckptfmt.format.rules import shown, violation, visible
from ckptfmt.format.tree_walk import ABSENT, children_of, find_tensor, iter_leaves, iter_tensors, prune, referenced_rows, tensor_ids
from ckptfmt.state.pause import collector_paused
from ckptfmt.state.row_memory import ReadyRows
from ckptfmt.state.tensors import TensorMemory
from ckptfmt.state.tree import decode_leaf, decode_state, outline_state

_SHOWN_NAMES = 5
_SHOWN_CHARACTERS = 100
_MAX_NAMES_CHARACTERS = 2**28


class OpenCheckpoint:
    """A checkpoint that is open for reading; the methods that name tensors are those of safetensors' `safe_open`.

    A name is the path of a tensor in the state: `model.layer.weight`. Use as a context manager. With `is_mapped=False` files are
    opened as they are needed, and no more of them is in memory than was asked for.
    """

    def __init__(self, disk: Disk, path: str, *, verify: bool = True, device: Any = "cpu", is_mapped: bool = True) -> None:
        self.path = path
        self._disk = disk
        self._device = device
        self._verify = verify
        with ExitStack() as stack:
            directory = open_checkpoint_directory(disk, path)
            stack.callback(directory.close)
            self.manifest, self._raw, self._files = _open_consistently(directory, stack, is_mapped=is_mapped)
            self.info = describe_directory(directory, self.manifest, self._files)
            self._stack = stack.pop_all()
        self._metadata: Metadata | None = None
        self._store: TensorStore | None = None
        self._leaves: dict[str, Any] | None = None
        self._may_scan = True

    def __enter__(self) -> OpenCheckpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. Tensors that were handed out stay valid."""
        self._stack.close()

    def is_replaced(self) -> bool:
        """Tell whether there is another checkpoint under this path by now."""
        with closing(open_checkpoint_directory(self._disk, self.path)) as directory:
            return read_manifest(directory).digest != self.manifest.digest

    @property
    def metadata(self) -> Metadata:
        """Tree and index; they are decoded, and all of their structure is checked, when they are asked for."""
        if self._metadata is None:
            self._metadata = decode_raw_metadata(self._raw, self.manifest, where=self._metadata_path)
            self._raw = b""
        return self._metadata

    @property
    def store(self) -> TensorStore:
        """The tensors by their rows of the index."""
        if self._store is None:
            shards = {number: self._shard(number, table) for number, table in enumerate(self.metadata.shards)}
            self._store = TensorStore(self.metadata, shards, verify=self._verify)
        return self._store

    @property
    def _metadata_path(self) -> str:
        return f"{self.path}/{self.manifest.metadata.name}"

    def _shard(self, number: int, table: ShardTable) -> ShardFile:
        entry = self.manifest.shards[number]
        return ShardFile(self._files[number], entry, table, where=f"{self.path}/{entry.name}")

    def link_count(self, shard: int) -> int:
        """Return under how many names a shard lies on its disk."""
        return self._files[shard].link_count

    def keys(self) -> list[str]:
        """Return the names of all tensors, in the order of the state; tied tensors under each of their names."""
        return list(self._tensor_leaves())

    def tensor_info(self, name: str) -> TensorInfo:
        """Return element type, shape and size of one tensor from the index, without reading it."""
        (row, *_) = tensor_ids(self._leaf(name)) or [-1]
        self._rows_of(self._leaf(name))
        return self._described(row)

    def get_tensor(self, name: str) -> Any:
        """Read one tensor, verified: one read of its bytes, whatever else the checkpoint holds."""
        if self._metadata is None and self._may_scan and "#" not in name:
            # Whoever asks again will ask for many, and that needs the whole index once.
            self._may_scan = False
            found = find_one_tensor(self._raw, self.manifest, name, where=self._metadata_path)
            if found is not None:
                return self._decoded_alone(found)
        return decode_leaf(self._leaf(name), self._memory, device=self._device)

    def _decoded_alone(self, found: OneTensor) -> Any:
        number = found.row.chunks[0].shard
        alone = TensorStore(Metadata(found.leaf, [found.row], []), {number: self._shard(number, found.table)}, verify=self._verify)
        return decode_leaf(found.leaf, lambda _: alone.memory(0), device=self._device)

    def get_slice(self, name: str) -> TensorSlice:
        """Return something whose `[...]` gives that part of a tensor: `get_slice(name)[2:4]`."""
        self._leaf(name)
        return TensorSlice(self, name)

    def get_run(self, name: str, index: Any) -> Any:
        """Return `tensor[index]` of an encoded tensor, decoding only what that needs; None where it has to be read as a whole."""
        leaf = self._leaf(name)
        (row, kind, attributes) = leaf["$tensor"] if leaf.keys() == {"$tensor"} else (0, "", {"view": None})
        self._rows_of(leaf)
        shape = self.metadata.tensors[row].shape if self.metadata.tensors else ()
        run = find_leading_run(index, shape[0]) if shape and not attributes.keys() & {"view", "strides"} else None
        memory = None if run is None else self.store.run_memory(row, run.begin, run.end)
        if run is None or memory is None:
            return None
        part = decode_leaf({"$tensor": [0, kind, attributes]}, lambda _: memory, device=self._device)
        return part[run.index]

    def tree(self) -> Any:
        """Return the state with a `TensorInfo` in the place of each tensor; nothing is read for it.

        Other values of libraries and of the application are outlined as their tag and text.
        """
        return outline_state(self.metadata.tree, self._described)

    def load(self, *, only: str | Sequence[str] | None = None) -> Any:
        """Build the state, or the part of it that `only` selects.

        `only` is one glob or several over paths; what matches is loaded with everything below it. Mappings
        keep only selected members; sequences keep their length, with None for what is not selected.
        """
        if only is None:
            return self._build(self.metadata.tree)
        patterns = [only] if isinstance(only, str) else list(only)
        matchers: list[Callable[[str], Any]] = [compile_pattern(translate(pattern)).match for pattern in patterns]
        tree = prune(self.metadata.tree, lambda path: any(match(path) for match in matchers), where=self.path)
        if tree is ABSENT:
            paths = (".".join(path) for path, _ in iter_leaves(self.metadata.tree, where=self.path))
            raise self.unknown_name(", ".join(patterns), paths, "path")
        return self._build(tree)

    def sections(self) -> list[str]:
        """Return the top-level keys of the state, as text."""
        return [key for key, _ in children_of(self.metadata.tree) or ()]

    def has_parts(self, section: str) -> bool:
        """Tell whether a section holds a tensor that is stored in several parts, as sharded training leaves it."""
        rows = self._rows_of(dict(children_of(self.metadata.tree) or ())[section])
        return any(chunk.shape != self.metadata.tensors[row].shape for row in rows for chunk in self.metadata.tensors[row].chunks)

    def load_sections(self, names: Sequence[str]) -> dict[str, Any]:
        """Build some sections, by name."""
        members = dict(children_of(self.metadata.tree) or ())
        for name in names:
            if name not in members:
                raise self.unknown_name(name, list(members), "section")
        built: dict[str, Any] = self._build({"$dict": [part for name in names for part in (name, members[name])]})
        return built

    def _build(self, tree: Any) -> Any:
        with collector_paused():
            rows = self._rows_of(tree)
            self.store.check_headers(rows)
            ready = find_ready(self.metadata, self.store.shards, rows, verify=self._verify)
            tensor_of = self._memory if ready is None else partial(self._ready_memory, ready)
            try:
                others = rows if ready is None else [row for row in rows if ready.memories[row] is None]
                self.store.prepare(others)
                self.store.decode_rows(others)
                return decode_state(tree, tensor_of, device=self._device, ready=ready)
            finally:
                self.store.forget_read()

    def _rows_of(self, tree: Any) -> list[int]:
        count = len(self.metadata.tensors)
        rows = sorted(referenced_rows(tree))
        if rows and not 0 <= rows[0] <= rows[-1] < count:
            raise violation(
                "E028", self.path, "the tree refers to a tensor that is not in the index", expected=f"below {count}", found=rows[-1]
            )
        return rows

    def _tensor_leaves(self) -> dict[str, Any]:
        if self._leaves is None:
            self._leaves = self._named_tensors()
        return self._leaves

    def _named_tensors(self) -> dict[str, Any]:
        """Return the leaves that are tensors by their paths; a path that is taken gets a number, as in the index. Spec 9.3."""
        leaves: dict[str, Any] = {}
        numbers: dict[str, int] = {}
        room = _MAX_NAMES_CHARACTERS
        for path, node in iter_tensors(self.metadata.tree, where=self.path):
            name = stem = ".".join(path)
            while name in leaves:
                numbers[stem] = numbers.get(stem, 1) + 1
                name = f"{stem}#{numbers[stem]}"
            leaves[name] = node
            room -= len(name)
            if room < 0:
                raise LimitError(f"{visible(self.path)}: the names of its tensors are longer than {_MAX_NAMES_CHARACTERS:,} characters")
        return leaves

    def _leaf(self, name: str) -> Any:
        # A name with # may be one that got a number, which only the list of all names tells.
        if self._leaves is None and "#" not in name:
            leaf = find_tensor(self.metadata.tree, name, where=self.path)
            if leaf is not ABSENT:
                return leaf
        try:
            return self._tensor_leaves()[name]
        except KeyError:
            raise self.unknown_name(name, list(self._tensor_leaves()), "tensor") from None

    def _described(self, index: int) -> TensorInfo:
        row = self.metadata.tensors[index]
        return TensorInfo(row.name, row.dtype, row.shape, row.size_bytes)

    def _memory(self, row: int) -> TensorMemory:
        return self.store.memory(row)

    def _ready_memory(self, ready: ReadyRows, row: int) -> TensorMemory:
        return ready.find(row) or self._memory(row)

    def unknown_name(self, name: str, known: Iterable[str], kind: str) -> NameNotFoundError:
        """Return the error for a name that is not there, which says what is."""
        names = iter(known)
        first = [shown(known_name, _SHOWN_CHARACTERS) for known_name in islice(names, _SHOWN_NAMES)]
        count = sum(1 for _ in names)
        there_are = (", ".join(first) or "none") + (f" and {count:,} more" if count else "")
        message = f"{visible(self.path)}: no {kind} matches {shown(repr(name))}\nThere are: {there_are}."
        return NameNotFoundError(message, name=name, path=self.path)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What stands in the place of a tensor in `tree()`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


class TensorSlice:
    """A tensor of which a part is wanted. The whole tensor is verified once; only the part is copied, and of what is encoded, decoded."""

    def __init__(self, checkpoint: OpenCheckpoint, name: str) -> None:
        self._checkpoint = checkpoint
        self._name = name

    def get_shape(self) -> list[int]:
        """Return the tensor's shape."""
        return list(self._checkpoint.tensor_info(self._name).shape)

    def get_dtype(self) -> str:
        """Return the tensor's element type by its name in the format."""
        return self._checkpoint.tensor_info(self._name).dtype

    def __getitem__(self, index: Any) -> Any:
        part = self._checkpoint.get_run(self._name, index)
        part = self._checkpoint.get_tensor(self._name)[index] if part is None else part
        # Detached, because a clone that knows where it came from would keep the whole tensor.
        return part.detach().clone() if hasattr(part, "clone") else part.copy()


def _open_consistently(directory: Directory, stack: ExitStack, *, is_mapped: bool) -> tuple[Manifest, bytes, list[ReadableFile]]:
    """Open everything that the manifest names; again whenever it was replaced in between. Spec 12.4."""
    manifest = read_manifest(directory)
    while True:
        try:
            return (manifest, *_open_files(ManyFiles(directory, len(manifest.shards), is_mapped=is_mapped), manifest, stack))
        except CorruptError as error:
            latest = read_manifest(directory)
            if error.rule != "E012" or latest.digest == manifest.digest:
                raise
            manifest = latest


def _open_files(files: ManyFiles, manifest: Manifest, stack: ExitStack) -> tuple[bytes, list[ReadableFile]]:
    directory = files.directory
    raw = read_raw_metadata(directory, manifest)
    stack.callback(files.close)
    try:
        return raw, [files.open(entry) for entry in manifest.shards]
    except FormatError:
        # What is wrong with the metadata comes first.
        decode_raw_metadata(raw, manifest, where=f"{directory.path}/{manifest.metadata.name}")
        raise
