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
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Incident, RolloutReport, Transaction

from .admission import Admission, Message, Outcome
from .incidents import Incidents
from .intake import Intake
from .mqtt import REDELIVERY_GRACE_S, Broker, MqttLine
from .offers import Offers
from .quarantine import Quarantine
from .receipts import Receipts
from .releases import Releases
from .serial_line import Kind, PortCounts, SerialLine, SerialSettings
from .serial_port import SerialPort
from .statuses import parse_status
from .topics import GET, STATUS, FromBoard, Topics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GatewayCounts:
    """What a gateway has done since its start.

    Attributes:
        connected: whether the broker is there now; None without MQTT.
        serial: each serial port that is open now, by its name.
        boards: how many say they are here.
        messages: by outcome: `admitted`, `repeated`, `deferred`, `refused`, and `dropped`
            for those that came faster than they could be judged.
        reported, suppressed: refusals by cause, as incidents or without.
        unreadable: status messages and requests that are not as they should be.
        chunks: parts of bundles sent to boards.
        quarantined: refused messages that are kept.
    """

    connected: bool | None
    serial: dict[str, PortCounts]
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
        submit: signs an incident or a report as the member and admits it; called in the event
            loop, must not block or raise.
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
    submit: Callable[[Incident | RolloutReport], None]
    admitted: Callable[[Sequence[Transaction]], None]
    cloned: Callable[[Transaction, Transaction], None]
    is_current: Callable[[], bool] = lambda: True


class Gateway:
    """Takes in what boards send, over MQTT and serial lines; `run` it in a task of its own."""

    def __init__(
        self,
        parts: GatewayParts,
        broker: Broker | None,
        redelivery_grace_s: float = REDELIVERY_GRACE_S,
        serial: SerialSettings | None = None,
    ) -> None:
        """Prepare; nothing is opened to the network before `run`.

        Args:
            parts: what the node gives.
            broker: of the boards on MQTT; None without these.
            redelivery_grace_s: see `mqtt.Handler.received`.
            serial: where boards are plugged in; None without these.

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
        self._topics = Topics(parts.name)
        self._mqtt = (
            MqttLine(broker, self._topics, parts.name, self, redelivery_grace_s) if broker else None
        )
        self._serial = SerialLine(serial or SerialSettings(), parts.name, self)
        self._receipts = Receipts(
            parts.ledger, parts.key, self._send_receipt, time.monotonic, _now_ms
        )
        self._releases = Releases(
            parts.ledger, parts.blobs, self._announce, self._send_chunk, time.monotonic
        )
        self._offers = Offers(
            parts.ledger, parts.blobs, self._send_offer, parts.submit, time.monotonic, _now_ms
        )
        self._outcomes: Counter[str] = Counter()
        self._unreadable = 0

    async def run(self) -> None:
        """Serve boards until cancelled; on return nothing is being judged any more."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._intake.run())
                group.create_task(self._releases.run())
                group.create_task(self._serial.run())
                if self._mqtt is not None:
                    group.create_task(self._mqtt.run())
        finally:
            # The ledger may be closed next: a group under way is written first.
            self._executor.shutdown(wait=True)

    def committed(self, block: Block) -> None:
        """A block is final here: call in the event loop, once the ledger has taken it."""
        self._receipts.committed(block)
        self._releases.refresh()
        self._offers.refresh()

    def bundle_arrived(self) -> None:
        """A bundle was stored: call in the event loop."""
        self._releases.refresh()
        self._offers.bundle_arrived()

    def counts(self) -> GatewayCounts:
        """What it has done so far."""
        incidents = self._incidents.counts
        return GatewayCounts(
            connected=self._mqtt.is_connected if self._mqtt else None,
            serial=self._serial.counts(),
            boards=self._receipts.present,
            messages={**self._outcomes, "dropped": self._intake.dropped},
            reported=dict(incidents.reported),
            suppressed=dict(incidents.suppressed),
            unreadable=self._unreadable,
            chunks=self._releases.chunks,
            quarantined=len(self._quarantine),
        )

    # The way out: down the line that the board is on

    def _send_receipt(self, board: bytes, data: bytes) -> None:
        if self._serial.has(board):
            self._serial.send(board, Kind.RECEIPT, data)
        elif self._mqtt is not None:
            self._mqtt.publish(self._topics.receipt(board), data)

    def _send_chunk(self, board: bytes, data: bytes) -> None:
        if self._serial.has(board):
            self._serial.send(board, Kind.BLOB, data, latest=False)
        elif self._mqtt is not None:
            self._mqtt.publish(self._topics.blob(board), data, latest=False)

    def _send_offer(self, board: bytes, data: bytes) -> None:
        if self._serial.has(board):
            self._serial.send(board, Kind.RELEASE, data)
        elif self._mqtt is not None:
            self._mqtt.publish(self._topics.offer(board), data)

    def _announce(self, device_type: str, data: bytes) -> None:
        self._serial.announce(device_type, data)
        if self._mqtt is not None:
            self._mqtt.publish(self._topics.release(device_type), data, retain=True)

    # What the lines call

    def arrived(self, port: SerialPort) -> None:
        """A board at a serial port has said who it is."""
        self._releases.refresh()
        for kind, name in ((Kind.RELEASE, port.device_type), (Kind.FIRMWARE, port.firmware)):
            announcement = self._releases.announcement(name)
            if announcement is not None:
                port.send(kind, announcement)

    def left(self, port: SerialPort) -> None:
        """It has gone."""
        if port.board is not None:
            self._receipts.offline(port.board)
            self._offers.gone(port.board)

    def connected(self) -> None:
        """The broker is there."""
        self._releases.announce_all()

    def disconnected(self) -> None:
        """The broker is gone; when it is back, it tells again who is online."""
        self._receipts.forget_presence(self._serial.boards)
        self._offers.forget(self._serial.boards)

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
        status = parse_status(data)
        if status is None:
            self._receipts.offline(board)
            self._offers.gone(board)
        else:
            self._receipts.online(board, status.nonce)
            self._offers.here(board, status)

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
