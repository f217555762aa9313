"""Rollouts with boards (MicroPython processes), a real broker, and a gateway with its ledger."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from dataclasses import replace

import pytest
from support.processes import HOST, mosquitto
from support.releases import manifest_for, tiny_model
from support.small_chain import DEVICE_TYPE, ENTERPRISE_NUMBER, GATEWAY_NAME, START_MS, SmallChain
from support.station import Station

from fog_node.gateway.mqtt import Broker
from fog_node.protocol.manifest import encode_bundle, sign_manifest
from fog_node.protocol.rollouts import Group
from fog_node.protocol.transactions import DatasetReference, Enrol, Release, RolloutControl
from tools.demo.boards import Board, find_micropython

DEADLINE_S = 60
BOARDS = 3
ONE, TWO = tiny_model(1), tiny_model(2)


class Plant:
    """Boards, their gateway, and members who release models."""

    def __init__(self, chain, directory, broker):
        self.chain = chain
        self.directory = directory
        self.broker = broker
        self.boards = [self._board(number) for number in range(BOARDS)]
        first = chain.ledger.next_sequence(chain.operator.kid)
        enrolments = [
            Enrol(b.key, "operator", DEVICE_TYPE, "unix", b.channels, START_MS) for b in self.boards
        ]
        chain.seal(
            *(chain.sign(chain.operator, body, first + i) for i, body in enumerate(enrolments))
        )

    def _board(self, number):
        directory = self.directory / f"board-{number}"
        board = Board(
            directory.name, directory, find_micropython(), self.directory / f"{number}.log"
        )
        settings = {
            "chain_id": self.chain.founding.chain_id.hex(),
            "device_type": DEVICE_TYPE,
            "board": "unix",
            "enterprise_number": ENTERPRISE_NUMBER,
            "gateways": [{"name": GATEWAY_NAME, "key": self.chain.gateway.public.xy.hex()}],
            "mqtt": {
                "host": HOST, "port": self.broker.port, "tls": False, "ca": None,
                "server_name": None, "keepalive_s": 30,
            },
            "release_keys": [self.chain.trainer.public.xy.hex()],
            "driver": {
                "name": "testbed", "seed": number, "start_s": START_MS // 1000,
                "script": [{"rows": 1_000_000, "fault": None}],
            },
            "pack_rows": 5,
            "rate_hz": 30.0,
            "outbox_bytes": 262_144,
            "gateway_timeout_s": 30,
        }  # fmt: skip
        board.configure(settings, b"")
        board.provision()
        return board

    @contextlib.asynccontextmanager
    async def gateway(self):
        """A gateway that has just started, sealing what comes."""
        async with Station(self.chain, self.directory, Broker(HOST, self.broker.port)) as station:
            await station.until_connected()
            sealing = asyncio.create_task(self._seal(station))
            self.station = station
            try:
                yield station
            finally:
                sealing.cancel()
                await asyncio.gather(sealing, return_exceptions=True)

    async def _seal(self, station):
        while True:
            await asyncio.sleep(0.25)
            station.seal()

    def release(self, version, model, name="anomaly", spoil=False):
        """A release whose bundle the gateway holds; spoilt, its self-test fails on every board."""
        channels = tuple(channel.name for channel in self.boards[0].channels[:2])
        manifest = replace(
            manifest_for(model, version, name=name, device_type=DEVICE_TYPE, channels=channels),
            threshold=2**31 - 1,  # the model knows nothing of these readings
        )
        if spoil:
            (given, answer), *others = manifest.selftest
            wrong = given, bytes([answer[0] ^ 1]) + answer[1:]
            manifest = replace(manifest, selftest=(wrong, *others))
        signed = sign_manifest(self.chain.trainer, manifest, self.chain.founding.chain_id)
        data = encode_bundle([signed], model)
        body = Release(
            name, version, DEVICE_TYPE, hashlib.sha256(signed).digest(),
            hashlib.sha256(data).digest(), len(data), (), DatasetReference(bytes(32), 0, 0, 0),
            START_MS,
        )  # fmt: skip
        transaction = self.chain.sign(self.chain.trainer, body)
        self.chain.seal(transaction)
        self.station.blobs.put(data)
        self.station.gateway.bundle_arrived()
        return transaction

    def roll_out(self, release, model, back=None, groups=None, verdicts=10):
        first = Group(None, (self.boards[0].key.kid,), 100, 100)
        groups = groups or (first, Group(100, (), 100, 100))
        self.rollout = self.chain.rollout(release, model, back, groups, verdicts)

    @property
    def record(self):
        return self.chain.ledger.state.offers[DEVICE_TYPE].rollout

    def how(self, board):
        return self.chain.ledger.state.rollout_boards[board.key.kid]

    async def until(self, condition, what):
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not condition():
                    for board in self.boards:
                        if board.child is not None:
                            board.check()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            said = [self.versions(board) for board in self.boards if board.log.exists()]
            raise AssertionError(f"{what}: {self.record}, {said}") from None

    def versions(self, board):
        """Versions of models that a board has said anything of."""
        seen = []
        for line in board.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and event.get("event") == "model":
                    seen.append((event["state"], event["version"]))
        return seen


@pytest.fixture
async def plant(tmp_path):
    chain = SmallChain(tmp_path / "ledger")
    chain.stage_releases()
    async with mosquitto(tmp_path / "broker") as broker:
        plant = Plant(chain, tmp_path, broker)
        try:
            yield plant
        finally:
            for board in plant.boards:
                await board.stop()
    chain.ledger.close()


async def test_from_group_to_group_and_back(plant):
    first, second, late = plant.boards
    async with plant.gateway():
        one = plant.release(1, ONE)
        plant.roll_out(one, ONE, groups=(Group(100, (), 60, 100),))
        await first.start()
        await second.start()
        await plant.until(lambda: plant.record.status == "finished", "two of three are enough")
        two, back = plant.release(2, TWO), plant.release(3, ONE, "anomaly-back")
        plant.roll_out(two, TWO, back)
        await plant.until(lambda: plant.record.group == 1, "the first board has done well")
        assert plant.how(first).state == "done"
        assert ("active", 2) not in plant.versions(second)

    # A gateway that starts anew, a board whose power was cut, and one that comes late, with nothing
    # on it.
    await second.stop()
    async with plant.gateway():
        await second.start()
        await plant.until(lambda: plant.how(second).state == "done", "the second board")
        assert plant.record.status == "running"
        await late.start()
        await plant.until(lambda: plant.record.status == "finished", "the late board")

        # One that boards refuse stops at the first of them; the others never hear of it.
        bad, back = plant.release(4, ONE, spoil=True), plant.release(5, TWO, "anomaly-back")
        plant.roll_out(bad, ONE, back)
        await plant.until(lambda: plant.record.status == "stopped", "the refusal is sealed")
        assert plant.how(first).cause == "refused"
        assert plant.record.reason == "group 1: 1 of 1 boards failed"
        assert ("rejected", 4) in plant.versions(first)

        # One that a member takes back, long before its first board has done well.
        three, back = plant.release(6, ONE), plant.release(7, TWO, "anomaly-back")
        plant.roll_out(three, ONE, back, verdicts=100_000)
        await plant.until(lambda: plant.how(first).state == "trying", "it runs on the first board")
        control = RolloutControl(plant.rollout.id, "rollback", "false alarms")
        plant.chain.seal(plant.chain.sign(plant.chain.operator, control))
        await plant.until(lambda: plant.how(first).state == "returned", "it has gone back")
    assert ("active", 7) in plant.versions(first)
    for board in (second, late):
        # What they run is what the way back brings: they are left alone.
        assert {version for _, version in plant.versions(board)} <= {0, 1, 2}, plant.versions(board)
