"""A Pico in rp2040py, with MicroPython's image: targets `pico-emu`, `pico-emu:pico-w`.

The image is one that the user names, or else that of `make pico`.

Known of rp2040py 0.3.6: about 6 million instructions a second, so that a board's second takes many
of ours; sleeping takes long, too, for its USB is never idle; `machine.UART` can hang,
`machine.unique_id` is all ones, and `I2C.scan` finds nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tools.devices.errors import PortError
from tools.devices.line import SerialLine
from tools.devices.uf2 import RP2040, read_uf2
from tools.errors import ToolError, UsageError
from tools.hil import build_pico
from tools.hil.pico_process import BOARDS, FLASH_BYTES, HOST
from tools.hil.repl_target import ReplTarget
from tools.hil.target import Capability, TargetError

__all__ = ["PicoEmulatorTarget", "check_image"]

PACKAGE = "rp2040py"
INSTALL = "python -m pip install '.[emulator]' in Fogline's folder"
REMEDY = "end this run and start it again; name another image with --firmware"
ROOT = Path(__file__).resolve().parents[2]
START_S = 180.0
STOP_S = 20.0
# How much longer than a real board's an answer may take.
PATIENCE = 10.0
MAX_IMAGE_BYTES = 4 * FLASH_BYTES  # a block of 512 bytes holds 256 of the image
_MAX_SAID = 2000


def check_image(image: Path | None) -> bytes:
    """Read an image and look whether a Pico can run it. Raises UsageError, TargetError."""
    if image is None:
        raise UsageError(
            "pico-emu has no image: run `make pico`, which builds one, or name one with --firmware "
            "RPI_PICO-....uf2, from MicroPython's downloads for the Raspberry Pi Pico"
        )
    try:
        if image.stat().st_size > MAX_IMAGE_BYTES:
            raise TargetError(f"{image}: is larger than a Pico's flash; name an image for RP2040")
        data = image.read_bytes()
    except OSError as error:
        raise TargetError(
            f"{image}: {error.strerror}; name a UF2 file that is there with --firmware"
        ) from error
    try:
        family = read_uf2(data, image.name).family
    except ToolError as error:
        raise TargetError(f"{error}; name a MicroPython image for RP2040") from error
    if family != RP2040:
        raise TargetError(f"{image}: is for another chip; name a MicroPython image for RP2040")
    return data


class PicoEmulatorTarget(ReplTarget):
    """An emulated Pico. Its flash is a file in `folder`, a temporary one if none is named.

    Raises UsageError, TargetError.
    """

    patience = PATIENCE

    def __init__(
        self,
        image: Path | None,
        *,
        board: str = "pico",
        folder: Path | None = None,
        start_s: float = START_S,
    ) -> None:
        if board not in BOARDS:
            raise UsageError(f"pico-emu emulates {', '.join(BOARDS)}, not {board}")
        self._name = "pico-emu" if board == "pico" else f"pico-emu:{board}"
        self._board = board
        image = image or build_pico.built()
        digest = hashlib.sha256(check_image(image)).hexdigest()
        assert image is not None
        self._image = image.resolve()
        if importlib.util.find_spec(PACKAGE) is None:
            raise TargetError(f"pico-emu needs the package {PACKAGE}; run {INSTALL}")
        self._start_s = start_s
        self._process: subprocess.Popen[bytes] | None = None
        self._temporary = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="fogline-pico-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        # Another image starts on a flash of its own: what one keeps there means nothing to another.
        self._flash = self._folder / f"flash-{digest[:16]}.bin"
        try:
            super().__init__(self._name, self._power_on(), REMEDY)
            self.probe(Capability.POWER)
        except BaseException:
            self.close()
            raise

    def _power_on(self) -> SerialLine:
        command = [
            sys.executable, "-m", "tools.hil.pico_process",
            str(self._image), str(self._flash), self._board, str(self._start_s),
        ]  # fmt: skip
        log = self._folder / "emulator.log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file
            )
        said = self._first_line(self._process, self._start_s + STOP_S)
        try:
            port = int(json.loads(said)["port"])
        except (ValueError, KeyError, TypeError) as error:
            why = log.read_text("utf-8", "replace").strip()[-_MAX_SAID:] or "it ended"
            raise TargetError(
                f"{self._name}: {self._image.name} did not start: {why}; {REMEDY}"
            ) from error
        try:
            return SerialLine(f"socket://{HOST}:{port}")
        except PortError as error:
            raise TargetError(f"{self._name}: no console: {error.what}; {REMEDY}") from error

    @staticmethod
    def _first_line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
        """Read the process's first line; nothing of it where that takes too long."""
        assert process.stdout is not None
        timer = threading.Timer(timeout_s, process.kill)
        timer.start()
        try:
            return process.stdout.readline()
        finally:
            timer.cancel()

    def _power_off(self) -> None:
        line = getattr(self, "_line", None)
        if line is not None:
            line.close()
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def power_cut(self) -> None:
        """As Target: the emulator ends between two instructions, and starts on the same flash."""
        self._power_off()
        super().__init__(self._name, self._power_on(), REMEDY)

    def close(self) -> None:
        """As Target."""
        self._power_off()
        if self._temporary:
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder)
