"""A disk that is full is named, whoever writes to it."""

from __future__ import annotations

import errno
import io

import pytest
from rich.console import Console

from cloud.errors import RecordingError, TrainingError
from cloud.train import quality_heatmap
from cloud.train.experiment_log import experiment_log
from tools import recorded
from tools.errors import ToolError


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "log").write_text("no folder")
    named = "log: cannot be written; see that its disk has room"
    with pytest.raises(TrainingError, match=named), experiment_log(tmp_path):
        pytest.fail("went on")


def test_a_heat_map_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    maps = tmp_path / "maps" / "a.png.png"

    class Half:
        def save(self, path, **_):
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(quality_heatmap, "heatmap", lambda *_: Half())
    said = r"a\.png\.png: cannot be written \(No space left on device\); .* the room on the disk"
    with pytest.raises(RecordingError, match=said):
        quality_heatmap.write_heatmap(maps, tmp_path / "a.png", None, None)
    assert not list(maps.parent.iterdir())


def test_a_training_says_whose_disk_it_was(tmp_path):
    def train() -> None:
        with recorded.job(tmp_path, True, 0, Console(file=io.StringIO())):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ToolError, match=f"--out {tmp_path}: No space left on device; make room"):
        train()


def test_a_job_that_has_written_nothing_leaves_no_directory(tmp_path):
    def refuse(out, *written):
        with recorded.job(out, True, 0, Console(file=io.StringIO())) as job:
            job.out.mkdir(exist_ok=True)
            for name in written:
                (job.out / name).touch()
            raise TrainingError("x: too little", "give more")

    with pytest.raises(TrainingError):
        refuse(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    for out, written in (("old", ()), ("half", ("loss.png",))):
        with pytest.raises(TrainingError):
            refuse(tmp_path / out, *written)
        assert [file.name for file in (tmp_path / out).iterdir()] == list(written)
