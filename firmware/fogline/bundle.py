"""Release bundles on the board: the signed manifest and the payload in the file.

A bundle is CBOR `[[manifest COSE_Sign1 as bytes, ...], payload]`, in flash. It is read through
its heads alone, so that no more than one manifest is in memory. SPEC.md of the protocol, "Release
bundles", is the definition; the limits are those of the hub.
"""

from . import cbor, cose
from .errors import CryptoError, UpdateError

MAX_SIGNERS = 3
MAX_MANIFEST_BYTES = 16 * 1024
MAX_PAYLOAD_BYTES = 1 << 20
MAX_BUNDLE_BYTES = MAX_PAYLOAD_BYTES + MAX_SIGNERS * MAX_MANIFEST_BYTES + 1024
MAX_CHANNELS = 32
MAX_OPS = 64
MAX_SELF_TESTS = 16
MAX_WINDOW_ELEMENTS = 4096
MAX_SMOOTHING = 64
MAX_CALIBRATE_ROWS = 1 << 16
MAX_FILES = 128
MAX_PATH_CHARS = 64
MAX_RELEASE_KEYS = 3
_PATH_CHARS = "abcdefghijklmnopqrstuvwxyz0123456789_"

_MAX_HEAD_BYTES = 9
_MAX_INT = (1 << 31) - 1
_MAX_VERSION = (1 << 32) - 1
_KEYS = {
    "type", "name", "version", "min_version", "device_type", "payload", "ops", "arena",
    "window", "stride", "channels", "max_gap_s", "calibrate", "input", "score", "threshold",
    "of", "need", "selftest", "time",
}  # fmt: skip
_FIRMWARE_KEYS = {
    "type", "name", "version", "min_version", "device_type", "payload", "mpy", "files", "keys",
    "time",
}  # fmt: skip
_BYTES, _LIST = 2, 4


def open_bundle(file, size, release_keys, chain_id):
    """Find a manifest that one of `release_keys` signed, and the payload's place.

    Args:
        file: the bundle, open for reading bytes.
        size: of the file.
        release_keys: x || y, 64 bytes each.
        chain_id: SHA-256 of the founding file.

    Returns (manifest, offset of the payload, length of the payload). Raises UpdateError,
    CryptoError if no signature is good, EncodingError.
    """
    parts, at = _head(file, 0, _LIST)
    count, at = _head(file, at, _LIST)
    if parts != 2 or not 1 <= count <= MAX_SIGNERS:
        raise UpdateError("update.bundle", "%d parts, %d signatures" % (parts, count))
    manifest = None
    failure = None
    for _ in range(count):
        length, at = _head(file, at, _BYTES)
        if length > MAX_MANIFEST_BYTES:
            raise UpdateError("update.bundle", "a manifest of %d bytes" % length)
        if manifest is None:
            file.seek(at)
            try:
                manifest = cose.verify_sign1(
                    file.read(length), release_keys, cose.MANIFEST, chain_id, MAX_MANIFEST_BYTES
                )
            except CryptoError as error:
                failure = error
        at += length
    if manifest is None:
        raise failure
    length, at = _head(file, at, _BYTES)
    if at + length != size:
        raise UpdateError("update.bundle", "does not end with its payload")
    return parse(manifest), at, length


def find_payload(file, size):
    """Return (offset, length) of the payload; that verifies nothing of the bundle."""
    _, at = _head(file, 0, _LIST)
    count, at = _head(file, at, _LIST)
    if count > MAX_SIGNERS:
        raise UpdateError("update.bundle", "%d signatures" % count)
    for _ in range(count):
        length, at = _head(file, at, _BYTES)
        at += length
    length, at = _head(file, at, _BYTES)
    if at + length != size:
        raise UpdateError("update.bundle", "does not end with its payload")
    return at, length


def _head(file, at, major):
    """Read the head of an item of type `major` at `at`; returns (argument, offset behind it)."""
    file.seek(at)
    head = file.read(_MAX_HEAD_BYTES)
    found, argument, used = cbor.decode_head(head, 0)
    if found != major:
        raise UpdateError("update.bundle", "byte %d: not CBOR type %d" % (at, major))
    return argument, at + used


