"""What the board counted since it was started."""

import random

RESERVOIR_SIZE = 256


class Reservoir:
    """A bounded, fair sample of a stream of numbers (Vitter 1985, algorithm R)."""

    def __init__(self):
        self._sample = []
        self.count = 0

    def add(self, value):
        """Take one number."""
        self.count += 1
        if len(self._sample) < RESERVOIR_SIZE:
            self._sample.append(value)
        else:
            place = random.randrange(self.count)
            if place < RESERVOIR_SIZE:
                self._sample[place] = value

    def percentile(self, percent):
        """Return the nearest-rank percentile of the sample; None without numbers."""
        if not self._sample:
            return None
        ordered = sorted(self._sample)
        return ordered[max(0, (percent * len(ordered) + 99) // 100 - 1)]


class Stats:
    """Counters, all since boot. `inference_us` holds one duration in us for each inference."""

    def __init__(self):
        self.packs = 0
        self.alerts = 0
        self.rows = 0
        self.resent = 0
        self.reconnects = 0
        self.inference_us = Reservoir()

    def summary(self):
        """Return the counters as a map for the console."""
        return {
            "packs": self.packs,
            "alerts": self.alerts,
            "rows": self.rows,
            "inferences": self.inference_us.count,
            "inference_us": {
                "p50": self.inference_us.percentile(50),
                "p99": self.inference_us.percentile(99),
            },
            "resent": self.resent,
            "reconnects": self.reconnects,
        }
