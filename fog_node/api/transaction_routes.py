"""Routes about transactions: send one in, look one up, list them."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from fog_node.blobs import BlobError
from fog_node.errors import LedgerError
from fog_node.ledger import Place
from fog_node.payloads import Payload, content_of, payload_of
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.transactions import (
    MAX_TRANSACTION_BYTES,
    Transaction,
    parse_transaction,
)

from .access import AnyReader, Reader, forbidden
from .bodies import read_body
from .errors import JSON_ERRORS, RequestError, not_found, of_ledger, of_protocol, unprocessable
from .models import Stored, Submitted, TransactionPage, TransactionView
from .parameters import (
    MAX_NUMBER,
    HexHash,
    TransactionsLimit,
    read_hash,
    read_kid,
    read_place,
)
from .services import Node, Services
from .views import final_view, waiting_view

COSE = "application/cose"
OCTETS = "application/octet-stream"
TRANSACTIONS_PAGE = 50
ListedKind = Literal[
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
]

router = APIRouter(tags=["transactions"])


class OctetResponse(Response):
    """Bytes."""

    media_type = OCTETS


class CoseResponse(Response):
    """A COSE message (RFC 9052 section 11.3.1)."""

    media_type = COSE


@router.post(
    "/v1/transactions",
    status_code=HTTPStatus.ACCEPTED,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {COSE: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def submit(request: Request, response: Response, node: Node, _: AnyReader) -> Submitted:
    """Send in a signed transaction: it waits for a block, on this node's disk.

    202 where it waits now, or did already; 200 where it is final.
    """
    data = await read_body(request, COSE, MAX_TRANSACTION_BYTES)
    try:
        transaction = await asyncio.to_thread(node.ledger.parse_transaction, data)
    except ProtocolError as error:
        raise of_protocol(error) from error
    admission = await node.submit(transaction)
    if isinstance(admission.error, LedgerError):
        raise of_ledger(admission.error)
    if admission.status == "final":
        response.status_code = HTTPStatus.OK
    assert admission.status != "refused"
    return Submitted(id=transaction.id.hex(), status=admission.status)


@router.get("/v1/transactions")
def transactions(
    node: Node,
    reader: AnyReader,
    kind: Annotated[ListedKind | None, Query(description="of the transactions")] = None,
    signer: Annotated[str | None, Query(description="key id, 16 hex digits")] = None,
    before: Annotated[
        str | None, Query(max_length=40, description="`next` of the page before")
    ] = None,
    limit: TransactionsLimit = TRANSACTIONS_PAGE,
) -> TransactionPage:
    """Final transactions of one kind, or of one signer, latest first.

    Packs are listed by their signer, with readings counted only. What is not open to the
    reader is left out, so that a page may hold fewer than `limit`, or none, and others follow.
    """
    if (kind is None) == (signer is None):
        raise unprocessable(
            "kind", "and signer: exactly one must be given", "give kind=... or signer=..."
        )
    if kind is not None:
        places = node.ledger.list_kind(kind, read_place(before), limit)
        last = f"{places[-1].height}.{places[-1].index}" if places else None
    else:
        places = node.ledger.list_signer(read_kid(signer or "", "signer"), _number(before), limit)
        last = str(places[-1].sequence) if places else None
    shown = []
    for place in places:
        parsed = parse_transaction(place.raw)
        if reader.may_read(parsed, node.ledger):
            shown.append(final_view(parsed, place, node.ledger))
    return TransactionPage(transactions=shown, next=last if len(places) == limit else None)


@router.get("/v1/transactions/{id}")
def transaction(node: Node, reader: AnyReader, id: HexHash) -> TransactionView:  # noqa: A002 - its public name
    """A transaction, final or waiting, with all its readings."""
    found, place = _open_transaction(node, reader, read_hash(id, "id"))
    if place is None:
        return waiting_view(found, node.ledger)
    return final_view(found, place, node.ledger, with_readings=True)


@router.get("/v1/transactions/{id}/raw", response_class=CoseResponse, responses=JSON_ERRORS)
def raw_transaction(node: Node, reader: AnyReader, id: HexHash) -> Response:  # noqa: A002 - its public name
    """The transaction's exact bytes."""
    found, _ = _open_transaction(node, reader, read_hash(id, "id"))
    return CoseResponse(found.raw)


@router.put(
    "/v1/transactions/{id}/content",
    status_code=HTTPStatus.CREATED,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def put_content(
    request: Request,
    response: Response,
    node: Node,
    reader: AnyReader,
    id: HexHash,  # noqa: A002
) -> Stored:
    """Store what a transaction names beside the chain: send that first.

    Only its signer may. 201 where it is stored now, 200 where it was before.
    """
    found, _ = await asyncio.to_thread(_open_transaction, node, reader, read_hash(id, "id"))
    payload = payload_of(found)
    if payload is None:
        raise RequestError(
            HTTPStatus.CONFLICT,
            "id",
            f"is a {found.kind} that names nothing beside the chain",
            "name the content's SHA-256 and size in a request, response or test report",
        )
    if reader.certificate is not None and reader.kid != payload.owner:
        raise forbidden("id", "is another member's transaction")
    stored = Stored(sha256=payload.content.sha256.hex(), size=payload.content.size)
    if node.payloads.has(payload):
        response.status_code = HTTPStatus.OK
        return stored
    data = await read_body(request, OCTETS, payload.content.size)
    try:
        await asyncio.to_thread(node.payloads.put, payload, data)
    except ProtocolError as error:
        raise of_protocol(error) from error
    except BlobError as error:
        raise RequestError(
            HTTPStatus.INSUFFICIENT_STORAGE,
            "content",
            str(error),
            "make room at this node, or send it to another one",
        ) from error
    return stored


@router.get("/v1/transactions/{id}/content", response_class=OctetResponse, responses=JSON_ERRORS)
def get_content(node: Node, reader: AnyReader, id: HexHash) -> Response:  # noqa: A002
    """What a request, response or test report carries, from the chain or from beside it.

    Open to its two parties, and to regulators; of a test report to whoever may read that.
    """
    found, _ = _open_transaction(node, reader, read_hash(id, "id"))
    content = content_of(found)
    if content is None:
        problem = f"is a {found.kind} that carries nothing"
        raise not_found("id", problem, "get the transaction itself")
    if not reader.reads_payloads and not reader.is_party(found, node.ledger):
        raise forbidden("id", f"is a {found.kind} between others")
    if content.inline is not None:
        return OctetResponse(content.inline)
    payload = Payload(found.signer, content)
    try:
        return OctetResponse(node.payloads.get(payload))
    except BlobError as error:
        node.want(payload)
        remedy = "ask again in a moment: this node fetches it from the others"
        raise not_found("id", str(error), remedy) from error


def _open_transaction(
    node: Services, reader: Reader, transaction_id: bytes
) -> tuple[Transaction, Place | None]:
    """Return a transaction, and where it is final if it is; RequestError 404, 403."""
    place = node.ledger.find(transaction_id)
    found = (
        node.ledger.get_waiting(transaction_id) if place is None else parse_transaction(place.raw)
    )
    if found is None:
        raise not_found(
            "id", f"{transaction_id.hex()} is not known here", "check the transaction's id"
        )
    if not reader.may_read(found, node.ledger):
        raise forbidden("id", "is a transaction that does not concern you")
    return found, place


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_NUMBER):
        raise unprocessable(
            "before", f"{text!r} is no number", f"give a number from 0 to {MAX_NUMBER}"
        )
    return int(text)
