"""Manifests of firmware: read back as written, and refused with the field at fault."""

from __future__ import annotations

from dataclasses import replace

import cbor2
import pytest
from support.firmware_bundles import CHAIN_ID, FILES, OPERATOR, STRANGER, bundle, manifest_for

from fog_node.protocol.errors import FormatError, ProofError, ProtocolError
from fog_node.protocol.manifest import (
    FirmwareManifest,
    Manifest,
    decode_manifest,
    encode_bundle,
    parse_bundle,
    sign_manifest,
)

GOOD = manifest_for(FILES, 2, keys=(STRANGER.public.xy,), mpy=6 | 3 << 8)


def test_a_manifest_is_read_back_as_it_was_written():
    assert decode_manifest(GOOD.encode()) == GOOD
    assert FirmwareManifest.decode(GOOD.encode()).encode() == GOOD.encode()
    with pytest.raises(FormatError):
        Manifest.decode(GOOD.encode())


def test_a_bundle_brings_the_files_that_were_signed():
    made = parse_bundle(bundle(2))
    made.verify([OPERATOR.public], CHAIN_ID)
    at = 0
    for file in made.manifest.files:
        assert made.payload[at : at + file.size] == FILES[file.path]
        at += file.size
    assert at == len(made.payload)
    with pytest.raises(ProofError, match="may not release"):
        made.verify([STRANGER.public], CHAIN_ID)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("type", "keys", "manifest"),
        ("device_type", "pump", "manifest.device_type"),
        ("mpy", 1024, "manifest.mpy"),
        ("min_version", 2, "manifest.min_version"),
        ("keys", [STRANGER.public.xy] * 2, "manifest.keys"),
        ("keys", [bytes(64)], "key"),
        ("keys", [bytes([number]) for number in range(4)], "manifest.keys"),
        ("files", [], "manifest.files"),
        ("files", [["fogline/app.py", 1, bytes(32)]] * 2, "manifest.files"),
        ("files", [["/etc/passwd.py", 1, bytes(32)]], "manifest.files"),
        ("files", [["../boot.py", 1, bytes(32)]], "manifest.files"),
        ("files", [["fogline/app.txt", 1, bytes(32)]], "manifest.files"),
        ("files", [["fogline/app.py", 1, bytes(31)]], "manifest.files.sha256"),
        ("files", [["fogline/app.py", -1, bytes(32)]], "manifest.files.size"),
    ],
)
def test_a_bad_field_is_named(field, value, said):
    fields = cbor2.loads(GOOD.encode())
    fields[field] = value
    with pytest.raises(ProtocolError) as error:
        decode_manifest(cbor2.dumps(fields, canonical=True))
    assert said in str(error.value)


def test_a_file_with_another_hash_is_refused():
    """Though the whole payload has the one that was signed."""
    first, *rest = GOOD.files
    wrong = replace(GOOD, files=(replace(first, sha256=bytes(32)), *rest))
    payload = b"".join(FILES.values())
    with pytest.raises(ProofError, match=first.path):
        encode_bundle([sign_manifest(OPERATOR, wrong, CHAIN_ID)], payload)
