"""Flashing: ESP32s in a mock boot loader behind pseudo-terminals, Picos as a drive."""

import errno
import hashlib
import io
import os
import random
from contextlib import ExitStack

import pytest
from rich.console import Console
from support.bench_boards import MockEsp, PtyBoard
from support.firmware_images import FakeDrive, esp_image, uf2, uf2_rp2350

from tools.boards import load_boards
from tools.devices import drive as drives
from tools.devices import fleet, pico, work
from tools.devices.drive import copy_image, find_drives, read_drive
from tools.devices.errors import BoardError, CableError, ImageError, SilentError
from tools.devices.found import Found
from tools.devices.images import load_image
from tools.devices.progress import view, whisper
from tools.devices.uf2 import RP2350_ARM_S
from tools.errors import UsageError

BOARDS = load_boards()
CHIPS = ("esp32", "esp32c3", "esp32s3")
CONTENT = random.Random(3).randbytes(80_000)


@pytest.fixture
def image(tmp_path):
    """An Image with these bytes."""

    def make(data, name):
        path = tmp_path / name
        path.write_bytes(data)
        return load_image(path, [hashlib.sha256(data).hexdigest()])

    return make


@pytest.fixture
def esp_images(image):
    return {chip: image(esp_image(chip, CONTENT), f"{chip}.bin") for chip in CHIPS}


def found(*ports, boards=("esp32-devkit", "esp32-c3", "esp32-s3")):
    return [Found(port, "", "", "", boards, "running") for port in ports]


def flashing(images, *ports, asked=None, erase=False, **options):
    images = list(images.values()) if isinstance(images, dict) else images
    return work.flashing(images, BOARDS, asked, found(*ports, **options), erase=erase)


def flash_content(port, chip, offset, size):
    """What lies in the flash of a mock, read back by esptool."""
    from tools.devices.esp import ROM_BAUD, _esptool

    esptool = _esptool()
    for left in reversed(range(3)):
        try:
            with esptool.cmds.detect_chip(port, ROM_BAUD) as rom:
                assert rom.CHIP_NAME.lower().replace("-", "") == chip
                esp = esptool.cmds.run_stub(rom)
                esptool.cmds.attach_flash(esp)
                return esp.read_flash(offset, size)
        except esptool.util.FatalError:  # this machine is too busy for esptool's time-outs
            if not left:
                raise
    return None


def flash_one(flash_it, port):
    """As the command does it, with other tries; what it gave."""
    with view(Console(file=io.StringIO())) as lines:
        (outcome,) = fleet.run_all([port], flash_it, lines, first_pause_s=0.1)
    assert outcome.is_good, outcome.error
    return outcome.result


@pytest.mark.parametrize("chip", CHIPS)
def test_a_chip_gets_its_image_at_its_place(tmp_path, esp_images, chip) -> None:
    with MockEsp(tmp_path, "ttyUSB0", chip) as esp:
        done = flash_one(flashing(esp_images, esp.port), esp.port)
        assert (done["chip"], done["image"]) == (chip, f"{chip}.bin")
        flash = BOARDS[done["board"]].flash
        data = esp_images[chip].data
        assert flash_content(esp.port, chip, flash.offset, len(data)) == data


def test_many_chips_at_once_each_with_a_line_of_its_own(tmp_path, esp_images) -> None:
    told = {}

    class Lines:
        def board(self, name):
            def tell(stage, fraction=None):
                told.setdefault(name, []).append((stage, fraction))

            return tell

        def ended(self, name, words, *, is_good):
            told[name].append((words, is_good))

    with ExitStack() as stack:
        boards = [
            stack.enter_context(MockEsp(tmp_path, f"ttyUSB{number}", CHIPS[number % 3]))
            for number in range(4)
        ]
        ports = [board.port for board in boards]
        outcomes = fleet.run_all(ports, flashing(esp_images, *ports), Lines(), workers=4)
    for board, outcome in zip(boards, outcomes, strict=True):
        assert outcome.is_good, outcome.error
        assert outcome.result["chip"] == board.chip
        fractions = [f for stage, f in told[board.port] if stage == "writing"]
        assert len(fractions) > 3
        assert fractions[-1] == 1.0
        # Another try begins at nought; within one it only grows, whatever the others do.
        begun = len(fractions) - 1 - fractions[::-1].index(0.0)
        assert fractions[begun:] == sorted(fractions[begun:])


def test_a_cable_pulled_while_writing_is_tried_again_more_slowly(tmp_path, esp_images) -> None:
    with MockEsp(tmp_path, "ttyUSB0", "esp32c3") as esp:
        flash_it = flashing(esp_images, esp.port)
        shown = io.StringIO()

        def once_cut(port, attempt, tell):
            def cutting(stage, fraction=None):
                tell(stage, fraction)
                if attempt == 0 and stage == "writing" and fraction > 0.4:
                    esp.replug()

            return flash_it(port, attempt, cutting)

        with view(Console(file=shown, width=200)) as lines:
            (outcome,) = fleet.run_all([esp.port], once_cut, lines, tries=5, first_pause_s=0.01)
        assert outcome.is_good, outcome.error
        assert outcome.tries >= 2
        assert outcome.result["baud"] < 460_800
        assert "broke off" in shown.getvalue()
        assert "plug the cable in again" in shown.getvalue()


