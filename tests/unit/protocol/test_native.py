"""The C that reads packs accepts just what the Python beside it accepts, and reads the same."""

from __future__ import annotations

import json
import math
import os
import random
import shlex
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fog_node.errors import LedgerError
from fog_node.ledger.state import check_readings
from fog_node.protocol import _native, keys, senml
from fog_node.protocol.cbor import _encode_exactly, decode, decode_plainly
from fog_node.protocol.cose import parse_sign1, sig_structure
from fog_node.protocol.errors import EncodingError, ProtocolError, SignatureError
from fog_node.protocol.transactions import (
    MAX_TRANSACTION_BYTES,
    Channel,
    ChannelTable,
    PackBody,
    Transaction,
    interpret,
    read_pack,
)

ISOLATED = Path(__file__).parent / "isolated"
NATIVE = Path(_native.__file__).parent / "native"
VECTORS = Path(__file__).parents[2] / "vectors"
COMPILER = shlex.split(os.environ.get("CC", "cc"))
STRICT = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror"]
PATIENCE_S = 120
SEED_VARIABLE = "FOGLINE_SEED"
MUTATIONS = 12_000

KID = bytes.fromhex("a6b22b49b399d871")
BASE_NAME = "urn:dev:org:32473-a6b22b49b399d871_"
BASE_TIME = 1_767_225_600
CHANNELS = [Channel("flow", "L/min", 0.0, 100.0), Channel("a", "m", -1.0, 1.0)]
TABLES = {KID: ChannelTable([*CHANNELS, Channel("c3", "µ", 0.0, 1.0)]).prepared}


@pytest.fixture
def rng() -> random.Random:
    """A generator whose seed a failing test shows; FOGLINE_SEED=<seed> replays it."""
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().getrandbits(32))
    print(f"{SEED_VARIABLE}={seed}")
    return random.Random(seed)


def twin(data: bytes) -> Transaction | None:
    """What the Python code makes of a message, where it takes it for a pack."""
    try:
        transaction = interpret(parse_sign1(data, MAX_TRANSACTION_BYTES, "transaction"))
    except ProtocolError:
        return None
    return transaction if isinstance(transaction.body, PackBody) else None


def agree(data: bytes) -> bool:
    """Assert that both say the same, whatever table is at hand, and give what they say."""
    expected = twin(data)
    assert read_pack(data) == expected, data.hex()
    noted = read_pack(data, TABLES)
    assert (noted and noted.message) == (expected and expected.message), data.hex()
    if expected is not None:
        pack = expected.body.pack
        assert _native.read_pack(data, None)[6:] == (
            pack.enterprise_number,
            pack.base_time,
            len(pack.readings),
            len(pack.verdicts),
            pack.clock and tuple(pack.clock[1:]),
            None,
        )
    return expected is not None


def header(**changes: Any) -> dict[Any, Any]:
    labels = {"alg": 1, "type": 3, "kid": 4, "sequence": -65537, "dropped": -65538}
    whole = {1: -7, 3: senml.CONTENT_TYPE, 4: KID, -65537: 7, -65538: 2}
    for name, value in changes.items():
        if value is None:
            del whole[labels[name]]
        else:
            whole[labels[name]] = value
    return whole


def wrap(payload: bytes, protected: Any = None, signature: bytes = bytes(range(64))) -> bytes:
    if not isinstance(protected, bytes):
        protected = _encode_exactly(header() if protected is None else protected)
    return _encode_exactly(cbor2.CBORTag(18, [protected, {}, payload, signature]))


def wrapped(*records: Any) -> bytes:
    return wrap(_encode_exactly(list(records)))


def first(**fields: Any) -> dict[Any, Any]:
    """A first record: a reading by default."""
    record: dict[Any, Any] = {-2: BASE_NAME, -3: BASE_TIME}
    record |= fields.pop("record", {0: "flow", 1: "L/min", 2: 5})
    return record


def before(seconds: int, **fields: Any) -> dict[Any, Any]:
    """A first record of a pack without time."""
    return first(**fields) | {-3: -seconds}


