"""Contents beside the chain: kept by owner, checked, and fetched from other nodes."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import pytest
from support.small_chain import SmallChain

from fog_node import blob_fetcher
from fog_node.blob_fetcher import BlobFetcher
from fog_node.blobs import BlobError, BlobStore
from fog_node.network import wire
from fog_node.payloads import Payload, PayloadStore
from fog_node.protocol.errors import ProofError
from fog_node.protocol.requests import Content

OURS, THEIRS = b"ourselve", b"somebody"
DATA = b"a drawing" * 50_000  # of more than one piece


def payload(data: bytes = DATA, owner: bytes = OURS) -> Payload:
    return Payload(owner, Content(hashlib.sha256(data).digest(), len(data)))


@pytest.fixture
def store(tmp_path):
    return PayloadStore(tmp_path / "payloads", 2_000_000, 1_000_000)


def cause_of(call, *arguments):
    with pytest.raises(BlobError) as caught:
        call(*arguments)
    return caught.value.cause


def test_what_is_put_is_there_after_a_restart(tmp_path, store):
    store.put(payload(), DATA)
    store.put(payload(), DATA)
    again = PayloadStore(tmp_path / "payloads", 2_000_000, 1_000_000)
    assert again.has(payload())
    assert again.get(payload()) == DATA
    assert again.find(payload().content.sha256) == DATA
    assert (len(again), again.total_bytes) == (1, len(DATA))


def test_it_is_its_owners_only(store):
    store.put(payload(), DATA)
    assert not store.has(payload(owner=THEIRS))
    assert cause_of(store.get, payload(owner=THEIRS)) == "absent"


def test_other_content_is_refused(store):
    for wrong in (DATA[:-1], DATA[:-1] + b"x"):
        with pytest.raises(ProofError, match="content"):
            store.put(payload(), wrong)
    assert len(store) == 0


def test_room_is_bounded_for_each_owner_and_for_all(store):
    def put(owner: bytes, number: int) -> None:
        data = bytes([number]) * 900_000
        store.put(payload(data, owner), data)

    put(OURS, 1)
    assert cause_of(put, OURS, 2) == "full"
    put(THEIRS, 3)
    assert cause_of(put, b"a third!", 4) == "full"
    assert store.total_bytes == 1_800_000


class Peer(SimpleNamespace):
    """Another node, which answers from a fetcher of its own when told to."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, kid=name.encode().ljust(8), sent=[])

    def send(self, message) -> None:
        self.sent.append(message)


class TestFetcher:
    @pytest.fixture
    def chain(self, tmp_path):
        chain = SmallChain(tmp_path / "ledger")
        yield chain
        chain.ledger.close()

    @pytest.fixture
    def fetcher(self, chain, tmp_path, store):
        return BlobFetcher(chain.ledger, BlobStore(tmp_path / "blobs", 2_000_000), store)

    @pytest.fixture
    def holder(self, chain, tmp_path):
        """Another node's, which holds the content."""
        held = PayloadStore(tmp_path / "held", 2_000_000, 1_000_000)
        held.put(payload(), DATA)
        return BlobFetcher(chain.ledger, BlobStore(tmp_path / "others", 2_000_000), held)

    def exchange(self, fetcher, peer, holder) -> None:
        """Hand what the fetcher asks of the peer to the holder, and back, to the end."""
        while peer.sent:
            asked = peer.sent.pop(0)
            assert isinstance(asked, wire.GetBlob)
            fetcher.take(peer, holder.answer(asked))

    def test_what_is_wanted_comes_in_pieces(self, fetcher, holder, store):
        peer = Peer("busan")
        fetcher.want(payload())
        fetcher.poke([peer])
        self.exchange(fetcher, peer, holder)
        assert store.get(payload()) == DATA
        fetcher.want(payload())
        fetcher.poke([peer])
        assert not peer.sent

    def test_another_peer_is_asked_where_one_has_it_not(self, fetcher, holder, store):
        empty, full = Peer("busan"), Peer("daegu")
        fetcher.want(payload())
        fetcher.poke([empty, full])
        if empty.sent:
            (asked,) = empty.sent
            fetcher.take(empty, wire.Blob(asked.sha256, 0, 0, b""))
        self.exchange(fetcher, full, holder)
        assert store.has(payload())

    def test_false_content_is_not_kept(self, fetcher, store):
        peer = Peer("busan")
        fetcher.want(payload())
        fetcher.poke([peer])
        false = DATA[: wire.BLOB_CHUNK_BYTES - 1] + b"x"
        sha256 = payload().content.sha256
        fetcher.take(peer, wire.Blob(sha256, 0, len(DATA), false))
        fetcher.take(peer, wire.Blob(sha256, len(false), len(DATA), DATA[len(false) :]))
        assert not store.has(payload())

    def test_what_is_wanted_is_bounded(self, fetcher, monkeypatch):
        monkeypatch.setattr(blob_fetcher, "MAX_WANTED_PAYLOADS", 3)
        monkeypatch.setattr(blob_fetcher, "MAX_PAYLOAD_DOWNLOADS", 2)
        peer = Peer("busan")
        wanted = [payload(bytes([i])) for i in range(5)]
        for one in wanted:
            fetcher.want(one)
        fetcher.poke([peer])
        assert [asked.sha256 for asked in peer.sent] == [one.content.sha256 for one in wanted[2:4]]
