"""What one validator may do next, whatever reaches it of the messages that are about.

A step that nobody else can tell from nothing is not tried at every moment: a message that
changes no more than what a validator knows may as well come just before the one that makes
a difference, and one that makes none is left for later. Each rule looks at the votes of one
round and step, one per validator, and at one block; so a validator takes in that much at
most before it moves (`is_thorough` lifts that bound). Then it forgets what can reach it
again and would make it the same again; that this is so is tried on the machine each time,
not assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from fog_node.ledger.consensus_messages import Proposal
from fog_node.protocol.votes import NO_ROUND, PRECOMMIT, PREVOTE, Vote

from .network import Network
from .replica import Event, Message, Mining, Nursery, Replica, Restart


@dataclass(frozen=True)
class Move:
    """A way to get on.

    Attributes:
        replica: what the validator is then.
        took_in: messages that changed what it knows.
        event: what then made it move.
    """

    replica: Replica
    took_in: frozenset[Message]
    event: Event | Restart


Path = tuple[Move, ...]


class Chooser:
    """Finds the moves of a validator.

    Attributes:
        nursery: gives what each event leads to.
    """

    def __init__(self, network: Network, nursery: Nursery, is_thorough: bool = False) -> None:
        self._network = network
        self._is_thorough = is_thorough
        self.nursery = nursery
        self._found: dict[tuple[Replica, frozenset[Message]], list[tuple[Replica, Path]]] = {}
        self._ordered: dict[frozenset[Message], list[Message]] = {}
        self._one: dict[Message, Message] = {}
        self._stages: dict[tuple[Replica, frozenset[Message]], list[Move]] = {}

    def choices(self, replica: Replica, messages: frozenset[Message]) -> list[tuple[Replica, Path]]:
        """Return what the validator may become when others next notice something of it."""
        case = (replica, messages)
        if case not in self._found:
            self._found[case] = self._search(replica, messages)
        return self._found[case]

    def _may_restart(self, replica: Replica) -> bool:
        most = self._network.restarts
        return most is None or replica.restarts < most

    def _search(self, replica: Replica, messages: frozenset[Message]) -> list[tuple[Replica, Path]]:
        if replica.certificate is not None:
            return []
        found: dict[Replica, Path] = {}
        seen = {replica}
        todo: list[tuple[Replica, Path]] = [(replica, ())]
        while todo:
            here, path = todo.pop()
            for move in self._moves(here, messages):
                there = move.replica
                if there.sent != here.sent or there.certificate is not None:
                    found.setdefault(there, (*path, move))
                elif there not in seen:
                    seen.add(there)
                    todo.append((there, (*path, move)))
        return list(found.items())

    def _moves(self, here: Replica, messages: frozenset[Message]) -> list[Move]:
        """Return the ways into another stage, or to say something."""
        case = (here, messages)
        if case not in self._stages:
            moves = sorted(self._all_moves(here, messages), key=lambda move: len(move.took_in))
            self._stages[case] = self._least(moves)
        return self._stages[case]

    def _all_moves(self, start: Replica, messages: frozenset[Message]) -> Iterator[Move]:
        if self._may_restart(start):
            yield from self._move(start, frozenset(), Restart())
        ordered = self._in_order(messages)
        for event in self._own_events(start, messages):
            yield from self._moves_by(start, frozenset(), event)
        if self._is_thorough:
            yield from self._moves_with(start, messages, ordered)
            return
        for slot in product(range(self._network.rounds), (PREVOTE, PRECOMMIT)):
            yield from self._moves_with(start, messages, _of_use(ordered, slot))

    def _moves_with(
        self, start: Replica, messages: frozenset[Message], incoming: list[Message]
    ) -> Iterator[Move]:
        told = [(m, m.validator if isinstance(m, Vote) else "block") for m in incoming]
        seen: set[tuple[Replica, frozenset[object]]] = set()
        todo: list[tuple[Replica, frozenset[object], frozenset[Message]]] = [
            (start, frozenset(), frozenset())
        ]
        while todo:
            here, used, took_in = todo.pop()
            if took_in:
                for event in self._own_events(here, messages):
                    yield from self._moves_by(here, took_in, event)
            for message, source in told:
                if source in used and not self._is_thorough:
                    continue
                there = self.nursery.after(here, message)
                if there is None or there is here:
                    continue
                if there.stage != here.stage or there.sent != here.sent or there.certificate:
                    yield from self._moves_by(here, took_in, message)
                    continue
                using = used if self._is_thorough else used | {source}
                if (there, using) not in seen:
                    seen.add((there, using))
                    todo.append((there, using, took_in | {message}))

    def _own_events(self, here: Replica, messages: frozenset[Message]) -> Iterator[Event]:
        yield from sorted(here.armed)
        if here.is_mining:
            news = {m.block_hash for m in messages if _is_new(m)}
            if len(news) < self._network.blocks:
                yield Mining(b"%s-%d" % (here.name, here.machine.round) + b"'" * here.restarts)

    def _moves_by(self, here: Replica, took_in: frozenset[Message], event: Event) -> Iterator[Move]:
        yield from self._move(here, took_in, event)
        if self._may_restart(here):
            for number, replica in enumerate(self.nursery.restarts(here, event), start=1):
                yield Move(self.nursery.least(replica), took_in, Restart(event, number))

    def _move(
        self, here: Replica, took_in: frozenset[Message], event: Event | Restart
    ) -> Iterator[Move]:
        there = self.nursery.after(here, event)
        if there is None or there is here:
            return
        if there.stage != here.stage or there.sent != here.sent or there.certificate:
            yield Move(self.nursery.least(there), took_in, event)

    def _least(self, moves: Iterable[Move]) -> list[Move]:
        kept: dict[tuple[object, ...], list[Move]] = {}
        for move in moves:
            there = move.replica
            rivals = kept.setdefault((there.stage, there.sent, there.certificate), [])
            if not any(self._leads_to(rival, move) for rival in rivals):
                rivals.append(move)
        return [move for group in kept.values() for move in group]

    def _in_order(self, messages: frozenset[Message]) -> list[Message]:
        if messages not in self._ordered:
            # Of those that are alike always the same one, which is told at a glance.
            ordered = sorted(messages, key=repr)
            self._ordered[messages] = [self._one.setdefault(item, item) for item in ordered]
        return self._ordered[messages]

    def _leads_to(self, less: Move, more: Move) -> bool:
        """Whether taking in the rest after `less` is the same as `more`, and goes unnoticed."""
        if less.replica is more.replica:
            return True
        if not less.took_in <= more.took_in:
            return False
        here = less.replica
        for message in self._in_order(more.took_in - less.took_in):
            there = self.nursery.after(here, message)
            if there is None or (there.stage, there.sent) != (here.stage, here.sent):
                return False
            here = there
        return here is more.replica


def _of_use(messages: list[Message], slot: tuple[int, int]) -> list[Message]:
    """Return what a rule about one round and step can look at.

    Of each validator its votes there; of one that has none there, those that show that it
    has passed; and all blocks.
    """
    votes = [message for message in messages if isinstance(message, Vote)]
    there = {vote.validator for vote in votes if (vote.round, vote.step) == slot}
    return [
        message
        for message in messages
        if not isinstance(message, Vote)
        or (message.round, message.step) == slot
        or (message.validator not in there and (message.round, message.step) > slot)
    ]


def _is_new(message: Message) -> bool:
    return isinstance(message, Proposal) and message.pol_round == NO_ROUND
