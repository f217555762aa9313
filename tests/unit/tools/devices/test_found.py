"""Boards are found by what their USB descriptors and drives say."""

from types import SimpleNamespace

import pytest
from support.firmware_images import FakeDrive

from tools.boards import load_boards
from tools.devices import work
from tools.devices.drive import find_drives, mount_points, read_drive
from tools.devices.errors import PortError
from tools.devices.found import Found, find_boards
from tools.devices.pico import bootsel_on_usb
from tools.errors import UsageError

BOARDS = load_boards()


def port(device, vid=None, pid=None, serial_number=None):
    return SimpleNamespace(
        device=device, vid=vid, pid=pid, serial_number=serial_number, location=None
    )


def find(*ports, drives=(), bootsel=()):
    return find_boards(
        BOARDS, ports=lambda: ports, drives=lambda: drives, bootsel=lambda boards: bootsel
    )


def test_boards_are_found_by_their_usb_ids() -> None:
    found = find(
        port("/dev/ttyS0"),
        port("/dev/ttyUSB10", 0x10C4, 0xEA60, "0001"),
        port("/dev/ttyUSB9", 0x1A86, 0x7523),
        port("/dev/ttyACM0", 0x2E8A, 0x0005, "e6614c"),
        port("/dev/ttyACM1", 0x1234, 0x5678),
    )
    assert [one.port for one in found] == ["/dev/ttyACM0", "/dev/ttyUSB9", "/dev/ttyUSB10"]
    pico, clone, bridge = found
    assert set(pico.boards) == {"pico", "pico-w", "pico2-w"}
    assert (pico.state, pico.serial, pico.usb) == ("running", "e6614c", "2e8a:0005")
    assert clone.boards == ("esp32-devkit",)
    assert {"esp32-devkit", "esp32-s3"} <= set(bridge.boards)


def test_picos_in_bootsel_are_found_by_their_drive(tmp_path) -> None:
    (tmp_path / "stick").mkdir()
    with FakeDrive(tmp_path / "RPI-RP2"), FakeDrive(tmp_path / "RP2350", 0xE48BFF59):
        drives = find_drives(tmp_path.iterdir)
        assert [drive.label for drive in drives] == ["RP2350", "RPI-RP2"]
        found = find(drives=drives)
    assert [one.state for one in found] == ["bootloader", "bootloader"]
    assert found[0].boards == ("pico2-w",)
    assert set(found[1].boards) == {"pico", "pico-w"}


def test_a_drive_of_another_kind_is_named(tmp_path) -> None:
    with pytest.raises(PortError, match=r"no drive of a boot loader.*hold BOOTSEL"):
        read_drive(tmp_path)
    (tmp_path / "INFO_UF2.TXT").write_bytes(b"\xff\xfe nothing of use")
    with pytest.raises(PortError, match="names no Board-ID"):
        read_drive(tmp_path)


def test_this_machines_volumes_can_be_looked_through() -> None:
    assert all(root.is_absolute() for root in mount_points())


def test_picos_in_bootsel_are_found_on_usb_for_picotool(tmp_path) -> None:
    for name, values in {
        "1-1": ("2e8a", "0003", "1", "23"),
        "1-2": ("2e8a", "000f", "1", "24"),
        "1-3": ("2e8a", "0005", "1", "25"),
        "usb1": ("1d6b", "0002", "1", "1"),
    }.items():
        (tmp_path / name).mkdir()
        for file, value in zip(("idVendor", "idProduct", "busnum", "devnum"), values, strict=True):
            (tmp_path / name / file).write_text(value + "\n")
    (tmp_path / "1-1:1.0").mkdir()
    assert bootsel_on_usb(BOARDS, tmp_path) == [
        ("usb:1-23", "2e8a:0003"),
        ("usb:1-24", "2e8a:000f"),
    ]


def test_a_pico_whose_drive_is_not_mounted_is_found_on_usb(tmp_path) -> None:
    waiting = [("usb:1-23", "2e8a:0003")]
    (one,) = find(bootsel=waiting)
    assert (one.port, one.state, set(one.boards)) == ("usb:1-23", "bootloader", {"pico", "pico-w"})
    with FakeDrive(tmp_path / "RPI-RP2") as fake:
        (one,) = find(bootsel=waiting, drives=[read_drive(fake.root)])
        assert one.port == str(fake.root)


def test_the_ports_to_work_on() -> None:
    one = Found("tty1", "", "", "", ("pico",), "running")
    two = Found("tty2", "", "", "", ("pico",), "running")
    assert work.choose([one], [], everything=False) == ["tty1"]
    assert work.choose([one, two], [], everything=True) == ["tty1", "tty2"]
    assert work.choose([one, two], ["tty9"], everything=False) == ["tty9"]
    with pytest.raises(UsageError, match=r"2 boards are plugged in \(tty1, tty2\); say --all"):
        work.choose([one, two], [], everything=False)
    with pytest.raises(PortError, match=r"no board is plugged in .*hold BOOTSEL"):
        work.choose([], [], everything=True)
    with pytest.raises(UsageError, match="--all"):
        work.choose([one], ["tty1"], everything=True)
    with pytest.raises(UsageError, match="the same port twice"):
        work.choose([one], ["tty1", "tty1"], everything=False)
