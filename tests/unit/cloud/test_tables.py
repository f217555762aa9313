"""What a CSV table costs at most, and what is no table at all."""

from __future__ import annotations

import hashlib
import os

import pytest

from cloud import tables
from cloud.errors import RecordingError
from cloud.tables import MAX_CSV_BYTES, read_table


def test_a_table_knows_the_hash_of_what_was_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\r\n1,"2\n3"\r\n')
    table = read_table(path, ("a",))
    assert (table.header, table.rows, table.lines) == (("a", "b"), (("1", "2\n3"),), (3,))
    assert table.sha256 == hashlib.sha256(path.read_bytes()).digest()


def test_a_file_without_an_end_or_beyond_the_bound_costs_little(tmp_path, monkeypatch):
    path = tmp_path / "sparse.csv"
    with path.open("wb") as file:
        file.truncate(2 * 1024**3)
    with pytest.raises(RecordingError, match=f"over {MAX_CSV_BYTES:,} bytes; give it in parts"):
        read_table(path, ("a",))
    path.write_text("a,b\n" + "1,2\n" * 9)
    assert len(read_table(path, ("a",))) == 9
    monkeypatch.setattr(tables, "MAX_CELLS", 10)
    with pytest.raises(RecordingError, match="line 7: has more than 10 cells by there; give it in"):
        read_table(path, ("a",))


@pytest.mark.parametrize("delimiter", [",", " "])
def test_lines_after_a_bad_one_are_not_taken_apart(tmp_path, delimiter, monkeypatch):
    path = tmp_path / "blank.csv"
    path.write_text(f"a{delimiter}b\n" + "\n" * 1000)
    seen = []
    cells = tables._cells
    monkeypatch.setattr(
        tables, "_cells", lambda *given: (seen.append(line) or line for line in cells(*given))
    )
    with pytest.raises(RecordingError, match="line 2: has 0 cells"):
        read_table(path, ("a",), delimiter)
    assert len(seen) == 2


def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("pipe", "is no file"), ("", "is a folder"), ("gone", "cannot be read")):
        with pytest.raises(RecordingError, match=words):
            read_table(tmp_path / name, ("a",))


@pytest.mark.parametrize(
    "text", ["1_000", "\u0661", "\uff11", "0x10", "1,5", "5 C", "nan", "-inf", "1e999", "NA", " "]
)
def test_what_is_no_number_of_a_sensor_is_refused(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(f"a;b\n1;2\n{text};2\n", encoding="utf-8")
    with pytest.raises(RecordingError, match=r"a\.csv: line 3: column 'a' is .*a finite number"):
        read_table(path, ("a",), ";").numbers("a")


def test_a_quotation_mark_without_another_is_found_where_it_is(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n1,"2\n' + "1,2\n" * 9)
    with pytest.raises(RecordingError, match=r"line 3: is not CSV \(unexpected end of data\); rep"):
        read_table(path, ("a",))


def test_names_of_which_one_comes_twice_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("part\nx\ny\nx\n")
    with pytest.raises(RecordingError, match="line 4: column 'part' is 'x', as in line 2; once"):
        read_table(path, ("part",)).names("part", "once")
