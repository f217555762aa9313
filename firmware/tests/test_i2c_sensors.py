"""Sensors on I2C, register by register: BME280, INA219, BH1750."""

# ruff: noqa: SLF001 - a test may look inside

import fakes
from fakes import I2C, Registers, clock, fault, made, near, new
from support import raises

# Bosch's own numbers: BST-BMP280-DS001, section 3.12 "Calculation example". The BME280 has the
# same formulas for temperature and pressure.
T1, T2, T3 = 27504, 26435, -1000
P = (36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000)
RAW_TEMPERATURE, RAW_PRESSURE = 519888, 415148
# Those of a chip that was bought; section 8.1 has the formula in floating point.
H1, H2, H3, H4, H5, H6 = 75, 370, 0, 313, 50, 30


class Bme280(Registers):
    """Measures when it is told to, and takes 9 ms."""

    def __init__(self):
        super().__init__()
        self.put(0xD0, 0x60)
        words = (T1, T2, T3) + P
        for index, word in enumerate(words):
            self.put(0x88 + 2 * index, word & 0xFF, word >> 8 & 0xFF)
        self.put(0xA1, H1)
        self.put(0xE1, H2 & 0xFF, H2 >> 8, H3, H4 >> 4 & 0xFF)
        self.put(0xE5, (H4 & 15) | (H5 & 15) << 4, H5 >> 4 & 0xFF, H6 & 0xFF)
        self.humidity = 30000
        self._ready_us = 0

    def write(self, register, data):
        super().write(register, data)
        if register == 0xF4 and data[0] & 3 == 1:
            self._ready_us = clock.us + 9000
            p, t, h = RAW_PRESSURE << 4, RAW_TEMPERATURE << 4, self.humidity
            self.put(0xF7, p >> 16, p >> 8 & 0xFF, p & 0xFF, t >> 16, t >> 8 & 0xFF, t & 0xFF)
            self.put(0xFD, h >> 8, h & 0xFF)

    def read(self, register, count):
        self.put(0xF3, 8 if clock.us < self._ready_us else 0)
        return super().read(register, count)


def humidity_in_floats(raw, t_fine):
    """Section 8.1 of the data sheet."""
    h = t_fine - 76800.0
    h = (raw - (H4 * 64.0 + H5 / 16384.0 * h)) * (
        H2 / 65536.0 * (1.0 + H6 / 67108864.0 * h * (1.0 + H3 / 67108864.0 * h))
    )
    return max(0.0, min(100.0, h * (1.0 - H1 * h / 524288.0)))


def bme280(**options):
    fakes.reset()
    I2C.chips[0x76] = Bme280()
    return made("bme280", bus="i2c0", **options), I2C.chips[0x76]


def test_bme280_gives_boschs_example():
    sensor, _ = bme280()
    celsius, humidity, hectopascal = sensor.sample()
    assert near([celsius], [25.08], 1e-6)
    assert near([hectopascal], [1006.5327], 1e-6)
    assert near([humidity], [humidity_in_floats(30000, 128422.0)], 1e-3)
    assert 20 < humidity < 80


def test_bme280_formulas_are_exact_in_integers():
    from drivers.bme280 import Calibration

    _, chip = bme280()
    of = Calibration(chip.read(0x88, 26), chip.read(0xE1, 7))
    assert of.temperature(RAW_TEMPERATURE) == (128422, 2508)
    # In floats, which carry t_fine's fraction, the example comes to 100653.27 Pa.
    assert abs(of.pressure(RAW_PRESSURE, 128422) / 256 - 100653.27) < 0.03


def test_bme280_humidity_agrees_with_the_formula_in_floats():
    from drivers.bme280 import Calibration

    _, chip = bme280()
    of = Calibration(chip.read(0x88, 26), chip.read(0xE1, 7))
    for raw in range(15000, 50000, 500):
        for fine in (-100000, 0, 128422, 300000):
            found = of.humidity(raw, fine) / 1024
            assert abs(found - humidity_in_floats(raw, fine)) < 0.05, (raw, fine, found)


def test_bme280_reads_a_calibration_with_signs():
    """H4 and H5 share a byte, four bits each, and both have a sign."""
    from drivers.bme280 import Calibration

    _, chip = bme280()
    first = chip.read(0x88, 26)
    for h4, h5 in ((-2048, 2047), (-1, -2), (2047, -2048), (0, 0), (313, -50)):
        shared = (h4 & 15) | (h5 & 15) << 4
        second = bytes((0x72, 0x01, 0x05, h4 >> 4 & 0xFF, shared, h5 >> 4 & 0xFF, 0xE2))
        of = Calibration(first, second)
        assert (of._h2, of._h3, of._h4, of._h5, of._h6) == (370, 5, h4, h5, -30)


