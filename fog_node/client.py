"""Talks to fog nodes over their HTTP API; where one does not answer, the next one is asked.

ClientError
├── RefusedError       a node has answered, and says no: `field`, `problem`, `remedy`
├── AnswerError        a node has answered with what is not as its API says
└── UnreachableError   none of the nodes answers

What comes back is not believed for its source: blobs are checked against their SHA-256 here,
and whoever relies on blocks checks their certificates (`fog_node.protocol`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import ValidationError

from .api import models
from .credentials import Credentials
from .errors import FogNodeError
from .network.certificates import SERVER_NAME
from .protocol.block import MAX_BLOCK_BYTES
from .protocol.cbor import decode
from .protocol.checkpoint import MAX_CHECKPOINT_BYTES
from .protocol.errors import ProtocolError
from .protocol.founding import MAX_FOUNDING_BYTES
from .protocol.manifest import MAX_BUNDLE_BYTES
from .protocol.proof import MAX_PROOF_BYTES
from .protocol.requests import MAX_CONTENT_BYTES
from .protocol.sealed_header import MAX_SEALED_HEADER_BYTES, SealedHeader
from .protocol.transactions import MAX_TRANSACTION_BYTES
from .protocol.validate import array
from .protocol.votes import MAX_CERTIFICATE_BYTES

TIMEOUT_S = 10.0
# A stream says something every 15 s; a node that is silent for longer is given up.
STREAM_TIMEOUT_S = 40.0
# A page of 200 transactions, each at its largest and in JSON, is below this.
MAX_JSON_BYTES = 64 * 1024 * 1024
COSE = "application/cose"
OCTETS = "application/octet-stream"
# How long no node may answer before a stream is given up; nodes restart within it.
PATIENCE_S = 30.0
RETRY_S = 0.5
# A page of 100 sealed headers, each at its largest, and the heads around them.
MAX_HEADERS_BYTES = 100 * (MAX_SEALED_HEADER_BYTES + 8)
MAX_SEALED_BYTES = max(MAX_BLOCK_BYTES, MAX_CERTIFICATE_BYTES)
# Pauses between rounds of asking grow up to this, and a node may ask for so long a one.
MAX_BACKOFF_S = 8.0
MAX_RETRY_AFTER_S = 60.0
MAX_PORT = 65_535
# What OpenSSL's words mean here.
_TLS_MEANINGS = {
    "CERTIFICATE_VERIFY_FAILED": "shows no certificate of this consortium's authority",
    "WRONG_VERSION_NUMBER": "speaks no TLS there; give http://HOST:PORT",
}
# Bytes and bits of RFC 8949 section 3: an empty array, an array of two, major type 2.
_EMPTY_ARRAY, _PAIR, _BYTE_STRING = 0x80, 0x82, 2

M = TypeVar("M", bound=models.Model)
F = TypeVar("F", "SealedBlock", "ChainEvent")


class ClientError(FogNodeError):
    """Base of what the client raises."""


class RefusedError(ClientError):
    """A node has answered, and says no.

    Attributes:
        status: of HTTP.
        field, problem, remedy: as the node says.
        retry_after_s: when to ask again, where the node says so; else 0.
    """

    def __init__(
        self,
        url: str,
        status: int,
        field: str,
        problem: str,
        remedy: str,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(f"{url}: {field}: {problem}; {remedy}")
        self.status = status
        self.field = field
        self.problem = problem
        self.remedy = remedy
        self.retry_after_s = retry_after_s


class AnswerError(ClientError):
    """A node's answer is not as its API says, too large, or not what was asked for."""


class UnreachableError(ClientError):
    """None of the nodes answers.

    Attributes:
        reasons: by base address.
    """

    def __init__(self, reasons: dict[str, str]) -> None:
        tried = ", ".join(f"{url} ({reason})" for url, reason in reasons.items())
        super().__init__(
            f"fog nodes: none of {tried} answers; check the addresses, and that a node runs there"
        )
        self.reasons = reasons