def reading(value: Any = 1.5, name: Any = "flow", unit: Any = "L/min", **more: Any) -> Any:
    record = {0: name, 1: unit, 2: value}
    if "time" in more:
        record[6] = more["time"]
    return record


SCORE = {0: "model/score", 2: 5}
ANOMALY = {0: "model/anomaly", 4: True}
OUTPUT = {0: "model/output", 8: bytes(8)}
MODEL = {0: "model/id", 8: bytes(8)}
BOOT = {0: "clock/boot", 2: 17}
UP = {0: "clock/up", 1: "ms", 2: 90_500}
BY = {0: "clock/by", 8: bytes(8)}
BY_NTP = {0: "clock/by", 2: 1}


def fault(label: str = "pump", code: Any = "absent", **more: Any) -> Any:
    return {0: f"fault/{label}", 3: code, **({6: more["time"]} if "time" in more else {})}


def valid_packs() -> list[bytes]:
    """The vectors' packs, and some that go to the limits."""
    found = []
    board = json.loads((VECTORS / "board_packs.json").read_text())
    found += [wrap(bytes.fromhex(pack["payload"])) for pack in board["packs"]]
    messages = json.loads((VECTORS / "messages.json").read_text())
    found.append(bytes.fromhex(messages["transactions"]["pack"]["bytes"]))
    rows = [reading(0.1 * i, f"c{i}", time=0.5) for i in range(32)]
    values = [0, 23, 24, 255, 256, 65535, 65536, 2**32, 2**64 - 1, -1, -24, -(2**64), -0.0, 0.5]
    values += [
        50080.0,
        65504.0,
        65520.0,
        2.0**-24,
        2.0**-25,
        1.1,
        3.4e38,
        3.5e38,
        1e-45,
        5e-324,
        1e300,
    ]
    found += [
        wrapped(first(), *rows),
        wrapped(first(), *(reading(value, time=i + 1) for i, value in enumerate(values))),
        wrapped(first(), *(reading(1, time=i / 4) for i in range(1, 120))),
        wrapped(first(record=SCORE), ANOMALY, OUTPUT, MODEL),
        wrapped(first(), *[{**r, 6: 3} for r in (SCORE, ANOMALY, OUTPUT)], SCORE, ANOMALY, OUTPUT,
                {**MODEL, 6: -1.5}),
        wrapped(first(record=reading(unit="µ€𝄞" * 5 + "x"))),
        wrapped(first(record=fault())),
        wrapped(first(), fault(), SCORE, ANOMALY, OUTPUT, MODEL),
        wrapped(first(record=fault(time=-1)), *(fault(f"s{i}", time=i) for i in range(1, 32))),
        wrapped(first(), fault("a" * 26, "a" * 16), fault("9:-./_", "0-9")),
        wrapped(first(), reading(time=2**40)),
        wrapped(first(record=reading(time=-(2**40)))),
        wrapped(first(), BOOT, UP, BY),
        wrapped(first(), {**BOOT, 2: 2**32 - 1}, {**UP, 2: 2**53 - 1}, BY_NTP),
        wrapped(first(), SCORE, ANOMALY, OUTPUT, MODEL, BOOT, UP, {0: "clock/by", 2: 0}),
        wrapped(first(record=BOOT), UP, BY),
        wrapped(before(9), reading(time=8.5), reading(time=9), BOOT, UP),
        wrapped(before(0), {**BOOT, 2: 0}, {**UP, 2: 0}),
        wrapped(before(2**20, record=BOOT), UP),
        wrapped(before(5), *[{**r, 6: 5} for r in (SCORE, ANOMALY, OUTPUT)], MODEL, BOOT, UP),
    ]  # fmt: skip
    return found


def test_what_boards_send_is_read_by_both():
    packs = valid_packs()
    assert len(packs) > 10
    for pack in packs:
        assert agree(pack), pack.hex()


def test_what_the_vectors_refuse_is_refused_by_both():
    for refusal in json.loads((VECTORS / "refusals.json").read_text()):
        agree(bytes.fromhex(refusal["bytes"]))


