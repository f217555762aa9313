"""Rig files, switches, and the states of a place; with fakes for what hangs on a bench."""

from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import gpiod
import pytest
from gpiod.line import Direction, Value
from typer.testing import CliRunner

from tools.commands import hil
from tools.errors import ToolError, UsageError
from tools.hil import place as places
from tools.hil import power
from tools.hil.place import STEPS, Place, PlaceTarget, SerialBoard, State, open_place, way
from tools.hil.rig_file import PlaceFile, SysfsSwitch, read_rig
from tools.hil.target import TargetError

EXAMPLE = Path(__file__).parents[2] / "hardware" / "rig" / "example.toml"
PICO = "Raspberry Pi Pico with RP2040"
PLACE = '[[place]]\nname = "a"\nboard = "pico"\nport = "/dev/ttyACM0"\n'


def rig_of(tmp_path, text, head='name = "bench"\n'):
    path = tmp_path / "rig.toml"
    path.write_text(head + text)
    return read_rig(path)


def test_the_example_is_a_rig():
    rig = read_rig(EXAMPLE)
    assert [one.name for one in rig.places()] == ["pico-1", "esp32-1", "c3-1", "emulated"]
    assert {one.power.by for one in rig.place} == {"uhubctl", "gpiod", "command", "none"}
    assert rig.places(("c3-1",))[0].board == "esp32-c3"
    with pytest.raises(UsageError, match="no place x: pico-1"):
        rig.places(("x",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "place: Field required"),
        ("place = []\n", "at least 1"),
        (PLACE + "colour = 1\n", "colour"),
        (PLACE + 'usb_serial = "1"\n', "one of usb_serial, port and emulator"),
        (PLACE.replace("port", "#"), "one of usb_serial, port and emulator"),
        (PLACE.replace("pico", "pony"), "no board pony"),
        (PLACE + PLACE, "two have the name a"),
        (PLACE + PLACE.replace('"a"', '"b"'), "two have the port"),
        (PLACE + 'power = { by = "magic" }\n', "magic"),
        (PLACE + 'power = { by = "uhubctl", hub = "1-1; ls", port = 1 }\n', "hub"),
        (PLACE + 'power = { by = "command", on = [], off = ["x"] }\n', "on"),
        (PLACE + 'power = { by = "gpiod", chip = "/dev/sda", line = 1 }\n', "chip"),
        (PLACE + 'loopbacks = [["d0", "d99"]]\n', "no pin d99"),
        (PLACE + 'loopbacks = [["d0", "d0"]]\n', "wired to itself"),
        (PLACE + "off_s = 0.0\n", "off_s"),
        ("[[place", "not TOML"),
    ],
)
def test_what_is_wrong_in_a_rig_file_is_named(text, says, tmp_path):
    with pytest.raises(ToolError, match=r"rig\.toml.*" + says):
        rig_of(tmp_path, text)


def test_two_places_have_no_switch_in_common(tmp_path):
    switch = 'power = { by = "uhubctl", hub = "1-1", port = 1 }\n'
    other = PLACE.replace('"a"', '"b"').replace("ACM0", "ACM1")
    with pytest.raises(ToolError, match="two have the power"):
        rig_of(tmp_path, PLACE + switch + other + switch)


def test_a_rig_file_that_is_missing_or_too_large(tmp_path):
    with pytest.raises(ToolError, match="example"):
        read_rig(tmp_path / "none.toml")
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * 70_000)
    with pytest.raises(ToolError, match="larger"):
        read_rig(large)


# States


@pytest.mark.parametrize(
    ("start", "end", "has_switch", "path"),
    [
        ("unknown", "on", True, ["on"]),
        ("unknown", "provisioned", False, ["on", "provisioned"]),
        ("bootloader", "provisioned", True, ["off", "on", "provisioned"]),
        ("bootloader", "on", False, None),
        ("on", "off", False, None),
        ("off", "bootloader", True, ["on", "bootloader"]),
        ("provisioned", "on", True, ["on"]),
        ("on", "on", False, []),
    ],
)
def test_ways_between_states(start, end, has_switch, path):
    found = way(State(start), State(end), has_switch)
    assert found == (None if path is None else tuple(map(State, path)))


def test_with_a_switch_every_state_can_be_reached_from_every_other():
    for start in State:
        for end in STEPS:
            if end is not State.UNKNOWN:
                assert way(start, end, True) is not None


class FakeTarget:
    capabilities = frozenset({"reset"})

    def __init__(self, board):
        self.board = board

    def about(self):
        return SimpleNamespace(
            machine=self.board.machine, implementation="cpython", mpy_version=0, mpy_arch=None
        )

    def put(self, files):
        self.board.log.append("put")
        self.board.files = set(files)
        return len(files)

    def start(self, code):
        self.board.log.append(code.split("\n")[-1])

    def close(self):
        self.board.log.append("close")


