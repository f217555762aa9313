"""Real boards on serial lines that fail in every way, a gateway, and a real ledger: counted."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from support.serial_board import SERIAL, SerialBoard, channels
from support.small_chain import DEVICE_TYPE, GATEWAY_NAME, START_MS, SmallChain
from support.station import Station

from fog_node.gateway.serial_line import SerialSettings
from fog_node.protocol.keys import PublicKey
from fog_node.protocol.rollouts import Group
from fog_node.protocol.transactions import Enrol
from tools.demo.attacks import plug_in
from tools.listener import Listener

FIRMWARE = Path(__file__).parents[2] / "firmware"
DEADLINE_S = 90
SEAL_S = 0.05
ROWS = 60
PACK_ROWS = 10
PACKS = ROWS // PACK_ROWS


@pytest.fixture
def chain(tmp_path):
    chain = SmallChain(tmp_path / "ledger")
    yield chain
    chain.ledger.close()


@pytest.fixture
def seed():
    value = random.SystemRandom().getrandbits(64)
    print(f"seed {value}")
    return value


@pytest.fixture
async def bench(tmp_path, chain):
    bench = Bench(tmp_path, chain)
    yield bench
    await bench.close()


class Bench:
    """Boards, and a chain on which they are enrolled as soon as they are switched on."""

    def __init__(self, directory, chain):
        self.directory = directory
        self.chain = chain
        self.boards = []

    async def board(self, rows=ROWS, plugged=True, **changes):
        """Switch on and enrol one more board."""
        number = len(self.boards)
        gateway = {"name": GATEWAY_NAME, "key": self.chain.gateway.public.xy.hex()}
        driver = {
            "name": "testbed",
            "seed": number,
            "start_s": START_MS // 1000,
            "script": [{"rows": rows, "fault": None}],
        }
        settings = {
            "chain_id": self.chain.founding.chain_id.hex(),
            "device_type": DEVICE_TYPE,
            "board": "unix",
            "enterprise_number": 32473,
            "gateways": [gateway],
            "serial": SERIAL,
            "release_keys": [],
            "driver": driver,
            "pack_rows": PACK_ROWS,
            "rate_hz": 0,
            "outbox_bytes": 262144,
            "gateway_timeout_s": 2,
        } | changes
        board = SerialBoard(self.directory / f"board{number}", FIRMWARE, settings)
        self.boards.append(board)
        if plugged:
            board.cable.plug()
        await board.start()
        boot = await board.wait_event("boot")
        key = PublicKey(bytes.fromhex(boot["x"] + boot["y"]))
        board.kid = key.kid
        enrol = Enrol(key, "operator", DEVICE_TYPE, "unix", channels(boot), START_MS)
        self.chain.seal(self.chain.sign(self.chain.operator, enrol))
        return board

    def station(self):
        ports = tuple(str(board.cable.device) for board in self.boards)
        return Station(self.chain, self.directory, serial=SerialSettings(ports))

    async def close(self):
        for board in self.boards:
            await board.close()

    def packs(self, board):
        """How many packs of a board are final; numbers run without a gap."""
        return self.chain.ledger.state.devices[board.kid].next - 1


async def sealing(station):
    """Make final what was admitted, as it comes."""
    done = 0
    while True:
        admitted = station.gateway.counts().messages.get("admitted", 0)
        if admitted > done:
            done = admitted
            station.seal()
        await asyncio.sleep(SEAL_S)


class Running:
    """A station that seals by itself."""

    def __init__(self, bench):
        self.station = bench.station()

    async def __aenter__(self):
        await self.station.__aenter__()
        self._task = asyncio.create_task(sealing(self.station))
        return self.station

    async def __aexit__(self, *exception):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.station.__aexit__(*exception)


async def all_done(boards):
    """Each board has had receipts for all it has signed, and has ended."""
    async with asyncio.timeout(DEADLINE_S):
        for board in boards:
            done = await board.wait_event("done")
            assert done["stats"]["packs"] >= 1
            assert await board.wait() == 0


async def check(bench, station, packs=PACKS):
    """Nothing lost, nothing doubled, nobody accused."""
    await station.until_admitted(packs * len(bench.boards))
    for board in bench.boards:
        assert bench.packs(board) == packs
    counts = station.gateway.counts()
    assert counts.messages["admitted"] == packs * len(bench.boards)
    assert counts.messages.get("refused", 0) == 0
    assert station.incidents() == []
    return counts


async def test_several_boards_at_once(bench):
    # None repeats itself because it was not heard for a while: this machine may be busy.
    patient = {"serial": SERIAL | {"keepalive_s": 60}, "gateway_timeout_s": DEADLINE_S}
    boards = [await bench.board(**patient) for _ in range(3)]
    async with Running(bench) as station:
        await all_done(boards)
        counts = await check(bench, station)
        assert counts.connected is None
        assert len(counts.serial) == 3
        assert all(port.noise == 0 for port in counts.serial.values())
    assert counts.messages.get("repeated", 0) == 0


async def test_a_staged_release_reaches_its_group_and_a_refusal_is_sealed(bench, chain):
    """The boards trust nobody's releases: the first one refuses it, the other never hears of it."""
    chain.stage_releases()
    first, other = [await bench.board(rows=100_000, rate_hz=20.0) for _ in range(2)]
    async with Running(bench) as station:
        release, data = chain.bundle(1, b"no model")
        chain.seal(release)
        station.blobs.put(data)
        groups = (Group(None, (first.kid,), 100, 100), Group(100, (), 100, 100))
        chain.rollout(release, b"no model", groups=groups)
        event = await first.wait_event("model", state="rejected")
        assert event["sha256"] == release.body.bundle.hex()

        def status():
            return chain.ledger.state.offers[DEVICE_TYPE].rollout.status

        await station.until(lambda _: status() == "stopped")
    assert chain.ledger.state.rollout_boards[first.kid].cause == "refused"
    assert not [event for event in other.events if event.get("event") == "model"]


