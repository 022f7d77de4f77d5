"""The identity of an experiment: seed, config, data, code, environment; and whether a stored one is the same. Spec fingerprint-1.

Everything is measured once, when a fingerprint is made, and reduced to one line of text per field; no reference to what it was
made from stays. A secret stays in memory as a digest from which its stored form follows under any salt.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any

from ckptfmt.disk.local import LocalDisk
from ckptfmt.errors import FingerprintMismatchError, LimitError, UnsupportedTypeError
from ckptfmt.format.digest import short
from ckptfmt.format.fingerprint import (
    CLASSES,
    MAX_DOCUMENT_BYTES,
    MUST,
    SALT_BYTES,
    SECRET,
    SURROUNDINGS,
    WARN,
    Difference,
    Field,
    FingerprintDocument,
    compare_documents,
    decode_document,
    encode_document,
    escape_name,
    identity_digest,
    keyed_secret,
    secret_core,
)
from ckptfmt.run.data_digests import DataHasher, Progress, SampledFile, field_names
from ckptfmt.run.environment import describe_environment
from ckptfmt.run.fingerprint_arrays import NotAnArrayError, find_array
from ckptfmt.run.fingerprint_cache import DigestCache, read_cache, write_cache
from ckptfmt.run.fingerprint_text import mismatch_text
from ckptfmt.run.fingerprint_values import Leaf, plain_fields
from ckptfmt.run.source_code import describe_code

_DISK = LocalDisk()

PathLike = str | os.PathLike[str]
DataSource = PathLike | SampledFile
_DATA_SOURCES = (str, os.PathLike, SampledFile)


class Fingerprint:
    """What makes an experiment the one that it is. Two fingerprints are equal if all of their fields are.

    Args:
        seed: a number, or any plain data.
        config: any nesting of plain data: dict, list, dataclass, namespace, configuration objects, small or large arrays.
        data: files and directories, which count by their content; or a mapping from name to path, array or tensor.
        code: None for the git commit of the main script, a text or mapping of one's own, or False for nothing.
        environment: whether to note Python, libraries, kind of machine and devices.
        must, warn, free: globs over fields whose difference is an error, a warning, nothing. Where several
            match, the longest glob counts. Without them seed, config and data must match, code and environment warn.
        data_mode: "full", or "sampled" to read 16 MiB of each file at most; see `SampledFile`.
        data_cache: a file that remembers digests of unchanged data files; written only where its directory exists.
        progress: called with path, bytes read so far, and bytes to read, while data is read.

    Raises:
        UnsupportedTypeError: a value is no plain data; `.path` is its field.
        FileNotFoundError: a data file is not there.
    """

    def __init__(
        self,
        *,
        seed: Any = None,
        config: Any = None,
        data: Mapping[str, Any] | Iterable[DataSource] | DataSource | None = None,
        code: str | Mapping[str, Any] | bool | None = None,
        environment: bool = True,
        must: str | Sequence[str] = (),
        warn: str | Sequence[str] = (),
        free: str | Sequence[str] = (),
        data_mode: str = "full",
        data_cache: PathLike | None = None,
        progress: Progress | None = None,
    ) -> None:
        if data_mode not in ("full", "sampled"):
            raise ValueError(f"data_mode={data_mode!r}: expected 'full' or 'sampled'")
        self._globs = tuple((glob, match) for match, globs in zip(CLASSES, (must, warn, free), strict=True) for glob in _as_globs(globs))
        self._cache: DigestCache | None = None
        leaves = plain_fields("seed", seed) | plain_fields("config", config)
        if data is not None:
            cache_path = None if data_cache is None else os.fspath(data_cache)
            self._cache = DigestCache() if cache_path is None else read_cache(_DISK, cache_path)
            hasher = DataHasher(_DISK, cache=self._cache, progress=progress)
            leaves |= _data_fields(data, hasher, is_sampled=data_mode == "sampled")
            if cache_path is not None and self._cache.is_changed:
                write_cache(_DISK, cache_path, self._cache)
        leaves |= _code_fields(code)
        if environment:
            leaves |= plain_fields("environment", describe_environment())
        self._set(leaves)

    def _set(self, leaves: Mapping[str, Leaf]) -> None:
        size_bytes = sum(len(name) + len(leaf.type) + len(leaf.value) + 16 for name, leaf in leaves.items())
        if size_bytes > MAX_DOCUMENT_BYTES:
            raise LimitError(
                f"fingerprint of {len(leaves):,} fields and {size_bytes:,} bytes exceeds {MAX_DOCUMENT_BYTES:,} bytes [E002]\n"
                "It is stored with every checkpoint. Give large collections as arrays, or as data files.",
                rule="E002",
            )
        self._cores = {name: secret_core(f"{leaf.type} {leaf.value}") for name, leaf in leaves.items() if leaf.is_secret}
        salt = secrets.token_bytes(SALT_BYTES) if self._cores else None
        fields = {}
        for name, leaf in leaves.items():
            if leaf.is_secret and salt is not None:
                leaf = Leaf(SECRET, keyed_secret(self._cores[name], salt))
            fields[name] = Field(self.match_of(name), leaf.type, leaf.value)
        self._document = FingerprintDocument(fields, identity_digest(fields, self._cores), salt)

    @classmethod
    def from_document(cls, document: Mapping[str, Any], *, where: str = "fingerprint") -> Fingerprint:
        """Return a stored fingerprint, to look at or to compare. `where` names its origin in messages.

        Raises:
            FormatError: it is no fingerprint document, or one of a newer version.
        """
        found = cls.__new__(cls)
        found._globs, found._cores, found._cache = (), {}, None
        found._document = decode_document(document, where=where)
        return found

    @property
    def digest(self) -> str:
        """What identifies the experiment: the digest of all fields that must match."""
        return self._document.digest

    @property
    def fields(self) -> Mapping[str, Field]:
        """Every field by its name, with its class, type and text."""
        return dict(self._document.fields)

    def to_document(self) -> dict[str, Any]:
        """Return the fingerprint as plain JSON, without any secret."""
        return encode_document(self._document)

    def match_of(self, field: str) -> str:
        """Return the class of a field, whether this fingerprint has it or not: "must", "warn" or "free"."""
        matching = [(len(glob), -CLASSES.index(match), match) for glob, match in self._globs if fnmatchcase(field, glob)]
        if matching:
            return max(matching)[2]
        return WARN if field.partition(".")[0] in SURROUNDINGS else MUST

    def write_data_cache(self, path: PathLike) -> bool:
        """Remember the digests of unchanged data files for the next time; tell whether that was possible."""
        return self._cache is not None and write_cache(_DISK, os.fspath(path), self._cache)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprint):
            return NotImplemented
        if self.digest != other.digest:
            return False
        ours, theirs = self._document.fields, other._document.fields
        if ours.keys() != theirs.keys() or any(field.match != theirs[name].match for name, field in ours.items()):
            return False
        if self._cores or not other._cores:
            return not _differences(other._document, self)
        return not _differences(self._document, other)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Fingerprint {short(self.digest)}, {len(self._document.fields)} fields>"


def checked_fingerprint(fingerprint: Fingerprint | None) -> Fingerprint | None:
    """Return what was given as a fingerprint.

    Raises:
        TypeError: it is something else, such as the config by itself.
    """
    if fingerprint is not None and not isinstance(fingerprint, Fingerprint):
        raise TypeError(
            f"fingerprint={fingerprint!r:.60}: expected a ckptfmt.Fingerprint, found {type(fingerprint).__name__}\n"
            "Make one: ckptfmt.Fingerprint(seed=..., config={...}, data=[...])."
        )
    return fingerprint


def compare(stored: Mapping[str, Any] | Fingerprint, current: Fingerprint, *, allow: str | Iterable[str] = ()) -> tuple[Difference, ...]:
    """Return every field in which the current fingerprint differs from a stored one, errors first; nothing if they are the same.

    `allow` are globs over fields that may differ; such differences have the severity "allowed". The current
    fingerprint says which fields must match.

    Raises:
        FormatError: `stored` is no fingerprint document, or one of a newer version.
    """
    document = stored._document if isinstance(stored, Fingerprint) else decode_document(stored, where="stored fingerprint")
    return _differences(document, current, allow)


def _differences(stored: FingerprintDocument, current: Fingerprint, allow: str | Iterable[str] = ()) -> tuple[Difference, ...]:
    return compare_documents(stored, current._document, cores=current._cores, match_of=_match_with(stored, current), allow=_as_globs(allow))


def _match_with(stored: FingerprintDocument, current: Fingerprint) -> Callable[[str], str]:
    """Return who decides about a field: the globs of the program that runs, or what was stored where there is none."""

    def match_of(name: str) -> str:
        field = current._document.fields.get(name) or (None if current._globs else stored.fields.get(name))
        return field.match if field is not None else current.match_of(name)

    return match_of


def mismatch_error(
    stored: Mapping[str, Any] | Fingerprint, differences: Iterable[Difference], *, where: str | None = None
) -> FingerprintMismatchError:
    """Return the error that says in what a stored fingerprint differs, ready to be raised. `where` names the run or checkpoint."""
    found = tuple(differences)
    names = stored.fields if isinstance(stored, Fingerprint) else stored.get("fields", ())
    field_count = len(set(names) | {difference.field for difference in found})
    return FingerprintMismatchError(mismatch_text(found, field_count=field_count, where=where), differences=found)


def _as_globs(globs: str | Iterable[str]) -> tuple[str, ...]:
    return (globs,) if isinstance(globs, str) else tuple(globs)


def _code_fields(code: Any) -> dict[str, Leaf]:
    if code is False:
        return {}
    return plain_fields("code", (describe_code() or None) if code is None or code is True else code)


def _data_fields(data: Any, hasher: DataHasher, *, is_sampled: bool) -> dict[str, Leaf]:
    if isinstance(data, Mapping):
        named = [(str(name), source) for name, source in data.items()]
    else:
        sources = [data] if isinstance(data, _DATA_SOURCES) else list(data)
        named = _named_sources(sources)
    leaves: dict[str, Leaf] = {}
    for name, source in named:
        field = f"data.{escape_name(name)}"
        if field in leaves:
            raise ValueError(f"{field}: named twice among the data of a fingerprint")
        leaves[field] = _data_leaf(field, source, hasher, is_sampled=is_sampled)
    return leaves


def _named_sources(sources: list[Any]) -> list[tuple[str, DataSource]]:
    """Name paths by their last components; the same path twice is one."""
    by_path: dict[str, Any] = {}
    for source in sources:
        if not isinstance(source, _DATA_SOURCES):
            raise UnsupportedTypeError(
                f"data: expected paths, found {type(source).__module__}.{type(source).__qualname__}\n"
                "Give arrays and tensors with a name: data={'train': array}.",
                path="data",
            )
        path = str(PurePath(source.path if isinstance(source, SampledFile) else source))
        if isinstance(by_path.get(path, source), SampledFile) is not isinstance(source, SampledFile):
            raise ValueError(f"data: {path} is given both as it is and as a SampledFile")
        by_path[path] = source
    return list(zip(field_names(list(by_path)), by_path.values(), strict=True))


def _data_leaf(field: str, source: Any, hasher: DataHasher, *, is_sampled: bool) -> Leaf:
    if isinstance(source, SampledFile):
        return Leaf(*hasher.digest_path(os.fspath(source.path), is_sampled=True))
    if isinstance(source, str | os.PathLike):
        return Leaf(*hasher.digest_path(os.fspath(source), is_sampled=is_sampled))
    try:
        found = find_array(source)
    except NotAnArrayError as error:
        raise UnsupportedTypeError(f"{field}: cannot be part of a fingerprint: {error}", path=field) from None
    if found is None:
        raise UnsupportedTypeError(
            f"{field}: expected a path, an array or a tensor, found {type(source).__module__}.{type(source).__qualname__}\n"
            "Plain data belongs into config.",
            path=field,
        )
    return Leaf(*found)
