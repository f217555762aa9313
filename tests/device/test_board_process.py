"""Boards as processes, a real Mosquitto, and a small gateway of this file's own.

The gateway here shares no code with fog_node: it decodes with cbor2, verifies and agrees with
`cryptography`, and writes receipts as SPEC.md of the protocol has them.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import math
import os
import random
import shutil
import struct
import time
from pathlib import Path
from types import SimpleNamespace

import aiomqtt
import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from support.authority import SERVER_NAME, Authority
from support.half_open import HalfOpenWay
from support.processes import DEADLINE_S, HOST, Mosquitto, Process, mosquitto

from fog_node.protocol.keys import SigningKey
from fog_node.protocol.manifest import Manifest, encode_bundle, sign_manifest
from tools.bench.tflite_builder import Activation, ModelBuilder, Operator
from tools.boards import load_board
from tools.devices import update
from tools.firmware_compact import compact

FIRMWARE = Path(__file__).parents[2] / "firmware"
CHAIN_ID = hashlib.sha256(b"test_board_process").digest()
HEAP = "2m"
DEVICE_TYPE = "water-circulation"
NAMES = (
    "accelerometer1",
    "accelerometer2",
    "current",
    "pressure",
    "temperature",
    "thermocouple",
    "voltage",
    "flow",
)
HEADER = (
    "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;"
    "Voltage;Volume Flow RateRMS;anomaly;changepoint"
)
START_S = 1_583_748_873
PACK = "application/senml+cbor"
GAP = "application/vnd.fogline.gap+cbor"
ALERT = "application/vnd.fogline.alert+cbor"
SEQUENCE, DROPPED = -65537, -65538


def xy_of(key):
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def kid_of(xy):
    cose_key = {1: 2, -1: 1, -2: xy[:32], -3: xy[32:]}
    return hashlib.sha256(cbor2.dumps(cose_key, canonical=True)).digest()[:8]


def public_of(xy):
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + xy)


class Transaction:
    """A board's COSE_Sign1, taken apart and verified."""

    def __init__(self, data, xy):
        tag = cbor2.loads(data)
        assert tag.tag == 18
        protected, unprotected, payload, signature = tag.value
        assert unprotected == {}
        header = cbor2.loads(protected)
        assert set(header) == {1, 3, 4, SEQUENCE, DROPPED}
        assert header[1] == -7
        assert header[4] == kid_of(xy)
        signed = cbor2.dumps(["Signature1", protected, CHAIN_ID, payload])
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        public_of(xy).verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
        self.kind = header[3]
        self.sequence = header[SEQUENCE]
        self.dropped = header[DROPPED]
        self.payload = cbor2.loads(payload)

    def rows(self):
        """Return [(time in s, {channel: value})] of a pack."""
        base = self.payload[0][-3]
        rows = {}
        for record in self.payload:
            if not record[0].startswith("model/"):
                rows.setdefault(base + record.get(6, 0), {})[record[0]] = record[2]
        return list(rows.items())

    def verdicts(self):
        """Return [(time in s, score, anomaly, first bytes of the output's hash)] of a pack."""
        base = self.payload[0][-3]
        records = [record for record in self.payload if record[0].startswith("model/")]
        assert not records or records[-1][0] == "model/id"
        verdicts = []
        for score, anomaly, output in zip(
            records[:-1:3], records[1::3], records[2::3], strict=True
        ):
            verdicts.append((base + score.get(6, 0), score[2], anomaly[4], output[8]))
        return verdicts


