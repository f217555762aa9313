"""Proposing, approving and requesting membership, as the commands do it."""

from __future__ import annotations

import json
import stat
from dataclasses import replace

import pytest
from cryptography import x509
from support.small_chain import START_MS

from fog_node.client import RefusedError
from fog_node.network import certificates
from fog_node.protocol.governance import RevokeCertificate, SetParameters, serial_bytes
from fog_node.protocol.keys import SigningKey
from tools import consortium as consortiums
from tools import governance
from tools.consortium import load_key
from tools.errors import ToolError, UsageError
from tools.governance import Wishes
from tools.membership_request import load_request, make_request
from tools.nodes import Nodes

APIS = Nodes(("http://localhost",))


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    monkeypatch.setattr(governance, "_now_ms", lambda: START_MS)


@pytest.fixture
def request_file(chain, tmp_path):
    return make_request(chain.founding, "ulsan", tmp_path / "ulsan", ["ulsan.example"])


async def propose(chain, wishes, by=0, days=1):
    return await governance.propose(APIS, chain.founding, chain.validators[by], wishes, "why", days)


class TestRequest:
    def test_holds_what_others_may_see_and_no_more(self, chain, request_file):
        own = request_file.parent
        for name in ("signing.key", "tls.key"):
            assert stat.S_IMODE((own / name).stat().st_mode) == 0o600
        text = request_file.read_text()
        assert "PRIVATE" not in text
        read = load_request(request_file, chain.founding)
        assert (read.name, read.hosts) == ("ulsan", ("ulsan.example",))
        assert read.key == load_key(own / "signing.key").public
        assert (own / "founding.cbor").read_bytes() == chain.founding.raw

    def test_nothing_is_overwritten(self, chain, request_file):
        with pytest.raises(ToolError, match="exists"):
            make_request(chain.founding, "ulsan", request_file.parent)

    def test_a_name_that_cannot_be(self, chain, tmp_path):
        with pytest.raises(UsageError, match="--name"):
            make_request(chain.founding, "Ulsan!", tmp_path)

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"name": "jeju"}, "signed for ulsan"),
            ({"chain": "00" * 32}, "another consortium"),
            ({"format": "x"}, "format"),
            ({"key": SigningKey.from_secret(5).public.xy.hex()}, "another key"),
            ({"proof": "00"}, "proof"),
            ({"hosts": "x"}, "hosts"),
            ({"tls_request": "x"}, "PEM"),
            ({"extra": 1}, "format"),
        ],
    )
    def test_what_was_changed_is_refused(self, chain, request_file, change, word):
        value = json.loads(request_file.read_text()) | change
        request_file.write_text(json.dumps(value))
        with pytest.raises(ToolError, match=word) as caught:
            load_request(request_file, chain.founding)
        assert "request-membership" in str(caught.value)

    def test_what_is_too_long_or_no_json(self, chain, request_file):
        for text in ("{", "[]", "x" * 20_000):
            request_file.write_text(text)
            with pytest.raises(ToolError):
                load_request(request_file, chain.founding)

    def test_its_certificate_is_for_the_key_that_stayed_there(self, tmp_path):
        members = {"seoul": consortiums.VALIDATOR_ROLES}
        founded = consortiums.create(tmp_path / "c", "test", members)
        path = make_request(founded.founding, "ulsan", tmp_path / "ulsan", ["ulsan.example"])
        asked = load_request(path, founded.founding)
        issued = consortiums.issue_requested(founded, asked, tmp_path / "out")
        assert not (tmp_path / "out" / "tls.key").exists()
        certificate = x509.load_pem_x509_certificate(issued.read_bytes())
        assert certificates.member_of(certificate) == asked.key.kid
        assert certificates.name_in(issued) == "ulsan"
        # It goes with the key in the requester's directory.
        certificates.client_context(
            founded.founding.authority, issued, tmp_path / "ulsan" / "tls.key"
        )