@dataclass(frozen=True)
class SealedBlock:
    """A final block's bytes, and those of the certificate that makes it so.

    Attributes:
        height: as its place in the stream says; the block's own coinbase must agree.
    """

    height: int
    block: bytes = field(repr=False)
    certificate: bytes = field(repr=False)

    @property
    def resume(self) -> int:
        """Height to go on from behind this block."""
        return self.height + 1


@dataclass(frozen=True)
class ChainEvent:
    """What a node tells people of a block.

    Attributes:
        height: of the block.
        kind: `block`, or that of a transaction in it.
        data: fields of `models.BlockSummary` or `models.TransactionView`.
    """

    height: int
    kind: str
    data: dict[str, Any]

    @property
    def resume(self) -> int:
        """Height to go on from: more of the same block may follow."""
        return self.height


class Client:
    """Asks fog nodes; use it as an asynchronous context manager.

    Any method raises UnreachableError, AnswerError, or RefusedError where a node says no.
    """

    def __init__(
        self,
        urls: Sequence[str],
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        credentials: Credentials | None = None,
        patience_s: float = 0.0,
    ) -> None:
        """Prepare.

        Args:
            urls: base addresses of nodes, as `http://127.0.0.1:7480`, in order of preference.
            timeout_s: for each step of a request.
            transport: for tests.
            credentials: of the member that asks, for addresses that begin with `https`.
            patience_s: how long to ask again while no node answers, or none has room; the
                pauses grow, and are random, so that many clients do not come back at once.

        Raises:
            ClientError: an address cannot be one, or needs credentials.
            ConfigurationError: the credentials' files cannot be used.
        """
        if not urls:
            raise ClientError("fog nodes: none is given; give the address of at least one")
        for url in urls:
            _check_url(url, credentials is not None)
        self._urls = [url.rstrip("/") for url in urls]
        # A context of httpx's own would read the system's authorities, which count for nothing.
        context = credentials.context() if credentials else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.AsyncClient(
            timeout=timeout_s, transport=transport, trust_env=False, verify=context
        )
        self._patience_s = patience_s
        self._stream_timeout = httpx.Timeout(timeout_s, read=STREAM_TIMEOUT_S)

    @property
    def urls(self) -> tuple[str, ...]:
        """Base addresses, in the present order of preference."""
        return tuple(self._urls)

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self._http.aclose()

    # The node

    async def status(self) -> models.Status:
        """Where a node stands and how it is doing."""
        return await self._json(models.Status, "GET", "/v1/status")

    # The chain

    async def founding(self) -> bytes:
        """The founding file's bytes; compare their SHA-256 with what you trust."""
        return await self._bytes("/v1/founding", MAX_FOUNDING_BYTES)

    async def blocks(self, first: int | None = None, limit: int | None = None) -> models.BlockPage:
        """Blocks from height `first` on; without it the latest ones."""
        parameters = {"from": first, "limit": limit}
        return await self._json(models.BlockPage, "GET", "/v1/blocks", parameters)

    async def block(self, height: int) -> models.BlockView:
        """A block with what is in it."""
        return await self._json(models.BlockView, "GET", f"/v1/blocks/{height}")

    async def stream(
        self, first: int, patience_s: float = PATIENCE_S
    ) -> AsyncGenerator[SealedBlock, None]:
        """Final blocks in order from height `first` on, without an end, each once.

        A connection that ends, or a node that falls silent, is replaced by the next node, and
        the stream goes on where it was.

        Args:
            first: height of the first block, at least 1.
            patience_s: how long no node may answer before UnreachableError is raised.
        """
        async with aclosing(
            self._follow("/v1/stream", first, patience_s, _sealed_blocks)
        ) as followed:
            async for sealed in followed:
                yield sealed

    async def events(
        self, first: int, patience_s: float = PATIENCE_S
    ) -> AsyncGenerator[ChainEvent, None]:
        """What nodes tell people of each block from height `first` on, without an end.

        As `stream`; but those of one block may come twice where the connection ended.
        """
        async with aclosing(self._follow("/v1/events", first, patience_s, _events)) as followed:
            async for event in followed:
                yield event

    async def checkpoint(self) -> bytes:
        """A checkpoint as of a node's latest block, not verified here."""
        return await self._bytes("/v1/checkpoint", MAX_CHECKPOINT_BYTES)

    async def proof(self, transaction_id: bytes) -> bytes:
        """The proof file of a final transaction, not verified here."""
        return await self._bytes(f"/v1/proofs/{transaction_id.hex()}", MAX_PROOF_BYTES)

    async def range_proof(self, signer: bytes, first: int, last: int) -> bytes:
        """The proof file of all that a signer numbered `first` to `last`, not verified here."""
        parameters = {"signer": signer.hex(), "first": first, "last": last}
        return await self._bytes("/v1/proofs", MAX_PROOF_BYTES, parameters)

    async def enrolment_proof(self, device: bytes) -> bytes:
        """The proof file of a device's enrolment and standing, not verified here."""
        return await self._bytes(f"/v1/devices/{device.hex()}/proof", MAX_PROOF_BYTES)

    async def headers(self, first: int) -> list[SealedHeader]:
        """Final blocks without transactions from height `first` on, a page of them.

        Not verified here: `LightClient` does that. Empty behind the latest block.
        """
        data = await self._bytes("/v1/headers", MAX_HEADERS_BYTES, {"from": first})
        try:
            listed = array(decode(data, MAX_HEADERS_BYTES, "headers"), "headers")
            return [SealedHeader.decode(item, "headers") for item in listed]
        except (ProtocolError, TypeError) as error:
            raise AnswerError(
                f"/v1/headers: a node answers otherwise than it says: {error}"
            ) from error

    # Transactions

    async def submit(self, raw: bytes) -> models.Submitted:
        """Send in a signed transaction; sending it again does no harm."""
        return await self._json(
            models.Submitted, "POST", "/v1/transactions", content=raw, media_type=COSE
        )

    async def transaction(self, transaction_id: bytes) -> models.TransactionView:
        """A transaction, final or waiting."""
        path = f"/v1/transactions/{transaction_id.hex()}"
        return await self._json(models.TransactionView, "GET", path)

    async def raw_transaction(self, transaction_id: bytes) -> bytes:
        """A transaction's exact bytes."""
        path = f"/v1/transactions/{transaction_id.hex()}/raw"
        return await self._bytes(path, MAX_TRANSACTION_BYTES)

    async def transactions(
        self,
        kind: str | None = None,
        signer: bytes | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> models.TransactionPage:
        """Final transactions of one kind or one signer, latest first."""
        parameters = {
            "kind": kind,
            "signer": None if signer is None else signer.hex(),
            "before": before,
            "limit": limit,
        }
        path = "/v1/transactions"
        return await self._json(models.TransactionPage, "GET", path, parameters)

    async def all_transactions(
        self, kind: str | None = None, signer: bytes | None = None
    ) -> AsyncGenerator[models.TransactionView, None]:
        """All of one kind or one signer, latest first, page by page."""
        before: str | None = None
        while True:
            page = await self.transactions(kind, signer, before)
            for transaction in page.transactions:
                yield transaction
            before = page.next
            if before is None:
                return

    # Who there is

    async def members(self) -> list[models.MemberView]:
        """All members of the consortium."""
        return (await self._json(models.Members, "GET", "/v1/members")).members

    async def consortium(self) -> models.ConsortiumView:
        """Who votes, by which rule, and the chain's parameters."""
        return await self._json(models.ConsortiumView, "GET", "/v1/consortium")

    async def proposals(self) -> models.Proposals:
        """Proposals that are open, then those that were closed of late."""
        return await self._json(models.Proposals, "GET", "/v1/proposals")

    async def proposal(self, id_: bytes) -> models.ProposalView:
        """A proposal that is open or was closed of late."""
        return await self._json(models.ProposalView, "GET", f"/v1/proposals/{id_.hex()}")

    async def devices(self) -> list[models.DeviceView]:
        """All enrolled boards, in order of their key ids."""
        found: list[models.DeviceView] = []
        after: str | None = None
        while True:
            page = await self._json(models.DevicePage, "GET", "/v1/devices", {"after": after})
            found += page.devices
            after = page.next
            if after is None:
                return found

    async def device(self, kid: bytes) -> models.DeviceView:
        """An enrolled board."""
        return await self._json(models.DeviceView, "GET", f"/v1/devices/{kid.hex()}")

    async def signer(self, kid: bytes) -> models.SignerView:
        """A member or board, and the number to sign with next."""
        return await self._json(models.SignerView, "GET", f"/v1/signers/{kid.hex()}")

    async def releases(self) -> list[models.ReleaseView]:
        """The latest release for each name and device type."""
        return (await self._json(models.Releases, "GET", "/v1/releases")).releases

    async def offers(self) -> list[models.OfferView]:
        """What boards are offered and how rollouts go, where releases are staged."""
        return (await self._json(models.Offers, "GET", "/v1/rollouts")).offers

    async def rollout_boards(self, rollout: bytes) -> list[models.RolloutBoardView]:
        """How each board does in a device type's latest rollout."""
        found: list[models.RolloutBoardView] = []
        after: str | None = None
        while True:
            path = f"/v1/rollouts/{rollout.hex()}/boards"
            page = await self._json(models.RolloutBoards, "GET", path, {"after": after})
            found += page.boards
            after = page.next
            if after is None:
                return found

    # Blobs

    async def put_blob(self, data: bytes) -> models.Stored:
        """Store a bundle that a release names; the nodes pass it on among themselves."""
        path = f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"
        return await self._json(models.Stored, "PUT", path, content=data, media_type=OCTETS)

    async def get_blob(self, sha256: bytes) -> bytes:
        """A blob, checked against its SHA-256."""
        data = await self._bytes(f"/v1/blobs/{sha256.hex()}", MAX_BUNDLE_BYTES)
        if hashlib.sha256(data).digest() != sha256:
            raise AnswerError(f"blob {sha256.hex()}: a node has sent something else; ask another")
        return data

    # Contents of requests and responses

    async def put_content(self, transaction_id: bytes, data: bytes) -> models.Stored:
        """Store what a transaction of ours names; the nodes pass it on once it is final."""
        path = f"/v1/transactions/{transaction_id.hex()}/content"
        return await self._json(models.Stored, "PUT", path, content=data, media_type=OCTETS)

    async def content(self, transaction_id: bytes, sha256: bytes) -> bytes:
        """What a request or response carries, checked against its SHA-256."""
        path = f"/v1/transactions/{transaction_id.hex()}/content"
        data = await self._bytes(path, MAX_CONTENT_BYTES)
        if hashlib.sha256(data).digest() != sha256:
            raise AnswerError(
                f"content of {transaction_id.hex()}: a node has sent something else; ask another"
            )
        return data

    # Beneath

    async def _json(
        self,
        model: type[M],
        method: str,
        path: str,
        parameters: dict[str, Any] | None = None,
        content: bytes | None = None,
        media_type: str | None = None,
    ) -> M:
        request = _Request(method, path, parameters or {}, content, media_type)
        url, body = await self._ask(request, MAX_JSON_BYTES)
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise AnswerError(
                f"{url}: {where}: {first['msg']}; node and client may be of different releases"
            ) from error

    async def _bytes(
        self, path: str, max_bytes: int, parameters: dict[str, Any] | None = None
    ) -> bytes:
        return (await self._ask(_Request("GET", path, parameters or {}), max_bytes))[1]

    async def _ask(self, request: _Request, max_bytes: int) -> tuple[str, bytes]:
        """Ask the nodes in turn; returns the address that answered and the body."""
        deadline = time.monotonic() + self._patience_s
        backoff_s = RETRY_S
        while True:
            reasons: dict[str, str] = {}
            retry_after_s = 0.0
            for url in list(self._urls):
                try:
                    return url, await self._ask_one(url, request, max_bytes)
                except httpx.HTTPError as error:
                    reasons[url] = _reason(error)
                except RefusedError as error:
                    if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                        raise
                    reasons[url] = f"{error.problem}; {error.remedy}"
                    retry_after_s = max(retry_after_s, error.retry_after_s)
                self._put_last(url)
            # From none to the whole pause, behind what the node asks for.
            pause_s = retry_after_s + random.uniform(0, backoff_s)  # noqa: S311 - no secret
            if time.monotonic() + pause_s > deadline:
                raise UnreachableError(reasons)
            await asyncio.sleep(pause_s)
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)

    async def _ask_one(self, url: str, request: _Request, max_bytes: int) -> bytes:
        """Ask one node; raises httpx.HTTPError, RefusedError, AnswerError."""
        for is_last in (False, True):
            try:
                async with self._http.stream(
                    request.method,
                    url + request.path,
                    params=request.query,
                    content=request.content,
                    headers=request.headers,
                    extensions=_extensions(),
                ) as response:
                    body = await _read(response, max_bytes)
                break
            except (httpx.RemoteProtocolError, httpx.ReadError):
                # The node has closed a connection that was idle, just as it was used again.
                if is_last:
                    raise
        _check(response, body)
        return body

    async def _follow(
        self, path: str, first: int, patience_s: float, read: Callable[..., AsyncGenerator[F, None]]
    ) -> AsyncGenerator[F, None]:
        height = first
        reasons: dict[str, str] = {}
        refusal: RefusedError | None = None
        heard = time.monotonic()
        while True:
            url = self._urls[0]
            try:
                async with self._http.stream(
                    "GET",
                    url + path,
                    params={"from": height},
                    timeout=self._stream_timeout,
                    extensions=_extensions(),
                ) as response:
                    if response.status_code != HTTPStatus.OK:
                        _check(response, await _read(response, MAX_JSON_BYTES))
                    async with aclosing(read(response, height)) as items:
                        async for item in items:
                            height = item.resume
                            heard = time.monotonic()
                            yield item
                reasons[url] = "ended the stream"
                refusal = None
            except httpx.HTTPError as error:
                reasons[url] = _reason(error)
            except RefusedError as error:
                if error.status == HTTPStatus.FORBIDDEN:
                    raise
                # A node that is behind does not have the block yet.
                reasons[url] = f"{error.problem}; {error.remedy}"
                refusal = error
            self._put_last(url)
            if reasons.keys() >= set(self._urls):
                if time.monotonic() - heard > patience_s:
                    raise refusal or UnreachableError(reasons)
                reasons.clear()
                await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

    def _put_last(self, url: str) -> None:
        self._urls.remove(url)
        self._urls.append(url)