class FakeBoard:
    """A board that answers while it has power."""

    def __init__(self, machine=PICO):
        self.machine = machine
        self.log = []
        self.absent = False

    def open(self, timeout_s):
        if self.absent:
            raise TargetError("no board")
        self.log.append("open")
        return FakeTarget(self)

    def await_gone(self, timeout_s):
        self.log.append("gone")


def settings(**more):
    return PlaceFile(name="a", board="pico", port="/dev/ttyACM0", **more)


def fake_place(switch=None, board=None, **more):
    slept = []
    switch = switch or power.FakePower()
    return Place(settings(**more), switch, board or FakeBoard(), slept.append), switch, slept


def test_a_place_goes_through_its_states_and_back():
    place, switch, slept = fake_place(off_s=7.0)
    board = place._board
    for state in (State.PROVISIONED, State.BOOTLOADER, State.ON, State.OFF):
        place.reach(state)
        assert place.state is state
    assert board.log == [
        "open", "put", "machine.bootloader()", "close", "gone", "open", "close",
    ]  # fmt: skip
    assert switch.told == [True, False, True, False]
    assert slept == [7.0, 7.0]
    assert "launcher.py" in board.files
    with pytest.raises(TargetError, match="is off, not on"):
        assert place.target
    place.close()
    assert switch.closed


def test_without_a_switch_a_place_says_what_is_missing():
    place, _, _ = fake_place(power.NoPower("a"))
    place.reach(State.ON)
    with pytest.raises(TargetError, match="without a switch for its power"):
        place.reach(State.OFF)
    assert place.state is State.ON
    place.reach(State.BOOTLOADER)
    with pytest.raises(TargetError, match="from bootloader to on"):
        place.reach(State.ON)


def test_a_step_that_fails_leaves_the_state_unknown_and_the_same_call_mends_it():
    place, switch, _ = fake_place()
    place.reach(State.ON)
    switch.fail = "the hub is gone"
    with pytest.raises(TargetError, match="hub is gone"):
        place.reach(State.OFF)
    assert place.state is State.UNKNOWN
    switch.fail = None
    place.reach(State.PROVISIONED)
    assert place.state is State.PROVISIONED


def test_another_board_than_the_file_says_is_an_error():
    place, _, _ = fake_place(board=FakeBoard("ESP32C3 module with ESP32C3"))
    with pytest.raises(TargetError, match=r"ESP32C3 .* the rig file says pico"):
        place.reach(State.ON)
    assert place.state is State.UNKNOWN
    assert place._board.log == ["open", "close"]


def test_a_place_gives_its_boards_capabilities_its_power_and_its_wires():
    place, switch, _ = fake_place(loopbacks=(("d0", "d1"),))
    target = PlaceTarget("bench", place)
    assert target.name == "bench/a"
    assert target.capabilities == {"reset", "power", "loopback:d0-d1", "loopback:d1-d0"}
    assert place._board.files == {"hil_place.json"}
    target.power_cut()
    assert switch.told == [True, False, True]
    target.close()
    bare, _, _ = fake_place(power.NoPower("a"))
    assert PlaceTarget("bench", bare).capabilities == {"reset"}


def test_a_place_that_cannot_be_opened_lets_go_of_its_switch():
    board = FakeBoard()
    board.absent = True
    place, switch, _ = fake_place(board=board)
    with pytest.raises(TargetError, match="no board"):
        PlaceTarget("bench", place)
    assert switch.closed


def test_a_board_is_found_by_the_serial_number_of_its_usb(monkeypatch):
    ports = [
        SimpleNamespace(device="/dev/ttyACM3", serial_number="other"),
        SimpleNamespace(device="/dev/ttyACM7", serial_number="mine"),
    ]
    tries = iter([[], ports[:1], ports])
    monkeypatch.setattr(places.list_ports, "comports", lambda: next(tries))
    monkeypatch.setattr(places, "SerialTarget", lambda port: port)
    monkeypatch.setattr(places, "POLL_S", 0)
    board = SerialBoard(PlaceFile(name="a", board="pico", usb_serial="mine"))
    assert board.open(60) == "/dev/ttyACM7"
    monkeypatch.setattr(places.list_ports, "comports", list)
    with pytest.raises(TargetError, match=r"serial number mine.*device list"):
        board.open(0)
    board.await_gone(0)
    monkeypatch.setattr(places.list_ports, "comports", lambda: ports)
    with pytest.raises(TargetError, match="BOOTSEL"):
        board.await_gone(0)


# Switches


