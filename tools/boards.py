"""The boards that Fogline runs on: `hardware/boards/*.toml`, read once into frozen objects.

A file's stem is the board's id. Unknown keys, pins that the board lacks and pins with two uses that
the file does not admit to are errors that name file and key.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tools.errors import ToolError

__all__ = [
    "FOLDER",
    "Board",
    "Capabilities",
    "EsptoolFlash",
    "Gpio",
    "I2cBus",
    "Inference",
    "SpiBus",
    "UartBus",
    "Uf2Flash",
    "Usb",
    "UsbId",
    "load_board",
    "load_boards",
    "read_board",
]

FOLDER = Path(__file__).resolve().parents[1] / "hardware" / "boards"
MAX_FILE_BYTES = 16 * 1024

Bytes = Annotated[int, Field(ge=1, le=1 << 30)]
GpioNumber = Annotated[int, Field(ge=0, le=63)]
UsbNumber = Annotated[int, Field(ge=1, le=0xFFFF)]
Text = Annotated[str, Field(min_length=1, max_length=160)]
LogicalName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,11}$")]


class Table(BaseModel):
    """A table of a file: frozen, and strict about keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Capabilities(Table):
    """What code may ask of a board; everything that a file leaves out is lacking."""

    pins: bool = False  # it has pins, and `machine` drives them
    wifi: bool = False  # a radio that stock MicroPython runs
    network: bool = False  # sockets without a radio of its own
    tls: bool = False
    watchdog: bool = False
    deep_sleep: bool = False
    native_code: bool = False  # @micropython.viper
    calibrated_adc: bool = False  # `ADC.read_uv`, corrected by what the maker measured
    exit_status: bool = False  # an operating system stands behind it

    @property
    def sockets(self) -> bool:
        """Whether it can speak MQTT itself."""
        return self.wifi or self.network


class Memory(Table):
    """heap_bytes: about what MicroPython leaves free behind its start-up, rounded down."""

    heap_bytes: Bytes
    flash_bytes: Bytes | None = None


class Mpy(Table):
    """arch: what mpy-cross calls the board's instructions; `host` for this machine's own."""

    arch: Literal["host", "armv6m", "armv7m", "armv7emsp", "rv32imc", "xtensawin"]


class Inference(Table):
    """What models it runs.

    arena_bytes: the largest working memory that one may ask for; clock_hz: of the processor, as
    MicroPython sets it; instructions_per_mac: by `fogline bench board`, on a whole auto-encoder,
    of the kernels that this board's official image runs.
    """

    board_class: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    arena_bytes: Bytes
    clock_hz: Annotated[int, Field(ge=1_000_000, le=10_000_000_000)] | None = None
    instructions_per_mac: Annotated[float, Field(gt=0, le=1000)] | None = None


class UsbId(Table):
    """A vendor and product number, and what shows it."""

    vid: UsbNumber
    pid: UsbNumber
    name: Text


class Usb(Table):
    """How the board shows itself: while MicroPython runs, and in its boot loader."""

    running: tuple[UsbId, ...] = ()
    bootloader: tuple[UsbId, ...] = ()


class EsptoolFlash(Table):
    """firmware: MicroPython's name of the build; offset: where its image begins in flash."""

    method: Literal["esptool"]
    firmware: Text
    chip: Literal["esp32", "esp32s3", "esp32c3"]
    offset: Annotated[int, Field(ge=0, le=0x10000)]
    boot_hint: Text


class Uf2Flash(Table):
    """family: of the UF2 blocks; drive: the label of the boot loader's volume."""

    method: Literal["uf2"]
    firmware: Text
    family: Annotated[int, Field(ge=1, le=0xFFFFFFFF)]
    drive: Text
    boot_hint: Text


class Gpio(Table):
    """The pins that may be used, by number.

    label: what is printed beside a pin, `{}` for its number; header: positions on the board's pin
    header; shared: pins that have more than one logical name, of which a board uses one at a time.
    """

    label: Annotated[str, Field(pattern=r"^[A-Z]{1,4}\{\}$")]
    usable: tuple[GpioNumber, ...]
    input_only: tuple[GpioNumber, ...] = ()
    analog: tuple[GpioNumber, ...] = ()
    shared: tuple[GpioNumber, ...] = ()
    header: Mapping[str, Annotated[int, Field(ge=1, le=99)]] = Field(default_factory=dict)

    @field_validator("header", mode="after")
    @classmethod
    def _frozen(cls, value: Mapping[str, int]) -> Mapping[str, int]:
        return MappingProxyType(dict(value))

    def pad(self, number: int) -> str:
        """What a technician looks for: the label, and the header's pin where they are counted."""
        position = self.header.get(str(number))
        text = self.label.format(number)
        return text if position is None else f"{text} ({position})"


class Power(Table):
    """The pads that sensors are fed from."""

    ground: Text
    v3: Text
    v5: Text


class I2cBus(Table):
    """id: the controller's number in `machine.I2C`."""

    id: Annotated[int, Field(ge=0, le=3)]
    sda: GpioNumber
    scl: GpioNumber
    max_hz: Annotated[int, Field(ge=10_000, le=1_000_000)]


class SpiBus(Table):
    """id: the controller's number in `machine.SPI`."""

    id: Annotated[int, Field(ge=0, le=3)]
    sck: GpioNumber
    mosi: GpioNumber
    miso: GpioNumber
    max_hz: Annotated[int, Field(ge=100_000, le=80_000_000)]


