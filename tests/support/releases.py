"""Release bundles of a tiny model, good and bad, for boards of type "test" with two channels."""

import hashlib
from dataclasses import replace

import numpy as np

from fog_node.protocol.keys import SigningKey
from fog_node.protocol.manifest import encode_bundle, sign_manifest
from support.judging import MANIFEST
from support.reference import run_tflite_micro
from tools.bench.tflite_builder import Activation, Kind, ModelBuilder, Operator, Padding

CHAIN_ID = hashlib.sha256(b"releases").digest()
TRAINER = SigningKey.from_secret(3000)
STRANGER = SigningKey.from_secret(3001)
CHANNELS = ("a", "b")
WINDOW = 4
OPS = ("CONV_2D",)
ARENA = 4096


def tiny_model(seed):
    """A .tflite file: one convolution over a window of four rows of two channels."""
    rng = np.random.default_rng(seed)
    builder = ModelBuilder()
    shape = (1, 1, WINDOW, len(CHANNELS))
    x = builder.tensor(shape, 0.05, 0)
    data = rng.integers(-127, 128, (2, 1, 3, 2)).astype(np.int8)
    weights = builder.tensor(data.shape, 0.01, data=data)
    bias = builder.tensor(
        (2,), x.scale * weights.scale, kind=Kind.INT32, data=np.array([300, -70], np.int32)
    )
    y = builder.tensor(shape, 0.2, -5)
    builder.operator(
        Operator.CONV_2D, [x, weights, bias], y, "Conv2DOptions", padding=Padding.SAME,
        strideH=1, strideW=1, fusedActivationFunction=Activation.NONE,
    )  # fmt: skip
    return builder.finish([x], [y])


def manifest_for(model, version, **changes):
    """A manifest that fits a `tiny_model`, then changed."""
    tests = []
    for fill in (-128, 0, 77):
        values = np.full((1, 1, WINDOW, len(CHANNELS)), fill, np.int8)
        tests.append((values.tobytes(), run_tflite_micro(model, [values])))
    whole = replace(
        MANIFEST,
        version=version,
        payload_sha256=hashlib.sha256(model).digest(),
        payload_size=len(model),
        ops=OPS,
        arena=ARENA,
        channels=CHANNELS,
        selftest=tuple(tests),
    )
    return replace(whole, **changes)


def bundle(model, version, keys=(TRAINER,), **changes):
    """The bundle file of a model, signed by each of `keys`."""
    manifest = manifest_for(model, version, **changes)
    return encode_bundle([sign_manifest(key, manifest, CHAIN_ID) for key in keys], model)


def releases():
    """Bundles by what is particular about them; good ones have versions 1 to 3."""
    one, two = tiny_model(1), tiny_model(2)
    tests = manifest_for(two, 2).selftest
    wrong = tests[0][0], bytes([tests[0][1][0] ^ 1]) + tests[0][1][1:]
    made = {
        "v1": bundle(one, 1),
        "v2": bundle(two, 2, keys=(STRANGER, TRAINER)),
        "v3_after_v2": bundle(one, 3, min_version=2),
        "device": bundle(two, 2, device_type="other"),
        "signer": bundle(two, 2, keys=(STRANGER,)),
        "selftest": bundle(two, 2, selftest=(wrong, *tests[1:])),
        "arena": bundle(two, 2, arena=1 << 24),
        "ops_missing": bundle(two, 2, ops=("ADD",)),
        "ops_unsupported": bundle(two, 2, ops=("CONV_2D", "TRANSPOSE")),
        "channel": bundle(two, 2, channels=("a", "missing")),
    }
    damaged = bytearray(made["v2"])
    damaged[-20] ^= 1  # of the payload
    made["payload"] = bytes(damaged)
    signature = bytearray(bundle(two, 2))
    signature[signature.index(two) - 10] ^= 1
    made["signature"] = bytes(signature)
    return made