def _check_url(url: str, has_credentials: bool) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    is_there = parsed.host and (parsed.port is None or 0 < parsed.port <= MAX_PORT)
    if parsed.scheme not in ("http", "https") or not is_there:
        raise ClientError(f"fog node {url!r}: is no address; give http://HOST:PORT")
    if parsed.scheme == "https" and not has_credentials:
        raise ClientError(
            f"fog node {url!r}: speaks TLS and wants to see a member's certificate; give yours"
        )


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    parameters: dict[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    media_type: str | None = None

    @property
    def query(self) -> dict[str, Any]:
        return {name: value for name, value in self.parameters.items() if value is not None}

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": self.media_type} if self.media_type else {}


def _extensions() -> dict[str, Any]:
    """What a request is asked with; see HTTPX's "request extensions"."""
    opened: list[Any] = []

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        # When a request is cancelled amid the handshake, nobody else closes its connection.
        if event == "connection.connect_tcp.complete":
            opened.append(info["return_value"])
        elif event == "connection.start_tls.failed":
            await opened.pop().aclose()

    # Whatever their addresses are, nodes show a certificate for this name.
    return {"sni_hostname": SERVER_NAME, "trace": trace}


def _reason(error: httpx.HTTPError) -> str:
    # What TLS said is in one of the exceptions that led to this one.
    cause: BaseException | None = error
    while cause is not None:
        for mark, meaning in _TLS_MEANINGS.items():
            if mark in str(cause):
                return meaning
        cause = cause.__cause__ or cause.__context__
    return str(error) or f"ends the connection ({type(error).__name__})"


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > max_bytes:
            raise AnswerError(f"{response.url}: answers with more than {max_bytes} bytes")
    return bytes(body)


def _check(response: httpx.Response, body: bytes) -> None:
    """Raise RefusedError where the node says no."""
    if response.is_success:
        return
    url, status = str(response.url), response.status_code
    try:
        error = models.ErrorView.model_validate_json(body).error
    except ValidationError:
        problem = f"is answered with {status} {response.reason_phrase}"
        raise RefusedError(url, status, "request", problem, "see the node's log") from None
    wait = response.headers.get("retry-after", "")
    wait_s = min(float(wait), MAX_RETRY_AFTER_S) if wait.isascii() and wait.isdigit() else 0.0
    raise RefusedError(url, status, error.field, error.problem, error.remedy, wait_s)


async def _sealed_blocks(
    response: httpx.Response, height: int
) -> AsyncGenerator[SealedBlock, None]:
    """Cut a CBOR sequence of [block, certificate] into its items, as they come."""
    buffer = bytearray()
    async for chunk in response.aiter_bytes():
        buffer += chunk
        while (item := _cut(buffer, str(response.url))) is not None:
            if item:
                yield SealedBlock(height, *item)
                height += 1


def _cut(buffer: bytearray, url: str) -> tuple[bytes, bytes] | tuple[()] | None:
    """Take the first item off `buffer`: a block, () for a sign of life, None if incomplete."""
    if not buffer:
        return None
    if buffer[0] == _EMPTY_ARRAY:
        del buffer[:1]
        return ()
    if buffer[0] != _PAIR:
        raise AnswerError(f"{url}: sends what is no pair of block and certificate")
    position = 1
    parts: list[bytes] = []
    for _ in range(2):
        head = _byte_string_head(buffer, position, url)
        if head is None:
            return None
        position, length = head
        if position + length > len(buffer):
            return None
        parts.append(bytes(buffer[position : position + length]))
        position += length
    del buffer[:position]
    return parts[0], parts[1]


def _byte_string_head(buffer: bytearray, position: int, url: str) -> tuple[int, int] | None:
    """Read a byte string's head (RFC 8949 section 3): where it begins, its length."""
    if position >= len(buffer):
        return None
    major, short = buffer[position] >> 5, buffer[position] & 0x1F
    extra = {24: 1, 25: 2, 26: 4}.get(short, 0)
    begin = position + 1 + extra
    if major != _BYTE_STRING or short > 26:
        raise AnswerError(f"{url}: sends what is no pair of byte strings")
    if begin > len(buffer):
        return None
    length = int.from_bytes(buffer[position + 1 : begin], "big") if extra else short
    if length > MAX_SEALED_BYTES:
        raise AnswerError(f"{url}: sends an item of {length} bytes, at most {MAX_SEALED_BYTES}")
    return begin, length


async def _events(response: httpx.Response, height: int) -> AsyncGenerator[ChainEvent, None]:
    """Read server-sent events as our nodes write them: event, id, data, in this order."""
    kind = ""
    buffer = b""
    async for chunk in response.aiter_bytes():
        *lines, buffer = (buffer + chunk).split(b"\n")
        if len(buffer) > MAX_JSON_BYTES:
            raise AnswerError(f"{response.url}: sends a line of over {MAX_JSON_BYTES} bytes")
        for line in lines:
            name, _, value = line.decode(errors="replace").partition(": ")
            try:
                if name == "event":
                    kind = value
                elif name == "id":
                    height = int(value)
                elif name == "data":
                    yield ChainEvent(height, kind, json.loads(value))
            except ValueError as error:
                raise AnswerError(f"{response.url}: sends an unreadable event") from error
