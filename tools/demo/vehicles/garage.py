"""The boards of cars and of the roads, with the log each of them reads on its flash."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from tools.demo.boards import Board, find_micropython
from tools.demo.fleet import Fleet

from . import logs
from .cast import GOVERNMENT, PLANTS, device_type
from .infrastructure import Site
from .plan import Car

LOG_FILE = "log.csv"
PACK_ROWS = 20
# A car has one way out, and its gateway keeps the same: see `Gate`.
GATEWAY_TIMEOUT_S = 20
# Boards make their keys so many at a time.
_AT_ONCE = 4

Channels = Sequence[tuple[str, str, float, float]]


class LoggingBoard(Board):
    """A board that is switched on for as long as it has something new in its log to tell.

    Attributes:
        plant: name of a car's plant; of a board at the road: the government's.
        type: as it is enrolled.
    """

    plant: str = ""
    type: str = ""

    async def start(self) -> None:
        """Switch it on (again)."""
        self.done = None
        await super().start()

    @property
    def kid(self) -> bytes:
        """Key id, once provisioned."""
        assert self.key is not None
        return self.key.kid

    @property
    def log_path(self) -> Path:
        """The log that it reads."""
        return self.directory / LOG_FILE

    def append(self, rows: Iterable[tuple[datetime, logs.Row]]) -> None:
        """Log what was measured meanwhile."""
        names = [channel.name for channel in self.channels]
        with self.log_path.open("a", encoding="ascii") as file:
            file.writelines(logs.line(moment, row, names) for moment, row in rows)


class Garage:
    """Makes the boards of a fleet."""

    def __init__(self, fleet: Fleet, gate_port: int) -> None:
        self._fleet = fleet
        self._gate_port = gate_port
        self._micropython = find_micropython()

    async def build(self, cars: Sequence[Car], sites: Sequence[Site]) -> None:
        """Make a board for each car and site; each makes its own key."""
        boards = [self._car(car) for car in cars] + [self._site(site) for site in sites]
        self._fleet.boards += boards
        turns = asyncio.Semaphore(_AT_ONCE)

        async def provision(board: Board) -> None:
            async with turns:
                await asyncio.to_thread(board.provision)

        await asyncio.gather(*map(provision, boards))

    def _car(self, car: Car) -> LoggingBoard:
        others = [plant for plant in PLANTS if plant != car.plant]
        gateways = [car.plant, *others]
        board = self._board(
            car.name, device_type(car.plant), gateways, logs.CHANNELS, self._gate_port
        )
        board.plant = car.plant
        return board

    def _site(self, site: Site) -> LoggingBoard:
        """A board that reaches the government's gateways, and those alone."""
        board = self._board(site.name, site.type, GOVERNMENT, site.channels, None)
        board.plant = GOVERNMENT[0]
        return board

    def _board(
        self, name: str, type_: str, gateways: Sequence[str], channels: Channels, port: int | None
    ) -> LoggingBoard:
        fleet = self._fleet
        board = LoggingBoard(
            name, fleet.directory / "boards" / name, self._micropython, fleet.log_file(name)
        )
        board.type = type_
        driver = {
            "name": "replay",
            "script": [{"path": LOG_FILE}],
            "channels": [list(channel) for channel in channels],
        }
        settings = fleet.settings(board, type_, gateways, driver)
        if port is not None:
            settings["mqtt"]["port"] = port
        settings |= {"pack_rows": PACK_ROWS, "gateway_timeout_s": GATEWAY_TIMEOUT_S}
        board.configure(settings, fleet.broker_authority())
        board.log_path.write_text(logs.header([channel[0] for channel in channels]))
        return board
