"""What a gateway does with a message: admit it, take it for a repetition, or refuse it.

Cheap checks come first, and what passes them goes to the ledger in one group: one signature
check per message, one write to the disk per group. The causes of a refusal are those of
fog_node/protocol/SPEC.md, "incident".
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from fog_node.errors import Cause, ConflictError, LedgerError
from fog_node.ledger import Admission as Answer
from fog_node.ledger import Device, Ledger, State
from fog_node.protocol.cose import Sign1, parse_sign1
from fog_node.protocol.errors import ProtocolError, SignatureError
from fog_node.protocol.keys import kid_hex
from fog_node.protocol.transactions import (
    MAX_PLAIN_BYTES,
    MAX_TEXT_CHARS,
    Transaction,
    interpret,
)

# Boards whose watermark is remembered; who was heard longest ago is forgotten first.
MAX_WATERMARKS = 65_536
# Refusals of the ledger that say nothing ill of the sender: it may send again later.
_NOT_NOW: tuple[Cause, ...] = ("full", "sequence")
# What a board cannot rightly sign at all counts as not being as the formats say.
_AS_MALFORMED: tuple[Cause, ...] = ("role", "rule")


@dataclass(frozen=True, slots=True)
class Message:
    """What came in from a board.

    Attributes:
        data: the bytes.
        claimed: key id of the board whose way it came (its topic, its line); None where
            the way names no board.
        redelivered: whether it may be the broker that repeats it, after our own connection
            was cut; a copy is then no sign of a replay.
    """

    data: bytes = field(repr=False)
    claimed: bytes | None
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message was refused.

    Attributes:
        cause: one of `protocol.transactions.CAUSES`.
        device, sequence: as the message claims; None where they cannot be read.
        detail: the reason in words.
    """

    message: Message
    cause: str
    detail: str
    device: bytes | None = None
    sequence: int | None = None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the refused bytes."""
        return hashlib.sha256(self.message.data).digest()


class Outcome(NamedTuple):
    """What became of a message.

    Attributes:
        kind: `admitted`: it waits for a block, on this node's disk. `repeated`: a copy of
            what waits or is final, as a board sends when a receipt did not reach it.
            `deferred`: not taken for now, the board will send it again. `refused`: see
            `refusal`.
        device: the board that signed it, or says so where deferred; None where refused.
        transaction: where admitted.
        refusal: where refused.
        clone: where it was refused as a `conflict`: it, and the message that came first.
    """

    kind: Literal["admitted", "repeated", "deferred", "refused"]
    device: bytes | None = None
    transaction: Transaction | None = None
    refusal: Refusal | None = None
    clone: tuple[Transaction, Transaction] | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A group that was judged.

    Attributes:
        outcomes: one per message, in order.
        answers: of the ledger, to those that came before it.
    """

    outcomes: list[Outcome]
    answers: list[Answer]