class Gateway:
    """Takes what boards send and gives receipts up to `limit`; knows only enrolled boards.

    Attributes:
        messages: per kid, [(sequence, bytes)] in the order of arrival.
        limit: highest number that becomes final.
        lie: what its receipts call final instead, if anything.
        statuses: what boards said of themselves.
    """

    def __init__(self, broker, name="seoul", secret=7):
        self.broker = broker
        self.name = name
        self.key = ec.derive_private_key(secret, ec.SECP256R1())
        self.enrolled = {}
        self.messages = {}
        self.statuses = []
        self.nonces = {}
        self.given_up = {}  # per kid, the number of each gap by the first that it gives up
        self.limit = math.inf
        self.lie = None  # what it calls final instead
        self.mute = False
        self.here = asyncio.Event()
        self.here.set()
        self.connections = 0
        self.blobs = {}
        self._client = None
        self._arrived = asyncio.Event()

    @property
    def entry(self):
        return {"name": self.name, "key": xy_of(self.key).hex()}

    def enrol(self, board):
        self.enrolled[board.kid] = board.xy

    async def run(self):
        """Serve until cancelled, over as many connections as it takes."""
        while True:
            await self.here.wait()
            with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                async with (
                    self.broker.client(f"gateway-{self.name}") as self._client,
                    asyncio.timeout(None) as self._stay,
                ):
                    await self._client.subscribe(f"fogline/{self.name}/+/+", qos=1)
                    self.connections += 1
                    self._arrived.set()
                    async for message in self._client.messages:
                        await self._take(message)
            await asyncio.sleep(0.05)

    async def leave(self):
        """End the present connection."""
        self._stay.reschedule(asyncio.get_running_loop().time())

    def stored(self, kid):
        """Return {sequence: bytes}; copies of one number must be the same bytes."""
        transactions = {}
        for sequence, data in self.messages.get(kid, ()):
            assert transactions.setdefault(sequence, data) == data, f"two of number {sequence}"
        return transactions

    def final(self, kid):
        """Return the number below which all is final."""
        stored = self.stored(kid)
        number = 1
        while number < self.limit:
            if number in stored and number not in self.given_up.get(kid, {}).values():
                number += 1
            elif number in self.given_up.get(kid, {}):
                number = self.given_up[kid][number] + 1
            else:
                break
        return number

    async def wait(self, condition):
        """Wait until the condition holds; looked at whenever a message has come."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._arrived.clear()
                await self._arrived.wait()

    async def allow(self, limit):
        """Let all below number `limit` become final."""
        self.limit = limit
        for kid in self.messages:
            await self.receipt(kid, DEADLINE_S)

    async def receipt(self, kid, patience_s=None):
        """Send a receipt; by a broker that nobody kills meanwhile, with patience."""
        if self.mute or kid not in self.enrolled:
            return
        own = kid_of(xy_of(self.key))
        shared = self.key.exchange(ec.ECDH(), public_of(self.enrolled[kid]))
        info = b"fogline receipt" + own + kid
        mac_key = HKDF(hashes.SHA256(), 32, CHAIN_ID, info).derive(shared)
        protected = cbor2.dumps(
            {1: 5, 3: "application/vnd.fogline.receipt+cbor", 4: own}, canonical=True
        )
        final = self.final(kid) if self.lie is None else self.lie
        said = [final, 1, time.time_ns() // 1_000_000, 0, self.nonces.get(kid)]
        payload = cbor2.dumps([kid, *said], canonical=True)
        structure = cbor2.dumps(["MAC0", protected, CHAIN_ID, payload])
        tag = hmac.new(mac_key, structure, hashlib.sha256).digest()
        data = cbor2.dumps(cbor2.CBORTag(17, [protected, {}, payload, tag]))
        topic = f"fogline/{self.name}/receipt/{kid.hex()}"
        await self._client.publish(topic, data, qos=1, timeout=patience_s)

    async def announce(self, bundle, version=1, device_type=DEVICE_TYPE):
        """Offer a release bundle."""
        digest = hashlib.sha256(bundle).digest()
        self.blobs[digest] = bundle
        message = {"bundle": digest, "size": len(bundle), "name": "probe", "version": version}
        topic = f"fogline/{self.name}/release/{device_type}"
        data = cbor2.dumps(message, canonical=True)
        await self._client.publish(topic, data, qos=1, retain=True, timeout=DEADLINE_S)

    async def _take(self, message):
        _, _, kind, last = message.topic.value.split("/", 3)
        if kind in ("receipt", "blob", "release"):
            return
        kid = bytes.fromhex(last)
        if kind == "status":
            status = cbor2.loads(message.payload)
            self.statuses.append(status)
            if status["state"] == "online":
                self.nonces[kid] = status["nonce"]
                await self.receipt(kid)
        elif kind == "up":
            header = cbor2.loads(cbor2.loads(message.payload).value[0])
            before = self.final(kid)
            if header[3] == GAP:
                first = cbor2.loads(cbor2.loads(message.payload).value[2])["from"]
                self.given_up.setdefault(kid, {})[first] = header[SEQUENCE]
            self.messages.setdefault(kid, []).append((header[SEQUENCE], message.payload))
            if self.final(kid) > before:
                await self.receipt(kid)
        elif kind == "get":
            digest, offset, length = cbor2.loads(message.payload)
            blob = self.blobs[digest]
            part = [digest, offset, len(blob), blob[offset : offset + length]]
            await self._client.publish(
                f"fogline/{self.name}/blob/{last}", cbor2.dumps(part, canonical=True), qos=1
            )
        self._arrived.set()


class Board:
    """A board's flash, and the process that runs on it now."""

    def __init__(self, directory, micropython, broker, gateways, driver, **settings):
        directory.mkdir()
        self.directory = directory
        self.firmware = FIRMWARE
        self._micropython = micropython
        self.process = None
        self.settings = {
            "chain_id": CHAIN_ID.hex(),
            "device_type": DEVICE_TYPE,
            "board": "unix",
            "enterprise_number": 32473,
            "gateways": [gateway.entry for gateway in gateways],
            "mqtt": {
                "host": HOST,
                "port": broker.port,
                "tls": broker.tls is not None,
                "ca": str(broker.tls.ca_der) if broker.tls else None,
                "server_name": SERVER_NAME if broker.tls else None,
                "keepalive_s": 5,
            },
            "release_keys": [],
            "driver": driver,
            "pack_rows": 10,
            "rate_hz": 0,
            "outbox_bytes": 48 * 1024,
            "gateway_timeout_s": 10,
            **settings,
        }

    async def spawn(self):
        """Switch the board on; returns its process."""
        (self.directory / "board.json").write_text(json.dumps(self.settings))
        return await Process.start(
            self._micropython,
            "-X",
            f"heapsize={HEAP}",
            str(self.firmware / "main.py"),
            cwd=self.directory,
            env={**os.environ, "MICROPYPATH": f"{self.firmware}:.frozen"},
        )

    async def start(self):
        """Switch the board on; returns its boot event."""
        self.process = await self.spawn()
        boot = await self.process.wait_event("boot")
        self.xy = bytes.fromhex(boot["x"] + boot["y"])
        self.kid = kid_of(self.xy)
        assert boot["kid"] == self.kid.hex()
        return boot

    async def kill(self):
        """Cut the power."""
        if self.process is not None:
            await self.process.kill()

    async def finish(self):
        """Wait until the board is done; returns its figures."""
        done = await self.process.wait_event("done")
        assert await self.process.wait() == 0
        return done["stats"]


