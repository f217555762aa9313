"""Makes the vectors that the board's firmware and the hub must both agree with.

`python -m tools.vectors.board` writes `tests/vectors/{p256_rfc6979,cbor_rfc8949,cose_sign1,
board_packs}.json`; `--check` says whether they are current. Values that others published stand
here as literals; the rest is computed by the hub's libraries from fixed keys.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec

from fog_node.protocol import cose, manifest, receipt, senml
from fog_node.protocol import transactions as tx
from fog_node.protocol.keys import ORDER, SigningKey
from tools.vectors.hub import TIME_S, World

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "vectors"
PRIME = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF

# RFC 6979 appendix A.2.5 (P-256, SHA-256): message, r, s.
RFC6979_SCALAR = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"
RFC6979_PUBLIC = (
    "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
    "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
)
RFC6979 = (
    (
        "sample",
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
        "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    ),
    (
        "test",
        "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367",
        "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083",
    ),
)
# NIST CAVP, ECC CDH primitive, P-256, count 0: own secret, peer's x || y, shared x.
CDH = (
    "7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534",
    (
        "700c48f77f56584c5cc632ca65640db91b6bacce3a4df6b42ce7cc838833d287"
        "db71e509e3fd9b060ddb20ba5c51dcc5948d46fbf640dfe0441782cab85fa4ac"
    ),
    "46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b",
)
# RFC 5869 appendix A.1.
HKDF = {
    "secret": "0b" * 22,
    "salt": "000102030405060708090a0b0c",
    "info": "f0f1f2f3f4f5f6f7f8f9",
    "okm": "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
}
EDGE_SECRETS = (1, 2, 3, 4, 5, 15, 16, 17, 255, 1 << 32, 1 << 128, (1 << 255) - 1, 1 << 255,
                ORDER - 3, ORDER - 2, ORDER - 1)  # fmt: skip

# RFC 8949 appendix A, all of it. Values as in _plain below; "tagged" where the two sides keep
# a tag in different ways; "out": outside our subset, and the board's code for it.
APPENDIX_A: tuple[tuple[str, Any], ...] = (
    ("00", 0), ("01", 1), ("0a", 10), ("17", 23), ("1818", 24), ("1819", 25), ("1864", 100),
    ("1903e8", 1000), ("1a000f4240", 1000000), ("1b000000e8d4a51000", 1000000000000),
    ("1bffffffffffffffff", 18446744073709551615),
    ("3bffffffffffffffff", -18446744073709551616),
    ("20", -1), ("29", -10), ("3863", -100), ("3903e7", -1000),
    ("f90000", 0.0), ("f98000", -0.0), ("f93c00", 1.0), ("fb3ff199999999999a", 1.1),
    ("f93e00", 1.5), ("f97bff", 65504.0), ("fa47c35000", 100000.0),
    ("fa7f7fffff", 3.4028234663852886e38), ("fb7e37e43c8800759c", 1.0e300),
    ("f90001", 5.960464477539063e-8), ("f90400", 0.00006103515625), ("f9c400", -4.0),
    ("fbc010666666666666", -4.1), ("f97c00", float("inf")), ("f97e00", float("nan")),
    ("f9fc00", float("-inf")), ("f4", False), ("f5", True), ("f6", None),
    ("40", b""), ("4401020304", b"\x01\x02\x03\x04"), ("60", ""), ("6161", "a"),
    ("6449455446", "IETF"), ("62225c", '"\\'), ("62c3bc", "\u00fc"), ("63e6b0b4", "\u6c34"),
    ("64f0908591", "\U00010151"), ("80", []), ("83010203", [1, 2, 3]),
    ("8301820203820405", [1, [2, 3], [4, 5]]),
    ("98190102030405060708090a0b0c0d0e0f101112131415161718181819", list(range(1, 26))),
    ("a0", {}), ("a201020304", {1: 2, 3: 4}), ("a26161016162820203", {"a": 1, "b": [2, 3]}),
    ("826161a161626163", ["a", {"b": "c"}]),
    ("a56161614161626142616361436164614461656145",
     {"a": "A", "b": "B", "c": "C", "d": "D", "e": "E"}),
)  # fmt: skip
APPENDIX_A_TAGGED: tuple[tuple[str, int, Any], ...] = (
    ("c249010000000000000000", 2, b"\x01" + bytes(8)),
    ("c349010000000000000000", 3, b"\x01" + bytes(8)),
    ("c074323031332d30332d32315432303a30343a30305a", 0, "2013-03-21T20:04:00Z"),
    ("c11a514b67b0", 1, 1363896240),
    ("c1fb41d452d9ec200000", 1, 1363896240.5),
    ("d74401020304", 23, b"\x01\x02\x03\x04"),
    ("d818456449455446", 24, b"dIETF"),
    ("d82076687474703a2f2f7777772e6578616d706c652e636f6d", 32, "http://www.example.com"),
)
APPENDIX_A_REFUSED: tuple[tuple[str, str], ...] = (
    ("fa7f800000", "cbor.minimal"), ("fa7fc00000", "cbor.minimal"),
    ("faff800000", "cbor.minimal"), ("fb7ff0000000000000", "cbor.minimal"),
    ("fb7ff8000000000000", "cbor.minimal"), ("fbfff0000000000000", "cbor.minimal"),
    ("5f42010243030405ff", "cbor.indefinite"), ("7f657374726561646d696e67ff", "cbor.indefinite"),
    ("9fff", "cbor.indefinite"), ("9f018202039f0405ffff", "cbor.indefinite"),
    ("9f01820203820405ff", "cbor.indefinite"), ("83018202039f0405ff", "cbor.indefinite"),
    ("83019f0203ff820405", "cbor.indefinite"),
    ("9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff", "cbor.indefinite"),
    ("bf61610161629f0203ffff", "cbor.indefinite"), ("826161bf61626163ff", "cbor.indefinite"),
    ("bf6346756ef563416d7421ff", "cbor.indefinite"),
)  # fmt: skip
# Well-formed, but outside the board's subset; nothing of ours holds them.
APPENDIX_A_UNSUPPORTED = ("f7", "f0", "f8ff")
# What both sides refuse beyond appendix A.
REFUSED: tuple[tuple[str, str], ...] = (
    ("", "cbor.truncated"), ("18", "cbor.truncated"), ("1900", "cbor.truncated"),
    ("4401", "cbor.truncated"), ("8201", "cbor.truncated"), ("a101", "cbor.truncated"),
    ("9a00010000", "cbor.items"), ("9bffffffffffffffff", "cbor.items"),
    ("5bffffffffffffffff", "cbor.truncated"), ("1c", "cbor.head"), ("ff", "cbor.indefinite"),
    ("0000", "cbor.trailing"), ("1817", "cbor.minimal"), ("1900ff", "cbor.minimal"),
    ("1a0000ffff", "cbor.minimal"), ("1b00000000ffffffff", "cbor.minimal"),
    ("5801ff", "cbor.minimal"), ("d90012a0", "cbor.minimal"), ("3817", "cbor.minimal"),
    ("a202000100", "cbor.order"), ("a220000000", "cbor.order"), ("a2616200616100", "cbor.order"),
    ("a201000100", "cbor.duplicate"), ("f97e01", "cbor.minimal"), ("f9fe00", "cbor.minimal"),
    ("fa3f800000", "cbor.minimal"), ("fa33800000", "cbor.minimal"),
    ("fb3ff0000000000000", "cbor.minimal"), ("fb36a0000000000000", "cbor.minimal"),
    ("fb47efffffe0000000", "cbor.minimal"), ("f817", "cbor.simple"),
    ("61ff", "cbor.utf8"), ("62c080", "cbor.utf8"), ("63eda080", "cbor.utf8"),
    ("64f4908080", "cbor.utf8"), ("62c328", "cbor.utf8"), ("63e6b0", "cbor.truncated"),
    ("81" * 1500 + "00", "cbor.depth"),
)  # fmt: skip
# Values at the borders between the three widths, and one bit beside them.
FLOATS = (
    2.0**-24, 2.0**-25, 1.5 * 2.0**-24, 1023 * 2.0**-24, 1023.5 * 2.0**-24, 2.0**-14,
    2.0**-14 + 2.0**-24, 2.0**-14 + 2.0**-25, 1 + 2.0**-10, 1 + 2.0**-11, 65504.0, 65504.5,
    65520.0, 65536.0, -65505.0, 2.0**-126, 2.0**-149, 3 * 2.0**-149, 2.0**-150,
    (2 - 2.0**-23) * 2.0**127, (2 - 2.0**-24) * 2.0**127, 2.0**128, 1 + 2.0**-23, 1 + 2.0**-24,
    2.0**-1074, 1.7976931348623157e308, 0.1, 1 / 3, 16777217.0, 2.0**53 + 2,
)  # fmt: skip


def _plain(value: Any) -> Any:
    """What JSON, and a board with binary32, can hold: floats and bytes as hex, maps as pairs."""
    if isinstance(value, float):
        return {"float": struct.pack(">d", value).hex()}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {"map": [[_plain(key), _plain(item)] for key, item in value.items()]}
    return value


def _shortest(value: float) -> bytes:
    """The shortest encoding of a finite float: not by cbor2, whose answer is to be judged."""
    for form, head in ((">e", b"\xf9"), (">f", b"\xfa")):
        try:
            data = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, data)[0] == value:
            return head + data
    return b"\xfb" + struct.pack(">d", value)


def cbor_vectors() -> dict[str, Any]:
    """RFC 8949 appendix A, and what strict decoders refuse."""
    values = [*APPENDIX_A, *((_shortest(x).hex(), x) for x in FLOATS)]
    return {
        "values": [{"hex": data, "value": _plain(value)} for data, value in values],
        "tagged": [
            {"hex": data, "tag": tag, "value": _plain(value)}
            for data, tag, value in APPENDIX_A_TAGGED
        ],
        "refused": [{"hex": data, "code": code} for data, code in (*APPENDIX_A_REFUSED, *REFUSED)],
        "unsupported_on_boards": list(APPENDIX_A_UNSUPPORTED),
    }


def _raw_signature(key: SigningKey, message: bytes) -> tuple[str, str]:
    """RFC 6979's own r || s, and its low-S form."""
    low = key.sign(message)
    r, s = low[:32], int.from_bytes(low[32:], "big")
    high = r + (ORDER - s).to_bytes(32, "big")
    published = {m: a + b for m, a, b in RFC6979}.get(message.decode())
    if published not in (low.hex(), high.hex()):
        raise AssertionError("not RFC 6979's signature")
    return published, low.hex()


