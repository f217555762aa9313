"""The rules that transactions and blocks must keep; the votes on a block are not looked at.

Everything here depends on the arguments alone, so that all nodes come to the same answer.
"""

from __future__ import annotations

from itertools import pairwise

from fog_node.errors import LedgerError
from fog_node.protocol.block import (
    Block,
    Header,
    bits_from_target,
    target_from_bits,
)
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.member_records import Settings
from fog_node.protocol.merkle import root
from fog_node.protocol.transactions import Transaction
from fog_node.protocol.votes import MAX_VALIDATORS, NO_ROUND, ProposalHeader

from .chain import BlockInfo, Chain
from .mining_order import MiningOrder, mining_spacing
from .state import State
from .verifier import Verifier

# How far a proposed block's time may be ahead of our clock.
MAX_FUTURE_MS = 120_000
# How far ahead of a signer's next number its waiting transactions may be.
MAX_SEQUENCE_AHEAD = 1024
# A block that took longer than this many intervals counts as this many: miners rest while
# there is nothing to seal, which says nothing about their speed.
MAX_COUNTED_INTERVALS = 4
# Mining diversity may look back so far, once validators or parameters have been voted in.
MIN_LOOK_BACK = MAX_VALIDATORS
# Difficulty changes at most by this factor at once, as Bitcoin's does.
MAX_RETARGET_FACTOR = 4


def check_transaction(
    transaction: Transaction, state: State, height: int, verifier: Verifier
) -> None:
    """Raise LedgerError unless the transaction may wait for a block.

    One with its signer's next number must fit the state as it is; a later one must be
    permitted to its signer, and is checked against the state when its turn comes.

    Args:
        transaction: parsed.
        state: after the latest block.
        height: of the next block.
        verifier: of this ledger.
    """
    signer = state.trusted_signer(transaction)
    # The signature comes before all that could be held against the signer.
    verifier.verify(transaction, signer.key, state)
    first = transaction.first
    if first == signer.next:
        state.check(transaction, height)
        return
    state.permit(transaction, signer)
    last = transaction.sequence
    if not signer.next < first <= last < signer.next + MAX_SEQUENCE_AHEAD:
        raise LedgerError(
            "sequence",
            f"transaction.sequence: is {transaction.sequence}, must be {signer.next} to "
            f"{signer.next + MAX_SEQUENCE_AHEAD - 1}",
        )


def check_proposal(proposal: ProposalHeader, block: Block) -> None:
    """Raise LedgerError unless the block is what the proposal says.

    A new block is its proposer's own and of the proposal's round; one that is proposed
    again was mined no later than the round of the prevotes that justify it.
    """
    if proposal.block_hash != block.hash or proposal.height != block.height:
        raise _refused("proposal", "is for another block")
    mined = block.coinbase
    if proposal.pol_round != NO_ROUND:
        if mined.round > proposal.pol_round:
            raise _refused("coinbase.round", f"is above proposal.pol_round {proposal.pol_round}")
    elif (mined.miner, mined.round) != (proposal.validator, proposal.round):
        raise _refused("coinbase", "miner and round of a new block are not the proposal's")


def validate_block(
    block: Block,
    chain: Chain,
    state: State,
    verifier: Verifier,
    now_ms: int | None,
) -> State:
    """Check everything about a block but the votes on it; returns the state after it.

    Args:
        block: parsed, to follow on `chain.head`.
        chain: the final blocks.
        state: after `chain.head`; not changed.
        verifier: of this ledger.
        now_ms: our clock for a block to vote on; None for one that comes with a certificate,
            whose time a quorum has accepted.

    Raises:
        LedgerError: a rule is broken; the message names the field.
    """
    check_header(block, chain, state, verifier, now_ms)
    return apply_transactions(block, state, verifier)


def check_header(
    block: Block,
    chain: Chain,
    state: State,
    verifier: Verifier,
    now_ms: int | None,
) -> None:
    """Do the part of `validate_block` that does not look into the transactions."""
    limits = state.parameters
    parent = chain.head
    header, coinbase = block.header, block.coinbase
    height = parent.height + 1
    if coinbase.height != height:
        raise _refused("coinbase.height", f"is {coinbase.height}, the next block is {height}")
    if header.previous != parent.hash:
        raise _refused("header.previous", "is not the hash of the latest final block")
    if header.version != Header.version:
        raise _refused("header.version", f"is {header.version}, must be {Header.version}")
    if len(block.raw) > limits.max_block_bytes:
        raise _refused("block", f"has {len(block.raw)} bytes, at most {limits.max_block_bytes}")
    if len(block.transactions) > limits.max_block_transactions:
        raise _refused(
            "block.transactions",
            f"are {len(block.transactions)}, at most {limits.max_block_transactions}",
        )
    bits = next_bits(chain, state.membership.settings)
    if header.bits != bits:
        raise _refused("header.bits", f"is {header.bits:#010x}, must be {bits:#010x}")
    try:
        header.check_work()
    except ProtocolError as error:
        raise LedgerError("block", str(error)) from error
    _check_time(block, parent, limits.rest_ms, now_ms)
    if coinbase.validators != state.validator_set.hash:
        raise _refused("coinbase.validators", "is not the set that votes on this block")
    if not eligible(coinbase.miner, coinbase.round, chain, state):
        raise _refused("coinbase.miner", f"{coinbase.miner.hex()} may not mine this block")
    verifier.verify_coinbase(coinbase, state.validator_set.by_kid[coinbase.miner])
    if root(block.leaves) != header.merkle_root:
        raise _refused("header.merkle_root", "is not the root of the block's transactions")


