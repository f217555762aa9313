"""What goes into a network: packs of boards, and enrolments by the operator."""

from __future__ import annotations

import asyncio
import random
import time

from fog_node.client import ClientError
from fog_node.protocol.keys import PublicKey, SigningKey
from fog_node.protocol.transactions import Channel, Enrol, Transaction, sign_transaction

from .boards import CHANNELS, DEVICE_TYPE, FirmwareBoard, SimulatedBoard
from .manifest import BOARDS
from .net import OPERATOR, Net, Node

SPARE_S = 0.3
RETRY_S = 0.1
RESEND_S = 1.0


class Load:
    """Sends in until everything is receipted or final.

    Attributes:
        enrolled: what the operator sent and a node accepted, in order.
    """

    def __init__(self, net: Net) -> None:
        self._net = net
        self._rng = random.Random(net.rng.randrange(2**32))
        self._key = net.consortium.signing_key(OPERATOR)
        self.boards: list[SimulatedBoard | FirmwareBoard] = []
        self.enrolled: list[Transaction] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._resending: asyncio.Task[None] | None = None
        self._busy = False
        self._numbers = 0
        self._sending = asyncio.Lock()
        gateways = list(net.manifest.gateways)
        load = net.manifest.load
        for index in range(load.boards):
            turn = index % len(gateways)
            order = gateways[turn:] + gateways[:turn]
            rng = random.Random(self._rng.randrange(2**32))
            name = f"board-{index + 1}"
            if load.firmware:
                rate = load.rows * 2000 / sum(load.pause_ms)
                self.boards.append(
                    FirmwareBoard(
                        name, net.founding, order, net.directory / BOARDS,
                        rng.randrange(2**16), packs=load.packs, rows=load.rows,
                        rate_hz=rate, gateway_timeout_s=load.gateway_timeout_s,
                    )
                )  # fmt: skip
            else:
                self.boards.append(
                    SimulatedBoard(
                        name, net.founding, order, rng, packs=load.packs, rows=load.rows,
                        pause_ms=load.pause_ms, gateway_timeout_s=load.gateway_timeout_s,
                    )
                )  # fmt: skip

    @property
    def receipts(self) -> int:
        """Packs of boards that are receipted."""
        return sum(board.receipted - 1 for board in self.boards)

    @property
    def boards_done(self) -> bool:
        """Whether every board has a receipt for all it was to measure."""
        return all(board.done for board in self.boards)

    @property
    def done(self) -> bool:
        """Whether all that was to be sent is accepted."""
        return all(task.done() for task in self._tasks)

    async def start(self) -> None:
        """Enrol the boards, and let them and the operator begin."""
        net = self._net
        host, port = net.boards_broker
        for board in self.boards:
            channels = CHANNELS
            if isinstance(board, FirmwareBoard):
                await asyncio.to_thread(board.provision, host, port)
                channels = board.channels
            await self.enrol(board.public, channels)
        authority = net.consortium.authority_certificate
        source = net.wires.source(BOARDS)
        self._tasks = [
            asyncio.create_task(board.run(host, port, authority, source)) for board in self.boards
        ]
        self._tasks.append(asyncio.create_task(self._enrol_more()))
        self._resending = asyncio.create_task(self._resend())

    def keep_busy(self) -> None:
        """From now on enrol for as long as the network is perturbed, so that blocks are due."""
        if not self._busy:
            self._busy = True
            self._tasks.append(asyncio.create_task(self._enrol_on()))

    def finish(self) -> None:
        """No more than was planned."""
        self._busy = False

    def check(self) -> None:
        """Raise what ended a board or the operator."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def stop(self) -> None:
        """End everything."""
        tasks = self._tasks + ([self._resending] if self._resending else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def enrol(self, key: PublicKey, channels: tuple[Channel, ...] = CHANNELS) -> Transaction:
        """Enrol a board, through any node that runs and accepts it."""
        async with self._sending:
            self._numbers += 1
            body = Enrol(key, OPERATOR, DEVICE_TYPE, "unix", channels, time.time_ns() // 1_000_000)
            transaction = sign_transaction(
                self._key, body, self._net.founding.chain_id, self._numbers
            )
            while not await self._submit(transaction):  # noqa: ASYNC110
                await asyncio.sleep(RETRY_S)
            self.enrolled.append(transaction)
            return transaction

    async def _submit(self, transaction: Transaction) -> bool:
        node = self._any_node()
        if node is None:
            return False
        try:
            await node.process.client.submit(transaction.raw)
        except ClientError:
            return False
        return True

    async def _enrol_more(self) -> None:
        for _ in range(self._net.manifest.load.enrolments):
            await self.enrol(self._stranger())
            await asyncio.sleep(self._rng.uniform(0.1, 2 * SPARE_S))

    async def _enrol_on(self) -> None:
        while self._busy:
            await self.enrol(self._stranger())
            await asyncio.sleep(SPARE_S)

    async def _resend(self) -> None:
        """Send what is not final to another node: who took it may have been cut off since."""
        while True:
            await asyncio.sleep(RESEND_S)
            node = self._any_node()
            try:
                if node is None:
                    continue
                view = await node.process.client.signer(self._key.kid)
                for transaction in self.enrolled[view.next - 1 :]:
                    await node.process.client.submit(transaction.raw)
            except ClientError:
                continue

    def _any_node(self) -> Node | None:
        nodes = [node for node in self._net.nodes.values() if node.active]
        return self._rng.choice(nodes) if nodes else None

    def _stranger(self) -> PublicKey:
        return SigningKey.from_secret(self._rng.randrange(1, 2**255)).public