async def test_noise_lost_doubled_and_altered_bytes(bench, seed):
    source = random.Random(seed)

    def fault(piece, to_board):
        if source.random() > 0.1:
            return piece
        at = source.randrange(len(piece))
        match source.randrange(4):
            case 0:
                return piece[:at] + piece[at + 1 :]
            case 1:
                return piece[:at] + piece[at : at + 1] + piece[at:]
            case 2:
                return (
                    piece[:at] + bytes([piece[at] ^ (1 << source.randrange(8))]) + piece[at + 1 :]
                )
            case _:
                return piece[:at] + source.randbytes(20).replace(b"\x03", b"") + piece[at:]

    boards = [await bench.board() for _ in range(2)]
    for board in boards:
        board.cable.fault = fault
    async with Running(bench) as station:
        await all_done(boards)
        counts = await check(bench, station)
    assert sum(port.noise for port in counts.serial.values()) > 0


async def test_unplugged_at_any_byte(bench, seed):
    """Pulled out after each of many chunks, half of them cut through the middle, and put back."""
    source = random.Random(seed)
    board = await bench.board()
    pulls = 0

    def fault(piece, to_board):
        nonlocal pulls
        if pulls < 8 and source.random() < 0.15:
            pulls += 1
            asyncio.get_running_loop().call_soon(pull)
            return piece[: source.randrange(len(piece) + 1)]
        return piece

    def pull():
        board.cable.unplug()
        asyncio.get_running_loop().call_later(0.05, board.cable.plug)

    async with Running(bench) as station:
        board.cable.fault = fault
        await all_done([board])
        await check(bench, station)
    assert pulls > 3


async def test_a_board_that_is_killed_and_started_again(bench, seed):
    source = random.Random(seed)
    board = await bench.board(rate_hz=30)
    async with Running(bench) as station:
        for _ in range(3):
            await board.wait_event("connected")
            await asyncio.sleep(source.random() * 0.5)
            await board.kill()
            board.events.clear()
            await board.start()
        await all_done([board])
        await check(bench, station)


