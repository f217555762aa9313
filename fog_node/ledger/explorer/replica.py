"""One honest validator as the explorer sees it: the real machine, its disk, and what it sent.

A Replica never changes; `Nursery.after` gives the one that an event leads to, and two that
would behave alike are the same object.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from fog_node.ledger.consensus import Consensus, Step
from fog_node.ledger.consensus_messages import (
    Action,
    Block,
    CastVote,
    Commit,
    HeightSetting,
    Lock,
    Mined,
    Proposal,
    Propose,
    SaveLock,
    SetTimer,
    Timer,
    TimerExpired,
    Timing,
    WorkAvailable,
)
from fog_node.protocol.votes import NO_ROUND, Certificate, Vote

# Nothing is measured in time here: a timer that runs may run out at any moment.
TIMING = Timing(propose_ms=1, vote_ms=1, stagger_ms=0, growth_ms=0, limit_ms=1)
_OF_PROPOSE = frozenset({Timer.PROPOSE, Timer.TURN})
_OF_VOTES = frozenset({Timer.PREVOTE, Timer.PRECOMMIT})
_DEAD_TIMERS = {
    Step.PROPOSE: frozenset({Timer.PREVOTE, Timer.REPROPOSE}),
    Step.PREVOTE: _OF_PROPOSE,
    Step.PRECOMMIT: _OF_PROPOSE | {Timer.PREVOTE},
    Step.COMMIT: frozenset(Timer),
}


class BrokenRuleError(AssertionError):
    """A validator did what no honest one may ever do."""


@dataclass(frozen=True)
class Restart:
    """Power goes, and comes back.

    Attributes:
        after: how many writes and sends are still done of what `event` asks for.
        event: what the validator was about; None where it was at rest.
    """

    event: Event | None = None
    after: int = 0


@dataclass(frozen=True)
class Mining:
    """The miner of a validator finds its block."""

    block: bytes


Message = Vote | Proposal | Block
Event = Message | Timer | Mining


@dataclass(frozen=True, eq=False)
class Replica:
    """See the module's docstring; compared by identity.

    Attributes:
        name: of the validator.
        sent: votes and proposals that have left it.
        armed: timers that may run out.
        certificate: of the block that it takes as final.
        restarts: how often it lost power; not counted where that may be at any time.
    """

    name: bytes
    machine: Consensus = field(repr=False)
    votes: tuple[Vote, ...]
    lock: Lock | None
    sent: frozenset[Message]
    armed: frozenset[Timer]
    certificate: Certificate | None
    restarts: int

    @cached_property
    def stage(self) -> tuple[object, ...]:
        """What others could not tell, but every rule begins with."""
        held = vars(self.machine)["_held"]
        held_round = NO_ROUND if held is None else held.round
        return self.machine.round, self.machine.step, held_round, self.restarts

    @cached_property
    def conduct(self) -> tuple[object, ...]:
        """Return all that decides how it will vote.

        Whose prevotes it holds a block for is none of that: they are only passed on.
        """
        held, lock = (
            lock and replace(lock, prevotes=()) for lock in (vars(self.machine)["_held"], self.lock)
        )
        content = _content(self.machine)
        others = tuple(part for part in content if not isinstance(part, Lock))
        return others, held, lock, self.votes, self.armed, self.restarts, self.certificate

    def known(self) -> list[Message]:
        """Return what it knows of others, in an order in which it may have come."""
        book = vars(vars(self.machine)["_book"])["_votes"]
        messages: list[Message] = [
            book[slot][who] for slot in sorted(book) for who in sorted(book[slot])
        ]
        held = vars(self.machine)["_held"]
        if held is not None:
            messages.append(Block(held.height, held.block_hash, held.block))
        for of_round in vars(self.machine)["_proposals"].values():
            messages += of_round.values()
        return messages

    @property
    def is_mining(self) -> bool:
        """Whether its miner may find a block."""
        return bool(vars(self.machine)["_mining"])


class _PowerCutError(Exception):
    pass


class Nursery:
    """Makes replicas, and remembers what leads where."""

    def __init__(self, setting: HeightSetting, rounds: int, counts: bool) -> None:
        """All of one height; a way that leads to round `rounds` is not followed.

        Args:
            counts: whether restarts are counted, and tell replicas apart.
        """
        self.setting = setting
        self._rounds = rounds
        self._counts = counts
        self._known: dict[tuple[object, ...], Replica] = {}
        self._after: dict[Replica, dict[object, Replica | None]] = {}
        self._least: dict[Replica, Replica] = {}

    def __len__(self) -> int:
        return len(self._known)

    @property
    def trials(self) -> int:
        """How many events replicas were tried with."""
        return sum(map(len, self._after.values()))

    def first(self, name: bytes) -> Replica:
        """Return a validator that has just come to this height, with work to do."""
        replica = self._start(name, (), None, frozenset(), 0)
        assert replica is not None
        return replica

    def after(self, replica: Replica, event: Event | Restart) -> Replica | None:
        """Return what becomes of a replica; None where that is beyond the bounds."""
        try:  # nearly always
            return self._after[replica][event]
        except KeyError:
            there = self._find(replica, event)
            self._after.setdefault(replica, {})[event] = there
            return there

    def restarts(self, replica: Replica, event: Event) -> Iterable[Replica]:
        """Cut the power after each of the writes and sends that an event asks for."""
        after = 1
        while (cut := self.after(replica, Restart(event, after))) is not None:
            yield cut
            after += 1

    def least(self, replica: Replica) -> Replica:
        """Return the same validator with nothing in mind but its own votes and its lock.

        It can do all that the replica can: what was known reaches it again, which makes it
        the same again. That is tried here; where it fails, the replica stays as it is.
        """
        if replica not in self._least:
            self._least[replica] = self._find_least(replica)
        return self._least[replica]

    def rested(self, replica: Replica) -> Replica:
        """Return the same validator with nothing in mind but its latest vote and its lock.

        Its earlier votes are about like everybody's. Nor does it plan to propose again: that
        casts no vote, and whoever looks at votes alone takes it that anybody has.
        """
        machine = _copied(replica.machine)
        vars(machine)["_timers"].discard(Timer.REPROPOSE)
        votes = sorted(replica.votes, key=lambda vote: (vote.round, vote.step))[-1:]
        draft = _Draft(
            machine=machine,
            votes=votes,
            lock=replica.lock,
            sent=set(),
            armed=set(replica.armed - {Timer.REPROPOSE}),
            certificate=replica.certificate,
        )
        alike = self._keep(replica.name, draft, replica.restarts)
        assert alike is not None
        return self.least(alike)

    def _find_least(self, replica: Replica) -> Replica:
        if replica.certificate is not None:
            return replica
        machine = _copied(replica.machine)
        inner, book = vars(machine), vars(vars(machine)["_book"])
        me = replica.name
        own = set(replica.votes)
        mine = {slot: of[me] for slot, of in book["_votes"].items() if of.get(me) in own}
        book["_votes"] = {slot: {me: vote} for slot, vote in mine.items()}
        book["latest"] = {me: book["latest"][me]} if me in book["latest"] else {}
        book["polkas"], book["decisions"] = {}, {}
        inner["_proposals"], inner["_wanted"] = {}, []
        # Set again by the votes that set them.
        inner["_timers"] -= _OF_VOTES
        draft = _Draft(
            machine,
            list(replica.votes),
            replica.lock,
            set(replica.sent),
            set(replica.armed - _OF_VOTES),
            None,
        )
        bare = self._keep(me, draft, replica.restarts)
        assert bare is not None
        here = bare
        for message in replica.known():
            there = self.after(here, message)
            if there is None or (there.stage, there.sent) != (here.stage, here.sent):
                return replica
            here = there
        return bare if here is replica else replica

    def _find(self, replica: Replica, event: Event | Restart) -> Replica | None:
        if not isinstance(event, Restart):
            return self._run(replica, event, None)
        if event.event is None:
            return self._start(
                replica.name,
                replica.votes,
                replica.lock,
                replica.sent,
                replica.restarts + self._counts,
            )
        return self._run(replica, event.event, event.after)

    def _start(
        self,
        name: bytes,
        votes: tuple[Vote, ...],
        lock: Lock | None,
        sent: frozenset[Message],
        restarts: int,
    ) -> Replica | None:
        machine = Consensus(name, TIMING, self.setting)
        # What is on disk a peer that asks will get.
        draft = _Draft(machine, list(votes), lock, set(sent | set(votes)), set(), None)
        draft.work_off(machine.restore(votes, lock))
        draft.work_off(machine.handle(WorkAvailable(available=True)))
        return self._keep(name, draft, restarts)

    def _run(self, replica: Replica, event: Event, cut_after: int | None) -> Replica | None:
        machine = _copied(replica.machine)
        draft = _Draft(
            machine,
            list(replica.votes),
            replica.lock,
            set(replica.sent),
            set(replica.armed),
            replica.certificate,
            cut_after,
        )
        height, round_ = self.setting.height, machine.round
        if isinstance(event, Timer):
            draft.armed.discard(event)
            fed: Any = TimerExpired(event, height, round_)
        elif isinstance(event, Mining):
            fed = Mined(height, round_, event.block, event.block)
        else:
            fed = event
        try:
            draft.work_off(machine.handle(fed))
        except _PowerCutError:
            return self._start(
                replica.name,
                tuple(draft.votes),
                draft.lock,
                frozenset(draft.sent),
                replica.restarts + self._counts,
            )
        if cut_after is not None:
            return None  # it was done before the power went
        return self._keep(replica.name, draft, replica.restarts)

    def _keep(self, name: bytes, draft: _Draft, restarts: int) -> Replica | None:
        machine = draft.machine
        if machine.round >= self._rounds:
            return None
        _forget(machine)
        armed = frozenset(draft.armed & vars(machine)["_timers"])
        # Who has decided does nothing more: what it knows makes no difference.
        content: tuple[object, ...] = (
            _content(machine),
            tuple(draft.votes),
            draft.lock,
            armed,
        )
        decided = draft.certificate
        sent = frozenset(draft.sent)
        if decided is not None:
            content = (decided.round, decided.block_hash)
        key = (name, content, sent, restarts)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Replica(
                name=name,
                machine=machine,
                votes=tuple(draft.votes),
                lock=draft.lock,
                sent=sent,
                armed=armed,
                certificate=draft.certificate,
                restarts=restarts,
            )
        return known


@dataclass
class _Draft:
    """A replica while it works off what its machine asks for."""

    machine: Consensus
    votes: list[Vote]
    lock: Lock | None
    sent: set[Message]
    armed: set[Timer]
    certificate: Certificate | None
    power_left: int | None = None

    def work_off(self, actions: list[Action]) -> None:
        todo = deque(actions)
        while todo:
            todo.extend(self._do(todo.popleft()))

    def _do(self, action: Action) -> list[Action]:
        name = vars(self.machine)["_me"]
        match action:
            case CastVote():
                vote = Vote(name, action.height, action.round, action.step, action.block_hash, b"")
                self._write(vote)
                self._send(vote)
                return self.machine.handle(vote)
            case Propose():
                proposal = Proposal(
                    validator=name,
                    height=action.height,
                    round=action.round,
                    pol_round=action.pol_round,
                    block_hash=action.block_hash,
                    block=action.block,
                    justification=action.justification,
                    raw=b"",
                )
                self._send(proposal)
                return self.machine.handle(proposal)
            case SaveLock():
                self.lock = action.lock
                self._use_power()
            case SetTimer():
                if action.round == self.machine.round:
                    self.armed.add(action.kind)
            case Commit():
                self.certificate = action.certificate
        return []

    def _write(self, vote: Vote) -> None:
        for other in self.votes:
            if other.slot == vote.slot and other.block_hash != vote.block_hash:
                raise BrokenRuleError(f"{vote.validator.decode()} contradicts itself: {vote}")
        self.votes.append(vote)
        self._use_power()

    def _send(self, message: Message) -> None:
        self.sent.add(message)
        self._use_power()

    def _use_power(self) -> None:
        if self.power_left is not None:
            self.power_left -= 1
            if self.power_left == 0:
                raise _PowerCutError


def _forget(machine: Consensus) -> None:
    """Drop what has no effect, or comes again when it has.

    Timers of a step that is over do nothing; nor do proposals of an earlier round; a block
    is asked for when a quorum has voted for it; whom it has reported is said once anyhow.
    """
    inner = vars(machine)
    round_, held = machine.round, inner["_held"]
    inner["_reported"].clear()
    inner["_timers"] -= _DEAD_TIMERS[machine.step]
    proposals = {r: p for r, p in inner["_proposals"].items() if r >= round_}
    blocks = {p.block_hash: p.block for of in proposals.values() for p in of.values()}
    if held is not None:
        blocks[held.block_hash] = held.block
    inner["_proposals"], inner["_blocks"] = proposals, blocks


def _copied(machine: Consensus) -> Consensus:
    copy = object.__new__(type(machine))
    inner = vars(copy)
    inner.update(vars(machine))
    for name in ("_actions", "_wanted"):
        inner[name] = list(inner[name])
    for name in ("_blocks", "_timers", "_reported"):
        inner[name] = inner[name].copy()
    inner["_proposals"] = {r: dict(of) for r, of in inner["_proposals"].items()}
    book = object.__new__(type(inner["_book"]))
    vars(book).update(vars(inner["_book"]))
    for name in ("polkas", "decisions", "latest"):
        setattr(book, name, dict(getattr(book, name)))
    vars(book)["_votes"] = {slot: dict(of) for slot, of in vars(book)["_votes"].items()}
    inner["_book"] = book
    return copy


def _content(machine: Consensus) -> tuple[object, ...]:
    """Return all that decides what a machine will do; see `_forget` for what does not."""
    inner = vars(machine)
    book = vars(inner["_book"])
    return (
        machine.round,
        machine.step,
        inner["_mining"],
        inner["_turn"],
        inner["_held"],
        frozenset(inner["_timers"]),
        frozenset(inner["_wanted"]),
        frozenset(vote for of in book["_votes"].values() for vote in of.values()),
        frozenset(book["latest"].values()),
        frozenset((r, p) for r, of in inner["_proposals"].items() for p in of.values()),
    )


def describe(message: object) -> str:
    """Say what a message is, for people."""
    if isinstance(message, Vote):
        step = "prevote" if message.step == 1 else "precommit"
        return f"{step} {_called(message.block_hash)} in round {message.round}"
    if isinstance(message, Proposal):
        again = f", justified by round {message.pol_round}" if message.pol_round >= 0 else ""
        return f"proposal {_called(message.block_hash)} in round {message.round}{again}"
    if isinstance(message, Block):
        return f"block {_called(message.block_hash)}"
    return str(message)


def _called(block_hash: bytes | None) -> str:
    return "no block" if block_hash is None else block_hash.decode()