class UartBus(Table):
    """id: the controller's number in `machine.UART`."""

    id: Annotated[int, Field(ge=0, le=3)]
    tx: GpioNumber
    rx: GpioNumber


class Board(Table):
    """A board, or a target that stands for one.

    id: what `board.json` and the chain call it; name: what its maker calls it; machine: what its
    MicroPython says of itself (`sys.implementation._machine`), None where that varies; i2c, spi,
    uart, adc, pin: buses and pins by the logical names that drivers' settings use.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=32)]
    name: Text
    sources: tuple[Text, ...]
    capabilities: Capabilities
    memory: Memory
    mpy: Mpy
    inference: Inference
    machine: Text | None = None
    usb: Usb = Usb()
    flash: Annotated[EsptoolFlash | Uf2Flash, Field(discriminator="method")] | None = None
    gpio: Gpio | None = None
    power: Power | None = None
    i2c: Mapping[LogicalName, I2cBus] = Field(default_factory=dict)
    spi: Mapping[LogicalName, SpiBus] = Field(default_factory=dict)
    uart: Mapping[LogicalName, UartBus] = Field(default_factory=dict)
    adc: Mapping[LogicalName, GpioNumber] = Field(default_factory=dict)
    pin: Mapping[LogicalName, GpioNumber] = Field(default_factory=dict)

    @field_validator("i2c", "spi", "uart", "adc", "pin", mode="after")
    @classmethod
    def _frozen(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        return MappingProxyType(dict(value))

    def uses(self) -> dict[str, tuple[int, ...]]:
        """The GPIO numbers behind each logical name."""
        found: dict[str, tuple[int, ...]] = {}
        found |= {name: (i2c.sda, i2c.scl) for name, i2c in self.i2c.items()}
        found |= {name: (spi.sck, spi.mosi, spi.miso) for name, spi in self.spi.items()}
        found |= {name: (uart.tx, uart.rx) for name, uart in self.uart.items()}
        found |= {name: (number,) for name, number in (*self.adc.items(), *self.pin.items())}
        return found


def read_board(path: Path) -> Board:
    """Read one file; raises ToolError naming the file and each key that is wrong."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ToolError(f"{path}: is larger than {MAX_FILE_BYTES} bytes")
    try:
        tables = tomllib.loads(data.decode())
        if "id" in tables:
            raise ToolError(f"{path}: id is the file's name; take the key out")
        # Lists are tuples here, as everything is that nobody may change.
        board = Board.model_validate(_tuples({**tables, "id": path.stem}))
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        )
        raise ToolError(f"{path}: {found}") from error
    except ValueError as error:
        raise ToolError(f"{path}: is not TOML: {error}") from error
    for problem in _wrong_pins(board):
        raise ToolError(f"{path}: {problem}")
    return board


@cache
def load_boards(folder: Path = FOLDER) -> Mapping[str, Board]:
    """Read all boards, by id; raises ToolError."""
    boards = {path.stem: read_board(path) for path in sorted(folder.glob("*.toml"))}
    if not boards:
        raise ToolError(f"{folder}: has no boards; run from a complete checkout")
    return MappingProxyType(boards)


def load_board(board_id: str, folder: Path = FOLDER) -> Board:
    """Return one board; raises ToolError with the ids that there are."""
    boards = load_boards(folder)
    if board_id not in boards:
        raise ToolError(f"there is no board {board_id}; choose one of {', '.join(boards)}")
    return boards[board_id]


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        # `class` is the word for it in the file, and none in Python.
        return {("name" if key == "class" else key): _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _wrong_pins(board: Board) -> list[str]:
    """What cannot be: a pin that is not there, or does not do what it is named for."""
    uses = board.uses()
    if board.gpio is None or board.power is None:
        if uses or board.capabilities.pins or board.gpio or board.power:
            return ["[gpio], [power] and capabilities.pins go together"]
        return []
    if not board.capabilities.pins:
        return ["capabilities.pins is not true, but there is [gpio]"]
    gpio = board.gpio
    problems = []
    names = [*board.i2c, *board.spi, *board.uart, *board.adc, *board.pin]
    problems += [f"{name} names two things" for name, count in Counter(names).items() if count > 1]
    numbers = Counter(number for group in uses.values() for number in set(group))
    for name, group in uses.items():
        problems += [f"{name}: GPIO{n} is not usable" for n in group if n not in gpio.usable]
        if len(set(group)) < len(group):
            problems.append(f"{name}: has one GPIO twice")
    for name, number in board.adc.items():
        if number not in gpio.analog:
            problems.append(f"adc.{name}: GPIO{number} is not analogue")
    outputs = [number for i2c in board.i2c.values() for number in (i2c.sda, i2c.scl)]
    outputs += [number for spi in board.spi.values() for number in (spi.sck, spi.mosi)]
    outputs += [uart.tx for uart in board.uart.values()]
    outputs += board.pin.values()
    problems += [f"GPIO{n} only takes input" for n in outputs if n in gpio.input_only]
    twice = sorted(number for number, count in numbers.items() if count > 1)
    if twice != sorted(gpio.shared):
        problems.append(f"gpio.shared is not what has more than one name: {twice}")
    for key in gpio.header:
        if not key.isdecimal() or int(key) not in gpio.usable:
            problems.append(f"gpio.header.{key} is not usable")
    return problems
