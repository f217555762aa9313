"""BH1750FVI: illuminance, over I2C.

ROHM, BH1750FVI technical note (2011.11, revision D): instruction set, measurement procedure. The
chip measures without end in its high-resolution mode, 1 lx, at most 180 ms each.
"""

from time import sleep_ms, ticks_diff, ticks_ms

from .base import Channel
from .sensor import I2cDevice

_POWER_ON, _POWER_OFF, _RESET, _CONTINUOUS_HIGH = 0x01, 0x00, 0x07, 0x10
MEASURING_MS = 180


class Sensor:
    """See `sensor.py` for the shape."""

    REQUIRED = ("bus",)
    OPTIONAL = ("address", "hz")
    channels = (Channel("illuminance", "lx", 0.0, 54612.5),)

    def __init__(self, where, options):
        self._chip = I2cDevice(where, options, (0x23, 0x5C))

    def open(self):
        """Start measuring."""
        self._chip.open()
        self._order(_POWER_ON)
        self._order(_RESET)
        self._order(_CONTINUOUS_HIGH)
        self._begin_ms = ticks_ms()

    def sample(self):
        """Return [lx]; the first time waits until there is a result."""
        if self._begin_ms is not None:
            sleep_ms(max(0, MEASURING_MS - ticks_diff(ticks_ms(), self._begin_ms)))
            self._begin_ms = None
        data = self._chip.bus.readfrom(self._chip.address, 2)
        return [(data[0] << 8 | data[1]) / 1.2]

    def close(self):
        """Put the chip to sleep."""
        self._order(_POWER_OFF)

    def _order(self, code):
        self._chip.bus.writeto(self._chip.address, bytes((code,)))
