"""Heat maps of what was judged not normal: a folder that holds the latest, and so many at most."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from cloud.errors import RecordingError
from cloud.files import PART, save_file

KEPT = 1000
_MODEL_BYTES = 8
_OURS = re.compile(r"[0-9a-f]{64}-[0-9a-f]{16}\.png")


class Heatmaps:
    """One worker's folder; files in it that are not heat maps are left alone.

    A file is named by the SHA-256 of the image, and how that of the model begins: as the
    transaction has them.
    """

    def __init__(self, folder: Path, kept: int) -> None:
        """Make the folder, or take over what an earlier run has left there.

        Args:
            folder: for them alone, best.
            kept: so many at most, the latest.

        Raises:
            RecordingError: it cannot be written to.
        """
        self._folder, self._kept = folder, kept
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir():
                if path.suffix == PART and _OURS.fullmatch(path.stem):
                    path.unlink()
            found = [path for path in folder.iterdir() if _OURS.fullmatch(path.name)]
            self._names = {
                path.name: None for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)
            }
        except OSError as error:
            raise _refused(folder, error) from error
        self._forget()

    def write(self, image: bytes, model: bytes, picture: Any) -> None:
        """Write one, whole or not at all, and let the oldest go.

        Args:
            image, model: SHA-256 of either's file.
            picture: as Pillow has it.

        Raises:
            RecordingError: it cannot be written.
        """
        path = self._folder / f"{image.hex()}-{model[:_MODEL_BYTES].hex()}.png"
        data = io.BytesIO()
        picture.save(data, format="PNG")
        try:
            save_file(path, data.getvalue())
        except OSError as error:
            raise _refused(path, error) from error
        self._names.pop(path.name, None)
        self._names[path.name] = None
        self._forget()

    def _forget(self) -> None:
        while len(self._names) > self._kept:
            oldest = next(iter(self._names))
            (self._folder / oldest).unlink(missing_ok=True)
            del self._names[oldest]


def _refused(path: Path, error: OSError) -> RecordingError:
    return RecordingError(
        f"{path}: cannot be written ({error.strerror})", "check its path, permissions and space"
    )
