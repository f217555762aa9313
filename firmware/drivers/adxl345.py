"""ADXL345: vibration, RMS over a window of its FIFO, over I2C.

Analog Devices, ADXL345 data sheet, revision G: register definitions (tables 19 and following),
FIFO. Full resolution, 256 counts per g at every range. The FIFO holds the last 32 readings, so a
window of up to 32 is there at once; for a longer one the chip is waited for.
"""

from time import sleep_us

from fogline.errors import SensorFault

from .sensor import I2cDevice, little_endian, wait_for
from .vibration import Window, channels, check_window

_DEVID, _BW_RATE, _POWER_CTL, _DATA_FORMAT, _DATAX0, _FIFO_CTL, _FIFO_STATUS = (
    0x00, 0x2C, 0x2D, 0x31, 0x32, 0x38, 0x39,
)  # fmt: skip
_CHIP = 0xE5
_STANDBY, _MEASURE = 0x00, 0x08
_FULL_RESOLUTION = 0x08
_BYPASS, _STREAM = 0x00, 0x80
_ENTRIES = 0x3F
_PER_G = 256
# Output data rate to its code in BW_RATE (table 7).
RATES_HZ = {100: 0x0A, 200: 0x0B, 400: 0x0C, 800: 0x0D}
RANGES_G = (2, 4, 8, 16)


class Sensor:
    """See `sensor.py` for the shape."""

    REQUIRED = ("bus",)
    OPTIONAL = ("address", "hz", "range_g", "rate_hz", "samples")

    def __init__(self, where, options):
        from fogline.checks import check_choice

        self._chip = I2cDevice(where, options, (0x53, 0x1D))
        self._range_g = options.get("range_g", 4)
        check_choice(where + ".range_g", self._range_g, RANGES_G)
        self._rate_hz = options.get("rate_hz", 400)
        check_choice(where + ".rate_hz", self._rate_hz, sorted(RATES_HZ))
        self._samples = check_window(where, options, 32)
        # Twice what the window takes, and one reading more.
        self._timeout_ms = (self._samples + 1) * 2000 // self._rate_hz + 10
        self.channels = channels(self._range_g)

    def open(self):
        """Find the chip and let it fill its FIFO."""
        chip = self._chip
        chip.open()
        chip.expect(_DEVID, _CHIP)
        chip.write(_POWER_CTL, _STANDBY)
        chip.write(_BW_RATE, RATES_HZ[self._rate_hz])
        chip.write(_DATA_FORMAT, _FULL_RESOLUTION | RANGES_G.index(self._range_g))
        chip.write(_FIFO_CTL, _BYPASS)  # empties it
        chip.write(_FIFO_CTL, _STREAM)
        chip.write(_POWER_CTL, _MEASURE)

    def sample(self):
        """Take a window from the FIFO: [rms, peak] in g."""
        chip = self._chip
        if chip.read(_POWER_CTL, 1)[0] != _MEASURE:
            raise SensorFault("no-data", "it was reset")
        window = Window()

        def is_full():
            for _ in range(chip.read(_FIFO_STATUS, 1)[0] & _ENTRIES):
                data = chip.read(_DATAX0, 6)
                window.add([little_endian(data, at) for at in (0, 2, 4)])
                if window.count == self._samples:
                    return True
                # Until the FIFO has moved up (figure 45: 5 us between two reads).
                sleep_us(5)
            return False

        wait_for(is_full, self._timeout_ms)
        return window.figures(_PER_G)

    def close(self):
        """Put the chip to sleep."""
        self._chip.write(_POWER_CTL, _STANDBY)
