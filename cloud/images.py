"""Folders of images, read strictly: each error names the file.

What a file claims of itself is bounded before its pixels are made.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import RecordingError
from .scale_out import HERE, File, Pool

FORMATS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
}
MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_PIXELS = 16 * 1024 * 1024
# Fewer a side show nothing.
MIN_SIDE = 16
MAX_IMAGES = 50_000
# Eight bits a channel: more would be cut off, not scaled.
_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"})
_THREADS = 2
_CHUNK = 64

Grey = npt.NDArray[np.uint8]


def list_images(folder: Path) -> tuple[Path, ...]:
    """Images of a folder, sorted; those whose name begins with a dot are not looked at.

    Raises:
        RecordingError: it cannot be read, is empty, or holds anything but images.
    """
    found = []
    for path in entries(folder):
        if path.is_dir():
            raise RecordingError(f"{path}: is a folder among images", "take it out")
        if path.suffix.lower() not in FORMATS:
            raise RecordingError(
                f"{path}: is no image by its suffix",
                f"take it out, or save it as one of {', '.join(sorted(FORMATS))}",
            )
        _check_size(path)
        found.append(path)
    if not found:
        raise RecordingError(f"{folder}: holds no image", "put images there, or take it out")
    return tuple(found)


def entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted, but for what is hidden by a dot; raises RecordingError."""
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise RecordingError(
            f"{folder}: cannot be read ({error.strerror})", "give a folder of images"
        ) from error
    if len(found) > MAX_IMAGES:
        raise RecordingError(f"{folder}: holds over {MAX_IMAGES} files", "split it into several")
    return found


def read_grey(path: Path, sizes: Sequence[int]) -> tuple[Grey, ...]:
    """Read an image as squares of grey.

    Args:
        path: of the file.
        sizes: pixels a side of each square wanted.

    Returns:
        uint8 [size, size] for each: luma by ITU-R 601-2, each pixel the mean of the area that it
        covers. Where the image is no square, its two axes are scaled by different factors.

    Raises:
        RecordingError: too large, damaged, or not what its suffix says.
    """
    image = open_grey(path)
    return tuple(_square(image, size) for size in sizes)


def open_grey(path: Path) -> Any:
    """Read an image as Pillow has it, in grey of 8 bits; raises RecordingError."""
    from PIL import Image, UnidentifiedImageError

    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise RecordingError(
            f"{path}: is no image by its suffix",
            f"save it as one of {', '.join(sorted(FORMATS))}",
        )
    _check_size(path)
    try:
        with Image.open(path, formats=[kind]) as image:
            _check(path, image)
            image.load()
            return image.convert("L")
    except UnidentifiedImageError as error:
        raise RecordingError(
            f"{path}: is not a {kind} file", "save it again, or take it out"
        ) from error
    except OSError as error:
        if error.strerror:
            raise _unreadable(path, error) from error
        raise _damaged(path, error) from error
    # Whatever a damaged file leads Pillow's decoders to.
    except (SyntaxError, ValueError, EOFError, struct.error, zlib.error, OverflowError) as error:
        raise _damaged(path, error) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RecordingError(
            f"{path}: has too many pixels, at most {MAX_PIXELS} are read", "make it smaller"
        ) from error


def _check_size(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode):  # a pipe may never end, or never begin
        raise RecordingError(f"{path}: is no file", "give an image, or take it out")
    size = found.st_size
    if size > MAX_IMAGE_BYTES:
        raise RecordingError(
            f"{path}: has {size} bytes, at most {MAX_IMAGE_BYTES} are read", "make it smaller"
        )


def _unreadable(path: Path, error: OSError) -> RecordingError:
    return RecordingError(
        f"{path}: cannot be read ({error.strerror})", "check its path and permissions"
    )


def _damaged(path: Path, error: Exception) -> RecordingError:
    return RecordingError(f"{path}: is damaged ({error})", "save it again, or take it out")


def _check(path: Path, image: Any) -> None:
    """Refuse by what the header says, before anything is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise RecordingError(
            f"{path}: has {width} x {height} pixels, at most {MAX_PIXELS} are read",
            "make it smaller",
        )
    if min(width, height) < MIN_SIDE:
        raise RecordingError(
            f"{path}: has {width} x {height} pixels, at least {MIN_SIDE} a side are needed",
            "take it out",
        )
    if image.mode not in _MODES:
        raise RecordingError(
            f"{path}: has pixels of the kind {image.mode!r}, not 8 bits a channel",
            "save it with 8 bits a channel",
        )


def _square(image: Any, size: int) -> Grey:
    from PIL import Image

    return np.asarray(image.resize((size, size), Image.Resampling.BOX), np.uint8)


def _say_nothing(done: int, of: int) -> None:
    """Take no note of the progress."""


def read_all(
    paths: Sequence[Path],
    sizes: Sequence[int],
    told: Callable[[int, int], None] = _say_nothing,
    pool: Pool = HERE,
) -> tuple[Grey, ...]:
    """Read images, each once; see `read_grey`.

    Args:
        paths: of the files.
        sizes: pixels a side of each square wanted.
        told: how many are read, and of how many.
        pool: reads them, a part of them at a time, where it is.

    Returns:
        uint8 [n, size, size] for each size.

    Raises:
        RecordingError: names the first file that cannot be read.
        TrainingError: names the first file, and the machine, that is another one there.
    """
    files = []
    for path in paths:
        _check_size(path)
        files.append(File.of(path))
    parts = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    found = tuple(np.zeros((len(paths), size, size), np.uint8) for size in sizes)
    done = 0
    for squares in pool.map(_read, parts, tuple(sizes)):
        start, done = done, done + len(squares[0])
        for kept, read in zip(found, squares, strict=True):
            kept[start:done] = read
        told(done, len(paths))
    return found


def _read(files: Sequence[File], sizes: Sequence[int]) -> tuple[Grey, ...]:
    """Read some of the images."""

    def read(file: File) -> tuple[Grey, ...]:
        file.check()
        return read_grey(file.path, sizes)

    with ThreadPoolExecutor(_THREADS) as threads:
        return tuple(np.stack(of) for of in zip(*threads.map(read, files), strict=True))
