"""Routes about blobs: the bundles that releases name."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from fog_node.blobs import BlobError, BlobStore
from fog_node.bundles import check_bundle, wanted_release
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.manifest import MAX_BUNDLE_BYTES

from .access import ChainReader
from .bodies import read_body
from .errors import JSON_ERRORS, RequestError, not_found, of_protocol
from .models import Stored
from .parameters import HexHash, byte_range, read_hash
from .services import Node

OCTETS = "application/octet-stream"

router = APIRouter(tags=["blobs"])


class OctetResponse(Response):
    """Bytes."""

    media_type = OCTETS


@router.put(
    "/v1/blobs/{sha256}",
    status_code=HTTPStatus.CREATED,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def put_blob(
    request: Request, response: Response, node: Node, _: ChainReader, sha256: HexHash
) -> Stored:
    """Store a bundle that a release names: send the release transaction first.

    201 where it is stored now, 200 where it was before.
    """
    digest = read_hash(sha256, "sha256")
    size = node.blobs.size(digest)
    if size is not None:
        response.status_code = HTTPStatus.OK
        return Stored(sha256=digest.hex(), size=size)
    release = await asyncio.to_thread(wanted_release, node.ledger, digest)
    if release is None:
        raise RequestError(
            HTTPStatus.CONFLICT,
            "sha256",
            "is named by no latest release of this chain, and by none that waits",
            "send the release transaction first, signed by a trainer",
        )
    data = await read_body(request, OCTETS, min(release.size, MAX_BUNDLE_BYTES))
    try:
        await asyncio.to_thread(check_bundle, data, release, node.ledger.state)
        await asyncio.to_thread(node.blobs.put, data)
    except ProtocolError as error:
        raise of_protocol(error) from error
    except BlobError as error:
        raise RequestError(
            HTTPStatus.INSUFFICIENT_STORAGE,
            "blob",
            str(error),
            "make room at this node, or send it to another one",
        ) from error
    node.stored()
    return Stored(sha256=digest.hex(), size=len(data))


@router.get("/v1/blobs/{sha256}", response_class=OctetResponse, responses=JSON_ERRORS)
def get_blob(request: Request, node: Node, _: ChainReader, sha256: HexHash) -> Response:
    """A blob, or the one range of it that the Range header asks for."""
    digest = read_hash(sha256, "sha256")
    size = _size(node.blobs, digest)
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "public, max-age=31536000, immutable",
        "ETag": f'"{digest.hex()}"',
    }
    wanted = byte_range(request, size)
    try:
        if wanted is None:
            return OctetResponse(node.blobs.get(digest), HTTPStatus.OK, headers)
        first, last = wanted
        data = node.blobs.part(digest, first, last - first + 1)
    except BlobError as error:
        remedy = "ask another node; this one fetches it again"
        raise not_found("sha256", str(error), remedy) from error
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return OctetResponse(data, HTTPStatus.PARTIAL_CONTENT, headers)


def _size(blobs: BlobStore, digest: bytes) -> int:
    size = blobs.size(digest)
    if size is None:
        raise not_found("sha256", f"{digest.hex()} is not held here", "ask another node")
    return size
