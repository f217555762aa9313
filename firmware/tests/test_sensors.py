"""The driver that joins sensors: names, failures, and that a sensor comes back."""

# ruff: noqa: SLF001 - a test may look inside

import drivers
import fakes
from fakes import ADC, I2C, UART, Pin, clock
from fogline.errors import ConfigError
from support import Random
from test_i2c_sensors import Bh1750, Bme280, Ina219

AIR = {"name": "bme280", "label": "air", "bus": "i2c0"}
SUPPLY = {"name": "ina219", "label": "supply", "bus": "i2c0"}
LIGHT = {"name": "bh1750", "bus": "i2c0"}
ALL = (
    {"name": "adxl345", "bus": "i2c0"},
    {"name": "analog", "adc": "adc0", "measures": "level", "unit": "m", "at_4_ma": 0,
     "at_20_ma": 2},
    LIGHT,
    AIR,
    {"name": "elm327", "bus": "uart0"},
    {"name": "hcsr04", "trigger": "d0", "echo": "d1"},
    SUPPLY,
    {"name": "mfrc522", "bus": "spi0", "select": "cs0", "channels": {"uid_bytes": "tag"}},
    {"name": "mpu6050", "bus": "i2c0"},
    {"name": "proximity", "pin": "d2"},
    {"name": "pulse", "pin": "d3", "measures": "flow", "per_unit": 450},
    {"name": "pzem004t", "bus": "uart1"},
)  # fmt: skip


def plug_in():
    I2C.chips[0x76] = Bme280()
    supply = I2C.chips[0x40] = Ina219()
    supply.words[2] = 12 * 250 << 3 | 2
    I2C.chips[0x23] = Bh1750()


def driver(*sensors, reports=None):
    def report(event, **fields):
        if reports is not None:
            reports.append((event, fields.get("sensor"), fields.get("code")))

    made = drivers.create({"name": "sensors", "sensors": list(sensors)}, report)
    made.open(None)
    return made


def refused_setting(*sensors, **more):
    fakes.reset()
    options = {"name": "sensors", "sensors": list(sensors)}
    options.update(more)
    try:
        drivers.create(options, None)
    except ConfigError as error:
        return error.code
    raise AssertionError("taken")


def test_a_row_holds_the_channels_of_all():
    fakes.reset()
    plug_in()
    made = driver(AIR, SUPPLY, LIGHT)
    assert [channel.name for channel in made.channels] == [
        "air/temperature",
        "air/humidity",
        "air/pressure",
        "supply/voltage",
        "supply/current",
        "supply/power",
        "bh1750/illuminance",
    ]
    time_ms, values = made.sample()
    assert time_ms is None  # of now
    assert None not in values and len(values) == 7
    assert made.sensors == ("air", "supply", "bh1750")
    assert made.faults == ()
    assert made.position == []


def test_channels_are_renamed_and_left_out():
    fakes.reset()
    plug_in()
    names = {"temperature": "thermocouple", "humidity": None, "pressure": None}
    made = driver(dict(AIR, channels=names))
    assert [tuple(channel) for channel in made.channels] == [("thermocouple", "Cel", -40.0, 85.0)]
    assert len(made.sample()[1]) == 1


def test_a_sensor_that_fails_is_named_and_the_others_go_on():
    fakes.reset()
    plug_in()
    reports = []
    made = driver(AIR, SUPPLY, LIGHT, reports=reports)
    made.sample()
    gone = I2C.chips.pop(0x40)
    for _ in range(3):
        values = made.sample()[1]
        assert values[3:6] == [None] * 3
        assert None not in values[:3] + values[6:]
        assert made.faults == (("supply", "absent"),)
    I2C.chips[0x40] = gone
    clock.sleep_ms(1100)
    assert None not in made.sample()[1]
    assert made.faults == ()
    # Told when it changes, not with each row.
    assert reports == [("fault", "supply", "absent"), ("recovered", "supply", None)]


def test_a_sensor_that_is_missing_at_the_start_comes_when_it_is_plugged_in():
    fakes.reset()
    made = driver(AIR, SUPPLY)
    assert made.sample()[1] == [None] * 6
    assert made.faults == (("air", "absent"), ("supply", "absent"))
    plug_in()
    clock.sleep_ms(5000)
    assert None not in made.sample()[1]


