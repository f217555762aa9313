"""The referee of a run: sees all nodes at once and stops at the first broken promise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fog_node.ledger.consensus_messages import ReportEquivocation
from fog_node.protocol.votes import PRECOMMIT, PREVOTE, Certificate, Vote

from .scenario import Scenario


class SimulationError(AssertionError):
    """A run broke a promise.

    Attributes:
        seed: replays the run.
        at_ms: simulated time.
        problem: what was broken.
    """

    def __init__(self, seed: int, at_ms: float, problem: str, replay: str) -> None:
        """Say what, when, and with which command to see it again."""
        self.seed = seed
        self.at_ms = at_ms
        self.problem = problem
        super().__init__(f"seed {seed} at {at_ms:.0f} ms: {problem}; replay with: {replay}")

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Let it travel between processes."""
        return _again, (self.seed, self.at_ms, self.problem, str(self))


def _again(seed: int, at_ms: float, problem: str, message: str) -> SimulationError:
    error = SimulationError(seed, at_ms, problem, "")
    error.args = (message,)
    return error


@dataclass(frozen=True)
class Voters:
    """Whose votes count at some height, and how many of them it takes."""

    quorum: int
    kids: frozenset[bytes]

    def suffice(self, kids: Iterable[bytes]) -> bool:
        """Whether votes of these are enough."""
        return len(self.kids.intersection(kids)) >= self.quorum


class Judge:
    """Checks every vote and every final block as it appears.

    Attributes:
        now: simulated time in ms.
        has_forked: whether two blocks of one height are final, where that may be.
    """

    def __init__(
        self,
        scenario: Scenario,
        validators: tuple[bytes, ...],
        name_of: Callable[[bytes], str],
        replay: str,
    ) -> None:
        """Know the scenario and the founding validators in order.

        Args:
            name_of: how to call a validator.
            replay: the command that plays this run again.
        """
        self._scenario = scenario
        self._name_of = name_of
        self._replay = replay
        self._founders = Voters(scenario.quorum, frozenset(validators))
        # Several of one height only where a fork has come about.
        self._voters: dict[int, list[Voters]] = {}
        self._liar = None if scenario.equivocator is None else validators[scenario.equivocator]
        self._final: dict[int, bytes] = {}
        self._height_of: dict[bytes, int] = {}
        self._votes: dict[tuple[bytes, int, int, int], bytes | None] = {}
        self._prevoters: dict[tuple[int, int, bytes], set[bytes]] = {}
        self._precommits: dict[tuple[bytes, int], Vote] = {}
        self._heights: dict[str, int] = {}
        self.has_forked = False
        self.now = 0.0

    def fail(self, problem: str) -> None:
        """End the run."""
        raise SimulationError(self._scenario.seed, self.now, problem, self._replay)

    def see_voters(self, height: int, voters: Voters) -> None:
        """Take note of who votes on the blocks of a height; else it is the founders."""
        known = self._voters.setdefault(height, [])
        if voters not in known:
            known.append(voters)

    def voters_at(self, height: int) -> list[Voters]:
        """Return who votes at a height; several only where the chain has forked below."""
        return self._voters.get(height) or [self._founders]

    def see_vote(self, vote: Vote) -> None:
        """Check a vote that an honest validator is about to send.

        It is one at that height, never signs two ways for one slot, and never prevotes against
        its lock unless a quorum has prevoted so since.
        """
        if not any(vote.validator in voters.kids for voters in self.voters_at(vote.height)):
            name = self._name_of(vote.validator)
            self.fail(f"{name} votes at {vote.slot[1:]}, where it is no validator")
        if self._votes.setdefault(vote.slot, vote.block_hash) != vote.block_hash:
            self.fail(f"{self._name_of(vote.validator)} contradicts itself at {vote.slot[1:]}")
        self.note_prevote(vote)
        if vote.block_hash is None:
            return
        lock = self._precommits.get((vote.validator, vote.height))
        if vote.step == PRECOMMIT:
            self._precommits[vote.validator, vote.height] = vote
        elif lock is not None and lock.block_hash != vote.block_hash:
            rounds = range(lock.round, vote.round + 1)
            if not any(self._is_polka(vote.height, round_, vote.block_hash) for round_ in rounds):
                self.fail(f"{self._name_of(vote.validator)} breaks its lock at {vote.slot[1:]}")

    def note_prevote(self, vote: Vote) -> None:
        """Remember who has signed a prevote for a block, liars included."""
        if vote.step == PREVOTE and vote.block_hash is not None:
            slot = (vote.height, vote.round, vote.block_hash)
            self._prevoters.setdefault(slot, set()).add(vote.validator)

    def see_final(
        self,
        node: str,
        certificate: Certificate,
        block_hash: bytes,
        transactions: Iterable[bytes],
        voters: Voters | None = None,
    ) -> None:
        """Check a block that an honest node takes as final.

        Args:
            transactions: what it seals, or their ids.
            voters: who votes on it; None: the founders.
        """
        height = certificate.height
        self._check_certificate(node, certificate, block_hash, voters or self._founders)
        if height != self._heights.get(node, 0) + 1:
            self.fail(f"{node} goes on at {height} after {self._heights.get(node, 0)}")
        self._heights[node] = height
        if self._final.setdefault(height, block_hash) != block_hash:
            self.has_forked = True
            if self._scenario.is_safe:
                self.fail(f"{node} has a second final block at height {height}")
        if self.has_forked:
            return
        for transaction in transactions:
            if self._height_of.setdefault(transaction, height) != height:
                self.fail(f"{node} has {transaction!r} sealed a second time, at {height}")

    def see_report(self, node: str, report: ReportEquivocation) -> None:
        """Check that evidence is evidence, and against nobody honest."""
        one, two = report.vote_a, report.vote_b
        if one.slot != two.slot or one.block_hash == two.block_hash:
            self.fail(f"{node} reports two votes that do not contradict: {one}, {two}")
        if one.validator != self._liar:
            self.fail(f"{node} accuses {self._name_of(one.validator)}, who is honest")

    def forget(self, node: str) -> None:
        """Expect no more that a node has the blocks that it took as final: its disk is gone."""
        self._heights.pop(node, None)

    def check_chain(self, node: str, chain: Sequence[bytes]) -> None:
        """Check the hashes of a node's blocks, from height 1 on.

        It still has all that it took as final, and the same as everybody.
        """
        if len(chain) != self._heights.get(node, 0):
            self.fail(f"{node} has {len(chain)} final blocks left of {self._heights[node]}")
        for height, block_hash in enumerate(chain, start=1):
            if self._final[height] != block_hash and self._scenario.is_safe:
                self.fail(f"{node} lost the final block at height {height}")

    def _is_polka(self, height: int, round_: int, block_hash: bytes) -> bool:
        prevoters = self._prevoters.get((height, round_, block_hash), ())
        return any(voters.suffice(prevoters) for voters in self.voters_at(height))

    def _check_certificate(
        self, node: str, certificate: Certificate, block_hash: bytes, voters: Voters
    ) -> None:
        height = certificate.height
        if certificate.block_hash != block_hash:
            self.fail(f"{node}: certificate of another block at height {height}")
        slot = (height, certificate.round, PRECOMMIT, block_hash)
        for vote in certificate.votes:
            if (vote.height, vote.round, vote.step, vote.block_hash) != slot:
                self.fail(f"{node}: certificate at height {height} holds a vote for another")
        signed = {vote.validator for vote in certificate.votes}
        if not voters.suffice(signed):
            self.fail(
                f"{node}: certificate at height {height} has {len(signed & voters.kids)} voters "
                f"of {voters.quorum}"
            )