class Admission:
    """Judges messages, in their order. Blocks; for one thread at a time."""

    def __init__(self, ledger: Ledger, is_current: Callable[[], bool] = lambda: True) -> None:
        """Judge by `ledger`.

        Args:
            ledger: of the node.
            is_current: whether the node knows what is final by now. While it catches up, a
                board that it does not know may well be enrolled.
        """
        self._ledger = ledger
        self._is_current = is_current
        # Each board's highest watermark that came its own way to this gateway. What other gateways
        # have heard does not count: a copy may have been under way to us since before that.
        self._dropped: OrderedDict[bytes, int] = OrderedDict()

    def process(self, messages: Sequence[Message]) -> list[Outcome]:
        """Judge a group; what is admitted is on the disk when this returns.

        Returns:
            One outcome per message, in order.

        Raises:
            StoreError: the ledger cannot write; nothing was admitted.
        """
        judged = self.judge(messages)
        self.keep([judged])
        return judged.outcomes

    def judge(self, messages: Sequence[Message]) -> Judged:
        """Judge a group; what it says counts once it was given to `keep`. Raises StoreError."""
        state = self._ledger.state
        judged = [self._examine(message, state) for message in messages]
        offered = [item for item in judged if isinstance(item, Transaction)]
        answers = self._ledger.admit(offered, durable=False) if offered else []
        following = iter(answers)
        outcomes = [
            item if isinstance(item, Outcome) else self._conclude(message, next(following))
            for message, item in zip(messages, judged, strict=True)
        ]
        return Judged(outcomes, answers)

    def keep(self, groups: Sequence[Judged]) -> None:
        """Put on the disk what was admitted in these groups; may run beside `judge`.

        Raises:
            StoreError: the ledger cannot write; none of it was admitted.
        """
        self._ledger.keep([answer for group in groups for answer in group.answers])

    def _examine(self, message: Message, state: State) -> Transaction | Outcome:
        """All that needs no signature check; a transaction goes on to the ledger."""
        size = len(message.data)
        if size > MAX_PLAIN_BYTES:
            detail = f"message: {size} bytes, at most {MAX_PLAIN_BYTES} are allowed"
            return _refused(Refusal(message, "oversized", detail, message.claimed))
        pack = self._ledger.read_pack(message.data)
        try:
            envelope = pack.message if pack else parse_sign1(message.data, size, "transaction")
        except ProtocolError as error:
            return _refused(Refusal(message, "malformed", str(error)))
        device = state.devices.get(envelope.kid)
        if device is None:
            if not self._is_current():
                return Outcome("deferred", envelope.kid)
            detail = f"transaction.kid: {kid_hex(envelope.kid)} is no enrolled device"
            return _against(message, envelope, "unknown_device", detail)
        if device.status == "revoked":
            detail = f"transaction.kid: {kid_hex(envelope.kid)} is revoked for good"
            return _against(message, envelope, "revoked_device", detail)
        if device.status == "quarantined":
            detail = f"transaction.kid: two hold the key of {kid_hex(envelope.kid)}"
            return _against(message, envelope, "quarantined", detail)
        try:
            transaction = pack or interpret(envelope)
        except ProtocolError as error:
            problem = self._signature_problem(message, envelope, device)
            return problem or _against(message, envelope, "malformed", str(error))
        if message.claimed != device.kid:
            return self._on_foreign_way(message, transaction, device)
        return transaction

    def _on_foreign_way(
        self, message: Message, transaction: Transaction, device: Device
    ) -> Outcome:
        """A message that did not come the way of the board that it says is its signer."""
        envelope = transaction.message
        way = kid_hex(message.claimed) if message.claimed else "no board"
        known = self._ledger.transaction_at(transaction.signer, transaction.sequence)
        if known is not None and known.id == transaction.id:
            if message.redelivered:
                return Outcome("repeated", device.kid)
            detail = f"topic: a copy of a known transaction under the topic of {way}"
            return _against(message, envelope, "replayed", detail)
        detail = f"topic: under the topic of {way}, not under the signer's own"
        problem = self._signature_problem(message, envelope, device)
        return problem or _against(message, envelope, "wrong_topic", detail)

    def _signature_problem(
        self, message: Message, envelope: Sign1, device: Device
    ) -> Outcome | None:
        """Check a signature here, for a message that the ledger does not get to see."""
        try:
            envelope.verify(device.key, self._ledger.founding.chain_id)
        except SignatureError as error:
            return self._badly_signed(message, envelope, str(error))
        return None

    def _badly_signed(self, message: Message, envelope: Sign1, detail: str) -> Outcome:
        known = (
            self._ledger.transaction_at(envelope.kid, envelope.sequence)
            if envelope.sequence
            else None
        )
        if known is not None and known.message.signature == envelope.signature:
            detail = "transaction.signature: is that of a known transaction with other content"
            return _against(message, envelope, "tampered", detail)
        return _against(message, envelope, "bad_signature", detail)

    def _conclude(self, message: Message, answer: Answer) -> Outcome:
        transaction = answer.transaction
        device = transaction.signer
        if answer.error is not None:
            return self._after_refusal(message, transaction, answer.error)
        watermark = self._dropped.get(device, 0)
        if answer.status != "admitted":
            if transaction.sequence < watermark and not message.redelivered:
                detail = f"transaction.sequence: the board has dropped all below {watermark}"
                return _against(message, transaction.message, "replayed", detail)
            self._heard(device, max(watermark, transaction.message.dropped or 0))
            return Outcome("repeated", device)
        self._heard(device, max(watermark, transaction.message.dropped or 0))
        return Outcome("admitted", device, transaction)

    def _heard(self, device: bytes, watermark: int) -> None:
        self._dropped[device] = watermark
        self._dropped.move_to_end(device)
        if len(self._dropped) > MAX_WATERMARKS:
            self._dropped.popitem(last=False)

    def _after_refusal(
        self, message: Message, transaction: Transaction, error: LedgerError
    ) -> Outcome:
        envelope = transaction.message
        if error.cause in _NOT_NOW:
            return Outcome("deferred", transaction.signer)
        if error.cause == "bad_signature":
            return self._badly_signed(message, envelope, str(error))
        cause = "malformed" if error.cause in _AS_MALFORMED else error.cause
        outcome = _against(message, envelope, cause, str(error))
        if isinstance(error, ConflictError):
            return outcome._replace(clone=(transaction, error.existing))
        return outcome


def _against(message: Message, envelope: Sign1, cause: str, detail: str) -> Outcome:
    return _refused(Refusal(message, cause, detail, envelope.kid, envelope.sequence))


def _refused(refusal: Refusal) -> Outcome:
    return Outcome("refused", refusal=refusal)


def printable(detail: str) -> str:
    """A detail as an incident may hold it: printable, and cut to its limit."""
    text = "".join(char if char.isprintable() else "?" for char in detail)
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 3] + "..."
