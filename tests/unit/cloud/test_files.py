"""Files that stand until the next one is whole, whatever stops its writer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloud.files import read_bounded, save_file, whole_file


@pytest.mark.parametrize("stop", [OSError, ValueError, KeyboardInterrupt])
def test_the_one_before_stands_whatever_stops_the_next(tmp_path, stop) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("of yesterday")

    def write() -> None:
        with whole_file(path) as part:
            part.write_text("half")
            raise stop

    with pytest.raises(stop):
        write()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "rows.csv": "of yesterday"
    }
    with whole_file(path) as part:
        part.write_text("whole")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["whole"]


def test_folders_are_made_where_that_is_asked_for(tmp_path) -> None:
    path = tmp_path / "a" / "b" / "c"
    with pytest.raises(FileNotFoundError):
        save_file(path, b"x")
    save_file(path, b"x", parents=True)
    save_file(path, b"y")
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [("c", b"y")]


def test_every_command_can_write_files_without_packages_of_the_cloud() -> None:
    heavy = ("numpy", "pandas", "pyarrow", "tensorflow")
    said = f"import sys, tools.outputs; sys.exit(str([n for n in {heavy} if n in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", said],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        check=False,
    )
    assert done.stderr.decode().strip() == "[]"


def test_no_more_is_read_than_a_file_may_hold(tmp_path) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(b"1234")
    assert read_bounded(path, 4) == b"1234"
    os.mkfifo(tmp_path / "pipe")
    for wrong, most, why in (
        (path, 3, "is over 3 bytes"),
        (tmp_path / "pipe", 4, "is no file"),
        (Path("/dev/zero"), 4, "is no file"),
        (tmp_path, 4, "is no file"),
        (tmp_path / "gone", 4, "No such file"),
    ):
        with pytest.raises(OSError, match=why):
            read_bounded(wrong, most)
