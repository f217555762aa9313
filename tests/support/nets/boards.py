"""Boards that load a network: measure, sign, send with QoS 1, keep until the receipt, send again.

`SimulatedBoard` does on asyncio what `firmware/fogline/uplink.py` does; `FirmwareBoard` is the
firmware itself, under MicroPython. What they measure are rows of SKAB where FOGLINE_DATA names the
recordings, else rows drawn from the seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import os
import random
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiomqtt

from fog_node.gateway.topics import Topics
from fog_node.protocol import senml
from fog_node.protocol.cbor import encode
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import PublicKey, SigningKey
from fog_node.protocol.receipt import decode_receipt, receipt_key
from fog_node.protocol.transactions import Channel, PackBody, sign_transaction
from tools.demo.boards import Board as Micropython
from tools.demo.boards import find_micropython

DEVICE_TYPE = "water-circulation"
WINDOW = 64
IN_FLIGHT = 8
ANNOUNCE_S = 2.0
TICK_S = 0.25
ANSWER_TIMEOUT_S = 10.0
KEEPALIVE_S = 10
BACKOFF_S = (0.25, 4.0)
MAX_SIGNED_AHEAD = 400  # what a board's outbox of 256 KiB about holds
# As firmware/drivers/water_circulation.py has them, with the columns of the recordings.
COLUMNS = {
    "Accelerometer1RMS": Channel("accelerometer1", "[g]", 0.0, 4.0),
    "Accelerometer2RMS": Channel("accelerometer2", "[g]", 0.0, 4.0),
    "Current": Channel("current", "A", 0.0, 16.0),
    "Pressure": Channel("pressure", "bar", -5.0, 16.0),
    "Temperature": Channel("temperature", "Cel", -20.0, 150.0),
    "Thermocouple": Channel("thermocouple", "Cel", -20.0, 150.0),
    "Voltage": Channel("voltage", "V", 0.0, 400.0),
    "Volume Flow RateRMS": Channel("flow", "L/min", 0.0, 400.0),
}
CHANNELS = tuple(COLUMNS.values())
START_S = 1_767_225_600

Row = tuple[int, list[float]]


def source_of_readings() -> str:
    """Where boards' readings come from on this machine, for people."""
    return "SKAB" if _recordings() else "drawn from the seed (FOGLINE_DATA is not set)"


def _recordings() -> list[Path]:
    folder = os.environ.get("FOGLINE_DATA")
    if folder is None:
        return []
    found = sorted((Path(folder) / "skab").rglob("*.csv"))
    assert found, f"FOGLINE_DATA={folder}: holds no skab/; put a copy of SKAB there, or unset it"
    return found


def readings(rng: random.Random) -> Iterator[Row]:
    """Rows (s since 1970, value per channel) of one recording after the other, without an end."""
    if files := _recordings():
        rng.shuffle(files)
        last = 0
        while True:
            for path in files:
                for moment, values in _rows(path):
                    last = max(last + 1, moment)
                    yield last, values
    moment = START_S
    while True:
        moment += 1
        yield moment, [rng.uniform(max(0.0, c.minimum), c.maximum) for c in CHANNELS]


def _rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter=";"):
            moment = datetime.fromisoformat(row["datetime"]).replace(tzinfo=UTC)
            yield int(moment.timestamp()), [float(row[column]) for column in COLUMNS]