@pytest.fixture
def with_tls():
    """Whether the broker speaks TLS; a test that wants it says so."""
    return False


@pytest.fixture
async def bench(tmp_path, micropython, with_tls):
    """Broker, gateways and boards that are all stopped at the end."""
    tls = Authority(tmp_path / "tls") if with_tls else None
    async with mosquitto(tmp_path / "broker", tls) as broker:
        made = Bench(tmp_path, micropython, broker)
        try:
            yield made
        finally:
            await made.stop()


class Bench:
    def __init__(self, directory, micropython, broker):
        self.directory = directory
        self.broker = broker
        self._micropython = micropython
        self._tasks = []
        self._boards = []

    def gateway(self, name="seoul", secret=7):
        gateway = Gateway(self.broker, name, secret)
        self._tasks.append(asyncio.create_task(gateway.run()))
        return gateway

    def board(self, gateways, driver, **settings):
        directory = self.directory / f"board{len(self._boards)}"
        board = Board(directory, self._micropython, self.broker, gateways, driver, **settings)
        self._boards.append(board)
        return board

    def recording(self, rows, seed=1):
        """Write a CSV; returns (driver options, [(time in s, {channel: value})])."""
        source = random.Random(seed)
        lines, expected = [HEADER], []
        second = START_S
        for _ in range(rows):
            second += source.choice((1, 1, 1, 1, 2))
            values = [round(source.uniform(0.01, 4.0), 5) for _ in NAMES]
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second))
            lines.append(";".join([stamp, *map(str, values), "1.0", "0.0"]))
            singles = [struct.unpack("<f", struct.pack("<f", value))[0] for value in values]
            expected.append((second, dict(zip(NAMES, singles, strict=True))))
        path = self.directory / f"{seed}.csv"
        path.write_text("\r\n".join(lines) + "\r\n")
        return {"name": "replay", "script": [{"path": str(path)}]}, expected

    async def broker_says(self, text):
        """Wait until it stands in the broker's log."""
        async with asyncio.timeout(DEADLINE_S):
            while text not in self.broker.log.read_text():  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.05)

    async def stop(self):
        for board in self._boards:
            await board.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def check(gateway, board):
    """Return the board's transactions in order: verified, with no gap but signed ones."""
    stored = gateway.stored(board.kid)
    following = 1
    for number in sorted(stored):
        given_up = {gap: first for first, gap in gateway.given_up.get(board.kid, {}).items()}
        assert given_up.get(number, number) == following
        following = number + 1
    transactions = [Transaction(stored[number], board.xy) for number in sorted(stored)]
    assert [item.sequence for item in transactions] == sorted(stored)
    return transactions


