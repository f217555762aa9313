"""ELM327: what a car says of itself over OBD-II, over a UART.

Elm Electronics, ELM327 data sheet (ELM327DSL): AT commands, interpreting responses, error
messages. SAE J1979 / ISO 15031-5, service 01: 0x05 coolant temperature, 0x0C engine speed, 0x0D
vehicle speed, 0x5C engine oil temperature.

A car whose ignition is off answers nothing: that is `no-data`, and the search for its bus goes
on. The search takes seconds; it is begun and looked after, not waited for.
"""

from time import sleep_ms, ticks_diff, ticks_ms

from fogline import board
from fogline.errors import SensorFault

from .base import Channel

BAUDRATE = 38_400
# An adapter answers an AT command at once; ATZ (as its power-on test) takes up to 1 s.
COMMAND_MS = 300
RESET_MS = 1500
ANSWER_MS = 400  # of all control units; usually within 50 to 200 ms
SEARCH_MS = 15_000  # through all protocols, the slow ones included
MAX_ANSWER_BYTES = 256
_SETTINGS = (
    b"ATE0",  # no echo
    b"ATL0",  # no line feeds
    b"ATS0",  # no spaces
    b"ATH0",  # no headers
    b"ATAT1",  # waits as long as this car usually takes
    b"ATSP0",  # finds the protocol itself
)
_SEARCH = b"0100"
_QUIET = ("NO DATA", "UNABLE TO CONNECT", "STOPPED", "BUS INIT")
# PID, bytes of its value, and the value from them.
_PIDS = (
    (0x0C, 2, lambda data: (data[0] << 8 | data[1]) / 4),
    (0x0D, 1, lambda data: float(data[0])),
    (0x05, 1, lambda data: data[0] - 40.0),
    (0x5C, 1, lambda data: data[0] - 40.0),
)


class Sensor:
    """See `sensor.py` for the shape."""

    REQUIRED = ("bus",)
    OPTIONAL = ("baudrate",)
    channels = (
        Channel("engine_speed", "/min", 0.0, 16_383.75),
        Channel("speed", "km/h", 0.0, 255.0),
        Channel("coolant", "Cel", -40.0, 215.0),
        Channel("oil", "Cel", -40.0, 210.0),
    )

    def __init__(self, where, options):
        from fogline.checks import check_integer

        self._uart_name = options["bus"]
        self._baudrate = options.get("baudrate", BAUDRATE)
        check_integer(where + ".baudrate", self._baudrate, 9600, 500_000)
        board.claim(where + ".bus", "uart", self._uart_name)

    def open(self):
        """Reset the adapter and let it look for the car."""
        self._uart = board.get("uart", self._uart_name, self._baudrate)
        banner = self._ask(b"ATZ", RESET_MS)
        if "ELM327" not in banner:
            raise SensorFault("absent", "no ELM327")
        for setting in _SETTINGS:
            if "OK" not in self._ask(setting, COMMAND_MS):
                raise SensorFault("no-data", setting.decode())
        self._search()

    def _search(self):
        self._empty()
        self._uart.write(_SEARCH + b"\r")
        self._found = False
        self._heard = b""
        self._begin_ms = ticks_ms()
        # One after the other: what a car does not know costs a wait each time.
        self._unknown = [0] * len(_PIDS)

    def sample(self):
        """Return [/min, km/h, Cel, Cel], None for what this car does not say."""
        if not self._found:
            self._look()
        values = []
        for index, (pid, size, convert) in enumerate(_PIDS):
            data = None if self._unknown[index] >= 3 else self._value(pid, size)
            values.append(None if data is None else convert(data))
            if data is not None:
                self._unknown[index] = 0
            elif self._unknown[index] < 3:
                self._unknown[index] += 1
        if all(value is None for value in values):
            self._search()
            raise SensorFault("no-data", "the car has stopped answering", reopen=False)
        return values

    def _look(self):
        """See whether the search is over; raises SensorFault while it is not, or has failed."""
        while self._uart.any() and len(self._heard) < MAX_ANSWER_BYTES:
            self._heard += self._uart.read(self._uart.any()) or b""
        if b">" not in self._heard:
            if len(self._heard) >= MAX_ANSWER_BYTES:
                raise SensorFault("crc", "a long answer")
            if ticks_diff(ticks_ms(), self._begin_ms) >= SEARCH_MS:
                raise SensorFault("timeout")
            raise SensorFault("no-data", "looks for the car", reopen=False)
        if b"4100" not in self._heard:
            self._search()
            raise SensorFault("no-data", "no car", reopen=False)
        self._found = True

    def _value(self, pid, size):
        """Return the bytes of one value, or None where the car says nothing to this."""
        answer = self._ask(f"01{pid:02X}".encode(), ANSWER_MS)
        if any(word in answer for word in _QUIET):
            return None
        if "ERROR" in answer or "?" in answer:
            raise SensorFault("bus", answer.strip()[:16])
        mark = f"41{pid:02X}"
        for line in answer.split("\r"):
            # Of several control units the first one's.
            if line.startswith(mark) and len(line) >= len(mark) + 2 * size:
                try:
                    return bytes.fromhex(line[len(mark) : len(mark) + 2 * size])
                except ValueError:
                    break
        raise SensorFault("crc", "an answer that is none")

    def _ask(self, command, timeout_ms):
        """Return what stands before the prompt; raises SensorFault `absent` or `timeout`."""
        self._empty()
        self._uart.write(command + b"\r")
        answer = b""
        begin = ticks_ms()
        while b">" not in answer:
            answer += self._uart.read(MAX_ANSWER_BYTES) or b""
            if len(answer) > MAX_ANSWER_BYTES:
                raise SensorFault("crc", "a long answer")
            if ticks_diff(ticks_ms(), begin) >= timeout_ms:
                raise SensorFault("timeout" if answer else "absent")
            if b">" not in answer:
                sleep_ms(1)
        # The data sheet: a 0x00 may be inserted anywhere, and is to be ignored.
        kept = bytes(byte for byte in answer.split(b">")[0] if 0 < byte < 128)
        return kept.decode()

    def _empty(self):
        stale = 0
        while self._uart.any() and stale < 2 * MAX_ANSWER_BYTES:
            stale += len(self._uart.read(self._uart.any()) or b"")

    def close(self):
        """Nothing has to be let go."""