NOT_PACKS = {
    "a reading behind a fault": wrapped(first(), fault(), reading(time=1)),
    "a fault behind a verdict": wrapped(first(), SCORE, ANOMALY, OUTPUT, fault(), MODEL),
    "a fault behind the model": wrapped(first(), SCORE, ANOMALY, OUTPUT, MODEL, fault()),
    "a fault twice": wrapped(first(), fault(), fault(time=1)),
    "too many faults": wrapped(first(), *(fault(f"s{i}") for i in range(33))),
    "a fault without a label": wrapped(first(), fault("")),
    "a fault of a label with a stroke": wrapped(first(), fault("-pump")),
    "a fault of a label with a blank": wrapped(first(), fault("the pump")),
    "a fault of a long label": wrapped(first(), fault("a" * 27)),
    "a fault of another alphabet": wrapped(first(), fault("é")),
    "a fault without a code": wrapped(first(), fault(code="")),
    "a fault with a long code": wrapped(first(), fault(code="a" * 17)),
    "a fault that shouts": wrapped(first(), fault(code="Absent")),
    "a fault with a code of another alphabet": wrapped(first(), fault(code="é")),
    "a fault with bytes": wrapped(first(), fault(code=b"absent")),
    "a fault with a number": wrapped(first(), {0: "fault/pump", 2: 1}),
    "a fault with a unit": wrapped(first(), {**fault(), 1: "m"}),
    "a fault of two values": wrapped(first(), {**fault(), 2: 1}),
    "a reading with a text": wrapped(first(), {**reading(time=1), 3: "absent"}),
    "a text alone": wrapped(first(), {0: "flow", 3: "absent"}),
    "no records": wrapped(),
    "no list": wrap(_encode_exactly({})),
    "no base": wrapped(reading()),
    "base twice": wrapped(first(), first(record=reading(time=1))),
    "base name of another": wrapped({**first(), -2: "urn:dev:org:32473-a6b22b49b399d872_"}),
    "upper case": wrapped({**first(), -2: BASE_NAME.upper()}),
    "leading zero": wrapped({**first(), -2: "urn:dev:org:032473-a6b22b49b399d871_"}),
    "eleven digits": wrapped({**first(), -2: "urn:dev:org:32473324730-a6b22b49b399d871_"}),
    "no separator": wrapped({**first(), -2: BASE_NAME[:-1]}),
    "blank in the key id": wrapped({**first(), -2: BASE_NAME.replace("a6b22b", "a6 b2b")}),
    "relative base time": wrapped({**first(), -3: 2**28 - 1}),
    "base time far ahead": wrapped({**first(), -3: 2**40 + 1}),
    "base time a float": wrapped({**first(), -3: float(BASE_TIME)}),
    "true for a label": wrapped({-2: BASE_NAME, -3: BASE_TIME, 0: "flow", True: "m", 2: 5}),
    "a float for a label": wrapped({-2: BASE_NAME, -3: BASE_TIME, 0.0: "flow", 1: "m", 2: 5}),
    "big number": wrapped(first(), reading(2**64, time=1)),
    "huge number": wrapped(first(), reading(10**400, time=1)),
    "not finite": wrapped(first(), reading(math.inf, time=1)),
    "no number": wrapped(first(), reading(math.nan, time=1)),
    "a boolean value": wrapped(first(), reading(True, time=1)),
    "time a boolean": wrapped(first(), reading(1, time=False)),
    "time not finite": wrapped(first(), reading(1, time=math.nan)),
    "time far off": wrapped(first(), reading(1, time=2.0**41)),
    "time goes back": wrapped(first(), reading(1, time=-0.5)),
    "channel twice": wrapped(first(), reading(2)),
    "33 channels": wrapped(first(), *(reading(1, f"c{i}") for i in range(32))),
    "121 rows": wrapped(first(), *(reading(1, time=i) for i in range(1, 121))),
    "long name": wrapped(first(), reading(1, "n" * 33)),
    "name begins with a dot": wrapped(first(), reading(1, ".n")),
    "name of a model": wrapped(first(), reading(1, "model/x")),
    "name not ASCII": wrapped(first(), reading(1, "flöw")),
    "empty name": wrapped(first(), reading(1, "")),
    "name with a zero": wrapped(first(), reading(1, "a\0")),
    "empty unit": wrapped(first(), reading(1, "x", "")),
    "17 characters": wrapped(first(), reading(1, "x", "é" * 17)),
    "unknown field": wrapped(first(), {**reading(1, "x"), 5: 1}),
    "no unit": wrapped(first(), {0: "x", 2: 1}),
    "no name": wrapped(first(), {1: "m", 2: 1}),
    "verdict without a model": wrapped(first(), SCORE, ANOMALY, OUTPUT),
    "model without a verdict": wrapped(first(), MODEL),
    "model not last": wrapped(first(), SCORE, ANOMALY, OUTPUT, MODEL, reading(1, "x")),
    "half a verdict": wrapped(first(), SCORE, ANOMALY, MODEL),
    "verdict in another order": wrapped(first(), ANOMALY, SCORE, OUTPUT, MODEL),
    "verdict at two times": wrapped(first(), SCORE, {**ANOMALY, 6: 1}, OUTPUT, MODEL),
    "reading behind a verdict": wrapped(first(), SCORE, ANOMALY, OUTPUT, reading(1, "x"), MODEL),
    "score below zero": wrapped(first(), {**SCORE, 2: -1}, ANOMALY, OUTPUT, MODEL),
    "score of 2^31": wrapped(first(), {**SCORE, 2: 2**31}, ANOMALY, OUTPUT, MODEL),
    "score a float": wrapped(first(), {**SCORE, 2: 5.0}, ANOMALY, OUTPUT, MODEL),
    "anomaly a number": wrapped(first(), SCORE, {0: "model/anomaly", 4: 1}, OUTPUT, MODEL),
    "output of 7 bytes": wrapped(first(), SCORE, ANOMALY, {**OUTPUT, 8: bytes(7)}, MODEL),
    "score with a unit": wrapped(first(), {**SCORE, 1: "m"}, ANOMALY, OUTPUT, MODEL),
    "16 KiB and one": wrap(_encode_exactly([first(), *[reading(1)] * 900])),
    "name of a clock": wrapped(first(), reading(1, "clock/x")),
    "no time and no clock": wrapped(before(3)),
    "no time and boot only": wrapped(before(3), BOOT),
    "no time, yet who gave it": wrapped(before(3), BOOT, UP, BY),
    "no time, long ago": wrapped(before(2**20 + 1), BOOT, UP),
    "no time, a row too long ago": wrapped(before(2**20), reading(time=-1), BOOT, UP),
    "no time, a row behind the signature": wrapped(before(3), reading(time=3.5), BOOT, UP),
    "no time, a verdict behind it": wrapped(
        before(0), *[{**r, 6: 1} for r in (SCORE, ANOMALY, OUTPUT)], MODEL, BOOT, UP
    ),
    "a clock of nobody": wrapped(first(), BOOT, UP),
    "boot missing": wrapped(first(), UP, BY),
    "clock in another order": wrapped(first(), UP, BOOT, BY),
    "clock twice": wrapped(first(), BOOT, UP, BY, BOOT),
    "boot of 2^32": wrapped(first(), {**BOOT, 2: 2**32}, UP, BY),
    "boot a float": wrapped(first(), {**BOOT, 2: 1.0}, UP, BY),
    "boot with a unit": wrapped(first(), {**BOOT, 1: "s"}, UP, BY),
    "boot without a value": wrapped(first(), {0: "clock/boot", 8: bytes(8)}, UP, BY),
    "boot at a time": wrapped(first(), {**BOOT, 6: 0}, UP, BY),
    "up in seconds": wrapped(first(), BOOT, {**UP, 1: "s"}, BY),
    "up without a unit": wrapped(first(), BOOT, {0: "clock/up", 2: 1}, BY),
    "up of 2^53": wrapped(first(), BOOT, {**UP, 2: 2**53}, BY),
    "up below zero": wrapped(first(), BOOT, {**UP, 2: -1}, BY),
    "by an unknown way": wrapped(first(), BOOT, UP, {0: "clock/by", 2: 2}),
    "by a short key id": wrapped(first(), BOOT, UP, {**BY, 8: bytes(7)}),
    "by both": wrapped(first(), BOOT, UP, {**BY, 2: 1}),
    "reading behind the clock": wrapped(first(), BOOT, UP, BY, reading(1, "x")),
    "verdict behind the clock": wrapped(first(), BOOT, UP, BY, SCORE, ANOMALY, OUTPUT, MODEL),
    "no sequence": wrap(_encode_exactly([first()]), header(sequence=None)),
    "sequence 0": wrap(_encode_exactly([first()]), header(sequence=0)),
    "sequence 2^63": wrap(_encode_exactly([first()]), header(sequence=2**63)),
    "sequence a float": wrap(_encode_exactly([first()]), header(sequence=7.0)),
    "no watermark": wrap(_encode_exactly([first()]), header(dropped=None)),
    "another algorithm": wrap(_encode_exactly([first()]), header(alg=-8)),
    "algorithm a float": wrap(_encode_exactly([first()]), header(alg=-7.0)),
    "label a boolean": wrap(
        _encode_exactly([first()]), {True: -7, **{k: v for k, v in header().items() if k != 1}}
    ),
    "another type": wrap(_encode_exactly([first()]), header(type="application/senml+json")),
    "short key id": wrap(_encode_exactly([first()]), header(kid=KID[:7])),
    "another signer": wrap(_encode_exactly([first()]), header(kid=bytes(8))),
    "unknown label": wrap(_encode_exactly([first()]), {**header(), 5: 1}),
    "short signature": wrap(_encode_exactly([first()]), None, bytes(63)),
    "something behind it": wrapped(first()) + b"\0",
    "another tag": b"\xd1" + wrapped(first())[1:],
    "no tag": wrapped(first())[1:],
}


