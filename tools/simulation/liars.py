"""Validators that do not keep the rules."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fog_node.errors import LedgerError
from fog_node.ledger.consensus_messages import (
    CastVote,
    Mine,
    Proposal,
    Propose,
    ReportEquivocation,
)
from fog_node.network import wire
from fog_node.network.peers import Peer
from fog_node.protocol.block import Block, sign_coinbase
from fog_node.protocol.merkle import root
from fog_node.protocol.votes import (
    NO_ROUND,
    PRECOMMIT,
    PREVOTE,
    Vote,
    parse_proposal,
    sign_proposal,
    sign_vote,
)

from .miner import mined
from .node import SimulatedNode, WatchedAgreement

if TYPE_CHECKING:
    from collections.abc import Sequence

# How often a liar is so careless as to show a peer both sides of its lie.
BOTH_WAYS = 0.1


class LyingAgreement(WatchedAgreement):
    """Votes and proposes one way to some and another way to the others."""

    async def _cast(self, cast: CastVote) -> None:
        world, style = self.owner.world, self.owner.world.scenario.style
        wish = None if style == "spoiler" else cast.block_hash
        vote = false = self._signed(cast.height, cast.round, cast.step, wish)
        rivals = [known for known in world.rivals(cast.height) if known != cast.block_hash]
        if self._votes_falsely() and (rivals or cast.block_hash is not None):
            lie = world.rng.choice([*rivals, None] if cast.block_hash else rivals)
            false = self._signed(cast.height, cast.round, cast.step, lie)
            world.count("equivocations made")
        if style != "patient" or not world.is_lying():
            self._send_two_ways(wire.Votes([vote.raw]), wire.Votes([false.raw]))
        # A patient liar shows nobody both sides: it only votes as each side wishes.
        self._feed(vote)

    def _propose(self, propose: Propose) -> None:
        one = two = self._proposal_message(propose)
        if self.owner.world.is_lying() and propose.pol_round == NO_ROUND:
            self.owner.world.count("proposals made two ways")
            other = self._other_block(self._ledger.parse_block(propose.block))
            two = self._proposal_message(replace(propose, block_hash=other.hash, block=other.raw))
        if self._votes_falsely() and self.owner.world.scenario.style == "patient":
            self._serve_sides(one, two)
        else:
            self._send_two_ways(one, two)
        self._feed(
            Proposal(
                validator=self.owner.key.kid,
                height=propose.height,
                round=propose.round,
                pol_round=propose.pol_round,
                block_hash=propose.block_hash,
                block=propose.block,
                justification=propose.justification,
                raw=one.header,
            )
        )

    def _report(self, report: ReportEquivocation) -> None:
        if report.vote_a.validator != self.owner.key.kid:
            super()._report(report)

    async def _take_proposal(self, peer: Peer, message: wire.Proposal) -> None:
        await super()._take_proposal(peer, message)
        if not self._votes_falsely():
            return
        # Whoever proposes gets, for its side, all the votes it could wish for.
        votes = self._votes_for(message)
        for index in self.owner.world.side_of(parse_proposal(message.header).validator):
            side = self.owner.peers.peer(index)
            if side is not None:
                side.send(votes)

    async def _take_status(self, peer: Peer, message: wire.Status) -> None:
        self._forge_polka()
        # Helps nobody to find out what the others have decided.
        if not self._votes_falsely() or message.height > self._consensus.setting.height:
            await super()._take_status(peer, message)

    def _forge_polka(self) -> None:
        """Claim a polka that never was, for an own block."""
        machine = self._consensus
        world = self.owner.world
        if not machine.round or not world.is_lying() or world.rng.random() > BOTH_WAYS:
            return
        try:
            block = self._ledger.template(self.owner.key, machine.round - 1, self._now_ms())
        except LedgerError:
            return  # its turn has not come in that round
        world.count("polkas forged")
        forged = mined(block)
        slot = (machine.setting.height, machine.round, machine.round - 1)
        claim = Propose(*slot, forged.hash, forged.raw, justification=())
        self.owner.peers.broadcast(self._proposal_message(claim))

    def _serve_sides(self, one: wire.Proposal, two: wire.Proposal) -> None:
        """Propose to each side of a partition one of two blocks, with all votes for it."""
        sides: list[set[int]] = []
        for peer in self.owner.peers.peers:
            side = self.owner.world.reach_of(peer.index) - {self.owner.index}
            if side not in sides:
                sides.append(side)
            message = (one, two)[sides.index(side) % 2]
            peer.send(message)
            peer.send(self._votes_for(message))

    def _votes_for(self, message: wire.Proposal) -> wire.Votes:
        header = parse_proposal(message.header)
        votes = [
            self._signed(header.height, header.round, step, header.block_hash)
            for step in (PREVOTE, PRECOMMIT)
        ]
        return wire.Votes([vote.raw for vote in votes])

    def _votes_falsely(self) -> bool:
        return self.owner.world.is_lying() and self.owner.world.scenario.style != "spoiler"

    def _signed(self, height: int, round_: int, step: int, block_hash: bytes | None) -> Vote:
        vote = sign_vote(self.owner.key, height, round_, step, block_hash, self._chain_id)
        self.owner.world.judge.note_prevote(vote)
        return vote

    def _proposal_message(self, propose: Propose) -> wire.Proposal:
        header = sign_proposal(
            self.owner.key,
            propose.height,
            propose.round,
            propose.pol_round,
            propose.block_hash,
            self._chain_id,
        )
        return wire.Proposal(header.raw, propose.block, [v.raw for v in propose.justification])

    def _other_block(self, block: Block) -> Block:
        """Make the same block once more, a millisecond later."""
        mine = block.coinbase
        coinbase = sign_coinbase(
            self.owner.key,
            mine.height,
            mine.round,
            mine.state,
            (mine.validators, mine.next),
            mine.time + 1,
            self._chain_id,
        )
        other = Block(block.header, coinbase, block.transactions)
        header = replace(block.header, merkle_root=root(other.leaves), time=coinbase.time // 1000)
        return mined(replace(other, header=header))

    def _send_two_ways(self, one: wire.Message, two: wire.Message) -> None:
        rng = self.owner.world.rng
        side = rng.randrange(2)
        for peer in self.owner.peers.peers:
            side = 1 - side
            both: Sequence[wire.Message] = (one, two)
            for message in both if rng.random() < BOTH_WAYS else (both[side],):
                peer.send(message)


class Equivocator(SimulatedNode):
    """A validator that votes and proposes two ways."""

    agreement_type = LyingAgreement

    def saw_vote(self, vote: Vote) -> None:
        """Nobody expects it to keep its word."""

    def sends(self, message: wire.Message) -> None:
        """Nor to keep what it says."""


class WrongBranchAgreement(WatchedAgreement):
    """Mines on a block that is not the latest, now and then."""

    def _mine(self, mine: Mine) -> None:
        self._miner.start(
            mine.delay_ms / 1000,
            partial(self._stale_template, mine),
            partial(self._found, mine),
        )

    def _stale_template(self, mine: Mine) -> Block:
        block = self._template(self.owner.key, mine)
        if mine.height == 1 or self.owner.world.rng.random() < 0.3:
            return block
        below = self.owner.world.rng.randint(max(0, mine.height - 3), mine.height - 2)
        older = self._ledger.info(below)
        assert older is not None
        self.owner.world.count("blocks mined on a wrong branch")
        return replace(block, header=replace(block.header, previous=older.hash))


class WrongBranchMiner(SimulatedNode):
    """A validator that keeps mining on an old block; apart from that it keeps the rules."""

    agreement_type = WrongBranchAgreement
