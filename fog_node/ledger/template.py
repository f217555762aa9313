"""Makes the block that a validator then mines."""

from __future__ import annotations

from collections.abc import Iterable

from fog_node.errors import LedgerError
from fog_node.protocol.block import (
    HEADER_BYTES,
    MAX_COINBASE_BYTES,
    Block,
    Header,
    block_leaves,
    sign_coinbase,
)
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.merkle import root
from fog_node.protocol.transactions import Transaction

from .chain import Chain
from .state import State
from .validation import earliest_time, eligible, next_bits

# Header, coinbase, and the CBOR heads around them.
BLOCK_OVERHEAD_BYTES = HEADER_BYTES + MAX_COINBASE_BYTES + 16


def make_template(
    key: SigningKey,
    round_: int,
    now_ms: int,
    chain: Chain,
    state: State,
    candidates: Iterable[Transaction],
) -> tuple[Block, State]:
    """Put candidates into a block with the nonce 0, to follow on `chain.head`.

    Those that no longer fit the state are left out, with all that their signers numbered
    behind them.

    Returns:
        The block, and the state after it.

    Raises:
        LedgerError: `not_eligible`: the key's owner may not mine this block.
    """
    parameters, head = state.parameters, chain.head
    height = head.height + 1
    if not eligible(key.kid, round_, chain, state):
        raise LedgerError(
            "not_eligible",
            f"miner: {key.kid.hex()} may not mine block {height} in round {round_}",
        )
    time = max(now_ms, earliest_time(head, parameters.rest_ms))
    after, chosen = _seal(state, candidates, height, time)
    sets = (state.validator_set.hash, after.validator_set.hash)
    chain_id = state.founding.chain_id
    coinbase = sign_coinbase(key, height, round_, after.root(), sets, time, chain_id)
    header = Header(
        previous=head.hash,
        merkle_root=root(block_leaves(coinbase, chosen)),
        time=time // 1000,
        bits=next_bits(chain, state.membership.settings),
        nonce=0,
    )
    return Block(header, coinbase, tuple(chosen)), after


def _seal(
    state: State, candidates: Iterable[Transaction], height: int, time: int
) -> tuple[State, list[Transaction]]:
    """Apply candidates in order, as far as each signer's fit."""
    after = state.copy()
    after.advance(height, time)
    chosen = []
    stopped = set()
    for transaction in candidates:
        if transaction.signer in stopped:
            continue
        try:
            after.apply(transaction, height)
        except LedgerError:
            stopped.add(transaction.signer)
        else:
            chosen.append(transaction)
    return after, chosen
