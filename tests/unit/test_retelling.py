"""What waits at a node is told again until it is final."""

from __future__ import annotations

from fog_node.protocol import senml
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import PackBody, Revoke, sign_transaction
from fog_node.retelling import AGAIN_S, MAX_TOLD, Retelling

KEY = SigningKey.from_secret(5)
CHAIN = bytes(32)


def member_transaction(number: int):
    return sign_transaction(KEY, Revoke(bytes(8), "x", 1), CHAIN, number)


def pack(number: int):
    payload = senml.encode_pack(1, KEY.kid, 1_700_000_000, [(0, [("flow", "L/min", 1.0)])])
    return sign_transaction(KEY, PackBody.decode(payload), CHAIN, number, 0)


def test_what_waits_is_told_again_and_again():
    retelling = Retelling(lambda id_: True)
    transaction = member_transaction(1)
    retelling.told([transaction, pack(2)], 10.0)
    assert retelling.due(10.0 + AGAIN_S / 2) == []
    assert retelling.due(10.0 + AGAIN_S) == [transaction.raw]
    assert retelling.due(10.5 + AGAIN_S) == []
    assert retelling.due(10.0 + 2 * AGAIN_S) == [transaction.raw]


def test_what_is_final_or_evicted_is_forgotten():
    waiting = set()
    retelling = Retelling(waiting.__contains__)
    first, second = member_transaction(1), member_transaction(2)
    waiting.update({first.id, second.id})
    retelling.told([first, second], 0.0)
    waiting.remove(first.id)
    assert retelling.due(AGAIN_S) == [second.raw]
    waiting.add(first.id)
    assert retelling.due(2 * AGAIN_S) == [second.raw]


def test_only_the_latest_are_remembered():
    retelling = Retelling(lambda id_: True)
    transactions = [member_transaction(number) for number in range(1, MAX_TOLD + 3)]
    retelling.told(transactions, 0.0)
    assert len(retelling.due(AGAIN_S)) == MAX_TOLD
