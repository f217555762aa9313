"""A disk that is full is named, whoever writes to it."""

from __future__ import annotations

import errno
import io

import pytest
from rich.console import Console

from cloud.errors import TrainingError
from cloud.train.experiment_log import experiment_log
from tools import recorded
from tools.errors import ToolError


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "log").write_text("no folder")
    named = "log: cannot be written; see that its disk has room"
    with pytest.raises(TrainingError, match=named), experiment_log(tmp_path):
        pytest.fail("went on")


def test_a_training_says_whose_disk_it_was(tmp_path):
    def train() -> None:
        with recorded.job(tmp_path, True, 0, Console(file=io.StringIO())):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ToolError, match=f"--out {tmp_path}: No space left on device; make room"):
        train()
