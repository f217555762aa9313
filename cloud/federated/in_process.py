"""Sites in this process instead of behind a network: for trials with many runs, and for tests.

Coordinator, strategies and sites are those of the real thing; only SuperLink and SuperNodes are
not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message_type import MessageType
from flwr.serverapp import Grid

from cloud.train.rul_data import Units

from .masked import is_masked, take_part
from .messages import answer, asked, introduction
from .network import Arrays
from .scales import Scales
from .site import Site, Update

# What a site sends instead of what it has learned; takes what came in, and that.
Lie = Callable[[Arrays, Update], Update]


@dataclass(frozen=True)
class Member:
    """A site of a trial.

    Attributes:
        name, units: of the site.
        lie: what it does to its updates; None for an honest one.
        away: rounds in which it gives no answer.
        answers: so many exchanges of such a round it does answer; with masks there are several.
    """

    name: str
    units: Units
    lie: Lie | None = None
    away: frozenset[int] = frozenset()
    answers: int = 0


def turned_round(before: Arrays, update: Update, times: float = 10.0) -> Update:
    """A poisoned update: as far away from what was learned as `times` would have taken it there."""
    arrays = [
        (old - times * (new - old)).astype(np.float32)
        for old, new in zip(before, update.arrays, strict=True)
    ]
    return replace(update, arrays=arrays)


class InProcessGrid(Grid):  # type: ignore[misc] # Flower is in an environment of its own
    """Flower's Grid with the sites behind it."""

    def __init__(self, members: list[Member], noise_seed: int | None = None) -> None:
        """Nodes are numbered from 1.

        Args:
            members: the sites.
            noise_seed: of the sites' noise, so that a trial can be repeated; by default nobody
                can.
        """
        self._members = dict(enumerate(members, start=1))
        self._sites: dict[int, Site] = {}
        self._contexts = {node: Context(0, node, {}, RecordDict(), {}) for node in self._members}
        self._turns: Counter[tuple[int, str]] = Counter()
        self._noise_seed = noise_seed

    def set_run(self, run: Any) -> None:
        """There is one only."""

    @property
    def run(self) -> Any:
        """There is none to speak of."""
        raise NotImplementedError

    def create_message(self, *_: Any, **__: Any) -> Message:
        """Flower's former way; `Message` itself is the present one."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """All are there."""
        return list(self._members)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `send_and_receive`."""
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `send_and_receive`."""
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Have each site answer at once, in turn."""
        del timeout
        return [reply for one in messages if (reply := self._answer(one)) is not None]

    def _answer(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        member = self._members[node]
        if message.metadata.message_type == MessageType.QUERY:
            said = introduction(member.name, Scales.of(member.units))
            return Message(said, reply_to=message)
        turn = (node, message.metadata.group_id)
        self._turns[turn] += 1
        if int(message.metadata.group_id) in member.away and self._turns[turn] > member.answers:
            return None
        try:
            if not is_masked(message):
                return self._learn(message, self._contexts[node])
            # Messages for several sites share what they hold, and Flower's wrapper takes it out.
            own = Message(deepcopy(message.content), node, MessageType.TRAIN)
            reply = take_part(own, self._contexts[node], self._learn)
        except ValueError as error:
            return Message(Error(0, str(error)), reply_to=message)
        return Message(reply.content, reply_to=message)

    def _learn(self, message: Message, context: Context) -> Message:
        node, member = context.node_id, self._members[context.node_id]
        arrays, task, preparation = asked(message)
        if node not in self._sites:
            self._sites[node] = Site(member.name, member.units, preparation)
        random = None
        if self._noise_seed is not None:
            random = np.random.default_rng([self._noise_seed, node, task.round])
        update = self._sites[node].work(arrays, task, random)
        if member.lie is not None:
            update = member.lie(arrays, update)
        return Message(answer(update.arrays, update.examples, update.rmse), reply_to=message)
