"""Stands for MicroPython's module `machine`: pins and buses with nothing on them but wires.

A pin reads what was last written to it, its pull else; FOGLINE_MOCK_WIRES, `10-11 8-9`, says which
GPIOs are wired together. On a bus every address is ENODEV; what is written to a UART comes back
where its two pins are wired together, and is gone else. The board's start is
the process's: `reset` ends it with a status that says so, and the watchdog does when it is not fed.
"""

import errno
import os
import sys
import threading

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = range(1, 6)
_WIRES = {
    (int(one), int(other))
    for pair in os.environ.get("FOGLINE_MOCK_WIRES", "").split()
    for one, other in (pair.split("-"), pair.split("-")[::-1])
}
# The process ends with these.
STATUS_RESET, STATUS_WATCHDOG = 75, 76


def _end(status):
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def reset():
    """End this start of the board."""
    _end(STATUS_RESET)


soft_reset = reset


def reset_cause():
    """Say why the board started: a process always begins with power."""
    return PWRON_RESET


def unique_id():
    """Give the board's number: that of its flash folder, so that it stays the same."""
    return os.stat(".").st_ino.to_bytes(8, "big")


def freq(hertz=None):
    """Give a clock rate that a board could have."""
    return 125_000_000 if hertz is None else None


class Pin:
    """A pin, and whatever other is wired to it."""

    IN, OUT, OPEN_DRAIN = range(3)
    PULL_UP, PULL_DOWN = 1, 2
    IRQ_FALLING, IRQ_RISING = 1, 2
    _levels = {}
    _handlers = {}

    def __init__(self, number, mode=None, pull=None, value=None):
        self.number = number
        if value is None:
            Pin._levels.setdefault(number, int(pull == Pin.PULL_UP))
        else:
            self._drive(value)

    def _drive(self, level):
        """Set the level here and at the other ends; edges call the handlers there."""
        level = int(bool(level))
        for number in (self.number, *(other for one, other in _WIRES if one == self.number)):
            before, Pin._levels[number] = Pin._levels.get(number, 0), level
            handler, edges = Pin._handlers.get(number, (None, 0))
            edge = Pin.IRQ_RISING if level > before else Pin.IRQ_FALLING
            if handler is not None and level != before and edges & edge:
                handler(self)

    def value(self, level=None):
        """Read the level, or drive it."""
        if level is None:
            return Pin._levels[self.number]
        self._drive(level)
        return None

    __call__ = value

    def on(self):
        """Drive it high."""
        self.value(1)

    def off(self):
        """Drive it low."""
        self.value(0)

    def irq(self, handler=None, trigger=IRQ_FALLING | IRQ_RISING):
        """Call a handler at every such edge."""
        Pin._handlers[self.number] = (handler, trigger)


class I2C:
    """A bus without chips."""

    def __init__(self, number, scl=None, sda=None, freq=None, timeout=None):
        self.number = number

    def scan(self):
        """Find nobody."""
        return []

    def _nobody(self, *_arguments):
        raise OSError(errno.ENODEV, "no chip answers")

    readfrom_mem = writeto_mem = readfrom = writeto = readfrom_mem_into = _nobody


SoftI2C = I2C


class SPI:
    """A bus whose input is low."""

    def __init__(self, number, **settings):
        self.number = number

    def write(self, data):
        """Send into nothing."""

    def read(self, count, write=0):
        """Read as many zeros."""
        return bytes(count)


class UART:
    """A port with nothing behind it, or its own output where its pins are wired together."""

    def __init__(self, number, tx=None, rx=None, **settings):
        self.number = number
        self._loopback = tx is not None and rx is not None and (tx.number, rx.number) in _WIRES
        self._waiting = b""

    def any(self):
        """How many bytes wait."""
        return len(self._waiting)

    def read(self, count=None):
        """Up to `count` bytes, None where there are none."""
        count = len(self._waiting) if count is None else count
        data, self._waiting = self._waiting[:count], self._waiting[count:]
        return data or None

    def write(self, data):
        """Send."""
        if self._loopback:
            self._waiting += bytes(data)
        return len(data)


class ADC:
    """A converter whose input is at ground."""

    ATTN_11DB = 3

    def __init__(self, pin, atten=None):
        self.pin = pin

    def read_u16(self):
        """Of 65535."""
        return 0

    def read_uv(self):
        """In microvolts."""
        return 0


class WDT:
    """A watchdog; `timeout` in ms. Once begun it does not stop."""

    def __init__(self, id=0, timeout=5000):
        self._seconds = timeout / 1000
        self._timer = None
        self.feed()

    def feed(self):
        """Begin anew."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self._seconds, _end, (STATUS_WATCHDOG,))
        self._timer.daemon = True
        self._timer.start()


def time_pulse_us(pin, level, timeout_us=1_000_000):
    """No pulse comes: -2, as on a board whose pin does not reach the level."""
    return -2
