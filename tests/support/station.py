"""A gateway with a real ledger behind it, which the test seals by hand."""

import asyncio

from fog_node.blobs import BlobStore
from fog_node.gateway.gateway import Gateway, GatewayParts
from fog_node.protocol.transactions import parse_transaction
from support.small_chain import GATEWAY_NAME

DEADLINE_S = 60


class Station:
    """A gateway over a chain that the test seals by hand; it runs while entered."""

    def __init__(self, chain, directory, broker=None, grace_s=0.0, serial=None):
        self.chain = chain
        self.blobs = BlobStore(directory / "blobs", 10_000_000)
        self.quarantine = directory / "quarantine"
        self.passed_on = []
        self.cloned = []
        self._parts = GatewayParts(
            name=GATEWAY_NAME,
            key=chain.gateway,
            ledger=chain.ledger,
            blobs=self.blobs,
            quarantine=self.quarantine,
            submit=lambda body: chain.admit(chain.sign(chain.gateway, body)),
            admitted=self.passed_on.extend,
            cloned=lambda one, other: self.cloned.append((one, other)),
        )
        self._broker = broker
        self._grace_s = grace_s
        self._serial = serial

    async def __aenter__(self):
        self.gateway = Gateway(self._parts, self._broker, self._grace_s, self._serial)
        self._task = asyncio.create_task(self.gateway.run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        results = await asyncio.gather(self._task, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError), results

    async def until(self, condition):
        """Wait until it holds; the gateway must not end meanwhile."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition(self.gateway.counts()):
                assert not self._task.done(), self._task
                await asyncio.sleep(0.01)

    async def until_connected(self):
        await self.until(lambda counts: counts.connected)

    async def until_admitted(self, count):
        await self.until(lambda counts: counts.messages.get("admitted", 0) >= count)

    def seal(self):
        self.gateway.committed(self.chain.seal())

    def incidents(self):
        """Bodies of the incidents on the chain, oldest first, once the waiting ones are final."""
        self.chain.seal()
        places = self.chain.ledger.list_kind("incident")
        return [parse_transaction(place.raw).body for place in reversed(places)]
