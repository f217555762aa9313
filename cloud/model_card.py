"""What training says of the model that it wrote: `manifest.json` beside `model.tflite`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fog_node.protocol.cbor import encode
from fog_node.protocol.errors import FormatError, ProtocolError
from fog_node.protocol.manifest import MAX_MANIFEST_BYTES, Manifest
from fog_node.protocol.merkle import HASH_BYTES
from fog_node.protocol.transactions import (
    MAX_METRICS,
    MAX_NAME_CHARS,
    DatasetReference,
)
from fog_node.protocol.validate import array, number, text, text_map, uint

from .errors import ReleaseError
from .files import read_bounded
from .model_files import BOARD_CARD_FILE

CARD_FILE = BOARD_CARD_FILE
MODEL_FILE = "model.tflite"
# Hex and JSON take a little over twice what CBOR takes.
MAX_CARD_BYTES = 4 * MAX_MANIFEST_BYTES
MAX_BOARD_KINDS = 256
_MANIFEST_FIELDS = (
    "device_type", "min_version", "ops", "arena", "window", "stride", "channels", "max_gap_s",
    "calibrate", "input", "score", "threshold", "of", "need", "selftest", "spread",
)  # fmt: skip


@dataclass(frozen=True)
class BoardEstimate:
    """What a model is to a kind of board.

    Attributes:
        name: of the kind, by `hardware/boards/`.
        fits: whether it has the working memory.
        least_ms: of one inference, at one instruction in a clock; None where it was not measured.
    """

    name: str
    fits: bool
    least_ms: float | None


@dataclass(frozen=True)
class ModelCard:
    """All of a release's manifest but name, version, payload and time; see `Manifest`.

    Attributes:
        metrics: name to value; what `release.check_metrics` asks for is among them.
        dataset: what the model was trained on; None where it was not sealed data, and then
            it cannot be released.
        min_version: boards that run at least this version may install it; 0 is none.
        macs: multiply-accumulates of one inference; None where nobody counted them.
        boards: what it is to the kinds of boards that there are.
    """

    device_type: str
    ops: tuple[str, ...]
    arena: int
    window: int
    stride: int
    channels: tuple[str, ...]
    max_gap_s: int
    calibrate: int
    input: tuple[tuple[int, int, int], ...]
    score: tuple[int, int, int]
    threshold: int
    of: int
    need: int
    selftest: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    spread: tuple[int, ...]
    metrics: dict[str, float]
    dataset: DatasetReference | None
    min_version: int = 0
    macs: int | None = None
    boards: tuple[BoardEstimate, ...] = ()

    @classmethod
    def of_manifest(
        cls, manifest: Manifest, metrics: dict[str, float], dataset: DatasetReference | None
    ) -> ModelCard:
        """The card of a model that training has described by a manifest."""
        fields = {name: getattr(manifest, name) for name in _MANIFEST_FIELDS}
        return cls(**fields, metrics=metrics, dataset=dataset)

    def manifest(self, name: str, version: int, payload: bytes, time_ms: int) -> Manifest:
        """The manifest of this model as this version, checked as a board would.

        Raises:
            FormatError, EncodingError: names the field.
        """
        manifest = Manifest(
            name=name,
            version=version,
            payload_sha256=hashlib.sha256(payload).digest(),
            payload_size=len(payload),
            time=time_ms,
            **{name: getattr(self, name) for name in _MANIFEST_FIELDS},
        )
        return Manifest.decode(manifest.encode())

    def save(self, directory: Path) -> None:
        """Write the card; raises OSError."""
        zi, zo, mo = self.score
        value: dict[str, Any] = {name: getattr(self, name) for name in _MANIFEST_FIELDS}
        value["score"] = {"zi": zi, "zo": zo, "mo": mo}
        value["selftest"] = [{"in": i.hex(), "out": o.hex()} for i, o in self.selftest]
        value["metrics"] = self.metrics
        if self.macs is not None:
            value["macs"] = self.macs
            value["boards"] = {b.name: [b.fits, b.least_ms] for b in self.boards}
        value["dataset"] = None if self.dataset is None else _hex(self.dataset.value)
        (directory / CARD_FILE).write_text(json.dumps(value, indent=1) + "\n")

    @classmethod
    def load(cls, directory: Path) -> ModelCard:
        """Read and check a card.

        Raises:
            ReleaseError: names the file and the field.
        """
        path = directory / CARD_FILE
        data = read_model_file(path, MAX_CARD_BYTES)
        try:
            return cls._parse(json.loads(data))
        except ProtocolError as error:
            raise ReleaseError(f"{path}: {error}", "correct it, or train again") from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ReleaseError(
                f"{path}: is not a model card ({error!r})", "train again; training writes it"
            ) from error

    @classmethod
    def _parse(cls, value: Any) -> ModelCard:
        names = {*_MANIFEST_FIELDS, "metrics", "dataset"}
        cost = {"macs", "boards"} if isinstance(value, dict) and "macs" in value else set()
        fields = text_map(value, names | cost, "card")
        macs = uint(fields.pop("macs"), "card.macs") if cost else None
        boards = _boards(fields.pop("boards")) if cost else ()
        metrics = fields.pop("metrics")
        reference = fields.pop("dataset")
        fields["selftest"] = [
            {key: bytes.fromhex(octet_text) for key, octet_text in pair.items()}
            for pair in fields["selftest"]
        ]
        if not fields["spread"]:
            del fields["spread"]
        min_version = uint(fields["min_version"], "card.min_version", 2**32 - 2)
        # The manifest's own reader checks the fields; what only a release has is filled in.
        filled = {"type": "model", "name": "-", "version": min_version + 1, "time": 0}
        filled["payload"] = {"sha256": bytes(HASH_BYTES), "size": 1}
        manifest = Manifest.decode(encode(fields | filled))
        card = cls.of_manifest(manifest, _metrics(metrics), _reference(reference))
        return replace(card, macs=macs, boards=boards)


def read_model_file(path: Path, max_bytes: int) -> bytes:
    """Read a file of the model's directory; raises ReleaseError."""
    try:
        return read_bounded(path, max_bytes)
    except OSError as error:
        raise ReleaseError(
            f"{path}: cannot be read ({error.strerror})", "give the directory that training wrote"
        ) from error


