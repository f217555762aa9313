"""Which images are of the same thing: turned, mirrored, shifted a little, or taken twice.

Each image becomes a print: a small picture from which all that changes slowly is taken, light and
shadow with it. Two prints are as alike as they correlate in the best of eight orientations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Pixels a side of the picture that a print is made of.
PRINT_SIDE = 32
# Standard deviation of what is taken away, in such pixels.
_BLUR = 1.5
# Correlation from which an image belongs to the one that is most like it. In the casting set,
# images that were nearest to each other were of the same piece down to here.
NEAREST = 0.85
_ROWS = 1024

Prints = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Alike:
    """Pairs of images.

    Attributes:
        first, second: numbers of images, int64 [pairs]; each pair is there once.
        correlation: float32 [pairs].
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    correlation: npt.NDArray[np.float32]


def prints_of(images: npt.NDArray[np.uint8]) -> Prints:
    """Prints of grey pictures, uint8 [n, PRINT_SIDE, PRINT_SIDE]; int8 of the same shape."""
    from scipy.ndimage import gaussian_filter

    values = images.astype(np.float32)
    values -= gaussian_filter(values, (0, _BLUR, _BLUR))
    values -= values.mean(axis=(1, 2), keepdims=True)
    peak = np.abs(values).max(axis=(1, 2), keepdims=True, initial=0)
    found: Prints = np.rint(values * (127 / np.maximum(peak, 1e-6))).astype(np.int8)
    return found


def alike(prints: Prints, others: Prints | None = None, least: float = NEAREST) -> Alike:
    """Find pairs that correlate by at least so much, among prints, or between them and others."""
    given = _flat(prints)
    kept = []
    for turned in _orientations(prints if others is None else others):
        right = _flat(turned)
        for start in range(0, len(given), _ROWS):
            # Among prints each pair would come twice, and each print with itself.
            begin = start if others is None else 0
            found = given[start : start + _ROWS] @ right[begin:].T
            rows, columns = np.nonzero(found >= least)
            values = found[rows, columns]
            rows, columns = rows + start, columns + begin
            chosen = rows < columns if others is None else slice(None)
            kept.append((rows[chosen], columns[chosen], values[chosen]))
    first, second, correlation = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    # A pair that is alike in several orientations counts by the best of them.
    order = np.lexsort((-correlation, second, first))
    first, second, correlation = first[order], second[order], correlation[order]
    new = np.ones(len(first), np.bool_)
    new[1:] = (np.diff(first) != 0) | (np.diff(second) != 0)
    return Alike(first[new], second[new], correlation[new])


def groups_of(
    labels: npt.NDArray[np.int64], pairs: Alike, at_least: float
) -> npt.NDArray[np.int64]:
    """Number of the group that each image belongs to, int64 [n].

    Images with the same label are in one group when a chain of near-duplicates leads from one to
    the other; and each is in the group of the image of its label that is most like it.

    Args:
        labels: int64 [n].
        pairs: of them, from NEAREST on.
        at_least: correlation from which images are near-duplicates.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    same = labels[pairs.first] == labels[pairs.second]
    first, second = pairs.first[same], pairs.second[same]
    correlation = pairs.correlation[same]
    best = np.zeros(len(labels), np.float32)
    np.maximum.at(best, first, correlation)
    np.maximum.at(best, second, correlation)
    linked = (
        (correlation >= at_least) | (correlation == best[first]) | (correlation == best[second])
    )
    edges = coo_matrix(
        (np.ones(int(linked.sum())), (first[linked], second[linked])), (len(labels), len(labels))
    )
    numbers: npt.NDArray[np.int64] = connected_components(edges, directed=False)[1].astype(np.int64)
    return numbers


def _flat(prints: Prints) -> npt.NDArray[np.float32]:
    """Rows whose products are correlations, float32 [n, pixels]."""
    rows = prints.reshape(len(prints), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return rows


def _orientations(prints: Prints) -> Iterator[Prints]:
    for mirrored in (prints, prints[:, :, ::-1]):
        for turns in range(4):
            yield np.rot90(mirrored, turns, axes=(1, 2))