def rows_of(transactions):
    return [row for item in transactions if item.kind == PACK for row in item.rows()]


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "tls"])
async def test_every_row_arrives_once_though_the_power_fails_twice(bench):
    gateway = bench.gateway()
    driver, expected = bench.recording(900)
    board = bench.board([gateway], driver)
    gateway.limit = 30
    await board.start()
    gateway.enrol(board)
    for seen, limit in ((8, 60), (38, math.inf)):
        # The board cannot have come to its end: no receipt goes beyond the limit.
        await gateway.wait(lambda seen=seen: len(gateway.stored(board.kid)) >= seen)
        await board.kill()
        gateway.limit = limit
        boot = await board.start()
        assert boot["kid"] == board.kid.hex()
    stats = await board.finish()
    transactions = check(gateway, board)
    assert rows_of(transactions) == expected
    assert len(transactions) == 90
    assert stats["packs"] < 90  # the rest is of earlier lives
    # What the board has sworn to have dropped, it never sends again.
    watermark = 0
    for number, data in gateway.messages[board.kid]:
        assert number >= watermark
        watermark = max(watermark, Transaction(data, board.xy).dropped)


async def test_every_row_arrives_once_though_broker_and_board_are_killed(bench):
    gateway = bench.gateway()
    driver, expected = bench.recording(900)
    board = bench.board([gateway], driver, gateway_timeout_s=2)
    gateway.limit = 25
    await board.start()
    gateway.enrol(board)
    await gateway.wait(lambda: len(gateway.stored(board.kid)) >= 10)
    before = gateway.connections
    await bench.broker.kill()
    await board.process.wait_event("disconnected")
    await bench.broker.start()
    await gateway.wait(lambda: gateway.connections > before)
    await gateway.allow(50)
    await gateway.wait(lambda: len(gateway.stored(board.kid)) >= 30)
    await bench.broker.kill()
    await board.kill()
    await bench.broker.start()
    gateway.limit = math.inf
    await board.start()
    stats = await board.finish()
    transactions = check(gateway, board)
    assert rows_of(transactions) == expected
    copies = len(gateway.messages[board.kid]) - len(transactions)
    print(f"{len(transactions)} packs, {copies} of them came again; {stats}")


@pytest.mark.parametrize("with_tls", [True], ids=["tls"])
async def test_every_row_arrives_once_though_the_way_goes_dead_without_a_word(bench):
    gateway = bench.gateway()
    driver, expected = bench.recording(600)
    async with HalfOpenWay(bench.broker.port) as way:
        board = bench.board([gateway], driver, gateway_timeout_s=30)
        board.settings["mqtt"] |= {"port": way.port, "keepalive_s": 1}
        gateway.limit = 20
        await board.start()
        gateway.enrol(board)
        for seen, limit in ((12, 40), (32, math.inf)):
            await gateway.wait(lambda seen=seen: len(gateway.stored(board.kid)) >= seen)
            way.go_dead()
            event = await board.process.wait_event("disconnected")
            assert event["reason"].startswith("link.silent: ")
            await board.process.wait_event("connected")
            await gateway.allow(limit)
        stats = await board.finish()
    assert rows_of(check(gateway, board)) == expected
    assert 2 <= stats["reconnects"] < way.connections


