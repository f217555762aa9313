"""A process full of request nodes, for `fogline bench clients`: JSON jobs in, JSON results out.

Each line of standard input is a job: `{"do", "members", "urls", "concurrency", ...}`; each is
answered with one line, an array with one result per member. A member's whole session is
measured: reading its keys, a connection of its own with its own certificate, the request and
the answer, and the end of the connection.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fog_node.client import Client, ClientError
from fog_node.credentials import Credentials
from fog_node.errors import FogNodeError
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.proof import parse_proof
from fog_node.protocol.requests import Content, Request, Response
from fog_node.protocol.transactions import Body, sign_transaction
from tools.consortium import load_founding, load_key
from tools.errors import ToolError
from tools.nodes import TLS_CERTIFICATE, TLS_KEY

# A client that finds no room comes back for so long.
PATIENCE_S = 120.0
TIMEOUT_S = 60.0
HOUR_MS = 3_600_000


class Load:
    """Does the jobs of one process."""

    def __init__(self, founding: Founding) -> None:
        """Take the founding file, which all members hold."""
        self._founding = founding

    async def do(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """Do a job for each of its members, `concurrency` at once at most."""
        places = asyncio.Semaphore(job["concurrency"])
        action: Callable[[dict[str, Any], Client], Awaitable[dict[str, Any]]] = {
            "submit": self._submit,
            "prove": self._prove,
        }[job["do"]]

        async def one(number: int, member: dict[str, Any]) -> dict[str, Any]:
            urls: list[str] = job["urls"]
            # Each begins with another node, and goes on to the next where one has no room.
            begin = number % len(urls)
            async with places:
                return await self._session(member, urls[begin:] + urls[:begin], action)

        return list(await asyncio.gather(*(one(i, m) for i, m in enumerate(job["members"]))))

    async def _session(
        self,
        member: dict[str, Any],
        urls: list[str],
        action: Callable[[dict[str, Any], Client], Awaitable[dict[str, Any]]],
    ) -> dict[str, Any]:
        began = time.perf_counter()
        try:
            async with self._client(Path(member["directory"]), urls) as client:
                done = await action(member, client)
        except (ClientError, ProtocolError, FogNodeError, ToolError) as error:
            done = {"error": str(error)}
        return {
            "name": member["name"],
            "seconds": time.perf_counter() - began,
            "ended": time.time(),
            **done,
        }

    def _client(self, directory: Path, urls: list[str]) -> Client:
        credentials = Credentials(
            directory / TLS_CERTIFICATE, directory / TLS_KEY, self._founding.authority
        )
        return Client(urls, TIMEOUT_S, credentials=credentials, patience_s=PATIENCE_S)

    async def _submit(self, member: dict[str, Any], client: Client) -> dict[str, Any]:
        key = load_key(Path(member["directory"]) / "signing.key")
        now = time.time_ns() // 1_000_000
        content = Content.of(b"n" * member["size"])
        body: Body
        if "request" in member:
            body = Response(bytes.fromhex(member["request"]), "done", content, now)
        else:
            provider = bytes.fromhex(member["provider"])
            body = Request(provider, "bench", content, now + HOUR_MS, now)
        signer = await client.signer(key.kid)
        transaction = sign_transaction(key, body, self._founding.chain_id, signer.next)
        submitted = await client.submit(transaction.raw)
        return {"id": submitted.id, "status": submitted.status}

    async def _prove(self, member: dict[str, Any], client: Client) -> dict[str, Any]:
        wanted = bytes.fromhex(member["id"])
        proof = parse_proof(await client.proof(wanted))
        proof.verify(self._founding)
        transaction = proof.subject.transaction
        key = load_key(Path(member["directory"]) / "signing.key")
        if transaction.id != wanted or transaction.signer != key.kid:
            raise ToolError(f"{member['name']}: was given the proof of something else")
        return {}


async def _serve(founding: Founding) -> None:
    load = Load(founding)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        results = await load.do(json.loads(line))
        print(json.dumps(results), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(load_founding(Path(sys.argv[1]))))
