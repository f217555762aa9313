"""Which images of a folder are new, and whole."""

from __future__ import annotations

import os

import pytest

from cloud.errors import RecordingError
from cloud.inference.folder import SETTLE_S, Folder, check_folder


def names(folder: Folder, now_s: float) -> list[str]:
    return [path.name for path, _ in folder.settled(now_s)]


def test_an_image_counts_when_it_has_not_changed_for_a_while(shoot):
    folder = Folder(shoot.folder)
    path = shoot("a.png", 10)
    assert names(folder, 100) == []
    assert names(folder, 100 + SETTLE_S) == ["a.png"]
    path.write_bytes(path.read_bytes() + b"more")
    assert names(folder, 101 + SETTLE_S) == []
    assert names(folder, 101 + 2 * SETTLE_S) == ["a.png"]


def test_the_oldest_comes_first(shoot):
    for index, name in enumerate(("c.png", "a.png", "b.png")):
        os.utime(shoot(name, index), (1000 + index, 1000 + index))
    folder = Folder(shoot.folder)
    list(folder.settled(0))
    assert names(folder, SETTLE_S) == ["c.png", "a.png", "b.png"]


def test_what_is_no_image_by_its_name_is_not_looked_at(shoot):
    (shoot.folder / "notes.txt").write_text("x")
    (shoot.folder / ".half.png").write_text("x")
    (shoot.folder / "sub.png").mkdir()
    folder = Folder(shoot.folder)
    list(folder.settled(0))
    assert names(folder, SETTLE_S) == []


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="is no folder; give the folder"):
        check_folder(tmp_path / "none")
