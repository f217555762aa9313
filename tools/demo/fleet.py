"""The fixed parts of a demo: consortium, broker, five fog nodes, boards; started and ended."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fog_node.client import Client, ClientError
from fog_node.protocol.founding import Parameters
from tools import consortium as consortiums
from tools import fog
from tools.errors import ToolError

from .attacks import BrokerAddress, plug_in, send
from .boards import Board, find_micropython
from .processes import Child, free_port
from .scenario import Scenario

# The case study: plants of a car maker, and the city whose roads the cars use.
VALIDATORS = ("seoul", "busan", "daegu", "jeju", "city-government")
OPERATOR = "headquarters"
TRAINER = "data-science"
REGULATOR = "regulator"


@dataclass(frozen=True)
class Cast:
    """Who is in a consortium.

    Attributes:
        members: roles by name; validators in the order in which they are numbered.
        trainer: whose releases the boards trust.
    """

    members: Mapping[str, frozenset[str]]
    trainer: str

    @property
    def validators(self) -> tuple[str, ...]:
        """Names of those who run a fog node."""
        return tuple(name for name, roles in self.members.items() if "validator" in roles)


CAST = Cast(
    dict.fromkeys(VALIDATORS, consortiums.VALIDATOR_ROLES)
    | {
        OPERATOR: frozenset({"operator", "customer"}),
        TRAINER: frozenset({"trainer"}),
        REGULATOR: frozenset({"regulator"}),
    },
    TRAINER,
)
# About 30 ms of one core with a SIMD kernel: five miners must leave room on two cores.
PARAMETERS = Parameters(
    block_interval_ms=500,
    heartbeat_ms=0,
    bits=0x1E1FFFFF,
    retarget_blocks=0,
    rest_ms=250,
    stagger_ms=100,
    staged_releases=1,
)
DEVICE_TYPE = "water-circulation"
READY_TIMEOUT_S = 60.0
PACK_ROWS = 10
# MicroPython's input buffer on an ESP32 has 260 bytes.
SERIAL = {"port": "stdio", "window_bytes": 240, "keepalive_s": 5, "interrupt": True}
Transport = Literal["mqtt", "serial"]


@dataclass(frozen=True)
class ExternalBroker:
    """A broker that somebody else runs; TLS if a certificate authority is named."""

    host: str
    port: int
    ca: Path | None = None
    username: str | None = None
    password_file: Path | None = None


class Fleet:
    """Everything that runs beside the demo itself."""

    def __init__(
        self,
        directory: Path,
        external: ExternalBroker | None,
        transport: Transport,
        devices: int,
        cast: Cast = CAST,
    ) -> None:
        """Found the consortium and prepare the processes.

        Args:
            directory: working folder.
            external: a broker that runs already, for boards on MQTT.
            transport: how boards reach their gateways.
            devices: how many boards there will be.
            cast: who is in the consortium.
        """
        self.directory = directory
        self.transport = transport
        self.validators = cast.validators
        self._cast = cast
        self._devices = devices
        self.consortium = consortiums.create(
            directory / "consortium", "fogline demo", cast.members, parameters=PARAMETERS
        )
        self.founding = self.consortium.founding
        self.broker_child: Child | None = None
        self.broker: BrokerAddress | None = None
        if transport == "mqtt" and external is None:
            self.broker = self._own_broker()
        elif external is not None:
            self.broker = BrokerAddress(
                external.host, external.port, external.ca, external.username, external.password_file
            )
        self.apis = {name: f"http://127.0.0.1:{free_port()}" for name in self.validators}
        self.nodes = self._make_nodes()
        self.boards: list[Board] = []

    def _own_broker(self) -> BrokerAddress:
        own = self.directory / "broker"
        consortiums.issue_certificate(self.consortium, "broker", own)
        port = free_port()
        command = [sys.executable, "-m", "tools.demo.broker", "--port", str(port)]
        command += ["--certificate", str(own / "tls.crt"), "--key", str(own / "tls.key")]
        root = Path(__file__).resolve().parents[2]
        self.broker_child = Child("broker", command, self.log_file("broker"), cwd=root)
        return BrokerAddress("localhost", port, self.consortium.authority_certificate)

    def _make_nodes(self) -> dict[str, Child]:
        ports = {name: free_port() for name in self.validators}
        nodes = {}
        for name in self.validators:
            own = self.directory / "nodes" / name
            configuration, _ = fog.init(
                own,
                name,
                self.consortium.founding_file,
                self.consortium.member_directory(name),
                data_dir=own / "data",
                overrides={
                    "peer": {
                        "listen": f"127.0.0.1:{ports[name]}",
                        "peers": {n: f"127.0.0.1:{p}" for n, p in ports.items() if n != name},
                    },
                    "mqtt": self._mqtt_section(),
                    "serial": self._serial_section(name),
                    "api": {"listen": self.apis[name].removeprefix("http://")},
                },
            )
            command = [sys.executable, "-m", "tools.cli", "fog", "run"]
            command += ["--config", str(configuration)]
            root = Path(__file__).resolve().parents[2]
            nodes[name] = Child(name, command, self.log_file(name), cwd=root)
        return nodes

    def _mqtt_section(self) -> dict[str, Any]:
        broker = self.broker
        if broker is None:
            return {"enabled": False}
        return {
            "broker": f"{broker.host}:{broker.port}",
            "tls": broker.ca is not None,
            "ca": broker.ca,
            "username": broker.username,
            "password_file": broker.password_file,
        }

    def _serial_section(self, name: str) -> dict[str, Any]:
        if self.transport != "serial":
            return {}
        boards = range(self.validators.index(name), self._devices, len(self.validators))
        ports = [*(self._port(index) for index in boards), self._attackers_port(name)]
        return {"ports": [str(port) for port in ports]}

    def _port(self, index: int) -> Path:
        return self.directory / "ports" / f"board-{index + 1}"

    def _attackers_port(self, gateway: str) -> Path:
        return self.directory / "ports" / f"attacker-{gateway}"

    async def attack(self, gateway: str, kid: bytes, message: bytes) -> None:
        """Send a message to a gateway as if it came from the board `kid`."""
        if self.broker is not None:
            await send(self.broker, gateway, kid, message)
        else:
            await plug_in(self._attackers_port(gateway), DEVICE_TYPE, kid, message)

    def make_boards(self, scenario: Scenario, rate_hz: float, target: str) -> None:
        """Write the boards' flash and let each make its key; the last one is a `target`."""
        micropython = find_micropython()
        for index, plan in enumerate(scenario.boards):
            name = f"board-{index + 1}"
            turn = index % len(self.validators)
            board = Board(name, self.directory / "boards" / name, micropython, self.log_file(name))
            if self.transport == "serial":
                board.device = self._port(index)
            if index == len(scenario.boards) - 1:
                board.target = target
            gateways = self.validators[turn:] + self.validators[:turn]
            settings = self.settings(board, DEVICE_TYPE, gateways, plan.driver)
            board.configure(settings | {"rate_hz": rate_hz}, self.broker_authority())
            self.boards.append(board)
            board.provision()

    def settings(
        self, board: Board, device_type: str, gateways: Sequence[str], driver: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What a board.json holds, for a board of this fleet; gateways in fail-over order."""
        keys = {member.name: member.key.xy.hex() for member in self.founding.members}
        return {
            "chain_id": self.founding.chain_id.hex(),
            "device_type": device_type,
            "board": board.target,
            "enterprise_number": self.founding.parameters.enterprise_number,
            "gateways": [{"name": name, "key": keys[name]} for name in gateways],
            **self._link_section(),
            "release_keys": [keys[self._cast.trainer]],
            "driver": driver,
            "pack_rows": PACK_ROWS,
            "rate_hz": 0.0,
            "outbox_bytes": 262144,
            "gateway_timeout_s": 10,
        }

    def _link_section(self) -> dict[str, Any]:
        """How a board reaches its gateway, as board.json has it."""
        broker = self.broker
        if broker is None:
            return {"serial": SERIAL}
        mqtt = {
            "host": "127.0.0.1" if broker.host == "localhost" else broker.host,
            "port": broker.port,
            "tls": broker.ca is not None,
            "ca": "ca.der" if broker.ca is not None else None,
            "server_name": broker.host if broker.ca else None,
            "keepalive_s": 30,
        }
        return {"mqtt": mqtt}

    def broker_authority(self) -> bytes:
        """Certificate of the authority that boards check the broker by, DER."""
        if self.broker is None or self.broker.ca is None:
            return self.founding.authority
        certificate = x509.load_pem_x509_certificate(self.broker.ca.read_bytes())
        return certificate.public_bytes(serialization.Encoding.DER)

    def gateway_of(self, board: Board) -> str:
        """Name of the gateway that a board talks to first."""
        return self.validators[self.boards.index(board) % len(self.validators)]

    async def start(self) -> None:
        """Start broker and nodes and wait until the nodes answer."""
        if self.broker_child is not None:
            await self.broker_child.start()
        for node in self.nodes.values():
            await node.start()
        for name in self.validators:
            await self.wait_ready(name)

    async def wait_ready(self, name: str) -> None:
        """Wait until a node's API answers; raises ToolError with its last lines."""
        async with Client([self.apis[name]]) as client:
            deadline = time.monotonic() + READY_TIMEOUT_S
            while True:
                with contextlib.suppress(ClientError):
                    await client.status()
                    return
                self.nodes[name].check()
                if time.monotonic() > deadline:
                    raise ToolError(f"{name}: does not answer:\n{self.nodes[name].tail()}")
                await asyncio.sleep(0.1)

    async def wait_for(
        self, what: str, condition: Callable[[], bool | Awaitable[bool]], timeout_s: float
    ) -> None:
        """Wait until `condition` holds; raises ToolError when it takes too long."""
        deadline = time.monotonic() + timeout_s
        while True:
            result = condition()
            if isinstance(result, Awaitable):
                result = await result
            if result:
                return
            self.check()
            if time.monotonic() > deadline:
                raise ToolError(f"waited {timeout_s:.0f} s in vain until {what}")
            await asyncio.sleep(0.05)

    def check(self) -> None:
        """Raise ToolError where a process ended by itself."""
        for child in (self.broker_child, *self.nodes.values()):
            if child is not None:
                child.check()
        for board in self.boards:
            board.check()

    async def stop(self) -> None:
        """End every process."""
        await asyncio.gather(*(board.stop() for board in self.boards))
        await asyncio.gather(*(node.stop() for node in self.nodes.values()))
        if self.broker_child is not None:
            await self.broker_child.stop()

    def remove(self) -> None:
        """Delete the working folder."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_file(self, name: str) -> Path:
        """Where a process of this name writes."""
        return self.directory / "logs" / f"{name}.log"
