"""What an evaluation keeps, and how it tells how far it is."""

from __future__ import annotations

import json
import math

import pytest

from cloud.errors import TrainingError
from cloud.train.job import Job, Steps


def test_a_result_is_kept_as_json_that_anybody_reads(tmp_path) -> None:
    job = Job(tmp_path)
    assert job.keep({"f1": 0.5, "left_out": None}) == {"f1": 0.5, "left_out": None}
    before = (tmp_path / "evaluation.json").read_text()
    assert json.loads(before) == {"f1": 0.5, "left_out": None}
    for wrong in (math.nan, math.inf):
        with pytest.raises(TrainingError, match="is no number; see by the plots in"):
            job.keep({"results": [{"f1": wrong}]})
    assert (tmp_path / "evaluation.json").read_text() == before


def test_steps_are_told_from_none_to_all(tmp_path) -> None:
    told: list[tuple[str, int, int]] = []
    steps = Steps(Job(tmp_path, progress=lambda *said: told.append(said)), "fits", 2)
    steps()
    steps()
    assert told == [("fits", 0, 2), ("fits", 1, 2), ("fits", 2, 2)]
