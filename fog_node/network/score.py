"""What each peer costs and breaks: budgets, points and bans. The time, in s, is an argument.

`points`, `is_banned` and `banned` may be asked from any thread; the rest is the event loop's.

Two things are kept apart. A *budget* bounds what a peer can make this node do, whoever it is:
beyond it its messages are not looked at (what they say is said again, by it or by others) or its
connection is read more slowly. Nobody is banned for a budget: an honest node that catches up or
floods us under load must not be. *Points* are for what no honest node does; at BAN_POINTS a peer
is cut off and refused for a time that doubles with each ban.

Standings are by member, not by connection: who reconnects finds them as they were. They last as
long as the process; no more than all members can have one.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv6Address, ip_address

MIB = 1024 * 1024

# Points. Who breaks the protocol outright (bytes that do not parse, a signature that does not
# verify) is banned at once; the rest may add up. They fade with time.
BAN_POINTS = 100.0
FADE_POINTS_PER_S = 10.0 / 60
BAN_S = 30.0
BAN_LIMIT_S = 3600.0
# Who kept quiet for so long after a ban begins with BAN_S again.
FORGIVE_S = 4 * 3600.0

# Budgets of one peer, (per s, at once). Beyond them its connection is read more slowly:
BYTES = (32.0 * MIB, 128.0 * MIB)
MESSAGES = (2000.0, 8000.0)
# beyond these, messages of the kind are not looked at:
KINDS = {
    "status": (20.0, 100.0),
    "votes": (200.0, 1000.0),
    "proposal": (8.0, 64.0),
    "candidate": (8.0, 64.0),
    "get-blocks": (20.0, 100.0),
    "get-headers": (20.0, 100.0),
    "get-blob": (50.0, 200.0),
}
ANY_KIND = (1000.0, 4000.0)
# beyond this, its votes are not looked at: votes and proposals that were not known, to be parsed
# and verified,
VERIFICATIONS = (1024.0, 4096.0)
# and beyond this, its transactions: what was refused or final already, weighed by its cost.
USELESS = (2000.0, 16384.0)
REFUSED_COST = 4.0
STALE_COST = 1.0
# A connection that comes again and again is sent all that waits here each time.
JOINS = (0.5, 20.0)

# Connections that have not said hello yet, in all and per address, and new ones per s.
MAX_GREETING = 64
MAX_GREETING_PER_ADDRESS = 16
MAX_GREETING_PER_MEMBER = 4
CONNECTS = (128.0, 512.0)
CONNECTS_PER_ADDRESS = (32.0, 128.0)
MAX_ADDRESSES = 4096
# Who holds an IPv6 address usually holds the /64 around it.
IPV6_PREFIX = 64

# Lines about refused connections, (per s, at once); the next line tells how many were left out.
LINES = (0.1, 8.0)


class Offence(Enum):
    """What no honest peer does, with its points."""

    PROTOCOL = 100.0
    BAD_BLOCK = 34.0
    FORGED_TRANSACTION = 25.0
    UNASKED = 10.0


@dataclass
class Bucket:
    """Tokens that come back at a steady rate, `limit` = (per s, at most)."""

    limit: tuple[float, float]
    at: float
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.limit[1]

    def refill(self, now: float) -> None:
        """Add what has come back since the last time."""
        rate, burst = self.limit
        self.tokens = min(burst, self.tokens + max(0.0, now - self.at) * rate)
        self.at = now

    def take(self, amount: float, now: float) -> bool:
        """Take so many, and tell whether there were as many."""
        self.refill(now)
        if self.tokens < amount:
            return False
        self.tokens -= amount
        return True

    def charge(self, amount: float, now: float) -> None:
        """Take so many even where that leaves a debt."""
        self.refill(now)
        self.tokens -= amount

    def wait_s(self, now: float) -> float:
        """How long until there is no debt."""
        self.refill(now)
        return max(0.0, -self.tokens / self.limit[0])


@dataclass(frozen=True)
class Ban:
    """A member that is not listened to.

    Attributes:
        until: when it may come again, on the clock that `now` is of.
        times: how often it was banned lately.
    """

    kid: bytes
    reason: str
    until: float
    times: int


@dataclass
class Standing:
    """What is held for and against one member.

    Attributes:
        shed: messages that were not looked at.
        paused_s: how long its connection was not read.
        offences: how many.
    """

    now: float
    points: float = 0.0
    at: float = 0.0
    reason: str = ""
    banned_until: float = float("-inf")
    bans: int = 0
    offences: int = 0
    shed: int = 0
    paused_s: float = 0.0

    def __post_init__(self) -> None:
        self.at = self.now
        self.bytes = Bucket(BYTES, self.now)
        self.messages = Bucket(MESSAGES, self.now)
        self.verifications = Bucket(VERIFICATIONS, self.now)
        self.useless = Bucket(USELESS, self.now)
        self.joins = Bucket(JOINS, self.now)
        self.kinds: dict[str, Bucket] = {}


class Scores:
    """The standings of all members that have connected.

    Attributes:
        misses: how often in a row each had no use as a source of blocks.
    """

    def __init__(self) -> None:
        self.misses: Counter[bytes] = Counter()
        self._standings: dict[bytes, Standing] = {}

    def of(self, kid: bytes, now: float) -> Standing:
        """The standing of a member; a clean one at first."""
        found = self._standings.get(kid)
        if found is None:
            found = self._standings[kid] = Standing(now)
        return found

    def take(self, kid: bytes, kind: str, size: int, now: float) -> bool:
        """Count a message of `size` bytes; returns whether to look at it."""
        standing = self.of(kid, now)
        standing.bytes.charge(size, now)
        standing.messages.charge(1, now)
        bucket = standing.kinds.get(kind)
        if bucket is None:
            bucket = standing.kinds[kind] = Bucket(KINDS.get(kind, ANY_KIND), now)
        within = bucket.take(1, now)
        if kind == "votes":
            within = within and standing.verifications.wait_s(now) == 0
        if kind == "transactions":
            within = within and standing.useless.wait_s(now) == 0
        standing.shed += not within
        return within

    def pause_s(self, kid: bytes, now: float) -> float:
        """How long to wait before its next message is read."""
        standing = self.of(kid, now)
        pause = max(standing.bytes.wait_s(now), standing.messages.wait_s(now))
        standing.paused_s += pause
        return pause

    def verified(self, kid: bytes, signatures: int, now: float) -> None:
        """Count votes and proposals that had to be parsed, and mostly verified, for it."""
        self.of(kid, now).verifications.charge(signatures, now)

    def useless(self, kid: bytes, refused: int, stale: int, now: float) -> None:
        """Count transactions that were refused, or final here already."""
        cost = refused * REFUSED_COST + stale * STALE_COST
        self.of(kid, now).useless.charge(cost, now)

    def may_join(self, kid: bytes, now: float) -> bool:
        """Count a new connection; returns whether it is to be had."""
        return self.of(kid, now).joins.take(1, now)

    def points(self, kid: bytes, now: float) -> float:
        """The points of a member, faded to now."""
        standing = self.of(kid, now)
        return max(0.0, standing.points - max(0.0, now - standing.at) * FADE_POINTS_PER_S)

    def offend(self, kid: bytes, offence: Offence, reason: str, now: float) -> Ban | None:
        """Note an offence; returns the ban where it leads to one."""
        standing = self.of(kid, now)
        standing.offences += 1
        standing.points = self.points(kid, now) + offence.value
        standing.at = now
        if standing.points < BAN_POINTS:
            return None
        if now > standing.banned_until + FORGIVE_S:
            standing.bans = 0
        lasts = min(BAN_S * 2**standing.bans, BAN_LIMIT_S)
        standing.bans += 1
        standing.points = 0.0
        standing.reason = reason
        standing.banned_until = now + lasts
        return Ban(kid, reason, standing.banned_until, standing.bans)

    def is_banned(self, kid: bytes, now: float) -> bool:
        """Whether a member is not to be listened to now."""
        standing = self._standings.get(kid)
        return standing is not None and now < standing.banned_until

    def banned(self, now: float) -> list[Ban]:
        """Who is banned now, and for what."""
        return [
            Ban(kid, standing.reason, standing.banned_until, standing.bans)
            for kid, standing in list(self._standings.items())
            if now < standing.banned_until
        ]


class Gate:
    """Bounds the connections that have not shown who they are."""

    def __init__(self, now: float) -> None:
        self._all = Bucket(CONNECTS, now)
        # Least recently seen first.
        self._addresses: OrderedDict[str, Bucket] = OrderedDict()
        self._greeting: dict[str, int] = {}
        self.refused = 0

    @property
    def greeting(self) -> int:
        """How many have not said hello yet."""
        return sum(self._greeting.values())

    def enter(self, address: str, now: float) -> str | None:
        """Count a new connection; returns why it is not to be had, or None."""
        where = group_of(address)
        refusal = self._refusal(where, now)
        if refusal is None:
            self._greeting[where] = self._greeting.get(where, 0) + 1
        else:
            self.refused += 1
        return refusal

    def leave(self, address: str) -> None:
        """A connection that entered has said hello, or is gone: call once."""
        where = group_of(address)
        left = self._greeting[where] - 1
        if left:
            self._greeting[where] = left
        else:
            del self._greeting[where]

    def _refusal(self, where: str, now: float) -> str | None:
        if self._greeting.get(where, 0) >= MAX_GREETING_PER_ADDRESS:
            return f"{MAX_GREETING_PER_ADDRESS} connections from there have not said hello yet"
        if self.greeting >= MAX_GREETING:
            return f"{MAX_GREETING} connections have not said hello yet"
        bucket = self._addresses.pop(where, None) or Bucket(CONNECTS_PER_ADDRESS, now)
        self._addresses[where] = bucket
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        if not bucket.take(1, now):
            return f"more than {CONNECTS_PER_ADDRESS[0]:.0f} connections a second from there"
        if not self._all.take(1, now):
            return f"more than {CONNECTS[0]:.0f} connections a second"
        return None


class LogLimit:
    """Lets through so many lines that a flood cannot fill the disk with our log."""

    def __init__(self, now: float) -> None:
        self._bucket = Bucket(LINES, now)
        self._left_out = 0

    def line(self, now: float) -> str | None:
        """What to add to the line ("" or how many were left out); None where to say nothing."""
        if not self._bucket.take(1, now):
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        return f" ({left_out} such lines left out)" if left_out else ""


def group_of(address: str) -> str:
    """Whom an address is counted with: itself, or the /64 of an IPv6 address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> (128 - IPV6_PREFIX) << (128 - IPV6_PREFIX)))
