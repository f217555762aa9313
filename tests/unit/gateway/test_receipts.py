"""Receipts say what is final, only to boards that are here, and only they can open them."""

from __future__ import annotations

import pytest

from fog_node.gateway.receipts import ASKED_RATE, Receipts
from fog_node.protocol.errors import SignatureError
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.receipt import decode_receipt, receipt_key
from fog_node.protocol.transactions import Clone, ReinstateDevice

NOW_MS = 1_700_000_555_000


class World:
    def __init__(self, chain, clock):
        self.chain = chain
        self.sent: list[tuple[bytes, bytes]] = []
        self.receipts = Receipts(
            chain.ledger,
            chain.gateway,
            lambda kid, data: self.sent.append((kid, data)),
            clock,
            lambda: NOW_MS,
        )

    def opened(self, board):
        """What `board` reads in the receipts that were sent to it."""
        chain_id = self.chain.founding.chain_id
        gateway = self.chain.gateway.public
        key = receipt_key(board, gateway, gateway.kid, board.kid, chain_id)
        return [decode_receipt(data, key, chain_id) for kid, data in self.sent if kid == board.kid]


@pytest.fixture
def world(chain, clock):
    return World(chain, clock)


def test_a_board_that_says_online_learns_where_it_stands(world, board, chain):
    world.receipts.online(board.kid)
    (receipt,) = world.opened(board)
    assert (receipt.device, receipt.next, receipt.height) == (board.kid, 1, 1)
    assert (receipt.time, receipt.status, receipt.nonce) == (NOW_MS, "active", None)


def test_a_receipt_comes_when_a_block_makes_packs_final(world, board, other_board, chain):
    world.receipts.online(board.kid)
    world.receipts.online(other_board.kid)
    world.receipts.committed(chain.seal(chain.pack(board, 1), chain.pack(board, 2)))
    assert [receipt.next for receipt in world.opened(board)] == [1, 3]
    assert [receipt.next for receipt in world.opened(other_board)] == [1]


def test_a_board_that_sent_something_is_here(world, board, chain):
    world.receipts.seen(board.kid)
    world.receipts.committed(chain.seal(chain.pack(board, 1)))
    assert [receipt.next for receipt in world.opened(board)] == [2]


def test_boards_that_are_elsewhere_get_none(world, board, chain):
    world.receipts.committed(chain.seal(chain.pack(board, 1)))
    world.receipts.online(board.kid)
    world.receipts.offline(board.kid)
    world.receipts.committed(chain.seal(chain.pack(board, 2)))
    assert len(world.sent) == 1


def test_a_board_that_waits_for_its_enrolment_is_told_of_it(world, chain):
    newcomer = SigningKey.from_secret(1234)
    world.receipts.online(newcomer.kid)
    assert not world.sent
    world.receipts.committed(chain.enrol(newcomer))
    assert [receipt.next for receipt in world.opened(newcomer)] == [1]


def test_a_board_is_told_where_it_stands(world, board, chain):
    world.receipts.online(board.kid)
    clone = Clone.of(chain.pack(board, 1), chain.pack(board, 1, value=2.5))
    world.receipts.committed(chain.seal(chain.sign(chain.gateway, clone)))
    reinstated = ReinstateDevice(board.kid, "the copy is gone", NOW_MS)
    world.receipts.committed(chain.seal(chain.sign(chain.operator, reinstated)))
    world.receipts.committed(chain.revoke(board.kid))
    world.receipts.asked(board.kid)
    statuses = [receipt.status for receipt in world.opened(board)]
    assert statuses == ["active", "quarantined", "active", "revoked", "revoked"]


def test_a_receipt_repeats_what_the_board_said_last(world, board, chain):
    world.receipts.seen(board.kid)
    world.receipts.asked(board.kid)
    world.receipts.online(board.kid, b"12345678")
    world.receipts.seen(board.kid)
    world.receipts.committed(chain.seal(chain.pack(board, 1)))
    world.receipts.online(board.kid, b"87654321")
    nonces = [receipt.nonce for receipt in world.opened(board)]
    assert nonces == [None, b"12345678", b"12345678", b"87654321"]


def test_who_asks_too_often_has_to_wait(world, board, clock):
    for _ in range(100):
        world.receipts.asked(board.kid)
    assert len(world.sent) == int(ASKED_RATE.burst)
    clock.now_s += 1 / ASKED_RATE.per_s
    world.receipts.asked(board.kid)
    assert len(world.sent) == int(ASKED_RATE.burst) + 1


def test_no_other_board_can_open_it(world, board, other_board, chain):
    world.receipts.online(board.kid)
    chain_id = chain.founding.chain_id
    gateway = chain.gateway.public
    key = receipt_key(other_board, gateway, gateway.kid, other_board.kid, chain_id)
    with pytest.raises(SignatureError):
        decode_receipt(world.sent[0][1], key, chain_id)


def test_presence_and_keys_are_bounded(world, monkeypatch):
    monkeypatch.setattr("fog_node.gateway.receipts.MAX_PRESENT", 10)
    for i in range(100):
        world.receipts.online(i.to_bytes(8, "big"))
    assert world.receipts.present == 10
    world.receipts.forget_presence()
    assert world.receipts.present == 0


def test_agreed_keys_are_bounded(world, board, other_board, monkeypatch):
    monkeypatch.setattr("fog_node.gateway.receipts.MAX_AGREED_KEYS", 1)
    for kid in (board.kid, other_board.kid, board.kid):
        world.receipts.asked(kid)
    assert len(world.receipts._agreed) == 1
    assert len(world.opened(board)) == 2
