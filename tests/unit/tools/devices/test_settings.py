"""Settings of boards: the user's file, completed by the founding file, with what it names."""

import json

import pytest

from tools.boards import load_boards
from tools.devices.settings import load_settings
from tools.errors import ToolError, UsageError

PICO = load_boards()["pico-w"]


@pytest.fixture
def written(tmp_path):
    """Path of a settings file with this in it."""

    def write(**values):
        path = tmp_path / "settings.json"
        path.write_text(json.dumps(values))
        return path

    return write


def test_the_founding_file_fills_in_what_is_left_out(written, chain) -> None:
    settings = load_settings(written(device_type="pump", release_keys=[]), chain.founding, [])
    board = json.loads(settings.board_json(PICO))
    assert board["chain_id"] == chain.founding.chain_id.hex()
    assert board["enterprise_number"] == chain.founding.parameters.enterprise_number
    assert {gateway["name"] for gateway in board["gateways"]} == {
        member.name for member in chain.founding.members if "gateway" in member.roles
    }
    assert (board["board"], board["release_keys"]) == ("pico-w", [])


def test_another_chain_is_refused(written, chain) -> None:
    with pytest.raises(UsageError, match="chain_id is not that of the founding file"):
        load_settings(written(chain_id="11" * 32), chain.founding, [])


def test_files_that_the_settings_name_go_along(written, tmp_path) -> None:
    path = written(mqtt={"ca": "ca.der"})
    with pytest.raises(ToolError, match=r"ca\.der: cannot be read"):
        load_settings(path, None, [])
    (tmp_path / "ca.der").write_bytes(b"authority")
    assert load_settings(path, None, []).files == {"ca.der": b"authority"}
    (tmp_path / "rows.csv").write_bytes(b"1;2")
    assert set(load_settings(path, None, [tmp_path / "rows.csv"]).files) == {"ca.der", "rows.csv"}
    (tmp_path / "main.py").write_bytes(b"")
    with pytest.raises(UsageError, match=r"main\.py: is no name for a further file"):
        load_settings(path, None, [tmp_path / "main.py"])
    with pytest.raises(UsageError, match="is no name"):
        load_settings(written(mqtt={"ca": "../settings.json"}), None, [])


def test_a_kind_of_board_that_is_contradicted(written) -> None:
    with pytest.raises(UsageError, match=r"--board pico: .*says that it is for pico-w"):
        load_settings(written(board="pico-w"), None, [], "pico")
    assert "board" not in load_settings(written(board="pico-w"), None, [], "pico-w").values


def test_what_is_no_settings_file(tmp_path) -> None:
    path = tmp_path / "settings.json"
    for text, words in (
        ("{", "is not JSON"),
        ("[]", "not a JSON object"),
        ("1" * 40_000, "larger"),
    ):
        path.write_text(text)
        with pytest.raises(ToolError, match=words):
            load_settings(path, None, [])
