"""What sites have learned as a model that fog nodes run."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from support.fleets import write_fleet

from cloud.errors import ExportError, ModelError
from cloud.federated import fog_model
from cloud.federated.fog_model import make
from cloud.federated.network import cycles, initial, model_hash
from cloud.federated.run_files import RoundRecord, RunFiles, Settings, SiteRecord
from cloud.federated.scales import Scales, put_together
from cloud.federated.site import Site, Task, read_site
from cloud.train import rul
from cloud.train.job import Job
from cloud.train.rul_baselines import AGE

SETTINGS = Settings("0f" * 16, "rul", "fedavg", 2, 5, 0, 2, 2, 1, 60.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two rounds in which one site learned, as the coordinator writes them down."""
    files = RunFiles(tmp_path_factory.mktemp("run"))
    files.begin(SETTINGS)
    units = read_site(write_fleet(files.directory / "train_own.txt", 20, seed=1))
    preparation = put_together([Scales.of(units)])
    files.keep_preparation(preparation.card())
    site = Site("busan", units, preparation)
    arrays = initial(preparation.channels, 0)
    for number in (1, 2):
        before, arrays = arrays, site.work(arrays, Task(number, 2, 0)).arrays
        hashes = [model_hash(one).hex() for one in (before, arrays)]
        part = SiteRecord("busan", "0102030405060708", hashes[1], len(units))
        record = RoundRecord(number, *hashes, (part,), {"jeju": "away"}, 1.0, None, None, 0)
        files.keep_round(record, arrays)
    return files


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return write_fleet(tmp_path_factory.mktemp("held") / "train_held.txt", 8, seed=2)


def test_int8_says_what_was_learned_and_the_card_who_taught_it(run, held_out, tmp_path):
    report = make(run.directory, held_out, tmp_path / "model")
    assert report["int8_loss"] < 0.5
    assert report["held"] == pytest.approx(0.9, abs=0.03)
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    first, last = run.rounds()
    assert card["sealed"] is False
    assert card["lineage"] == {
        "before": first.before,
        "members": {"busan": "0102030405060708"},
        "after": [first.after, last.after],
        "took_part": [["busan"], ["busan"]],
    }
    assert (card["run"], card["model_sha256"]) == (SETTINGS.run, last.after)

    rul.predict(tmp_path / "model", held_out, tmp_path / "said.csv")
    with (tmp_path / "said.csv").open() as file:
        said = [float(row["left"]) for row in csv.DictReader(file)]
    units = read_site(held_out)
    preparation = rul.Preparation.of_card(run.preparation())
    own = cycles(run.model(last), preparation.features(units)[units.ends])
    assert np.abs(np.array(said) - own).max() < 5

    write_fleet(tmp_path / "test_FD009.txt", 8, seed=3)
    (tmp_path / "RUL_FD009.txt").write_text("0\n" * 8)
    result = rul.evaluate(tmp_path, Job(tmp_path / "out", model=tmp_path / "model"))
    assert result["verdict"].endswith(f"learned from run {SETTINGS.run}, which is not of FD009")
    lives = units.cycle[units.ends]
    aged = next(row for row in result["results"] if row["model"] == AGE)
    judged = read_site(tmp_path / "test_FD009.txt")
    left = np.maximum(lives.mean() - judged.cycle[judged.ends], 0)
    assert aged["rmse"] == pytest.approx(np.sqrt((left**2).mean()))


def test_a_loss_is_refused_but_for_somebody_by_name(run, held_out, tmp_path, monkeypatch):
    monkeypatch.setattr(fog_model, "MAX_LOSS_CYCLES", -100.0)
    with pytest.raises(ExportError, match="int8 loses"):
        make(run.directory, held_out, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert make(run.directory, held_out, tmp_path / "model", "jeju")["overruled_by"] == "jeju"


def test_a_run_without_a_round_is_none_yet(held_out, tmp_path):
    files = RunFiles(tmp_path / "run")
    files.begin(SETTINGS)
    with pytest.raises(ModelError, match="has no round yet"):
        make(files.directory, held_out, tmp_path / "model")
