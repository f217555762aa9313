"""The gateway of a fog node: its line to the boards, admission, and what answers them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fog_node.blobs import BlobStore
from fog_node.ledger import Ledger
from fog_node.protocol.block import Block
from fog_node.protocol.cbor import decode
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.receipt import NONCE_BYTES
from fog_node.protocol.transactions import Incident, Transaction
from fog_node.protocol.validate import octets, text_map

from .admission import Admission, Message, Outcome
from .incidents import Incidents
from .intake import Intake
from .mqtt import REDELIVERY_GRACE_S, Broker, MqttLine
from .quarantine import Quarantine
from .receipts import Receipts
from .releases import Releases
from .topics import GET, STATUS, FromBoard, Topics

log = logging.getLogger(__name__)

MAX_STATUS_BYTES = 256
_STATUS_KEYS = {"state", "next", "model", "firmware", "nonce"}


@dataclass(frozen=True)
class GatewayCounts:
    """What a gateway has done since its start.

    Attributes:
        connected: whether the broker is there now.
        boards: how many say they are here.
        messages: by outcome: `admitted`, `repeated`, `deferred`, `refused`, and `dropped`
            for those that came faster than they could be judged.
        reported, suppressed: refusals by cause, as incidents or without.
        unreadable: status messages and requests that are not as they should be.
        chunks: parts of bundles sent to boards.
        quarantined: refused messages that are kept.
    """

    connected: bool
    boards: int
    messages: dict[str, int]
    reported: dict[str, int]
    suppressed: dict[str, int]
    unreadable: int
    chunks: int
    quarantined: int


@dataclass(frozen=True)
class GatewayParts:
    """What a node gives its gateway.

    Attributes:
        name: the member's name, which stands in the topics.
        key: the member's.
        ledger: of the node.
        blobs: of the node.
        quarantine: directory for refused messages.
        submit: signs an incident as the member and admits it; called in the event loop, must
            not block or raise.
        admitted: takes what was admitted, to pass it on to the other nodes; called in the
            event loop, must not block or raise.
        cloned: takes two messages of one board with one number; as `admitted`.
        is_current: whether the node knows what is final by now; called in any thread.
    """

    name: str
    key: SigningKey = field(repr=False)
    ledger: Ledger
    blobs: BlobStore
    quarantine: Path
    submit: Callable[[Incident], None]
    admitted: Callable[[Sequence[Transaction]], None]
    cloned: Callable[[Transaction, Transaction], None]
    is_current: Callable[[], bool] = lambda: True


class Gateway:
    """Takes in what boards send over MQTT; `run` it in a task of its own."""

    def __init__(
        self, parts: GatewayParts, broker: Broker, redelivery_grace_s: float = REDELIVERY_GRACE_S
    ) -> None:
        """Prepare; nothing is opened to the network before `run`.

        Raises:
            GatewayError: the quarantine's directory cannot be used.
        """
        self._admitted = parts.admitted
        self._cloned = parts.cloned
        self._executor = ThreadPoolExecutor(1, "gateway")
        self._intake = Intake(
            Admission(parts.ledger, parts.is_current), self._executor, self._settled
        )
        self._quarantine = Quarantine(parts.quarantine)
        self._incidents = Incidents(parts.submit, time.monotonic, _now_ms)
        topics = Topics(parts.name)
        line = MqttLine(broker, topics, parts.name, self, redelivery_grace_s)
        self._line = line
        self._receipts = Receipts(
            parts.ledger,
            parts.key,
            lambda board, data: line.publish(topics.receipt(board), data),
            time.monotonic,
            _now_ms,
        )
        self._releases = Releases(
            parts.ledger,
            parts.blobs,
            lambda name, data: line.publish(topics.release(name), data, retain=True),
            lambda board, data: line.publish(topics.blob(board), data, latest=False),
            time.monotonic,
        )
        self._outcomes: Counter[str] = Counter()
        self._unreadable = 0

    async def run(self) -> None:
        """Serve boards until cancelled; on return nothing is being judged any more."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._intake.run())
                group.create_task(self._releases.run())
                group.create_task(self._line.run())
        finally:
            # The ledger may be closed next: a group under way is written first.
            self._executor.shutdown(wait=True)

    def committed(self, block: Block) -> None:
        """A block is final here: call in the event loop, once the ledger has taken it."""
        self._receipts.committed(block)
        self._releases.refresh()

    def bundle_arrived(self) -> None:
        """A bundle was stored: call in the event loop."""
        self._releases.refresh()

    def counts(self) -> GatewayCounts:
        """What it has done so far."""
        incidents = self._incidents.counts
        return GatewayCounts(
            connected=self._line.is_connected,
            boards=self._receipts.present,
            messages={**self._outcomes, "dropped": self._intake.dropped},
            reported=dict(incidents.reported),
            suppressed=dict(incidents.suppressed),
            unreadable=self._unreadable,
            chunks=self._releases.chunks,
            quarantined=len(self._quarantine),
        )

    # What the line calls

    def connected(self) -> None:
        """The broker is there."""
        self._releases.announce_all()

    def disconnected(self) -> None:
        """The broker is gone; when it is back, it tells again who is online."""
        self._receipts.forget_presence()

    def received(
        self, kind: FromBoard, board: bytes | None, data: bytes, redelivered: bool
    ) -> None:
        """A message from a board."""
        if kind not in (GET, STATUS):
            self._intake.offer(Message(data, board, redelivered))
            return
        if board is None:
            self._unreadable += 1
            return
        try:
            if kind == GET:
                self._releases.requested(board, data)
            else:
                self._told(board, data)
        except ProtocolError as error:
            self._unreadable += 1
            log.debug("gateway: %s message of %s: %s", kind, board.hex(), error)

    def _told(self, board: bytes, data: bytes) -> None:
        """Take a board's status; raises ProtocolError."""
        value = text_map(decode(data, MAX_STATUS_BYTES, "status"), _STATUS_KEYS, "status")
        nonce = value["nonce"]
        if value["state"] == "online":
            self._receipts.online(board, octets(nonce, "status.nonce", NONCE_BYTES))
        elif value["state"] == "offline":
            self._receipts.offline(board)
        else:
            raise ProtocolError("status.state", "is neither online nor offline")

    # What the intake calls

    def _settled(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes.update(outcome.kind for outcome in outcomes)
        admitted = [outcome.transaction for outcome in outcomes if outcome.transaction]
        if admitted:
            self._admitted(admitted)
        for outcome in outcomes:
            if outcome.clone is not None:
                self._cloned(*outcome.clone)
            if outcome.device is not None:
                self._receipts.seen(outcome.device)
                if outcome.kind != "admitted":
                    self._receipts.asked(outcome.device)
            elif outcome.refusal is not None and self._incidents.report(outcome.refusal):
                self._executor.submit(self._quarantine.keep, outcome.refusal)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