def p256_vectors() -> dict[str, Any]:
    """Signatures, public keys, key agreement, and what must be refused."""
    key = SigningKey.from_secret(int(RFC6979_SCALAR, 16))
    signatures = []
    for message, _, _ in RFC6979:
        raw, low = _raw_signature(key, message.encode())
        signatures.append({"message": message, "raw": raw, "low_s": low})
    digest = hashlib.sha256(b"sample").digest()
    good = bytes.fromhex(signatures[0]["low_s"])
    r, s = int.from_bytes(good[:32], "big"), int.from_bytes(good[32:], "big")

    def pair(a: int, b: int) -> str:
        return (a.to_bytes(32, "big") + b.to_bytes(32, "big")).hex()

    invalid = {
        "high s": pair(r, ORDER - s),
        "r is 0": pair(0, s),
        "s is 0": pair(r, 0),
        "r is n": pair(ORDER, s),
        "s is n": pair(r, ORDER),
        "r + n": pair((r + ORDER) % 2**256, s),
        "r is 1": pair(1, s),
        "s is 1": pair(r, 1),
        "swapped": pair(s, r),
        "r changed": pair(r ^ 1, s),
        "s changed": pair(r, s ^ 1),
        "63 bytes": good[:-1].hex(),
        "65 bytes": good.hex() + "00",
        "empty": "",
    }
    x, y = int(RFC6979_PUBLIC[:64], 16), int(RFC6979_PUBLIC[64:], 16)
    own = SigningKey.from_secret(int(CDH[0], 16))
    agreed = [{"secret": CDH[0], "public": CDH[1], "x": CDH[2]}]
    for secret in EDGE_SECRETS:
        private = ec.derive_private_key(secret, ec.SECP256R1())
        point = ec.EllipticCurvePublicKey.from_encoded_point(
            ec.SECP256R1(), b"\x04" + own.public.xy
        )
        shared = private.exchange(ec.ECDH(), point)
        agreed.append(
            {"secret": f"{secret:064x}", "public": own.public.xy.hex(), "x": shared.hex()}
        )
    return {
        "secret": RFC6979_SCALAR,
        "public": RFC6979_PUBLIC,
        "signatures": signatures,
        "digest": digest.hex(),
        "invalid": [{"why": why, "signature": data} for why, data in invalid.items()],
        "bad_secrets": [
            *(f"{bad:064x}" for bad in (0, ORDER, ORDER + 1, 2**256 - 1)),
            RFC6979_SCALAR[2:],
            RFC6979_SCALAR + "00",
            "",
        ],
        "bad_points": [
            pair(0, 0),
            pair(x, y ^ 1),
            pair(x + 1, y),
            pair(y, x),
            pair(PRIME, y),
            pair(0, 2**256 - 1),
            RFC6979_PUBLIC[2:],
            RFC6979_PUBLIC + "00",
            "04" + RFC6979_PUBLIC,
        ],
        "public_keys": [
            {"secret": f"{secret:064x}", "public": SigningKey.from_secret(secret).public.xy.hex()}
            for secret in EDGE_SECRETS
        ],
        "agreements": agreed,
        "hkdf": HKDF,
    }


