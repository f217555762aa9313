"""Seal pack after pack in a one-validator ledger, until killed.

Called with the data directory, the founding file, and the number of the SQL statement
before which to kill itself (0: never). Tells on standard output what it may be held to:
`admitted SEQUENCE`, `voted HEIGHT HASH` and `committed HEIGHT` each follow the write.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from fog_node.ledger import Ledger
from fog_node.protocol import senml
from fog_node.protocol.block import Block
from fog_node.protocol.errors import ProofError
from fog_node.protocol.founding import parse_founding
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import (
    Channel,
    Enrol,
    PackBody,
    sign_transaction,
)
from fog_node.protocol.votes import PRECOMMIT, PREVOTE, make_certificate, sign_vote

MEMBER = SigningKey.from_secret(100)
DEVICE = SigningKey.from_secret(1000)
BASE_TIME = 1_700_000_000


def mined(block: Block) -> Block:
    nonce = 0
    while True:
        header = replace(block.header, nonce=nonce)
        try:
            header.check_work()
        except ProofError:
            nonce += 1
        else:
            return Block(header, block.coinbase, block.transactions)


def say(*words: object) -> None:
    print(*words, flush=True)


def main() -> None:
    founding = parse_founding(Path(sys.argv[2]).read_bytes())
    ledger = Ledger.open(Path(sys.argv[1]), founding)
    left = int(sys.argv[3])

    def count(_statement: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    ledger._store._writer.set_trace_callback(count)
    chain_id = founding.chain_id
    ledger.stop_asking(0)
    while True:
        if DEVICE.kid not in ledger.state.devices:
            channels = (Channel("a", "V", 0.0, 1.0),)
            body = Enrol(DEVICE.public, "v0", "type", "unix", channels, 1)
            transactions = [sign_transaction(MEMBER, body, chain_id, 1)]
        else:
            first = ledger.next_sequence(DEVICE.kid)
            transactions = []
            for sequence in range(first, first + 3):
                payload = senml.encode_pack(32473, DEVICE.kid, BASE_TIME, [(0, [("a", "V", 0.5)])])
                body = PackBody.decode(payload)
                transactions.append(sign_transaction(DEVICE, body, chain_id, sequence, 0))
        for result in ledger.admit(transactions):
            if result.status == "refused":
                raise SystemExit(str(result.error))
        say("admitted", transactions[-1].signer.hex(), transactions[-1].sequence)
        # Never a round twice: what was voted for in it before a kill stands.
        height = ledger.height + 1
        votes, _ = ledger.saved()
        round_ = 1 + max((vote.round for vote in votes), default=-1)
        block = mined(ledger.template(MEMBER, round_, ledger.earliest_ms()))
        for step in (PREVOTE, PRECOMMIT):
            vote = sign_vote(MEMBER, height, round_, step, block.hash, chain_id)
            ledger.save_vote(vote)
            say("voted", height, round_, step, block.hash.hex())
        ledger.commit(block, make_certificate([vote]))
        say("committed", height)


main()
