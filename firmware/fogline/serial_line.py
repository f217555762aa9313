"""The serial line itself: where its bytes go and come from, and the frames on it.

`open_line` gives the line that board.json asks for: `stdio`, the USB or UART console that
MicroPython's prompt is on, or `uart`, a UART of its own. `Wire` puts frames on it and takes them
off. Nothing here waits: what the line does not take now stays, within bounds.
"""

import time

from . import board, serial_frame
from .serial_frame import CONSOLE, LINK

READ_BYTES = 256
# Little at a time: a terminal that says it has room may have no more than this.
WRITE_BYTES = 64
# A frame's bytes do not pause so long: what came before the pause is the rest of a broken one.
PAUSE_MS = 200
MAX_CONSOLE_BYTES = 2048
UART_BUFFER_BYTES = 2048
# What a terminal sends to end a program: mpremote's, and two Ctrl-C of a person.
_INTERRUPTS = (b"\r\x03", b"\x03\x03")
_INTERRUPT = 0x03


def open_line(settings):
    """Open the line of the `serial` section of board.json."""
    return Uart(settings.uart) if settings.port == "uart" else Stdio()


class Stdio:
    """Standard input and output, without the Ctrl-C that would end the program.

    One byte at a time: on a board, reading more would wait for all of them.
    """

    carries_console = True

    def __init__(self):
        import select
        import sys

        import micropython

        self._micropython = micropython
        self._in = sys.stdin.buffer
        self._out = sys.stdout.buffer
        self._readable = select.poll()
        self._readable.register(sys.stdin, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(sys.stdout, select.POLLOUT)
        micropython.kbd_intr(-1)

    def read(self, most):
        """Return what has come, up to `most` bytes; not beyond a Ctrl-C, which ends a frame."""
        data = bytearray()
        try:
            while len(data) < most and self._readable.poll(0):
                byte = self._in.read(1)
                if not byte:
                    break
                data += byte
                if byte[0] == _INTERRUPT:
                    break
        except OSError:
            pass  # nobody holds the other end; somebody may again
        return bytes(data)

    def write(self, data):
        """Return how many bytes of `data` the line has taken."""
        try:
            if self._writable.poll(0):
                return self._out.write(data[:WRITE_BYTES]) or 0
        except OSError:
            pass  # as above
        return 0

    def close(self):
        """Give Ctrl-C its meaning back."""
        self._micropython.kbd_intr(_INTERRUPT)


class Uart:
    """A UART of its own; the console stays where it is.

    Args:
        settings: bus and baud of board.json.
    """

    carries_console = False

    def __init__(self, settings):
        self._uart = board.get("uart", settings.bus, settings.baud, UART_BUFFER_BYTES)

    def read(self, most):
        """Return what has come, up to `most` bytes."""
        return self._uart.read(most) or b""

    def write(self, data):
        """Return how many bytes of `data` the line has taken."""
        return self._uart.write(data[:WRITE_BYTES]) or 0

    def close(self):
        """Free the UART."""
        self._uart.deinit()


class Wire:
    """Frames on a line: link packets, and between them the console's lines.

    Args:
        line: Stdio or Uart.
        max_body_bytes: of the frames that are taken in.
        interrupts: whether Ctrl-C, outside of any frame, ends the program.
    """

    def __init__(self, line, max_body_bytes, interrupts):
        self._line = line
        self._decoder = serial_frame.Decoder(max_body_bytes)
        self._interrupts = interrupts and line.carries_console
        self._out = b""  # the rest of a frame that is being written
        self._console = []
        self._console_bytes = 0
        self._console_first = False
        self._read_ms = time.ticks_ms()
        self.carries_console = line.carries_console
        self.dropped = 0  # console lines for which the line was too slow
        self.session = None  # of the link, once there is one

    @property
    def noise(self):
        """How many bytes belonged to no frame."""
        return self._decoder.noise

    def print(self, text):
        """Queue a line of the console; dropped and counted where too many wait."""
        data = (text + "\n").encode()
        if self._console_bytes + len(data) > MAX_CONSOLE_BYTES and self._console:
            self.dropped += 1
            return
        for start in range(0, len(data), serial_frame.MAX_BODY_BYTES):
            self._console.append(data[start : start + serial_frame.MAX_BODY_BYTES])
        self._console_bytes += len(data)

    def read(self):
        """Return the link packets that have come; raises KeyboardInterrupt on a lone Ctrl-C."""
        data = self._line.read(READ_BYTES)
        if not data:
            return ()
        now = time.ticks_ms()
        if time.ticks_diff(now, self._read_ms) > PAUSE_MS:
            self._decoder.drop()
        self._read_ms = now
        frames = self._decoder.feed(data)
        if self._interrupts and self._decoder.held in _INTERRUPTS:
            raise KeyboardInterrupt
        return [body for channel, body in frames if channel == LINK]

    def write(self, next_packet):
        """Write what the line takes now; returns whether it took anything.

        `next_packet()` gives the link's next packet or None; the console has its turn between.
        """
        moved = False
        while True:
            if not self._out:
                self._out = self._next_frame(next_packet)
                if not self._out:
                    return moved
            count = self._line.write(self._out)
            if not count:
                return moved
            moved = True
            self._out = self._out[count:]

    def _next_frame(self, next_packet):
        if not (self._console_first and self._console):
            self._console_first = True
            packet = next_packet()
            if packet is not None:
                return serial_frame.encode(LINK, packet)
        self._console_first = False
        if not self._console:
            return b""
        text = self._console.pop(0)
        self._console_bytes -= len(text)
        return serial_frame.encode(CONSOLE, text)

    def close(self, timeout_ms):
        """Say goodbye and what the console has left to say, and give the line back.

        A gateway that is not told goes on talking for a while, into the prompt.
        """
        session = self.session

        def next_packet():
            return None if session is None else session.next_packet(0)

        if session is not None:
            session.close("this board", 0, session.FOR_EVER_MS)
        until = time.ticks_add(time.ticks_ms(), timeout_ms)
        while self.write(next_packet) or self._out or self._console:
            if time.ticks_diff(until, time.ticks_ms()) < 0:
                break
            time.sleep_ms(1)
        self._line.close()
