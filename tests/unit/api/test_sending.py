"""What can be sent in over HTTP: signed transactions, and the bundles that releases name."""

from __future__ import annotations

import hashlib

import pytest

from fog_node.blobs import BlobStore
from fog_node.protocol.governance import RemoveMember
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import MAX_TRANSACTION_BYTES

COSE = {"Content-Type": "application/cose"}
OCTETS = {"Content-Type": "application/octet-stream"}


async def post(http, data, headers=COSE):
    return await http.post("/v1/transactions", content=data, headers=headers)


def error_of(response, status):
    assert response.status_code == status, response.text
    body = response.json()["error"]
    assert all(body[name] for name in ("field", "problem", "remedy"))
    return body


class TestTransactions:
    async def test_what_is_sent_in_waits_and_is_passed_on(self, http, world, chain, board):
        pack = chain.pack(board, 1)
        response = await post(http, pack.raw)
        assert response.status_code == 202
        assert response.json() == {"id": pack.id.hex(), "status": "admitted"}
        assert chain.ledger.has(pack.id)
        assert [transaction.id for transaction in world.submitted] == [pack.id]

    async def test_sending_it_again_does_no_harm(self, http, world, chain, board):
        pack = chain.pack(board, 1)
        await post(http, pack.raw)
        again = await post(http, pack.raw)
        assert (again.status_code, again.json()["status"]) == (202, "waiting")
        world.seal()
        again = await post(http, pack.raw)
        assert (again.status_code, again.json()["status"]) == (200, "final")

    async def test_a_bad_signature_is_refused(self, http, chain, board):
        pack = chain.pack(board, 1)
        error = error_of(await post(http, pack.raw[:-1] + bytes([pack.raw[-1] ^ 1])), 422)
        assert "signature" in error["field"] + error["problem"]

    async def test_an_unknown_signer_is_refused(self, http, chain):
        stranger = SigningKey.from_secret(77)
        error = error_of(await post(http, chain.pack(stranger, 1).raw), 422)
        assert error["field"] == "transaction.kid"
        assert "enrol" in error["remedy"]

    async def test_another_transaction_with_that_number_is_a_conflict(self, http, chain, board):
        await post(http, chain.pack(board, 1).raw)
        error = error_of(await post(http, chain.pack(board, 1, value=2.0).raw), 409)
        assert error["field"] == "transaction.sequence"
        assert "/v1/signers" in error["remedy"]

    async def test_a_number_too_far_ahead_is_refused(self, http, chain, board):
        error = error_of(await post(http, chain.pack(board, 5000).raw), 409)
        assert error["field"] == "transaction.sequence"

    async def test_a_member_without_the_role_is_refused(self, http, chain):
        body = chain.incident().body
        error_of(await post(http, chain.sign(chain.operator, body).raw), 422)

    async def test_an_implausible_reading_is_refused(self, http, chain, board):
        error = error_of(await post(http, chain.pack(board, 1, value=99.0).raw), 422)
        assert "plausible" in error["problem"]

    @pytest.mark.parametrize("data", [b"", b"garbage", b"\xd2\x84", bytes(1000)])
    async def test_garbage_is_refused_with_its_field(self, http, data):
        error_of(await post(http, data), 422)

    async def test_the_size_is_checked_before_reading(self, http):
        error = error_of(await post(http, bytes(MAX_TRANSACTION_BYTES + 1)), 413)
        assert str(MAX_TRANSACTION_BYTES) in error["remedy"]

    async def test_the_size_is_checked_while_reading(self, http):
        async def endless():
            while True:
                yield bytes(1000)

        response = await http.post("/v1/transactions", content=endless(), headers=COSE)
        error_of(response, 413)

    async def test_another_media_type_is_refused(self, http, chain, board):
        raw = chain.pack(board, 1).raw
        error = error_of(await post(http, raw, {"Content-Type": "text/plain"}), 415)
        assert error["remedy"] == "send application/cose"
        error_of(await post(http, raw, {}), 415)