async def test_every_row_arrives_once_though_the_broker_drops_what_it_has_acknowledged(
    bench, tmp_path
):
    """Full, it says PUBACK and forgets: only the receipts can tell."""
    (tmp_path / "full").mkdir()
    full = ("max_queued_messages 3", "max_inflight_messages 1")
    bench.broker = Mosquitto(tmp_path / "full", settings=full)
    await bench.broker.start()
    try:
        gateway = bench.gateway()
        driver, expected = bench.recording(300)
        board = bench.board([gateway], driver, gateway_timeout_s=2)
        gateway.limit = 5
        await board.start()
        gateway.enrol(board)
        await gateway.wait(lambda: len(gateway.stored(board.kid)) >= 4)
        gateway.limit = math.inf
        gateway.here.clear()
        await gateway.leave()
        await bench.broker_says("Outgoing messages are being dropped")
        gateway.here.set()
        stats = await board.finish()
        assert rows_of(check(gateway, board)) == expected
        assert stats["resent"] > 0
    finally:
        await bench.stop()
        await bench.broker.kill()


async def test_nothing_is_sent_before_the_board_is_known(bench):
    gateway = bench.gateway()
    driver, expected = bench.recording(40)
    board = bench.board([gateway], driver)
    await board.start()
    await gateway.wait(lambda: len(gateway.statuses) >= 2)  # it says again that it is here
    assert gateway.messages == {}
    gateway.enrol(board)
    await board.finish()
    assert rows_of(check(gateway, board)) == expected
    nonces = [status["nonce"] for status in gateway.statuses[:2]]
    assert [len(nonce) for nonce in nonces] == [8, 8]
    assert nonces[0] != nonces[1]
    assert gateway.statuses[0] == {
        "state": "online",
        "next": gateway.statuses[0]["next"],
        "model": None,
        "firmware": "0.1.0",
        "nonce": gateway.statuses[0]["nonce"],
    }
    await gateway.wait(lambda: gateway.statuses[-1]["state"] == "offline")
    assert gateway.statuses[-1]["next"] == 5


async def test_a_dead_board_is_reported_offline(bench):
    gateway = bench.gateway()
    driver, _ = bench.recording(900)
    board = bench.board([gateway], driver)
    await board.start()
    await gateway.wait(lambda: gateway.statuses)
    await board.kill()
    await gateway.wait(lambda: gateway.statuses[-1]["state"] == "offline")


@pytest.mark.parametrize("after", [0, 12], ids=["never-there", "gone-silent"])
async def test_goes_to_the_next_gateway(bench, after):
    first = bench.gateway("seoul", 7)
    second = bench.gateway("busan", 8)
    second.messages = first.messages  # both see one ledger
    driver, expected = bench.recording(300)
    board = bench.board([first, second], driver, gateway_timeout_s=2)
    first.mute = after == 0
    first.limit = after
    await board.start()
    first.enrol(board)
    second.enrol(board)
    stats = await board.finish()
    assert rows_of(check(second, board)) == expected
    assert stats["reconnects"] >= 1
    events = [event for event in board.process.events if event["event"] == "connected"]
    assert [event["gateway"] for event in events][:2] == ["seoul", "busan"]
    await first.wait(lambda: first.statuses[-1]["state"] == "offline")