class SimulatedBoard:
    """One board on asyncio; `run` it until `done`.

    Attributes:
        signed: its packs by number, as signed.
        receipted: all numbers below are final, as a gateway's receipt says.
    """

    def __init__(
        self,
        name: str,
        founding: Founding,
        gateways: Sequence[str],
        rng: random.Random,
        *,
        packs: int,
        rows: int,
        pause_ms: Sequence[int],
        gateway_timeout_s: float,
    ) -> None:
        self.name = name
        self.key = SigningKey.from_secret(rng.randrange(1, 2**255))
        self.signed: dict[int, bytes] = {}
        self.receipted = 1
        self.resent = 0
        self.connections = 0
        self.ignored: list[str] = []
        self._founding = founding
        by_name = {member.name: member for member in founding.members}
        self._gateways = [by_name[gateway] for gateway in gateways]
        self._agreed = {
            m.name: receipt_key(self.key, m.key, m.kid, self.key.kid, founding.chain_id)
            for m in self._gateways
        }
        self._rng = rng
        self._rows = readings(rng)
        self._plan = (packs, rows, pause_ms, gateway_timeout_s)
        self._at = 0
        self._heard = False
        self._announce = False
        self._announced_s = 0.0
        self._sent = 1
        self._highest = 0
        self._waiting_s = 0.0
        self._repeated = False
        self._wake = asyncio.Event()
        self._pending: set[int] = set()

    @property
    def public(self) -> PublicKey:
        """The board's public key."""
        return self.key.public

    @property
    def last(self) -> int:
        """The highest number it has signed; 0 for none."""
        return len(self.signed)

    @property
    def done(self) -> bool:
        """Whether everything it was to measure is receipted."""
        return self.receipted > self._plan[0]

    async def run(self, host: str, port: int, ca: Path, source: str) -> None:
        """Measure and send until done."""
        context = ssl.create_default_context(cafile=str(ca))
        measuring = asyncio.create_task(self._measure())
        delay = BACKOFF_S[0]
        try:
            while not self.done:
                before = self.receipted
                with contextlib.suppress(OSError, aiomqtt.MqttError):
                    await self._converse(host, port, context, source)
                _check_cancelled()
                delay = BACKOFF_S[0] if self.receipted > before else min(2 * delay, BACKOFF_S[1])
                if not self.done:
                    await asyncio.sleep(delay * self._rng.uniform(0.5, 1.0))
            await measuring
        finally:
            measuring.cancel()
            await asyncio.gather(measuring, return_exceptions=True)

    async def _measure(self) -> None:
        packs, _, (least, most), _ = self._plan
        while self.last < packs:
            await asyncio.sleep(self._rng.uniform(least, most) / 1000)
            if self.last + 1 - self.receipted < MAX_SIGNED_AHEAD:
                self._sign()
                self._wake.set()

    def _sign(self) -> None:
        rows = [next(self._rows) for _ in range(self._plan[1])]
        begin = rows[0][0]
        items = [
            (moment - begin, [(c.name, c.unit, v) for c, v in zip(CHANNELS, values, strict=True)])
            for moment, values in rows
        ]
        number = self._founding.parameters.enterprise_number
        payload = senml.encode_pack(number, self.key.kid, begin, items)
        sequence = self.last + 1
        chain_id = self._founding.chain_id
        body = PackBody.decode(payload)
        self.signed[sequence] = sign_transaction(
            self.key, body, chain_id, sequence, self.receipted
        ).raw
        if sequence == self.receipted:
            self._wait_anew()

    # One connection

    async def _converse(self, host: str, port: int, context: ssl.SSLContext, source: str) -> None:
        offline = aiomqtt.Will(self._topic("status"), self._status("offline"), 1, retain=True)
        async with aiomqtt.Client(
            host, port, identifier=self.key.kid.hex(), clean_session=False, will=offline,
            tls_context=context, keepalive=KEEPALIVE_S, timeout=ANSWER_TIMEOUT_S,
            bind_address=source,
        ) as client:  # fmt: skip
            filters = [(Topics(m.name).receipt(self.key.kid), 1) for m in self._gateways]
            await client.subscribe(filters)
            self.connections += 1
            self._heard, self._announce = False, True
            self._sent = self.receipted
            self._pending.clear()
            self._wait_anew()
            tasks = [asyncio.create_task(self._publish(client)) for _ in range(IN_FLIGHT)]
            tasks += [asyncio.create_task(self._watch()), asyncio.create_task(self._read(client))]
            try:
                ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            for task in ended:
                task.result()
            if self.done:
                await client.publish(self._topic("status"), self._status("offline"), 1, retain=True)

    async def _read(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            gateway = message.topic.value.split("/")[1]
            try:
                receipt = decode_receipt(
                    message.payload, self._agreed[gateway], self._founding.chain_id
                )
            except ProtocolError as error:
                self.ignored.append(str(error))
                continue
            if gateway == self._gateways[self._at].name and not self._heard:
                self._heard = True
                self._wait_anew()
            if receipt.next > self.receipted:
                self.receipted = receipt.next
                self._wait_anew()
            self._wake.set()
            if self.done:
                return

    async def _publish(self, client: aiomqtt.Client) -> None:
        while True:
            message = self._next_message()
            if message is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            topic, payload, retain, sequence = message
            await client.publish(topic, payload, qos=1, retain=retain)
            _check_cancelled()
            self._pending.discard(sequence)

    def _next_message(self) -> tuple[str, bytes, bool, int] | None:
        if self._announce:
            self._announce = False
            self._announced_s = _now()
            return self._topic("status"), self._status("online"), True, 0
        if not self._heard:
            return None
        number = max(self._sent, self.receipted)
        end = min(self.last + 1, self.receipted + WINDOW)
        while number < end and number in self._pending:
            number += 1
        if number >= end:
            return None
        self._sent = number + 1
        self._pending.add(number)
        self.resent += number <= self._highest
        self._highest = max(self._highest, number)
        return self._topic("up"), self.signed[number], False, number

    async def _watch(self) -> None:
        """Return where the gateway is to be left."""
        timeout_s = self._plan[3]
        while True:
            await asyncio.sleep(TICK_S)
            if self._heard and self.receipted > self.last:
                continue
            waited_s = _now() - self._waiting_s
            if waited_s > timeout_s:
                self._at = (self._at + 1) % len(self._gateways)
                return
            if not self._heard and _now() - self._announced_s > ANNOUNCE_S:
                self._announce = True
            elif self._heard and waited_s > timeout_s / 2 and not self._repeated:
                self._repeated = True
                self._sent = self.receipted
            self._wake.set()

    def _wait_anew(self) -> None:
        self._waiting_s = _now()
        self._repeated = False

    def _topic(self, kind: str) -> str:
        return f"fogline/{self._gateways[self._at].name}/{kind}/{self.key.kid.hex()}"

    def _status(self, state: str) -> bytes:
        return encode(
            {
                "state": state,
                "next": self.last + 1,
                "model": None,
                "firmware": "test",
                "nonce": bytes(8),
            }
        )


def _check_cancelled() -> None:
    """Raise CancelledError where aiomqtt has lost it, as it may up to Python 3.11."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _now() -> float:
    return asyncio.get_running_loop().time()


class FirmwareBoard:
    """One board that is the firmware, in a process; as SimulatedBoard where they can be alike.

    It keeps its packs to itself: `signed` holds None for each number.
    """

    def __init__(
        self,
        name: str,
        founding: Founding,
        gateways: Sequence[str],
        directory: Path,
        seed: int,
        *,
        packs: int,
        rows: int,
        rate_hz: float,
        gateway_timeout_s: float,
    ) -> None:
        self.name = name
        self._packs = packs
        self._rows = rows
        self._rate_hz = rate_hz
        self._gateway_timeout_s = gateway_timeout_s
        self._founding = founding
        by_name = {member.name: member for member in founding.members}
        self._gateways = [{"name": g, "key": by_name[g].key.xy.hex()} for g in gateways]
        self._seed = seed
        self._board = Micropython(
            name, directory / name, find_micropython(), directory / f"{name}.log"
        )
        self.resent = 0
        self.ignored: list[str] = []

    def provision(self, host: str, port: int) -> None:
        """Let it make its key."""
        driver: dict[str, Any] = {"name": "testbed", "seed": self._seed}
        driver["script"] = [{"rows": self._packs * self._rows, "fault": None}]
        if files := _recordings():
            experiment = files[self._seed % len(files)]
            item = {"path": str(experiment), "first": 0, "count": self._packs * self._rows}
            driver = {"name": "replay", "script": [item]}
        self._board.configure(
            {
                "chain_id": self._founding.chain_id.hex(),
                "device_type": DEVICE_TYPE,
                "board": "unix",
                "enterprise_number": self._founding.parameters.enterprise_number,
                "gateways": self._gateways,
                "mqtt": {
                    "host": host,
                    "port": port,
                    "tls": True,
                    "ca": "ca.der",
                    "server_name": "localhost",
                    "keepalive_s": KEEPALIVE_S,
                },
                "release_keys": [],
                "driver": driver,
                "pack_rows": self._rows,
                "rate_hz": self._rate_hz,
                "outbox_bytes": 262_144,
                "gateway_timeout_s": self._gateway_timeout_s,
            },
            self._founding.authority,
        )
        self._board.provision()

    @property
    def public(self) -> PublicKey:
        """The board's public key, once provisioned."""
        assert self._board.key is not None
        return self._board.key

    @property
    def channels(self) -> tuple[Channel, ...]:
        """What it measures, as it says."""
        return self._board.channels

    @property
    def signed(self) -> dict[int, bytes | None]:
        """The numbers it has signed."""
        return dict.fromkeys(self._board.signed)

    @property
    def last(self) -> int:
        """The highest number it has signed; 0 for none."""
        return max(self._board.signed, default=0)

    @property
    def receipted(self) -> int:
        """All numbers below are final, as a gateway's receipt says."""
        return self._board.receipted

    @property
    def done(self) -> bool:
        """Whether it has ended because everything is receipted."""
        return self._board.done is not None

    async def run(self, host: str, port: int, ca: Path, source: str) -> None:
        """Run the firmware until it says that it is done."""
        await self._board.start()
        try:
            while not self.done:
                self._board.check()
                assert not self._board.problems, self._board.problems
                await asyncio.sleep(TICK_S)
        finally:
            await self._board.stop()
