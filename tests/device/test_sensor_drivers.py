"""The drivers of sensors against fake chips, under a real MicroPython."""

import json
import random
import struct
from pathlib import Path

import pytest

from fog_node.ledger.state import check_readings
from fog_node.protocol import senml
from fog_node.protocol.senml import decode_pack
from fog_node.protocol.transactions import Channel

FIRMWARE = Path(__file__).parents[2] / "firmware"
PROBE = Path(__file__).with_name("sensor_probe.py")
PACKS = Path(__file__).with_name("pack_probe.py")
KID = bytes.fromhex("a6b22b49b399d871")
CASES = 200


def test_every_driver_has_tests_and_a_place_in_the_table():
    """A sensor that is offered is tested, and told of where technicians look."""
    names = {path.stem for path in (FIRMWARE / "drivers").glob("*.py")}
    shared = {
        "__init__", "base", "script", "sensor", "sensors", "sensors_setup", "vibration", "modbus",
        "water_circulation",
    }  # fmt: skip
    offered = names - shared - {"replay", "testbed"}
    listed = (FIRMWARE / "drivers" / "sensors_setup.py").read_text(encoding="utf-8")
    table = (FIRMWARE / "drivers" / "README.md").read_text(encoding="utf-8")
    tests = "".join(
        path.read_text(encoding="utf-8") for path in (FIRMWARE / "tests").glob("test_*_sensors.py")
    )
    for name in offered:
        assert f'"{name}",' in listed
        assert f"| `{name}` |" in table
        assert f'"{name}"' in tests


@pytest.fixture(scope="module")
def packs(run_firmware):
    """(channels, packs) of a board whose sensors fail and come back, as the hub reads them."""
    done = run_firmware(PROBE, modules=FIRMWARE / "tests")
    assert done.returncode == 0, done.stdout + done.stderr
    first, *rest = done.stdout.splitlines()
    channels = [Channel(*channel) for channel in json.loads(first)]
    return channels, [decode_pack(bytes.fromhex(line)) for line in rest]


def test_the_hub_reads_which_sensor_failed_and_takes_what_the_others_say(packs):
    channels, found = packs
    for pack in found:
        check_readings(channels, pack.readings)
    faults = [[(fault.sensor, fault.code) for fault in pack.faults] for pack in found]
    supply = ("supply", "absent")
    assert faults[0] == []
    assert faults[1] == faults[2] == [supply]
    assert set(faults[3]) == {("air", "absent"), supply, ("bh1750", "absent")}
    # Fault records carry the time at which the sensor first gave nothing.
    start = found[0].base_time
    assert [fault.time - start for fault in found[1].faults] == [4]
    seen = [{reading.name.split("/")[0] for reading in pack.readings} for pack in found]
    assert seen[0] == {"air", "supply", "bh1750"}
    assert seen[1] == {"air", "bh1750"}
    assert seen[3] == set()


def test_sensors_that_are_plugged_in_again_come_back_by_themselves(packs):
    _, found = packs
    assert {reading.name.split("/")[0] for reading in found[5].readings} == {
        "air", "supply", "bh1750",
    }  # fmt: skip


def single(value):
    return struct.unpack(">f", struct.pack(">f", value))[0]


def a_case(source):
    """A board's rows, some before it knew the time, with sensors that fail now and then."""
    timeless = source.random() < 0.4
    time_ms = source.randrange(5_000_000) if timeless else 1_767_225_600_000 + source.randrange(999)
    sensors = [f"s{index}" for index in range(source.randrange(1, 5))]
    channels = source.randrange(1, 5)
    rows = []
    for _ in range(source.randrange(1, 12)):
        values = [source.choice((None, source.uniform(-1e4, 1e4))) for _ in range(channels)]
        failed = [s for s in sensors if source.random() < 0.2]
        rows.append([time_ms, values, [[s, source.choice(("absent", "crc"))] for s in failed]])
        time_ms += source.choice((1000, 1, 999, 250, 7000))
    if timeless:
        clock = [source.randrange(2**32), rows[-1][0] + source.randrange(5000), None]
    else:
        giver = source.choice((KID.hex(), 0, 1))
        begin = rows[0][0] // 1000 * 1000 - source.randrange(2**40)
        clock = source.choice((None, [source.randrange(2**32), begin, giver]))
    return {"sensors": sensors, "channels": channels, "rows": rows, "clock": clock}


def by_the_hub(case):
    """The same pack as the hub writes it; nothing where nothing is in it."""
    kept = [row for row in case["rows"] if row[2] or any(v is not None for v in row[1])]
    if not kept:
        return ""
    begin = base = kept[0][0] // 1000
    clock = None
    if case["clock"] is not None:
        boot, ms, giver = case["clock"]
        if giver is None:
            now = -(-ms // 1000)
            base -= now
            clock = senml.Clock(base, boot, now * 1000, None)
        else:
            by = bytes.fromhex(giver) if isinstance(giver, str) else giver
            clock = senml.Clock(base, boot, base * 1000 - ms, by)

    def offset(time_ms):
        ms = time_ms - begin * 1000
        return single(ms / 1000) if ms % 1000 else ms // 1000

    rows = [
        (offset(t), [(f"c{i}", "V", single(v)) for i, v in enumerate(values) if v is not None])
        for t, values, _ in kept
    ]
    faults = {}
    for time_ms, _, failed in kept:
        for label, code in failed:
            faults.setdefault(label, senml.Fault(base + offset(time_ms), label, code))
    return senml.encode_pack(
        32473, KID, base, rows, clock=clock, faults=list(faults.values())
    ).hex()


def test_what_a_board_packs_is_what_the_hub_reads(run_firmware):
    seed = random.SystemRandom().getrandbits(64)
    print(f"seed {seed}")
    source = random.Random(seed)
    cases = [a_case(source) for _ in range(CASES)]
    done = run_firmware(PACKS, stdin="".join(json.dumps(case) + "\n" for case in cases))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    for case, line in zip(cases, done.stdout.split("\n"), strict=False):
        expected = by_the_hub(case)
        assert bool(line) == bool(expected), case
        if not line:
            continue
        pack, other = (decode_pack(bytes.fromhex(text)) for text in (line, expected))
        assert (pack.base_time, pack.clock, pack.readings) == (
            other.base_time, other.clock, other.readings,
        ), case  # fmt: skip
        assert pack.has_time == (case["rows"][0][0] > 2**28 * 1000)
        assert [fault[1:] for fault in pack.faults] == [fault[1:] for fault in other.faults], case
        # The hub adds and takes off the base time as a float, which costs the last bits.
        for fault, same in zip(pack.faults, other.faults, strict=True):
            assert abs(fault.time - same.time) < 1e-6
