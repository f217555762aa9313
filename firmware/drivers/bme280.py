"""BME280: air temperature, humidity and pressure, over I2C.

Bosch Sensortec, BME280 data sheet (BST-BME280-DS002, 1.6): section 4.2 compensation formulas,
5.3 memory map, 3.3.3 forced mode, 9.1 measurement time. One reading per sample, each quantity
measured once (oversampling x 1), no filter: "weather monitoring", 3.5.1.

All arithmetic is in integers: a board's float has 24 bits, the raw values have 20.
"""

from fogline.errors import SensorFault

from .base import Channel
from .sensor import I2cDevice, little_endian, wait_for

_ID = 0xD0
_RESET = 0xE0
_CTRL_HUM = 0xF2
_STATUS = 0xF3
_CTRL_MEAS = 0xF4
_CONFIG = 0xF5
_DATA = 0xF7
_CHIP = 0x60
_RESET_WORD = 0xB6
_MEASURING = 0x08
_COPYING = 0x01
_ONCE = 0x01  # humidity x 1
_FORCED = 0x25  # temperature x 1, pressure x 1, forced mode
# Section 9.1: 9.3 ms at the most; table 1: 2 ms from reset on.
TIMEOUT_MS = 50
_SKIPPED_20 = 0x80000
_SKIPPED_16 = 0x8000


class Sensor:
    """See `sensor.py` for the shape."""

    REQUIRED = ("bus",)
    OPTIONAL = ("address", "hz")
    # Section 1, operating range; as for humidity, that is all there is.
    channels = (
        Channel("temperature", "Cel", -40.0, 85.0),
        Channel("humidity", "%", 0.0, 100.0),
        Channel("pressure", "hPa", 300.0, 1100.0),
    )

    def __init__(self, where, options):
        self._chip = I2cDevice(where, options, (0x76, 0x77))

    def open(self):
        """Find the chip, reset it and read its calibration."""
        chip = self._chip
        chip.open()
        chip.expect(_ID, _CHIP)
        chip.write(_RESET, _RESET_WORD)
        wait_for(lambda: not chip.read(_STATUS, 1)[0] & _COPYING, TIMEOUT_MS)
        self._calibration = Calibration(chip.read(0x88, 26), chip.read(0xE1, 7))
        chip.write(_CONFIG, 0)
        chip.write(_CTRL_HUM, _ONCE)

    def sample(self):
        """Measure once: [Cel, %, hPa]."""
        chip = self._chip
        chip.write(_CTRL_MEAS, _FORCED)
        wait_for(lambda: not chip.read(_STATUS, 1)[0] & _MEASURING, TIMEOUT_MS)
        data = chip.read(_DATA, 8)
        pressure = data[0] << 12 | data[1] << 4 | data[2] >> 4
        temperature = data[3] << 12 | data[4] << 4 | data[5] >> 4
        humidity = data[6] << 8 | data[7]
        if _SKIPPED_20 in (temperature, pressure) or humidity == _SKIPPED_16:
            # Its power was gone meanwhile: it no longer knows what to measure.
            raise SensorFault("no-data")
        of = self._calibration
        fine, centidegrees = of.temperature(temperature)
        return [
            centidegrees / 100,
            of.humidity(humidity, fine) / 1024,
            of.pressure(pressure, fine) / 25600,
        ]

    def close(self):
        """The chip sleeps by itself."""


class Calibration:
    """A chip's own numbers (table 16) and the formulas of section 4.2.3."""

    def __init__(self, first, second):
        self._t1 = first[0] | first[1] << 8
        self._t2, self._t3 = little_endian(first, 2), little_endian(first, 4)
        self._p1 = first[6] | first[7] << 8
        self._p = [little_endian(first, at) for at in range(8, 24, 2)]  # P2 to P9
        self._h1 = first[25]
        self._h2 = little_endian(second)
        self._h3 = second[2]
        # Twelve bits with a sign each, sharing a byte.
        self._h4 = _signed(second[3], 8) << 4 | second[4] & 0x0F
        self._h5 = _signed(second[5], 8) << 4 | second[4] >> 4
        self._h6 = _signed(second[6], 8)
        if self._p1 == 0:
            raise SensorFault("absent", "no calibration")

    def temperature(self, raw):
        """Return (t_fine, hundredths of Cel)."""
        one = ((raw >> 3) - (self._t1 << 1)) * self._t2 >> 11
        off = (raw >> 4) - self._t1
        fine = one + ((off * off >> 12) * self._t3 >> 14)
        return fine, fine * 5 + 128 >> 8

    def pressure(self, raw, fine):
        """Return Pa / 256."""
        p2, p3, p4, p5, p6, p7, p8, p9 = self._p
        off = fine - 128000
        two = off * off * p6 + (off * p5 << 17) + (p4 << 35)
        one = (off * off * p3 >> 8) + (off * p2 << 12)
        one = ((1 << 47) + one) * self._p1 >> 33
        if one == 0:
            raise SensorFault("range")
        value = ((1048576 - raw << 31) - two) * 3125 // one
        one = p9 * (value >> 13) * (value >> 13) >> 25
        two = p8 * value >> 19
        return (value + one + two >> 8) + (p7 << 4)

    def humidity(self, raw, fine):
        """Return % / 1024, from 0 to 100 %."""
        off = fine - 76800
        wet = (raw << 14) - (self._h4 << 20) - self._h5 * off + 16384 >> 15
        dry = (off * self._h6 >> 10) * ((off * self._h3 >> 11) + 32768) >> 10
        value = wet * ((dry + 2097152) * self._h2 + 8192 >> 14)
        value -= ((value >> 15) * (value >> 15) >> 7) * self._h1 >> 4
        return min(max(value, 0), 419430400) >> 12


def _signed(value, bits):
    return value - (1 << bits) if value >> bits - 1 else value