def apply_transactions(block: Block, state: State, verifier: Verifier) -> State:
    """Check the transactions in their order; returns the state after the block."""
    after = state.copy()
    after.advance(block.height, block.coinbase.time)
    for index, transaction in enumerate(block.transactions, start=1):
        try:
            signer = after.trusted_signer(transaction)
            verifier.verify(transaction, signer.key, after)
            after.apply(transaction, block.height, signer)
        except LedgerError as error:
            raise _refused(f"block.transactions[{index}]", f"{error} ({error.cause})") from error
    if after.root() != block.coinbase.state:
        raise _refused("coinbase.state", "is not the root of the state after this block")
    if after.validator_set.hash != block.coinbase.next:
        raise _refused("coinbase.next", "is not the set that votes on the block after this one")
    return after


def next_bits(chain: Chain, settings: Settings) -> int:
    """Compact target of the block after `chain.head`.

    Anew at each height that `retarget_blocks` divides, from the times of as many blocks
    before it; at most MAX_RETARGET_FACTOR up or down, and never easier than the parameter `bits`.
    Only times since the parameters were decided count: a node that began with a checkpoint has
    as many blocks before that as the parameters of then looked back.
    """
    parameters = settings.parameters
    height = chain.head.height + 1
    if not parameters.retarget_blocks:
        return parameters.bits
    easiest = target_from_bits(parameters.bits)
    # Only a vote on `bits` leaves the head's easier than that.
    is_easier = target_from_bits(chain.head.bits) > easiest
    unchanged = parameters.bits if is_easier else chain.head.bits
    if height % parameters.retarget_blocks:
        return unchanged
    first = max(settings.since, height - 1 - parameters.retarget_blocks)
    times = chain.times(first, height - 1)
    if len(times) < 2:
        return unchanged
    longest = MAX_COUNTED_INTERVALS * parameters.block_interval_ms
    observed = sum(min(later - earlier, longest) for earlier, later in pairwise(times))
    expected = parameters.block_interval_ms * (len(times) - 1)
    old = target_from_bits(chain.head.bits)
    target = min(
        max(old * observed // expected, old // MAX_RETARGET_FACTOR, 1),
        old * MAX_RETARGET_FACTOR,
    )
    if target >= easiest:
        return parameters.bits
    return bits_from_target(target)


def look_back(state: State) -> int:
    """How many of the latest blocks the rules for the next ones look at, whatever is decided."""
    return max(state.parameters.retarget_blocks + 1, spacing(state), MIN_LOOK_BACK)


def spacing(state: State) -> int:
    """How many blocks must be another's before a validator may mine again."""
    diversity = state.parameters.mining_diversity
    return mining_spacing(len(state.voters()), state.quorum, diversity)


def eligible(miner: bytes, round_: int, chain: Chain, state: State) -> bool:
    """Whether a block that `miner` mined for this round may follow on `chain.head`."""
    blocks = spacing(state)
    order = MiningOrder(
        parent=chain.head.hash,
        candidates=tuple(state.voters()),
        recent_miners=chain.miners(blocks),
        spacing=blocks,
    )
    return order.may_mine(miner, round_)


def _check_time(block: Block, parent: BlockInfo, rest_ms: int, now_ms: int | None) -> None:
    time = block.coinbase.time
    if block.header.time != time // 1000:
        raise _refused("header.time", "is not the coinbase's time in whole seconds")
    earliest = earliest_time(parent, rest_ms)
    if time < earliest:
        raise _refused("coinbase.time", f"is {time} ms, {earliest} is the earliest after a rest")
    if now_ms is not None and time > now_ms + MAX_FUTURE_MS:
        raise _refused(
            "coinbase.time",
            f"is {time - now_ms} ms ahead of our clock, at most {MAX_FUTURE_MS}; check both "
            "nodes' clocks",
        )


def earliest_time(parent: BlockInfo, rest_ms: int) -> int:
    """Least time in ms that the block after `parent` may have."""
    return parent.time + max(rest_ms, 1)


def _refused(field: str, problem: str) -> LedgerError:
    return LedgerError("block", f"{field}: {problem}")
