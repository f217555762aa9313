"""What the model makes of the readings: windows, scores and the debounced verdict.

The definition is in SPEC.md of the protocol; `cloud/preprocess.py` is the hub's twin.
"""

import hashlib
from time import ticks_diff, ticks_us

from .errors import ModelError
from .preprocess import deviation, fixed_point, score, to_int8


class Verdict:
    """What the model said of the window that a row completed.

    Attributes:
        score: 0 to 2^31 - 1.
        anomaly: the debounced decision.
        output: SHA-256 of the output tensor, 32 bytes.
        us: microseconds that the inference and the score took.
    """

    def __init__(self, score, anomaly, output, us):
        self.score = score
        self.anomaly = anomaly
        self.output = output
        self.us = us


class Judge:
    """Runs one model over a board's rows.

    Args:
        model: an allocated Model with one input and one output.
        manifest: the decoded manifest of its release.
        channels: names of the values in a row, in the order of the rows.

    Attributes:
        manifest: as given; `manifest["threshold"]` and the payload's hash go into alerts.

    Raises ModelError `model.channel` or `model.input` if the three do not fit each other.
    """

    def __init__(self, model, manifest, channels):
        self.manifest = manifest
        self._model = model
        self._places = []
        for name in manifest["channels"]:
            if name not in channels:
                raise ModelError("model.channel", "this board has no " + name)
            self._places.append(channels.index(name))
        width = len(self._places)
        sizes = [tensor.bytes for tensor in model.inputs + model.outputs]
        if sizes != [manifest["window"] * width] * 2:
            raise ModelError("model.input", "window and channels do not fit the model's tensors")
        self._width = width
        self._gap_ms = manifest["max_gap_s"] * 1000
        self._last_ms = None
        # A ring of rows: the oldest begins at `_at`, behind the newest.
        self._ring = memoryview(bytearray(manifest["window"] * width))
        self._window = memoryview(bytearray(manifest["window"] * width))
        self._at = 0
        self._begin_segment()

    def _begin_segment(self):
        self._rows = 0  # judged rows of the segment
        self._hits = 0  # of the latest windows, the newest in bit 0
        self._left = self.manifest["calibrate"]  # rows still to be averaged
        self._sums = [0] * self._width
        self._squares = [0] * self._width  # of a model with `spread` alone
        self._centres = [0] * self._width
        self._factors = [item[1] for item in self.manifest["input"]]

    def push(self, row, time_ms):
        """Take a row in; returns a Verdict when it completes a window to judge, else None.

        Args:
            row: one number per channel, or None where the sensor gave nothing.
            time_ms: of the row, ms since 1970 or since the board's start, an integer.

        A row that lacks a channel of the model counts for nothing, not even for gaps.
        """
        manifest = self.manifest
        fixed = []
        for place, item in zip(self._places, manifest["input"]):
            value = fixed_point(row[place], item[0])
            if value is None:
                return None
            fixed.append(value)
        if self._last_ms is not None and not 0 <= time_ms - self._last_ms <= self._gap_ms:
            self._begin_segment()
        self._last_ms = time_ms
        if self._left:
            self._calibrate(fixed)
            return None
        at = self._at
        for place, item in enumerate(manifest["input"]):
            value = fixed[place] - self._centres[place]
            self._ring[at] = to_int8(value, self._factors[place], item[2])
            at += 1
        self._at = at % len(self._ring)
        self._rows += 1
        more = self._rows - manifest["window"]
        return None if more < 0 or more % manifest["stride"] else self._judge()

    def _calibrate(self, fixed):
        """Add a row to the averages; the last one sets how rows are scaled from then on."""
        spread = self.manifest.get("spread")
        for place, value in enumerate(fixed):
            self._sums[place] += value
            if spread:
                self._squares[place] += value * value
        self._left -= 1
        if self._left:
            return
        count = self.manifest["calibrate"]
        for place, total in enumerate(self._sums):
            self._centres[place] = total // count
            if spread:
                found = deviation(total, self._squares[place], count)
                self._factors[place] //= max(spread[place], found)

    def _judge(self):
        manifest = self.manifest
        older = len(self._ring) - self._at
        self._window[:older] = self._ring[self._at :]
        self._window[older:] = self._ring[: self._at]
        started = ticks_us()
        output = self._model.invoke([self._window])[0]
        rule = manifest["score"]
        value = score(self._window, output, rule["zi"], rule["zo"], rule["mo"])
        us = ticks_diff(ticks_us(), started)
        hit = 1 if value > manifest["threshold"] else 0
        self._hits = (self._hits << 1 | hit) & ((1 << manifest["of"]) - 1)
        anomaly = bin(self._hits).count("1") >= manifest["need"]
        return Verdict(value, anomaly, hashlib.sha256(output).digest(), us)
