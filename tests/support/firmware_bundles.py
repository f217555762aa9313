"""Firmware bundles, good and bad, for boards of the class "unix"."""

import hashlib
from dataclasses import replace

from fog_node.protocol.keys import SigningKey
from fog_node.protocol.manifest import (
    FIRMWARE_PREFIX,
    FirmwareFile,
    FirmwareManifest,
    encode_bundle,
    sign_manifest,
)

CHAIN_ID = hashlib.sha256(b"firmware").digest()
OPERATOR = SigningKey.from_secret(3100)
SUCCESSOR = SigningKey.from_secret(3101)
STRANGER = SigningKey.from_secret(3102)
TIME_MS = 1_700_000_000_000
# Longer than what is copied at once, and empty.
FILES = {
    "fogline/__init__.py": b"# package\n" * 110,
    "fogline/app.py": b"print('new')\n",
    "drivers/__init__.py": b"",
    "drivers/deep/one.py": bytes(range(256)),
}


def manifest_for(files, version, **changes):
    """A manifest of these files, then changed."""
    payload = b"".join(files.values())
    whole = FirmwareManifest(
        name="board",
        version=version,
        min_version=0,
        device_type=FIRMWARE_PREFIX + "unix",
        payload_sha256=hashlib.sha256(payload).digest(),
        payload_size=len(payload),
        mpy=0,
        files=tuple(
            FirmwareFile(path, len(data), hashlib.sha256(data).digest())
            for path, data in files.items()
        ),
        keys=(),
        time=TIME_MS,
    )
    return replace(whole, **changes)


def bundle(version, files=None, signers=(OPERATOR,), **changes):
    """The bundle of these files, signed by each of `signers`."""
    files = FILES if files is None else files
    manifest = manifest_for(files, version, **changes)
    payload = b"".join(files.values())
    return encode_bundle([sign_manifest(key, manifest, CHAIN_ID) for key in signers], payload)


def bundles():
    """Bundles by what is particular about them; the firmware that boards have is version 1."""
    without_app = {path: data for path, data in FILES.items() if path != "fogline/app.py"}
    made = {
        "v2": bundle(2),
        "v3": bundle(3, {**FILES, "fogline/app.py": b"print('newer')\n"}),
        "v4_after_v3": bundle(4, min_version=3),
        "v2_keys": bundle(2, keys=(SUCCESSOR.public.xy,)),
        "v3_successor": bundle(3, signers=(SUCCESSOR,)),
        "device": bundle(2, device_type=FIRMWARE_PREFIX + "rp2040w"),
        "signer": bundle(2, signers=(STRANGER,)),
        "mpy": bundle(2, mpy=5),
        "files": bundle(2, without_app),
    }
    damaged = bytearray(made["v2"])
    damaged[-20] ^= 1  # of the payload
    made["payload"] = bytes(damaged)
    signature = bytearray(made["v2"])
    at = signature.index(b"".join(FILES.values()))
    signature[at - 10] ^= 1
    made["signature"] = bytes(signature)
    return made