def test_bme280_is_set_up_and_measures_only_when_asked():
    sensor, chip = bme280()
    assert (0xE0, b"\xb6") in chip.written
    begin = clock.us
    sensor.sample()
    assert 9000 <= clock.us - begin < 20000
    # Section 5.4.3: the humidity's setting counts from the next order to measure on.
    registers = [register for register, _ in chip.written]
    assert registers.index(0xF2) < registers.index(0xF4)


def test_bme280_that_lost_its_power_is_found_out():
    sensor, chip = bme280()
    chip.humidity = 0x8000
    assert fault(sensor.sample) == "no-data"


def test_another_chip_at_its_address_is_not_it():
    fakes.reset()
    I2C.chips[0x76] = Registers()
    I2C.chips[0x76].put(0xD0, 0x58)  # a BMP280
    assert fault(new("bme280", bus="i2c0").open) == "absent"


def test_a_chip_without_calibration_is_not_used():
    fakes.reset()
    I2C.chips[0x76] = Registers()
    I2C.chips[0x76].put(0xD0, 0x60)
    assert fault(new("bme280", bus="i2c0").open) == "absent"


def test_a_measurement_without_end_is_a_timeout():
    sensor, chip = bme280()
    chip.read = lambda register, count: bytes([8] * count)
    begin = clock.us
    assert fault(sensor.sample) == "timeout"
    assert clock.us - begin < 100_000


class Ina219:
    """Words with the high byte first; a reset brings the setting that marks the chip."""

    def __init__(self):
        self.words = {0: 0x399F, 1: 0, 2: 0}

    def write(self, register, data):
        value = data[0] << 8 | data[1]
        self.words[register] = 0x399F if register == 0 and value & 0x8000 else value

    def read(self, register, count):
        word = self.words[register]
        return bytes((word >> 8, word & 0xFF))[:count]


def ina219(**options):
    fakes.reset()
    I2C.chips[0x40] = Ina219()
    return made("ina219", bus="i2c0", **options), I2C.chips[0x40]


def test_ina219_gives_volts_amperes_and_watts():
    sensor, chip = ina219()
    chip.words[2] = int(11.98 * 250) << 3 | 2
    chip.words[1] = 2000  # 20 mV at 0.1 ohm; table 7 of the data sheet has 20 mV as 0x07D0
    assert near(sensor.sample(), [11.98, 0.2, 11.98 * 0.2])
    chip.words[1] = 0x8300  # -320 mV, by table 7
    assert near(sensor.sample(), [11.98, -3.2, -11.98 * 3.2])
    assert chip.words[0] == 0x3E67


def test_ina219_takes_another_shunt_and_names_its_range():
    sensor, chip = ina219(shunt_milliohm=2)
    chip.words[2], chip.words[1] = 24 * 250 << 3 | 2, 1000
    assert near(sensor.sample(), [24.0, 5.0, 120.0])
    assert sensor.channels[1].maximum == 160.0
    raises("config.shunt_milliohm", lambda: ina219(shunt_milliohm=0))
    raises("config.address", lambda: ina219(address=0x50))


def test_ina219_reports_overflow_reset_and_silence():
    sensor, chip = ina219()
    chip.words[2] = 3
    assert fault(sensor.sample) == "range"
    chip.words[2] = 0
    assert fault(sensor.sample) == "timeout"
    chip.words[0] = 0x399F
    assert fault(sensor.sample) == "no-data"
    del I2C.chips[0x40]
    assert fault(sensor.sample) == "absent"


class Bh1750:
    def __init__(self):
        self.orders = []
        self.raw = 0

    def write(self, _, data):
        self.orders.append(data[0])

    def read(self, _, count):
        return bytes((self.raw >> 8, self.raw & 0xFF))


def test_bh1750_gives_the_data_sheets_example():
    fakes.reset()
    chip = I2C.chips[0x23] = Bh1750()
    sensor = made("bh1750", bus="i2c0")
    assert chip.orders == [0x01, 0x07, 0x10]
    chip.raw = 0x8390  # "How to calculate": 28067 lx
    begin = clock.us
    assert near(sensor.sample(), [28067.0], 1e-4)
    assert clock.us - begin >= 179_000  # there is nothing before
    begin = clock.us
    sensor.sample()
    assert clock.us - begin < 10_000
    sensor.close()
    assert chip.orders[-1] == 0x00
