"""Formats against vectors that others published: RFC 6979, RFC 6962/9162, Bitcoin, RFC 9052."""

from __future__ import annotations

import hashlib
import random
import tracemalloc

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fog_node.protocol import cbor, merkle
from fog_node.protocol.block import Header, bits_from_target, hash_hex, target_from_bits, work
from fog_node.protocol.errors import EncodingError, ProtocolError
from fog_node.protocol.keys import ORDER, PublicKey, SigningKey, canonical_signature

# RFC 6979 appendix A.2.5: P-256, SHA-256.
RFC6979_SECRET = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
RFC6979 = {
    "sample": (
        "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
        "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
    ),
    "test": (
        "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367",
        "019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
    ),
}

# The tree of the Certificate Transparency reference implementation (RFC 6962 = RFC 9162 2.1).
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657",
          "606162636465666768696a6b6c6d6e6f"]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

# (time, bits, nonce, merkle root, previous, hash), hashes as people see them.
BITCOIN = {
    0: (
        1231006505, 0x1D00FFFF, 2083236893,
        "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b",
        "00" * 32,
        "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
    ),
    125552: (
        1305998791, 0x1A44B9F2, 2504433986,
        "2b12fcf1b09288fcaff797d71e950e71ae42b91e8bdb2304758dfcffc2b620e3",
        "00000000000008a3a41b85b8b29ad444def299fee21793cd8b9e567eab02cd81",
        "00000000000000001e8d6829a8a21adc5d38d0a473b144b6765798e61f98bd1d",
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", RFC6979)
def test_signatures_are_rfc_6979_in_low_s_form(message: str) -> None:
    expected = bytes.fromhex("".join(RFC6979[message]))
    key = SigningKey.from_secret(RFC6979_SECRET)
    signature = key.sign(message.encode())
    assert signature == canonical_signature(expected)
    key.public.verify(signature, message.encode())
    mirrored = signature[:32] + (ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    with pytest.raises(ProtocolError, match="upper half"):
        key.public.verify(mirrored, message.encode())


def test_a_point_off_the_curve_is_no_key() -> None:
    good = SigningKey.from_secret(5).public.xy
    with pytest.raises(ProtocolError, match="not a point"):
        PublicKey(good[:-1] + bytes([good[-1] ^ 1]))


def test_merkle_roots_are_those_of_certificate_transparency() -> None:
    leaves = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES]
    assert merkle.root([]) == hashlib.sha256(b"").digest()
    for count, expected in enumerate(ROOTS, start=1):
        assert merkle.root(leaves[:count]).hex() == expected


@given(st.integers(1, 70), st.data())
def test_inclusion_proofs_hold_for_their_leaf_alone(size: int, data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(bytes([i])) for i in range(size)]
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_proof(leaves, index)
    top = merkle.root(leaves)
    merkle.verify_inclusion(leaves[index], index, size, path, top)
    other = merkle.leaf_hash(b"other")
    wrong = [
        (other, index, size, path, top),
        (leaves[index], index, size, [*path, other], top),
        (leaves[index], index, size, path, other),
        (leaves[index], size, size, path, top),
    ]
    if path:
        wrong += [
            (leaves[index], index, size, path[:-1], top),
            (leaves[index], index ^ 1, size, path, top),
        ]
    for case in wrong:
        with pytest.raises(ProtocolError):
            merkle.verify_inclusion(*case)


@pytest.mark.parametrize("height", BITCOIN)
def test_real_bitcoin_headers_hash_and_meet_their_target(height: int) -> None:
    time, bits, nonce, root, previous, expected = BITCOIN[height]
    header = Header(bytes.fromhex(previous)[::-1], bytes.fromhex(root)[::-1], time, bits, nonce)
    assert hash_hex(header.hash) == expected
    header.check_work()
    assert Header.decode(header.encode()) == header
    worse = Header(header.previous, header.merkle_root, time, bits, nonce ^ 1)
    with pytest.raises(ProtocolError, match="does not meet"):
        worse.check_work()


@pytest.mark.parametrize(
    ("bits", "target"),
    [
        (0x1D00FFFF, 0xFFFF << 208),
        (0x1B0404CB, 0x0404CB << 192),
        (0x207FFFFF, 0x7FFFFF << 232),
        (0x01120000, 0x12),
        (0x05009234, 0x92340000),
    ],
)
def test_compact_targets_are_bitcoins(bits: int, target: int) -> None:
    assert target_from_bits(bits) == target
    assert target_from_bits(bits_from_target(target)) == target
    assert work(bits) == 2**256 // (target + 1)


@pytest.mark.parametrize("bits", [0, 0x01003456, 0x04923456, 0xFF123456, 0x1D000000])
def test_negative_zero_and_overflowing_targets_are_refused(bits: int) -> None:
    with pytest.raises(ProtocolError, match="bits"):
        target_from_bits(bits)


CBOR_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=40)
    | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


@given(CBOR_VALUES)
def test_cbor_round_trips_and_has_one_encoding(value: object) -> None:
    data = cbor.encode(value)
    assert cbor.encode(cbor.decode(data, 2**16)) == data
    with pytest.raises(ProtocolError):
        cbor.decode(data + b"\x00", 2**16)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (65504.0, "f97bff"), (-32768.0, "f9f800"), (65503.0, "fa477fdf00"), (1e300, None),
        ({-1: 1, 24: 2}, "a21818022001"),
    ],
)  # fmt: skip
def test_where_cbor2s_canonical_form_differs_from_the_rfc_we_follow_the_rfc(
    value: object, data: str | None
) -> None:
    encoded = cbor.encode({"v": [value]})
    if data is not None and isinstance(value, float):
        assert encoded.hex() == "a1617681" + data
    assert cbor.decode(encoded, 2**16) == {"v": [value]}
    with pytest.raises(ProtocolError):
        cbor.decode(bytes.fromhex("fa477fe000"), 2**16)


