"""MPU-6050: vibration, RMS over a window of its FIFO, and the chip's temperature, over I2C.

InvenSense, MPU-6000 and MPU-6050 Register Map and Descriptions, revision 4.2: section 4. The
FIFO takes accelerometer readings of 6 bytes, 170 of them; it is emptied and filled anew for each
window, so that no reading is older than the row it goes into.
"""

from time import sleep_ms

from fogline.errors import SensorFault

from .base import Channel
from .sensor import I2cDevice, big_endian, wait_for
from .vibration import Window, channels, check_window

(
    _SMPLRT_DIV, _CONFIG, _ACCEL_CONFIG, _FIFO_EN, _TEMP_OUT, _USER_CTRL, _PWR_MGMT_1,
    _FIFO_COUNT, _FIFO_R_W, _WHO_AM_I,
) = (0x19, 0x1A, 0x1C, 0x23, 0x41, 0x6A, 0x6B, 0x72, 0x74, 0x75)  # fmt: skip
_CHIP = 0x68
_DEVICE_RESET, _GYRO_CLOCK = 0x80, 0x01
_ACCEL_FIFO = 0x08
_FIFO_OFF, _FIFO_RESET, _FIFO_ON = 0x00, 0x04, 0x40
_BANDWIDTH_184_HZ = 0x01  # the base rate is 1 kHz with this filter
_BASE_HZ = 1000
_RESET_MS = 100  # section 4.28: wait so long after a reset
_READING_BYTES = 6
_BURST = 10  # readings at a time: a small buffer
RANGES_G = (2, 4, 8, 16)
RATES_HZ = (100, 200, 500, 1000)


class Sensor:
    """See `sensor.py` for the shape."""

    REQUIRED = ("bus",)
    OPTIONAL = ("address", "hz", "range_g", "rate_hz", "samples")

    def __init__(self, where, options):
        from fogline.checks import check_choice

        self._chip = I2cDevice(where, options, (0x68, 0x69))
        self._range_g = options.get("range_g", 4)
        check_choice(where + ".range_g", self._range_g, RANGES_G)
        self._rate_hz = options.get("rate_hz", 500)
        check_choice(where + ".rate_hz", self._rate_hz, RATES_HZ)
        self._samples = check_window(where, options, 64)
        self._timeout_ms = (self._samples + 1) * 2000 // self._rate_hz + 10
        # Section 3.4 of the product specification: from -40 to 85 Cel.
        self.channels = channels(self._range_g) + (Channel("temperature", "Cel", -40.0, 85.0),)

    def open(self):
        """Find the chip, reset it and set rate, filter and range."""
        chip = self._chip
        chip.open()
        chip.expect(_WHO_AM_I, _CHIP)
        chip.write(_PWR_MGMT_1, _DEVICE_RESET)
        sleep_ms(_RESET_MS)
        wait_for(lambda: not chip.read(_PWR_MGMT_1, 1)[0] & _DEVICE_RESET, _RESET_MS)
        chip.write(_PWR_MGMT_1, _GYRO_CLOCK)
        chip.write(_SMPLRT_DIV, _BASE_HZ // self._rate_hz - 1)
        chip.write(_CONFIG, _BANDWIDTH_184_HZ)
        chip.write(_ACCEL_CONFIG, RANGES_G.index(self._range_g) << 3)
        chip.write(_FIFO_EN, _ACCEL_FIFO)

    def sample(self):
        """Fill a window: [rms, peak] in g, and Cel."""
        chip = self._chip
        if chip.read(_FIFO_EN, 1)[0] != _ACCEL_FIFO:
            raise SensorFault("no-data", "it was reset")
        chip.write(_USER_CTRL, _FIFO_RESET)
        chip.write(_USER_CTRL, _FIFO_ON)
        window = Window()

        def is_full():
            count = chip.read(_FIFO_COUNT, 2)
            ready = (count[0] << 8 | count[1]) // _READING_BYTES
            while ready and window.count < self._samples:
                burst = min(ready, _BURST, self._samples - window.count)
                data = chip.read(_FIFO_R_W, burst * _READING_BYTES)
                for at in range(0, len(data), _READING_BYTES):
                    window.add([big_endian(data, at + axis) for axis in (0, 2, 4)])
                ready -= burst
            return window.count == self._samples

        wait_for(is_full, self._timeout_ms)
        chip.write(_USER_CTRL, _FIFO_OFF)
        # Section 4.18: 340 counts per Cel, 0 at 36.53 Cel.
        celsius = big_endian(chip.read(_TEMP_OUT, 2)) / 340 + 36.53
        return window.figures(32768 // self._range_g) + [celsius]

    def close(self):
        """Nothing has to be let go."""
