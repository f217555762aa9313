"""Sensors on single pins and on SPI: pulses, current loops, HC-SR04, proximity, MFRC522."""

import fakes
from fakes import ADC, SPI, Machine, Pin, clock, fault, made, near, new
from support import Random, raises

D0, D1, CS0, ADC0 = 10, 11, 17, 26  # of the Pico


def pulse(**options):
    fakes.reset()
    return made("pulse", pin="d0", **options)


def turn(count, period_us):
    """`count` edges, the first after one period."""
    for _ in range(count):
        clock.pass_us(period_us)
        Pin.pulse(D0)


def test_pulse_counts_a_flow_meter():
    sensor = pulse(measures="flow", per_unit=450)
    assert sensor.sample() == [0.0]
    turn(10, 6667)
    sensor.sample()
    for count in (1, 7, 150):
        turn(count, 6667)
        assert near(sensor.sample(), [1e6 / 6667 * 60 / 450], 1e-2)
    assert [tuple(channel) for channel in sensor.channels] == [("flow", "L/min", 0.0, 400.0)]


def test_pulse_counts_a_shafts_turns_exactly_at_any_rate():
    for period_us in (1000, 3333, 250_000):
        sensor = pulse(measures="speed", per_unit=2)
        turn(2, period_us)
        sensor.sample()
        # The sample falls anywhere between two edges.
        turn(3, period_us)
        clock.pass_us(period_us // 3)
        assert near(sensor.sample(), [1e6 / period_us * 30], 1e-2)


def test_a_shaft_that_slows_down_does_so_in_the_rows():
    sensor = pulse(measures="speed", per_unit=1)
    turn(20, 10_000)
    sensor.sample()
    turn(20, 10_000)
    values = [sensor.sample()[0]]
    for _ in range(12):
        clock.sleep_ms(500)
        values.append(sensor.sample()[0])
    assert near(values[:2], [6000.0, 120.0], 1e-2)
    assert all(later <= earlier for earlier, later in zip(values, values[1:]))
    assert values[-1] == 0.0
    turn(3, 10_000)
    sensor.sample()
    turn(3, 10_000)
    assert near(sensor.sample(), [6000.0], 1e-2)


def test_a_clock_that_wraps_makes_no_rate():
    sensor = pulse(measures="speed", per_unit=1)
    turn(3, 10_000)
    sensor.sample()
    for _ in range(80):
        clock.sleep_ms(10_000)
        assert 0 <= sensor.sample()[0] < 10
    turn(2, 10_000)
    sensor.sample()
    turn(2, 10_000)
    assert near(sensor.sample(), [6000.0], 1e-2)


def test_a_contact_that_bounces_counts_once():
    sensor = pulse(measures="speed", per_unit=1, shortest_us=2000)
    for _ in range(10):
        clock.pass_us(19_000)
        for _ in range(5):
            clock.pass_us(200)
            Pin.pulse(D0)
    sensor.sample()
    for _ in range(10):
        clock.pass_us(19_000)
        for _ in range(5):
            clock.pass_us(200)
            Pin.pulse(D0)
    assert near(sensor.sample(), [3000.0], 2e-2)
    sensor.close()
    assert Pin.handlers[D0] is None


def test_pulse_settings_are_checked_and_named():
    for name, value in (
        ("measures", "rain"),
        ("per_unit", 0),
        ("pull", "left"),
        ("shortest_us", -1),
        ("maximum", 0),
    ):
        options = {"measures": "flow", "per_unit": 450, name: value}
        raises("config." + name, lambda options=options: pulse(**options))


def analog(**options):
    fakes.reset()
    settings = {"measures": "pressure", "unit": "bar", "at_4_ma": 0, "at_20_ma": 10}
    settings.update(options)
    return made("analog", adc="adc0", **settings)


def loop(milliamperes, ohm=150):
    ADC.volts[ADC0] = milliamperes * ohm / 1000


def test_analog_scales_the_loop():
    sensor = analog()
    for milliamperes, bar in ((4, 0.0), (12, 5.0), (20, 10.0), (3.9, -0.0625), (20.4, 10.25)):
        loop(milliamperes)
        assert near(sensor.sample(), [bar], 5e-3), milliamperes
    sensor = analog(measures="level", unit="m", at_4_ma=3, at_20_ma=-1, shunt_ohm=100)
    loop(8, 100)
    assert near(sensor.sample(), [2.0], 5e-3)
    low, high = sensor.channels[0].minimum, sensor.channels[0].maximum
    assert near([low, high], [-1.125, 3.05], 1e-5)


def test_a_broken_or_shorted_loop_is_told_from_a_value_beyond_the_range():
    sensor = analog()
    for milliamperes, code in (
        (0, "wire"), (3.5, "wire"), (21.5, "wire"), (3.7, "range"), (20.8, "range"),
    ):  # fmt: skip
        loop(milliamperes)
        assert fault(sensor.sample) == code, milliamperes
    loop(12)
    assert near(sensor.sample(), [5.0], 5e-3)


def test_analog_noise_is_averaged():
    sensor = analog()
    source = Random(7)
    read = ADC.read_u16

    def noisy(self):
        ADC.volts[ADC0] = 1.8 + (source.below(201) - 100) / 5000
        return read(self)

    ADC.read_u16 = noisy
    try:
        values = [sensor.sample()[0] for _ in range(50)]
    finally:
        ADC.read_u16 = read
    assert max(values) - min(values) < 0.2
    assert near([sum(values) / 50], [5.0], 1e-2)


def test_analog_settings_are_checked_and_named():
    for name, value in (
        ("measures", "Druck!"),
        ("unit", ""),
        ("shunt_ohm", 250),
        ("at_20_ma", 0),
        ("at_4_ma", None),
    ):
        raises("config." + name, lambda name=name, value=value: analog(**{name: value}))


def hcsr04(**options):
    fakes.reset()
    return made("hcsr04", trigger="d0", echo="d1", **options)


def test_hcsr04_measures_a_distance_at_the_airs_temperature():
    sensor = hcsr04()
    Machine.echo_us = 5831
    assert near(sensor.sample(), [100.1], 1e-3)
    sensor = hcsr04(air_cel=0)
    Machine.echo_us = 6037
    assert near(sensor.sample(), [100.0], 1e-3)


def test_hcsr04_triggers_for_ten_microseconds():
    sensor = hcsr04()
    seen = []
    Pin.watchers[D0] = lambda level: seen.append((level, clock.us))
    Machine.echo_us = 1000
    sensor.sample()
    assert [level for level, _ in seen] == [1, 0]
    assert seen[1][1] - seen[0][1] >= 10


def test_hcsr04_lets_the_last_ping_die_away():
    sensor = hcsr04()
    pings = []
    Pin.watchers[D0] = lambda level: pings.append(clock.us) if level else None
    Machine.echo_us = 1000
    for _ in range(4):
        sensor.sample()
    assert all(later - sooner >= 59_000 for sooner, later in zip(pings, pings[1:]))
    clock.sleep_ms(1000)
    begin = clock.us
    sensor.sample()
    assert clock.us - begin < 10_000


def test_hcsr04_without_echo_obstacle_or_end():
    sensor = hcsr04()
    begin = clock.us
    assert fault(sensor.sample) == "absent"
    for us in (38_000, 45_000):
        Machine.echo_us = us
        assert fault(sensor.sample) == "range"
    Pin.levels[D1] = 1
    assert fault(sensor.sample) == "timeout"
    assert clock.us - begin < 400_000
    Pin.levels[D1] = 0
    Machine.echo_us = 583
    assert near(sensor.sample(), [10.0], 1e-2)


def test_proximity_says_what_most_readings_say():
    fakes.reset()
    sensor = made("proximity", pin="d0")
    assert sensor.sample() == [0.0]
    Pin.levels[D0] = 0
    assert sensor.sample() == [1.0]
    bounces = [0, 1, 0, 1, 0]
    read = Pin.value
    Pin.value = lambda self, level=None: bounces.pop() if level is None else read(self, level)
    try:
        assert sensor.sample() == [1.0]
    finally:
        Pin.value = read
    fakes.reset()
    sensor = made("proximity", pin="d0", pull="down", active="high")
    assert sensor.sample() == [0.0]
    Pin.levels[D0] = 1
    assert sensor.sample() == [1.0]


class Reader:
    """An MFRC522 with `tag` (its number, 4 or 7 bytes) in the field, or None."""

    def __init__(self, version=0x92):
        self.registers = bytearray(64)
        self.registers[0x37] = version
        self.registers[0x14] = 0x80
        self.tag = None
        self.damage = 0
        self._fifo = b""
        self._address = None
        self._state = "idle"

    def write(self, data):
        assert Pin.levels[CS0] == 0, "not selected"
        register = data[0] >> 1 & 0x3F
        if data[0] & 0x80:
            self._address = register
            return
        value = data[1]
        if register == 0x09:
            self._fifo += bytes((value,))
        elif register == 0x0A and value & 0x80:
            self._fifo = b""
        elif register == 0x01 and value == 0x0F:
            self.registers[0x14] = 0x80
        elif register == 0x01 and value == 0x03:
            crc = crc_a(self._fifo)
            self.registers[0x21], self.registers[0x22] = crc >> 8, crc & 0xFF
            self.registers[0x05] = 0x04
        elif register == 0x04:
            self.registers[0x04] = 0
        elif register == 0x0D and value & 0x80:
            self._exchange(value & 7)
        else:
            self.registers[register] = value

    def read(self, count):
        if self._address == 0x09:
            byte, self._fifo = self._fifo[:1], self._fifo[1:]
            return byte
        if self._address == 0x0A:
            return bytes((len(self._fifo),))
        return bytes((self.registers[self._address],))

    def _exchange(self, bits):
        answer = None if self.tag is None else self._answer(self._fifo, bits)
        if answer is None:
            clock.sleep_ms(25)
            self._state = "idle"
            self.registers[0x04] = 0x01
            self._fifo = b""
        else:
            clock.sleep_ms(1)
            self.registers[0x04] = 0x30
            self._fifo = answer

    def _answer(self, order, bits):
        """What the tag says, by ISO/IEC 14443-3."""
        if bits == 7:
            if self._state != "idle":
                return None
            self._state = "ready"
            return b"\x44\x00"
        parts = [self.tag] if len(self.tag) == 4 else [b"\x88" + self.tag[:3], self.tag[3:]]
        level = {0x93: 0, 0x95: 1}[order[0]]
        part = parts[level]
        block = part[0] ^ part[1] ^ part[2] ^ part[3] ^ self.damage
        if order[1] == 0x20:
            return part + bytes((block,))
        assert order[1] == 0x70 and order[2:6] == part
        crc = crc_a(order[:7])
        return b"\x04" if order[7:] == bytes((crc & 0xFF, crc >> 8)) else None


def crc_a(data):
    """ISO/IEC 14443-3 annex B."""
    crc = 0x6363
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x8408 if crc & 1 else crc >> 1
    return crc


def mfrc522():
    fakes.reset()
    SPI.device = Reader()
    return made("mfrc522", bus="spi0", select="cs0"), SPI.device


def test_mfrc522_reads_numbers_of_four_and_of_seven_bytes():
    assert crc_a(b"\x00\x00") == 0x1EA0  # the example of the standard: A0 1E
    sensor, reader = mfrc522()
    assert sensor.sample() == [0.0, 0.0, 0.0, 0.0]
    reader.tag = bytes.fromhex("deadbeef")
    assert sensor.sample() == [4.0, 0.0, float(0xDE), float(0xADBEEF)]
    reader.tag = bytes.fromhex("04a1b2c3d4e5f6")
    assert sensor.sample() == [7.0, float(0x04), float(0xA1B2C3), float(0xD4E5F6)]
    reader.tag = None
    assert sensor.sample() == [0.0, 0.0, 0.0, 0.0]


def test_a_tag_that_stays_is_there_in_every_row():
    sensor, reader = mfrc522()
    reader.tag = bytes.fromhex("01020304")
    for _ in range(6):
        assert sensor.sample()[0] == 4.0


def test_a_damaged_number_is_none():
    sensor, reader = mfrc522()
    reader.tag, reader.damage = bytes.fromhex("01020304"), 1
    assert fault(sensor.sample) == "crc"
    reader.damage = 0
    assert sensor.sample()[0] == 4.0


def test_a_reader_that_is_absent_or_lost_its_power_is_found_out():
    fakes.reset()
    assert fault(new("mfrc522", bus="spi0", select="cs0").open) == "absent"
    sensor, reader = mfrc522()
    reader.registers[0x14] = 0x80
    assert fault(sensor.sample) == "no-data"
    reader.registers[0x37] = 0
    assert fault(sensor.open) == "absent"
