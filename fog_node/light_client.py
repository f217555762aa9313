"""A light client: follows the chain by its certificates, without bodies, and checks proofs.

It holds the founding file, and needs some hundred bytes more: the head, and who votes next.
No node is trusted: each block is checked against the validators that the one before names,
and all nodes that are given are asked whether they have the same block at the head.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from .client import Client, ClientError, RefusedError
from .errors import ForkError
from .protocol.cbor import decode, encode
from .protocol.errors import FormatError, ProtocolError
from .protocol.founding import Founding
from .protocol.proof import Proof, parse_proof
from .protocol.sealed_header import MAX_SEALED_HEADER_BYTES, LightChain, SealedHeader
from .protocol.validate import array
from .protocol.validators import MAX_SET_BYTES
from .small_files import read_small

MAX_FILE_BYTES = MAX_SEALED_HEADER_BYTES + MAX_SET_BYTES + 1024
FORMAT = "fogline-light-chain-1"


class LightClientError(ClientError):
    """A node gives what its own consortium has not agreed on, or the kept file is damaged."""


class LightClient:
    """Follows one consortium's chain over the API of its nodes; an async context manager.

    Methods raise UnreachableError and AnswerError as `Client` does, LightClientError where
    what a node says does not hold, and ForkError where two certified blocks stand at one
    height: then nothing on this chain is to be relied on until its operators have explained.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        founding: Founding,
        kept: Path | None = None,
    ) -> None:
        """Begin at the founding, or where `kept` says that an earlier run had come.

        Args:
            clients: one per node; all are compared.
            founding: the anchor of all trust.
            kept: file that holds the head between runs; written by `sync`.
        """
        self._clients = list(clients)
        self._founding = founding
        self._kept = kept
        self._stack = AsyncExitStack()
        # The chain below the head, and the head: what is needed to judge another head.
        self._below = LightChain.at_founding(founding)
        self._head: SealedHeader | None = None
        self._chain = self._below
        if kept is not None and kept.exists():
            self._load(kept)

    async def __aenter__(self) -> Self:
        """Begin."""
        for client in self._clients:
            await self._stack.enter_async_context(client)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self._stack.aclose()

    @property
    def chain(self) -> LightChain:
        """What has been checked so far: height, head, state root, and who votes next."""
        return self._chain

    async def sync(self, progress: Callable[[int], None] | None = None) -> LightChain:
        """Follow the chain to its present head, over all nodes, and compare their heads.

        Nodes that do not answer are passed over as long as one does.
        """
        reached = 0
        failure: ClientError | None = None
        for client in self._clients:
            try:
                await self._compare(client)
                await self._follow(client, progress)
                reached += 1
            except LightClientError:
                raise
            except ClientError as error:
                failure = error
        if not reached and failure is not None:
            raise failure
        self._save()
        return self._chain

    async def proof(self, transaction_id: bytes) -> Proof:
        """Get the proof of a final transaction and check it."""
        proof = parse_proof(await self._clients[0].proof(transaction_id))
        try:
            proof.verify(self._founding)
        except ProtocolError as error:
            raise LightClientError(f"proof of {transaction_id.hex()}: {error}") from error
        return proof

    async def _follow(self, client: Client, progress: Callable[[int], None] | None) -> None:
        while page := await client.headers(self._chain.height + 1):
            for sealed in page:
                try:
                    after = self._chain.after(sealed)
                except ProtocolError as error:
                    height = self._chain.height + 1
                    first = "give the founding file of its ledger; if this is it, "
                    raise LightClientError(
                        f"height {height}: a node gives what does not hold: {error}; "
                        f"{first if height == 1 else ''}ask another node, and tell this one's "
                        "operator"
                    ) from error
                self._below, self._head, self._chain = self._chain, sealed, after
            if progress is not None:
                progress(self._chain.height)

    async def _compare(self, client: Client) -> None:
        """Ask a node for the block at our head; raises ForkError where it has another one."""
        if self._head is None:
            return
        try:
            page = await client.headers(self._head.height)
        except RefusedError:
            return  # it is behind
        if not page or page[0].hash == self._head.hash:
            return
        try:
            self._below.after(page[0])
        except ProtocolError as error:
            raise LightClientError(
                f"height {self._head.height}: a node gives another block, without the votes for "
                f"it: {error}; ask another node, and tell this one's operator"
            ) from error
        raise ForkError(self._head.height, (self._head.hash, page[0].hash))

    def _load(self, path: Path) -> None:
        try:
            kept = read_small(path, MAX_FILE_BYTES)
            name, below, head = array(
                decode(kept, MAX_FILE_BYTES, "light chain"), "light chain", length=3
            )
            if name != FORMAT:
                raise FormatError("light chain", f"is not {FORMAT}")
            self._below = LightChain.from_value(below)
            if self._below.chain_id != self._founding.chain_id:
                raise FormatError("light chain.chain id", "is another consortium's")
            if head is None:
                self._chain = self._below
                return
            self._head = SealedHeader.from_value(head)
            self._chain = self._below.after(self._head)
        except (ProtocolError, OSError) as error:
            raise LightClientError(
                f"{path}: cannot be used: {error}; delete it to follow the chain from the founding"
            ) from error

    def _save(self) -> None:
        if self._kept is None:
            return
        head = None if self._head is None else self._head.value()
        data = encode([FORMAT, self._below.value(), head])
        new = self._kept.with_name(self._kept.name + ".new")
        try:
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._kept)
        except OSError as error:
            raise LightClientError(
                f"{self._kept}: cannot be written: {error.strerror}; name another file"
            ) from error
