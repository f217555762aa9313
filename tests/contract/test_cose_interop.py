"""Signatures against the COSE working group's examples and a second COSE library."""

from __future__ import annotations

import cbor2
import cwt
import pytest

from fog_node.protocol import cose
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import PublicKey, SigningKey, canonical_signature

# cose-wg/Examples, sign1-tests: the key "11" and (external data, Sig_structure, message).
WG_KEY = PublicKey(
    bytes.fromhex(
        "bac5b11cad8f99f9c72b05cf4b9e26d244dc189f745228255a219a86d6a09eff"
        "20138bf82dc1b6d562be0fa54ab7804a3a64b6d72ccfed6b6fb6ed28bbfc117e"
    )
)
WG_PASS = {
    "sign-pass-01": (
        "",
        "846A5369676E617475726531404054546869732069732074686520636F6E74656E742E",
        (
            "D28441A0A201260442313154546869732069732074686520636F6E74656E742E5840EAE868ECC176883766C5"
            "DC5BA5B8DCA25DAB3C2E56A551CE5705B793914348E11A02E5F0344BF2D4EE5C7FD75A68A9F5E0B3CC1F1FC1"
            "409C189566586FF9D610"
        ),
    ),
    "sign-pass-02": (
        "11aa22bb33cc44dd55006699",
        (
            "846A5369676E61747572653143A101264C11AA22BB33CC44DD5500669954546869732069732074686520636F"
            "6E74656E742E"
        ),
        (
            "D28443A10126A10442313154546869732069732074686520636F6E74656E742E5840EAE868ECC176883766C5"
            "DC5BA5B8DCA25DAB3C2E56A551CE5705B793914348E155388B10C4F1B59A6733EAB416870A945111A4B2FBDB"
            "EF33A77234B1DEFF2F9B"
        ),
    ),
}
WG_FAIL = (
    "D28443A10126A10442313154546869732069732074686520636F6E74656E742F5840EAE868ECC176883766C5DC5B"
    "A5B8DCA25DAB3C2E56A551CE5705B793914348E19F43D6C6BA654472DA301B645B293C9BA939295B97C4BDB84778"
    "2BFF384C5794"
)
CHAIN = bytes(range(32))
CONTENT_TYPE = "application/senml+cbor"
PAYLOAD = b"\x81\xa0"
MAX_BYTES = 1000
# cwt does not choose the low-S form; every other signature has it.
MAX_TRIES = 64


def parts(message: str) -> tuple[bytes, bytes, bytes]:
    """Protected header, payload and low-S signature; an empty header is signed as empty."""
    protected, _, payload, signature = cbor2.loads(bytes.fromhex(message)).value
    return b"" if protected == b"\xa0" else protected, payload, canonical_signature(signature)


@pytest.mark.parametrize("name", WG_PASS)
def test_the_working_groups_signatures_verify(name: str) -> None:
    external, expected, message = WG_PASS[name]
    protected, payload, signature = parts(message)
    structure = cose.sig_structure(protected, bytes.fromhex(external), payload)
    assert structure == bytes.fromhex(expected)
    WG_KEY.verify(signature, structure)
    with pytest.raises(ProtocolError, match="does not verify"):
        WG_KEY.verify(signature, cose.sig_structure(protected, b"other", payload))


def test_the_working_groups_changed_message_does_not_verify() -> None:
    protected, payload, signature = parts(WG_FAIL)
    with pytest.raises(ProtocolError, match="does not verify"):
        WG_KEY.verify(signature, cose.sig_structure(protected, b"", payload))


@pytest.mark.parametrize("message", [*(case[2] for case in WG_PASS.values()), WG_FAIL])
def test_headers_outside_the_signature_are_not_in_our_profile(message: str) -> None:
    with pytest.raises(ProtocolError, match="unprotected"):
        cose.parse_sign1(bytes.fromhex(message), MAX_BYTES)


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.from_secret(4711)


@pytest.fixture
def cwt_key(key: SigningKey) -> cwt.COSEKey:
    value = dict(key.public.cose_key) | {
        2: key.kid,
        3: cose.ALG_ES256,
        -4: (4711).to_bytes(32, "big"),
    }
    return cwt.COSEKey.new(value)


def test_a_second_library_verifies_ours(key: SigningKey, cwt_key: cwt.COSEKey) -> None:
    raw = cose.sign1(key, CONTENT_TYPE, PAYLOAD, CHAIN, sequence=7, dropped=3)
    library = cwt.COSE.new(verify_kid=True)
    assert library.decode(raw, cwt_key, external_aad=CHAIN) == PAYLOAD
    with pytest.raises(cwt.VerifyError):
        library.decode(raw, cwt_key, external_aad=bytes(32))


def test_we_verify_a_second_librarys(key: SigningKey, cwt_key: cwt.COSEKey) -> None:
    protected = {
        cose.LABEL_ALG: cose.ALG_ES256,
        cose.LABEL_CONTENT_TYPE: CONTENT_TYPE,
        cose.LABEL_KID: key.kid,
        cose.LABEL_SEQUENCE: 7,
    }
    for _ in range(MAX_TRIES):
        raw = cwt.COSE.new().encode(PAYLOAD, cwt_key, protected, {}, external_aad=CHAIN)
        message = cose.parse_sign1(raw, MAX_BYTES)
        if canonical_signature(message.signature) == message.signature:
            break
    message.verify(key.public, CHAIN)
    assert (message.content_type, message.kid, message.sequence) == (CONTENT_TYPE, key.kid, 7)
    assert message.payload == PAYLOAD
    with pytest.raises(ProtocolError, match="does not verify"):
        message.verify(key.public, bytes(32))
