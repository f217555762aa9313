"""The process that emulates a Pico: `python -m tools.hil.pico_process UF2 FLASH BOARD TIMEOUT_S`.

Runs an image in rp2040py and serves the board's USB console on a TCP port of 127.0.0.1, whose
number is the first line on standard output, as JSON. On SIGTERM it writes the flash to FLASH and
ends: that is the power cut. What the flash held at the last one is there again at the next start.

rp2040py splices the connections of a Pico W onto this machine's network. `confine` sees to it that
no socket of this process reaches further than this machine.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rp2040py.boards import ExternalDeviceFactory
    from rp2040py.device.base_device import BaseDevice

__all__ = ["BOARDS", "FLASH_BYTES", "confine", "main", "make_device", "save_flash", "serve"]

FLASH_BYTES = 2 << 20  # of a Pico; the emulator has room for more, which stays as it is
POLL_S = 0.05
HOST = "127.0.0.1"
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# Our names of boards, and rp2040py's.
BOARDS = {"pico": "pico", "pico-w": "pico_w"}
# Where an address stands in the arguments of Python's audit events about sockets.
_ADDRESS_AT = {
    "socket.connect": 1,
    "socket.bind": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}


def _check(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise PermissionError for what would leave this machine."""
    at = _ADDRESS_AT.get(event)
    if at is None:
        return
    address = arguments[at]
    host = address[0] if isinstance(address, tuple) else address
    if host is None and event != "socket.getaddrinfo":
        return  # sendmsg on a socket that is connected already, and was looked at then
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside:
        raise PermissionError(f"{event} {host}: an emulated board's network is this machine")


def confine() -> None:
    """Refuse every socket that would leave this machine, as long as the process lives."""
    sys.addaudithook(_check)


def _reach_this_machine(factory: ExternalDeviceFactory) -> ExternalDeviceFactory:
    """Let the Wi-Fi's gateway be this machine's 127.0.0.1, port by port, and nothing else be."""
    from rp2040py.external.cyw43 import Cyw43439, nat

    gateway = ".".join(map(str, nat.GATEWAY_IP))

    async def connect(host: str, port: int) -> _Connection:
        return await asyncio.open_connection(HOST if host == gateway else host, port)

    class Confined(Cyw43439):
        def attach(self, rp2040: Any) -> None:
            super().attach(rp2040)
            bridge = self.bus.nat_bridge
            assert bridge is not None
            bridge._tcp._connect_fn = connect  # noqa: SLF001 - it has no other way in

    return Confined if factory is Cyw43439 else factory


def make_device(image: Path, board: str, flash: Path) -> BaseDevice:
    """Make a device that is off, with an image in its flash, or what was kept of that flash."""
    from rp2040py.boards import BOARDS as THEIRS
    from rp2040py.device.base_device import BaseDevice

    theirs = THEIRS[BOARDS[board]]
    # By path: a name without one would be downloaded.
    spec = dataclasses.replace(
        theirs, image=image, extras=tuple(map(_reach_this_machine, theirs.extras))
    )
    device = BaseDevice(board=spec)
    if flash.exists():
        device.mcu.flash[:FLASH_BYTES] = flash.read_bytes()[:FLASH_BYTES]
    return device


def save_flash(device: BaseDevice, flash: Path) -> None:
    """Write what the flash holds, all or nothing."""
    part = flash.with_suffix(".part")
    part.write_bytes(bytes(device.mcu.flash[:FLASH_BYTES]))
    part.replace(flash)


async def serve(device: BaseDevice, timeout_s: float, tell: Callable[[int], None]) -> None:
    """Start a device and serve its console until it is asked to end. Raises TimeoutError."""
    from rp2040py.cli.socket_repl import SocketInteractiveRepl

    await device.astart(timeout_s)
    stop = device.simulator.shutdown_request
    console = SocketInteractiveRepl(device.cdc, device.simulator, stop.request, HOST, 0)
    await console.start()
    try:
        assert console.port is not None
        tell(console.port)
        while not stop.event.is_set() and device.simulator.executing:  # noqa: ASYNC110 - a thread's
            await asyncio.sleep(POLL_S)
    finally:
        await console.stop()
        device.stop()
    if device.simulator.engine_room_error is not None:
        raise device.simulator.engine_room_error


def _tell(port: int) -> None:
    print(json.dumps({"port": port}), flush=True)


def main(arguments: list[str]) -> int:
    """Emulate until SIGTERM; gives the exit code."""
    image, flash, board, timeout_s = arguments
    confine()
    device = make_device(Path(image), board, Path(flash))
    try:
        asyncio.run(serve(device, float(timeout_s), _tell))
    except TimeoutError:
        print(f"no console on its USB within {timeout_s} s", file=sys.stderr)
        return 1
    finally:
        save_flash(device, Path(flash))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
