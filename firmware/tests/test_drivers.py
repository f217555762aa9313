"""The drivers: one shape, what they read, and that they go on where they stood."""

import os

import drivers
from drivers.base import WAIT_MODEL
from drivers.replay import parse_time
from fogline.errors import ConfigError, DriverError

CSV = "test_replay.csv"
# The channels stand in another order than ours, among columns that are not read.
HEADER = (
    "anomaly;Voltage;datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;"
    "Temperature;Thermocouple;Volume Flow RateRMS;changepoint"
)
FIRST_S = 1583748873  # 2020-03-09 10:14:33 UTC
FAULTS = (None, "valve1", "valve2", "cavitation", "imbalance")


def row(second, value=1.0, label="0.0"):
    cells = [label, "230.5", f"2020-03-09 10:14:{second:02d}"]
    return ";".join(cells + [str(value + index) for index in range(7)] + [label])


def write(*lines):
    with open(CSV, "wb") as file:
        file.write(("\r\n".join(lines) + "\r\n").encode())


def removed(function):
    def wrapped():
        try:
            function()
        finally:
            try:
                os.remove(CSV)
            except OSError:
                pass

    return wrapped


def replay(script, reports=None, position=None):
    def report(event, **fields):
        if reports is None:
            raise AssertionError(event, fields)
        reports.append((event, fields))

    driver = drivers.create({"name": "replay", "script": script}, report)
    driver.open(position)
    return driver


def everything(driver):
    """Return [(sample, position behind it)]."""
    items = []
    while True:
        item = driver.sample()
        if item is None:
            return items
        items.append((item, driver.position))


def refused_setting(options):
    try:
        drivers.create(options, None)
    except ConfigError as error:
        return error.code
    raise AssertionError("taken")


@removed
def test_replay_reads_the_channels_and_nothing_else():
    # A label that is no number would be found out if it were read.
    write(HEADER, row(33, label="secret"), row(34))
    items = [item for item, _ in everything(replay([{"path": CSV}]))]
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 230.5, 7.0]
    assert items == [(FIRST_S * 1000, values), ((FIRST_S + 1) * 1000, values)]


