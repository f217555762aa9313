"""Where a piece is defective, drawn over its image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cloud.errors import RecordingError
from cloud.files import whole_file
from cloud.images import open_grey

from .quality_model import Floats, QualityModel, heat

# The longer side at most, in pixels; so a PNG file of it has less than 0.8 MB.
HEATMAP_SIDE = 512


def heatmap(image: Path, grid: Floats, judging: QualityModel) -> Any:
    """An image with what speaks for a defect drawn over it in red, as Pillow has it.

    Where the red is half, that spot alone would make the piece a defective one.

    Raises:
        RecordingError: the image cannot be read.
    """
    from PIL import Image

    grey = open_grey(image)
    grey.thumbnail((HEATMAP_SIDE, HEATMAP_SIDE), Image.Resampling.BOX)
    levels = np.rint(heat(grid, judging.sharpness, judging.threshold) * 255).astype(np.uint8)
    mask = Image.fromarray(levels).resize(grey.size, Image.Resampling.BICUBIC)
    picture = grey.convert("RGB")
    picture.paste((255, 0, 0), (0, 0, *grey.size), mask)
    return picture


def write_heatmap(path: Path, image: Path, grid: Floats, judging: QualityModel) -> None:
    """Write it as PNG, whole or not at all; raises RecordingError."""
    picture = heatmap(image, grid, judging)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            picture.save(part, format="PNG")
    except OSError as error:
        raise RecordingError(
            f"{path}: cannot be written ({error.strerror})",
            "check its path, its permissions and the room on the disk",
        ) from error
