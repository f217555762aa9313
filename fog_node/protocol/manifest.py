"""Release bundles: a payload with a manifest that up to three members sign.

A model is signed by trainers, firmware by operators.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .cbor import decode, encode
from .cose import Sign1, parse_sign1, sign1
from .errors import FormatError, ProofError
from .keys import PublicKey, SigningKey
from .merkle import HASH_BYTES
from .senml import MAX_CHANNELS, MAX_NAME_CHARS
from .validate import array, integer, octets, text, text_map, time_ms, uint

CONTENT_TYPE = "application/vnd.fogline.manifest+cbor"
# Which boards firmware is for stands where a model has its device type, behind this.
FIRMWARE_PREFIX = "firmware/"
MAX_MANIFEST_BYTES = 16 * 1024
MAX_PAYLOAD_BYTES = 1024 * 1024
MAX_SIGNERS = 3
MAX_BUNDLE_BYTES = MAX_PAYLOAD_BYTES + MAX_SIGNERS * MAX_MANIFEST_BYTES + 1024
MAX_OPS = 64
MAX_SELF_TESTS = 16
MAX_WINDOW_ELEMENTS = 4096
MAX_SMOOTHING = 64
MAX_FILES = 128
MAX_PATH_CHARS = 64
# Version and sub-version of .mpy files (MicroPython, docs/reference/mpyfiles).
MAX_MPY = 2**10 - 1
MAX_RELEASE_KEYS = 3
_PATH = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)*\.m?py")


@dataclass(frozen=True)
class Manifest:
    """What a board must know to run a model as it was meant.

    Attributes:
        type: "model".
        name, version, min_version: a board takes it if it runs at least `min_version`
            and less than `version`; 0 is a board without a model.
        device_type: which enrolled type may install it.
        payload_sha256, payload_size: of the `.tflite` file.
        ops: TFLite builtin operators that it uses.
        arena: bytes of working memory that it needs.
        window, stride: rows in a window; rows between two verdicts.
        channels: names, in the order of the input tensor's last axis.
        max_gap_s: a longer gap between rows starts a new segment.
        calibrate: rows at a segment's start whose mean is taken off; 0 = none.
        input: (e, m, b) per channel, see SPEC.md "Pre-processing".
        score: (zi, zo, mo), see SPEC.md "Score".
        threshold: a window whose score is above it is a hit.
        of, need: anomaly = at least `need` hits in the latest `of` windows.
        selftest: pairs of input and output tensor, int8 bytes.
        time: ms since 1970.
        spread: least deviation per channel, of fixed-point readings; where it is given, m is
            divided by the deviation during calibration. Empty: it is not.
    """

    name: str
    version: int
    min_version: int
    device_type: str
    payload_sha256: bytes
    payload_size: int
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
    time: int
    spread: tuple[int, ...] = ()
    type: str = "model"

    def encode(self) -> bytes:
        """Deterministic CBOR of the manifest."""
        zi, zo, mo = self.score
        # Left out where it is empty: boards and releases from before it was there go on.
        spread = {"spread": list(self.spread)} if self.spread else {}
        return encode(
            spread
            | {
                "type": self.type,
                "name": self.name,
                "version": self.version,
                "min_version": self.min_version,
                "device_type": self.device_type,
                "payload": {"sha256": self.payload_sha256, "size": self.payload_size},
                "ops": list(self.ops),
                "arena": self.arena,
                "window": self.window,
                "stride": self.stride,
                "channels": list(self.channels),
                "max_gap_s": self.max_gap_s,
                "calibrate": self.calibrate,
                "input": [list(item) for item in self.input],
                "score": {"zi": zi, "zo": zo, "mo": mo},
                "threshold": self.threshold,
                "of": self.of,
                "need": self.need,
                "selftest": [{"in": i, "out": o} for i, o in self.selftest],
                "time": self.time,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Parse strictly; raises EncodingError, FormatError."""
        names = {
            "type", "name", "version", "min_version", "device_type", "payload", "ops", "arena",
            "window", "stride", "channels", "max_gap_s", "calibrate", "input", "score",
            "threshold", "of", "need", "selftest", "time",
        }  # fmt: skip
        value = decode(data, MAX_MANIFEST_BYTES, "manifest")
        if isinstance(value, dict) and "spread" in value:
            names.add("spread")
        text_map(value, names, "manifest")
        if value["type"] != "model":
            raise FormatError("manifest.type", "is not model")
        common = _common(value)
        if common["device_type"].startswith(FIRMWARE_PREFIX):
            raise FormatError("manifest.device_type", "is of firmware, not of a model")
        score = text_map(value["score"], {"zi", "zo", "mo"}, "manifest.score")
        calibrate = uint(value["calibrate"], "manifest.calibrate", 2**16)
        channels = tuple(
            text(item, "manifest.channels", MAX_NAME_CHARS)
            for item in array(value["channels"], "manifest.channels", at_most=MAX_CHANNELS)
        )
        window = uint(value["window"], "manifest.window", MAX_WINDOW_ELEMENTS, at_least=1)
        of = uint(value["of"], "manifest.of", MAX_SMOOTHING, at_least=1)
        if not channels or window * len(channels) > MAX_WINDOW_ELEMENTS:
            raise FormatError(
                "manifest.window", f"times channels must be 1 to {MAX_WINDOW_ELEMENTS} elements"
            )
        return cls(
            **common,
            ops=tuple(
                text(item, "manifest.ops", 64)
                for item in array(value["ops"], "manifest.ops", at_most=MAX_OPS)
            ),
            arena=uint(value["arena"], "manifest.arena", 2**24),
            window=window,
            stride=uint(value["stride"], "manifest.stride", MAX_WINDOW_ELEMENTS, at_least=1),
            channels=channels,
            max_gap_s=uint(value["max_gap_s"], "manifest.max_gap_s", 2**31 - 1, at_least=1),
            calibrate=calibrate,
            input=_input(value["input"], len(channels)),
            score=(
                uint(score["zi"], "manifest.score.zi", 127, -128),
                uint(score["zo"], "manifest.score.zo", 127, -128),
                uint(score["mo"], "manifest.score.mo", 2**14, at_least=1),
            ),
            threshold=uint(value["threshold"], "manifest.threshold", 2**31 - 1),
            of=of,
            need=uint(value["need"], "manifest.need", of, at_least=1),
            selftest=_selftest(value["selftest"]),
            spread=_spread(value["spread"], len(channels), calibrate) if "spread" in value else (),
        )


