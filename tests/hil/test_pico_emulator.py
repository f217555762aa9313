"""The emulated Pico: its image, its process, its console, its walls.

A few instructions stand for MicroPython's image; `fogline hil run --target pico-emu` runs it whole.
"""

import asyncio
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from support.firmware_images import uf2, uf2_rp2350

from tools.devices.line import SerialLine
from tools.devices.repl import Repl
from tools.errors import ToolError, UsageError
from tools.hil import build_pico, pico_emulator, pico_process
from tools.hil.pico_emulator import PicoEmulatorTarget
from tools.hil.target import TargetError
from tools.hil.targets import open_target

# `b .`, over and over: a program that never turns its USB on.
IDLE = b"\xfe\xe7" * 512


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "idle.uf2"
    path.write_bytes(uf2(IDLE))
    return path


def test_without_an_image_it_says_what_to_build_or_to_name(tmp_path, monkeypatch):
    monkeypatch.setenv("FOGLINE_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=r"make pico.*--firmware"):
        open_target("pico-emu")


def test_the_image_that_was_built_last_is_run(tmp_path, monkeypatch):
    monkeypatch.setenv("FOGLINE_CACHE", str(tmp_path))
    for age, version in ((2, "1.26.1-a"), (1, "1.27.0-b"), (3, "1.26.0-c")):
        image = tmp_path / "pico" / version / "firmware.uf2"
        image.parent.mkdir(parents=True)
        image.write_bytes(uf2(IDLE))
        os.utime(image, (1000 - age, 1000 - age))
    with pytest.raises(TargetError, match=r"firmware\.uf2 did not start: .*USB within 0\.5"):
        PicoEmulatorTarget(None, start_s=0.5)
    assert build_pico.built() == tmp_path / "pico" / "1.27.0-b" / "firmware.uf2"


def test_a_built_image_is_the_flash_that_it_was_made_of():
    content = bytes(range(256)) * 5 + b"rest"
    assert build_pico.uf2(content) == uf2(content)


def test_other_sources_than_it_knows_are_refused(tmp_path):
    port = tmp_path / "ports" / "rp2"
    port.mkdir(parents=True)
    (port / "CMakeLists.txt").write_text("set(MICROPY_SSL_MBEDTLS ON)\n")
    packages = {}
    for name, source in build_pico.PACKAGES.items():
        packages[name] = tmp_path / "debian" / source
        packages[name].mkdir(parents=True)
        (packages[name] / "content").touch()
    with pytest.raises(ToolError, match=r"no line 'mbedtls/mbedtls_port\.c'.*--firmware"):
        build_pico.fill(tmp_path, packages)
    assert (tmp_path / "lib" / "pico-sdk" / "content").exists()


def test_an_image_is_for_this_target_alone(image):
    with pytest.raises(UsageError, match="pico-emu"):
        open_target("mock", firmware=image)


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", uf2(IDLE)[:-1], uf2_rp2350(IDLE)],
    ids=["empty", "text", "cut", "2350"],
)
def test_what_is_no_image_of_a_pico_is_refused(content, tmp_path):
    path = tmp_path / "x.uf2"
    path.write_bytes(content)
    with pytest.raises(TargetError, match="name a MicroPython image for RP2040"):
        open_target("pico-emu", firmware=path)


def test_an_image_that_is_not_there_or_too_large_is_refused(tmp_path):
    with pytest.raises(TargetError, match="--firmware"):
        open_target("pico-emu", firmware=tmp_path / "none.uf2")
    large = tmp_path / "large.uf2"
    with large.open("wb") as file:
        file.truncate(pico_emulator.MAX_IMAGE_BYTES + 512)
    with pytest.raises(TargetError, match="larger"):
        open_target("pico-emu", firmware=large)


def test_without_the_package_it_says_what_to_install(image, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TargetError, match=r"\.\[emulator\]"):
        PicoEmulatorTarget(image)


def test_an_image_that_never_shows_a_console_is_an_error_with_its_reason(image, tmp_path):
    with pytest.raises(TargetError, match=r"idle\.uf2 did not start: .*USB within 0\.5"):
        PicoEmulatorTarget(image, folder=tmp_path / "pico", start_s=0.5)


@pytest.mark.parametrize("board", pico_process.BOARDS)
def test_flash_holds_the_image_and_outlives_the_process(board, image, tmp_path):
    flash = tmp_path / "flash.bin"
    device = pico_process.make_device(image, board, flash)
    assert device.mcu.flash[: len(IDLE)] == IDLE
    device.mcu.flash[0x100000:0x100004] = b"kept"
    pico_process.save_flash(device, flash)
    assert flash.stat().st_size == pico_process.FLASH_BYTES
    again = pico_process.make_device(image, board, flash)
    assert again.mcu.flash[: len(IDLE)] == IDLE
    assert again.mcu.flash[0x100000:0x100004] == b"kept"