def test_a_sensor_that_stays_away_is_tried_ever_more_seldom_and_at_least_once_a_minute():
    fakes.reset()
    made = driver(AIR)
    tries = []
    part = made._parts[0]
    begin = part._sensor.open
    part._sensor.open = lambda: (tries.append(clock.us), begin())
    for _ in range(3000):
        clock.sleep_ms(100)
        made.sample()
        assert made.faults == (("air", "absent"),)
    pauses = [(later - sooner) // 1_000_000 for sooner, later in zip(tries, tries[1:])]
    assert pauses[:4] == [2, 4, 8, 16]
    assert max(pauses) <= 61
    assert 8 <= len(tries) <= 14


def test_a_value_that_no_such_sensor_can_measure_is_a_fault():
    fakes.reset()
    plug_in()
    made = driver(SUPPLY)
    I2C.chips[0x40].words[2] = 30 * 250 << 3 | 2  # 30 V; the inputs stand 26
    assert made.sample()[1] == [None] * 3
    assert made.faults == (("supply", "range"),)
    I2C.chips[0x40].words[2] = 12 * 250 << 3 | 2
    assert None not in made.sample()[1]


def test_a_defect_in_one_driver_stops_no_other():
    fakes.reset()
    plug_in()
    made = driver(AIR, LIGHT)
    made._parts[0]._sensor.sample = lambda: 1 // 0
    values = made.sample()[1]
    assert values[:3] == [None] * 3 and values[3] is not None
    assert made.faults == (("air", "defect"),)


def test_the_bus_itself_may_fail():
    class Stuck:
        def read(self, register, count):
            raise OSError(self.errno, "as set")

    fakes.reset()
    made = driver(AIR)
    for errno, code in (
        (5, "absent"),
        (19, "absent"),
        (110, "timeout"),
        (116, "timeout"),
        (9, "bus"),
    ):
        I2C.chips[0x76] = Stuck()
        I2C.chips[0x76].errno = errno
        clock.sleep_ms(120_000)
        made.sample()
        assert made.faults == (("air", code),), errno


def test_a_chip_that_holds_the_bus_is_clocked_free():
    class Held(Bme280):
        """Keeps the data line down until it has seen nine clocks."""

        held = True

        def read(self, register, count):
            if self.held:
                raise OSError(110, "ETIMEDOUT")
            return super().read(register, count)

    fakes.reset()
    plug_in()
    chip = I2C.chips[0x76] = Held()
    clocks = []

    def watch(level):
        clocks.append(level)
        chip.held = clocks.count(0) < 9

    Pin.watchers[5] = watch
    made = driver(AIR, LIGHT)
    values = made.sample()[1]
    assert made.faults == (("air", "timeout"),)
    assert values[3] is not None
    clock.sleep_ms(1100)
    assert None not in made.sample()[1]
    assert len(clocks) == 18


def test_dead_or_babbling_wires_cost_a_bounded_time():
    from drivers.sensor import MAX_OPEN_MS, MAX_SAMPLE_MS

    class Babble:
        source = Random(99)

        def read(self, register, count):
            return self.source.bytes(count)

        def write(self, register, data):
            pass

        def take(self, data):
            pass

        def give(self):
            return self.source.bytes(20)

    for noise in (False, True):
        for sensor in ALL:
            fakes.reset()
            if noise:
                UART.device = Babble()
                for address in (0x76, 0x40, 0x23, 0x53, 0x68):
                    I2C.chips[address] = Babble()
            begin = clock.us
            made = driver(sensor)
            assert clock.us - begin <= MAX_OPEN_MS * 1000, sensor["name"]
            for _ in range(5):
                begin = clock.us
                made.sample()
                assert clock.us - begin <= (MAX_OPEN_MS + MAX_SAMPLE_MS) * 1000, sensor["name"]
                clock.sleep_ms(20_000)


def test_every_sensor_at_once_fits_one_board():
    fakes.reset()
    plug_in()
    ADC.volts[26] = 1.8
    # Two UARTs, one SPI, 32 channels at the most: what a shop floor's corner needs.
    chosen = [dict(item) for item in ALL]
    made = driver(*chosen)
    assert len(made.sensors) == 12
    values = made.sample()[1]
    assert len(values) == len(made.channels) <= 32
    names = [channel.name for channel in made.channels]
    assert "tag" in names
    for channel in made.channels:
        assert channel.minimum < channel.maximum
    faulty = [label for label, _ in made.faults]
    assert not {"air", "supply", "bh1750", "analog", "proximity", "pulse"} & set(faulty)


def test_settings_are_checked_and_named():
    at = "config.driver.sensors"
    assert refused_setting() == at
    assert refused_setting(AIR, buses={}) == "config.driver.buses"
    assert refused_setting({"name": "abacus"}) == at + "[0].name"
    assert refused_setting({"name": "bme280"}) == at + "[0].bus"
    assert refused_setting(dict(AIR, colour=1)) == at + "[0].colour"
    assert refused_setting(dict(AIR, bus="i2c7")) == at + "[0].bus"
    assert refused_setting(dict(AIR, address=0x40)) == at + "[0].address"
    assert refused_setting(dict(AIR, label="")) == at + "[0].label"
    assert refused_setting(dict(AIR, label="-a")) == at + "[0].label"
    assert refused_setting(dict(AIR, label="a" * 27)) == at + "[0].label"
    assert refused_setting(dict(AIR, label="a" * 22)) == at + "[0].channels.temperature"
    assert refused_setting(dict(AIR, channels={"rain": "x"})) == at + "[0].channels.rain"
    for name in ("", "model/x", "fault/x", "-x", "x y", "x" * 33):
        assert (
            refused_setting(dict(AIR, channels={"pressure": name})) == at + "[0].channels.pressure"
        )
    assert refused_setting(AIR, dict(AIR, address=0x77)) == at + "[1].label"
    twice = {"temperature": "air/humidity"}
    assert refused_setting(dict(AIR, channels=twice)) == at + "[0].channels"
    pin = {"name": "proximity", "pin": "d0"}
    assert refused_setting(pin, dict(pin, label="b")) == at + "[1].pin"
