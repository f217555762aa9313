"""Which bundles a node wants, and which files it takes for one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.small_chain import SmallChain

from fog_node.blobs import BlobStore
from fog_node.bundles import check_bundle, missing_bundles, wanted_release
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.governance import RemoveMember


@pytest.fixture
def chain(tmp_path):
    chain = SmallChain(tmp_path / "ledger")
    yield chain
    chain.ledger.close()


@pytest.fixture
def blobs(tmp_path):
    return BlobStore(tmp_path / "blobs", 1_000_000)


def test_the_latest_releases_bundle_is_wanted_until_it_is_here(chain, blobs):
    transaction, data = chain.bundle()
    chain.seal(transaction)
    assert missing_bundles(chain.ledger.state, blobs) == [transaction.body]
    blobs.put(data)
    assert missing_bundles(chain.ledger.state, blobs) == []


def test_a_release_that_waits_is_wanted_by_who_is_asked_to_store_it(chain, blobs):
    transaction, _ = chain.bundle()
    digest = transaction.body.bundle
    assert wanted_release(chain.ledger, digest) is None
    chain.admit(transaction)
    assert wanted_release(chain.ledger, digest) == transaction.body
    assert missing_bundles(chain.ledger.state, blobs) == []
    chain.seal()
    assert wanted_release(chain.ledger, digest) == transaction.body


def test_the_bundle_that_the_release_names_is_taken(chain):
    transaction, data = chain.bundle()
    check_bundle(data, transaction.body, chain.ledger.state)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size": 1}, "bundle"),
        ({"bundle": bytes(32)}, "bundle"),
        ({"manifest": bytes(32)}, "bundle.manifest"),
        ({"name": "other"}, "bundle.manifest.name"),
        ({"version": 9}, "bundle.manifest.version"),
        ({"device_type": "other"}, "bundle.manifest.device_type"),
    ],
)
def test_what_differs_from_the_release_is_refused_with_its_field(chain, changes, field):
    transaction, data = chain.bundle()
    with pytest.raises(ProtocolError) as caught:
        check_bundle(data, replace(transaction.body, **changes), chain.ledger.state)
    assert caught.value.field == field


def test_a_bundle_of_a_trainer_who_was_removed_is_refused(chain):
    transaction, data = chain.bundle()
    chain.decide(RemoveMember(chain.trainer.kid))
    with pytest.raises(ProtocolError, match="may not release"):
        check_bundle(data, transaction.body, chain.ledger.state)
