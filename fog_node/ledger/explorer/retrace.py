"""Plays a way that was found by counting votes, message by message, on whole replicas.

`rounds` allows more than can happen, so what it finds may be no more than its own doing. Here
every timer runs only where the machine has set it, and every message is one that was sent.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count

from .local import Chooser
from .network import Network
from .replica import Nursery, Replica
from .rounds import Assembly, Ballot
from .search import State, Step


def retrace(assembly: Assembly, way: list[Ballot]) -> tuple[State, list[Step]] | None:
    """Find the same votes among what can happen, and who takes what as final by them.

    Votes for no block may come in between, where others need them to move on.

    Returns:
        A state with two final blocks and the way there; None where there is none.
    """
    network = Network(
        validators=assembly.validators,
        rule=assembly.rule,
        rounds=len(assembly.blocks),
        blocks=0,
        liar=bool(assembly.liars),
        restarts=None,
    )
    if assembly.liars > 1:
        raise ValueError("liars: no more than one can be played")
    nursery = Nursery(network.setting, network.rounds, counts=False)
    return _Player(network, Chooser(network, nursery), way).play(assembly)


class _Player:
    def __init__(self, network: Network, chooser: Chooser, way: list[Ballot]) -> None:
        self._network = network
        self._chooser = chooser
        self._way = way

    def play(self, assembly: Assembly) -> tuple[State, list[Step]] | None:
        network = self._network
        # Found by those whose places come last; they may have lost power since.
        lies = frozenset(
            network.new_block(network.names[-1 - number], round_, block)
            for round_, blocks in enumerate(assembly.hashes)
            for number, block in enumerate(blocks)
        )
        nursery = self._chooser.nursery
        first = State(tuple(nursery.first(name) for name in network.honest), lies)
        places = (0,) * len(network.honest)
        number = count()
        todo = [(0, 0, next(number), (first, places, 0), list[Step]())]
        seen = {(first, places, 0)}
        while todo:
            _, _, _, (state, standings, done), steps = heappop(todo)
            if len(state.certificates) > 1:
                return state, steps
            messages = network.messages(state.lies.union(*(r.sent for r in state.replicas)))
            for place, replica in enumerate(state.replicas):
                for other, path in self._chooser.choices(replica, messages):
                    following = self._follow(standings, done, place, replica, other)
                    if following is None:
                        continue
                    replicas = (*state.replicas[:place], other, *state.replicas[place + 1 :])
                    case = (State(replicas, state.lies), *following)
                    if case not in seen:
                        seen.add(case)
                        taken = [*steps, Step(replica, path)]
                        heappush(todo, (-case[2], len(taken), next(number), case, taken))
        return None

    def _follow(
        self, standings: tuple[int, ...], done: int, place: int, before: Replica, after: Replica
    ) -> tuple[tuple[int, ...], int] | None:
        """How far the way is done, and who stands where, if this is on it."""
        if after.certificate is not None:
            return (standings, done) if done == len(self._way) else None
        new = [vote for vote in after.votes if vote not in before.votes]
        for vote in new:
            ballot = self._way[done] if done < len(self._way) else None
            cast = ((vote.round, vote.step), vote.block_hash)
            if (
                ballot is not None
                and cast == (ballot.slot, ballot.block)
                and standings[place] == ballot.before
            ):
                standings = (*standings[:place], ballot.after, *standings[place + 1 :])
                done += 1
            elif vote.block_hash is not None:
                return None
        return standings, done