@pytest.mark.parametrize("data", NOT_PACKS.values(), ids=NOT_PACKS)
def test_what_is_no_pack_is_refused_by_both(data):
    assert not agree(data)


@pytest.mark.parametrize("head", [0xF9, 0xFA, 0xFB])
def test_floats_have_one_encoding(head, rng):
    """All halves, and singles and doubles near what a shorter form can hold."""
    sizes = {0xF9: (2, ">e"), 0xFA: (4, ">f"), 0xFB: (8, ">d")}
    size, form = sizes[head]
    patterns = [bits.to_bytes(2, "big") for bits in range(2**16)] if head == 0xF9 else []
    for bits in range(0, 2**16, 7):
        half = struct.unpack(">e", bits.to_bytes(2, "big"))[0]
        for value in (
            half,
            half * (1 + 2**-20),
            half * (1 + 2**-40),
            half * 2.0**-14,
            half * 2**17,
        ):
            try:
                patterns.append(struct.pack(form, value))
            except OverflowError:
                continue
    patterns += [rng.randbytes(size) for _ in range(2000)]
    before, after = _encode_exactly([first(), reading(0, time=1)]).split(b"\x02\x00\x06\x01")
    for pattern in rng.sample(patterns, min(len(patterns), 8000)):
        payload = before + b"\x02" + bytes([head]) + pattern + b"\x06\x01" + after
        agree(wrap(payload))


