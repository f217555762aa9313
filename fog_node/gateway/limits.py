"""Token buckets: what others may make this node do, and how often."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """So many at once, and so many a second in the long run."""

    burst: float
    per_s: float


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_s: float


class Buckets:
    """One token bucket per key, of at most `max_keys` keys; the longest unused is forgotten.

    A forgotten key begins anew with a full bucket: where keys are the sender's choice, a
    bucket that all of them share must stand behind.
    """

    def __init__(self, rate: Rate, max_keys: int) -> None:
        self._rate = rate
        self._max_keys = max_keys
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, key: Hashable, now_s: float) -> bool:
        """Take a token of `key`; False where it has none left.

        Args:
            key: whose bucket.
            now_s: a monotonic clock.
        """
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self._rate.burst, now_s)
            if len(self._buckets) > self._max_keys:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        gained = max(0.0, now_s - bucket.filled_s) * self._rate.per_s
        bucket.tokens = min(self._rate.burst, bucket.tokens + gained)
        bucket.filled_s = now_s
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True
