"""The way of a board through `fogline device`, from the bag to its label, as it is typed."""

import hashlib
import json
import os
import threading

import pytest
from support.bench_boards import PtyBoard
from support.board_settings import values
from support.firmware_images import FakeDrive, uf2, uf2_rp2350

from tools import cli
from tools.devices import enrolment, monitor
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


def test_a_report_that_is_none(tmp_path, fogline) -> None:
    path = tmp_path / "report.json"
    for text in ("{", "[]", '{"boards": [{"ok": false, "kid": ""}]}', '{"boards": []}'):
        path.write_text(text)
        code, _, err = fogline("label", "--from", path, "--out", tmp_path / "a.pdf")
        assert code == cli.EXIT_USAGE
        assert str(path) in err


def test_a_bench_without_boards_says_so(fogline, monkeypatch) -> None:
    monkeypatch.setattr("tools.devices.found.list_ports.comports", list)
    code, _, err = fogline("list", "--no-ask")
    assert code == cli.EXIT_REFUSED
    assert "use a cable that carries data" in err
    assert os.environ.get("FOGLINE_MEMBER") is None