def test_mutations_are_judged_alike(rng):
    packs = valid_packs()
    accepted = 0
    for _ in range(MUTATIONS):
        pack = rng.choice(packs)
        envelope = parse_sign1(pack, MAX_TRANSACTION_BYTES)
        match rng.randrange(4):
            case 0:
                data = mutated(pack, rng)
            case 1:
                data = wrap(envelope.payload, mutated(envelope.protected, rng))
            case _:
                data = wrap(mutated(envelope.payload, rng))
        accepted += agree(data)
    assert accepted > MUTATIONS // 50  # some change a value and nothing else


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to three small changes: of a bit, a byte, a length, a piece taken out or repeated."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(changed):
                changed[at] = rng.choice((0, 0x18, 0x19, 0x60, 0x80, 0xA0, 0xD8, 0xF4, 0xF9, 0xFF))
            case 2 if at < len(changed):
                changed[at] = (changed[at] + rng.choice((-1, 1))) % 256
            case 3:
                del changed[at : at + rng.randrange(1, 5)]
            case 4:
                changed[at:at] = changed[at : at + rng.randrange(1, 30)]
            case _:
                changed[at:at] = rng.randbytes(rng.randrange(1, 4))
    return bytes(changed)


def decodes(data: bytes) -> bool:
    try:
        decode_plainly(data)
    except EncodingError:
        return False
    return True


