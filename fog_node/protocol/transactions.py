"""The kinds of transaction: each is one COSE_Sign1 whose content type names the kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from . import native_reading, senml
from .cbor import decode, encode
from .cose import Sign1, parse_sign1, sign1
from .dataset_reference import DatasetReference
from .errors import EncodingError, FormatError
from .governance import Approve, Propose, Withdraw
from .keys import KID_BYTES, PublicKey, SigningKey
from .labels import Label
from .manifest import FIRMWARE_PREFIX
from .merkle import HASH_BYTES, leaf_hash
from .predictions import Drift, Prediction
from .requests import Request, Response
from .rig_reports import TestReport
from .rollouts import Rollout, RolloutApprove, RolloutControl, RolloutReport
from .training_rounds import TrainingRound
from .validate import array, number, octets, text, text_map, time_ms, uint
from .votes import Vote, parse_vote

if TYPE_CHECKING:
    from ._native import Channels

    Tables = dict[bytes, Channels]

# A clone holds two messages of a board, of which none is over MAX_MESSAGE_BYTES.
MAX_TRANSACTION_BYTES = 36 * 1024
MAX_MESSAGE_BYTES = 17 * 1024
# All other kinds.
MAX_PLAIN_BYTES = 24 * 1024
# Numbers that one gap may give up.
MAX_GAP = 2**20
MAX_NAME_CHARS = 64
MAX_TEXT_CHARS = 200
MAX_METRICS = 64

CAUSES = (
    "bad_signature",
    "tampered",
    "replayed",
    "unknown_device",
    "revoked_device",
    "conflict",
    "malformed",
    "implausible",
    "oversized",
    "wrong_topic",
    "quarantined",
)


def content_type(kind: str) -> str:
    """Media type of one of our own kinds."""
    return f"application/vnd.fogline.{kind}+cbor"


class Body(Protocol):
    """The payload of one kind of transaction."""

    kind: ClassVar[str]

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""


@dataclass(slots=True)  # frozen ones take three times as long to make
class PackBody:
    """Readings of a board, known to be as SPEC.md says.

    Attributes:
        payload: the SenML.
        device, enterprise_number: key id and number in its base name.
        readings: how many there are.
        clock: what it says of the board's clock.
        fits: the table of channels that they are known to fit; see ChannelTable.
    """

    kind: ClassVar[str] = "pack"
    payload: bytes = field(repr=False)
    device: bytes
    enterprise_number: int
    readings: int
    clock: senml.Clock | None = None
    fits: Channels | None = field(default=None, repr=False, compare=False)

    @classmethod
    def decode(cls, payload: bytes) -> PackBody:
        """Parse; raises EncodingError, FormatError."""
        pack = senml.decode_pack(payload)
        return cls(payload, pack.device, pack.enterprise_number, len(pack.readings), pack.clock)

    @property
    def pack(self) -> senml.Pack:
        """The readings. They are taken from the payload at each use: most packs are only kept."""
        return senml.decode_pack(self.payload)

    def encode(self) -> bytes:
        """The payload as it came."""
        return self.payload


@dataclass(frozen=True)
class Alert:
    """A board's model began to call its readings anomalous.

    Attributes:
        time: end of the window, s since 1970; below senml.MIN_TIME_S, s since the board's start
            in which its pack was made.
        model: SHA-256 of the `.tflite`.
        score, threshold: integers of the manifest's score.
        pack: sequence number of the pack that holds the verdict.
    """

    kind: ClassVar[str] = "alert"
    time: int
    model: bytes
    score: int
    threshold: int
    pack: int

    @property
    def has_time(self) -> bool:
        """Whether the board knew the time."""
        return self.time >= senml.MIN_TIME_S

    @classmethod
    def decode(cls, payload: bytes) -> Alert:
        """Parse; raises EncodingError, FormatError."""
        value = _map(payload, {"time", "model", "score", "threshold", "pack"}, "alert")
        return cls(
            time=uint(value["time"], "alert.time", senml.MAX_TIME_S),
            model=octets(value["model"], "alert.model", HASH_BYTES),
            score=uint(value["score"], "alert.score", 2**31 - 1),
            threshold=uint(value["threshold"], "alert.threshold", 2**31 - 1),
            pack=uint(value["pack"], "alert.pack"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode(
            {
                "time": self.time,
                "model": self.model,
                "score": self.score,
                "threshold": self.threshold,
                "pack": self.pack,
            }
        )


@dataclass(frozen=True)
class Channel:
    """One measured quantity of a device: UCUM unit and plausible range in that unit."""

    name: str
    unit: str
    minimum: float
    maximum: float


class ChannelTable:
    """A device's channels, made ready for whole packs.

    Attributes:
        prepared: for `parse_transaction`, by the device's key id.
    """

    def __init__(self, channels: Sequence[Channel]) -> None:
        """Take over at most senml.MAX_CHANNELS channels."""
        listed = [(c.name, c.unit, c.minimum, c.maximum) for c in channels]
        self.prepared: Channels = native_reading.channels(listed)

    def holds(self, pack: PackBody) -> bool:
        """Whether each reading is of one of the channels, in its unit and range."""
        return pack.fits is self.prepared or native_reading.is_plausible(
            pack.payload, self.prepared
        )


@dataclass(frozen=True)
class Enrol:
    """Puts a board's public key, owner, type and channels on the chain."""

    kind: ClassVar[str] = "enrol"
    key: PublicKey
    owner: str
    type: str
    board: str
    channels: tuple[Channel, ...]
    time: int

    @property
    def device(self) -> bytes:
        """Key id of the board."""
        return self.key.kid

    @classmethod
    def decode(cls, payload: bytes) -> Enrol:
        """Parse; raises EncodingError, FormatError."""
        value = _map(
            payload, {"device", "key", "owner", "type", "board", "channels", "time"}, "enrol"
        )
        key = PublicKey.from_cose_key(value["key"], "enrol.key")
        if value["device"] != key.kid:
            raise FormatError("enrol.device", "is not the key id of enrol.key")
        if isinstance(value["type"], str) and value["type"].startswith(FIRMWARE_PREFIX):
            raise FormatError("enrol.type", f"begins with {FIRMWARE_PREFIX}, as firmware's does")
        channels = []
        listed = array(value["channels"], "enrol.channels", at_most=senml.MAX_CHANNELS)
        for index, item in enumerate(listed):
            where = f"enrol.channels[{index}]"
            name, unit, minimum, maximum = array(item, where, length=4)
            channel = Channel(
                name=text(name, f"{where}.name", senml.MAX_NAME_CHARS),
                unit=text(unit, f"{where}.unit", senml.MAX_UNIT_CHARS),
                minimum=number(minimum, f"{where}.minimum"),
                maximum=number(maximum, f"{where}.maximum"),
            )
            if not senml.valid_name(channel.name):
                raise FormatError(f"{where}.name", f"{channel.name!r} is not a channel name")
            if channel.minimum >= channel.maximum:
                raise FormatError(where, "the minimum is not below the maximum")
            channels.append(channel)
        if not channels or len({channel.name for channel in channels}) != len(channels):
            raise FormatError("enrol.channels", "is empty or names a channel twice")
        return cls(
            key=key,
            owner=text(value["owner"], "enrol.owner", MAX_NAME_CHARS),
            type=text(value["type"], "enrol.type", MAX_NAME_CHARS),
            board=text(value["board"], "enrol.board", MAX_NAME_CHARS),
            channels=tuple(channels),
            time=time_ms(value["time"], "enrol.time"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        channels = [[c.name, c.unit, c.minimum, c.maximum] for c in self.channels]
        return encode(
            {
                "device": self.device,
                "key": self.key.cose_key,
                "owner": self.owner,
                "type": self.type,
                "board": self.board,
                "channels": channels,
                "time": self.time,
            }
        )


@dataclass(frozen=True)
class Revoke:
    """Ends the trust in a key, of a device or a member, for good."""

    kind: ClassVar[str] = "revoke"
    subject: bytes
    reason: str
    time: int

    @classmethod
    def decode(cls, payload: bytes) -> Revoke:
        """Parse; raises EncodingError, FormatError."""
        value = _map(payload, {"subject", "reason", "time"}, "revoke")
        return cls(
            subject=octets(value["subject"], "revoke.subject", KID_BYTES),
            reason=text(value["reason"], "revoke.reason", MAX_TEXT_CHARS),
            time=time_ms(value["time"], "revoke.time"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode({"subject": self.subject, "reason": self.reason, "time": self.time})


@dataclass(frozen=True)
class Incident:
    """Something a gateway refused, and why.

    Attributes:
        cause: one of CAUSES.
        device: key id that the refused message claims; None where it cannot be read.
        sequence: number that it claims; None where it cannot be read.
        digest: SHA-256 of the refused bytes.
        size: their length.
        detail: the reason in words.
        time: ms since 1970.
    """

    kind: ClassVar[str] = "incident"
    cause: str
    device: bytes | None
    sequence: int | None
    digest: bytes
    size: int
    detail: str
    time: int

    @classmethod
    def decode(cls, payload: bytes) -> Incident:
        """Parse; raises EncodingError, FormatError."""
        names = {"cause", "device", "sequence", "digest", "size", "detail", "time"}
        value = _map(payload, names, "incident")
        if value["cause"] not in CAUSES:
            raise FormatError("incident.cause", f"is not one of {', '.join(CAUSES)}")
        device, sequence = value["device"], value["sequence"]
        return cls(
            cause=value["cause"],
            device=None if device is None else octets(device, "incident.device", KID_BYTES),
            sequence=None if sequence is None else uint(sequence, "incident.sequence"),
            digest=octets(value["digest"], "incident.digest", HASH_BYTES),
            size=uint(value["size"], "incident.size", 2**32 - 1),
            detail=text(value["detail"], "incident.detail", MAX_TEXT_CHARS, allow_empty=True),
            time=time_ms(value["time"], "incident.time"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode(
            {
                "cause": self.cause,
                "device": self.device,
                "sequence": self.sequence,
                "digest": self.digest,
                "size": self.size,
                "detail": self.detail,
                "time": self.time,
            }
        )


@dataclass(frozen=True)
class Release:
    """A signed bundle that boards of `device_type` may install.

    Attributes:
        device_type: of a model: what its boards are enrolled as. Of firmware: `firmware/` and
            the class of boards.
        manifest: SHA-256 of the first manifest COSE_Sign1.
        bundle: SHA-256 of the bundle file, its name in the blob store.
        size: bytes of the bundle file.
        metrics: name to value, as the training job measured them.
    """

    kind: ClassVar[str] = "release"
    name: str
    version: int
    device_type: str
    manifest: bytes
    bundle: bytes
    size: int
    metrics: tuple[tuple[str, float], ...]
    dataset: DatasetReference
    time: int

    @property
    def is_firmware(self) -> bool:
        """Whether it brings files of ours instead of a model."""
        return self.device_type.startswith(FIRMWARE_PREFIX)

    @classmethod
    def decode(cls, payload: bytes) -> Release:
        """Parse; raises EncodingError, FormatError."""
        names = {"name", "version", "device_type", "manifest", "bundle", "size", "metrics"}
        value = _map(payload, names | {"dataset", "time"}, "release")
        metrics = value["metrics"]
        if not isinstance(metrics, dict) or len(metrics) > MAX_METRICS:
            raise FormatError("release.metrics", f"is not a map of at most {MAX_METRICS} entries")
        return cls(
            name=text(value["name"], "release.name", MAX_NAME_CHARS),
            version=uint(value["version"], "release.version", 2**32 - 1, at_least=1),
            device_type=text(value["device_type"], "release.device_type", MAX_NAME_CHARS),
            manifest=octets(value["manifest"], "release.manifest", HASH_BYTES),
            bundle=octets(value["bundle"], "release.bundle", HASH_BYTES),
            size=uint(value["size"], "release.size", 2**32 - 1),
            metrics=tuple(
                (text(k, "release.metrics", MAX_NAME_CHARS), number(v, f"release.metrics.{k}"))
                for k, v in metrics.items()
            ),
            dataset=DatasetReference.parse(value["dataset"], "release.dataset"),
            time=time_ms(value["time"], "release.time"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode(
            {
                "name": self.name,
                "version": self.version,
                "device_type": self.device_type,
                "manifest": self.manifest,
                "bundle": self.bundle,
                "size": self.size,
                "metrics": dict(self.metrics),
                "dataset": self.dataset.value,
                "time": self.time,
            }
        )


@dataclass(frozen=True)
class Evidence:
    """Two votes of one validator for one (height, round, step): it is suspended.

    The two signatures are checked by the ledger, which knows the validators' keys.
    """

    kind: ClassVar[str] = "evidence"
    first: Vote
    second: Vote

    @property
    def offender(self) -> bytes:
        """Key id of the validator that voted twice."""
        return self.first.validator

    @classmethod
    def decode(cls, payload: bytes) -> Evidence:
        """Parse; raises EncodingError, FormatError."""
        value = _map(payload, {"votes"}, "evidence")
        raw = array(value["votes"], "evidence.votes", length=2)
        if not all(isinstance(item, bytes) for item in raw):
            raise FormatError("evidence.votes", "are not byte strings")
        first, second = (parse_vote(item, "evidence.votes") for item in raw)
        if first.slot != second.slot or first.block_hash == second.block_hash:
            raise FormatError("evidence.votes", "do not contradict each other")
        return cls(first, second)

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode({"votes": [self.first.raw, self.second.raw]})


@dataclass(frozen=True)
class Gap:
    """A board states that its transactions from `first` up to this one are lost for good.

    Attributes:
        first: the first number that is lost; the gap's own number is the one behind the last.
        reason: in words.
    """

    kind: ClassVar[str] = "gap"
    first: int
    reason: str

    @classmethod
    def decode(cls, payload: bytes) -> Gap:
        """Parse; raises EncodingError, FormatError."""
        value = _map(payload, {"from", "reason"}, "gap")
        return cls(
            first=uint(value["from"], "gap.from", at_least=1),
            reason=text(value["reason"], "gap.reason", MAX_TEXT_CHARS),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode({"from": self.first, "reason": self.reason})


@dataclass(frozen=True)
class Clone:
    """Two messages of one board with one number: two hold its key, so it is quarantined.

    The two signatures are checked by the ledger, which knows the board's key.
    """

    kind: ClassVar[str] = "clone"
    first: Transaction
    second: Transaction

    @property
    def device(self) -> bytes:
        """Key id of the board."""
        return self.first.signer

    @property
    def sequence(self) -> int:
        """The number that both have."""
        return self.first.sequence

    @classmethod
    def decode(cls, payload: bytes) -> Clone:
        """Parse; raises EncodingError, FormatError."""
        value = _map(payload, {"messages"}, "clone")
        messages = []
        for raw in array(value["messages"], "clone.messages", length=2):
            if not isinstance(raw, bytes):
                raise FormatError("clone.messages", "are not byte strings")
            message = parse_sign1(raw, MAX_MESSAGE_BYTES, "clone.messages")
            if message.content_type not in _BOARD_DECODERS:
                raise FormatError("clone.messages", "are not of the kinds that boards sign")
            messages.append(interpret(message))
        first, second = messages
        if (first.signer, first.sequence) != (second.signer, second.sequence):
            raise FormatError("clone.messages", "are not of one board with one number")
        if first.id >= second.id:
            raise FormatError("clone.messages", "are the same, or not in order of their ids")
        return cls(first, second)

    @classmethod
    def of(cls, one: Transaction, other: Transaction) -> Clone:
        """Put two such messages in order."""
        first, second = sorted((one, other), key=lambda message: message.id)
        return cls(first, second)

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode({"messages": [self.first.raw, self.second.raw]})


@dataclass(frozen=True)
class ReinstateDevice:
    """Ends a board's quarantine: its key is in one hand (again)."""

    kind: ClassVar[str] = "reinstate-device"
    device: bytes
    reason: str
    time: int

    @classmethod
    def decode(cls, payload: bytes) -> ReinstateDevice:
        """Parse; raises EncodingError, FormatError."""
        value = _map(payload, {"device", "reason", "time"}, "reinstate-device")
        return cls(
            device=octets(value["device"], "reinstate-device.device", KID_BYTES),
            reason=text(value["reason"], "reinstate-device.reason", MAX_TEXT_CHARS),
            time=time_ms(value["time"], "reinstate-device.time"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode({"device": self.device, "reason": self.reason, "time": self.time})


_BOARD_DECODERS: dict[str, Callable[[bytes], Body]] = {
    senml.CONTENT_TYPE: PackBody.decode,
    content_type("alert"): Alert.decode,
    content_type("gap"): Gap.decode,
}
_DECODERS: dict[str, Callable[[bytes], Body]] = {
    **_BOARD_DECODERS,
    **{
        content_type(kind.kind): kind.decode
        for kind in (
            Enrol,
            Revoke,
            Incident,
            Release,
            Evidence,
            Request,
            Response,
            Propose,
            Approve,
            Withdraw,
            Clone,
            ReinstateDevice,
            TestReport,
            Label,
            Rollout,
            RolloutApprove,
            RolloutControl,
            RolloutReport,
            Prediction,
            Drift,
            TrainingRound,
        )
    },
}
# Stores number the kinds in this order: new ones come last.
KINDS = (
    "pack",
    "alert",
    "enrol",
    "revoke",
    "incident",
    "release",
    "evidence",
    "request",
    "response",
    "propose",
    "approve",
    "withdraw",
    "gap",
    "clone",
    "reinstate-device",
    "test-report",
    "label",
    "rollout",
    "rollout-approve",
    "rollout-control",
    "rollout-report",
    "prediction",
    "drift",
    "training-round",
)
# What boards sign; the rest is for members.
BOARD_KINDS = ("pack", "alert", "gap")


class Transaction(NamedTuple):
    """A parsed transaction; its signature is checked by `verify`, its rights by the ledger.

    Attributes:
        id: RFC 9162 leaf hash of the exact bytes, 32 bytes.
        message: the envelope.
        body: the payload, by kind.
    """

    id: bytes
    message: Sign1
    body: Body

    @property
    def raw(self) -> bytes:
        """The exact bytes."""
        return self.message.raw

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return self.body.kind

    @property
    def signer(self) -> bytes:
        """Key id of the signer."""
        return self.message.kid

    @property
    def sequence(self) -> int:
        """The signer's number for this transaction, from 1."""
        assert self.message.sequence is not None
        return self.message.sequence

    @property
    def first(self) -> int:
        """The signer's next number before this transaction: its own, but of a gap."""
        return self.body.first if isinstance(self.body, Gap) else self.sequence

    def verify(self, key: PublicKey, chain_id: bytes) -> None:
        """Raise SignatureError unless `key` signed it for this ledger.

        So must the new keys of a proposal have signed that they are to be members'.
        """
        self.message.verify(key, chain_id)
        if isinstance(self.body, Propose):
            self.body.verify_keys(chain_id)


def parse_transaction(data: bytes, tables: Tables | None = None) -> Transaction:
    """Parse envelope and payload; raises EncodingError, FormatError. Tables: see `read_pack`."""
    return read_pack(data, tables) or interpret(
        parse_sign1(data, MAX_TRANSACTION_BYTES, "transaction")
    )


def read_pack(data: bytes, tables: Tables | None = None) -> Transaction | None:
    """Parse a pack, fast.

    Args:
        data: the bytes.
        tables: of devices, by key id. Readings that fit are noted as such in the same pass
            over the payload; whether that is the right table is for the reader to see.

    Returns:
        None for another kind, and for what is not as SPEC.md says: `parse_transaction` finds
        out which, and names the field at fault.
    """
    fields = native_reading.read_pack(data, tables)
    if fields is None:
        return None
    protected, kid, sequence, dropped, payload, signature, number, base_time = fields[:8]
    readings, _, said, fits = fields[8:]
    message = Sign1(data, protected, senml.CONTENT_TYPE, kid, sequence, dropped, payload, signature)
    clock = None if said is None else senml.Clock(base_time, *said)
    body = PackBody(payload, kid, number, readings, clock, fits)
    return Transaction(leaf_hash(data), message, body)


def interpret(message: Sign1) -> Transaction:
    """Parse the payload of an envelope; raises EncodingError, FormatError."""
    decoder = _DECODERS.get(message.content_type)
    if decoder is None:
        raise FormatError("transaction.content type", f"{message.content_type[:80]!r} is unknown")
    if not message.sequence:
        raise FormatError("transaction.sequence", "is missing or 0; numbers start at 1")
    if len(message.raw) > MAX_PLAIN_BYTES and decoder is not _DECODERS[content_type("clone")]:
        raise EncodingError(
            "transaction", f"{len(message.raw)} bytes, at most {MAX_PLAIN_BYTES} are allowed"
        )
    body = decoder(message.payload)
    if (body.kind in BOARD_KINDS) != (message.dropped is not None):
        raise FormatError("transaction.dropped", "stands in what boards sign, and only there")
    if isinstance(body, Gap) and not body.first < message.sequence <= body.first + MAX_GAP:
        raise FormatError("gap.from", f"is not 1 to {MAX_GAP} below the gap's own number")
    if isinstance(body, PackBody) and body.device != message.kid:
        raise FormatError("pack[0].bn", "names another device than the signer")
    return Transaction(leaf_hash(message.raw), message, body)


def sign_transaction(
    key: SigningKey,
    body: Body,
    chain_id: bytes,
    sequence: int,
    dropped: int | None = None,
) -> Transaction:
    """Sign `body` as the signer's transaction number `sequence`."""
    media_type = senml.CONTENT_TYPE if body.kind == "pack" else content_type(body.kind)
    raw = sign1(key, media_type, body.encode(), chain_id, sequence, dropped)
    return parse_transaction(raw)


def _map(payload: bytes, names: set[str], field: str) -> dict[str, Any]:
    return text_map(decode(payload, MAX_TRANSACTION_BYTES, field), names, field)


__all__ = [
    "BOARD_KINDS",
    "CAUSES",
    "KINDS",
    "MAX_GAP",
    "MAX_MESSAGE_BYTES",
    "MAX_PLAIN_BYTES",
    "MAX_TRANSACTION_BYTES",
    "Alert",
    "Approve",
    "Body",
    "Channel",
    "ChannelTable",
    "Clone",
    "DatasetReference",
    "Drift",
    "Enrol",
    "Evidence",
    "Gap",
    "Incident",
    "Label",
    "PackBody",
    "Prediction",
    "Propose",
    "ReinstateDevice",
    "Release",
    "Request",
    "Response",
    "Revoke",
    "Rollout",
    "RolloutApprove",
    "RolloutControl",
    "RolloutReport",
    "TestReport",
    "TrainingRound",
    "Transaction",
    "Withdraw",
    "content_type",
    "interpret",
    "parse_transaction",
    "read_pack",
    "sign_transaction",
]
