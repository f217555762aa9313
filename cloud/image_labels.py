"""Images and their sealed labels: put into a folder for each class, and which to label next."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from .errors import DatasetError
from .label_files import image_sha256
from .labels import Labels
from .sources import IMAGE_SUFFIXES, MAX_FILES
from .tables import read_table


def sort_images(images: Path, labels: Labels, out: Path) -> dict[str, Any]:
    """Copy the labelled images of a folder into a folder for each class.

    Args:
        images: folder with images at any depth.
        labels: whatever has been sealed.
        out: folder to make; must not be there, or be empty.

    Returns:
        How many of each class; how many have no label; of which the members disagree.

    Raises:
        DatasetError: no image is labelled, or `out` cannot be written.
        LabelError: an image cannot be read.
    """
    if out.exists() and any(out.iterdir()):
        raise DatasetError(f"{out}: is not empty", "give another folder")
    said = labels.of_images()
    classes: Counter[str] = Counter()
    disputed = []
    unlabelled = doubles = 0
    taken: set[bytes] = set()
    for path in _images(images):
        sha256 = image_sha256(path)
        values = set(said.get(sha256, {}).values())
        if not values:
            unlabelled += 1
        elif len(values) > 1:
            of_path = {"image": str(path.relative_to(images)), "said": said[sha256]}
            disputed.append(of_path)
        elif sha256 in taken:
            doubles += 1
        else:
            (value,) = values
            taken.add(sha256)
            classes[value] += 1
            _copy(path, out / _folder(value), sha256)
    if not classes:
        raise DatasetError(
            f"{images}: none of its images has a sealed label that all agree on",
            "label some: fogline label add --image FILE --value CLASS",
        )
    return {
        "images": dict(sorted(classes.items())),
        "unlabelled": unlabelled,
        "doubles": doubles,
        "disputed": disputed,
        "out": str(out),
    }


# Column of what `predict quality` writes, and what counts where there is none.
THRESHOLD = "threshold"
EVEN = 0.5
# Probabilities are cut off there: of 0 and 1 there are no odds.
LEAST_ODDS = 1e-6


@dataclass(frozen=True)
class ImageProposal:
    """An image that is worth a label.

    Attributes:
        image: path as the predictions have it.
        probability: that the model gives for one of two classes.
        threshold: from which on it decides for that class.
    """

    image: str
    sha256: bytes
    probability: float
    threshold: float

    @property
    def uncertainty(self) -> float:
        """From 1, at the threshold, down to 0: by the ratio of the odds."""
        return float(np.exp(-abs(_log_odds(self.probability) - _log_odds(self.threshold))))

    def row(self) -> dict[str, Any]:
        """For people, JSON and CSV; `value` is left for the engineer."""
        return {
            "image": self.sha256.hex(),
            "value": "",
            "score": round(self.probability, 4),
            "threshold": round(self.threshold, 4),
            "uncertainty": round(self.uncertainty, 4),
            "why": f"{self.image}: probability {self.probability:.2f}",
        }


def propose_images(
    predictions: Path, images: Path, labels: Labels, count: int, columns: tuple[str, str]
) -> list[ImageProposal]:
    """Choose images that are worth a label: those of which a model is least sure.

    Args:
        predictions: CSV.
        images: folder that paths in it begin from.
        labels: images that have one are not proposed; of equal images one is.
        count: how many at most.
        columns: with the image's path, and the probability of one of two classes. Where there is
            one named THRESHOLD, it says from which probability on; else EVEN.

    Raises:
        RecordingError: names the line and column of the CSV.
        LabelError: an image cannot be read.
        DatasetError: nothing is left to propose.
    """
    table = read_table(predictions, columns)
    paths = table.texts(columns[0])
    probabilities = table.numbers(columns[1], 0, 1)
    limits = np.full(len(table), EVEN)
    if THRESHOLD in table.header:
        limits = table.numbers(THRESHOLD, 0, 1)
    distances = np.abs(_log_odds(probabilities) - _log_odds(limits))
    taken = set(labels.of_images())
    chosen: list[ImageProposal] = []
    for at in np.argsort(distances, kind="stable"):
        if len(chosen) == count:
            break
        sha256 = image_sha256(images / paths[at])
        if sha256 not in taken:
            taken.add(sha256)
            proposal = (paths[at], sha256, float(probabilities[at]), float(limits[at]))
            chosen.append(ImageProposal(*proposal))
    if not chosen:
        raise DatasetError(f"{predictions}: each image has a label", "predict for more images")
    return chosen


def _log_odds(probability: Any) -> Any:
    kept = np.clip(probability, LEAST_ODDS, 1 - LEAST_ODDS)
    return np.log(kept / (1 - kept))


def _folder(value: str) -> str:
    """A class's name as a folder's: any text may be one, and none may lead elsewhere."""
    name = quote(value, safe=" ")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def _images(folder: Path) -> Iterator[Path]:
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found or len(found) > MAX_FILES:
        raise DatasetError(
            f"{folder}: holds {len(found)} images, must hold 1 to {MAX_FILES}", "name another"
        )
    yield from found


def _copy(path: Path, folder: Path, sha256: bytes) -> None:
    # Two images may have one name; of one content there is one.
    target = folder / f"{path.stem}-{sha256.hex()[:12]}{path.suffix.lower()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    except OSError as error:
        raise DatasetError(
            f"{target}: cannot be written ({error.strerror})", "check permissions and free space"
        ) from error