# What the C leaves to the Python, which takes it.
LEFT_TO_PYTHON = {"f97e00", "f97c00", "f9fc00", "f7", "e0", "f8ff", "a1f4f6", "a1800a", "d28001"}


@pytest.mark.parametrize("data", sorted(LEFT_TO_PYTHON))
def test_what_no_structure_has_is_left_to_python(data):
    assert not _native.is_deterministic(bytes.fromhex(data))


def test_keys_in_the_order_of_rfc_7049_are_refused():
    """Shorter ones first: here 0.5 before "abc", which RFC 8949 section 4.2.1 sorts behind it."""
    old, new = bytes.fromhex("a2f93800016361626301"), bytes.fromhex("a26361626301f9380001")
    assert decode(new, 100) == {"abc": 1, 0.5: 1}
    for read in (lambda data: decode(data, 100), decode_plainly):
        with pytest.raises(EncodingError, match="not deterministically encoded"):
            read(old)


def test_deterministic_is_the_same_to_both(rng):
    """Whatever the C calls deterministic, the Python decodes; it misses what is odd only."""
    known = json.loads((VECTORS / "cbor_rfc8949.json").read_text())
    seeds = [bytes.fromhex(v["hex"]) for v in known if isinstance(v, dict) and "hex" in v]
    seeds += [*valid_packs(), *(parse_sign1(p, 2**16).payload for p in valid_packs())]
    seeds += [_encode_exactly([[[{1: [{2: b"x", "a": -5}]}, None, True]], "é", 1.5, 2**40])]
    yes = 0
    for _ in range(MUTATIONS):
        data = mutated(rng.choice(seeds), rng)
        deterministic = _native.is_deterministic(data)
        yes += deterministic
        if deterministic:
            assert decodes(data), data.hex()
            assert _encode_exactly(cbor2.loads(data)) == data
    assert yes > MUTATIONS // 50
    for seed in seeds:
        assert _native.is_deterministic(seed) or not decodes(seed) or is_odd(cbor2.loads(seed))


def is_odd(value: Any) -> bool:
    """Whether no structure of ours has such a thing in it."""
    if isinstance(value, (list, tuple)):
        return any(map(is_odd, value))
    if isinstance(value, dict):
        plain = all(type(key) in (int, str, bytes) for key in value)
        return not plain or any(map(is_odd, value.values()))
    if isinstance(value, cbor2.CBORTag):
        return is_odd(value.value)
    if isinstance(value, float):
        return not math.isfinite(value)
    return not isinstance(value, (int, str, bytes, bool, type(None)))


@settings(max_examples=400)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40)
        | st.text(max_size=40) | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=30)
        | st.dictionaries(st.integers(-300, 300) | st.text(max_size=3), inner, max_size=30),
        max_leaves=40,
    )
)  # fmt: skip
def test_what_is_encoded_is_deterministic(value):
    data = _encode_exactly(value)
    assert _native.is_deterministic(data)
    assert decodes(data)
    assert not _native.is_deterministic(data + b"\0")