@dataclass(frozen=True)
class FirmwareFile:
    """One of our files on a board; its bytes follow those of the file before in the payload.

    Attributes:
        path: below the slot, lower case, `.py` or `.mpy`.
        size, sha256: of its bytes.
    """

    path: str
    size: int
    sha256: bytes


@dataclass(frozen=True)
class FirmwareManifest:
    """What a board must know to take new files of ours.

    Attributes:
        type: "firmware".
        name, version, min_version: a board takes it if it runs at least `min_version`
            and less than `version`.
        device_type: FIRMWARE_PREFIX and the class of boards that it is for.
        payload_sha256, payload_size: of all files, one after the other.
        mpy: the low ten bits of `sys.implementation._mpy` of the boards that run it; 0 where
            it is source alone.
        files: in the order of the payload.
        keys: x || y of those whose releases the board trusts once it has confirmed this
            firmware, 1 to 3; none: it trusts whom it did.
        time: ms since 1970.
    """

    name: str
    version: int
    min_version: int
    device_type: str
    payload_sha256: bytes
    payload_size: int
    mpy: int
    files: tuple[FirmwareFile, ...] = field(repr=False)
    keys: tuple[bytes, ...]
    time: int
    type: str = "firmware"

    def encode(self) -> bytes:
        """Deterministic CBOR of the manifest."""
        return encode(
            {
                "type": self.type,
                "name": self.name,
                "version": self.version,
                "min_version": self.min_version,
                "device_type": self.device_type,
                "payload": {"sha256": self.payload_sha256, "size": self.payload_size},
                "mpy": self.mpy,
                "files": [[file.path, file.size, file.sha256] for file in self.files],
                "keys": list(self.keys),
                "time": self.time,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> FirmwareManifest:
        """Parse strictly; raises EncodingError, FormatError."""
        names = {
            "type", "name", "version", "min_version", "device_type", "payload", "mpy", "files",
            "keys", "time",
        }  # fmt: skip
        value = text_map(decode(data, MAX_MANIFEST_BYTES, "manifest"), names, "manifest")
        if value["type"] != "firmware":
            raise FormatError("manifest.type", "is not firmware")
        common = _common(value)
        if not common["device_type"].startswith(FIRMWARE_PREFIX):
            raise FormatError("manifest.device_type", f"does not begin with {FIRMWARE_PREFIX}")
        keys = tuple(
            PublicKey(octets(key, "manifest.keys", 64)).xy
            for key in array(value["keys"], "manifest.keys", at_most=MAX_RELEASE_KEYS)
        )
        if len(set(keys)) != len(keys):
            raise FormatError("manifest.keys", "has one key twice")
        files = _files(value["files"])
        if sum(file.size for file in files) != common["payload_size"]:
            raise FormatError("manifest.files", "are not as many bytes as the payload")
        return cls(
            **common, mpy=uint(value["mpy"], "manifest.mpy", MAX_MPY), files=files, keys=keys
        )


AnyManifest = Manifest | FirmwareManifest


def decode_manifest(data: bytes) -> AnyManifest:
    """Parse a manifest of either type; raises EncodingError, FormatError."""
    value = decode(data, MAX_MANIFEST_BYTES, "manifest")
    if isinstance(value, dict) and value.get("type") == "firmware":
        return FirmwareManifest.decode(data)
    return Manifest.decode(data)


def _common(value: dict[str, Any]) -> dict[str, Any]:
    """Read what the manifests of both types have."""
    payload = text_map(value["payload"], {"sha256", "size"}, "manifest.payload")
    version = uint(value["version"], "manifest.version", 2**32 - 1, at_least=1)
    return {
        "name": text(value["name"], "manifest.name", 64),
        "version": version,
        "min_version": uint(value["min_version"], "manifest.min_version", version - 1),
        "device_type": text(value["device_type"], "manifest.device_type", 64),
        "payload_sha256": octets(payload["sha256"], "manifest.payload.sha256", HASH_BYTES),
        "payload_size": uint(payload["size"], "manifest.payload.size", MAX_PAYLOAD_BYTES, 1),
        "time": time_ms(value["time"], "manifest.time"),
    }


def _files(value: Any) -> tuple[FirmwareFile, ...]:
    files = []
    for item in array(value, "manifest.files", at_most=MAX_FILES):
        path, size, sha256 = array(item, "manifest.files", length=3)
        if not _PATH.fullmatch(text(path, "manifest.files", MAX_PATH_CHARS)):
            raise FormatError("manifest.files", f"{path!r} is no path of firmware")
        files.append(
            FirmwareFile(
                path,
                uint(size, "manifest.files.size", MAX_PAYLOAD_BYTES),
                octets(sha256, "manifest.files.sha256", HASH_BYTES),
            )
        )
    if len({file.path for file in files}) != len(files):
        raise FormatError("manifest.files", "has one path twice")
    return tuple(files)


def _input(value: Any, channels: int) -> tuple[tuple[int, int, int], ...]:
    parsed = []
    for item in array(value, "manifest.input", length=channels):
        e, m, b = array(item, "manifest.input", length=3)
        parsed.append(
            (
                uint(e, "manifest.input.e", 30, -30),
                integer(m, "manifest.input.m"),
                integer(b, "manifest.input.b"),
            )
        )
    return tuple(parsed)


def _spread(value: Any, channels: int, calibrate: int) -> tuple[int, ...]:
    if not calibrate:
        raise FormatError("manifest.spread", "is of a calibration, and calibrate is 0")
    return tuple(
        uint(item, "manifest.spread", 2**30, at_least=1)
        for item in array(value, "manifest.spread", length=channels)
    )


def _selftest(value: Any) -> tuple[tuple[bytes, bytes], ...]:
    parsed = []
    for item in array(value, "manifest.selftest", at_most=MAX_SELF_TESTS):
        pair = text_map(item, {"in", "out"}, "manifest.selftest")
        if not (isinstance(pair["in"], bytes) and isinstance(pair["out"], bytes)):
            raise FormatError("manifest.selftest", "in and out are byte strings")
        parsed.append((pair["in"], pair["out"]))
    if not parsed:
        raise FormatError("manifest.selftest", "is empty: a board could not check the model")
    return tuple(parsed)


def sign_manifest(key: SigningKey, manifest: AnyManifest, chain_id: bytes) -> bytes:
    """COSE_Sign1 of the manifest by one member."""
    return sign1(key, CONTENT_TYPE, manifest.encode(), chain_id)


@dataclass(frozen=True)
class Bundle:
    """A bundle file: [[manifest COSE_Sign1, one per signer], payload]."""

    signatures: tuple[Sign1, ...]
    manifest: AnyManifest
    payload: bytes = field(repr=False)

    def verify(self, keys: Sequence[PublicKey], chain_id: bytes) -> None:
        """Raise SignatureError or ProofError unless every signature is by one of `keys`."""
        by_kid = {key.kid: key for key in keys}
        for message in self.signatures:
            key = by_kid.get(message.kid)
            if key is None:
                raise ProofError("bundle.signatures", f"{message.kid.hex()} may not release")
            message.verify(key, chain_id)


def encode_bundle(signatures: Sequence[bytes], payload: bytes) -> bytes:
    """The bundle file's bytes; checked by parsing them again."""
    data = encode([list(signatures), payload])
    parse_bundle(data)
    return data


def parse_bundle(data: bytes) -> Bundle:
    """Parse a bundle and check that payload and manifest fit; signatures by `verify`."""
    signed, payload = array(decode(data, MAX_BUNDLE_BYTES, "bundle"), "bundle", length=2)
    raw = array(signed, "bundle.signatures", at_most=MAX_SIGNERS)
    if not raw or not all(isinstance(item, bytes) for item in raw):
        raise FormatError("bundle.signatures", f"must be 1 to {MAX_SIGNERS} byte strings")
    messages = tuple(parse_sign1(item, MAX_MANIFEST_BYTES, "bundle.manifest") for item in raw)
    first = messages[0]
    if any(message.content_type != CONTENT_TYPE for message in messages):
        raise FormatError("bundle.manifest", f"is not {CONTENT_TYPE}")
    if len({message.kid for message in messages}) != len(messages):
        raise FormatError("bundle.signatures", "one signer stands there twice")
    if any(message.payload != first.payload for message in messages):
        raise FormatError("bundle.signatures", "are over different manifests")
    if not isinstance(payload, bytes):
        raise FormatError("bundle.payload", "is not a byte string")
    manifest = decode_manifest(first.payload)
    if len(payload) != manifest.payload_size:
        raise ProofError("bundle.payload", "has another size than the manifest says")
    if hashlib.sha256(payload).digest() != manifest.payload_sha256:
        raise ProofError("bundle.payload", "has another SHA-256 than the manifest says")
    if isinstance(manifest, FirmwareManifest):
        _check_files(manifest, payload)
    return Bundle(messages, manifest, payload)


def _check_files(manifest: FirmwareManifest, payload: bytes) -> None:
    at = 0
    for file in manifest.files:
        if hashlib.sha256(payload[at : at + file.size]).digest() != file.sha256:
            raise ProofError("bundle.payload", f"{file.path} has another SHA-256 than it says")
        at += file.size
