"""Requests of customers and responses of providers: send, answer, list, show."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fog_node.api.models import TransactionView
from fog_node.client import Client
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey, kid_hex, parse_kid
from fog_node.protocol.merkle import HASH_BYTES
from fog_node.protocol.requests import MAX_CONTENT_BYTES, Content, Request, Response
from fog_node.small_files import read_small
from tools.errors import ToolError, UsageError
from tools.nodes import Nodes
from tools.submit import submit, wait_final

HOUR_MS = 3_600_000
# How long to go on while no node answers or none has room.
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Sender:
    """Who signs, through which nodes, on which ledger."""

    nodes: Nodes
    founding: Founding
    key: SigningKey


def read_content(path: Path) -> bytes:
    """Read what a request or response is to carry; raises ToolError."""
    try:
        return read_small(path, MAX_CONTENT_BYTES)
    except OSError as error:
        raise ToolError(f"{path}: cannot be read: {error.strerror}") from error


def read_id(text: str) -> bytes:
    """Read a transaction's id; raises UsageError."""
    try:
        identity = bytes.fromhex(text)
    except ValueError:
        identity = b""
    if len(identity) != HASH_BYTES:
        raise UsageError(f"{text}: is no transaction id; give its {2 * HASH_BYTES} hex digits")
    return identity


async def send(
    sender: Sender, service: str, provider: str | None, data: bytes, hours: float
) -> dict[str, Any]:
    """Ask for a service, and wait until that is final.

    Args:
        sender: who must be a customer.
        service: its short name.
        provider: name or key id of who is asked; None: any provider.
        data: the particulars.
        hours: how long an answer is in time.
    """
    now = time.time_ns() // 1_000_000
    async with sender.nodes.client(PATIENCE_S) as client:
        kid = None if provider is None else await _kid_of(client, provider)
        until = now + round(hours * HOUR_MS)
        body = Request(kid, service, Content.of(data), until, now)
        try:
            Request.decode(body.encode())
        except ProtocolError as error:
            raise UsageError(str(error)) from error
        return {"request": await _send(client, sender, body, data)}


async def answer(
    sender: Sender, request: bytes, outcome: str, data: bytes | None
) -> dict[str, Any]:
    """Answer a request, and wait until that is final; `sender` must be a provider."""
    now = time.time_ns() // 1_000_000
    body = Response(request, outcome, None if data is None else Content.of(data), now)
    try:
        Response.decode(body.encode())
    except ProtocolError as error:
        raise UsageError(str(error)) from error
    async with sender.nodes.client(PATIENCE_S) as client:
        asked = await client.transaction(request)
        if asked.kind != "request":
            raise UsageError(f"{request.hex()}: is a {asked.kind}, no request")
        if asked.body["provider"] not in (None, kid_hex(sender.key.kid)):
            raise UsageError(f"{request.hex()}: asks another provider; yours would be no answer")
        return {"response": await _send(client, sender, body, data)}


async def listing(nodes: Nodes, limit: int) -> list[dict[str, Any]]:
    """The latest requests that are open to who asks, latest first, and what came of them."""
    async with nodes.client() as client:
        names = await _names(client)
        requests: list[TransactionView] = []
        async for view in client.all_transactions(kind="request"):
            requests.append(view)
            if len(requests) == limit:
                break
        answers = await _answers(client, requests)
        return [
            {
                "request": view.id,
                "customer": names.get(view.signer, view.signer),
                "provider": _name(view.body["provider"], names),
                "service": view.body["service"],
                "time": view.body["time"],
                "until": view.body["until"],
                "outcome": answers[view.id][-1].body["outcome"] if answers[view.id] else "open",
            }
            for view in requests
        ]


async def show(nodes: Nodes, request: bytes, out: Path | None) -> dict[str, Any]:
    """A request and its answers; saves the contents into the directory `out`, if given."""
    async with nodes.client() as client:
        names = await _names(client)
        view = await client.transaction(request)
        if view.kind != "request":
            raise UsageError(f"{request.hex()}: is a {view.kind}, no request")
        answers = (await _answers(client, [view]))[view.id]
        carrying = [one for one in (view, *answers) if one.body["content"] is not None]
        saved = [await _save(client, one, out) for one in carrying] if out is not None else []
        return {
            "request": view.id,
            "status": view.status,
            "customer": names.get(view.signer, view.signer),
            "provider": _name(view.body["provider"], names),
            "service": view.body["service"],
            "time": view.body["time"],
            "until": view.body["until"],
            "content": _shown(view.body["content"]),
            "answers": [
                {
                    "response": one.id,
                    "provider": names.get(one.signer, one.signer),
                    "outcome": one.body["outcome"],
                    "content": _shown(one.body["content"]),
                    "in_time": await _in_time(client, one, view.body["until"]),
                }
                for one in answers
            ],
            "saved": saved,
        }


async def _send(
    client: Client, sender: Sender, body: Request | Response, data: bytes | None
) -> str:
    """Sign, send, put the content beside the chain where it is large, and wait."""
    transaction = await submit(client, sender.key, body, sender.founding, wait=False)
    if data is not None and body.content is not None and body.content.inline is None:
        await client.put_content(transaction.id, data)
    await wait_final(client, transaction)
    return transaction.id.hex()


async def _kid_of(client: Client, provider: str) -> bytes:
    for member in await client.members():
        if provider in (member.name, member.kid):
            return parse_kid(member.kid)
    raise UsageError(f"--provider {provider}: is no member; `fogline consortium show` lists them")


async def _names(client: Client) -> dict[str, str]:
    return {member.kid: member.name for member in await client.members()}


def _name(kid: str | None, names: dict[str, str]) -> str:
    return "any" if kid is None else names.get(kid, kid)


async def _answers(
    client: Client, requests: Sequence[TransactionView]
) -> dict[str, list[TransactionView]]:
    """The answers to each of these requests, earliest first."""
    by_id = {view.id: view for view in requests}
    found: dict[str, list[TransactionView]] = {view.id: [] for view in requests}
    heights = [view.height for view in requests if view.height is not None]
    if not heights:
        return found
    async for response in client.all_transactions(kind="response"):
        if response.height is not None and response.height < min(heights):
            break  # answers come behind what they answer
        asked = by_id.get(response.body["request"])
        if asked is not None and asked.body["provider"] in (None, response.signer):
            found[asked.id].insert(0, response)
    return found


async def _in_time(client: Client, response: TransactionView, until: str) -> bool:
    assert response.height is not None
    (block,) = (await client.blocks(response.height, 1)).blocks
    assert block.time is not None
    return datetime.fromisoformat(block.time) <= datetime.fromisoformat(until)


async def _save(client: Client, view: TransactionView, out: Path) -> str:
    content = view.body["content"]
    data = await client.content(bytes.fromhex(view.id), bytes.fromhex(content["sha256"]))
    return str(await asyncio.to_thread(_write, out, f"{view.kind}-{view.id[:16]}", data))


def _write(directory: Path, name: str, data: bytes) -> Path:
    path = directory / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ToolError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _shown(content: dict[str, Any] | None) -> str:
    if content is None:
        return "none"
    where = "in the chain" if content["inline"] is not None else "beside the chain"
    return f"{content['size']} bytes {where}, SHA-256 {content['sha256']}"