def cose_vectors() -> dict[str, Any]:
    """What a board signs, and manifests and receipts that it takes or refuses."""
    world = World()
    board, gateway, trainer = world.board, world.validators[0], world.trainer
    key = receipt.receipt_key(gateway, board.public, gateway.kid, board.kid, world.chain_id)
    signed = [
        {
            "content_type": content_type,
            "payload": payload.hex(),
            "sequence": sequence,
            "dropped": dropped,
            "message": cose.sign1(
                board, content_type, payload, world.chain_id, sequence, dropped
            ).hex(),
        }
        for content_type, payload, sequence, dropped in (
            (senml.CONTENT_TYPE, b"\x80", 1, 0),
            (senml.CONTENT_TYPE, bytes(range(256)), 24, 24),
            ("application/vnd.fogline.alert+cbor", b"\xa0" * 300, 1 << 40, 65536),
            (senml.CONTENT_TYPE, bytes(16384), cose.MAX_SEQUENCE, 1),
        )
    ]
    return {
        "chain_id": world.chain_id.hex(),
        "board": {"secret": f"{4000:064x}", "thumbprint": board.public.thumbprint.hex()},
        "signed": signed,
        "manifest": _manifest_vectors(world, trainer),
        "receipt": _receipt_vectors(world, gateway, key),
    }