async def test_a_gateway_that_is_restarted(bench):
    board = await bench.board(rate_hz=20)
    for _ in range(2):
        async with Running(bench):
            await board.wait_event("receipt")
        await board.wait_event("disconnected")
    async with Running(bench) as station:
        await all_done([board])
        assert bench.packs(board) == PACKS
        assert station.incidents() == []


async def test_a_gateway_that_does_not_read_and_one_that_is_not_there(bench):
    """The board goes on sampling, and all of it arrives once somebody reads."""
    board = await bench.board(plugged=False)
    await board.wait_event("pack", seq=PACKS)
    board.cable.plug()
    async with Running(bench) as station:
        await board.wait_event("connected")
        board.cable.is_read = board.cable.is_written = False
        await asyncio.sleep(1)
        board.cable.is_read = board.cable.is_written = True
        await all_done([board])
        await check(bench, station)


async def test_hot_plugged_by_usb_id(bench, monkeypatch):
    board = await bench.board()
    found = []
    settings = SerialSettings(usb=("any",))
    station = Station(bench.chain, bench.directory, serial=settings)
    async with station:
        station.gateway._serial._find = lambda usb: list(found) if usb == ("any",) else []
        task = asyncio.create_task(sealing(station))
        await asyncio.sleep(0.2)
        assert station.gateway.counts().serial == {}
        found.append(str(board.cable.device))
        await all_done([board])
        task.cancel()
    assert bench.packs(board) == PACKS


async def test_over_a_tcp_port(bench):
    """As QEMU's serial lines and terminal servers have it."""
    board = await bench.board()

    async def serve(reader, writer):
        number = os.open(board.cable.device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        loop = asyncio.get_running_loop()
        loop.add_reader(number, lambda: writer.write(os.read(number, 4096)))
        try:
            while data := await reader.read(256):
                os.write(number, data)
        finally:
            loop.remove_reader(number)
            os.close(number)

    async with Listener(serve) as listener:
        settings = SerialSettings((f"socket://127.0.0.1:{listener.port}",))
        async with Station(bench.chain, bench.directory, serial=settings) as station:
            task = asyncio.create_task(sealing(station))
            await all_done([board])
            await check(bench, station)
            task.cancel()


async def test_ctrl_c_ends_the_program_and_nothing_else_does(bench):
    # At full speed its outbox may be full, and it silent, before the gateway has gone.
    board = await bench.board(rows=100_000, rate_hz=50)
    async with Running(bench):
        await board.wait_event("receipt")
    await board.wait_event("disconnected")
    board.cable.type(b"\x03")  # alone it may be noise
    await board.wait_event("pack")
    board.cable.type(b"\0\r\x03\r\x01")  # as mpremote does
    await board.wait_event("interrupted")
    assert await board.wait() == 1


async def test_a_board_whose_gateway_is_another_one(bench):
    gateway = {"name": "elsewhere", "key": bench.chain.validators[1].public.xy.hex()}
    board = await bench.board(gateways=[gateway])
    async with Running(bench) as station:
        event = await board.wait_event("ignored")
        assert event["error"] == "link.gateway: none of board.json's"
        assert station.gateway.counts().messages.get("admitted", 0) == 0


async def test_two_ports_that_say_they_are_one_board(bench):
    """Whoever says a board's name takes nothing from the board itself."""
    board = await bench.board(rate_hz=40)
    other = bench.directory / "other"
    settings = SerialSettings((str(board.cable.device), str(other)))
    async with Station(bench.chain, bench.directory, serial=settings) as station:
        task = asyncio.create_task(sealing(station))
        await board.wait_event("receipt")
        pack = bench.chain.ledger.transaction_at(board.kid, 1)
        await plug_in(other, DEVICE_TYPE, board.kid, pack.raw)
        await all_done([board])
        await station.until_admitted(PACKS)
        task.cancel()
    assert bench.packs(board) == PACKS
    assert {body.cause for body in station.incidents()} <= {"replayed"}
