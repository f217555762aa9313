"""ADXL345 and MPU-6050: what they make of a FIFO full of readings."""

from math import sqrt

import fakes
from fakes import I2C, Registers, clock, fault, made, near, new
from support import raises


def little(value):
    return bytes((value & 0xFF, value >> 8 & 0xFF))


def big(value):
    return bytes((value >> 8 & 0xFF, value & 0xFF))


class Adxl345(Registers):
    """Fills its FIFO of 32 entries at the rate that was set, once it measures."""

    def __init__(self, wave):
        super().__init__()
        self.put(0x00, 0xE5)
        self._wave = wave
        self._fifo = []
        self._taken = 0
        self._begin_us = None
        self.period_us = 2500

    def write(self, register, data):
        super().write(register, data)
        if register == 0x38 and data[0] == 0:
            self._fifo = []
        if register == 0x2D and data[0] & 8:
            self._begin_us, self._taken = clock.us, 0

    def _fill(self):
        if self._begin_us is None:
            return
        due = (clock.us - self._begin_us) // self.period_us
        for index in range(self._taken, due):
            self._fifo.append(self._wave(index))
        self._taken = max(self._taken, due)
        self._fifo = self._fifo[-32:]

    def read(self, register, count):
        self._fill()
        if register == 0x39:
            return bytes((len(self._fifo),))
        if register == 0x32:
            assert count == 6, "the three axes have to be read at once"
            return b"".join(little(axis) for axis in self._fifo.pop(0))
        return super().read(register, count)


def adxl345(wave, **options):
    fakes.reset()
    chip = I2C.chips[0x53] = Adxl345(wave)
    return made("adxl345", bus="i2c0", **options), chip


def still(_):
    return (0, -10, 256)


def square(index):
    """A quarter of a g up and down, on top of gravity."""
    return (3, 0, 256 + (64 if index % 2 else -64))


def test_adxl345_at_rest_does_not_vibrate_whatever_its_position():
    sensor, _ = adxl345(still)
    clock.sleep_ms(100)
    assert sensor.sample() == [0.0, 0.0]


def test_adxl345_takes_gravity_off_and_gives_the_root_mean_square():
    sensor, chip = adxl345(square)
    clock.sleep_ms(200)
    assert near(sensor.sample(), [0.25, 0.25], 1e-6)
    assert chip.bytes[0x31] == 0x09  # full resolution, 4 g
    assert chip.bytes[0x2C] == 0x0C  # 400 Hz


def test_adxl345_window_that_is_there_takes_no_time_and_a_longer_one_is_waited_for():
    sensor, _ = adxl345(square, samples=32)
    clock.sleep_ms(200)
    begin = clock.us
    sensor.sample()
    assert clock.us - begin < 20_000
    sensor, _ = adxl345(square, samples=256)
    begin = clock.us
    assert near(sensor.sample(), [0.25, 0.25], 1e-2)
    assert 600_000 < clock.us - begin < 1_400_000


def test_adxl345_axes_add_up():
    sensor, _ = adxl345(lambda index: (30, 40, 120) if index % 2 else (-30, -40, -120))
    clock.sleep_ms(200)
    assert near(sensor.sample(), [130 / 256, 120 / 256], 1e-6)


def test_adxl345_that_stops_or_was_reset_is_found_out():
    sensor, chip = adxl345(square)
    chip.period_us = 1 << 40
    assert fault(sensor.sample) == "timeout"
    chip.put(0x2D, 0)
    assert fault(sensor.sample) == "no-data"
    chip.put(0, 0x33)
    assert fault(sensor.open) == "absent"


class Mpu6050(Registers):
    def __init__(self, wave):
        super().__init__()
        self.put(0x75, 0x68)
        self._wave = wave
        self._begin_us = None
        self._taken = 0
        self._bytes = b""

    def write(self, register, data):
        super().write(register, data)
        if register == 0x6B and data[0] & 0x80:
            self.put(0x6B, 0x40)
        if register == 0x6A and data[0] & 4:
            self._bytes = b""
        if register == 0x6A and data[0] & 0x40:
            self._begin_us, self._taken = clock.us, 0

    def read(self, register, count):
        if self._begin_us is not None and self.bytes[0x6A] & 0x40:
            due = (clock.us - self._begin_us) * 1000 // ((self.bytes[0x19] + 1) * 1_000_000)
            for index in range(self._taken, due):
                self._bytes += b"".join(big(axis) for axis in self._wave(index))
            self._taken = max(self._taken, due)
        if register == 0x72:
            return big(len(self._bytes))
        if register == 0x74:
            data, self._bytes = self._bytes[:count], self._bytes[count:]
            return data
        return super().read(register, count)


def mpu6050(wave, **options):
    fakes.reset()
    chip = I2C.chips[0x68] = Mpu6050(wave)
    return made("mpu6050", bus="i2c0", **options), chip


def test_mpu6050_gives_vibration_and_temperature():
    sensor, chip = mpu6050(lambda index: (0, 0, 8192 + (2048 if index % 2 else -2048)))
    chip.put(0x41, 0xFB, 0x48)  # -1208 / 340 + 36.53 = 32.977
    assert near(sensor.sample(), [0.25, 0.25, 32.977], 1e-4)
    assert chip.bytes[0x19] == 1  # 500 Hz
    assert chip.bytes[0x1C] == 0x08  # 4 g
    assert near(sensor.sample(), [0.25, 0.25, 32.977], 1e-4)


def test_mpu6050_range_and_rate_are_set():
    sensor, chip = mpu6050(
        lambda index: (1000 if index % 2 else -1000, 0, 2048), range_g=16, rate_hz=100, samples=8
    )
    assert near(sensor.sample()[:2], [1000 / 2048, 1000 / 2048], 1e-4)
    assert (chip.bytes[0x19], chip.bytes[0x1C]) == (9, 0x18)
    assert sensor.channels[0].maximum == 32.0


def test_mpu6050_that_was_reset_or_is_another_is_found_out():
    sensor, chip = mpu6050(still)
    chip.put(0x23, 0)
    assert fault(sensor.sample) == "no-data"
    chip.put(0x75, 0x71)
    assert fault(sensor.open) == "absent"


def test_a_window_is_exact_at_the_ends_of_the_range():
    from drivers.vibration import Window

    window = Window()
    for index in range(256):
        window.add((32767, -32768, 32767 if index % 2 else -32768))
    rms, peak = window.figures(2048)
    assert abs(rms - 32767.5 / 2048) < 1e-3
    assert abs(peak - 32767.5 / 2048) < 1e-3
    window = Window()
    for index in range(8):
        window.add((index, 0, 0))
    rms, peak = window.figures(1)
    assert abs(rms - sqrt(5.25)) < 1e-5
    assert peak == 3.5


def test_settings_are_checked_and_named():
    fakes.reset()
    for name, value in (("samples", 7), ("samples", 257), ("range_g", 3), ("rate_hz", 60)):
        for kind in ("adxl345", "mpu6050"):
            raises("config." + name, lambda k=kind, n=name, v=value: new(k, bus="i2c0", **{n: v}))
