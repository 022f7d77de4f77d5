"""The sources of all tensors of a state, as columns: their paths, types, shapes and sizes, and copying many small ones at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, overload

from ckptfmt.state.tensors import LiveTensor, TensorSource, copy_sources
from ckptfmt.state.torch_batch import Form, PlainSource, copy_plain

_MIN_RUN = 8

Path = tuple[str, ...]


class SourceColumns(Sequence[TensorSource]):
    """Sources by row. Of plain tensors, which may be very many, the source is made when it is asked for.

    `ties` holds the further paths of rows that have some.
    """

    __slots__ = ("_forms", "_tensors", "dtypes", "paths", "shapes", "sizes", "ties")

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.ties: dict[int, Sequence[Path]] = {}
        self.dtypes: list[str] = []
        self.shapes: list[tuple[int, ...]] = []
        self.sizes: list[int] = []
        self._tensors: list[Any] = []
        self._forms: list[Form | None] = []

    @classmethod
    def of(cls, sources: Sequence[TensorSource]) -> SourceColumns:
        """Return the columns of some sources."""
        if isinstance(sources, SourceColumns):
            return sources
        columns = cls()
        for source in sources:
            columns.append(source)
        return columns

    def append(self, source: TensorSource) -> None:
        """Add the source of the next row."""
        if source.aliases:
            self.ties[len(self.paths)] = source.aliases
        self.paths.append(source.keys)
        self.dtypes.append(source.dtype)
        self.shapes.append(source.shape)
        self.sizes.append(source.size_bytes)
        self._tensors.append(source)
        self._forms.append(None)

    def extend_plain(self, paths: Sequence[Path], forms: Sequence[Form], tensors: Sequence[Any]) -> None:
        """Add plain tensors as the next rows."""
        self.paths += paths
        self.dtypes += [form.dtype for form in forms]
        self.shapes += [form.shape for form in forms]
        self.sizes += [form.size_bytes for form in forms]
        self._tensors += tensors
        self._forms += forms

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, row: int) -> TensorSource: ...
    @overload
    def __getitem__(self, row: slice) -> list[TensorSource]: ...
    def __getitem__(self, row: int | slice) -> TensorSource | list[TensorSource]:
        if isinstance(row, slice):
            return [self[index] for index in range(*row.indices(len(self)))]
        form = self._forms[row]
        if form is not None:
            return PlainSource(form, self._tensors[row], self.paths[row])
        source: LiveTensor = self._tensors[row]
        return source

    def __iter__(self) -> Iterator[TensorSource]:
        return map(self.__getitem__, range(len(self)))

    def copy(self, rows: Sequence[int], target: memoryview) -> None:
        """Copy the bytes of some rows, one after the other, so that they fill the target."""
        begin = 0
        for form, members in groupby(rows, key=self._forms.__getitem__):
            run = list(members)
            end = begin + sum([self.sizes[row] for row in run])
            if form is None or len(run) < _MIN_RUN:
                copy_sources([self[row] for row in run], target[begin:end])
            else:
                copy_plain(form, [self._tensors[row] for row in run], target[begin:end])
            begin = end
