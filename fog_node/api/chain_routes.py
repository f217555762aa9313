"""Routes about the chain: founding file, blocks, streams of them, proofs."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from fog_node.errors import PrunedError
from fog_node.protocol.cbor import encode
from fog_node.protocol.proof import MAX_SUBJECTS, Proof

from . import following
from .access import AnyReader, ChainReader, Reader, forbidden
from .errors import JSON_ERRORS, not_found, unprocessable
from .models import BlockPage, BlockView
from .parameters import (
    MAX_BLOCKS_PAGE,
    MAX_NUMBER,
    BlocksLimit,
    Height,
    HexHash,
    HexKid,
    check_height,
    read_hash,
    read_kid,
)
from .services import Node, Services
from .views import block_summary, block_view

CBOR = "application/cbor"
CBOR_SEQUENCE = "application/cbor-seq"
EVENT_STREAM = "text/event-stream"
BLOCKS_PAGE = 20

router = APIRouter(tags=["chain"])
OptionalHeight = Annotated[
    int | None, Query(alias="from", ge=0, le=MAX_NUMBER, description="height of the first block")
]


class CborResponse(Response):
    """An answer in CBOR."""

    media_type = CBOR


class CborSequenceResponse(Response):
    """An answer in a CBOR sequence (RFC 8742)."""

    media_type = CBOR_SEQUENCE


class EventStreamResponse(Response):
    """Server-sent events."""

    media_type = EVENT_STREAM


@router.get("/v1/founding", response_class=CborResponse, responses=JSON_ERRORS)
def founding(node: Node, _: AnyReader) -> Response:
    """The founding file, the anchor of all trust: compare its SHA-256 with your own copy's."""
    return CborResponse(node.ledger.founding.raw)


@router.get("/v1/blocks")
def blocks(
    node: Node,
    _: AnyReader,
    first: OptionalHeight = None,
    limit: BlocksLimit = BLOCKS_PAGE,
) -> BlockPage:
    """Blocks in order of height, from `from` on; without it the latest ones."""
    ledger = node.ledger
    head = ledger.height
    if first is None:
        first = max(0, head - limit + 1)
    check_height("from", first, 0, head)
    infos = ledger.infos(max(first, 1), first + limit - 1)
    genesis = ledger.info(0)
    if first == 0 and genesis is not None:
        infos.insert(0, genesis)
    summaries = [block_summary(info, ledger.state) for info in infos]
    return BlockPage(blocks=summaries, head=head)


@router.get("/v1/blocks/{height}")
def block(node: Node, _: ChainReader, height: Height) -> BlockView:
    """A block, who made it final, and what is in it."""
    raw, certificate = _stored(node, height)
    info = node.ledger.info(height)
    assert info is not None
    return block_view(info, raw, certificate, node.ledger.state)


@router.get("/v1/blocks/{height}/raw", response_class=CborSequenceResponse, responses=JSON_ERRORS)
def raw_block(node: Node, _: ChainReader, height: Height) -> Response:
    """The block's bytes and then its certificate's, as a CBOR sequence."""
    return CborSequenceResponse(b"".join(_stored(node, height)))


@router.get("/v1/stream", response_class=CborSequenceResponse, responses=JSON_ERRORS)
async def stream(
    request: Request, node: Node, reader: ChainReader, first: OptionalHeight = None
) -> Response:
    """Final blocks without an end: a CBOR sequence of [block, certificate], two byte strings.

    From height `from` on, by default the next block. An empty array comes when there was
    nothing else for 15 s.
    """
    height = _first_of_stream(node, first)
    followers = _followers(request)
    content = following.sealed_blocks(node, reader, height)
    return following.Following(followers, content, CBOR_SEQUENCE)


@router.get("/v1/events", response_class=EventStreamResponse, responses=JSON_ERRORS)
async def events(
    request: Request,
    node: Node,
    reader: ChainReader,
    first: OptionalHeight = None,
    last_event_id: Annotated[int | None, Header(ge=0, le=MAX_NUMBER)] = None,
) -> Response:
    """Server-sent events for people: `block`, and each transaction in it that is no pack.

    From height `from` on, by default the next block, or the one after Last-Event-ID.
    """
    if first is None and last_event_id is not None:
        first = min(last_event_id, node.ledger.height) + 1
    height = _first_of_stream(node, first)
    followers = _followers(request)
    return following.Following(followers, following.events(node, reader, height), EVENT_STREAM)


