"""What sites are asked, and what they answer, as Flower's messages."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from cloud.train.rul_features import Preparation

from .network import Arrays, Noise, shapes
from .scales import Scales
from .site import Task

ARRAYS, CONFIG, METRICS, SITE = "arrays", "config", "metrics", "site"
EXAMPLES, RMSE = "num-examples", "rmse"
# Of why a site has refused.
MAX_REASON_CHARS = 200


def introduction(name: str, scales: Scales) -> RecordDict:
    """What a site says when it is asked who it is."""
    return RecordDict({SITE: ConfigRecord({"name": name, "scales": scales.encode()})})


def told(task: Task, preparation: Preparation) -> dict[str, str]:
    """What a site is told beside the model."""
    return {"task": json.dumps(asdict(task)), "preparation": json.dumps(preparation.card())}


def request(arrays: Arrays, said: dict[str, str]) -> RecordDict:
    """What a site is sent to learn from; `said` as `told` gives it."""
    return RecordDict({ARRAYS: ArrayRecord(arrays), CONFIG: ConfigRecord(dict(said))})


def answer(arrays: Arrays, examples: int | None, rmse: float | None) -> RecordDict:
    """What a site sends after it has learned; weights are alike where its rows are private."""
    metrics: dict[str, int | float] = {EXAMPLES: 1 if examples is None else examples}
    if rmse is not None:
        metrics[RMSE] = rmse
    return RecordDict({ARRAYS: ArrayRecord(arrays), METRICS: MetricRecord(metrics)})


def asked(message: Any) -> tuple[Arrays, Task, Preparation]:
    """What a site is asked to do; raises ValueError, ModelError where it makes no sense."""
    config = message.content[CONFIG]
    arrays = [np.asarray(one, np.float32) for one in message.content[ARRAYS].to_numpy_ndarrays()]
    value = json.loads(config["task"])
    noise = value.pop("noise")
    preparation = Preparation.of_card(json.loads(config["preparation"]))
    if [one.shape for one in arrays] != shapes(preparation.channels):
        raise ValueError("the model that came in is no network of this version of Fogline")
    return arrays, Task(**value, noise=None if noise is None else Noise(**noise)), preparation
