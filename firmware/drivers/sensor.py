"""The shape of a single sensor, and what more than one of them needs.

`sensors.py` puts sensors together to a driver. A sensor is a class `Sensor(where, options)`:
`where` names its settings in errors, `options` are those of `OPTIONS` that board.json gives.

- `REQUIRED`, `OPTIONAL`: the keys of its settings;
- `channels`: tuple of `Channel`, named for the quantity alone;
- `open()`: find the sensor and set it up;
- `sample()`: a value for each channel, or None where there is none;
- `close()`: let go; `open` may follow.

`__init__` only checks settings and claims pins. `open` and `sample` raise SensorFault, or
OSError where the bus does, and take a bounded time: MAX_OPEN_MS and MAX_SAMPLE_MS, whatever
the sensor or its wires do.
"""

from time import sleep_ms, ticks_diff, ticks_ms

from fogline import board
from fogline.errors import SensorFault

MAX_OPEN_MS = 4000
MAX_SAMPLE_MS = 2000
DEFAULT_I2C_HZ = 100_000
# What ports raise when no device takes its address, or one holds the bus.
_NO_DEVICE = (5, 19)  # EIO, ENODEV
_TIMED_OUT = (110, 116)  # ETIMEDOUT by Linux' numbers and by newlib's


def fault_of(error):
    """The pack's word for an OSError of a bus."""
    if error.errno in _NO_DEVICE:
        return "absent"
    return "timeout" if error.errno in _TIMED_OUT else "bus"


def wait_for(ready, timeout_ms, pause_ms=1):
    """Ask until `ready()` is true; raises SensorFault `timeout`."""
    begin = ticks_ms()
    while not ready():
        if ticks_diff(ticks_ms(), begin) >= timeout_ms:
            raise SensorFault("timeout")
        sleep_ms(pause_ms)


class I2cDevice:
    """A chip with byte-wide registers at an address of an I2C bus.

    Args:
        where: its settings' name; `options["bus"]` and `options["address"]` are checked.
        addresses: those that the chip can have, the usual one first.
    """

    def __init__(self, where, options, addresses):
        from fogline.checks import check_choice, check_integer

        self._bus_name = options["bus"]
        self.address = options.get("address", addresses[0])
        check_choice(where + ".address", self.address, addresses)
        board.claim(where + ".bus", "i2c", self._bus_name)
        hz = options.get("hz", DEFAULT_I2C_HZ)
        check_integer(where + ".hz", hz, 10_000, 1_000_000)
        board.get("limit", self._bus_name, hz)

    def open(self):
        """Get the bus."""
        self.bus = board.get("i2c", self._bus_name)

    def read(self, register, count):
        """Return `count` bytes from a register on."""
        return self.bus.readfrom_mem(self.address, register, count)

    def write(self, register, *values):
        """Write bytes from a register on."""
        self.bus.writeto_mem(self.address, register, bytes(values))

    def expect(self, register, *identities):
        """Raise SensorFault `absent` unless the register says that it is this kind of chip."""
        found = self.read(register, 1)[0]
        if found not in identities:
            raise SensorFault("absent", f"chip 0x{found:02x}")


def big_endian(data, at=0):
    """The 16-bit integer with a sign whose high byte is at `at`."""
    value = data[at] << 8 | data[at + 1]
    return value - 0x10000 if value & 0x8000 else value


def little_endian(data, at=0):
    """The 16-bit integer with a sign whose low byte is at `at`."""
    value = data[at + 1] << 8 | data[at]
    return value - 0x10000 if value & 0x8000 else value
