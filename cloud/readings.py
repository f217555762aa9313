"""Rows of readings of one device, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from .errors import DatasetError


@dataclass(frozen=True)
class Readings:
    """Readings of one device in the order in which it took them.

    Attributes:
        times: float64 [n], s since 1970.
        values: float32 [n, channels]; NaN where a channel is missing from a row.
        channels: names, in the order of `values`.
        sequence: int64 [n]; number of the sealed transaction that holds the row, or of the
            line in a recording.
        sealed: whether the rows are from the ledger; a recording is for trials only.
        labels: bool [n], whether a recording calls the row anomalous; None where it does
            not say. Sealed readings have none.
        corrected: bool [n], whether the board did not know a row's time when it signed it, and
            said later when it had started; None where that was never so.
        excluded: bool [n], whether an engineer's sealed label says that the row is not normal, so
            that what is to learn normal operation must not learn from it; None without labels.
    """

    times: npt.NDArray[np.float64] = field(repr=False)
    values: npt.NDArray[np.float32] = field(repr=False)
    channels: tuple[str, ...]
    sequence: npt.NDArray[np.int64] = field(repr=False)
    sealed: bool
    labels: npt.NDArray[np.bool_] | None = field(default=None, repr=False)
    corrected: npt.NDArray[np.bool_] | None = field(default=None, repr=False)
    excluded: npt.NDArray[np.bool_] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.times)

    def rows(self, wanted: npt.NDArray[np.bool_]) -> Readings:
        """These rows alone; `wanted` is bool [n]."""

        def part(values: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_] | None:
            return None if values is None else values[wanted]

        return Readings(
            self.times[wanted],
            self.values[wanted],
            self.channels,
            self.sequence[wanted],
            self.sealed,
            part(self.labels),
            part(self.corrected),
            part(self.excluded),
        )

    def only(self, channels: Sequence[str]) -> Readings:
        """These channels alone, in this order, as boards take what a model wants.

        Raises:
            DatasetError: one lacks.
        """
        if tuple(channels) == self.channels:
            return self
        if not set(channels) <= set(self.channels):
            raise DatasetError(
                f"readings: have the channels {', '.join(self.channels)}, the model takes "
                f"{', '.join(channels)}",
                "give the model of these boards",
            )
        chosen = [self.channels.index(name) for name in channels]
        return replace(self, values=self.values[:, chosen], channels=tuple(channels))

    @property
    def times_ms(self) -> npt.NDArray[np.int64]:
        """int64 [n], ms since 1970."""
        milliseconds: npt.NDArray[np.int64] = np.rint(self.times * 1000).astype(np.int64)
        return milliseconds