async def test_is_not_stopped_by_a_gateway_that_calls_more_final_than_there_is(bench):
    """Its first gateway says that number 8 is final, and the other one waits for number 1."""
    liar = bench.gateway("seoul", 7)
    liar.lie = 9
    other = bench.gateway("busan", 8)
    driver, expected = bench.recording(120)
    board = bench.board([liar, other], driver, gateway_timeout_s=1)
    await board.start()
    liar.enrol(board)
    other.enrol(board)
    await board.finish()
    # What a chain takes of all that was sent: one number behind the other, or the gap instead.
    stored, gaps = other.stored(board.kid), other.given_up[board.kid]
    taken, number = [], 1
    while (number := gaps.get(number, number)) in stored:
        taken.append(Transaction(stored[number], board.xy))
        number += 1
    assert taken[0].kind == GAP
    assert taken[0].payload["from"] == 1
    # What it dropped when it was lied to, at most eight packs, is lost; nothing else.
    rows = rows_of(taken)
    assert rows == expected[-len(rows) :]
    assert len(expected) - len(rows) <= 80


async def test_goes_on_where_the_outbox_was_lost(bench):
    gateway = bench.gateway()
    driver, expected = bench.recording(60)
    board = bench.board([gateway], driver)
    await board.start()
    gateway.enrol(board)
    await board.finish()
    shutil.rmtree(board.directory / "outbox")
    more, further = bench.recording(40, seed=2)
    board.settings["driver"] = more
    await board.start()
    await board.process.wait_event("waiting", reason="receipt")
    await board.process.wait_event("gap", reason="lost")
    await board.finish()
    transactions = check(gateway, board)
    assert rows_of(transactions) == expected + further
    assert [item.kind for item in transactions] == [PACK] * 6 + [GAP] + [PACK] * 4
    assert transactions[6].payload == {"from": 7, "reason": "not in flash any more"}


def damage(path, line):
    lines = path.read_text().splitlines()
    lines[line] = "2020-03-09 10:14:33;not;a;row"
    path.write_text("\n".join(lines) + "\n")


async def test_a_row_that_cannot_be_read_is_reported_and_passed_over(bench):
    gateway = bench.gateway()
    driver, expected = bench.recording(30)
    path = driver["script"][0]["path"]
    damage(Path(path), 8)
    board = bench.board([gateway], driver)
    await board.start()
    gateway.enrol(board)
    event = await board.process.wait_event("unreadable")
    await board.finish()
    assert (event["file"], event["row"]) == (path, 7)
    assert rows_of(check(gateway, board)) == expected[:7] + expected[8:]


async def test_a_rate_is_kept(bench):
    gateway = bench.gateway()
    driver, expected = bench.recording(20)
    board = bench.board([gateway], driver, rate_hz=50)
    started = time.monotonic()
    await board.start()
    gateway.enrol(board)
    await board.finish()
    assert time.monotonic() - started > 19 / 50  # never faster; slower is the machine's affair
    assert rows_of(check(gateway, board)) == expected


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"pack_row": 1}, "config.pack_row: is unknown"),
        ({"rate_hz": -1}, "config.rate_hz: is -1, not a number from 0 to 1000"),
        ({"driver": {"name": "replay"}}, "config.driver.script: is missing"),
        ({"driver": {"name": "replay", "script": [{"path": "absent.csv"}]}}, "driver.file"),
    ],
)
async def test_a_wrong_setting_is_named_and_nothing_runs(bench, change, error):
    board = bench.board([Gateway(bench.broker)], bench.recording(1)[0])
    board.settings |= change
    with contextlib.suppress(AssertionError):  # a wrong setting may show before or after boot
        await board.start()
    with contextlib.suppress(AssertionError):
        await board.process.wait_event("never")
    refused = [event for event in board.process.events if event["event"] == "refused"]
    assert len(refused) == 1
    assert refused[0]["error"].startswith(error)
    assert await board.process.wait() == 1


async def test_a_damaged_key_is_refused_and_not_replaced(bench):
    driver, _ = bench.recording(1)
    board = bench.board([Gateway(bench.broker)], driver)
    key = board.directory / "key.bin"
    key.write_bytes(bytes(40))
    with contextlib.suppress(AssertionError):
        await board.start()
    assert board.process.events[-1]["event"] == "refused"
    assert board.process.events[-1]["error"].startswith("key.damaged")
    assert await board.process.wait() == 1
    assert key.read_bytes() == bytes(40)


# A model on the board ---------------------------------------------------------------------