@removed
def test_replay_plays_a_part_and_waits():
    write(HEADER, *[row(second) for second in range(10)])
    script = [{"path": CSV, "first": 2, "count": 3}, {"wait": "model"}, {"path": CSV, "first": 8}]
    items = [item for item, _ in everything(replay(script))]
    assert items[3] is WAIT_MODEL
    del items[3]
    seconds = [item[0] // 1000 - FIRST_S + 33 for item in items]
    assert seconds == [2, 3, 4, 8, 9]


@removed
def test_replay_goes_on_from_every_position():
    reports = []
    lines = [row(second, second) for second in range(9)]
    lines[4] = "garbage"
    write(HEADER, *lines)
    script = [{"path": CSV, "first": 1, "count": 5}, {"wait": "model"}, {"path": CSV}]
    whole = everything(replay(script, reports))
    assert len(whole) == 4 + 1 + 8
    for index, (_, position) in enumerate(whole):
        rest = everything(replay(script, reports, position))
        assert rest == whole[index + 1 :]


@removed
def test_replay_reports_unreadable_rows_and_goes_on():
    reports = []
    bad = (
        "",
        "a;b",
        row(5) + ";more",
        row(5).replace("230.5", "nan"),
        row(5).replace("230.5", "1_0"),
        row(5).replace("230.5", "0x10"),
        row(5).replace("230.5", "\xff"),
        row(5).replace("2020-03-09", "2020-02-30"),
        row(5).replace("2020-03-09 ", "2020-03-09T"),
        row(5).replace("10:14", "24:14"),
        row(5).replace("2020", "1970"),
        row(5) + "x" * 2000,
    )
    write(HEADER, row(1), *bad, row(2))
    items = [item for item, _ in everything(replay([{"path": CSV}], reports))]
    assert [item[0] // 1000 - FIRST_S + 33 for item in items] == [1, 2]
    assert [fields["row"] for _, fields in reports] == list(range(1, 1 + len(bad)))
    for event, fields in reports:
        assert event == "unreadable"
        assert fields["file"] == CSV


@removed
def test_replay_takes_an_empty_cell_as_no_reading():
    write(HEADER, row(33).replace("230.5", ""))
    assert replay([{"path": CSV}]).sample()[1][6] is None


@removed
def test_replay_reads_a_last_line_without_an_end():
    with open(CSV, "wb") as file:
        file.write((HEADER + "\n" + row(33)).encode())
    assert len(everything(replay([{"path": CSV}]))) == 1


@removed
def test_replay_says_that_a_part_is_empty():
    reports = []
    write(HEADER, row(33))
    assert everything(replay([{"path": CSV, "first": 7}], reports)) == []
    assert reports == [("empty", {"file": CSV})]


@removed
def test_replay_takes_other_channels_than_those_of_the_test_bed():
    write("coolant;label;datetime;speed", "80.5;x;2020-03-09 10:14:33;7")
    channels = [["speed", "km/h", 0, 255], ["coolant", "Cel", -40, 215]]
    driver = drivers.create(
        {"name": "replay", "script": [{"path": CSV}], "channels": channels}, None
    )
    driver.open(None)
    assert [list(channel) for channel in driver.channels] == channels
    assert driver.sample() == (FIRST_S * 1000, [7.0, 80.5])


def test_replay_refuses_channels_that_are_none():
    good = ["speed", "km/h", 0, 255]
    bad = (
        [],
        [good, good],
        [good[:3]],
        [["speed;", "km/h", 0, 255]],
        [["datetime", "km/h", 0, 255]],
        [["speed", "", 0, 255]],
        [["speed", "km/h", 255, 0]],
        [["speed", "km/h", "0", 255]],
    )
    for channels in bad:
        options = {"name": "replay", "script": [{"path": CSV}], "channels": channels}
        assert refused_setting(options).startswith("config.driver.channels")


@removed
def test_replay_goes_on_with_what_is_new_in_a_file_that_has_grown():
    write(HEADER, row(33), row(34))
    driver = replay([{"path": CSV}])
    driver.sample()
    driver.sample()
    position = driver.position
    assert driver.sample() is None
    write(HEADER, row(33), row(34), row(35))
    rest = everything(replay([{"path": CSV}], None, position))
    assert [item[0] // 1000 - FIRST_S + 33 for item, _ in rest] == [35]


@removed
def test_replay_refuses_a_file_before_it_starts():
    for header in (HEADER.replace("Voltage", "Volt"), HEADER + ";Voltage", ""):
        write(header, row(33))
        try:
            replay([{"path": CSV}])
        except DriverError as error:
            assert error.code == "driver.header"
            assert CSV in error.detail
        else:
            raise AssertionError("taken: " + header)
    try:
        replay([{"path": CSV}, {"path": "absent.csv"}])
    except DriverError as error:
        assert "absent.csv" in str(error) or error.code == "driver.header"
    else:
        raise AssertionError("taken")


def test_times_are_utc():
    assert parse_time(b"1978-07-04 21:24:16") == 1 << 28
    assert parse_time(b"2000-02-29 00:00:00") == 951782400
    assert parse_time(b"2020-03-09 10:14:33") == FIRST_S
    assert parse_time(b"2100-03-01 00:00:00") == 4107542400


def test_settings_are_checked_and_named():
    at = "config.driver"
    assert refused_setting({}) == at + ".name"
    assert refused_setting({"name": "abacus"}) == at + ".name"
    assert refused_setting({"name": "replay"}) == at + ".script"
    for item, key in (
        ({}, ".path"),
        ({"path": ""}, ".path"),
        ({"path": "x", "first": -1}, ".first"),
        ({"path": "x", "count": 0}, ".count"),
        ({"path": "x", "rows": 1}, ".rows"),
        ({"wait": "rain"}, ".wait"),
        ({"wait": "model", "path": "x"}, ".path"),
    ):
        assert refused_setting({"name": "replay", "script": [item]}) == at + ".script[0]" + key
    for options, key in (
        ({"seed": 1, "script": []}, ".script"),
        ({"seed": -1, "script": [{"rows": 1, "fault": None}]}, ".seed"),
        ({"seed": 1, "script": [{"rows": 0, "fault": None}]}, ".script[0].rows"),
        ({"seed": 1, "script": [{"rows": 1, "fault": "flood"}]}, ".script[0].fault"),
        ({"seed": 1, "script": [{"rows": 1}]}, ".script[0].fault"),
        ({"seed": 1, "script": [{"rows": 1, "fault": None}], "noise": 0}, ".noise"),
    ):
        options["name"] = "testbed"
        assert refused_setting(options) == at + key


def testbed(script, seed=1, position=None):
    driver = drivers.create({"name": "testbed", "seed": seed, "script": script}, None)
    driver.open(position)
    return driver


def means(fault):
    """Return the mean of each channel over 60 normal rows, and over 60 well into a fault."""
    script = [{"rows": 60, "fault": None}, {"rows": 80, "fault": fault}]
    rows = [item[1] for item, _ in everything(testbed(script))]
    parts = (rows[:60], rows[80:])
    return [[sum(column) / 60 for column in zip(*part)] for part in parts]


def test_testbed_repeats_itself_and_goes_on_from_every_position():
    script = [{"rows": 7, "fault": fault} for fault in (None, "valve1", None)]
    script.insert(1, {"wait": "model"})
    whole = everything(testbed(script))
    assert len(whole) == 22
    for index, (_, position) in enumerate(whole):
        assert everything(testbed(script, 1, position)) == whole[index + 1 :]
    assert everything(testbed(script, 2)) != whole


def test_testbed_times_rise_by_a_second():
    script = [{"rows": 5, "fault": None}, {"wait": "model"}, {"rows": 5, "fault": None}]
    times = [item[0] for item, _ in everything(testbed(script)) if item is not WAIT_MODEL]
    assert [later - times[0] for later in times] == [1000 * index for index in range(10)]


def test_testbed_values_are_plausible_and_in_the_range_of_the_real_bed():
    ranges = (
        (0.03, 0.2),
        (0.03, 0.4),
        (0.5, 3.0),
        (0.05, 0.6),
        (65, 95),
        (22, 28),
        (200, 260),
        (40, 130),
    )
    script = [{"rows": 40, "fault": fault} for fault in FAULTS]
    driver = testbed(script)
    for item, _ in everything(driver):
        for value, (least, most), channel in zip(item[1], ranges, driver.channels):
            assert least <= value <= most, (channel.name, value)
            assert channel.minimum <= value <= channel.maximum


def test_testbed_faults_change_several_channels_as_physics_has_it():
    vibration1, vibration2, current, pressure, _, _, _, flow = range(8)
    normal, valve1 = means("valve1")
    assert valve1[flow] < 0.9 * normal[flow]
    assert valve1[pressure] > 1.2 * normal[pressure]
    normal, valve2 = means("valve2")
    assert valve2[flow] < 0.9 * normal[flow]
    assert valve2[pressure] < 0.9 * normal[pressure]
    assert valve2[current] < normal[current]
    normal, cavitation = means("cavitation")
    assert cavitation[vibration1] > 1.3 * normal[vibration1]
    assert cavitation[flow] < normal[flow]
    assert cavitation[current] < normal[current]
    normal, imbalance = means("imbalance")
    assert imbalance[vibration1] > 1.3 * normal[vibration1]
    assert imbalance[vibration2] > 1.2 * normal[vibration2]
    assert imbalance[current] > 1.05 * normal[current]
