"""Routes about who there is: members, devices, signers, releases."""

from __future__ import annotations

import bisect
from typing import Annotated

from fastapi import APIRouter, Query

from fog_node.ledger import MemberRecord
from fog_node.protocol.keys import kid_hex

from .access import AnyReader, ChainReader, forbidden
from .errors import not_found
from .models import DevicePage, DeviceView, Members, Releases, SignerView
from .parameters import DevicesLimit, HexKid, read_kid
from .services import Node
from .views import device_view, member_view, release_view

DEVICES_PAGE = 100
_ENROL = "have an operator enrol it, and ask again after the next block"

router = APIRouter(tags=["registry"])


@router.get("/v1/members")
def members(node: Node, _: AnyReader) -> Members:
    """All members of the consortium."""
    return Members(members=[member_view(r) for r in node.ledger.state.members.values()])


@router.get("/v1/devices")
def devices(
    node: Node,
    reader: AnyReader,
    after: Annotated[str | None, Query(description="`next` of the page before")] = None,
    limit: DevicesLimit = DEVICES_PAGE,
) -> DevicePage:
    """Enrolled boards in order of their key ids, revoked ones included; all, or the reader's."""
    known = node.ledger.state.devices
    kids = sorted(kid for kid, device in known.items() if reader.may_read_device(device))
    begin = 0 if after is None else bisect.bisect_right(kids, read_kid(after, "after"))
    page = kids[begin : begin + limit]
    more = begin + limit < len(kids)
    return DevicePage(
        devices=[device_view(known[kid]) for kid in page],
        next=kid_hex(page[-1]) if more else None,
    )


@router.get("/v1/devices/{kid}")
def device(node: Node, reader: AnyReader, kid: HexKid) -> DeviceView:
    """An enrolled board."""
    found = node.ledger.state.devices.get(read_kid(kid))
    if found is None:
        raise not_found("kid", f"{kid[:80]} is no enrolled device", _ENROL)
    if not reader.may_read_device(found):
        raise forbidden("kid", "is another member's device")
    return device_view(found)


@router.get("/v1/signers/{kid}")
def signer(node: Node, _: AnyReader, kid: HexKid) -> SignerView:
    """A member or board, and the number that its next transaction must have."""
    key_id = read_kid(kid)
    record = node.ledger.state.signer(key_id)
    if record is None:
        raise not_found("kid", f"{kid[:80]} is no member and no enrolled device", _ENROL)
    return SignerView(
        kid=kid_hex(key_id),
        type="member" if isinstance(record, MemberRecord) else "device",
        status=record.status,
        next=node.ledger.next_sequence(key_id),
    )


@router.get("/v1/releases")
def releases(node: Node, _: ChainReader) -> Releases:
    """The latest release for each name and device type."""
    records = node.ledger.state.releases.values()
    return Releases(releases=[release_view(r, node.blobs.has(r.release.bundle)) for r in records])
