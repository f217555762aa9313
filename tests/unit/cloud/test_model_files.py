"""One directory holds one task's model."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cloud.errors import ModelError
from cloud.model_files import BOARD_CARD_FILE, CARD_FILE, check_task, write_card
from tools import cli


def test_another_tasks_model_is_not_mixed_with(tmp_path):
    check_task(tmp_path / "none", "rul")
    write_card(tmp_path, {"task": "rul"})
    check_task(tmp_path, "rul")
    for task in ("anomaly", "failure"):
        with pytest.raises(ModelError, match=f"holds a model of the task rul; .* that of {task}"):
            check_task(tmp_path, task)
    (tmp_path / BOARD_CARD_FILE).write_text("{}")
    with pytest.raises(ModelError, match="of the task anomaly;"):
        check_task(tmp_path, "rul")
    (tmp_path / CARD_FILE).write_text("half a ca")  # read_card says: train again
    check_task(tmp_path, "anomaly")


@pytest.mark.parametrize(("held", "task"), [("failure", "rul"), ("rul", "anomaly")])
def test_it_is_said_before_the_work(tmp_path, held, task):
    model = tmp_path / "model"
    model.mkdir()
    write_card(model, {"task": held})
    result = CliRunner().invoke(
        cli.app, ["train", task, "--data", str(tmp_path / "gone"), "--out", str(model)]
    )
    assert isinstance(result.exception, ModelError)
    assert f"holds a model of the task {held}" in str(result.exception)
