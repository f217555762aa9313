"""What vibration sensors share: a window of three-axis readings, and its root mean square."""

from math import sqrt

from .base import Channel

MIN_SAMPLES = 8
MAX_SAMPLES = 256


def channels(range_g):
    """RMS and peak of the vibration, over all axes, up to the sensor's own range."""
    most = 2.0 * range_g
    return (Channel("rms", "[g]", 0.0, most), Channel("peak", "[g]", 0.0, most))


def check_window(where, options, usual):
    """Return how many readings make a window."""
    from fogline.checks import check_integer

    samples = options.get("samples", usual)
    check_integer(where + ".samples", samples, MIN_SAMPLES, MAX_SAMPLES)
    return samples


class Window:
    """Sums of raw readings: memory does not depend on how many there are."""

    def __init__(self):
        self.count = 0
        self._sums = [0, 0, 0]
        self._squares = [0, 0, 0]
        self._least = [0, 0, 0]
        self._most = [0, 0, 0]

    def add(self, reading):
        """Take x, y, z: integers."""
        for axis in range(3):
            value = reading[axis]
            self._sums[axis] += value
            self._squares[axis] += value * value
            if self.count == 0 or value < self._least[axis]:
                self._least[axis] = value
            if self.count == 0 or value > self._most[axis]:
                self._most[axis] = value
        self.count += 1

    def figures(self, per_g):
        """Return [rms, peak] in g, without what does not change (gravity, offset).

        The mean square about the mean, summed over the axes; exact until the root is taken.
        """
        count = self.count
        variance = 0
        peak = 0
        for axis in range(3):
            total = self._sums[axis]
            variance += count * self._squares[axis] - total * total
            high = count * self._most[axis] - total
            low = total - count * self._least[axis]
            peak = max(peak, high, low)
        return [sqrt(variance) / (count * per_g), peak / (count * per_g)]
