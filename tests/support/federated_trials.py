"""Runs in Flower's environment: strategies over sites in one process; prints what came of it.

python federated_trials.py FOLDER
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message_type import MessageType
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage

from cloud.errors import CloudError
from cloud.federated.coordinator import Coordinator
from cloud.federated.in_process import InProcessGrid, Member, turned_round
from cloud.federated.local import begin_or_resume
from cloud.federated.masked import take_part
from cloud.federated.privacy import epsilon
from cloud.federated.run_files import Masks, RunFiles, Settings
from cloud.federated.site import deal, read_site

FOLDER = Path(sys.argv[1])
SITES = deal(read_site(FOLDER / "train_X.txt"), 5, "random", 0)
SETTINGS = Settings("0f" * 16, "rul", "fedavg", 4, 1, 0, 5, 2, 1, 0.01)


def nothing(before, update):
    return replace(update, arrays=[part * np.nan for part in update.arrays])


def members(**of_first):
    return [
        Member(f"site-{number}", part, **(of_first if number == 1 else {}))
        for number, part in enumerate(SITES, start=1)
    ]


def run(name, sites, *, resume=False, **changes):
    files = RunFiles(FOLDER / name)
    begin_or_resume(files, replace(SETTINGS, **changes), resume=resume)
    try:
        Coordinator(files, lambda record, rounds: None).run(InProcessGrid(sites, noise_seed=1))
    except CloudError as error:
        return {"error": str(error), "rounds": [vars(one) for one in files.rounds()]}
    rounds = files.rounds()
    weights = np.concatenate([part.ravel() for part in files.model(rounds[-1])])
    return {"rounds": [vars(one) for one in rounds], "weights": weights.tolist()}


def shown(value):
    return dict(vars(value))


found = {
    strategy: run(strategy, members(), strategy=strategy, min_sites=3)
    for strategy in ("fedavg", "trimmed-mean", "krum")
}
for strategy in ("fedavg", "trimmed-mean", "krum"):
    found[f"{strategy} poisoned"] = run(
        f"{strategy}-poisoned", members(lie=turned_round), strategy=strategy, min_sites=3
    )
found["nan"] = run("nan", members(lie=nothing))
found["away"] = run("away", members(away=frozenset({2, 3})))
found["too few"] = run("few", members(away=frozenset({3})), min_sites=5)
run("resumed", members(), rounds=2)
found["resumed"] = run("resumed", members(), rounds=4, resume=True)
run("whole", members(), rounds=2)
found["noise"] = run("noise", members(), noise=4.0, clip=0.1, steps=2, machines=4)
# Masks: the same mean, whenever a site goes, as of those whose updates are in it.
masks = Masks(5, 3, 8.0, 2**22)
for name, changes in {"masked": {"masks": masks}, "bare": {}}.items():
    settings = {"rounds": 1, "min_sites": 3, **changes}
    found[name] = run(name, members(), **settings)
    for answers in range(4):
        site = {"away": frozenset({1}), "answers": answers}
        found[f"{name} away {answers}"] = run(f"{name}-away-{answers}", members(**site), **settings)
found["narrow"] = run(
    "narrow", members(), rounds=1, min_sites=3, masks=replace(masks, clipping=0.05)
)
found["too few stay"] = run(
    "few-stay",
    members(away=frozenset({1})),
    rounds=1,
    min_sites=5,
    masks=replace(masks, threshold=4),
)
found["noise masked"] = run(
    "noise-masked", members(), rounds=1, min_sites=3, masks=masks, noise=4.0, clip=0.1, steps=2,
    machines=4,
)  # fmt: skip
found["least"] = {}
for name, (sites, shares, threshold) in {"half": (5, 4, 2), "two": (2, 2, 2)}.items():
    said = {Key.STAGE: Stage.SETUP, Key.SAMPLE_NUMBER: sites, Key.SHARE_NUMBER: shares}
    said[Key.THRESHOLD] = threshold
    content = RecordDict({RECORD_KEY_CONFIGS: ConfigRecord(said)})
    try:
        take_part(Message(content, 1, MessageType.TRAIN), None, None)
    except ValueError as error:
        found["least"][name] = str(error)
found["epsilon"] = [epsilon(1.0, 1, 1e-5), epsilon(2.0, 100, 1e-5), epsilon(1.0, 0)]
print(json.dumps(found, default=shown))