async def serve(device, guest):
    """Serve a device that shows its console at once, with a guest that answers behind its USB."""
    ports = asyncio.get_running_loop().create_future()

    async def astart(_timeout_s):
        device.simulator.bind_loop()
        device.simulator.stopped = False

    async def play():
        while True:
            while device.cdc.tx_fifo.item_count:
                for answer in guest(device.cdc.tx_fifo.pull()):
                    device.cdc.on_serial_data(answer)
            await asyncio.sleep(0.001)

    device.astart = astart
    serving = asyncio.create_task(pico_process.serve(device, 1, ports.set_result))
    playing = asyncio.create_task(play())
    try:
        yield await asyncio.wait_for(ports, 60)
        device.simulator.shutdown_request.request(0)
        await asyncio.wait_for(serving, 60)
    finally:
        playing.cancel()
        serving.cancel()


def repl():
    """A guest with a raw REPL that can print what two strings make, or six times seven."""
    line = bytearray()
    said = re.compile(rb"print\((.*)\)")

    def run(program):
        (what,) = said.fullmatch(program).groups()
        return b"42" if what == b"6 * 7" else what.replace(b"'", b"")

    def take(byte):
        nonlocal is_pasting
        line.append(byte)
        if byte == 1 and line.endswith(b"\x05A\x01"):
            is_pasting = True
            line.clear()
            yield b"R\x01\x20\x00\x01"
        elif byte == 1 and not line.endswith(b"\x05A"):
            line.clear()
            yield b"raw REPL; CTRL-B to exit\r\n>"
        elif byte == 3:
            line.clear()
        elif byte == 4:
            program = bytes(line[:-1])
            line.clear()
            yield b"\x04" if is_pasting else b"OK"
            is_pasting = False
            yield run(program) + b"\r\n\x04\x04>"

    is_pasting = False
    return take


async def test_the_console_is_a_line_that_the_raw_repl_speaks_on(image, tmp_path):
    device = pico_process.make_device(image, "pico", tmp_path / "flash.bin")

    def ask(port):
        line = SerialLine(f"socket://127.0.0.1:{port}")
        try:
            board = Repl(line, "pico-emu", remedy="start it again", patience=2)
            board.enter()
            return board.run("print(6 * 7)", 10).strip()
        finally:
            line.close()

    async for port in serve(device, repl()):
        assert await asyncio.to_thread(ask, port) == "42"


# Tries to leave, each way that Python has, in a process of its own: walls stay for its life.
ESCAPES = """
import asyncio, socket, sys
from tools.hil import pico_process
pico_process.confine()
port = int(sys.argv[1])
out = [
    lambda: socket.create_connection(("192.0.2.1", 9), 1),
    lambda: socket.getaddrinfo("example.org", 80),
    lambda: socket.getaddrinfo("localhost.example.org", 80),
    lambda: socket.gethostbyname("example.org"),
    lambda: socket.socket().bind(("0.0.0.0", 0)),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 9)),
    lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 9)),
    lambda: asyncio.run(asyncio.wait_for(asyncio.open_connection("192.0.2.1", 9), 5)),
]
for number, way in enumerate(out):
    try:
        way()
    except PermissionError:
        print("held")
    else:
        print("left", number)
device = pico_process.make_device(sys.argv[2], "pico-w", __import__("pathlib").Path("none"))
async def reach(host):
    wifi = next(d for d in found)
    reader, writer = await wifi.bus.nat_bridge._tcp._connect_fn(host, port)
    print((await reader.readexactly(5)).decode())
    writer.close()
import gc
from rp2040py.external.cyw43 import Cyw43439
found = [one for one in gc.get_objects() if isinstance(one, Cyw43439)]
asyncio.run(reach("10.0.0.1"))
try:
    asyncio.run(reach("192.0.2.1"))
except PermissionError:
    print("held")
"""


def test_an_emulated_boards_network_ends_at_this_machine(image):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        process = subprocess.Popen(
            [sys.executable, "-c", ESCAPES, str(server.getsockname()[1]), str(image)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"hello")
                said = process.communicate(timeout=60)[0]
        finally:
            process.kill()
            process.wait()
    assert said.split() == ["held"] * 8 + ["hello", "held"]


def test_the_process_ends_on_sigterm_before_it_has_started(image, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.hil.pico_process", image, tmp_path / "f", "pico", "60"],
        stdout=subprocess.DEVNULL,
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
