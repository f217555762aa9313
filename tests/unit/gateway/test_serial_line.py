"""Which ports are served, and what is said of one that cannot be."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from fog_node.errors import GatewayError
from fog_node.gateway import serial_line
from fog_node.gateway.serial_line import SerialLine, SerialSettings, UsbId, matching_ports
from fog_node.gateway.serial_port import open_port


@pytest.mark.parametrize(
    ("text", "vendor", "product", "is_meant"),
    [
        ("2e8a:0005", 0x2E8A, 0x0005, True),
        ("2E8A:*", 0x2E8A, 0x000A, True),
        ("2e8a:0005", 0x2E8A, 0x000A, False),
        ("303a:*", 0x2E8A, 0x0005, False),
        ("303a:*", None, None, False),
    ],
)
def test_usb_ids(text, vendor, product, is_meant) -> None:
    assert UsbId.parse(text).matches(vendor, product) is is_meant


@pytest.mark.parametrize(
    "text", ["", "2e8a", "2e8a:", "*:0005", "2e8a:5", "xxxx:0005", "2e8a:0005 "]
)
def test_what_is_no_usb_id(text) -> None:
    with pytest.raises(ValueError, match="is not VVVV:PPPP"):
        UsbId.parse(text)


def test_ports_of_such_devices_are_found(monkeypatch) -> None:
    ports = [
        SimpleNamespace(device="/dev/ttyACM1", vid=0x2E8A, pid=5),
        SimpleNamespace(device="/dev/ttyS0", vid=None, pid=None),
        SimpleNamespace(device="/dev/ttyACM0", vid=0x303A, pid=0x1001),
    ]
    monkeypatch.setattr(serial_line.list_ports, "comports", lambda: ports)
    assert matching_ports([UsbId.parse("2e8a:*"), UsbId.parse("303a:1001")]) == [
        "/dev/ttyACM0",
        "/dev/ttyACM1",
    ]


def test_a_port_that_cannot_be_opened_is_named(tmp_path) -> None:
    path = tmp_path / "none"
    with pytest.raises(GatewayError, match=f"serial port {path}: cannot be opened"):
        open_port(str(path), 115200)
    path.write_text("no terminal")
    with pytest.raises(GatewayError, match=f"serial port {path}: cannot be opened"):
        open_port(str(path), 115200)


async def test_one_that_fails_is_told_once_and_tried_more_and_more_seldom(
    tmp_path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(serial_line, "SCAN_S", 0.01)
    monkeypatch.setattr(serial_line, "BACKOFF_S", (0.01, 0.04))
    tried = []
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()

    def refuse(url, baud):
        tried.append((url, baud))
        if len(tried) == 4:
            loop.call_soon_threadsafe(enough.set)
        raise GatewayError(f"serial port {url}: cannot be opened")

    monkeypatch.setattr(serial_line, "open_port", refuse)
    path, link = tmp_path / "port", tmp_path / "link"
    path.touch()
    link.symlink_to(path)
    # By two names, it is one port all the same.
    settings = SerialSettings((str(link), str(path), str(tmp_path / "absent")), baud=9600)
    line = SerialLine(settings, "seoul", None)
    task = asyncio.create_task(line.run())
    async with asyncio.timeout(60):
        await enough.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert set(tried) == {(str(link), 9600)}
    assert caplog.text.count("trying again") == 1
    assert line.counts() == {}
