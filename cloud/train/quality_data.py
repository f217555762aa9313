"""Images of pieces, a folder for each class: which are there, and which show a defect.

The layout is that of the casting data set (R. Dabhi, "Real-life industrial dataset of casting
product", 2020) and of others like it: a folder for the good ones, one or more for what is wrong
with the rest; or `train` and `test` with such folders in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloud.errors import RecordingError, TrainingError
from cloud.images import MAX_IMAGES, entries, list_images

TRAIN, TEST = "train", "test"
# How names of folders of good pieces begin.
GOOD = ("good", "ok", "normal", "pass")


@dataclass(frozen=True)
class Pieces:
    """Images of pieces.

    Attributes:
        folder: that they were found in.
        paths: of the files.
        classes: names of the folders, sorted, and `good`, which of them is of good pieces.
        labels: number of each image's class, int64 [n].
    """

    folder: Path
    paths: tuple[Path, ...] = field(repr=False)
    classes: tuple[str, ...]
    good: str
    labels: npt.NDArray[np.int64] = field(repr=False)

    @property
    def defective(self) -> npt.NDArray[np.bool_]:
        """Which show a defect, bool [n]."""
        flags: npt.NDArray[np.bool_] = self.labels != self.classes.index(self.good)
        return flags

    def counts(self) -> dict[str, int]:
        """How many images each class has."""
        return {name: int((self.labels == at).sum()) for at, name in enumerate(self.classes)}


def has_split(data: Path) -> bool:
    """Whether a folder comes divided into `train` and `test`."""
    return {path.name for path in entries(data)} == {TRAIN, TEST}


def read_pieces(data: Path, good: str = "") -> Pieces:
    """Find the images of a folder that has a folder for each class.

    Args:
        data: the folder.
        good: name of the folder of good pieces; where empty, the one whose name begins like it.

    Raises:
        RecordingError: a folder is empty, or holds anything but images.
        TrainingError: there is one class only, or it is not clear which one is good.
    """
    folders = entries(data)
    for path in folders:
        if not path.is_dir():
            raise RecordingError(
                f"{path}: is no folder; each class needs its own",
                "put images into a folder that is named like what they show",
            )
    classes = tuple(path.name for path in folders)
    if len(classes) < 2:
        said = f"only images of {classes[0]!r}" if classes else "no folder of images"
        raise TrainingError(
            f"{data}: has {said}, good and defective pieces are needed",
            "give a folder with one folder for each of them",
        )
    good = _good(data, classes, good)
    files = [list_images(path) for path in folders]
    total = sum(map(len, files))
    if total > MAX_IMAGES:
        raise RecordingError(f"{data}: holds {total} images, at most {MAX_IMAGES}", "take a part")
    return Pieces(
        data,
        tuple(path for each in files for path in each),
        classes,
        good,
        np.repeat(np.arange(len(files)), [len(each) for each in files]),
    )


def joined(parts: Sequence[Pieces]) -> Pieces:
    """Pieces of several folders as one; raises TrainingError where their classes differ."""
    first = parts[0]
    for other in parts[1:]:
        if (other.classes, other.good) != (first.classes, first.good):
            raise TrainingError(
                f"{other.folder}: has the classes {', '.join(other.classes)}, "
                f"{first.folder} has {', '.join(first.classes)}",
                "give both the same folders",
            )
    return Pieces(
        first.folder,
        tuple(path for part in parts for path in part.paths),
        first.classes,
        first.good,
        np.concatenate([part.labels for part in parts]),
    )


def find_images(data: Path) -> tuple[Path, ...]:
    """Find images to judge: one file, those of a folder, or those of its folders.

    Raises:
        RecordingError: there is none, or anything else is there.
    """
    if not data.is_dir():
        return (data,)
    inside = entries(data)
    if not any(path.is_dir() for path in inside):
        return list_images(data)
    for path in inside:
        if not path.is_dir():
            raise RecordingError(f"{path}: is a file among folders", "take it out")
    return tuple(path for folder in inside for path in list_images(folder))


def _good(data: Path, classes: Sequence[str], wanted: str) -> str:
    if wanted:
        if wanted not in classes:
            raise TrainingError(
                f"{data}: has no folder {wanted!r}", f"--good must be one of {', '.join(classes)}"
            )
        return wanted
    found = [name for name in classes if name.lower().startswith(GOOD)]
    if len(found) != 1:
        raise TrainingError(
            f"{data}: which of {', '.join(classes)} is of good pieces is not clear",
            "say so by --good",
        )
    return found[0]
