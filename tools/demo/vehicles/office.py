"""Members' letters: requests and their answers, each a transaction, with contents by their hash."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

from fog_node.client import Client, RefusedError
from fog_node.protocol.requests import Content, Response
from tools import requests
from tools.demo.fleet import Fleet
from tools.nodes import Nodes
from tools.submit import submit, wait_final

ANSWER_HOURS = 24.0
# Nodes pass on what they have within a second or so.
PATIENCE_S = 60.0
POLL_S = 0.1
_T = TypeVar("_T")


class Office:
    """Sends members' letters, each through the member's own node if it has one."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def client(self, member: str = "") -> Client:
        """A client of the member's node; of the last validator's for those without one."""
        return Client([self._api(member)])

    async def ask(self, member: str, provider: str | None, service: str, data: bytes) -> str:
        """Send a request and wait until it is final; gives its id. None: any provider."""
        sent = await requests.send(self._sender(member), service, provider, data, ANSWER_HOURS)
        return str(sent["request"])

    async def answer(self, member: str, request: str, outcome: str, data: bytes) -> str:
        """Answer a request and wait until that is final; gives the answer's id."""
        sender = self._sender(member)
        async with self.client(member) as client:
            await _patiently(client.transaction, bytes.fromhex(request))
        sent = await requests.answer(sender, bytes.fromhex(request), outcome, data)
        return str(sent["response"])

    async def answer_beside(
        self, member: str, request: str, data: bytes, falsified: bytes
    ) -> tuple[str, bool]:
        """Answer with what lies beside the chain; somebody puts another thing there first.

        Returns:
            The answer's id, and whether that other thing was refused.
        """
        body = Response(bytes.fromhex(request), "done", Content.of(data), _now_ms())
        async with self.client(member) as client:
            key = self._fleet.consortium.signing_key(member)
            sent = await submit(client, key, body, self._fleet.founding, wait=False)
            refused = False
            try:
                await client.put_content(sent.id, falsified)
            except RefusedError:
                refused = True
            await client.put_content(sent.id, data)
            await wait_final(client, sent)
        return sent.id.hex(), refused

    async def content(self, member: str, transaction: str) -> bytes:
        """Get what came with a letter, by the hash that the transaction names."""
        async with self.client(member) as client:
            identity = bytes.fromhex(transaction)
            view = await _patiently(client.transaction, identity)
            sha256 = bytes.fromhex(view.body["content"]["sha256"])
            return await _patiently(client.content, identity, sha256)

    async def outcome(self, member: str, response: str) -> str:
        """What an answer says: accepted, declined, done or failed."""
        async with self.client(member) as client:
            view = await _patiently(client.transaction, bytes.fromhex(response))
            return str(view.body["outcome"])

    def _api(self, member: str) -> str:
        return self._fleet.apis.get(member, self._fleet.apis[self._fleet.validators[-1]])

    def _sender(self, member: str) -> requests.Sender:
        return requests.Sender(
            Nodes((self._api(member),)),
            self._fleet.founding,
            self._fleet.consortium.signing_key(member),
        )


def to_json(value: Any) -> bytes:
    """What a letter holds: JSON, for people and programs."""
    return json.dumps(value, indent=1, sort_keys=True).encode()


async def _patiently(ask: Callable[..., Awaitable[_T]], *arguments: bytes) -> _T:
    """Ask a node for what another has already, until it has it, too; raises RefusedError."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await ask(*arguments)
        except RefusedError as error:
            if error.status != HTTPStatus.NOT_FOUND or time.monotonic() > deadline:
                raise
        await asyncio.sleep(POLL_S)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