# Written by hand: to encode so many items takes long, and they would name the test.
@pytest.mark.parametrize(
    ("data", "limit"),
    [
        pytest.param(b"\x81" * 16 + b"\x00", True, id="16 levels"),
        pytest.param(b"\x81" * 17 + b"\x00", False, id="17 levels"),
        pytest.param(_encode_exactly(dict.fromkeys(range(128), 0)), True, id="128 entries"),
        pytest.param(_encode_exactly(dict.fromkeys(range(129), 0)), False, id="129 entries"),
        pytest.param(b"\x9a\x00\x01\xff\xff" + bytes(2**17 - 1), True, id="2^17 items"),
        pytest.param(b"\x9a\x00\x02\x00\x00" + bytes(2**17), False, id="2^17 + 1 items"),
        pytest.param(bytes.fromhex("9affffffff"), False, id="an endless array"),
        pytest.param(bytes.fromhex("bb7fffffffffffffff"), False, id="an endless map"),
        pytest.param(b"", False, id="nothing"),
    ],
)
def test_items_levels_and_entries_are_bounded(data, limit):
    assert _native.is_deterministic(data) == limit


NUMBERS = (
    st.integers(-(2**65), 2**65)
    | st.floats()
    | st.floats(width=16)
    | st.floats(width=32)
    | st.integers(-30, 300)
)
NAMES = st.sampled_from(
    [
        "flow",
        "a",
        "model/score",
        "model/anomaly",
        "model/output",
        "model/id",
        "a.b",
        "model",
        "",
        "fault/a",
        "fault/",
        "fault",
        "fault/a/b",
    ]
) | st.text(max_size=34)
VALUES: dict[int, Any] = {
    0: NAMES,
    1: st.sampled_from(["m", "L/min"]) | st.text(max_size=18),
    2: NUMBERS,
    3: st.sampled_from(["absent", "no-data", "a b", ""]) | st.text(max_size=18),
    4: st.booleans(),
    6: st.integers(-1, 3) | NUMBERS,
    8: st.sampled_from([bytes(8), bytes(7)]),
}
READINGS = st.fixed_dictionaries({0: NAMES, 1: VALUES[1], 2: NUMBERS}, optional={6: VALUES[6]})
ODD = st.dictionaries(
    st.sampled_from([*VALUES, -1, 5, True]), st.one_of(*VALUES.values()), max_size=5
)
FAULTS = st.builds(fault, st.sampled_from("ab"), VALUES[3])
TRIPLES = st.sampled_from(
    [
        [SCORE, ANOMALY, OUTPUT],
        [SCORE, ANOMALY, OUTPUT, MODEL],
        [MODEL],
        [BOOT, UP],
        [BOOT, UP, BY],
        [BY_NTP],
        [UP],
    ]
)


@settings(max_examples=400)
@given(
    st.lists(READINGS | ODD, max_size=6),
    st.lists(FAULTS, max_size=3),
    st.lists(TRIPLES, max_size=3),
    st.integers(0, 2**33),
    st.integers(-(2**42), 2**42) | st.sampled_from([BASE_TIME, 0, -3, -(2**20), 1]),
)
def test_made_up_packs_are_judged_alike(readings, faults, triples, number, base_time):
    records = [dict(record) for record in [*readings, *faults]]
    records += [dict(r) for t in triples for r in t]
    if records:
        records[0] |= {-2: senml.base_name(number, KID), -3: base_time}
    try:
        payload = _encode_exactly(records)
    except UnicodeEncodeError:
        return
    agree(wrap(payload))


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "flow"]),
            st.sampled_from(["m", "µ"]),
            st.floats(-1e3, 1e3) | st.integers(-1000, 1000) | st.just(2**64 - 1),
        ),
        min_size=1,
        max_size=8,
    ),
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "flow"]),
            st.sampled_from(["m", "µ"]),
            st.floats(-1e3, 1e3),
            st.floats(0, 1e3) | st.just(1e20),
        ),
        max_size=4,
        unique_by=lambda channel: channel[0],
    ),
)
def test_plausible_is_the_same_to_both(values, listed):
    channels = [Channel(*channel) for channel in listed]
    records = [first(record=reading(values[0][2], *values[0][:2]))]
    records += [reading(v, name, unit, time=i) for i, (name, unit, v) in enumerate(values) if i]
    body = PackBody.decode(_encode_exactly(records))
    try:
        check_readings(channels, body.pack.readings)
        expected = True
    except LedgerError:
        expected = False
    table = ChannelTable(channels)
    assert table.holds(body) == expected
    noted = read_pack(wrap(body.payload), {KID: table.prepared})
    assert noted.body.fits is (table.prepared if expected else None)
    assert read_pack(wrap(body.payload), {}).body.fits is None


