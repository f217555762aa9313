"""A node finds its member on the chain, or says why it can only follow."""

from __future__ import annotations

import pytest
from support.small_chain import SmallChain

from fog_node.errors import ConfigurationError
from fog_node.identity import check_member
from fog_node.protocol.cose import parse_sign1
from fog_node.protocol.governance import AddMember, RemoveMember, RotateKey, prove_key
from fog_node.protocol.keys import SigningKey

NEW = SigningKey.from_secret(900)


@pytest.fixture
def chain(tmp_path):
    small = SmallChain(tmp_path / "ledger")
    yield small
    small.ledger.close()


def proof(chain, name):
    return parse_sign1(prove_key(NEW, name, chain.founding.chain_id), 1024)


def test_a_member_of_the_founding_file(chain):
    assert check_member(chain.ledger.state, "seoul", chain.validators[0]) is None


def test_the_key_of_another_member(chain):
    with pytest.raises(ConfigurationError, match="is that of busan"):
        check_member(chain.ledger.state, "seoul", chain.validators[1])


def test_before_and_after_it_is_added(chain):
    assert "does not list it" in check_member(chain.ledger.state, "ulsan", NEW)
    roles = frozenset({"validator"})
    chain.decide(AddMember("ulsan", NEW.public, roles, proof(chain, "ulsan")))
    assert check_member(chain.ledger.state, "ulsan", NEW) is None


def test_before_and_after_its_key_is_replaced(chain):
    old = chain.validators[0]
    assert "by another key" in check_member(chain.ledger.state, "seoul", NEW)
    chain.decide(RotateKey(old.kid, NEW.public, "seoul", proof(chain, "seoul")))
    assert check_member(chain.ledger.state, "seoul", NEW) is None
    with pytest.raises(ConfigurationError, match=f"{NEW.kid.hex()} replaced in block 2"):
        check_member(chain.ledger.state, "seoul", old)


def test_after_it_is_removed(chain):
    chain.decide(RemoveMember(chain.validators[2].kid))
    assert "was removed" in check_member(chain.ledger.state, "daegu", chain.validators[2])