def test_a_chip_that_does_not_answer_says_what_to_hold(tmp_path, esp_images, monkeypatch) -> None:
    monkeypatch.setattr("tools.devices.esp.CONNECT_ATTEMPTS", 1)
    program = tmp_path / "deaf"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with (
        PtyBoard(tmp_path / "flash", program) as board,
        pytest.raises(SilentError, match=r"no boot loader answers.*hold BOOT, press and let go"),
    ):
        flashing(esp_images, board.port, asked="esp32-devkit")(board.port, 0, whisper)


def test_the_wrong_chip_is_refused_before_anything_is_written(tmp_path, esp_images) -> None:
    with MockEsp(tmp_path, "ttyUSB0", "esp32s3") as esp:
        others = [esp_images["esp32"], esp_images["esp32c3"]]
        with pytest.raises(ImageError, match=r"take ESP32_GENERIC_S3-DATE-VERSION\.bin"):
            flashing(others, esp.port)(esp.port, 0, whisper)
        with pytest.raises(BoardError, match="is an ESP32-S3, no esp32-c3; leave --board out"):
            flashing(esp_images, esp.port, asked="esp32-c3")(esp.port, 0, whisper)
        blank = flash_content(esp.port, "esp32s3", 0, 4096)
        assert blank == b"\xff" * 4096
        assert flash_one(flashing(esp_images, esp.port, erase=True), esp.port)["erased"] is True


def test_a_port_that_is_not_there_or_of_no_known_kind(tmp_path, esp_images) -> None:
    gone = str(tmp_path / "ttyUSB9")
    with pytest.raises(work.DeviceError, match="plug the board in"):
        flashing(esp_images, gone, asked="esp32-devkit")(gone, 0, whisper)
    with pytest.raises(work.DeviceError, match="plug the board in"):
        flashing(esp_images)(gone, 0, whisper)
    there = tmp_path / "ttyUSB8"
    there.touch()
    with pytest.raises(BoardError, match=r"what kind of board is there; .*--board: esp32-c3, esp"):
        flashing(esp_images)(str(there), 0, whisper)
    with pytest.raises(UsageError, match="--board unix: is no board that is flashed"):
        flashing(esp_images, asked="unix")


# Picos


def test_a_pico_takes_its_image_and_restarts(tmp_path, image) -> None:
    for name, family, data in (
        ("RPI-RP2", 0xE48BFF56, uf2(CONTENT)),
        ("RP2350", RP2350_ARM_S, uf2_rp2350(CONTENT)),
    ):
        with FakeDrive(tmp_path / name, family) as fake:
            port = str(fake.root)
            fractions = []

            def tell(stage, fraction=None, told=fractions):
                told.append(fraction)

            done = flashing([image(data, f"{name}.uf2")])(port, 0, tell)
            assert done["by"] == "drive"
            assert fake.flash == data
            assert fractions[-1] == 1.0


def test_the_wrong_image_never_reaches_a_drive(tmp_path, image) -> None:
    with FakeDrive(tmp_path / "RPI-RP2") as fake:
        with pytest.raises(ImageError, match=r"is for RP2350.*take .*RPI_PICO-DATE-VERSION"):
            flashing([image(uf2_rp2350(CONTENT), "a.uf2")])(str(fake.root), 0, whisper)
        assert [path.name for path in fake.root.iterdir()] == ["INFO_UF2.TXT"]
        both = [
            image(uf2(BOARDS[board].machine.encode() + b"\0"), f"{board}.uf2")
            for board in ("pico", "pico-w")
        ]
        with pytest.raises(BoardError, match=r"pico-w or a pico; .* or say --board"):
            flashing(both)(str(fake.root), 0, whisper)
        done = flashing(both, asked="pico-w")(str(fake.root), 0, whisper)
        assert done["image"] == "pico-w.uf2"