class TestBlobs:
    @pytest.fixture
    def release(self, chain):
        return chain.bundle()

    def path(self, data):
        return f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"

    async def put(self, http, data, path=None):
        return await http.put(path or self.path(data), content=data, headers=OCTETS)

    @pytest.mark.parametrize("is_final", [False, True])
    async def test_a_bundle_of_a_known_release_is_stored(
        self, http, world, chain, release, is_final
    ):
        transaction, data = release
        chain.admit(transaction)
        if is_final:
            world.seal()
        response = await self.put(http, data)
        assert response.status_code == 201
        digest = hashlib.sha256(data).digest()
        assert response.json() == {"sha256": digest.hex(), "size": len(data)}
        assert world.blobs.get(digest) == data
        assert world.stored == 1

    async def test_storing_it_again_does_no_harm(self, http, chain, release):
        transaction, data = release
        chain.admit(transaction)
        await self.put(http, data)
        assert (await self.put(http, data)).status_code == 200

    async def test_what_no_release_names_is_refused(self, http, world, release):
        _, data = release
        error = error_of(await self.put(http, data), 409)
        assert "release transaction first" in error["remedy"]
        assert len(world.blobs) == 0

    async def test_a_superseded_release_names_nothing_any_more(self, http, world, chain, release):
        transaction, data = release
        world.seal(transaction)
        newer, _ = chain.bundle(version=2)
        world.seal(newer)
        error_of(await self.put(http, data), 409)

    async def test_other_bytes_than_the_release_names_are_refused(
        self, http, world, chain, release
    ):
        transaction, data = release
        chain.admit(transaction)
        for other in (data[:-1], b"", data[:-1] + b"!"):
            error = error_of(await self.put(http, other, self.path(data)), 422)
            assert error["field"] == "bundle"
        assert len(world.blobs) == 0

    async def test_more_bytes_than_the_release_says_are_not_read(self, http, world, chain, release):
        transaction, data = release
        chain.admit(transaction)
        error_of(await self.put(http, data + b"!", self.path(data)), 413)

        async def endless():
            while True:
                yield bytes(4096)

        response = await http.put(self.path(data), content=endless(), headers=OCTETS)
        error_of(response, 413)

    async def test_a_bundle_that_no_trainer_signed_is_refused(self, http, chain, release):
        transaction, data = release
        chain.seal(transaction)
        chain.decide(RemoveMember(chain.trainer.kid))
        error = error_of(await self.put(http, data), 422)
        assert "may not release" in error["problem"]

    async def test_a_full_store_says_so(self, http, world, chain, release, tmp_path):
        transaction, data = release
        chain.admit(transaction)
        world.blobs._quota = 10
        error = error_of(await self.put(http, data), 507)
        assert "blob_mib" in error["problem"]

    async def test_a_blob_can_be_read_whole(self, http, world):
        digest = world.blobs.put(b"0123456789")
        response = await http.get(f"/v1/blobs/{digest.hex()}")
        assert (response.status_code, response.content) == (200, b"0123456789")
        assert response.headers["accept-ranges"] == "bytes"
        assert digest.hex() in response.headers["etag"]

    @pytest.mark.parametrize(
        ("range_", "content", "told"),
        [
            ("bytes=0-0", b"0", "bytes 0-0/10"),
            ("bytes=2-4", b"234", "bytes 2-4/10"),
            ("bytes=7-", b"789", "bytes 7-9/10"),
            ("bytes=7-100", b"789", "bytes 7-9/10"),
            ("bytes=-3", b"789", "bytes 7-9/10"),
            ("bytes=-100", b"0123456789", "bytes 0-9/10"),
        ],
    )
    async def test_a_blob_can_be_read_in_part(self, http, world, range_, content, told):
        digest = world.blobs.put(b"0123456789")
        response = await http.get(f"/v1/blobs/{digest.hex()}", headers={"Range": range_})
        assert (response.status_code, response.content) == (206, content)
        assert response.headers["content-range"] == told

    @pytest.mark.parametrize(
        "range_",
        ["bytes=10-", "bytes=10-20", "bytes=5-4", "bytes=-0", "bytes=-", "bytes=0-1,3-4", "x=0-1"],
    )
    async def test_a_range_that_is_not_there_is_refused(self, http, world, range_):
        digest = world.blobs.put(b"0123456789")
        response = await http.get(f"/v1/blobs/{digest.hex()}", headers={"Range": range_})
        error = error_of(response, 416)
        assert (error["field"], error["remedy"]) == ("Range", "give bytes=FIRST-LAST within 0 to 9")
        assert response.headers["content-range"] == "bytes */10"

    async def test_a_blob_that_is_not_here_is_not_found(self, http, world):
        error_of(await http.get("/v1/blobs/" + "00" * 32), 404)
        error_of(await http.get("/v1/blobs/00"), 422)
        digest = world.blobs.put(b"0123456789")
        world.blobs.path(digest).write_bytes(b"damaged")
        assert isinstance(world.blobs, BlobStore)
        error_of(await http.get(f"/v1/blobs/{digest.hex()}"), 404)
