"""hardware/boards: what is in it, and that a wrong file is refused with the key at fault."""

from __future__ import annotations

import pytest

from tools import board_tables, checks
from tools.boards import FOLDER, load_board, load_boards, read_board
from tools.errors import ToolError

GOOD = (FOLDER / "pico.toml").read_text(encoding="utf-8")


@pytest.fixture
def refusal(tmp_path):
    """Replace text in a good file, and say why it is refused."""

    def change(old, new, text=GOOD):
        assert old in text
        path = tmp_path / "pico.toml"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(ToolError) as caught:
            read_board(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    return change


def test_every_board_and_target_is_there():
    boards = load_boards()
    assert set(boards) == {
        "esp32-devkit", "esp32-s3", "esp32-c3", "pico", "pico-w", "pico2-w",
        "unix", "qemu-arm", "qemu-rv32",
    }  # fmt: skip
    for board in boards.values():
        assert board.sources
        assert board.capabilities.pins == (board.flash is not None)


def test_every_board_has_the_buses_that_settings_are_written_for():
    for board in load_boards().values():
        if board.capabilities.pins:
            assert {"i2c0", "spi0", "uart1", "adc0", "adc1", "adc2", "cs0", "d0", "d1"} <= set(
                board.uses()
            )


def test_a_pad_is_named_as_it_is_printed():
    assert load_board("pico").gpio.pad(4) == "GP4 (6)"
    assert load_board("esp32-devkit").gpio.pad(21) == "IO21"


def test_an_unknown_board_is_refused_with_the_known_ones():
    with pytest.raises(ToolError, match="pico-w"):
        load_board("pico-x")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[memory]", "[memory]\nrom_bytes = 1", "memory.rom_bytes: Extra inputs"),
        ("flash_bytes = 2_097_152", 'flash_bytes = "2 MB"', "memory.flash_bytes"),
        ("name = ", "id = 'pico'\nname = ", "id is the file's name"),
        ("wifi = false", "wifi = 0", "capabilities.wifi"),
        ('method = "uf2"', 'method = "dfu"', "flash"),
        ("sda = 4", "sda = 23", "i2c0: GPIO23 is not usable"),
        ("sda = 4", "sda = 5", "i2c0: has one GPIO twice"),
        ("sda = 4", "sda = 10", "gpio.shared is not what has more than one name: [10]"),
        ("adc0 = 26", "adc0 = 22", "adc.adc0: GPIO22 is not analogue"),
        ("input_only = []", "input_only = [4]", "GPIO4 only takes input"),
        ("shared = []", "shared = [1]", "gpio.shared"),
        ("0 = 1\n", "23 = 1\n", "gpio.header.23"),
        ("pins = true", "pins = false", "capabilities.pins"),
        ("d1 = 11", "adc1 = 11", "adc1 names two things"),
        ("name = ", "name ", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key(refusal, old, new, words):
    assert words in refusal(old, new)


def test_a_file_of_any_size_is_not_read(refusal):
    assert "larger than" in refusal("name = ", "#" + "x" * 20_000 + "\nname = ")


def test_boards_cannot_be_changed():
    board = load_board("pico")
    with pytest.raises(TypeError):
        board.pin["d9"] = 1
    with pytest.raises(TypeError):
        load_boards()["mine"] = board


def test_the_firmwares_table_is_current_and_a_stale_one_is_found(tmp_path):
    assert board_tables.main(["--check"]) == 0
    stale = tmp_path / "board_table.py"
    stale.write_text(board_tables.TABLE.read_text(encoding="utf-8") + "#", encoding="utf-8")
    assert "make fix" in board_tables.problem(stale)
    assert board_tables.problem(tmp_path / "none.py") is not None
    assert list(checks.board_table_is_current(checks.Checkout.at(checks.ROOT))) == []
