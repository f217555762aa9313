"""The board's core under a real MicroPython, held against the hub and independent libraries."""

import contextlib
import hashlib
import json
import math
import os
import random
import struct
import sys
from pathlib import Path

import cbor2
import cwt
import ecdsa
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from ecdsa.util import sigencode_string, sigencode_string_canonize
from support.micropython import NoMicroPythonError, find_micropython

from fog_node.protocol import cbor as hub_cbor
from fog_node.protocol.cose import MAX_SEQUENCE, parse_mac0, parse_sign1
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import HALF_ORDER, ORDER, PublicKey, SigningKey
from fog_node.protocol.receipt import decode_receipt, receipt_key
from fog_node.protocol.senml import decode_pack
from fog_node.protocol.transactions import Alert
from tools.vectors import board as vectors

FIRMWARE = Path(__file__).parents[2] / "firmware"
# More than `make test` has time for: FOGLINE_SIGNATURES=10000.
SIGNATURES = int(os.environ.get("FOGLINE_SIGNATURES", "1000"))
VALUES = 1000
MAX_BYTES = 1 << 16
CHAIN_ID = hashlib.sha256(b"founding file").digest()


@pytest.fixture
def seed(request):
    """A new seed for each run, printed so that a failure replays with `random.Random(seed)`."""
    value = random.SystemRandom().getrandbits(64)
    print(f"seed {value}")
    return value


def a_secret(source):
    return source.randrange(1, ORDER).to_bytes(32, "big")