def _boards(value: Any) -> tuple[BoardEstimate, ...]:
    if not isinstance(value, dict) or len(value) > MAX_BOARD_KINDS:
        raise TypeError(f"boards: is not a map of at most {MAX_BOARD_KINDS} entries")
    boards = []
    for name, item in value.items():
        where = f"card.boards.{name}"
        fits, least_ms = array(item, where, length=2)
        if not isinstance(fits, bool):
            raise TypeError(f"{where}: does not say first whether it fits")
        boards.append(
            BoardEstimate(
                text(name, "card.boards", MAX_NAME_CHARS),
                fits,
                None if least_ms is None else number(least_ms, where),
            )
        )
    return tuple(boards)


def _metrics(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or len(value) > MAX_METRICS:
        raise TypeError(f"metrics: is not a map of at most {MAX_METRICS} entries")
    return {
        text(name, "card.metrics", MAX_NAME_CHARS): number(item, f"card.metrics.{name}")
        for name, item in value.items()
    }


def _reference(value: Any) -> DatasetReference | None:
    if value is None:
        return None
    value = dict(value)
    value["root"] = bytes.fromhex(value["root"])
    if "query" in value:
        query = dict(value["query"])
        if query["devices"] is not None:
            query["devices"] = [bytes.fromhex(kid) for kid in query["devices"]]
        if query["labels"] is not None:
            labels = query["labels"]
            query["labels"] = labels | {"root": bytes.fromhex(labels["root"])}
        value["query"] = query
    reference = DatasetReference.parse(value, "card.dataset")
    if not reference.count:
        raise FormatError("card.dataset.count", "is 0")
    return reference


def _hex(value: Any) -> Any:
    """JSON's form of what CBOR holds."""
    if isinstance(value, dict):
        return {name: _hex(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_hex(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value
