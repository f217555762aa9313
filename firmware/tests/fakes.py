"""A `machine` whose pins and buses end in fake devices, and a `time` that passes when asked.

`install` puts both where the drivers look for them; import drivers of sensors only behind it.
"""

import sys

TICK_US = 20  # what asking for the time takes
_PERIOD = 1 << 29


def as_module(thing, *names):
    """Let `from thing import name` work: before 1.28 not for methods, only for what it holds."""
    for name in names:
        setattr(thing, name, getattr(thing, name))


class Time:
    """Stands for the module `time`: sleeping passes the time and nothing else."""

    def __init__(self):
        self.us = 1_000_000
        self._wakers = []
        as_module(self, "ticks_us", "ticks_ms", "ticks_add", "ticks_diff", "sleep_us", "sleep_ms")

    def pass_us(self, us):
        """Let time pass, and everything happen that was due meanwhile."""
        end = self.us + us
        while self._wakers and min(self._wakers)[0] <= end:
            waker = min(self._wakers)
            self._wakers.remove(waker)
            self.us = max(self.us, waker[0])
            waker[2]()
        self.us = end

    def at(self, us, action):
        """Call `action` once the clock shows `us`."""
        self._wakers.append((us, len(self._wakers), action))

    def ticks_us(self):
        self.pass_us(TICK_US)
        return self.us % _PERIOD

    def ticks_ms(self):
        self.pass_us(TICK_US)
        return self.us // 1000 % _PERIOD

    def ticks_add(self, ticks, delta):
        return (ticks + delta) % _PERIOD

    def ticks_diff(self, end, start):
        return (end - start + _PERIOD // 2) % _PERIOD - _PERIOD // 2

    def sleep_us(self, us):
        self.pass_us(us)

    def sleep_ms(self, ms):
        self.pass_us(1000 * ms)


clock = Time()


class Pin:
    """A pin: `levels` holds what the world drives, by GPIO number; 0 where nobody does."""

    IN, OUT, OPEN_DRAIN, PULL_UP, PULL_DOWN, IRQ_RISING = range(6)
    levels = {}
    handlers = {}
    watchers = {}

    def __init__(self, number, mode=None, pull=None, value=None):
        self.number = number
        if pull == Pin.PULL_UP:
            Pin.levels.setdefault(number, 1)
        if value is not None:
            Pin.levels[number] = value

    def value(self, level=None):
        if level is None:
            return Pin.levels.get(self.number, 0)
        Pin.levels[self.number] = level
        if self.number in Pin.watchers:
            Pin.watchers[self.number](level)
        return None

    def irq(self, handler, trigger=None):
        Pin.handlers[self.number] = handler

    @classmethod
    def pulse(cls, number):
        """A rising edge from outside."""
        handler = cls.handlers.get(number)
        if handler is not None:
            now = clock.us
            handler(None)
            clock.us = now  # an interrupt takes no time here


class I2C:
    """A bus; `chips` holds the fake chips by address. One that is not there is ENODEV."""

    chips = {}

    def __init__(self, number, scl=None, sda=None, freq=None, timeout=None):
        self.number = number

    def _chip(self, address):
        clock.pass_us(100)
        if address not in I2C.chips:
            raise OSError(19, "ENODEV")
        return I2C.chips[address]

    def readfrom_mem(self, address, register, count):
        return self._chip(address).read(register, count)

    def writeto_mem(self, address, register, data):
        self._chip(address).write(register, data)

    def readfrom(self, address, count):
        return self._chip(address).read(None, count)

    def writeto(self, address, data):
        self._chip(address).write(None, data)


class UART:
    """A port; `device` takes what is written and gives what is read."""

    device = None

    def __init__(self, number, **settings):
        self.number = number
        self._received = b""

    def _pump(self):
        clock.pass_us(50)
        if UART.device is not None:
            self._received += UART.device.give()

    def any(self):
        self._pump()
        return len(self._received)

    def read(self, count):
        self._pump()
        data, self._received = self._received[:count], self._received[count:]
        return data or None

    def write(self, data):
        clock.pass_us(1000 * len(data))
        if UART.device is not None:
            UART.device.take(data)


class SPI:
    """A bus with one device on it."""

    device = None

    def __init__(self, number, **settings):
        self.number = number

    def write(self, data):
        clock.pass_us(10 * len(data))
        if SPI.device is not None:
            SPI.device.write(data)

    def read(self, count):
        clock.pass_us(10 * count)
        return bytes(count) if SPI.device is None else SPI.device.read(count)


class ADC:
    """A converter; `volts` holds what is at each GPIO."""

    ATTN_11DB = 3
    volts = {}

    def __init__(self, pin, atten=None):
        self.number = pin.number

    def read_u16(self):
        return min(65535, int(ADC.volts.get(self.number, 0) / 3.3 * 65535))

    def read_uv(self):
        return int(ADC.volts.get(self.number, 0) * 1_000_000)


class Machine:
    """Stands for the module `machine`."""

    Pin, I2C, UART, SPI, ADC = Pin, I2C, UART, SPI, ADC
    echo_us = None  # how long the next pulse on a pin lasts; None: none comes

    # Static, so that it can be imported: before MicroPython 1.28 no method can.
    @staticmethod
    def time_pulse_us(pin, level, timeout_us):
        echo_us = Machine.echo_us
        if echo_us is None:
            clock.pass_us(timeout_us)
            return -2
        if echo_us > timeout_us:
            clock.pass_us(timeout_us)
            return -1
        clock.pass_us(echo_us)
        return echo_us


# The drivers' own modules take these names when they are imported.
sys.modules["time"] = clock
sys.modules["machine"] = Machine


def reset(board_name="pico"):
    """Unplug everything, and be another board."""
    from fogline import board

    for table in (Pin.levels, Pin.handlers, Pin.watchers, I2C.chips, ADC.volts):
        table.clear()
    UART.device = SPI.device = Machine.echo_us = None
    board.select(board_name)


class Registers:
    """A chip of byte-wide registers that only keeps them."""

    def __init__(self, **contents):
        self.bytes = bytearray(256)
        self.written = []

    def read(self, register, count):
        return bytes(self.bytes[register : register + count])

    def write(self, register, data):
        self.written.append((register, bytes(data)))
        self.bytes[register : register + len(data)] = data

    def put(self, register, *values):
        """Set registers from outside."""
        self.bytes[register : register + len(values)] = bytes(values)


def made(name, **options):
    """A sensor of this kind, opened; `where` is its settings' name."""
    sensor = new(name, **options)
    sensor.open()
    return sensor


def new(name, **options):
    """A sensor of this kind, not opened."""
    module = __import__("drivers." + name, None, None, ("Sensor",))
    return module.Sensor("config", options)


def fault(function):
    """Return the code of the SensorFault or OSError that the call raises."""
    from drivers.sensor import fault_of
    from fogline.errors import SensorFault

    try:
        function()
    except SensorFault as error:
        return error.fault
    except OSError as error:
        return fault_of(error)
    raise AssertionError("no fault")


def near(found, expected, tolerance=1e-3):
    """Whether two rows of values are alike, to a part of each."""
    return len(found) == len(expected) and all(
        abs(a - b) <= tolerance * max(abs(b), 1.0) for a, b in zip(found, expected)
    )
