"""Goes through all that a network may vote, slot by slot, counting validators.

A vote hangs on nothing but votes of its own slot (round and step) and of earlier ones, which
`Conduct` has made sure of, and one validator's move never stands in another's way: messages
only become more. So whatever can happen can also happen with all votes of a slot cast before
any of the next one, and that is all that is tried. Who cast them makes no difference to
anybody: it is enough to know how many stand where, what has a polka and what is decided.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import product

from fog_node.ledger.consensus_messages import HeightSetting
from fog_node.protocol.founding import quorum_of
from fog_node.protocol.votes import PRECOMMIT, PREVOTE, Vote

from .conduct import Conduct, Polka, Slot
from .network import HEIGHT, PARENT


@dataclass(frozen=True)
class Assembly:
    """A network and its bounds, without a bound on restarts.

    Attributes:
        validators: how many, liars included.
        rule: the founding file's quorum rule.
        blocks: how many new blocks there are in each round; these rounds are followed.
        liars: how many validators sign and send whatever they like.
    """

    validators: int
    rule: str
    blocks: tuple[int, ...]
    liars: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not 0 <= self.liars < self.quorum:
            raise ValueError(f"liars: {self.liars}; fewer than the quorum of {self.quorum}")
        if not self.blocks or not all(0 <= count < self.validators for count in self.blocks):
            raise ValueError("blocks: for each round, fewer than there are validators")

    @property
    def quorum(self) -> int:
        """Votes that make a block final."""
        return quorum_of(self.rule, self.validators)

    @property
    def may_fork(self) -> bool:
        """Whether two quorums may have no more than liars in common."""
        return 2 * self.quorum - self.validators <= self.liars

    @property
    def names(self) -> tuple[bytes, ...]:
        """All validators."""
        return tuple(b"v%d" % i for i in range(self.validators))

    @property
    def hashes(self) -> tuple[tuple[bytes, ...], ...]:
        """The blocks of each round; each is its own hash."""
        return tuple(
            tuple(b"%c%d" % (ord("A") + number, round_) for number in range(count))
            for round_, count in enumerate(self.blocks)
        )

    def conduct(self) -> Conduct:
        """Find on the real machine what a validator may do in it."""
        setting = HeightSetting(HEIGHT, PARENT, self.names, self.quorum)
        return Conduct(setting, self.hashes)


@dataclass(frozen=True)
class Tally:
    """The network between two votes.

    Attributes:
        slot: place of the slot that is voted in.
        standings: where each honest validator stands, in order.
        votes: for each block, how many honest validators have voted for it in the slot.
        polkas, decisions: what honest validators and liars may have them for.
    """

    slot: int
    standings: tuple[int, ...]
    votes: tuple[tuple[bytes, int], ...]
    polkas: frozenset[Polka]
    decisions: frozenset[Polka]


@dataclass(frozen=True)
class Ballot:
    """One honest validator votes.

    Attributes:
        before, after: where it stands.
    """

    before: int
    after: int
    slot: Slot
    block: bytes | None


@dataclass
class Outcome:
    """What going through it came to.

    Attributes:
        standings: of one validator, each found on the real machine.
        trials: events that the real machine was tried with, in all its states.
        states: of the whole network; each was looked at once.
        ballots: ways from one of them to another by a vote.
        decided: states in which a block may be final.
        forks: states in which two may be.
        forks_of_one_round: of these, where it takes no more than one round's votes.
        fork_of_one_round, fork_of_two_rounds: the shortest way to each, if there is one.
    """

    assembly: Assembly
    standings: int = 0
    trials: int = 0
    states: int = 0
    ballots: int = 0
    decided: int = 0
    forks: int = 0
    forks_of_one_round: int = 0
    fork_of_one_round: list[Ballot] | None = None
    fork_of_two_rounds: list[Ballot] | None = None


@dataclass
class _Search:
    assembly: Assembly
    conduct: Conduct
    options: dict[tuple[int, int, frozenset[Polka]], list[Ballot]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.slots = tuple(product(range(len(self.assembly.blocks)), (PREVOTE, PRECOMMIT)))
        # Liars have voted for everything.
        self.enough = self.assembly.quorum - self.assembly.liars

    def first(self) -> Tally:
        honest = self.assembly.validators - self.assembly.liars
        return Tally(0, (0,) * honest, (), frozenset(), frozenset())

    def following(self, tally: Tally) -> list[tuple[Tally, Ballot | None]]:
        found: list[tuple[Tally, Ballot | None]] = []
        for place, standing in enumerate(tally.standings):
            if standing in tally.standings[:place]:
                continue
            ballots = self.ballots(standing, tally.slot, tally.polkas)
            found += [(self.cast(tally, place, ballot), ballot) for ballot in ballots]
        if tally.slot + 1 < len(self.slots):
            last = Tally(tally.slot + 1, tally.standings, (), tally.polkas, tally.decisions)
            found.append((last, None))
        return found

    def ballots(self, standing: int, slot: int, polkas: frozenset[Polka]) -> list[Ballot]:
        """All votes in a slot that the polkas allow."""
        case = (standing, slot, polkas)
        if case in self.options:
            return self.options[case]
        found = {
            Ballot(standing, deed.after, *deed.vote)
            for deed in self.conduct.ballots[standing]
            if deed.vote is not None and deed.vote[0] == self.slots[slot] and deed.polkas <= polkas
        }
        self.options[case] = sorted(found, key=lambda b: (b.block or b"", b.after))
        return self.options[case]

    def cast(self, tally: Tally, place: int, ballot: Ballot) -> Tally:
        others = tally.standings[:place] + tally.standings[place + 1 :]
        standings = tuple(sorted((*others, ballot.after)))
        if ballot.block is None:
            return Tally(tally.slot, standings, tally.votes, tally.polkas, tally.decisions)
        votes = dict(tally.votes)
        votes[ballot.block] = votes.get(ballot.block, 0) + 1
        polkas, decisions = tally.polkas, tally.decisions
        round_, step = ballot.slot
        if votes[ballot.block] >= self.enough:
            if step == PREVOTE:
                polkas |= {(round_, ballot.block)}
            else:
                decisions |= {(round_, ballot.block)}
        # More than enough is no more than enough.
        votes[ballot.block] = min(votes[ballot.block], self.enough)
        return Tally(tally.slot, standings, tuple(sorted(votes.items())), polkas, decisions)


def explore_rounds(
    assembly: Assembly,
    conduct: Conduct | None = None,
    progress: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """Look at all that the network may vote within the bounds.

    Args:
        conduct: of its validators, where it is known already.
        progress: is told now and then how far it is.

    Raises what `Conduct` raises.
    """
    conduct = conduct or assembly.conduct()
    outcome = Outcome(assembly, len(conduct.standings), conduct.trials)
    search = _Search(assembly, conduct)
    first = search.first()
    parents: dict[Tally, tuple[Tally, Ballot | None] | None] = {first: None}
    todo = deque([first])
    while todo:
        tally = todo.popleft()
        outcome.states += 1
        _judge(tally, outcome, parents)
        for following, ballot in search.following(tally):
            outcome.ballots += ballot is not None
            if following not in parents:
                parents[following] = (tally, ballot)
                todo.append(following)
        if progress is not None and outcome.states % 100_000 == 0:
            progress(outcome)
    return outcome


def find_unexplained(assembly: Assembly, conduct: Conduct, votes: Iterable[Vote]) -> Vote | None:
    """Look for a vote that could not have been cast, by what `explore_rounds` looks at.

    Args:
        votes: of honest validators, all that were cast in one run, whatever way they came about.
    """
    search = _Search(assembly, conduct)
    tally = search.first()
    standings = {name: {0} for name in assembly.names}
    for slot, name in enumerate(search.slots):
        tally = replace(tally, slot=slot, votes=())
        left = [vote for vote in votes if (vote.round, vote.step) == name]
        while left:
            for vote in left:
                ballots = [
                    ballot
                    for standing in standings[vote.validator]
                    for ballot in search.ballots(standing, slot, tally.polkas)
                    if ballot.block == vote.block_hash
                ]
                if ballots:
                    break
            else:
                return left[0]
            left.remove(vote)
            standings[vote.validator] = {ballot.after for ballot in ballots}
            tally = replace(search.cast(tally, 0, ballots[0]), standings=tally.standings)
    return None


def _judge(
    tally: Tally,
    outcome: Outcome,
    parents: dict[Tally, tuple[Tally, Ballot | None] | None],
) -> None:
    outcome.decided += bool(tally.decisions)
    if len({block for _, block in tally.decisions}) < 2:
        return
    outcome.forks += 1
    rounds = [round_ for round_, _ in tally.decisions]
    if len(set(rounds)) < len(rounds):
        outcome.forks_of_one_round += 1
        if outcome.fork_of_one_round is None:
            outcome.fork_of_one_round = _way_to(tally, parents)
    elif outcome.fork_of_two_rounds is None:
        outcome.fork_of_two_rounds = _way_to(tally, parents)


def _way_to(tally: Tally, parents: dict[Tally, tuple[Tally, Ballot | None] | None]) -> list[Ballot]:
    way: list[Ballot] = []
    at = tally
    while (before := parents[at]) is not None:
        at, ballot = before
        if ballot is not None:
            way.insert(0, ballot)
    return way
