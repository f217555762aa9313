"""Which images are learned from and which are kept out: near-duplicates are never divided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import TrainingError
from cloud.near_duplicates import Alike, Prints, alike, groups_of

# For the threshold, of all that is learned from; and kept out by an evaluation, of all images.
VALIDATION_SHARE = 0.15
TEST_SHARE = 0.25
# Of fewer images, or groups of near-duplicates, of either kind nothing is learned.
MIN_IMAGES = 25
MIN_GROUPS = 8

# So many pairs of near-duplicates of both kinds are named.
LISTED = 20

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Groups:
    """Images and what they have in common.

    Attributes:
        number: of the group of each image, int64 [n].
        pairs: near-duplicates, of the same kind or not.
        at_least: correlation from which they are.
    """

    number: npt.NDArray[np.int64] = field(repr=False)
    pairs: Alike = field(repr=False)
    at_least: float

    def report(self, defective: Flags, seed: int) -> dict[str, Any]:
        """Say how many there are, and what a split by images would have done."""
        sizes = np.bincount(self.number)
        near = self._near()
        first, second = near.first, near.second
        kept_out = np.random.default_rng(seed).random(len(defective)) < TEST_SHARE
        seen = np.zeros(len(defective), np.bool_)
        seen[first[~kept_out[second]]] = True
        seen[second[~kept_out[first]]] = True
        return {
            "images": len(defective),
            "groups": len(sizes),
            "images_alone": int((sizes == 1).sum()),
            "largest_groups": np.sort(sizes)[::-1][:5].tolist(),
            "pairs": len(first),
            "pairs_of_both_kinds": int((defective[first] != defective[second]).sum()),
            "kept_out_with_near_duplicate_learned_if_split_by_image": float(
                seen[kept_out].mean() if kept_out.any() else 0.0
            ),
        }

    def contradictions(self, paths: Sequence[Path], defective: Flags) -> list[dict[str, Any]]:
        """Near-duplicates of which one lies among good pieces, the other among defective ones.

        Returns:
            Files of each pair and how they correlate, the most alike first, LISTED at most.
        """
        near = self._near()
        both = np.flatnonzero(defective[near.first] != defective[near.second])
        worst = both[np.argsort(-near.correlation[both], kind="stable")][:LISTED]
        rows = []
        for at in worst.tolist():
            pair = (int(near.first[at]), int(near.second[at]))
            good, bad = pair if defective[pair[1]] else pair[::-1]
            correlation = round(float(near.correlation[at]), 4)
            rows.append(
                {"defective": str(paths[bad]), "good": str(paths[good]), "correlation": correlation}
            )
        return rows

    def with_near_duplicate(self, judged: Flags, learned: Flags) -> Flags:
        """Which of the images that are judged have a near-duplicate that is learned from."""
        near = self._near()
        first, second = near.first, near.second
        found = np.zeros(len(self.number), np.bool_)
        found[first[learned[second]]] = True
        found[second[learned[first]]] = True
        return found & judged

    def _near(self) -> Alike:
        """The pairs that are near-duplicates."""
        pairs, near = self.pairs, self.pairs.correlation >= self.at_least
        return Alike(pairs.first[near], pairs.second[near], pairs.correlation[near])


def group(prints: Prints, defective: Flags, at_least: float) -> Groups:
    """Find near-duplicates among images."""
    pairs = alike(prints)
    return Groups(groups_of(defective.astype(np.int64), pairs, at_least), pairs, at_least)


def check_enough(groups: npt.NDArray[np.int64], defective: Flags, where: str) -> None:
    """Raise TrainingError where there is too little of either kind."""
    for kind, of in (("defective", defective), ("good", ~defective)):
        count, distinct = int(of.sum()), len(np.unique(groups[of]))
        if count < MIN_IMAGES:
            raise TrainingError(
                f"{where}: {count} images of {kind} pieces, at least {MIN_IMAGES} are needed",
                "add some",
            )
        if distinct < MIN_GROUPS:
            raise TrainingError(
                f"{where}: the {count} images of {kind} pieces are {distinct} groups of "
                f"near-duplicates, at least {MIN_GROUPS} are needed",
                "add images of other pieces, or, if all pieces look so much alike, raise --alike",
            )


def deal(
    groups: npt.NDArray[np.int64],
    defective: Flags,
    among: Flags,
    share: float,
    random: np.random.Generator,
) -> Flags:
    """Take a share of the images of each kind, in whole groups.

    Args:
        groups: int64 [n]; images of one group are of one kind.
        defective: bool [n].
        among: which may be taken, bool [n].
        share: of images; what is taken is no more, but for at least one group of each kind.
        random: by what groups are chosen.
    """
    taken = np.zeros(len(groups), np.bool_)
    for kind in (defective & among, ~defective & among):
        wanted, have = share * kind.sum(), 0
        numbers, sizes = np.unique(groups[kind], return_counts=True)
        for at in random.permutation(len(numbers)):
            if have and have + sizes[at] > wanted:
                continue
            if not have and sizes[at] > max(wanted, sizes.min()):
                continue
            taken |= kind & (groups == numbers[at])
            have += int(sizes[at])
    return taken
