"""Boards on a bench, made of pseudo-terminals: what a technician plugs in, without the hardware.

A `PtyBoard` is MicroPython's unix port in a directory that is its flash. The port that a program
opens is another pseudo-terminal, with a thread in between as the cable: so it can be unplugged
(the port is gone for whoever has it open) and the board loses its power in the same moment.
"""

import os
import select
import signal
import subprocess
import sys
import termios
import threading
import time
import tty
from pathlib import Path

from support.micropython import find_micropython
from tools.devices.errors import CableError
from tools.devices.line import SerialLine

HEAP = "2m"
START = Path(__file__).with_name("board_start.py")


class PtyBoard:
    """A board that runs MicroPython; `port` is where it is plugged in."""

    def __init__(self, directory, program=None):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._program = program or find_micropython()
        self._lock = threading.Lock()
        self._stopping = False
        self.starts = 0
        self.port = None
        self._plug()
        self._power()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def unplug(self):
        """The cable is out and in again: the port is another one, the board starts anew."""
        with self._lock:
            self._cut_power()
            self._unplug()
            self._plug()
            self._power()

    def reset(self):
        """The RESET button."""
        with self._lock:
            self._cut_power()
            self._power()

    def close(self):
        self._stopping = True
        self._thread.join(timeout=60)
        with self._lock:
            self._cut_power()
            self._unplug()

    def _plug(self):
        self._cable, self._socket = os.openpty()
        os.set_blocking(self._cable, False)
        tty.setraw(self._socket)
        self.port = os.ttyname(self._socket)

    def _unplug(self):
        for descriptor in (self._cable, self._socket):
            os.close(descriptor)

    def _power(self):
        self._board, terminal = os.openpty()
        os.set_blocking(self._board, False)
        self._pending = {}
        tty.setraw(terminal)
        # Ctrl-C interrupts a program, as it does on a bare board.
        modes = termios.tcgetattr(terminal)
        modes[3] |= termios.ISIG
        termios.tcsetattr(terminal, termios.TCSANOW, modes)

        self._process = subprocess.Popen(
            # As the terminal's own program, so that a Ctrl-C reaches it.
            ["setsid", "--ctty", self._program, "-X", f"heapsize={HEAP}", "-i", START],
            cwd=self.directory,
            env={**os.environ, "MICROPYPATH": ".:.frozen", "TERM": "dumb"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        self.starts += 1

    def _cut_power(self):
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # only just started: it has no group of its own yet, or ended
            self._process.kill()
        self._process.wait()
        os.close(self._board)

    def _carry(self):
        """Copy both ways. A side that takes nothing holds up the other end, and nobody else."""
        while not self._stopping:
            with self._lock:
                ends = {self._cable: self._board, self._board: self._cable}
                reading = [one for one in ends if not self._pending.get(ends[one])]
                writing = [one for one, data in self._pending.items() if data]
                readable, writable, _ = select.select(reading, writing, [], 0.02)
                for sink in writable:
                    try:
                        count = os.write(sink, self._pending[sink])
                    except BlockingIOError:
                        continue
                    except OSError:  # the board has just ended
                        count = len(self._pending[sink])
                    self._pending[sink] = self._pending[sink][count:]
                for source in readable:
                    try:
                        data = os.read(source, 4096)
                    except BlockingIOError:
                        continue
                    except OSError:  # nobody has the port open, or the board has ended
                        data = b""
                    if data:
                        self._pending[ends[source]] = data
                    elif source == self._board:
                        # As after a reset: it starts again.
                        self._cut_power()
                        self._power()
                        break


class CutLine:
    """A line that breaks at one of its writes, in the middle of it."""

    def __init__(self, board, at):
        self._board = board
        self._line = SerialLine(board.port)
        self._left = at

    @property
    def is_whole(self):
        return self._left > 0

    def read(self):
        return self._line.read()

    def write(self, data):
        self._left -= 1
        if self._left == 0:
            self._line.write(data[: len(data) // 2])
            self._board.unplug()
            raise CableError(f"{self._board.port}: the line broke (cut)", "plug it in again")
        self._line.write(data)

    def close(self):
        self._line.close()


class MockEsp:
    """An ESP32 in its boot loader (esp32-mock-bootloader), behind a port whose name stays."""

    def __init__(self, directory, name, chip):
        self.port = str(Path(directory, name))
        self.chip = chip
        self._file = Path(directory, f"{name}.path")
        self._process = None
        self.replug()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.unplug()

    def unplug(self):
        """Pull the cable: whatever was on its way is lost."""
        self._process.kill()
        self._process.wait()
        Path(self.port).unlink(missing_ok=True)

    def replug(self):
        """Plug it in, with an empty flash."""
        if self._process is not None:
            self.unplug()
        self._file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "esp32_mock_bootloader.cli", "run", "--pty"]
        command += ["--chip", self.chip, "--port-file", self._file, "--timeout", "120"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not (self._file.exists() and self._file.read_text().strip()):
            assert self._process.poll() is None, "the mock boot loader ended"
            assert time.monotonic() < deadline, "the mock boot loader does not start"
            time.sleep(0.01)
        Path(self.port).symlink_to(self._file.read_text().strip())