def test_the_runner_says_how_each_test_went(run_firmware):
    """All modules run on every target, MicroPython here among them: ../hil/test_suite.py."""
    done = run_firmware(FIRMWARE / "tests" / "run.py", "test_cbor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == f"{len(lines) - 1} tests, 0 failed"
    assert len(lines) > 3


@pytest.mark.parametrize("name", ["test_nothing", "no_such_test"])
def test_the_runner_fails_when_nothing_ran(run_firmware, name):
    done = run_firmware(FIRMWARE / "tests" / "run.py", name)
    assert done.returncode == 1
    assert "0 tests" in done.stdout


def test_a_missing_micropython_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.delenv("FOGLINE_MICROPYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(NoMicroPythonError, match="make setup"):
        find_micropython()
    monkeypatch.setenv("FOGLINE_MICROPYTHON", "/bin/true")
    with pytest.raises(NoMicroPythonError, match="/bin/true"):
        find_micropython()


def test_vector_files_are_current():
    for name, content in vectors.files().items():
        assert (vectors.FOLDER / name).read_text("utf-8") == content, (
            f"python -m tools.vectors.board ({name})"
        )


def test_signatures_equal_python_ecdsa(ask, seed):
    source = random.Random(seed)
    cases = [(a_secret(source), source.randbytes(32)) for _ in range(SIGNATURES)]
    answers = ask([f"sign {secret.hex()} {digest.hex()}" for secret, digest in cases])
    lowered = 0
    for (secret, digest), answer in zip(cases, answers, strict=True):
        key = ecdsa.SigningKey.from_string(secret, ecdsa.NIST256p, hashlib.sha256)
        raw, low = key.sign_digest_deterministic(
            digest,
            sigencode=lambda r, s, n: (
                sigencode_string(r, s, n),
                sigencode_string_canonize(r, s, n),
            ),
        )
        assert answer == raw.hex() + low.hex()
        assert int.from_bytes(low[32:], "big") <= HALF_ORDER
        lowered += raw != low
    assert 0 < lowered < SIGNATURES


def test_public_keys_and_agreements_equal_openssl(ask, seed):
    source = random.Random(seed)
    pairs = [(a_secret(source), SigningKey.generate()) for _ in range(100)]
    lines = []
    for secret, other in pairs:
        lines += [f"public {secret.hex()}", f"ecdh {secret.hex()} {other.public.xy.hex()}"]
    answers = iter(ask(lines))
    for secret, other in pairs:
        own = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())
        peer = ec.EllipticCurvePublicKey.from_encoded_point(
            ec.SECP256R1(), b"\x04" + other.public.xy
        )
        numbers = own.public_key().public_numbers()
        assert next(answers) == f"{numbers.x:064x}{numbers.y:064x}"
        assert next(answers) == own.exchange(ec.ECDH(), peer).hex()


def test_verification_agrees_with_the_hub(ask, seed):
    source = random.Random(seed)
    lines, expected = [], []
    for _ in range(100):
        key = SigningKey.from_secret(source.randrange(1, ORDER))
        message = source.randbytes(20)
        signature = bytearray(key.sign(message))
        if source.random() < 0.5:
            signature[source.randrange(64)] ^= 1 << source.randrange(8)
        try:
            key.public.verify(bytes(signature), message)
            expected.append("01")
        except ProtocolError:
            expected.append("00")
        digest = hashlib.sha256(message).digest()
        lines.append(f"verify {key.public.xy.hex()} {digest.hex()} {signature.hex()}")
    assert ask(lines) == expected
    assert {"00", "01"} == set(expected)


def a_value(source, depth=3):
    """Any value of the subset, floats of all three widths among them."""
    kinds = [
        lambda: source.getrandbits(source.randrange(1, 65)),
        lambda: -1 - source.getrandbits(source.randrange(1, 65)),
        lambda: source.randbytes(source.randrange(0, 300)),
        lambda: "".join(chr(source.choice((97, 0xE9, 0x6C34, 0x1F600))) for _ in range(9)),
        lambda: source.choice((None, True, False)),
        lambda: struct.unpack(">e", struct.pack(">H", source.randrange(0x7C00)))[0],
        lambda: -struct.unpack(">f", struct.pack(">I", source.randrange(0x7F800000)))[0],
        lambda: source.uniform(-1e300, 1e300),
        lambda: source.choice((math.inf, -math.inf, 0.0, -0.0, 65504.0, 65520.0, 32768.0)),
    ]
    if depth:
        kinds += [
            lambda: [a_value(source, depth - 1) for _ in range(source.randrange(6))],
            # The hub's codec refuses the few maps whose order RFC 7049 and 8949 disagree on.
            lambda: {source.randrange(400): a_value(source, depth - 1) for _ in range(4)},
            lambda: {source.randbytes(2).hex(): a_value(source, depth - 1) for _ in range(4)},
        ]
    return source.choice(kinds)()


def test_hub_and_board_encode_the_same_bytes(ask, seed):
    source = random.Random(seed)
    values = [a_value(source) for _ in range(VALUES)]
    # What cbor2 writes in any order, the board reads only in the deterministic one.
    encoded = [hub_cbor.encode(value) for value in values]
    answers = ask([f"reencode {data.hex()}" for data in encoded])
    for value, data, answer in zip(values, encoded, answers, strict=True):
        assert answer == data.hex(), value
        assert cbor2.loads(data) == value


def test_board_and_hub_refuse_the_same_bytes(ask, seed):
    source = random.Random(seed)
    damaged = []
    while len(damaged) < VALUES:
        data = bytearray(hub_cbor.encode(a_value(source)))
        data[source.randrange(len(data))] = source.getrandbits(8)
        damaged.append(bytes(data))
    for data, answer in zip(damaged, ask([f"reencode {d.hex()}" for d in damaged]), strict=True):
        if answer.startswith("cbor."):
            if answer in ("cbor.simple", "cbor.key", "cbor.order"):
                # Outside the board's subset, or a map whose order RFC 7049 (cbor2) and RFC 8949
                # disagree on; no format of ours has either.
                continue
            with pytest.raises(ProtocolError):
                hub_cbor.decode(data, MAX_BYTES)
        else:
            assert answer == data.hex()
            with contextlib.suppress(ProtocolError):  # tags may stand for more on the hub
                hub_cbor.decode(data, MAX_BYTES)


def test_packs_verify_with_an_independent_library(ask, seed):
    source = random.Random(seed)
    lines, cases = [], []
    for size in (0, 1, 23, 24, 255, 256, 5000, 16384):
        secret, payload = a_secret(source), source.randbytes(size)
        sequence = source.randrange(1, MAX_SEQUENCE)
        dropped = source.randrange(0, sequence)
        cases.append((secret, payload, sequence, dropped))
        numbers = f"{sequence:016x} {dropped:016x}"
        lines.append(f"sign1 {secret.hex()} {CHAIN_ID.hex()} {numbers} {payload.hex()}")
    for (secret, payload, sequence, dropped), answer in zip(cases, ask(lines), strict=True):
        message = bytes.fromhex(answer)
        private = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())
        signer = SigningKey(private)
        key = cwt.COSEKey.new(
            {
                1: 2,
                2: signer.kid,
                3: -7,
                -1: 1,
                -2: signer.public.xy[:32],
                -3: signer.public.xy[32:],
            }
        )
        cose = cwt.COSE.new(verify_kid=True)
        protected, unprotected, read = cose.decode_with_headers(message, key, external_aad=CHAIN_ID)
        assert (read, unprotected) == (payload, {})
        assert protected == {
            1: -7, 3: "application/senml+cbor", 4: signer.kid, -65537: sequence, -65538: dropped,
        }  # fmt: skip
        with pytest.raises(cwt.VerifyError):
            cose.decode(message, key, external_aad=bytes(32))
        parsed = parse_sign1(message, MAX_BYTES)
        parsed.verify(signer.public, CHAIN_ID)
        assert (parsed.sequence, parsed.dropped) == (sequence, dropped)


