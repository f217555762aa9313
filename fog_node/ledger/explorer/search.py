"""Goes through all that can happen, and looks at each state once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from fog_node.ledger.consensus_messages import Block, Proposal
from fog_node.ledger.vote_book import VoteBook, find_equivocations
from fog_node.protocol.votes import Certificate, Vote

from .local import Chooser, Move, Path
from .network import Network
from .replica import Message, Mining, Nursery, Replica, Restart, describe

Replicas = tuple[Replica, ...]


@dataclass(frozen=True)
class State:
    """All honest validators at one moment, and the blocks that a liar came with."""

    replicas: Replicas
    lies: frozenset[Message]

    @property
    def certificates(self) -> list[Certificate]:
        """Of the blocks that somebody takes as final, each once."""
        found = {r.certificate.block_hash: r.certificate for r in self.replicas if r.certificate}
        return list(found.values())


@dataclass(frozen=True)
class Step:
    """One validator did something."""

    replica_before: Replica
    path: Path


@dataclass
class Result:
    """What an exploration came to.

    Attributes:
        states: of the whole network; each was looked at once.
        transitions: from one of them to another.
        replicas: states of single validators.
        decided: states in which somebody has decided.
        forks: states in which two have decided differently.
        same_round, other_rounds: forks by whether their certificates are of one round.
        fork: the shortest way to one, if there is any.
        is_complete: whether all states within the bounds were looked at.
    """

    network: Network
    states: int = 0
    transitions: int = 0
    replicas: int = 0
    decided: int = 0
    forks: int = 0
    same_round: int = 0
    other_rounds: int = 0
    fork: list[Step] | None = None
    fork_state: State | None = None
    is_complete: bool = True


class UnfairError(AssertionError):
    """A fork convicts the wrong one, or nobody where somebody must be convicted."""


def explore(
    network: Network,
    max_states: int | None = None,
    is_thorough: bool = False,
    progress: Callable[[Result], None] | None = None,
) -> Result:
    """Look at every state that the network can get into.

    Args:
        max_states: give up after so many.
        is_thorough: do without the bound on what a validator takes in before it moves.
        progress: is told now and then how far it is.

    Raises:
        BrokenRuleError: an honest validator contradicted itself.
        UnfairError: a fork does not convict whom it must.
    """
    nursery = Nursery(network.setting, network.rounds, counts=network.restarts is not None)
    chooser = Chooser(network, nursery, is_thorough)
    result = Result(network)
    parents: dict[State, tuple[State, Step] | None] = {}
    todo: deque[State] = deque()
    first = tuple(nursery.first(name) for name in network.honest)
    for lies in network.lies():
        start = State(first, lies)
        parents[start] = None
        todo.append(start)
    while todo:
        if max_states is not None and result.states >= max_states:
            result.is_complete = False
            break
        state = todo.popleft()
        result.states += 1
        _judge(state, result, parents)
        messages = network.messages(state.lies.union(*(r.sent for r in state.replicas)))
        for place, replica in enumerate(state.replicas):
            for other, path in chooser.choices(replica, messages):
                result.transitions += 1
                replicas = (*state.replicas[:place], other, *state.replicas[place + 1 :])
                following = State(replicas, state.lies)
                if following not in parents:
                    parents[following] = (state, Step(replica, path))
                    todo.append(following)
        if progress is not None and result.states % 10_000 == 0:
            result.replicas = len(nursery)
            progress(result)
    result.replicas = len(nursery)
    return result


def _judge(state: State, result: Result, parents: dict[State, tuple[State, Step] | None]) -> None:
    certificates = state.certificates
    result.decided += bool(certificates)
    for certificate in certificates:
        voters = {vote.validator for vote in certificate.votes}
        if len(voters) < result.network.quorum:
            raise UnfairError(f"a certificate of {len(voters)} voters")
    if len(certificates) < 2:
        return
    result.forks += 1
    is_same_round = len({certificate.round for certificate in certificates}) == 1
    result.same_round += is_same_round
    result.other_rounds += not is_same_round
    check_conviction(result.network, certificates)
    if result.fork is None:
        result.fork, result.fork_state = [], state
        at: State = state
        while (before := parents[at]) is not None:
            at, step = before
            result.fork.insert(0, step)


def check_conviction(network: Network, certificates: list[Certificate]) -> list[tuple[Vote, Vote]]:
    """Return the evidence in two certificates of one height.

    Raises UnfairError where one round's certificates convict anybody but the liar, or where
    those of different rounds convict somebody.
    """
    one, two = certificates[:2]
    pairs = find_equivocations([*one.votes, *two.votes])
    convicted = {vote.validator for vote, _ in pairs}
    wanted = {network.liar_name} if network.liar and one.round == two.round else set()
    if convicted != wanted:
        raise UnfairError(f"rounds {one.round} and {two.round} convict {sorted(convicted)}")
    book = VoteBook(network.names, network.quorum)
    for vote in (*one.votes, *two.votes):
        earlier = book.add(vote)
        if (earlier is not None) != any(vote is later for _, later in pairs):
            raise UnfairError(f"whoever holds both votes overlooks {vote}")
    return pairs


def told(steps: list[Step]) -> list[str]:
    """Tell a way through in words, a line per thing done."""
    lines = []
    for step in steps:
        name = step.replica_before.name.decode()
        for number, move in enumerate(step.path):
            before = step.path[number - 1].replica if number else step.replica_before
            lines += [
                f"{name} takes in {describe(message)}{_source(message)}"
                for message in sorted(move.took_in, key=repr)
            ]
            lines.append(_line(before, move))
    return lines


def _line(before: Replica, move: Move) -> str:
    name, after = before.name.decode(), move.replica
    if isinstance(move.event, Restart):
        cause = f"{name} loses power and starts again"
    elif isinstance(move.event, Vote | Proposal | Block):
        cause = f"{name} takes in {describe(move.event)}{_source(move.event)}"
    elif isinstance(move.event, Mining):
        cause = f"{name} finds block {move.event.block.decode()}"
    else:
        cause = f"{name} has waited long enough ({move.event.value})"
    outcome = [describe(message) for message in sorted(after.sent - before.sent, key=repr)]
    if after.certificate is not None:
        block, round_ = after.certificate.block_hash.decode(), after.certificate.round
        outcome.append(f"takes {block} as final, by round {round_}")
    return f"{cause}: {'; '.join(outcome)}" if outcome else cause


def _source(message: Message) -> str:
    return "" if isinstance(message, Block) else f" of {message.validator.decode()}"