WINDOW, STRIDE, CALIBRATE = 16, 4, 20
THRESHOLD = 2000
# 4 steps of int8 for a litre a minute, in the fixed point of 8 fraction bits.
EXPONENT, MULTIPLIER = 8, 4 * 65536 // 256


def release(signer):
    """Make a bundle whose model always answers zero: the score is the input's energy."""
    builder = ModelBuilder()
    x = builder.tensor((1, WINDOW), 0.25, 0)
    weights = np.zeros((WINDOW, WINDOW), np.int8)
    w = builder.tensor((WINDOW, WINDOW), 0.5, 0, data=weights)
    y = builder.tensor((1, WINDOW), 0.25, 0)
    builder.operator(
        Operator.FULLY_CONNECTED,
        [x, w],
        y,
        "FullyConnectedOptions",
        fusedActivationFunction=Activation.NONE,
    )
    model = builder.finish([x], [y])
    manifest = Manifest(
        name="probe",
        version=1,
        min_version=0,
        device_type=DEVICE_TYPE,
        payload_sha256=hashlib.sha256(model).digest(),
        payload_size=len(model),
        ops=("FULLY_CONNECTED",),
        arena=4096,
        window=WINDOW,
        stride=STRIDE,
        channels=("flow",),
        max_gap_s=10,
        calibrate=CALIBRATE,
        input=((EXPONENT, MULTIPLIER, 0),),
        score=(0, 0, 256),
        threshold=THRESHOLD,
        of=3,
        need=2,
        selftest=((bytes(WINDOW), bytes(WINDOW)),),
        time=1_700_000_000_000,
    )
    return model, encode_bundle([sign_manifest(signer, manifest, CHAIN_ID)], model)


def energies(flows):
    """Return [(index of the window's last row, score)] as SPEC.md has it."""
    fixed = [math.floor(flow * 2**EXPONENT) for flow in flows]
    centre = sum(fixed[:CALIBRATE]) // CALIBRATE
    steps = [
        max(-128, min(127, ((value - centre) * MULTIPLIER) >> 16)) for value in fixed[CALIBRATE:]
    ]
    return [
        (CALIBRATE + end - 1, sum(step * step for step in steps[end - WINDOW : end]))
        for end in range(WINDOW, len(steps) + 1, STRIDE)
    ]


def as_boards_have_it(folder):
    """The firmware with the names that mpy-cross gets, for boards that are no processes."""
    for source in FIRMWARE.rglob("*.py"):
        path = folder / source.relative_to(FIRMWARE)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(compact(source, FIRMWARE).text, "utf-8")
    return folder


@pytest.mark.parametrize("short_names", [False, True])
async def test_a_released_model_judges_the_next_rows_and_alerts(bench, short_names):
    gateway = bench.gateway()
    signer = SigningKey.generate()
    model, bundle = release(signer)
    script = [
        {"rows": 95, "fault": None},
        {"wait": "model"},
        {"rows": 105, "fault": None},
        {"rows": 100, "fault": "valve1"},
    ]
    driver = {"name": "testbed", "seed": 3, "script": script}
    board = bench.board([gateway], driver, release_keys=[signer.public.xy.hex()])
    if short_names:
        board.firmware = as_boards_have_it(bench.directory / "short")
    await board.start()
    gateway.enrol(board)
    await board.process.wait_event("waiting", reason="model")
    await gateway.announce(bundle)
    active = await board.process.wait_event("model", state="active")
    assert active["sha256"] == hashlib.sha256(model).hexdigest()
    stats = await board.finish()

    transactions = check(gateway, board)
    packs = [item for item in transactions if item.kind == PACK]
    alerts = [item for item in transactions if item.kind == ALERT]
    rows = rows_of(transactions)
    assert len(rows) == 300
    judged = rows[95:]
    expected = [
        (judged[at][0], score) for at, score in energies([row["flow"] for _, row in judged])
    ]
    verdicts = [verdict for pack in packs for verdict in pack.verdicts()]
    assert [(at, score) for at, score, _, _ in verdicts] == expected
    assert {output for *_, output in verdicts} == {hashlib.sha256(bytes(WINDOW)).digest()[:8]}
    hits = [score > THRESHOLD for _, score in expected]
    anomalies = [sum(hits[max(0, at - 2) : at + 1]) >= 2 for at in range(len(hits))]
    assert [anomaly for _, _, anomaly, _ in verdicts] == anomalies
    assert True in anomalies
    edge = verdicts[anomalies.index(True)]
    assert len(alerts) == 1
    alert = alerts[0].payload
    assert alert == {
        "time": edge[0],
        "model": hashlib.sha256(model).digest(),
        "score": edge[1],
        "threshold": THRESHOLD,
        "pack": alert["pack"],
    }
    holder = next(pack for pack in packs if pack.sequence == alert["pack"])
    assert edge in holder.verdicts()
    assert stats["inferences"] == len(verdicts)
    assert stats["alerts"] == 1
    assert stats["inference_us"]["p50"] <= stats["inference_us"]["p99"]
    await gateway.wait(lambda: gateway.statuses[-1]["state"] == "offline")
    assert gateway.statuses[-1]["model"] == hashlib.sha256(model).digest()[:8]