def of(name):
    """The content of one vector file."""
    return json.loads((vectors.FOLDER / f"{name}.json").read_text("utf-8"))


def test_hub_runs_the_cbor_vectors():
    file = of("cbor_rfc8949")
    for vector in (*file["values"], *file["refused"]):
        data = bytes.fromhex(vector["hex"])
        if "code" in vector:
            with pytest.raises(ProtocolError):
                hub_cbor.decode(data, MAX_BYTES)
        else:
            assert hub_cbor.encode(hub_cbor.decode(data, MAX_BYTES)) == data, vector


def test_hub_runs_the_p256_vectors():
    file = of("p256_rfc6979")
    key = SigningKey.from_secret(int(file["secret"], 16))
    assert key.public.xy.hex() == file["public"]
    for vector in file["signatures"]:
        assert key.sign(vector["message"].encode()).hex() == vector["low_s"]
    for vector in file["invalid"]:
        with pytest.raises(ProtocolError):
            key.public.verify(bytes.fromhex(vector["signature"]), b"sample")
    for point in file["bad_points"]:
        with pytest.raises(ProtocolError):
            PublicKey(bytes.fromhex(point))
    for vector in file["public_keys"]:
        assert SigningKey.from_secret(int(vector["secret"], 16)).public.xy.hex() == vector["public"]
    for vector in file["agreements"]:
        own = ec.derive_private_key(int(vector["secret"], 16), ec.SECP256R1())
        peer = ec.EllipticCurvePublicKey.from_encoded_point(
            ec.SECP256R1(), b"\x04" + bytes.fromhex(vector["public"])
        )
        assert own.exchange(ec.ECDH(), peer).hex() == vector["x"]


def test_hub_runs_the_cose_vectors():
    file = of("cose_sign1")
    chain_id = bytes.fromhex(file["chain_id"])
    board = SigningKey.from_secret(int(file["board"]["secret"], 16))
    assert board.public.thumbprint.hex() == file["board"]["thumbprint"]
    for vector in file["signed"]:
        message = parse_sign1(bytes.fromhex(vector["message"]), MAX_BYTES)
        message.verify(board.public, chain_id)
        assert message.payload.hex() == vector["payload"]
    manifest = file["manifest"]
    trainer = PublicKey(bytes.fromhex(manifest["public_keys"][1]))
    message = parse_sign1(bytes.fromhex(manifest["message"]), MAX_BYTES)
    message.verify(trainer, chain_id)
    told = file["receipt"]
    gateway = PublicKey(bytes.fromhex(told["gateway"]))
    key = receipt_key(board, gateway, gateway.kid, board.kid, chain_id)
    assert key.hex() == told["key"]
    read = decode_receipt(bytes.fromhex(told["message"]), key, chain_id)
    assert (read.next, read.height, read.time) == (told["next"], told["height"], told["time"])
    assert (read.status, read.nonce.hex()) == ("active", told["nonce"])
    for vector in told["statuses"]:
        read = decode_receipt(bytes.fromhex(vector["message"]), key, chain_id)
        assert (read.status, read.nonce and read.nonce.hex()) == (vector["status"], vector["nonce"])
    assert parse_mac0(bytes.fromhex(told["message"]), MAX_BYTES).kid == gateway.kid


def test_hub_runs_the_pack_vectors():
    file = of("board_packs")
    for vector in file["packs"]:
        pack = decode_pack(bytes.fromhex(vector["payload"]))
        assert pack.device.hex() == file["kid"]
        read = sum(value is not None for _, values in vector["rows"] for value in values)
        assert len(pack.readings) == read
        assert [(v.score, v.anomaly) for v in pack.verdicts] == [
            (score, anomaly) for _, score, anomaly, _ in vector["verdicts"]
        ]
    alert = file["alert"]
    read = Alert.decode(bytes.fromhex(alert["payload"]))
    assert (read.time, read.score, read.pack) == (alert["time"], alert["score"], alert["pack"])