def test_a_cable_pulled_at_every_chunk_of_the_copy(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(drives, "CHUNK_BYTES", 16 * 1024)
    data = uf2(CONTENT)
    chunks = -(-len(data) // (16 * 1024))
    assert chunks > 5
    real = os.write

    class Cut:
        """The system's calls; the `at`-th write finds the device gone."""

        def __init__(self, fake, at):
            self._fake, self._left = fake, at

        def __getattr__(self, name):
            return getattr(os, name)

        def write(self, descriptor, chunk):
            self._left -= 1
            if self._left == 0:
                real(descriptor, chunk[: len(chunk) // 2])
                raise OSError(errno.EIO, "Input/output error")
            return real(descriptor, chunk)

    for at in range(1, chunks + 1):
        with FakeDrive(tmp_path / f"drive{at}") as fake:
            monkeypatch.setattr(drives, "os", Cut(fake, at))
            with pytest.raises(CableError, match="plug the board in again with BOOTSEL held"):
                copy_image(read_drive(fake.root), data, lambda done, of: None)
            monkeypatch.setattr(drives, "os", os)
            assert fake.flash is None
            copy_image(read_drive(fake.root), data, lambda done, of: None)
            assert fake.flash == data


def test_a_board_that_restarts_before_the_last_sync_has_taken_all(tmp_path, monkeypatch) -> None:
    class Gone:
        def __getattr__(self, name):
            return getattr(os, name)

        def fsync(self, descriptor):
            os.fsync(descriptor)
            if os.fstat(descriptor).st_size == len(data):
                raise OSError(errno.ENODEV, "No such device")

    data = uf2(CONTENT)
    monkeypatch.setattr(drives, "os", Gone())
    with FakeDrive(tmp_path / "RPI-RP2") as fake:
        copy_image(read_drive(fake.root), data, lambda done, of: None)
        assert fake.flash == data


def test_a_drive_that_does_not_go_says_what_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(drives, "GONE_TIMEOUT_S", 0.3)
    told = pytest.raises(ImageError, match="has not restarted; unplug it, hold BOOTSEL")
    with FakeDrive(tmp_path / "RPI-RP2", deaf=True) as fake, told:
        copy_image(read_drive(fake.root), uf2(CONTENT), lambda done, of: None)


MACHINE = """
def unique_id():
    return b"\\x01\\x02"
def bootloader():
    open("bootsel", "w").close()
    import sys
    sys.exit()
"""


def test_a_running_pico_becomes_a_drive_by_itself(tmp_path, image, micropython) -> None:
    made = image(uf2(CONTENT), "pico.uf2")
    with PtyBoard(tmp_path / "flash", micropython) as board, ExitStack() as stack:
        (board.directory / "machine.py").write_text(MACHINE)
        other = stack.enter_context(FakeDrive(tmp_path / "drives" / "other"))
        made_drive = []

        def now():
            if (board.directory / "bootsel").exists() and not made_drive:
                made_drive.append(stack.enter_context(FakeDrive(tmp_path / "drives" / "mine")))
            return find_drives((tmp_path / "drives").iterdir)

        bootsel = pico.Bootsel(drives=now, timeout_s=60)
        flash_it = work.flashing([made], BOARDS, "pico", [], erase=False, bootsel=bootsel)
        done = flash_it(board.port, 0, whisper)
        assert (done["board"], done["by"]) == ("pico", "drive")
        # Its own drive, not the one that another board shows.
        assert made_drive[0].flash == made.data
        assert other.flash is None


def test_a_running_pico_whose_drive_nobody_mounts(tmp_path, image, micropython) -> None:
    with PtyBoard(tmp_path / "flash", micropython) as board:
        (board.directory / "machine.py").write_text(MACHINE)
        bootsel = pico.Bootsel(drives=list, timeout_s=0.3)
        images = [image(uf2(CONTENT), "pico.uf2")]
        flash_it = work.flashing(images, BOARDS, "pico", [], erase=False, bootsel=bootsel)
        with pytest.raises(
            SilentError, match=r"no drive RPI-RP2 has appeared; mount it \(udisksctl"
        ):
            flash_it(board.port, 0, whisper)


PICOTOOL = """#!/bin/sh
echo "$@" > {log}
cp "$4" {flash}
exit {code}
"""


def test_picotool_where_there_is_no_drive(tmp_path, image, monkeypatch) -> None:
    made = image(uf2(CONTENT), "pico.uf2")
    monkeypatch.setattr(pico, "bootsel_on_usb", lambda boards: [("usb:1-23", "2e8a:0003")])
    flash_it = flashing([made], asked="pico")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=None)
    with pytest.raises(SilentError, match=r"picotool is not installed; .*install picotool"):
        flash_it("usb:1-23", 0, whisper)
    program = tmp_path / "picotool"
    log, flash = tmp_path / "log", tmp_path / "flash"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for code in (0, 249):
        program.write_text(PICOTOOL.format(log=log, flash=flash, code=code))
        program.chmod(0o755)
        if code:
            with pytest.raises(CableError, match="picotool says"):
                flash_it("usb:1-23", 0, whisper)
            continue
        assert flash_it("usb:1-23", 0, whisper)["by"] == "picotool"
        words = log.read_text().split()
        assert words[:3] == ["load", "--verify", "--execute"]
        assert words[4:] == ["--bus", "1", "--address", "23"]
        assert flash.read_bytes() == made.data
    with pytest.raises(SilentError, match="no Pico in BOOTSEL is there"):
        flash_it("usb:1-99", 0, whisper)