def firmware_bundle(directory, signer, version, change):
    """The bundle of our own firmware, changed by `change(folder)`."""
    shutil.copytree(FIRMWARE, directory, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    change(directory)
    founding = SimpleNamespace(chain_id=CHAIN_ID)
    made = update.build(load_board("unix"), signer, founding, version=version, source=directory)
    return made.bundle, made.release.device_type


def rename_version(folder):
    path = folder / "fogline" / "__init__.py"
    path.write_text(path.read_text().replace('VERSION = "', 'VERSION = "new '))


async def updated(bench, change):
    """A board that has installed an update in the middle of its work, and has ended for it."""
    gateway = bench.gateway()
    signer = SigningKey.generate()
    bundle, device_type = firmware_bundle(bench.directory / "source", signer, 2, change)
    driver, rows = bench.recording(900)  # more than DEADLINE_S of them, to fetch the update in
    board = bench.board([gateway], driver, release_keys=[signer.public.xy.hex()], rate_hz=10)
    await board.start()
    gateway.enrol(board)
    await board.process.wait_event("receipt")
    await gateway.announce(bundle, 2, device_type)
    installed = await board.process.wait_event("firmware", state="installed")
    assert installed["version"] == 2
    assert await board.process.wait() == 3
    board.settings["rate_hz"] = 0
    return gateway, board, rows


async def test_new_firmware_goes_on_where_the_old_one_stopped(bench):
    gateway, board, rows = await updated(bench, rename_version)
    boot = await board.start()
    assert boot["firmware"].startswith("new ")
    active = await board.process.wait_event("firmware", state="active")
    assert active["version"] == 2
    await board.finish()
    assert rows_of(check(gateway, board)) == rows
    # From then on it is what the board runs.
    assert (await board.start())["firmware"].startswith("new ")


def break_import(folder):
    (folder / "fogline" / "app.py").write_text("import nothing_of_the_kind\n")


async def test_firmware_that_does_not_load_is_taken_back(bench):
    gateway, board, rows = await updated(bench, break_import)
    board.process = await board.spawn()
    assert await board.process.wait() == 3  # it has gone back, and wants to start anew
    boot = await board.start()
    assert not boot["firmware"].startswith("new ")
    back = await board.process.wait_event("firmware", state="rolled_back")
    assert back["reason"].startswith("ImportError")
    await board.finish()
    assert rows_of(check(gateway, board)) == rows


def break_later(folder):
    rename_version(folder)
    path = folder / "fogline" / "uplink.py"
    path.write_text(path.read_text().replace("def connected(self):", "def connected(self, x):"))


async def test_firmware_that_fails_at_work_is_taken_back(bench):
    """It cannot speak with a gateway, so that nothing confirms it."""
    gateway, board, rows = await updated(bench, break_later)
    for _ in range(3):
        assert (await board.start())["firmware"].startswith("new ")
        assert await board.process.wait() == 3
    assert not (await board.start())["firmware"].startswith("new ")
    await board.process.wait_event("firmware", state="rolled_back")
    await board.finish()
    assert rows_of(check(gateway, board)) == rows
