"""Distributions of whole counts: mixtures of zero-inflated negative binomials."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
# Quantiles are looked for up to here.
MAX_COUNT = 200_000


@dataclass(frozen=True)
class CountDistribution:
    """Distributions, each the even mixture of its members; all arrays [members, ...].

    Attributes:
        zero: probability of a zero besides those of the negative binomial.
        mean: of the negative binomial.
        shape: of the negative binomial; variance is mean + mean^2 / shape.
    """

    zero: Floats = field(repr=False)
    mean: Floats = field(repr=False)
    shape: Floats = field(repr=False)

    @property
    def expected(self) -> Floats:
        """Means of the distributions, [...]."""
        found: Floats = ((1 - self.zero) * self.mean).mean(axis=0)
        return found

    def take(self, kind: int, month: int | None = None) -> CountDistribution:
        """Those of months (0) or totals (1): of all horizons, or of one of them, from 0."""
        at = (slice(None), slice(None), kind) + (() if month is None else (month,))
        return CountDistribution(self.zero[at], self.mean[at], self.shape[at])

    def until(self, months: int) -> CountDistribution:
        """Those of the first months only, which are last of the dimensions."""
        zero, mean, shape = (each[..., :months] for each in (self.zero, self.mean, self.shape))
        return CountDistribution(zero, mean, shape)

    def below(self, counts: Floats) -> Floats:
        """Probability of at most `counts`, which broadcast with [...]."""
        from scipy.special import betainc

        stay = self.shape / (self.shape + self.mean)
        at = np.floor(np.broadcast_to(counts, self.mean.shape[1:]))
        whole = betainc(self.shape, np.maximum(at, 0) + 1, stay)
        mixed = (self.zero + (1 - self.zero) * whole).mean(axis=0)
        found: Floats = np.where(at < 0, 0.0, mixed)
        return found

    def quantile(self, level: float) -> Floats:
        """The least count that is not exceeded with probability `level`, [...]."""
        low = np.full(self.mean.shape[1:], -1.0)
        high = np.maximum(1.0, np.ceil(2 * self.expected))
        # Doubling, then halving: `high` always holds, `low` never does.
        while True:
            short = (self.below(high) < level) & (high < MAX_COUNT)
            if not short.any():
                break
            low = np.where(short, high, low)
            high = np.where(short, 2 * high, high)
        while ((high - low) > 1).any():
            middle = np.floor((low + high) / 2)
            enough = self.below(middle) >= level
            high = np.where(enough, middle, high)
            low = np.where(enough, low, middle)
        return high


def by_moments(mean: Floats, variance: Floats) -> CountDistribution:
    """The negative binomial of a mean and a variance; nearly Poisson where that is not larger."""
    mean = np.maximum(mean, 1e-9)
    extra = np.maximum(variance - mean, 1e-6 * mean)
    shape = np.minimum(mean**2 / extra, 1e6)
    one = (np.newaxis, ...)
    return CountDistribution(np.zeros_like(mean)[one], mean[one], shape[one])
