"""What every object store must do: the contract of ckptfmt.disk.object_store, as a class that the tests of each store inherit from."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ckptfmt.disk.object_store import ChangedMeanwhileError, Condition, ObjectStore


class ObjectStoreContract:
    """Cases for a fixture `store`, below the prefix "bucket/contract", which is empty."""

    def test_what_was_written_is_read_back_whole_and_by_ranges(self, store: ObjectStore) -> None:
        store.write("bucket/contract/a", b"0123456789", Condition.ANYTHING)
        assert store.read("bucket/contract/a", 0, 100).data == b"0123456789"
        assert store.read("bucket/contract/a", 3, 4).data == b"3456"
        assert store.read("bucket/contract/a", 8, 100).data == b"89"
        assert store.read("bucket/contract/a", 10, 5).data == b""
        assert store.status("bucket/contract/a").size_bytes == 10

    def test_the_first_range_comes_with_size_and_version(self, store: ObjectStore) -> None:
        version = store.write("bucket/contract/a", b"0123456789", Condition.ANYTHING)
        status = store.read("bucket/contract/a", 0, 100).status
        assert status is not None
        assert (status.size_bytes, status.version) == (10, version)
        short = store.read("bucket/contract/a", 0, 3).status
        assert short is not None
        assert short.size_bytes == 10

    def test_an_empty_object_can_be_read(self, store: ObjectStore) -> None:
        store.write("bucket/contract/empty", b"", Condition.NOTHING)
        piece = store.read("bucket/contract/empty", 0, 100)
        assert piece.data == b""
        assert piece.status is not None
        assert piece.status.size_bytes == 0

    def test_what_is_not_there_is_not_found(self, store: ObjectStore) -> None:
        for ask in (lambda: store.read("bucket/contract/none", 0, 1), lambda: store.status("bucket/contract/none")):
            with pytest.raises(FileNotFoundError):
                ask()
        with pytest.raises(FileNotFoundError):
            store.copy("bucket/contract/none", "bucket/contract/other")
        store.remove("bucket/contract/none")

    def test_a_prefix_is_no_object(self, store: ObjectStore) -> None:
        store.write("bucket/contract/below/a", b"a", Condition.ANYTHING)
        with pytest.raises(FileNotFoundError):
            store.status("bucket/contract/below")

    def test_a_write_that_expects_nothing_replaces_nothing(self, store: ObjectStore) -> None:
        store.write("bucket/contract/a", b"first", Condition.NOTHING)
        with pytest.raises(FileExistsError):
            store.write("bucket/contract/a", b"second", Condition.NOTHING)
        assert store.read("bucket/contract/a", 0, 100).data == b"first"

    def test_a_write_that_expects_a_version_replaces_no_other(self, store: ObjectStore) -> None:
        first = store.write("bucket/contract/a", b"first", Condition.ANYTHING)
        second = store.write("bucket/contract/a", b"second", first)
        assert second != first
        with pytest.raises(ChangedMeanwhileError):
            store.write("bucket/contract/a", b"third", first)
        assert store.read("bucket/contract/a", 0, 100).data == b"second"

    def test_a_write_that_expects_a_version_makes_nothing_anew(self, store: ObjectStore) -> None:
        version = store.write("bucket/contract/a", b"first", Condition.ANYTHING)
        store.remove("bucket/contract/a")
        with pytest.raises(ChangedMeanwhileError):
            store.write("bucket/contract/a", b"second", version)
        assert not store.has_any("bucket/contract")

    def test_an_upload_appears_whole_when_it_is_complete_and_never_when_it_is_given_up(self, store: ObjectStore) -> None:
        parts = [bytes([number]) * 5 * 2**20 for number in range(2)] + [b"end"]
        upload = store.begin_upload("bucket/contract/large")
        if upload is None:
            return
        tokens = [upload.write_part(number, part) for number, part in enumerate(parts, 1)]
        assert not store.has_any("bucket/contract")
        upload.complete(tokens, Condition.NOTHING)
        assert store.read("bucket/contract/large", 5 * 2**20 - 1, 2).data == b"\0\1"
        assert store.status("bucket/contract/large").size_bytes == sum(map(len, parts))
        for given_up in (False, True):
            again = store.begin_upload("bucket/contract/large")
            assert again is not None
            token = again.write_part(1, b"other")
            if not given_up:
                with pytest.raises(FileExistsError):
                    again.complete([token], Condition.NOTHING)
            again.abort()
            again.abort()
        assert store.status("bucket/contract/large").size_bytes == sum(map(len, parts))

    def test_a_listing_tells_objects_and_prefixes_by_their_next_component(self, store: ObjectStore) -> None:
        for name in ("a", "b/inner", "b/deep/er", "bother"):
            store.write(f"bucket/contract/{name}", b"12345", Condition.ANYTHING)
        listed = {entry.name: (entry.is_prefix, entry.size_bytes) for entry in store.list("bucket/contract").entries}
        assert listed == {"a": (False, 5), "b": (True, 0), "bother": (False, 5)}
        deep = store.list("bucket/contract/b", is_deep=True)
        assert {entry.name for entry in deep.entries} == {"inner", "deep/er"}
        assert all(entry.modified_at and abs(entry.modified_at - deep.now) < timedelta(minutes=5) for entry in deep.entries)
        assert store.list("bucket/contract/nothing").entries == []
        assert store.list("bucket/contract/a").entries == []

    def test_a_listing_is_never_an_old_one(self, store: ObjectStore) -> None:
        for number in range(3):
            store.write(f"bucket/contract/{number}", b"", Condition.ANYTHING)
            assert len(store.list("bucket/contract").entries) == number + 1
        store.remove("bucket/contract/1")
        assert {entry.name for entry in store.list("bucket/contract").entries} == {"0", "2"}

    def test_a_copy_is_a_second_object(self, store: ObjectStore) -> None:
        store.write("bucket/contract/a", b"content", Condition.ANYTHING)
        store.copy("bucket/contract/a", "bucket/contract/b")
        store.remove("bucket/contract/a")
        assert store.read("bucket/contract/b", 0, 100).data == b"content"
        assert store.has_any("bucket/contract")
