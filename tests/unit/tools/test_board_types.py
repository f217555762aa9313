"""The check of the firmware's types finds what a board lacks, and says so by its port."""

import pytest

from tools import board_types


@pytest.fixture
def stubs():
    """The installed stubs; `make check` brings them, and this where it has not run."""
    if not all((board_types.STUBS / port).is_dir() for port in board_types.PORTS):
        board_types.install()
    return board_types.STUBS


@pytest.fixture
def firmware(tmp_path):
    """A firmware of one module with these lines."""

    def write(*lines):
        (tmp_path / "fogline").mkdir(exist_ok=True)
        (tmp_path / "fogline" / "__init__.py").write_text("")
        (tmp_path / "fogline" / "part.py").write_text("\n".join(lines) + "\n")
        return tmp_path

    return write


def test_what_a_board_lacks_is_found(stubs, firmware) -> None:
    written = firmware(
        "import machine, time, pathlib",
        "def run():",
        "    time.sleep_ms(5)",
        "    time.perf_counter()",
        "    machine.Pin(1).value(2, 3, 4)",
        "    machine.Pim(1)",
    )
    found = "\n".join(board_types.check("rp2", written, stubs))
    for words in ('"pathlib"', '"perf_counter"', '"value"', '"Pim"'):
        assert words in found
    assert "sleep_ms" not in found


def test_a_port_has_what_another_lacks(stubs, firmware) -> None:
    written = firmware("import rp2", "pin = rp2.PIO")
    assert board_types.check("rp2", written, stubs) == []
    assert any('"rp2"' in line for line in board_types.check("esp32", written, stubs))


def test_missing_stubs_are_no_success(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="make check installs them"):
        board_types.check("rp2", stubs=tmp_path)
