"""Connections between simulated nodes: what `fog_node.network.peers` gives, over simulated air.

Each end of a connection is a real Peer with real Scores; frames are written, carried by the
air, parsed on arrival, and held against the budgets. A connection ends when either side
loses power, bans the other or has not been heard for IDLE_TIMEOUT_S; it is dialled again
every second. What TCP would have sent again after a loss is made up for as after a new
connection, and nobody is blamed for a frame that comes twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from fog_node.ledger.simulator.air import Air, Traffic
from fog_node.network import wire
from fog_node.network.certificates import PeerCertificate
from fog_node.network.peers import IDLE_TIMEOUT_S, STATUS_INTERVAL_S, Peer
from fog_node.network.score import Offence, Scores
from fog_node.protocol.votes import Vote, parse_proposal, parse_vote

if TYPE_CHECKING:
    from .node import SimulatedNode
    from .world import World

DIAL_INTERVAL_S = STATUS_INTERVAL_S

_parse_vote = lru_cache(16_384)(parse_vote)
_parse_message = lru_cache(4_096)(wire.parse_message)


def votes_of(message: wire.Message) -> list[Vote]:
    """Return the votes that a message carries on their own."""
    return [_parse_vote(raw) for raw in message.raw] if isinstance(message, wire.Votes) else []


def message_of(frame: bytes) -> wire.Message:
    """Parse a frame, length included."""
    return _parse_message(frame[wire.LENGTH.size :])


class _Stream:
    """The writing side of a connection, and its transport."""

    def __init__(self, links: Links, here: int, there: int) -> None:
        self._links = links
        self._link = (here, there)
        self._is_closed = False

    @property
    def transport(self) -> _Stream:
        return self

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._is_closed

    def abort(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._links.close(*self._link)

    def write(self, frame: bytes) -> None:
        self._links.carry(*self._link, frame)


class SimulatedPeer(Peer):
    """A node as another one sees it, for as long as a connection lasts."""

    def __init__(
        self, owner: SimulatedNode, other: SimulatedNode, dialled: bool, scores: Scores
    ) -> None:
        stream = cast("asyncio.StreamWriter", _Stream(owner.world.links, owner.index, other.index))
        super().__init__(
            PeerCertificate(other.key.kid, other.name, b"%d" % other.index),
            other.name,
            dialled,
            (cast("asyncio.StreamReader", None), stream),
            scores,
        )
        self.index = other.index
        self._owner = owner
        self._other = other

    @property
    def is_authorised(self) -> bool:
        """Whether its owner still lets it be a peer."""
        return self._owner.authorises(self._other, self.dialled)

    def offend(self, offence: Offence, reason: str) -> None:
        """Hold an offence against it; the run fails where neither of the two is a liar."""
        self._owner.world.saw_offence(self._owner, self.index, f"{offence.name}: {reason}")
        super().offend(offence, reason)


class SimulatedPeers:
    """All connections of one node; what Agreement knows as a PeerNetwork."""

    def __init__(self, node: SimulatedNode, status: Callable[[], wire.Status]) -> None:
        self._node = node
        self._status = status
        self._open: dict[int, SimulatedPeer] = {}
        self.scores = Scores()

    @property
    def peers(self) -> list[SimulatedPeer]:
        """Live connections."""
        return list(self._open.values())

    def peer(self, index: int) -> SimulatedPeer | None:
        """Return the connection to a node, if there is one."""
        return self._open.get(index)

    def connect(self, other: SimulatedNode, dialled: bool) -> SimulatedPeer:
        """Begin a connection, which one of the two has dialled."""
        peer = SimulatedPeer(self._node, other, dialled, self.scores)
        self._open[other.index] = peer
        return peer

    def disconnect(self, index: int) -> None:
        """End a connection."""
        peer = self._open.pop(index, None)
        if peer is not None:
            peer.close("simulated")

    def drop_unauthorised(self) -> None:
        """Cut off who may not connect any more."""
        for peer in self.peers:
            if not peer.is_authorised:
                peer.close("is no member any more")

    def announce(self) -> None:
        """Tell all peers where this node stands."""
        self.broadcast(self._status())

    def broadcast(self, message: wire.Message, but: Iterable[bytes] = ()) -> None:
        """Send a message to all, in order; the power may go between two of them."""
        frame = wire.encode_message(message)
        for peer in self.peers:
            if peer.kid not in but:
                self._node.may_crash("half-way through sending")
                peer.send_frame(frame)
        self._node.sent(message)


class Links:
    """The state of each connection, and the frames on their way."""

    def __init__(self, world: World, air: Air) -> None:
        self._world = world
        self._air = air
        self._owing: set[tuple[int, int]] = set()
        self._last_heard: dict[tuple[int, int], float] = {}
        # How many connections a pair has had: what was sent over an earlier one is lost.
        self._count: Counter[tuple[int, int]] = Counter()
        # What is sent goes to one peer after the other.
        self._latest: tuple[bytes, wire.Message] | None = None

    def carry(self, sender: int, receiver: int, frame: bytes) -> None:
        """Send a frame into the air."""
        world = self._world
        if not world.nodes[sender].is_up:
            return
        if self._latest is None or self._latest[0] is not frame:
            self._latest = frame, message_of(frame)
        message = self._latest[1]
        world.nodes[sender].sends(message)
        if isinstance(message, wire.Proposal):
            world.saw_proposal(message)
        link = (sender, receiver)
        parts = _parts(message)
        passing, arrivals = self._air.carry(world.now_ms, link, parts, self._look)
        if not arrivals:
            if isinstance(message, wire.Transactions):
                self._owing.add(_pair(*link))
            return
        if len(passing) < len(parts):
            raw = [part for part in passing if isinstance(part, bytes)]
            frame = wire.encode_message(wire.Votes(raw))
            message = message_of(frame)
        count = self._count[_pair(*link)]
        for number, at_ms in enumerate(arrivals):
            world.at(at_ms, self._arrive, link, count, (message, len(frame)), number > 0)

    def close(self, one: int, other: int) -> None:
        """End a connection, on both sides."""
        for here, there in ((one, other), (other, one)):
            if self._world.nodes[here].starts:
                self._world.nodes[here].peers.disconnect(there)

    def lose(self, index: int) -> None:
        """End all connections of a node that went down."""
        for peer in self._world.nodes[index].peers.peers:
            self.close(index, peer.index)

    def dial(self) -> None:
        """Connect who can be connected; end what has been dead for too long."""
        world = self._world
        now_s = world.now_ms / 1000
        for one in world.nodes:
            for other in world.nodes[one.index + 1 :]:
                pair = (one.index, other.index)
                if not (one.is_up and other.is_up) or one.fork or other.fork:
                    continue
                if other.index in self._air.reach[one.index]:
                    self._last_heard[pair] = now_s
                    if one.peers.peer(other.index) is None or pair in self._owing:
                        self._connect(one, other)
                elif now_s - self._last_heard.get(pair, 0.0) > IDLE_TIMEOUT_S:
                    self.close(*pair)

    def _connect(self, one: SimulatedNode, other: SimulatedNode) -> None:
        now_s = self._world.now_ms / 1000
        for here, there in ((one, other), (other, one)):
            if here.peers.scores.is_banned(there.key.kid, now_s):
                return
        # Either may have dialled: one of them has to know the other.
        pairs = ((one, other), (other, one))
        dialler = next((pair[0] for pair in pairs if _may_connect(*pair)), None)
        if dialler is None:
            self._world.count("connections refused")
            return
        self._owing.discard((one.index, other.index))
        self.close(one.index, other.index)
        self._count[one.index, other.index] += 1
        ends = one.peers.connect(other, dialler is one), other.peers.connect(one, dialler is other)
        one.joined(ends[0])
        other.joined(ends[1])

    def _arrive(
        self, link: tuple[int, int], count: int, sent: tuple[wire.Message, int], is_copy: bool
    ) -> None:
        sender, receiver = link
        if count != self._count[_pair(*link)]:
            return
        node = self._world.nodes[receiver]
        peer = node.peers.peer(sender) if node.is_up else None
        if peer is None or node.fork is not None:
            return
        message, size = sent
        if is_copy and (message.KIND in wire.ANSWERS or message.KIND in wire.ANSWERS.values()):
            return  # TCP brings nothing twice, and of these each one is counted
        peer.frame_bytes = size
        look = node.peers.scores.take(peer.kid, message.KIND, size, self._world.now_ms / 1000)
        if not peer.was_asked(message):
            peer.offend(Offence.UNASKED, f"sends {message.KIND} that nobody asked for")
        elif look:
            node.receive(peer, message)

    def _look(self, part: wire.Message | bytes) -> Traffic:
        place = self._world.place_of
        if isinstance(part, bytes):
            vote = _parse_vote(part)
            return Traffic("vote", vote.height, vote.round, vote.step, place(vote.validator))
        if isinstance(part, wire.Proposal):
            header = parse_proposal(part.header)
            return Traffic("proposal", header.height, header.round, voter=place(header.validator))
        if isinstance(part, wire.Blocks):
            return Traffic("final", part.first)
        return Traffic("other")


def _parts(message: wire.Message) -> list[wire.Message | bytes]:
    """Each vote has a fate of its own."""
    return list(message.raw) if isinstance(message, wire.Votes) else [message]


def _may_connect(dialler: SimulatedNode, other: SimulatedNode) -> bool:
    return dialler.authorises(other, True) and other.authorises(dialler, False)


def _pair(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)
