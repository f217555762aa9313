"""Proof files are checked with the founding file alone, and not one bit of them may change."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from support.small_chain import START_MS, SmallChain

from fog_node.protocol import senml
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.labels import Image
from fog_node.protocol.predictions import Thing, Verdict
from fog_node.protocol.proof import MAX_PROOF_BYTES
from fog_node.protocol.transactions import PackBody, Prediction, sign_transaction
from tools import proofs
from tools.commands.common import report
from tools.errors import ToolError

FLIPS = 200


@pytest.fixture
def chain(tmp_path):
    small = SmallChain(tmp_path / "ledger")
    yield small
    small.ledger.close()


@pytest.fixture
def founding(chain, tmp_path):
    path = tmp_path / "founding.cbor"
    path.write_bytes(chain.founding.raw)
    return path


@pytest.fixture
def board():
    return SigningKey.from_secret(7)


@pytest.fixture
def pack(chain, board):
    """A final pack of a board, among others in its block."""
    chain.enrol(board)
    packs = [chain.pack(board, number, value=number + 0.5) for number in (1, 2, 3)]
    chain.seal(*packs)
    return packs[1]


@pytest.fixture
def proof(chain, pack, tmp_path):
    path = tmp_path / "reading.proof"
    path.write_bytes(chain.ledger.prove(pack.id).encode())
    return path


def test_a_pack_without_time_says_how_long_before_its_signature(
    chain, board, tmp_path, founding
) -> None:
    chain.enrol(board)
    payload = senml.encode_pack(
        32473, board.kid, -9, [(1, [("pressure", "bar", 1.0)])],
        clock=senml.Clock(-9, 17, 3_600_000, None), faults=[senml.Fault(-7, "pump", "absent")],
    )  # fmt: skip
    body = PackBody.decode(payload)
    sent = sign_transaction(board, body, chain.founding.chain_id, 1, dropped=0)
    chain.seal(sent)
    path = tmp_path / "untimed.proof"
    path.write_bytes(chain.ledger.prove(sent.id).encode())
    shown = proofs.verify(path, founding)
    assert shown["readings"] == [
        {"before_signature_s": 8, "name": "pressure", "value": 1.0, "unit": "bar"}
    ]
    assert shown["faults"] == [{"before_signature_s": 7, "sensor": "pump", "code": "absent"}]


def test_it_says_what_a_proof_shows(chain, board, pack, proof, founding) -> None:
    shown = proofs.verify(proof, founding)
    assert shown["holds"] is True
    assert shown["transaction"] == pack.id.hex()
    assert (shown["kind"], shown["signer"], shown["sequence"]) == ("pack", board.kid.hex(), 2)
    assert shown["height"] == 2
    assert shown["block"] == chain.ledger.head.hash[::-1].hex()
    assert shown["agreed_by"] == ["busan", "daegu", "seoul"]
    assert shown["quorum"] == 2
    assert [(r["name"], r["value"], r["unit"]) for r in shown["readings"]] == [
        ("pressure", 2.5, "bar"), ("pressure", 2.5, "bar"),
    ]  # fmt: skip
    assert shown["readings"][0]["time"].startswith("2023-11-14T22:13:20")


def test_a_members_transaction_is_proven_under_its_name(chain, founding, tmp_path) -> None:
    block = chain.enrol(SigningKey.from_secret(8))
    path = tmp_path / "enrol.proof"
    path.write_bytes(chain.ledger.prove(block.transactions[0].id).encode())
    shown = proofs.verify(path, founding)
    assert (shown["kind"], shown["signer"]) == ("enrol", "operator")
    assert "readings" not in shown


def test_what_a_model_said_is_read_from_its_proof_alone(chain, founding, tmp_path, capsys) -> None:
    verdicts = (Verdict(Thing("lathe 7"), "TWF", 0.91), Verdict(Image(bytes(32)), None, 12.5))
    body = Prediction("lathes", b"\x01" * 32, b"\x02" * 32, verdicts, START_MS)
    sent = chain.sign(chain.trainer, body)
    chain.seal(sent)
    path, out = tmp_path / "said.proof", tmp_path / "said.json"
    path.write_bytes(chain.ledger.prove(sent.id).encode())
    report(proofs.verify(path, founding), out)
    shown = json.loads(out.read_text())
    assert (shown["kind"], shown["signer"], shown["name"]) == ("prediction", "trainer", "lathes")
    assert (shown["model"], shown["source"]) == ("01" * 32, "02" * 32)
    assert shown["verdicts"] == [
        {"name": "lathe 7", "said": "TWF", "score": 0.91},
        {"image": "00" * 32, "said": None, "score": 12.5},
    ]
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("lathe 7", "TWF", "0.91", "holds"))


def test_a_proof_with_a_flipped_bit_is_refused(proof, founding) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    whole = proof.read_bytes()
    for bit in rng.sample(range(len(whole) * 8), FLIPS):
        print(f"bit {bit}")
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        proof.write_bytes(changed)
        with pytest.raises(ToolError, match="does not hold: "):
            proofs.verify(proof, founding)
    proof.write_bytes(whole)
    assert proofs.verify(proof, founding)["holds"]


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\x00", lambda b: b""])
def test_a_proof_that_is_cut_or_longer_is_refused(proof, founding, change) -> None:
    proof.write_bytes(change(proof.read_bytes()))
    with pytest.raises(ToolError, match=f"{proof}: does not hold"):
        proofs.verify(proof, founding)


def test_a_proof_of_another_consortium_is_refused(proof, tmp_path) -> None:
    other = SmallChain(tmp_path / "other")
    other.ledger.close()
    path = tmp_path / "other.cbor"
    path.write_bytes(replace(other.founding, name="other").raw)
    with pytest.raises(ToolError, match="check it with the founding file it was made under"):
        proofs.verify(proof, path)


def test_files_that_are_none_are_named(proof, founding, tmp_path) -> None:
    nothing = tmp_path / "nothing"
    with pytest.raises(ToolError, match=f"{nothing}: No such file or directory; give a proof"):
        proofs.verify(nothing, founding)
    with pytest.raises(ToolError, match=f"{nothing}: No such file .* founding file"):
        proofs.verify(proof, nothing)
    with pytest.raises(ToolError, match=f"{proof}: is not a founding file"):
        proofs.verify(proof, proof)
    nothing.write_bytes(bytes(MAX_PROOF_BYTES + 1))
    with pytest.raises(ToolError, match=rf"larger than {MAX_PROOF_BYTES} bytes; give a proof"):
        proofs.verify(nothing, founding)