def test_signatures_become_der_in_their_ranges_only(rng):
    order, half = keys.ORDER, keys.HALF_ORDER
    edges = [0, 1, 127, 128, 255, 256, half - 1, half, half + 1, order - 1, order, order + 1]
    edges += [2**256 - 1, 2**255, 2**255 - 1, *(rng.getrandbits(256) for _ in range(20))]
    for r in edges:
        for s in edges:
            raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
            try:
                keys.check_scalars(raw)
                expected = keys.utils.encode_dss_signature(r, s)
            except SignatureError:
                expected = None
            assert _native.to_der(raw) == expected
    assert _native.to_der(bytes(63)) is None
    assert _native.to_der(bytes(65)) is None


@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, 65535, 65536])
def test_what_is_signed_is_what_cbor2_makes(size):
    parts = (bytes(size), bytes(range(32)), b"p" * size)
    assert sig_structure(*parts) == cbor2.dumps(["Signature1", parts[0], parts[1], parts[2]])


def test_wrong_calls_are_errors_and_no_crashes():
    with pytest.raises(TypeError):
        _native.read_pack("text", None)
    with pytest.raises(TypeError):
        _native.channels([("a", "m", 0.0)])
    with pytest.raises(ValueError, match="too long"):
        _native.channels([("a" * 33, "m", 0.0, 1.0)])
    with pytest.raises(ValueError, match="at most 32"):
        _native.channels([(f"a{i}", "m", 0.0, 1.0) for i in range(33)])
    with pytest.raises(ValueError, match="twice"):
        _native.channels([("a", "m", 0.0, 1.0)] * 2)
    for name, unit in (("", "m"), ("model/x", "m"), ("ä", "m"), ("a", ""), ("a", "m" * 17)):
        with pytest.raises(ValueError, match="none that a pack can have"):
            _native.channels([(name, unit, 0.0, 1.0)])
    with pytest.raises(TypeError, match="dict"):
        _native.read_pack(b"", [])
    with pytest.raises((TypeError, ValueError)):
        _native.read_pack(valid_packs()[0], {KID: 5})
    with pytest.raises((TypeError, ValueError)):
        _native.is_plausible(b"", object())


def run(*command: str | Path, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    finished = subprocess.run(
        command, input=given, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert finished.returncode == 0, (finished.stdout[-2000:] + finished.stderr).decode()
    return finished


@pytest.mark.parametrize("source", sorted(path.name for path in NATIVE.glob("*.c")))
def test_the_c_code_compiles_without_a_warning(source, tmp_path):
    headers = ["-isystem", sysconfig.get_paths()["include"]]
    run(*COMPILER, *STRICT, "-O3", *headers, "-c", NATIVE / source, "-o", tmp_path / "object.o")


def test_reading_holds_under_the_sanitizers(tmp_path, rng):
    program = tmp_path / "reading"
    sources = sorted(path for path in NATIVE.glob("*.c") if path.name != "module.c")
    sanitize = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    run(
        *COMPILER, *STRICT, *sanitize, f"-I{NATIVE}", ISOLATED / "check_reading.c", *sources,
        "-o", program,
    )  # fmt: skip
    packs = valid_packs()
    messages = [*packs, *NOT_PACKS.values()]
    for _ in range(MUTATIONS):
        pack = rng.choice(packs)
        payload = parse_sign1(pack, MAX_TRANSACTION_BYTES).payload
        bare = mutated(payload, rng)
        messages += [mutated(pack, rng), bare, wrap(bare), pack[: rng.randrange(len(pack))]]
    fed = b"".join(len(message).to_bytes(4, "big") + message for message in messages)
    said = run(program, given=fed).stdout.split()
    assert said == [b"1" if _native.read_pack(message, None) else b"0" for message in messages]


def test_reading_leaves_no_memory_behind():
    print(run(sys.executable, ISOLATED / "check_leaks.py").stdout.decode())
