"""From what the ledger holds to what `models` shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fog_node.ledger import (
    BlockInfo,
    Device,
    Ledger,
    MemberRecord,
    Place,
    ReleaseRecord,
    State,
)
from fog_node.protocol import senml
from fog_node.protocol.block import MAX_BLOCK_BYTES, Header, hash_hex
from fog_node.protocol.cbor import decode
from fog_node.protocol.clocks import corrected_s
from fog_node.protocol.cose import parse_sign1
from fog_node.protocol.dataset_reference import DatasetQuery
from fog_node.protocol.keys import kid_hex
from fog_node.protocol.merkle import leaf_hash
from fog_node.protocol.requests import Content
from fog_node.protocol.senml import Clock, Pack
from fog_node.protocol.transactions import (
    KINDS,
    MAX_TRANSACTION_BYTES,
    Alert,
    Body,
    Clone,
    Drift,
    Enrol,
    Evidence,
    Gap,
    Incident,
    Label,
    PackBody,
    Prediction,
    ReinstateDevice,
    Release,
    Request,
    Response,
    Revoke,
    TestReport,
    TrainingRound,
    Transaction,
    content_type,
)
from fog_node.protocol.votes import Vote, parse_certificate

from .governance_views import governance_body
from .label_views import label_body
from .models import (
    BlockSummary,
    BlockView,
    CertificateView,
    ChannelView,
    DatasetView,
    DeviceView,
    Entry,
    LabelsView,
    MemberView,
    QueryView,
    ReleaseView,
    StartView,
    TransactionView,
)
from .prediction_views import drift_body, prediction_body
from .report_views import report_body
from .rollout_views import rollout_body
from .times import iso
from .timing import Timing, timing_of
from .training_views import training_body

_KIND_OF_TYPE = {content_type(kind): kind for kind in KINDS} | {senml.CONTENT_TYPE: "pack"}

_TIME_GIVERS = {senml.BY_OWN_CLOCK: "own clock", senml.BY_NTP: "ntp"}


def block_summary(info: BlockInfo, state: State) -> BlockSummary:
    """A block without its content."""
    return BlockSummary(**_summary(info, state))


def block_view(info: BlockInfo, raw: bytes, certificate: bytes, state: State) -> BlockView:
    """A block with what is in it, from its bytes as the ledger keeps them.

    Only envelopes are read: the readings of thousands of packs would take seconds.
    """
    header, entries = decode(raw, MAX_BLOCK_BYTES, "block")
    parsed_header = Header.decode(header)
    made_final = parse_certificate(certificate)
    return BlockView(
        **_summary(info, state),
        merkle_root=parsed_header.merkle_root.hex(),
        state_root=info.state.hex(),
        nonce=parsed_header.nonce,
        certificate=CertificateView(
            round=made_final.round,
            voters=[kid_hex(vote.validator) for vote in made_final.votes],
        ),
        contents=[_entry(entry) for entry in entries[1:]],
    )


def _entry(raw: bytes) -> Entry:
    envelope = parse_sign1(raw, MAX_TRANSACTION_BYTES, "transaction")
    return Entry(
        id=leaf_hash(raw).hex(),
        kind=_KIND_OF_TYPE[envelope.content_type],
        signer=kid_hex(envelope.kid),
        sequence=envelope.sequence or 0,
    )


def _summary(info: BlockInfo, state: State) -> dict[str, Any]:
    return {
        "height": info.height,
        "hash": hash_hex(info.hash),
        "previous": hash_hex(info.previous),
        "time": iso(info.time),
        "round": info.round,
        "bits": info.bits,
        "miner": kid_hex(info.miner) if info.miner else None,
        "miner_name": state.name_of(info.miner) if info.miner else None,
        "transactions": info.transactions,
        "size": info.size,
    }


def final_view(
    transaction: Transaction, place: Place, ledger: Ledger, with_readings: bool = False
) -> TransactionView:
    """A final transaction; in lists the readings of a pack are only counted."""
    timing = timing_of(ledger, transaction, place)
    return _view(transaction, place.height, place.index, with_readings, timing)


def waiting_view(transaction: Transaction, ledger: Ledger) -> TransactionView:
    """A transaction that waits for a block."""
    return _view(transaction, None, None, True, timing_of(ledger, transaction, None))


def _view(
    transaction: Transaction,
    height: int | None,
    index: int | None,
    with_readings: bool,
    timing: Timing | None,
) -> TransactionView:
    return TransactionView(
        id=transaction.id.hex(),
        kind=transaction.kind,
        signer=kid_hex(transaction.signer),
        sequence=transaction.sequence,
        dropped=transaction.message.dropped,
        size=len(transaction.raw),
        status="waiting" if height is None else "final",
        height=height,
        index=index,
        body=_body(transaction.body, with_readings, timing),
    )


_SHOWN_ELSEWHERE: dict[type, Callable[[Any], dict[str, Any]]] = {
    TestReport: report_body,
    Label: label_body,
    Prediction: prediction_body,
    Drift: drift_body,
    TrainingRound: training_body,
}


def _body(body: Body, with_readings: bool, timing: Timing | None) -> dict[str, Any]:
    if isinstance(body, PackBody):
        return _pack(body.pack, with_readings, timing)
    if isinstance(body, Alert):
        return {
            "time": iso(body.time * 1000) if body.has_time else None,
            "up_s": None if body.has_time else body.time,
            "model": body.model.hex(),
            "score": body.score,
            "threshold": body.threshold,
            "pack": body.pack,
        }
    if isinstance(body, Enrol):
        return {
            "device": kid_hex(body.device),
            "key": body.key.xy.hex(),
            "owner": body.owner,
            "type": body.type,
            "board": body.board,
            "channels": [
                {"name": c.name, "unit": c.unit, "minimum": c.minimum, "maximum": c.maximum}
                for c in body.channels
            ],
            "time": iso(body.time),
        }
    if isinstance(body, Revoke):
        return {"subject": kid_hex(body.subject), "reason": body.reason, "time": iso(body.time)}
    if isinstance(body, Incident):
        return {
            "cause": body.cause,
            "device": None if body.device is None else kid_hex(body.device),
            "sequence": body.sequence,
            "digest": body.digest.hex(),
            "size": body.size,
            "detail": body.detail,
            "time": iso(body.time),
        }
    if isinstance(body, Release):
        return {**_release(body), "dataset": _dataset(body).model_dump()}
    if isinstance(body, Request):
        return {
            "provider": None if body.provider is None else kid_hex(body.provider),
            "service": body.service,
            "content": _content(body.content),
            "until": iso(body.until),
            "time": iso(body.time),
        }
    if isinstance(body, Response):
        return {
            "request": body.request.hex(),
            "outcome": body.outcome,
            "content": None if body.content is None else _content(body.content),
            "time": iso(body.time),
        }
    if isinstance(body, Gap):
        return {"from": body.first, "reason": body.reason}
    if isinstance(body, Clone):
        messages = [body.first.id.hex(), body.second.id.hex()]
        return {
            "device": kid_hex(body.device),
            "sequence": body.sequence,
            "messages": messages,
        }
    if isinstance(body, ReinstateDevice):
        return {"device": kid_hex(body.device), "reason": body.reason, "time": iso(body.time)}
    if (view := _SHOWN_ELSEWHERE.get(type(body))) is not None:
        return view(body)
    if (shown := governance_body(body) or rollout_body(body)) is not None:
        return shown
    assert isinstance(body, Evidence)
    return {"votes": [_vote(body.first), _vote(body.second)]}


def _content(content: Content) -> dict[str, Any]:
    return {
        "sha256": content.sha256.hex(),
        "size": content.size,
        "inline": None if content.inline is None else content.inline.hex(),
    }


def _pack(pack: Pack, with_readings: bool, timing: Timing | None) -> dict[str, Any]:
    def when(time: float) -> str | None:
        if pack.has_time:
            return iso(time * 1000)
        if timing is None or timing.start is None or pack.clock is None:
            return None
        return iso(corrected_s(timing.start, pack.clock, time) * 1000)

    view: dict[str, Any] = {
        "time": when(pack.base_time),
        "corrected": None if pack.has_time or timing is None else _correction(timing),
        "clock": None if pack.clock is None else _clock(pack.clock),
        "enterprise_number": pack.enterprise_number,
        "readings": len(pack.readings),
        "verdicts": [
            {
                "time": when(verdict.time),
                "score": verdict.score,
                "anomaly": verdict.anomaly,
                "output": verdict.output.hex(),
            }
            for verdict in pack.verdicts
        ],
        "faults": [
            {"time": when(fault.time), "sensor": fault.sensor, "code": fault.code}
            for fault in pack.faults
        ],
        "model": None if pack.model is None else pack.model.hex(),
    }
    if with_readings:
        view["readings"] = [
            {"time": when(r.time), "name": r.name, "unit": r.unit, "value": r.value}
            | ({} if pack.has_time else {"before_signature_s": -r.time})
            for r in pack.readings
        ]
    return view


def _clock(clock: Clock) -> dict[str, Any]:
    return {"boot": clock.boot, "up_ms": clock.up_ms, "by": _by(clock.by)}


def _correction(timing: Timing) -> dict[str, Any]:
    """How a pack without time came to one, or that it has none yet, and between which blocks."""
    start = timing.start
    return {
        "by": None if start is None else _by(start.by),
        "start": None if start is None else iso(start.time),
        "pack": None if start is None else start.sequence,
        "not_before": iso(timing.not_before),
        "not_after": None if timing.not_after is None else iso(timing.not_after),
    }


def _by(by: bytes | int | None) -> str | None:
    return kid_hex(by) if isinstance(by, bytes) else None if by is None else _TIME_GIVERS[by]


def _vote(vote: Vote) -> dict[str, Any]:
    return {
        "validator": kid_hex(vote.validator),
        "height": vote.height,
        "round": vote.round,
        "step": vote.step,
        "block": None if vote.block_hash is None else hash_hex(vote.block_hash),
    }


def _release(release: Release) -> dict[str, Any]:
    return {
        "name": release.name,
        "version": release.version,
        "device_type": release.device_type,
        "manifest": release.manifest.hex(),
        "bundle": release.bundle.hex(),
        "size": release.size,
        "metrics": dict(release.metrics),
        "time": iso(release.time),
    }


def _dataset(release: Release) -> DatasetView:
    dataset = release.dataset
    return DatasetView(
        root=dataset.root.hex(),
        count=dataset.count,
        first=dataset.first,
        last=dataset.last,
        query=None if dataset.query is None else _query(dataset.query),
    )


def _query(query: DatasetQuery) -> QueryView:
    labels = query.labels
    return QueryView(
        height=query.height,
        devices=None if query.devices is None else [kid_hex(kid) for kid in query.devices],
        since=None if query.since is None else iso(query.since),
        until=None if query.until is None else iso(query.until),
        labels=None if labels is None else LabelsView(root=labels.root.hex(), count=labels.count),
    )


def release_view(record: ReleaseRecord, held: bool) -> ReleaseView:
    """A release as it stands in the state."""
    return ReleaseView(
        **_release(record.release),
        dataset=_dataset(record.release),
        height=record.height,
        held=held,
    )


def device_view(device: Device) -> DeviceView:
    """An enrolled board."""
    return DeviceView(
        kid=kid_hex(device.kid),
        key=device.key.xy.hex(),
        owner=device.owner,
        type=device.type,
        board=device.board,
        status=device.status,
        next=device.next,
        dropped=device.dropped,
        enrolled_height=device.enrolled_height,
        starts=[
            StartView(boot=start.boot, time=iso(start.time), by=_by(start.by), pack=start.sequence)
            for start in device.starts
        ],
        channels=[
            ChannelView(name=c.name, unit=c.unit, minimum=c.minimum, maximum=c.maximum)
            for c in device.channels
        ],
    )


def member_view(record: MemberRecord) -> MemberView:
    """A member of the consortium."""
    return MemberView(
        kid=kid_hex(record.kid),
        key=record.key.xy.hex(),
        name=record.name,
        roles=sorted(record.roles),
        status=record.status,
        next=record.next,
    )
