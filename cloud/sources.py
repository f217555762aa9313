"""Where data comes from, whatever it is: sealed, imported, or files as they were published.

One interface for all: what it is, whether it is sealed, and, of readings, an answer to a query.
Only what is sealed has a reference that a release can name; of the rest there is a fingerprint,
which tells whether two people have the same files, and proves nothing about where they came from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from fog_node.protocol.keys import kid_hex
from fog_node.protocol.merkle import root

from .dataset import STATE_FILE, Dataset
from .digests import file_sha256
from .errors import DatasetError
from .imported import SOURCE_FILE, Imported
from .selection import Query, Selection, select
from .times import iso

MAX_FILES = 200_000
# What is looked at where a folder holds files of any kind.
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class Source(Protocol):
    """Data to learn from."""

    @property
    def sealed(self) -> bool:
        """Whether all of it is on the chain."""

    def describe(self) -> dict[str, Any]:
        """What it is, for people and JSON."""

    def select(self, query: Query) -> Selection:
        """Answer a query; raises DatasetError."""


class SealedSource:
    """A data set that was collected from the chain."""

    sealed = True

    def __init__(self, dataset: Dataset) -> None:
        """Take a data set over."""
        self.dataset = dataset

    def describe(self) -> dict[str, Any]:
        """Boards with what they have sent, and what is said of it."""
        dataset = self.dataset
        view = dataset.view
        assert view is not None
        labels = dataset.labels()
        standing = Counter(labels.standing())
        boards = []
        for device_type in sorted({device.type for device in dataset.devices()}):
            readings = dataset.readings(device_type)
            packs = Counter(pack.device for pack in dataset.packs(dataset.of_type(device_type)))
            for kid, device in dataset.of_type(device_type).items():
                rows = readings.get(kid)
                boards.append(
                    {
                        "device_type": device_type,
                        "board": kid_hex(kid),
                        "channels": list(device.channels),
                        "packs": packs[kid],
                        "rows": 0 if rows is None else len(rows),
                        "from": None if rows is None else iso(float(rows.times.min()) * 1000),
                        "to": None if rows is None else iso(float(rows.times.max()) * 1000),
                    }
                )
        return {
            "kind": "sealed data set",
            "sealed": True,
            "chain_id": view.chain_id.hex(),
            "block": view.height,
            "boards": boards,
            "labels": dict(sorted(standing.items())),
            "releases": [
                f"{r.release.name} {r.release.version} for {r.release.device_type}"
                for r in dataset.releases()
            ],
        }

    def select(self, query: Query) -> Selection:
        """Answer a query; raises DatasetError."""
        return select(self.dataset, query)


class Files:
    """Files as they were published, which a task of `cloud.train` reads by itself."""

    sealed = False

    def __init__(self, path: Path) -> None:
        """Look at a file or a folder."""
        self._path = path

    def describe(self) -> dict[str, Any]:
        """How many of what kind, in which folders, and the fingerprint; raises DatasetError."""
        files = sorted(self._files())
        hashes = [file_sha256(file) for file in files]
        kinds = Counter(file.suffix.lower() or "none" for file in files)
        found: dict[str, Any] = {
            "kind": "files",
            "sealed": False,
            "fingerprint": root(sorted(hashes)).hex(),
            "files": len(files),
            "bytes": sum(file.stat().st_size for file in files),
            "kinds": dict(sorted(kinds.items())),
            "latest_change": iso(max(file.stat().st_mtime for file in files) * 1000),
        }
        images = [(f, h) for f, h in zip(files, hashes, strict=True) if _is_image(f)]
        if images:
            folders = Counter(str(file.parent.relative_to(self._base)) for file, _ in images)
            found["images"] = [{"folder": n, "images": c} for n, c in sorted(folders.items())]
            found["doubles"] = len(images) - len({digest for _, digest in images})
        return found

    def select(self, query: Query) -> Selection:
        """Nothing can be asked of files."""
        raise DatasetError(
            f"{self._path}: holds files, of which no {query.device_type} can be told",
            "import the CSV files with `fogline data import`, or give them to their task as they "
            "are",
        )

    @property
    def _base(self) -> Path:
        return self._path if self._path.is_dir() else self._path.parent

    def _files(self) -> Iterator[Path]:
        if self._path.is_file():
            yield self._path
            return
        count = 0
        for path in self._path.rglob("*"):
            if not path.is_file() or path.is_symlink():
                continue
            count += 1
            if count > MAX_FILES:
                raise DatasetError(f"{self._path}: holds over {MAX_FILES} files", "name a part")
            yield path
        if not count:
            raise DatasetError(f"{self._path}: is empty", "give a folder with files")


def open_source(path: Path) -> Source:
    """Open whatever lies there; raises DatasetError."""
    if (path / STATE_FILE).exists():
        return SealedSource(Dataset.open(path))
    if (path / SOURCE_FILE).exists():
        return Imported.open(path)
    if not path.exists():
        raise DatasetError(f"{path}: is not there", "check the path")
    return Files(path)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


__all__ = ["Files", "Imported", "SealedSource", "Source", "open_source"]
