"""hardware/wiring: drawings and parts that are made from their sources, for every board."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tools import checks, wiring
from tools.boards import load_board, load_boards
from tools.errors import ToolError

WIRED = [board_id for board_id, board in load_boards().items() if board.gpio is not None]


@pytest.mark.parametrize("source", wiring.sources(), ids=lambda path: path.stem)
@pytest.mark.parametrize("board_id", WIRED)
def test_every_drawing_fits_every_board(source, board_id):
    text = wiring.fill(source.read_text("utf-8"), load_board(board_id))
    assert not re.search(r'"\{', text)


def test_a_pin_that_no_board_has_is_named():
    with pytest.raises(ToolError, match=r"pico-w has no i2c9\.sda"):
        wiring.fill('pinlabels: ["{i2c9.sda}"]', load_board("pico-w"))


def test_pads_are_those_of_the_board():
    text = 'pinlabels: ["{v3}", "{i2c0.sda}", "{adc0}"]'
    assert wiring.fill(text) == 'pinlabels: ["3.3 V", "i2c0 sda", "adc0"]'
    on_pico = wiring.fill(text, load_board("pico"))
    assert on_pico == 'pinlabels: ["3V3 (36)", "GP4 (6) = i2c0 sda", "GP26 (31) = adc0"]'


def test_the_parts_are_those_that_wireviz_finds():
    assert (wiring.FOLDER / wiring.PARTS_FILE).read_text("utf-8") == wiring.parts_text()
    assert ("1", "Bosch BME280, module, 3.3 V, address 0x76", "BME280") in wiring.parts(
        wiring.FOLDER / "i2c-sensors.yml"
    )


def test_drawings_are_current_and_a_stale_one_is_found(tmp_path):
    assert list(checks.drawings_are_current(checks.Checkout.at(checks.ROOT))) == []
    folder = tmp_path / "wiring"
    shutil.copytree(wiring.FOLDER, folder)
    source = folder / "distance.yml"
    source.write_text(source.read_text("utf-8") + "# changed\n", encoding="utf-8")
    (folder / "gone.svg").write_text("<svg/>", encoding="utf-8")
    found = [problem.split(":")[0].rpartition("/")[2] for problem in wiring.problems(folder)]
    assert found == ["distance.svg", "BOM.md", "gone.svg"]


def test_every_drawing_is_shown():
    page = (wiring.FOLDER / "README.md").read_text("utf-8")
    for source in wiring.sources():
        assert f"]({source.stem}.svg)" in page


def test_drawing_without_graphviz_names_the_remedy(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert wiring.main(["--board", "pico", "--out", str(tmp_path / "out")]) == 1
    assert "apt-get install graphviz" in capsys.readouterr().err


def test_a_source_that_is_none_is_refused_with_its_name(tmp_path):
    source = tmp_path / "broken.yml"
    source.write_text("connectors: {X1: {pins: 3}}\nconnections: [[X1, W9]]\n", encoding="utf-8")
    with pytest.raises(ToolError, match=r"broken\.yml"):
        wiring.parts(source)


def test_the_settings_of_the_whole_machine_run_on_every_board(run_micropython, tmp_path):
    """What the page tells technicians to write is taken by the firmware, with eight channels."""
    page = (wiring.FOLDER / "README.md").read_text("utf-8")
    block = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert block is not None
    options = json.loads(block[1])
    script = tmp_path / "settings.py"
    script.write_text(
        "import drivers, json\nfrom fogline import board\n"
        f"for name in {WIRED!r}:\n"
        "    board.select(name)\n"
        f"    made = drivers.create(json.loads({json.dumps(options)!r}), None)\n"
        "    print(json.dumps([list(channel)[:2] for channel in made.channels]))\n",
        encoding="utf-8",
    )
    lines = run_micropython(script).splitlines()
    assert len(lines) == len(WIRED)
    for line in lines:
        assert dict(json.loads(line)) == {
            "accelerometer1": "[g]", "accelerometer2": "[g]", "voltage": "V", "current": "A",
            "pressure": "bar", "temperature": "Cel", "thermocouple": "Cel", "flow": "L/min",
        }  # fmt: skip


@pytest.fixture
def run_micropython(monkeypatch):
    """Run a script with the firmware's modules; returns what it prints."""
    import os
    import subprocess

    from support.micropython import find_micropython

    def run(script):
        path = f"{checks.ROOT / 'firmware'}:.frozen"
        done = subprocess.run(
            [find_micropython(), "-X", "heapsize=2m", str(script)],
            env={**os.environ, "MICROPYPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
