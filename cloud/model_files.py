"""A trained model's directory: its card, and scikit-learn's models, that load and run no code."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fog_node.protocol.merkle import root

from .digests import file_sha256
from .errors import ModelError
from .files import open_file, read_bounded

CARD_FILE = "card.json"
# Beside a model for boards, the task `anomaly`, stands a card of this name instead.
BOARD_CARD_FILE = "manifest.json"
# In a model's directory: what a training has written until it is whole.
NEW = ".new"
MAX_CARD_BYTES = 16 * 1024 * 1024
MAX_MODEL_BYTES = 1024 * 1024 * 1024
# In a model's directory: what it has learned from, so that it is not judged by that.
SEEN_FILE = "seen.npy"
MAX_SEEN_BYTES = 64 * 1024 * 1024
_WEIGHTS = frozenset({".npz", ".skops", ".tflite"})
# Of an archive of skops: what its other files are.
SCHEMA_FILE = "schema.json"
# What a file may make objects of beyond what skops knows to be harmless.
_TRUSTED = frozenset(
    {
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.tree._tree.Tree",
    }
)


@contextmanager
def written_whole(directory: Path, card: str = CARD_FILE) -> Iterator[Path]:
    """Write a model into a directory where there may be one.

    Until all of it is written the one before stands; then it goes and the new one comes, its card
    last, so that there is a whole one or none that anything takes.

    Args:
        directory: made if it is not there.
        card: name of the file without which there is no model.

    Yields:
        The folder to write the model's files to, card included.
    """
    new = directory / NEW
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        (directory / card).unlink(missing_ok=True)
        for path in sorted(new.iterdir(), key=lambda path: path.name == card):
            path.replace(directory / path.name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def is_model(directory: Path) -> bool:
    """Whether a training has written a model into a directory."""
    return any((directory / name).exists() for name in (CARD_FILE, BOARD_CARD_FILE))


def check_task(directory: Path, task: str) -> None:
    """Raise ModelError where a directory holds another task's model, before a training adds to it.

    Of two models' files in one directory nobody could tell which card is of which.
    """
    held = set()
    if (directory / BOARD_CARD_FILE).exists():
        held.add("anomaly")
    with contextlib.suppress(ModelError):  # one that cannot be read may be trained anew
        held.add(str(_card(directory / CARD_FILE).get("task")))
    if others := held - {task}:
        raise ModelError(
            f"{directory}: holds a model of the task {' and '.join(sorted(others))}",
            f"name another directory for that of {task}, or remove this one",
        )


def write_card(directory: Path, card: dict[str, Any]) -> None:
    """Write what training says of its model."""
    (directory / CARD_FILE).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")


def read_card(directory: Path, task: str) -> dict[str, Any]:
    """Read a card; raises ModelError where there is none, or it is another task's."""
    path = directory / CARD_FILE
    card = _card(path)
    if (found := card.get("task")) != task:
        raise ModelError(
            f"{path}: is of the task {found!r}, not {task!r}", "give a model of this task"
        )
    return card


def _card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(read_bounded(path, MAX_CARD_BYTES))
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror})", "give the directory that training wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is no JSON ({error})", "train again") from error
    return card if isinstance(card, dict) else {}


def fingerprint(directory: Path) -> bytes:
    """What stands for a model of several files on the chain.

    Root (RFC 9162) over the SHA-256 of the card and of each file of weights beside it, in order of
    their names. Raises DatasetError where one cannot be read.
    """
    files = [p for p in directory.iterdir() if p.name == CARD_FILE or p.suffix in _WEIGHTS]
    return root([file_sha256(path) for path in sorted(files)])


def save_sklearn(path: Path, model: Any) -> None:
    """Write a model of scikit-learn; the same one gives the same bytes."""
    from skops.io import dumps

    path.write_bytes(_without_addresses(dumps(model)))


def _without_addresses(data: bytes) -> bytes:
    """An archive of skops with numbers for the objects' addresses in memory, and without times."""
    numbers: dict[str, int] = {}

    def numbered(value: Any) -> Any:
        if isinstance(value, list):
            return [numbered(item) for item in value]
        if not isinstance(value, dict):
            return value
        found = {name: numbered(item) for name, item in value.items()}
        if "__id__" in found:
            found["__id__"] = numbers.setdefault(str(found["__id__"]), len(numbers))
        if isinstance(file := found.get("file"), str):
            found["file"] = renamed(file)
        return found

    def renamed(file: str) -> str:
        address, dot, suffix = file.partition(".")
        return f"{numbers.setdefault(address, len(numbers))}{dot}{suffix}"

    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(made, "w") as archive:
        schema = json.dumps(numbered(json.loads(given.read(SCHEMA_FILE))))
        files = {renamed(name): name for name in given.namelist() if name != SCHEMA_FILE}
        for file in sorted(files):
            archive.writestr(zipfile.ZipInfo(file), given.read(files[file]))
        archive.writestr(zipfile.ZipInfo(SCHEMA_FILE), schema)
    return made.getvalue()


def load_sklearn(path: Path) -> Any:
    """Read a model of scikit-learn; raises ModelError for a file that would make anything else."""
    from skops.io import get_untrusted_types, load

    check_size(path)
    try:
        strange = set(get_untrusted_types(file=path)) - _TRUSTED
        model = None if strange else load(path, trusted=sorted(_TRUSTED))
    except Exception as error:  # whatever a damaged archive leads to
        raise ModelError(f"{path}: is no model ({error})", "train again") from error
    if strange:
        raise ModelError(
            f"{path}: would make {', '.join(sorted(strange)[:5])}",
            "do not use this file; train again",
        )
    return model


def load_tflite(path: Path) -> bytes:
    """Read a `.tflite` file; raises ModelError where it is none."""
    from .export import Interpreter

    check_size(path)
    data = path.read_bytes()
    try:
        Interpreter(data)
    except (RuntimeError, ValueError) as error:  # whatever LiteRT finds wrong with it
        raise ModelError(f"{path}: is no model ({error})", "train again") from error
    return data


def load_seen(directory: Path, kind: npt.DTypeLike, row: tuple[int, ...] = ()) -> npt.NDArray[Any]:
    """Read what a model has learned from, as its training wrote it; [n, *row].

    Args:
        directory: of the model.
        kind: of the numbers.
        row: shape of what is known of one thing.

    Raises:
        ModelError: there is none, or something else.
    """
    path = directory / SEEN_FILE
    check_size(path, MAX_SEEN_BYTES)
    try:
        # Mapped: a header that claims more than the file holds costs no memory.
        found = np.lib.format.open_memmap(path, mode="r")
    except (OSError, OverflowError, ValueError, EOFError) as error:
        raise ModelError(f"{path}: is not what training writes ({error})", "train again") from error
    if (found.dtype, found.ndim, found.shape[1:]) != (kind, len(row) + 1, row):
        raise ModelError(f"{path}: is not what training writes", "train again")
    return np.array(found)


def check_size(path: Path, most: int = MAX_MODEL_BYTES) -> None:
    """Raise ModelError for a file that cannot be read, or is larger than any model."""
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror})", "give the directory that training wrote"
        ) from error
    if size > most:
        raise ModelError(f"{path}: is over {most} bytes", "train a smaller model")
