"""The quarantine keeps the latest refused messages, and never more than it may."""

from __future__ import annotations

import hashlib

import pytest

from fog_node.errors import GatewayError
from fog_node.gateway.admission import Message, Refusal
from fog_node.gateway.quarantine import MAX_FILE_BYTES, Quarantine


def refusal(data):
    return Refusal(Message(data, None), "malformed", "why")


def path(directory, data, suffix=""):
    return directory / (hashlib.sha256(data).hexdigest() + suffix)


def test_refused_bytes_are_kept_under_the_digest_of_the_incident(tmp_path):
    quarantine = Quarantine(tmp_path / "q")
    quarantine.keep(refusal(b"bad"))
    assert path(tmp_path / "q", b"bad").read_bytes() == b"bad"


def test_of_a_large_message_the_beginning_is_kept(tmp_path):
    data = bytes(10 * 1024 * 1024)
    quarantine = Quarantine(tmp_path)
    quarantine.keep(refusal(data))
    assert path(tmp_path, data, ".head").stat().st_size == MAX_FILE_BYTES


def test_the_oldest_give_way(tmp_path):
    quarantine = Quarantine(tmp_path, max_files=3)
    for i in range(5):
        quarantine.keep(refusal(bytes([i])))
    assert len(quarantine) == 3
    kept = {file.read_bytes() for file in tmp_path.iterdir()}
    assert kept == {bytes([2]), bytes([3]), bytes([4])}


def test_the_bytes_are_bounded(tmp_path):
    quarantine = Quarantine(tmp_path, max_bytes=250)
    for i in range(5):
        quarantine.keep(refusal(bytes([i]) * 100))
    assert quarantine.total_bytes == 200
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == 200


def test_the_same_bytes_are_kept_once(tmp_path):
    quarantine = Quarantine(tmp_path)
    quarantine.keep(refusal(b"bad"))
    quarantine.keep(refusal(b"bad"))
    assert len(quarantine) == 1


def test_the_bounds_hold_after_a_restart(tmp_path):
    quarantine = Quarantine(tmp_path, max_files=3)
    for i in range(3):
        quarantine.keep(refusal(bytes([i])))
    again = Quarantine(tmp_path, max_files=3)
    again.keep(refusal(b"new"))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_failure_to_keep_is_no_failure_of_the_gateway(tmp_path, caplog):
    quarantine = Quarantine(tmp_path / "q")
    (tmp_path / "q").rmdir()
    quarantine.keep(refusal(b"bad"))
    assert "is not kept" in caplog.text
    assert len(quarantine) == 0


def test_a_directory_that_cannot_be_used_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GatewayError, match="data directory"):
        Quarantine(tmp_path / "file")