@pytest.mark.parametrize(
    "data",
    [
        "1800", "190001", "fb3ff8000000000000", "9f01ff", "bf616101ff", "5f4101ff",
        "a2616202616101", "a2616101616101", "8200", "82", "", "d81c81d81d00",
        "81" * 4000 + "00",
    ],
)  # fmt: skip
def test_other_encodings_of_cbor_are_refused(data: str) -> None:
    with pytest.raises(ProtocolError):
        cbor.decode(bytes.fromhex(data + "0" * (len(data) % 2)), 2**16)


def test_shared_references_cannot_make_a_few_bytes_expand() -> None:
    # Each level is an array of two references to the level below: 2^40 leaves if expanded.
    data = b"\xd8\x1c\x82\x00\x00"
    for level in range(40):
        data = b"\xd8\x1c\x82" + data + b"\xd8\x1d" + cbor.encode(40 - level)
    with pytest.raises(ProtocolError):
        cbor.decode(data, 2**16)


# Each makes cbor2 build something that costs far more than its bytes, or raise what is not its own.
COSTLY = {
    "decimal of a long integer": cbor2.CBORTag(4, [0, 1 << 60_000]),
    "decimal of a vast exponent": cbor2.CBORTag(4, [2**62, 1]),
    "bigfloat of a vast exponent": cbor2.CBORTag(5, [2**62, 1]),
    "fraction over zero": cbor2.CBORTag(30, [1, 0]),
    "fraction of long integers": cbor2.CBORTag(30, [1 << 30_000, 3**9_000]),
    "regular expression": cbor2.CBORTag(35, "(a|b)*" * 1000),
    "MIME message": cbor2.CBORTag(36, "a: b\n" * 3000),
    "date": cbor2.CBORTag(1, 2**62),
    "long integer": 1 << 100_000,
    "negative long integer": -(1 << 100_000),
    "set": cbor2.CBORTag(258, [[1], [2]]),
    "keys that collide": {(1 << 61) * i + 1: 0 for i in range(5000)},
    "many entries": dict.fromkeys(range(cbor.MAX_MAP_ENTRIES + 1)),
    "many empty arrays": [[[]] * 1000] * 200,
}


@pytest.mark.parametrize("value", COSTLY.values(), ids=COSTLY.keys())
def test_what_costs_more_than_its_bytes_is_refused_before_it_is_built(value: object) -> None:
    data = cbor2.dumps(value, canonical=True)
    tracemalloc.start()
    try:
        with pytest.raises(EncodingError):
            cbor.decode(data, 2**20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


def test_a_map_of_as_many_entries_as_allowed_is_taken() -> None:
    value = dict.fromkeys(range(cbor.MAX_MAP_ENTRIES), 1.5)
    assert cbor.decode(cbor.encode(value), 2**16) == value


def test_random_bytes_are_refused_or_understood_never_worse() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(3000):
        data = chance.randbytes(chance.randrange(60))
        try:
            value = cbor.decode(data, 2**16)
        except ProtocolError:
            continue
        assert cbor.encode(value) == data
