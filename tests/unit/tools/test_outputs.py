"""What a command is asked to write: over an older report, never over a key."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import pytest

from tools import consortium
from tools.commands.common import report
from tools.errors import ToolError
from tools.outputs import write_out


def test_a_report_takes_the_place_of_an_older_one(tmp_path) -> None:
    path = tmp_path / "report.json"
    for data in (b"{}", b"[]"):
        write_out(path, data)
        assert path.read_bytes() == data


def test_on_a_full_disk_the_older_one_stands(tmp_path, monkeypatch) -> None:
    path = tmp_path / "report.json"
    write_out(path, b"{}")

    def full(part: Path, _data: bytes) -> None:
        part.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ToolError, match=r"report\.json: cannot be written: No space left"):
        write_out(path, b"[]")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {path.name: b"{}"}


def test_a_link_is_written_through(tmp_path) -> None:
    """As /dev/stdout is one, which is not to be replaced."""
    (tmp_path / "stdout").symlink_to(tmp_path / "file")
    write_out(tmp_path / "stdout", b"{}")
    assert (tmp_path / "stdout").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"{}"


def test_nothing_is_written_over_what_cannot_be_had_again(tmp_path) -> None:
    ours = consortium.create(tmp_path / "c", "ours", {"seoul": consortium.VALIDATOR_ROLES})
    own = ours.member_directory("seoul")
    ledger = tmp_path / "ledger.sqlite3"
    ledger.write_bytes(b"SQLite format 3\0" + bytes(84))
    for path in (ours.founding_file, own / "signing.key", own / "tls.crt", ledger):
        before = path.read_bytes()
        with pytest.raises(ToolError, match="is a key, a founding file or a ledger"):
            write_out(path, b"a report")
        assert path.read_bytes() == before


def test_what_cannot_be_written_is_named(tmp_path) -> None:
    for path, why in (
        (tmp_path, "Is a directory"),
        (tmp_path / "no" / "such", "No such file or directory"),
    ):
        with pytest.raises(ToolError, match=f"{path}: cannot be written: {why}; name a file"):
            write_out(path, b"")


def test_a_figure_that_is_no_number_makes_no_report(tmp_path, capsys) -> None:
    """JSON has neither NaN nor infinity, and most that read it refuse them."""
    path = tmp_path / "report.json"
    for figure in (math.nan, math.inf):
        with pytest.raises(ToolError, match=r"report\.json: a figure is no number"):
            report({"ratio": figure}, path)
    assert not path.exists()
    assert "ratio: nan" in capsys.readouterr().out
