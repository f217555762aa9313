"""Makes the vectors that the board's models and judge are held to on every target.

`PYTHONPATH=tests:. python -m support.model_vectors` writes `tests/vectors/{tflite,judge,
releases,firmware}.json`: small models with the answers of TensorFlow Lite Micro, rows with the
hub's verdicts, and release bundles of models and of firmware as the hub signs them.
"""

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from support import firmware_bundles, releases
from support.judging import MANIFEST, hub_verdicts, judge_case
from support.reference import run_tflite_micro
from support.tflite_models import RandomModel

FOLDER = Path(__file__).resolve().parents[1] / "vectors"
MAX_MODEL_BYTES = 3000
MODELS = 10
SEEDS = 200


def files():
    """Name and content of each vector file."""
    return {
        "tflite.json": _text({"models": _models()}),
        "judge.json": _text({"cases": _cases()}),
        "releases.json": _text(_releases()),
        "firmware.json": _text(_firmware()),
    }


def _text(content):
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _models():
    small = [
        model for model in map(RandomModel, range(SEEDS)) if len(model.data) <= MAX_MODEL_BYTES
    ]
    seen = set()
    chosen = []
    # Operators that have not been seen come first.
    while len(chosen) < MODELS:
        best = max(small, key=lambda model: len(model.operators - seen))
        small.remove(best)
        chosen.append(best)
        seen |= best.operators
    return [
        {
            "model": base64.b64encode(model.data).decode(),
            "inputs": [values.tobytes().hex() for values in model.inputs],
            "output": run_tflite_micro(model.data, model.inputs).hex(),
        }
        for model in chosen
    ]


def _cases():
    rng = np.random.default_rng(1)
    cases = []
    for calibrate, stride, of, need, spread in (
        (0, 1, 1, 1, ()), (5, 2, 3, 2, ()), (9, 2, 3, 2, (2, 1 << 20)),
    ):  # fmt: skip
        manifest = replace(
            MANIFEST, calibrate=calibrate, stride=stride, of=of, need=need, spread=spread
        )
        rows = rng.normal(scale=20.0, size=(60, 2)).astype(np.float32)
        rows[7] = np.array([1e-45, -1e-45], np.float32)
        rows[13, 1] = np.nan
        rows[21, 0] = -np.inf
        rows[22] = np.array([3e38, -3e38], np.float32)
        times = np.arange(60, dtype=np.int64) * 1000 + 1_700_000_000_000
        times[30:] += 60_000
        times[45:] -= 100_000
        verdicts = hub_verdicts(rows, times, manifest)
        cases.append(
            judge_case(rows, times, manifest)
            | {
                "verdicts": [
                    [row, score, bad, window.hex()] for row, score, bad, window in verdicts
                ]
            }
        )
    return cases


def _firmware():
    made = firmware_bundles
    return {
        "chain_id": made.CHAIN_ID.hex(),
        "release_key": made.OPERATOR.public.xy.hex(),
        "successor": made.SUCCESSOR.public.xy.hex(),
        "files": {path: data.hex() for path, data in made.FILES.items()},
        "bundles": {name: data.hex() for name, data in made.bundles().items()},
    }


def _releases():
    return {
        "chain_id": releases.CHAIN_ID.hex(),
        "release_key": releases.TRAINER.public.xy.hex(),
        "channels": releases.CHANNELS,
        "bundles": {name: data.hex() for name, data in releases.releases().items()},
    }


if __name__ == "__main__":
    for file_name, text in files().items():
        (FOLDER / file_name).write_text(text, encoding="utf-8")
