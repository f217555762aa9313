"""The drivers of sensors against fake chips, under a real MicroPython."""

import json
from pathlib import Path

import pytest

from fog_node.ledger.state import check_readings
from fog_node.protocol.senml import decode_pack
from fog_node.protocol.transactions import Channel

FIRMWARE = Path(__file__).parents[2] / "firmware"
PROBE = Path(__file__).with_name("sensor_probe.py")
MODULES = ("i2c_sensors", "pin_sensors", "sensors", "uart_sensors", "vibration_sensors")


@pytest.mark.parametrize("module", MODULES)
def test_inside_micropython(run_firmware, module):
    done = run_firmware(FIRMWARE / "tests" / "run.py", f"test_{module}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    assert len(done.stdout.splitlines()) > 5


def test_every_driver_has_tests_and_a_place_in_the_table():
    """A sensor that is offered is tested, and told of where technicians look."""
    names = {path.stem for path in (FIRMWARE / "drivers").glob("*.py")}
    shared = {"__init__", "base", "sensor", "sensors", "vibration", "modbus", "water_circulation"}
    offered = names - shared - {"replay", "testbed"}
    listed = (FIRMWARE / "drivers" / "sensors.py").read_text(encoding="utf-8")
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
