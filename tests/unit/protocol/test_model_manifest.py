"""What a manifest of a model may say of the deviation during calibration."""

from dataclasses import replace

import pytest
from support.judging import MANIFEST

from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.errors import FormatError
from fog_node.protocol.manifest import MAX_MANIFEST_BYTES, Manifest

CALIBRATED = replace(MANIFEST, calibrate=5)


def fields(manifest):
    return decode(manifest.encode(), MAX_MANIFEST_BYTES, "manifest")


def test_without_spread_a_manifest_is_as_before():
    assert "spread" not in fields(CALIBRATED)
    assert Manifest.decode(CALIBRATED.encode()) == CALIBRATED


def test_spread_is_kept():
    manifest = replace(CALIBRATED, spread=(1, 1 << 30))
    assert fields(manifest)["spread"] == [1, 1 << 30]
    assert Manifest.decode(manifest.encode()) == manifest


@pytest.mark.parametrize(
    "spread", [[], [1], [1, 0], [1, -1], [1, (1 << 30) + 1], [1, 2, 3], [1, True], None, "ab"]
)
def test_spread_is_one_positive_integer_per_channel(spread):
    with pytest.raises(FormatError, match=r"manifest\.spread"):
        Manifest.decode(encode(fields(CALIBRATED) | {"spread": spread}))


def test_spread_is_of_a_calibration():
    with pytest.raises(FormatError, match=r"manifest\.spread.* calibrate is 0"):
        Manifest.decode(encode(fields(MANIFEST) | {"spread": [1, 1]}))