def _manifest_vectors(world: World, trainer: SigningKey) -> dict[str, Any]:
    kind = "application/vnd.fogline.manifest+cbor"
    good = manifest.sign_manifest(trainer, world.manifest(), world.chain_id)
    protected, _, payload, signature = cbor2.loads(good).value
    s = int.from_bytes(signature[32:], "big")

    def message(parts: list[Any], tag: int = cose.TAG_SIGN1) -> bytes:
        return cbor2.dumps(cbor2.CBORTag(tag, parts), canonical=True)

    def header(value: dict[int, Any]) -> bytes:
        return message([cbor2.dumps(value, canonical=True), {}, payload, signature])

    usual = {1: -7, 3: kind, 4: trainer.kid}
    refused = (
        ("cose.form", cbor2.dumps([protected, {}, payload, signature])),
        ("cose.form", message([protected, {}, payload, signature], cose.TAG_MAC0)),
        ("cose.form", message([protected, {4: trainer.kid}, payload, signature])),
        ("cose.form", message([protected, {}, payload])),
        ("cose.form", message([protected, {}, None, signature])),
        ("cose.form", header({**usual, -65537: 1})),
        ("cose.form", header({1: -7, 3: kind})),
        ("cose.form", header({**usual, 4: bytes(7)})),
        ("cose.alg", header({**usual, 1: -8})),
        ("cose.alg", header({**usual, 1: 5})),
        ("cose.type", header({**usual, 3: senml.CONTENT_TYPE})),
        ("cose.signer", header({**usual, 4: bytes(8)})),
        ("cose.signature", message([protected, {}, payload + b"\x00", signature])),
        ("cose.signature", message([protected, {}, payload, bytes(64)])),
        ("cose.signature", message([protected, {}, payload, signature[:-1]])),
        ("cose.signature",
         message([protected, {}, payload, signature[:32] + (ORDER - s).to_bytes(32, "big")])),
        ("cose.signature",
         cose.sign1(trainer, kind, payload, hashlib.sha256(b"another ledger").digest())),
        ("cbor.trailing", good + b"\x00"),
        ("cbor.truncated", good[:-1]),
        ("cbor.minimal", b"\xd8\x12" + good[1:]),
    )  # fmt: skip
    return {
        "content_type": kind,
        "public_keys": [world.operator.public.xy.hex(), trainer.public.xy.hex()],
        "message": good.hex(),
        "payload": payload.hex(),
        "refused": [{"code": code, "message": data.hex()} for code, data in refused],
    }


