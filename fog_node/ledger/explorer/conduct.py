"""What one validator may do at a height, whatever the others send: found on the real machine.

Votes are all that matters between validators: a fork is two sets of precommits. So here a
validator is met by every message that anybody could send, honest or not, and what is kept of
each move is what it costs the others: the polkas that had to exist for it. Whatever else it
took is left out (evidence that others have moved on, the block itself), as if it could always
be had. That allows more than can happen, never less.

Validators know each other by votes that are counted, so one of them stands for all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from fog_node.ledger.consensus_messages import Block, HeightSetting, Proposal
from fog_node.protocol.votes import NO_ROUND, PRECOMMIT, PREVOTE, Certificate, Vote

from .replica import BrokenRuleError, Event, Message, Mining, Nursery, Replica, Restart

Slot = tuple[int, int]  # round and step
Polka = tuple[int, bytes]  # round and block

_FIRST_SLOT: Slot = (0, 0)


class UnorderedError(AssertionError):
    """A vote hangs on votes that come after it, so rounds cannot be looked at one by one."""


@dataclass(frozen=True)
class Deed:
    """A move of a validator.

    Attributes:
        polkas: what must exist for it, by the votes of anybody.
        vote: slot and block of the vote that it casts, None where others notice nothing.
        after: place in `Conduct.ballots` of how it may vote then.
    """

    polkas: frozenset[Polka]
    vote: tuple[Slot, bytes | None] | None
    after: int


@dataclass(frozen=True)
class _Move:
    before: frozenset[Polka]
    polkas: frozenset[Polka]
    votes: tuple[tuple[Slot, bytes | None], ...]
    replica: Replica


class Conduct:
    """All votes of a validator at one height.

    Attributes:
        setting: of the height.
        blocks: the new blocks of each round.
        ballots: its next votes from each standing; standing 0 is the beginning.
        standings: the validator in each standing, without what it can take in again; or
            what it becomes, where it is in the middle of votes that it casts at one go.
    """

    def __init__(self, setting: HeightSetting, blocks: tuple[tuple[bytes, ...], ...]) -> None:
        """Find them.

        Raises:
            BrokenRuleError: it votes where it has voted, or earlier, or takes a block as final
                without a quorum.
            UnorderedError: see there.
        """
        self.setting = setting
        self.blocks = blocks
        self._me, *self._others = setting.validators
        self._nursery = Nursery(setting, len(blocks), counts=False)
        self._slots = tuple(product(range(len(blocks)), (PREVOTE, PRECOMMIT)))
        self._proposals = [*self._new_blocks(), *self._blocks_again()]
        self._places: dict[tuple[object, ...], int] = {}
        self.standings: list[Replica] = []
        self.ballots: list[list[Deed]] = []
        self._deeds: list[list[Deed]] = []
        self._find()

    @property
    def trials(self) -> int:
        """How many events the real machine was tried with, in all its states."""
        return self._nursery.trials

    def _find(self) -> None:
        self._place(self._nursery.rested(self._nursery.first(self._me)))
        several: list[tuple[int, _Move]] = []
        at = 0
        while at < len(self.standings):
            deeds: set[Deed] = set()
            for move in self._moves(self.standings[at]):
                if len(move.votes) > 1:
                    several.append((at, move))
                    self._place(move.replica)
                else:
                    vote = move.votes[0] if move.votes else None
                    deeds.add(Deed(move.polkas, vote, self._place(move.replica)))
            self._deeds.append(list(deeds))
            at += 1
        for at, move in several:
            if not self._in_steps(at, move):
                self._part(at, move)
        self.ballots = [self._ballots_from(at) for at in range(len(self.standings))]

    def _ballots_from(self, start: int) -> list[Deed]:
        """Find the next vote, and what it takes with all that nobody notices before it."""
        paid: dict[int, list[frozenset[Polka]]] = {start: [frozenset()]}
        todo: list[tuple[int, frozenset[Polka]]] = [(start, frozenset())]
        found: set[Deed] = set()
        while todo:
            here, polkas = todo.pop()
            for deed in self._deeds[here]:
                costs = polkas | deed.polkas
                if deed.vote is not None:
                    found.add(Deed(costs, deed.vote, deed.after))
                elif not any(other <= costs for other in paid.setdefault(deed.after, [])):
                    paid[deed.after].append(costs)
                    todo.append((deed.after, costs))
        ballots = _cheapest(found)
        for ballot in ballots:
            _check_order(ballot)
        return ballots

    def _part(self, at: int, move: _Move) -> None:
        """Make steps of votes that are only ever cast together: for what waits is allowed more."""
        *firsts, last = move.votes
        for vote in firsts:
            between = len(self.standings)
            self.standings.append(move.replica)
            self._deeds.append([])
            self._deeds[at].append(Deed(move.before, vote, between))
            at = between
        self._deeds[at].append(Deed(move.polkas, last, self._place(move.replica)))

    def _place(self, replica: Replica) -> int:
        key = replica.conduct
        if key not in self._places:
            self._places[key] = len(self.standings)
            self.standings.append(replica)
        return self._places[key]

    def _in_steps(self, at: int, move: _Move) -> bool:
        """Whether votes cast at one go could as well be cast one by one."""
        todo, seen = [(at, 0)], {(at, 0)}
        end = self._place(move.replica)
        while todo:
            here, cast = todo.pop()
            if cast == len(move.votes) and here == end:
                return True
            for deed in self._deeds[here]:
                # What hangs on its first vote was not there before.
                if not deed.polkas <= (move.polkas if cast else move.before):
                    continue
                if deed.vote is None:
                    following = (deed.after, cast)
                elif cast < len(move.votes) and deed.vote == move.votes[cast]:
                    following = (deed.after, cast + 1)
                else:
                    continue
                if following not in seen:
                    seen.add(following)
                    todo.append(following)
        return False

    # What may reach it

    def _new_blocks(self) -> Iterator[Proposal]:
        for round_, of_round in enumerate(self.blocks):
            for miner, block in zip(self._others, of_round, strict=False):
                yield self._proposal(miner, round_, NO_ROUND, block, ())

    def _blocks_again(self) -> Iterator[Proposal]:
        """Every block in every later round, justified, by its own vote too, or badly."""
        quorum, height = self.setting.quorum, self.setting.height
        for round_, earlier in product(range(1, len(self.blocks)), range(len(self.blocks) - 1)):
            if earlier >= round_:
                continue
            for block in (b for of in self.blocks[: earlier + 1] for b in of):
                votes = [
                    Vote(who, height, earlier, PREVOTE, block, b"")
                    for who in (*self._others, self._me)
                ]
                for justification in (votes[:quorum], votes[-quorum:], votes[: quorum - 1]):
                    yield self._proposal(
                        self._others[-1], round_, earlier, block, tuple(justification)
                    )

    def _proposal(
        self, who: bytes, round_: int, pol_round: int, block: bytes, justification: tuple[Vote, ...]
    ) -> Proposal:
        height = self.setting.height
        return Proposal(who, height, round_, pol_round, block, block, justification, b"")

    def _own_slot(self, replica: Replica) -> Slot:
        return max(((vote.round, vote.step) for vote in replica.votes), default=_FIRST_SLOT)

    def _blocks_of(self, votes: Iterable[Vote]) -> Iterator[Message]:
        """The blocks that are voted for: as first proposed, and as sent on request."""
        hashes = {vote.block_hash for vote in votes}
        yield from (p for p in self._proposals if p.pol_round == NO_ROUND and p.block in hashes)
        for block in sorted(block for block in hashes if block is not None):
            yield Block(self.setting.height, block, block)

    def _votes_of(self, who: bytes, slot: Slot) -> list[Vote]:
        height, (round_, step) = self.setting.height, slot
        values = (None, *(block for of in self.blocks[: round_ + 1] for block in of))
        return [Vote(who, height, round_, step, value, b"") for value in values]

    # What it makes of it

    def _moves(self, start: Replica) -> Iterator[_Move]:
        yield from self._move(start, start, Restart(), ())
        for proposal in self._proposals:
            if self._is_possible(start, proposal):
                yield from self._moves_to(start, start, proposal, ())
        for slot in self._slots:
            yield from self._moves_with(start, slot)

    def _moves_with(self, start: Replica, slot: Slot) -> Iterator[_Move]:
        """Take in what one rule looks at, then move: votes of one slot, and a block of theirs.

        Others are interchangeable: they vote in order, and what they vote for is in order, too.
        The validator's own vote counts for something where it joins others.
        """
        values = {who: self._votes_of(who, slot) for who in self._others}
        own = self._votes_of(self._me, slot) if slot < self._own_slot(start) else []
        seen: set[tuple[Replica, int, int]] = set()
        todo: list[tuple[Replica, tuple[Vote, ...], int, int]] = [(start, (), 0, 0)]
        while todo:
            here, took_in, count, least = todo.pop()
            for event in self._own_events(here):
                yield from self._moves_by(start, here, event, took_in)
            for block in self._blocks_of(took_in):
                yield from self._moves_to(start, here, block, took_in)
            steps: list[tuple[Vote, int, int]] = []
            if count < len(self._others):
                votes = values[self._others[count]]
                steps += [(votes[i], count + 1, i) for i in range(least, len(votes))]
            steps += [
                (vote, len(self._others), 0)
                for vote in own
                if vote.block_hash is not None
                and any(vote.block_hash == other.block_hash for other in took_in)
                and vote not in took_in
            ]
            for vote, counted, at_least in steps:
                there = self._nursery.after(here, vote)
                if there is None or there is here:
                    continue
                got = (*took_in, vote)
                if _is_elsewhere(here, there):
                    yield from self._moves_by(start, here, vote, got)
                elif (there, counted, at_least) not in seen:
                    seen.add((there, counted, at_least))
                    todo.append((there, got, counted, at_least))

    def _moves_to(
        self, start: Replica, here: Replica, message: Message, took_in: tuple[Vote, ...]
    ) -> Iterator[_Move]:
        """Take in a last message, and move by it or by what the validator does of itself."""
        there = self._nursery.after(here, message)
        if there is None or there is here:
            return
        if isinstance(message, Proposal):
            took_in = (*took_in, *message.justification)
        if _is_elsewhere(here, there):
            yield from self._moves_by(start, here, message, took_in)
            return
        for event in self._own_events(there):
            yield from self._moves_by(start, there, event, took_in)

    def _is_possible(self, replica: Replica, proposal: Proposal) -> bool:
        """Whether its own vote in a justification is one that it may have cast."""
        own = self._own_slot(replica)
        return all(
            vote.validator != self._me or (vote.round, vote.step) < own or vote in replica.votes
            for vote in proposal.justification
        )

    def _own_events(self, here: Replica) -> Iterator[Event]:
        yield from sorted(here.armed)
        if here.is_mining:
            for block in self.blocks[here.machine.round]:
                yield Mining(block)

    def _moves_by(
        self, start: Replica, here: Replica, event: Event, took_in: tuple[Vote, ...]
    ) -> Iterator[_Move]:
        yield from self._move(start, here, event, took_in)
        for number, _ in enumerate(self._nursery.restarts(here, event), start=1):
            yield from self._move(start, here, Restart(event, number), took_in)

    def _move(
        self, start: Replica, here: Replica, event: Event | Restart, took_in: tuple[Vote, ...]
    ) -> Iterator[_Move]:
        there = self._nursery.after(here, event)
        if there is None or there is here:
            return
        if there.certificate is not None:
            self._check(there.certificate)
            return  # who has decided votes no more
        own = self._own_slot(start)
        cast = sorted(
            ((vote.round, vote.step), vote.block_hash)
            for vote in there.votes
            if vote not in start.votes
        )
        if any(slot <= own for slot, _ in cast):
            raise BrokenRuleError(f"votes again where it has voted: {cast}")
        after = self._nursery.rested(there)
        if cast or after is not start:
            known = [*start.votes, *(m for m in start.known() if isinstance(m, Vote)), *took_in]
            before = polkas = self._polkas(known)
            if len(cast) > 1:
                # The later ones may hang on the earlier ones.
                polkas = self._polkas([*known, *there.votes])
            yield _Move(before, polkas, tuple(cast), after)

    def _check(self, certificate: Certificate) -> None:
        wanted = (certificate.round, PRECOMMIT, certificate.block_hash)
        voters = {
            vote.validator
            for vote in certificate.votes
            if (vote.round, vote.step, vote.block_hash) == wanted
        }
        if len(voters) < self.setting.quorum:
            raise BrokenRuleError(f"takes a block as final by {len(voters)} votes: {certificate}")

    def _polkas(self, votes: Iterable[Vote]) -> frozenset[Polka]:
        """By the promise's quorum, not by what the machine makes of it."""
        voters = defaultdict(set)
        for vote in votes:
            if vote.step == PREVOTE and vote.block_hash is not None:
                voters[vote.round, vote.block_hash].add(vote.validator)
        return frozenset(p for p, who in voters.items() if len(who) >= self.setting.quorum)


def _cheapest(deeds: set[Deed]) -> list[Deed]:
    """Leave out what can be had for less."""
    return [
        deed
        for deed in deeds
        if not any(
            (other.vote, other.after) == (deed.vote, deed.after) and other.polkas < deed.polkas
            for other in deeds
        )
    ]


def _is_elsewhere(here: Replica, there: Replica) -> bool:
    return there.stage != here.stage or there.votes != here.votes or there.certificate is not None


def _check_order(deed: Deed) -> None:
    if deed.vote is None:
        return
    (round_, step), _ = deed.vote
    if any(polka > round_ for polka, _ in deed.polkas):
        raise UnorderedError(f"step {step} of round {round_} hangs on {sorted(deed.polkas)}")
