"""The blob store: what it hands out is what was put in, whatever happens to the disk."""

from __future__ import annotations

import hashlib
import os

import pytest

from fog_node import blobs
from fog_node.blobs import BlobError, BlobStore

DATA = b"a bundle" * 1000
NAME = hashlib.sha256(DATA).digest()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "blobs"


@pytest.fixture
def store(directory):
    return BlobStore(directory, quota_bytes=100_000)


def cause_of(call, *arguments):
    with pytest.raises(BlobError) as caught:
        call(*arguments)
    return caught.value.cause


def test_what_is_put_can_be_got_whole_and_in_parts(store):
    assert store.put(DATA) == NAME
    assert store.has(NAME)
    assert store.size(NAME) == len(DATA)
    assert store.get(NAME) == DATA
    assert store.part(NAME, 10, 100) == DATA[10:110]
    assert store.part(NAME, len(DATA) - 5, 4096) == DATA[-5:]


def test_a_blob_is_there_after_a_restart(store, directory):
    store.put(DATA)
    again = BlobStore(directory, quota_bytes=100_000)
    assert again.get(NAME) == DATA
    assert (len(again), again.total_bytes) == (1, len(DATA))


def test_putting_twice_takes_no_more_room(store):
    store.put(DATA)
    store.put(DATA)
    assert (len(store), store.total_bytes) == (1, len(DATA))


def test_an_absent_blob_is_refused(store):
    assert store.size(NAME) is None
    assert cause_of(store.get, NAME) == "absent"


@pytest.mark.parametrize("offset", [-1, len(DATA), len(DATA) + 1])
def test_an_offset_outside_is_refused(store, offset):
    store.put(DATA)
    assert cause_of(store.part, NAME, offset, 1) == "range"


def test_the_quota_holds_and_nothing_is_lost_by_it(store):
    store.put(DATA)
    assert cause_of(store.put, bytes(100_000 - len(DATA) + 1)) == "full"
    store.put(bytes(100_000 - len(DATA)))
    assert store.total_bytes == 100_000
    assert store.get(NAME) == DATA


def test_a_blob_over_the_size_limit_is_refused(directory):
    store = BlobStore(directory, quota_bytes=100_000, max_blob_bytes=10)
    assert cause_of(store.put, bytes(11)) == "size"
    store.put(bytes(10))


def test_a_damaged_blob_is_never_handed_out_and_can_be_put_again(store, directory):
    store.put(DATA)
    path = store.path(NAME)
    path.write_bytes(DATA[:-1] + b"!")
    fresh = BlobStore(directory, quota_bytes=100_000)
    assert cause_of(fresh.get, NAME) == "damaged"
    assert not fresh.has(NAME)
    assert fresh.total_bytes == 0
    fresh.put(DATA)
    assert fresh.get(NAME) == DATA


def test_a_blob_that_was_removed_behind_our_back_is_missed(store):
    store.put(DATA)
    store.path(NAME).unlink()
    assert cause_of(store.get, NAME) == "damaged"
    assert not store.has(NAME)


def test_a_write_that_was_cut_off_leaves_nothing(store, directory, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert cause_of(store.put, DATA) == "disk"
    monkeypatch.undo()
    assert not store.has(NAME)
    (directory / blobs.INCOMING / "left-by-a-crash").write_bytes(b"half")
    again = BlobStore(directory, quota_bytes=100_000)
    assert len(again) == 0
    assert not list((directory / blobs.INCOMING).iterdir())


def test_foreign_files_are_left_alone(directory):
    shard = directory / "ab"
    shard.mkdir(parents=True)
    (shard / "notes.txt").write_text("mine")
    (shard / ("00" * 32)).write_text("in the wrong shard")
    store = BlobStore(directory, quota_bytes=100)
    assert len(store) == 0
    assert (shard / "notes.txt").read_text() == "mine"


def test_memory_for_read_blobs_is_bounded(directory):
    store = BlobStore(directory, quota_bytes=100_000, max_cached_bytes=2500)
    names = [store.put(bytes([i]) * 1000) for i in range(5)]
    for name in names:
        store.get(name)
    assert store._cached_bytes <= 2500
    assert [store.get(name)[:1] for name in names] == [bytes([i]) for i in range(5)]


def test_a_directory_that_cannot_be_used_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    assert cause_of(BlobStore, tmp_path / "file", 100) == "disk"
