"""Rows, manifests and verdicts for the tests of both judges."""

import numpy as np

from cloud import preprocess
from fog_node.protocol.manifest import Manifest

MANIFEST = Manifest(
    name="test",
    version=1,
    min_version=0,
    device_type="test",
    payload_sha256=bytes(32),
    payload_size=1,
    ops=(),
    arena=0,
    window=4,
    stride=1,
    channels=("a", "b"),
    max_gap_s=10,
    calibrate=0,
    input=((8, 3000, 5), (0, -70, 1 << 20)),
    score=(0, 0, 256),
    threshold=1000,
    of=1,
    need=1,
    selftest=((b"", b""),),
    time=0,
)


def judge_case(rows, times, manifest):
    """Rows, times and the manifest's fields as `judge_probe.py` reads them."""
    zi, zo, mo = manifest.score
    names = ("window", "stride", "channels", "max_gap_s", "calibrate", "input", "threshold")
    names += ("of", "need")
    fields = {name: getattr(manifest, name) for name in names}
    if manifest.spread:
        fields["spread"] = manifest.spread
    return {
        "manifest": fields | {"score": {"zi": zi, "zo": zo, "mo": mo}},
        "rows": rows.astype(">f4").tobytes().hex(),
        "times": times.tolist(),
    }


def hub_verdicts(rows, times, manifest):
    """The hub's verdicts with a model that turns its window around, as the board's probe does.

    Returns [(row, score, anomaly, window)].
    """
    windows = preprocess.quantize(rows, times, manifest)
    outputs = np.flip(windows.values, axis=(1, 2))
    scores = preprocess.score(windows.values, outputs, manifest)
    anomalies = preprocess.verdicts(scores, windows.segment, manifest)
    return [
        (int(windows.last[i]), int(scores[i]), bool(anomalies[i]), windows.values[i].tobytes())
        for i in range(len(scores))
    ]