def test_uhubctl_is_asked_for_one_port_of_one_hub(tmp_path, monkeypatch):
    program = tmp_path / "uhubctl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    switch = power.open_power(read_rig(EXAMPLE).places(("pico-1",))[0])
    switch.switch(False)
    switch.switch(True)
    assert (tmp_path / "told").read_text().splitlines() == [
        "--location 1-1 --ports 2 --action off",
        "--location 1-1 --ports 2 --action on",
    ]
    program.write_text("#!/bin/sh\necho No compatible devices detected >&2\nexit 1\n")
    with pytest.raises(TargetError, match="pico-1: uhubctl ended with 1: No compatible"):
        switch.switch(True)


def test_a_program_that_is_missing_is_named():
    switch = power.open_power(read_rig(EXAMPLE).places(("c3-1",))[0])
    with pytest.raises(TargetError, match=r"no my-socket.*rig file"):
        switch.switch(True)


@pytest.mark.parametrize(("active_low", "levels"), [(False, "high low"), (True, "low high")])
def test_a_relay_behind_sysfs(active_low, levels, tmp_path):
    (tmp_path / "gpio17").mkdir()
    switch = power.SysfsPower(
        "a", SysfsSwitch(by="sysfs", number=17, active_low=active_low), tmp_path
    )
    written = []
    for on in (True, False):
        switch.switch(on)
        written.append((tmp_path / "gpio17" / "direction").read_text())
    assert written == levels.split()


def test_a_gpio_that_cannot_be_had_names_the_remedy(tmp_path):
    switch = power.SysfsPower("a", SysfsSwitch(by="sysfs", number=17), tmp_path)
    with pytest.raises(TargetError, match=r"GPIO 17: .*gpiod"):
        switch.switch(True)
    assert (tmp_path / "export").read_text() == "17"


def test_a_relay_behind_a_gpio_chip(monkeypatch):
    request = mock.create_autospec(gpiod.LineRequest, instance=True)
    asked = mock.create_autospec(gpiod.request_lines, return_value=request)
    monkeypatch.setattr(gpiod, "request_lines", asked)
    switch = power.open_power(read_rig(EXAMPLE).places(("esp32-1",))[0])
    switch.switch(False)
    switch.switch(True)
    switch.close()
    asked.assert_called_once()
    assert asked.call_args.args == ("/dev/gpiochip0",)
    line = asked.call_args.kwargs["config"][17]
    assert (line.direction, line.active_low) == (Direction.OUTPUT, True)
    assert line.output_value is Value.INACTIVE
    request.set_value.assert_called_once_with(17, Value.ACTIVE)
    request.release.assert_called_once()


def test_a_gpio_chip_that_is_not_there_names_the_remedy():
    switch = power.open_power(read_rig(EXAMPLE).places(("esp32-1",))[0])
    with pytest.raises(TargetError, match=r"gpiochip0 line 17: .*gpioinfo"):
        switch.switch(True)


# All of it, on a place that a process plays


def test_the_suite_runs_on_a_place(tmp_path):
    told = tmp_path / "told"
    script = f'["sh", "-c", "echo $0 >> {told}", '
    text = (
        '[[place]]\nname = "a"\nboard = "unix"\nemulator = "mock"\noff_s = 0.01\n'
        f'power = {{ by = "command", on = {script}"on"], off = {script}"off"] }}\n'
    )
    rig = rig_of(tmp_path, text)
    target = open_place(rig.name, rig.place[0])
    try:
        assert target.put({"x.txt": b"x"}) == 1
        target.power_cut()
        assert target.run("print(1)").checked().strip() == "1"
    finally:
        target.close()
    assert told.read_text().split() == ["on", "off", "on"]
    report = tmp_path / "report.json"
    done = CliRunner().invoke(
        hil.app,
        ["run", "--rig", str(tmp_path / "rig.toml"), "--place", "a", "--module", "test_clock",
         "--json", str(report)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert '"target": "bench/a"' in report.read_text()
    assert "bench/a: fake machine" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [([], "name a --target, or a --rig"), (["--place", "a"], "--rig")],
)
def test_places_and_targets_have_to_be_named(arguments, says):
    done = CliRunner().invoke(hil.app, ["run", *arguments])
    assert done.exit_code != 0
    assert says in f"{done.output} {done.exception}"


def test_a_place_that_qemu_plays_can_be_given_another_heap(tmp_path):
    text = '[[place]]\nname = "q"\nboard = "qemu-arm"\nemulator = "qemu-arm"\n'
    rig = rig_of(tmp_path, text)
    target = open_place(rig.name, rig.place[0])
    try:
        usual = target.about().heap_bytes
        target.with_heap(usual + 65536)
        assert target.about().heap_bytes > usual + 60_000
        target.large_heap()
        assert target.about().heap_bytes > 300 * 1024
        target.power_cut()
        assert target.run("print(1)").checked().strip() == "1"
    finally:
        target.close()