def parse(data):
    """Decode and check a manifest's CBOR; returns it as a dict. Raises UpdateError."""
    manifest = cbor.decode(data, MAX_MANIFEST_BYTES)
    is_firmware = isinstance(manifest, dict) and manifest.get("type") == "firmware"
    keys = _FIRMWARE_KEYS if is_firmware else _KEYS
    if isinstance(manifest, dict) and not is_firmware and "spread" in manifest:
        keys = keys | {"spread"}
    if not isinstance(manifest, dict) or set(manifest) != keys:
        raise UpdateError("update.manifest", "its fields are not those of a manifest")
    for key in ("name", "device_type"):
        _require(key, isinstance(manifest[key], str))
    _integer(manifest, "version", 1, _MAX_VERSION)
    _integer(manifest, "min_version", 0, manifest["version"] - 1)
    payload = _fields(manifest, "payload", {"sha256", "size"})
    _require("payload", _is_hash(payload["sha256"]))
    _integer(payload, "size", 1, MAX_PAYLOAD_BYTES)
    if is_firmware:
        _check_firmware(manifest)
    else:
        _check_model(manifest)
    return manifest


def _check_firmware(manifest):
    _integer(manifest, "mpy", 0, (1 << 10) - 1)
    total = 0
    paths = set()
    for item in _list(manifest, "files", 1, MAX_FILES):
        _require("files", isinstance(item, list) and len(item) == 3 and _is_path(item[0]))
        _require("files", _is_integer(item[1]) and item[1] >= 0 and _is_hash(item[2]))
        total += item[1]
        paths.add(item[0])
    _require("files", total == manifest["payload"]["size"] and len(paths) == len(manifest["files"]))
    for key in _list(manifest, "keys", 0, MAX_RELEASE_KEYS):
        _require("keys", isinstance(key, bytes) and len(key) == 64)


def _is_path(path):
    if not isinstance(path, str) or len(path) > MAX_PATH_CHARS:
        return False
    stem = path[:-4] if path.endswith(".mpy") else path[:-3]
    if path[len(stem) :] not in (".py", ".mpy"):
        return False
    return all(part and all(c in _PATH_CHARS for c in part) for part in stem.split("/"))


def _check_model(manifest):
    _require("type", manifest["type"] == "model")
    _integer(manifest, "arena", 0, 1 << 24)
    _integer(manifest, "window", 1, MAX_WINDOW_ELEMENTS)
    _integer(manifest, "stride", 1, MAX_WINDOW_ELEMENTS)
    _integer(manifest, "max_gap_s", 1, _MAX_INT)
    _integer(manifest, "calibrate", 0, MAX_CALIBRATE_ROWS)
    _integer(manifest, "threshold", 0, _MAX_INT)
    _integer(manifest, "of", 1, MAX_SMOOTHING)
    _integer(manifest, "need", 1, manifest["of"])
    score = _fields(manifest, "score", {"zi", "zo", "mo"})
    _integer(score, "zi", -128, 127)
    _integer(score, "zo", -128, 127)
    _integer(score, "mo", 1, 1 << 14)
    for name in _list(manifest, "ops", 0, MAX_OPS):
        _require("ops", isinstance(name, str))
    channels = _list(manifest, "channels", 1, MAX_CHANNELS)
    for name in channels:
        _require("channels", isinstance(name, str))
    _require("window", manifest["window"] * len(channels) <= MAX_WINDOW_ELEMENTS)
    _parse_input(_list(manifest, "input", len(channels), len(channels)))
    if "spread" in manifest:
        _require("spread", manifest["calibrate"] > 0)
        for least in _list(manifest, "spread", len(channels), len(channels)):
            _require("spread", _is_integer(least) and 1 <= least <= 1 << 30)
    for test in _list(manifest, "selftest", 1, MAX_SELF_TESTS):
        _require("selftest", isinstance(test, dict) and set(test) == {"in", "out"})
        _require("selftest", isinstance(test["in"], bytes) and isinstance(test["out"], bytes))


def _parse_input(scaling):
    for item in scaling:
        _require("input", isinstance(item, list) and len(item) == 3)
        for number, most in zip(item, (30, _MAX_INT, _MAX_INT)):
            _require("input", _is_integer(number) and -most <= number <= most)


def _require(key, good):
    if not good:
        raise UpdateError("update.manifest", key + " is not as it must be")


def _is_hash(value):
    return isinstance(value, bytes) and len(value) == 32


def _is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _integer(fields, key, least, most):
    value = fields[key]
    if not _is_integer(value) or not least <= value <= most:
        raise UpdateError("update.manifest", "%s is not from %d to %d" % (key, least, most))


def _list(fields, key, least, most):
    value = fields[key]
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise UpdateError("update.manifest", "%s has not %d to %d items" % (key, least, most))
    return value


def _fields(fields, key, names):
    value = fields[key]
    if not isinstance(value, dict) or set(value) != names:
        raise UpdateError("update.manifest", key + " is not as it must be")
    return value