def _receipt_vectors(world: World, gateway: SigningKey, key: bytes) -> dict[str, Any]:
    told = receipt.Receipt(world.board.kid, 300, 70000, TIME_S * 1000 + 5, nonce=bytes(range(8)))
    good = receipt.encode_receipt(told, key, gateway.kid, world.chain_id)
    protected, _, payload, tag = cbor2.loads(good).value

    def sealed(value: Any) -> bytes:
        data = cbor2.dumps(value, canonical=True)
        return cose.mac0(key, gateway.kid, receipt.CONTENT_TYPE, data, world.chain_id)

    other = world.validators[1]
    fields = [told.device, told.next, told.height, told.time, 0, told.nonce]
    statuses = [
        (status, replace(told, status=status, nonce=nonce))
        for status, nonce in (("active", None), ("quarantined", bytes(8)), ("revoked", None))
    ]
    refused = (
        ("cose.mac", cbor2.dumps(cbor2.CBORTag(17, [protected, {}, payload, bytes(32)]))),
        ("cose.mac", cbor2.dumps(cbor2.CBORTag(17, [protected, {}, payload, tag[:16]]))),
        ("cose.mac", receipt.encode_receipt(told, key, gateway.kid, bytes(32))),
        ("cose.mac", receipt.encode_receipt(told, bytes(32), gateway.kid, world.chain_id)),
        ("cose.signer", receipt.encode_receipt(told, key, other.kid, world.chain_id)),
        ("cose.form", sealed([gateway.kid, *fields[1:]])),
        ("cose.form", sealed(fields[:5])),
        ("cose.form", sealed(fields[:4])),
        ("cose.form", sealed([*fields[:4], 3, None])),
        ("cose.form", sealed([*fields[:4], True, None])),
        ("cose.form", sealed([*fields[:5], bytes(7)])),
        ("cose.form", sealed([*fields[:5], 0])),
        ("cose.form", sealed([fields[0], 0, *fields[2:]])),
        ("cose.form", sealed([fields[0], -1, *fields[2:]])),
        ("cose.form", sealed([fields[0], 2**63, *fields[2:]])),
        ("cose.form", sealed([fields[0], True, *fields[2:]])),
        ("cose.form", sealed({1: 2})),
        ("cose.type", cose.mac0(key, gateway.kid, senml.CONTENT_TYPE, payload, world.chain_id)),
        ("cose.form", cose.sign1(gateway, receipt.CONTENT_TYPE, payload, world.chain_id)),
        ("cbor.size", good + bytes(512)),
    )
    return {
        "gateway": gateway.public.xy.hex(),
        "key": key.hex(),
        "message": good.hex(),
        "next": told.next,
        "height": told.height,
        "time": told.time,
        "nonce": bytes(range(8)).hex(),
        "statuses": [
            {
                "status": status,
                "nonce": said.nonce and said.nonce.hex(),
                "message": receipt.encode_receipt(said, key, gateway.kid, world.chain_id).hex(),
            }
            for status, said in statuses
        ],
        "refused": [{"code": code, "message": data.hex()} for code, data in refused],
    }


