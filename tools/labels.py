"""Labels of readings and images: send, list, show, and propose what to label next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.dataset import Dataset
from cloud.label_files import bodies, image_sha256, read_time
from cloud.labels import SealedLabel
from cloud.selection import Query, select
from cloud.times import iso
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey, kid_hex, parse_kid
from fog_node.protocol.labels import (
    Image,
    Label,
    Labelled,
    PackSpan,
    Target,
    TimeSpan,
    label_value,
)
from tools.errors import UsageError
from tools.nodes import Nodes
from tools.submit import submit, wait_final

# How long to go on while no node answers or none has room.
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Sender:
    """Who signs, through which nodes, on which ledger."""

    nodes: Nodes
    founding: Founding
    key: SigningKey


@dataclass(frozen=True)
class Wanted:
    """What `label propose` looks at; see `cloud.proposals.propose`."""

    query: Query
    model: Path
    count: int
    of_boards: bool


def target_of(
    device: str | None,
    since: str | None,
    until: str | None,
    packs: str | None,
    image: Path | None,
    sha256: str | None,
) -> Target:
    """What the options name; raises UsageError, LabelError."""
    try:
        if image is not None or sha256 is not None:
            if (image is None) == (sha256 is None) or any((device, since, until, packs)):
                raise UsageError("--image, --sha256: give one of them, and nothing of a board")
            return Image(image_sha256(image) if image else bytes.fromhex(sha256 or ""))
        if device is None:
            raise UsageError("give --device and --from, --until or --packs; or --image or --sha256")
        kid = parse_kid(device)
        if packs is not None and since is None and until is None:
            first, _, last = packs.partition("-")
            return PackSpan(kid, int(first), int(last or first))
        if packs is None and since is not None and until is not None:
            return TimeSpan(kid, read_time(since, "from"), read_time(until, "until"))
    except (ProtocolError, ValueError) as error:
        raise UsageError(str(error)) from error
    raise UsageError("--device: give --from and --until, or --packs FIRST-LAST")


def body_of(target: Target, value: str | None, note: str) -> Label:
    """One label as a transaction says it; raises UsageError."""
    try:
        said = None if value is None else label_value(value, "value")
        return Label.decode(Label((Labelled(target, said),), note, _now_ms()).encode())
    except ProtocolError as error:
        raise UsageError(str(error)) from error


async def send(sender: Sender, labels: Sequence[Labelled], note: str) -> dict[str, Any]:
    """Put labels on the chain, in as few transactions as hold them, and wait until all are final.

    Raises:
        UsageError: the note is not one.
        ToolError: one is not final in time.
        ClientError: no node answers, or it refuses.
    """
    made = bodies(labels, note, _now_ms())
    try:
        for body in made:
            Label.decode(body.encode())
    except ProtocolError as error:
        raise UsageError(str(error)) from error
    async with sender.nodes.client(PATIENCE_S) as client:
        sent = [
            await submit(client, sender.key, body, sender.founding, wait=False) for body in made
        ]
        for transaction in sent:
            await wait_final(client, transaction)
    return {"labels": len(labels), "transactions": [one.id.hex() for one in sent]}


def listing(dataset: Dataset, device: bytes | None, limit: int) -> dict[str, Any]:
    """The latest labels, latest first, and how each stands; of one board where one is named."""
    labels = dataset.labels()
    rows = [
        _row(label, standing)
        for label, standing in zip(labels.all, labels.standing(), strict=True)
        if device is None or (not isinstance(label.target, Image) and label.target.device == device)
    ]
    return {"block": dataset.height, "labels": rows[: -limit - 1 : -1]}


async def show(nodes: Nodes, label: bytes) -> dict[str, Any]:
    """What one transaction says; raises UsageError, ClientError."""
    async with nodes.client() as client:
        view = await client.transaction(label)
        if view.kind != "label":
            raise UsageError(f"{label.hex()}: is a {view.kind}, no label")
        names = {member.kid: member.name for member in await client.members()}
    return {
        "transaction": view.id,
        "status": view.status,
        "height": view.height,
        "member": names.get(view.signer, view.signer),
        **view.body,
    }


async def propose(dataset: Dataset, wanted: Wanted) -> list[dict[str, Any]]:
    """Windows that are worth a label, for people, JSON and CSV."""
    from cloud import proposals

    def choose() -> list[proposals.Proposal]:
        sealed = dataset.verdicts(wanted.query.device_type) if wanted.of_boards else None
        return proposals.propose(select(dataset, wanted.query), wanted.model, wanted.count, sealed)

    return [proposal.row() for proposal in await asyncio.to_thread(choose)]


def _row(label: SealedLabel, standing: str) -> dict[str, Any]:
    return {
        "what": _target(label.target),
        "value": label.value if label.value is not None else "(taken back)",
        "member": label.member,
        "stands": standing,
        "note": label.note,
        "said": iso(label.said * 1000),
        "block": label.height,
        "transaction": label.transaction.hex(),
    }


def _target(target: Target) -> str:
    match target:
        case Image(sha256):
            return f"image {sha256.hex()}"
        case TimeSpan(device, first, last):
            return f"{kid_hex(device)} {iso(first)} to {iso(last)}"
        case PackSpan(device, first, last):
            return f"{kid_hex(device)} packs {first} to {last}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