class TestProposing:
    async def test_and_approving(self, chain, node, request_file):
        wishes = Wishes(
            add_member=[f"ulsan=validator,gateway:{request_file}"],
            set_roles=["trainer=trainer,provider"],
            parameter=["stagger_ms=0x10", "quorum=two-thirds"],
        )
        shown = await propose(chain, wishes)
        assert (shown["outcome"], shown["missing"], shown["by"]) == ("open", 1, "seoul")
        assert [c["change"] for c in shown["changes"]] == [
            "add-member", "set-roles", "set-parameters",
        ]  # fmt: skip
        preview = await governance.preview(APIS, chain.founding, shown["proposal"][:8])
        assert preview == shown["changes"]
        shown = await governance.approve(
            APIS, chain.founding, chain.validators[1], shown["proposal"][:8].upper()
        )
        assert (shown["outcome"], shown["approved_by"][-1]) == ("applied", shown["approved_by"][-1])
        state = chain.ledger.state
        assert state.member_named("ulsan").roles == {"validator", "gateway"}
        assert state.member_named("trainer").roles == {"trainer", "provider"}
        assert (state.parameters.stagger_ms, state.quorum_rule) == (16, "two-thirds")

    async def test_members_by_name_or_key_id(self, chain, node):
        kid = chain.trainer.kid.hex()
        shown = await propose(chain, Wishes(remove_member=["operator", kid], set_roles=[]))
        assert [c["member"] for c in shown["changes"]] == [chain.operator.kid.hex(), kid]
        shown = await propose(chain, Wishes(set_roles=["daegu=none"]), by=1)
        assert shown["changes"][0]["roles"] == []

    async def test_withdrawing(self, chain, node):
        shown = await propose(chain, Wishes(parameter=["stagger_ms=9"]))
        shown = await governance.withdraw(
            APIS, chain.founding, chain.validators[0], shown["proposal"]
        )
        assert shown["outcome"] == "withdrawn"

    async def test_only_validators_may(self, chain, node):
        with pytest.raises(RefusedError, match="role"):
            await governance.propose(
                APIS, chain.founding, chain.operator, Wishes(remove_member=["trainer"]), "", 1
            )

    async def test_the_founding_file_of_another_consortium(self, chain, node):
        other, wishes = replace(chain.founding, name="other"), Wishes(remove_member=["trainer"])
        with pytest.raises(ToolError, match=f"the node keeps {chain.founding.chain_id.hex()}"):
            await governance.propose(APIS, other, chain.validators[0], wishes, "", 1)

    @pytest.mark.parametrize(
        ("wishes", "word"),
        [
            (Wishes(), "nothing to propose"),
            (Wishes(add_member=["ulsan"]), "--add-member ulsan"),
            (Wishes(add_member=["ulsan=trainer"]), "REQUEST"),
            (Wishes(remove_member=["tokyo"]), "seoul, busan"),
            (Wishes(set_roles=["seoul=king"]), "'king' is not a role"),
            (Wishes(rotate_key=["seoul"]), "--rotate-key"),
            (Wishes(parameter=["speed=1"]), "block_interval_ms"),
            (Wishes(parameter=["rest_ms=fast"]), "whole number"),
            (Wishes(revoke_certificate=["xyz"]), "serial number"),
            (Wishes(revoke_certificate=["00"]), "serial number"),
            (Wishes(reinstate=["tokyo"]), "--reinstate tokyo"),
        ],
    )
    async def test_what_was_typed_wrongly_names_the_option(self, chain, node, wishes, word):
        with pytest.raises(UsageError, match=word):
            await propose(chain, wishes)

    async def test_a_request_for_another_name(self, chain, node, request_file):
        for wishes in (
            Wishes(add_member=[f"jeju=trainer:{request_file}"]),
            Wishes(rotate_key=[f"seoul={request_file}"]),
        ):
            with pytest.raises(UsageError, match="is for ulsan"):
                await propose(chain, wishes)

    @pytest.mark.parametrize("typed", ["", "12", "xyzxyzxyz", "0" * 8])
    async def test_a_proposal_that_is_not_there(self, chain, node, typed):
        with pytest.raises(UsageError, match=r"is no proposal's id|no open proposal"):
            await governance.approve(APIS, chain.founding, chain.validators[1], typed)

    async def test_a_node_that_shows_other_bytes_is_not_believed(
        self,
        chain,
        node,
        monkeypatch,
    ):
        first = await propose(chain, Wishes(parameter=["stagger_ms=9"]))
        other = await propose(chain, Wishes(remove_member=["trainer"]), by=1)
        raw = chain.ledger.find(bytes.fromhex(other["proposal"])).raw

        async def lie(self, id_):
            return raw

        monkeypatch.setattr("fog_node.client.Client.raw_transaction", lie)
        with pytest.raises(ToolError, match="something else"):
            await governance.approve(APIS, chain.founding, chain.validators[1], first["proposal"])


async def test_showing_how_things_stand(chain, node):
    chain.decide(SetParameters((("stagger_ms", 5),)), RevokeCertificate(b"\x0b\xad"))
    await propose(chain, Wishes(remove_member=["trainer"]))
    shown = await governance.show(APIS)
    assert shown["quorum"] == "2 of 3 (majority)"
    assert shown["parameters"]["stagger_ms"] == 5
    assert shown["revoked_certificates"] == ["0bad"]
    assert [(m["name"], m["votes"]) for m in shown["members"]][:4] == [
        ("seoul", True), ("busan", True), ("daegu", True), ("operator", False),
    ]  # fmt: skip
    assert [p["outcome"] for p in shown["proposals"]] == ["open", "applied"]
    assert shown["proposals"][0]["approved_by"] == ["seoul"]


async def test_a_certificate_is_revoked_by_its_file(chain, node, tmp_path):
    founded = consortiums.create(tmp_path / "c", "x", {"seoul": consortiums.VALIDATOR_ROLES})
    path = founded.member_directory("seoul") / "tls.crt"
    serial = serial_bytes(x509.load_pem_x509_certificate(path.read_bytes()).serial_number)
    shown = await propose(chain, Wishes(revoke_certificate=[str(path)]))
    assert shown["changes"] == [{"change": "revoke-certificate", "serial": serial.hex()}]
    shown = await propose(chain, Wishes(revoke_certificate=["0a:bc"]), by=1)
    assert shown["changes"] == [{"change": "revoke-certificate", "serial": "0abc"}]