def _single(value: float) -> float:
    return float(struct.unpack(">f", struct.pack(">f", value))[0])


def _pack_vector(
    title: str,
    channels: list[tuple[str, str]],
    rows: Sequence[tuple[int, Sequence[float | None]]],
    verdicts: Sequence[tuple[int, int, bool]],
    faults: Sequence[tuple[int, str, str]] = (),
    clock: tuple[int, int, bytes | int | None] | None = None,
) -> dict[str, Any]:
    """A pack of rows (time in ms, values), verdicts (row, score, anomaly), faults (row, ...).

    clock: (boot, when it started, who gave the time), or for a pack without time, whose rows count
    from the start of the board, (boot, ms since then, None).
    """
    world = World()
    model = hashlib.sha256(b"model").digest()
    start = base = rows[0][0] // 1000
    said = None
    if clock is not None and clock[2] is None:
        now_s = -(-clock[1] // 1000)
        base -= now_s
        said = senml.Clock(base, clock[0], now_s * 1000, None)
    elif clock is not None:
        said = senml.Clock(base, clock[0], base * 1000 - clock[1], clock[2])

    def offset(time_ms: int) -> float:
        ms = time_ms - start * 1000
        return _single(ms / 1000) if ms % 1000 else ms // 1000

    encoded = senml.encode_pack(
        32473,
        world.board.kid,
        base,
        [
            (
                offset(time_ms),
                [
                    (name, unit, _single(value))
                    for (name, unit), value in zip(channels, values, strict=True)
                    if value is not None
                ],
            )
            for time_ms, values in rows
        ],
        [
            senml.Verdict(
                base + offset(rows[row][0]),
                score,
                anomaly,
                hashlib.sha256(bytes([row])).digest()[:8],
            )
            for row, score, anomaly in verdicts
        ],
        model[:8] if verdicts else None,
        clock=said,
        faults=[
            senml.Fault(base + offset(rows[row][0]), label, code) for row, label, code in faults
        ],
    )
    senml.decode_pack(encoded)
    return {
        "title": title,
        "channels": channels,
        "rows": [[time_ms, _plain(list(values))] for time_ms, values in rows],
        "model": model.hex(),
        "verdicts": [
            [row, score, anomaly, hashlib.sha256(bytes([row])).hexdigest()]
            for row, score, anomaly in verdicts
        ],
        "faults": [list(fault) for fault in faults],
        "clock": None if clock is None else _plain(list(clock)),
        "payload": encoded.hex(),
    }


def pack_vectors() -> dict[str, Any]:
    """Packs and an alert as a board must build them."""
    world = World()
    start = TIME_S * 1000
    bed = [
        ("accelerometer1", "[g]"), ("accelerometer2", "[g]"), ("current", "A"),
        ("pressure", "bar"), ("temperature", "Cel"), ("thermocouple", "Cel"),
        ("voltage", "V"), ("flow", "L/min"),
    ]  # fmt: skip
    row = [0.0271, 0.0402, 1.33, 0.054711, 79.3366, 26.0199, 233.062, 32.0]
    model = hashlib.sha256(b"model").digest()
    return {
        "kid": world.board.kid.hex(),
        "enterprise_number": 32473,
        "packs": [
            _pack_vector("one reading", [("flow", "L/min")], [(start, [32])], []),
            _pack_vector(
                "a test bed's rows, one with failed channels",
                bed,
                [
                    (start, row),
                    (start + 1000, [None, *row[1:7], None]),
                    (start + 2000, [-value for value in row]),
                ],
                [],
            ),
            _pack_vector(
                "no first channel, times that are not whole seconds, large and small values",
                [("a", "V"), ("b", "A")],
                [
                    (start + 250, [None, 1.1]),
                    (start + 251, [3.4e38, -1e-45]),
                    (start + 100_000, [2048, 2049]),
                    (start + 16_000_000, [0.0, -0.0]),
                ],
                [],
            ),
            _pack_vector(
                "verdicts",
                bed[:2],
                [(start + 1000 * i, [0.5 * i, 1 / (i + 1)]) for i in range(30)],
                [(0, 0, False), (9, 4711, True), (29, 2**31 - 1, True)],
            ),
            _pack_vector(
                "sensors that fail, one of them for good, beside verdicts",
                bed[:2],
                [
                    (start, [0.5, None]),
                    (start + 1000, [None, 0.25]),
                    (start + 2500, [0.5, 0.5]),
                ],
                [(2, 17, False)],
                [(0, "pump", "absent"), (1, "valve-1", "timeout")],
            ),
            _pack_vector(
                "no sensor gives anything",
                bed[:2],
                [(start + 250, [None, None]), (start + 1250, [None, None])],
                [],
                [(0, "pump", "crc"), (0, "a" * 26, "b" * 16), (1, "valve-1", "no-data")],
            ),
            _pack_vector(
                "a board that does not know the time",
                bed[:2],
                [(93_250, [0.5, None]), (94_250, [0.5, 0.25]), (95_000, [0.75, 0.25])],
                [(2, 17, False)],
                [(1, "pump", "absent")],
                (3, 95_001, None),
            ),
            _pack_vector(
                "a board that does not know the time, and whose sensors give nothing",
                bed[:2],
                [(1, [None, None])],
                [],
                [(0, "pump", "absent")],
                (2**32 - 1, 86_400_000, None),
            ),
            _pack_vector(
                "a board that a gateway told the time",
                bed[:2],
                [(start + 1250, [0.5, 0.5]), (start + 2250, [0.75, 0.25])],
                [],
                [],
                (3, start - 95_001, world.validators[0].kid),
            ),
            _pack_vector(
                "a board that set its clock by NTP",
                bed[:1],
                [(start, [1.0])],
                [],
                [],
                (4, start - 2**40, 1),
            ),
        ],
        "alert": {
            "time": TIME_S + 1,
            "model": model.hex(),
            "score": 4711,
            "threshold": 4000,
            "pack": 17,
            "payload": tx.Alert(TIME_S + 1, model, 4711, 4000, 17).encode().hex(),
        },
    }


def files() -> dict[str, str]:
    """Content of each vector file by name."""
    made = {
        "p256_rfc6979": p256_vectors(),
        "cbor_rfc8949": cbor_vectors(),
        "cose_sign1": cose_vectors(),
        "board_packs": pack_vectors(),
    }
    # MicroPython's JSON reader knows no surrogate pairs, so characters stand as they are.
    return {
        f"{name}.json": json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        for name, value in made.items()
    }


def main() -> int:
    """Write the files, or check that they are current."""
    parser = argparse.ArgumentParser(
        description="test vectors that board and hub share",
        epilog="example: python -m tools.vectors.board --check",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if outdated")
    arguments = parser.parse_args()
    outdated = []
    for name, content in files().items():
        path = FOLDER / name
        if not path.exists() or path.read_text("utf-8") != content:
            outdated.append(name)
            if not arguments.check:
                path.write_text(content, "utf-8")
    if arguments.check and outdated:
        print(f"outdated: {', '.join(outdated)}; run: python -m tools.vectors.board")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