@router.get("/v1/proofs/{id}", response_class=CborResponse, responses=JSON_ERRORS)
def proof(node: Node, reader: AnyReader, id: HexHash) -> Response:  # noqa: A002 - the parameter's public name
    """The proof file of a final transaction; check it with `fogline proof verify`."""
    transaction_id = read_hash(id, "id")
    found = node.ledger.prove(transaction_id)
    if found is None:
        if node.ledger.has(transaction_id):
            raise not_found("id", "waits for a block", "ask again after the next block")
        raise not_found("id", f"{id} is not on this chain", "check the transaction's id")
    _check_open(found, reader, node, "id")
    return _proof_file(found, id)


@router.get("/v1/proofs", response_class=CborResponse, responses=JSON_ERRORS)
def range_proof(
    node: Node,
    reader: AnyReader,
    signer: Annotated[str, Query(description="key id, 16 hex digits")],
    first: Annotated[int, Query(ge=1, le=MAX_NUMBER, description="its first number")],
    last: Annotated[int, Query(ge=1, le=MAX_NUMBER, description="its last number")],
) -> Response:
    """The proof file of all that one signer numbered `first` to `last`, nothing left out."""
    kid = read_kid(signer, "signer")
    if not first <= last < first + MAX_SUBJECTS:
        raise unprocessable(
            "last", f"is {last}", f"give {first} to {first + MAX_SUBJECTS - 1}; ask again for more"
        )
    found = node.ledger.prove_range(kid, first, last)
    if found is None:
        final = node.ledger.state.next_sequence(kid) - 1
        raise not_found(
            "last", f"{last} is not final yet", f"{signer} has numbers up to {final} on this chain"
        )
    _check_open(found, reader, node, "signer")
    return _proof_file(found, f"{signer}-{first}-{last}")


@router.get("/v1/devices/{kid}/proof", response_class=CborResponse, responses=JSON_ERRORS)
def enrolment_proof(node: Node, reader: AnyReader, kid: HexKid) -> Response:
    """The proof file of a device's enrolment, and of how it stands as of the latest block."""
    found = node.ledger.prove_enrolment(read_kid(kid))
    if found is None:
        raise not_found("kid", f"{kid[:80]} is no enrolled device", "check the device's key id")
    _check_open(found, reader, node, "kid")
    return _proof_file(found, kid)


@router.get("/v1/headers", response_class=CborResponse, responses=JSON_ERRORS)
def headers(
    node: Node,
    _: AnyReader,
    first: Annotated[int, Query(alias="from", ge=1, le=MAX_NUMBER, description="first height")],
    limit: BlocksLimit = MAX_BLOCKS_PAGE,
) -> Response:
    """Final blocks without their transactions, for light clients: an array of byte strings.

    Each is a sealed header: header, coinbase, size, path, certificate, and who votes next where
    that changes. Empty behind the latest block.
    """
    ledger = node.ledger
    check_height("from", first, 1, ledger.height + 1)
    last = min(ledger.height, first + limit - 1)
    sealed = [ledger.sealed_header(height).encode() for height in range(first, last + 1)]
    return CborResponse(encode(sealed))


@router.get("/v1/checkpoint", response_class=CborResponse, responses=JSON_ERRORS)
def checkpoint(node: Node, _: ChainReader) -> Response:
    """A checkpoint as of the latest block: what a new node can begin with; see `fog join`."""
    return CborResponse(node.ledger.checkpoint().encode())


def _check_open(proof: Proof, reader: Reader, node: Services, field: str) -> None:
    if not all(reader.may_read(s.transaction, node.ledger) for s in proof.subjects):
        raise forbidden(field, "is a transaction that does not concern you")


def _proof_file(proof: Proof, name: str) -> Response:
    disposition = f'attachment; filename="{name.lower()}.proof"'
    return CborResponse(proof.encode(), HTTPStatus.OK, {"Content-Disposition": disposition})


def _stored(node: Services, height: int) -> tuple[bytes, bytes]:
    check_height("height", height, 0, node.ledger.height)
    stored = node.ledger.block(height)
    if stored is None:
        raise not_found(
            "height", "0 has no body: it follows from the founding file", "get /v1/founding"
        )
    return stored


def _first_of_stream(node: Services, first: int | None) -> int:
    head = node.ledger.height
    if first is None:
        return head + 1
    check_height("from", first, 1, head + 1)
    if first < node.ledger.pruned:
        raise PrunedError(first)
    return first


def _followers(request: Request) -> following.Followers:
    followers = request.app.state.followers
    assert isinstance(followers, following.Followers)
    followers.check()
    return followers
