"""What can be read over HTTP: status, blocks, transactions, proofs, devices, members."""

from __future__ import annotations

import cbor2
import pytest
from support.rig_reports import rig_report
from support.small_chain import DEVICE_TYPE, GATEWAY_NAME, START_MS
from support.training_rounds import training_round

from fog_node.api import times
from fog_node.protocol.block import hash_hex, parse_block
from fog_node.protocol.founding import parse_founding
from fog_node.protocol.governance import (
    SetParameters,
)
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.labels import Label, Labelled, TimeSpan
from fog_node.protocol.predictions import Drift, Measure, Prediction, Verdict
from fog_node.protocol.proof import parse_proof
from fog_node.protocol.sealed_header import LightChain, SealedHeader
from fog_node.protocol.votes import parse_certificate


async def ok(http, path, **parameters):
    response = await http.get(path, params=parameters)
    assert response.status_code == 200, response.text
    return response


async def error(http, path, status, **parameters):
    response = await http.get(path, params=parameters)
    assert response.status_code == status, response.text
    body = response.json()["error"]
    assert all(body[name] for name in ("field", "problem", "remedy"))
    return body


class TestNode:
    async def test_status_says_where_the_node_stands(self, http, world, chain, board):
        world.seal(chain.incident())
        chain.admit(chain.pack(board, 1))
        status = (await ok(http, "/v1/status")).json()
        ledger = chain.ledger
        assert status["node"] == GATEWAY_NAME
        assert status["chain_id"] == chain.founding.chain_id.hex()
        assert status["height"] == 2
        assert status["head"] == hash_hex(ledger.head.hash)
        assert status["state_root"] == ledger.head.state.hex()
        assert status["version"] == "1.2.3"
        assert (status["validators"], status["quorum"]) == (3, 2)
        assert status["round"] == 3
        (peer,) = status["peers"]
        assert (peer["name"], peer["kid"], peer["height"]) == ("busan", "00" * 8, 7)
        assert (peer["points"], peer["shed"], peer["paused_s"]) == (12.5, 3, 1.5)
        (banned,) = status["banned"]
        assert (banned["name"], banned["kid"], banned["times"]) == (None, "01" * 8, 2)
        assert banned["reason"] == "sends junk"
        assert banned["until"] > status["head_time"]
        assert status["refused_connections"] == 5
        assert status["certificate_until"] == times.iso(START_MS)
        assert status["waiting"] == 1
        assert status["final"] == {"enrol": 1, "incident": 1, "all": 2}
        assert status["gateway"] == {"boards": 4}
        assert status["devices"] == 1
        assert status["fork"] is None

    async def test_a_node_that_works_is_healthy(self, http):
        assert (await ok(http, "/v1/healthz")).json() == {"ok": True}

    async def test_a_ledger_that_stands_still_is_not(self, http, world, chain):
        rival, _ = chain.next_block()
        world.seal(chain.incident())
        with pytest.raises(Exception, match="two certified blocks"):
            chain.ledger.commit(rival, chain.certify(rival, chain.validators))
        response = await http.get("/v1/healthz")
        assert (response.status_code, response.json()) == (503, {"ok": False})
        assert "two certified blocks" in (await ok(http, "/v1/status")).json()["fork"]


class TestChain:
    async def test_the_founding_file_is_given_byte_for_byte(self, http, chain):
        response = await ok(http, "/v1/founding")
        assert parse_founding(response.content).chain_id == chain.founding.chain_id
        assert response.headers["content-type"] == "application/cbor"

    async def test_blocks_come_in_order_from_a_height(self, http, world, chain):
        for _ in range(4):
            world.seal(chain.incident())
        page = (await ok(http, "/v1/blocks", **{"from": 2, "limit": 3})).json()
        assert [block["height"] for block in page["blocks"]] == [2, 3, 4]
        assert page["head"] == 5
        block = page["blocks"][0]
        assert block["hash"] == hash_hex(chain.ledger.info(2).hash)
        assert block["miner_name"] == GATEWAY_NAME
        assert block["transactions"] == 1
        assert block["time"] == "2023-11-14T22:13:22.000Z"

    async def test_without_a_height_the_latest_come(self, http, world, chain):
        for _ in range(4):
            world.seal(chain.incident())
        page = (await ok(http, "/v1/blocks", limit=2)).json()
        assert [block["height"] for block in page["blocks"]] == [4, 5]

    async def test_block_0_is_the_founding(self, http, chain):
        page = (await ok(http, "/v1/blocks", **{"from": 0})).json()
        assert [block["height"] for block in page["blocks"]] == [0, 1]
        assert page["blocks"][0]["hash"] == hash_hex(chain.founding.genesis.hash)
        assert page["blocks"][0]["miner"] is None
        assert (await error(http, "/v1/blocks/0", 404))["remedy"] == "get /v1/founding"

    async def test_a_block_tells_what_is_in_it_and_who_made_it_final(
        self, http, world, chain, board
    ):
        pack = chain.pack(board, 1)
        sealed = world.seal(pack)
        block = (await ok(http, "/v1/blocks/2")).json()
        assert block["contents"] == [
            {"id": pack.id.hex(), "kind": "pack", "signer": board.kid.hex(), "sequence": 1}
        ]
        assert set(block["certificate"]["voters"]) == {k.kid.hex() for k in chain.validators}
        assert block["merkle_root"] == sealed.header.merkle_root.hex()
        assert block["state_root"] == sealed.coinbase.state.hex()

    async def test_a_raw_block_is_a_sequence_that_verifies(self, http, world, chain):
        sealed = world.seal(chain.incident())
        response = await ok(http, "/v1/blocks/2/raw")
        assert response.headers["content-type"] == "application/cbor-seq"
        assert response.content.startswith(sealed.raw)
        block = parse_block(response.content[: len(sealed.raw)])
        certificate = parse_certificate(response.content[len(sealed.raw) :])
        keys = {member.kid: member.key for member in chain.founding.validators}
        certificate.verify(keys, chain.founding.quorum, chain.founding.chain_id)
        assert certificate.block_hash == block.hash

    @pytest.mark.parametrize(
        ("path", "parameters", "field", "remedy"),
        [
            ("/v1/blocks/2", {}, "height", "give a height from 0 to 1"),
            ("/v1/blocks/2/raw", {}, "height", "give a height from 0 to 1"),
            ("/v1/blocks", {"from": 2}, "from", "give a height from 0 to 1"),
            ("/v1/blocks", {"limit": 0}, "limit", "give a whole number from 1 to 100"),
            ("/v1/blocks", {"limit": 101}, "limit", "give a whole number from 1 to 100"),
            ("/v1/blocks", {"limit": "many"}, "limit", "give a whole number from 1 to 100"),
            ("/v1/stream", {"from": 3}, "from", "give a height from 1 to 2"),
            ("/v1/stream", {"from": 0}, "from", "give a height from 1 to 2"),
            ("/v1/events", {"from": 3}, "from", "give a height from 1 to 2"),
        ],
    )
    async def test_out_of_range_names_the_range(self, http, path, parameters, field, remedy):
        body = await error(http, path, 422, **parameters)
        assert (body["field"], body["remedy"]) == (field, remedy)

    @pytest.mark.parametrize("value", ["-1", str(10**30), "x", "1.5", ""])
    async def test_a_height_that_is_none_is_refused(self, http, value):
        for name in ("from", "limit"):
            body = await error(http, "/v1/blocks", 422, **{name: value})
            assert body["field"] == name
            assert "whole number from" in body["remedy"]


class TestTransactions:
    async def test_a_final_pack_shows_its_readings(self, http, world, chain, board):
        pack = chain.pack(board, 1, value=1.25)
        world.seal(pack)
        view = (await ok(http, f"/v1/transactions/{pack.id.hex()}")).json()
        assert (view["kind"], view["status"], view["height"], view["index"]) == (
            "pack",
            "final",
            2,
            1,
        )
        assert (view["signer"], view["sequence"], view["dropped"]) == (board.kid.hex(), 1, 0)
        assert view["body"]["readings"][1] == {
            "time": "2023-11-14T22:13:21.000Z",
            "name": "pressure",
            "unit": "bar",
            "value": 1.25,
        }

    async def test_a_waiting_one_says_so(self, http, chain, board):
        pack = chain.pack(board, 1)
        chain.admit(pack)
        view = (await ok(http, f"/v1/transactions/{pack.id.hex()}")).json()
        assert (view["status"], view["height"], view["index"]) == ("waiting", None, None)

    @pytest.mark.parametrize("is_final", [False, True])
    async def test_the_raw_bytes_are_the_exact_ones(self, http, world, chain, board, is_final):
        pack = chain.pack(board, 1)
        chain.admit(pack)
        if is_final:
            world.seal()
        response = await ok(http, f"/v1/transactions/{pack.id.hex()}/raw")
        assert response.content == pack.raw
        assert response.headers["content-type"] == "application/cose"

    async def test_every_kind_can_be_shown(self, http, world, chain, board):
        release, _ = chain.bundle()
        world.seal(chain.pack(board, 1), chain.alert(board, 2), chain.incident(), release)
        world.seal(chain.sign(chain.operator, rig_report()))
        span = TimeSpan(board.kid, START_MS, START_MS + 9)
        world.seal(chain.sign(chain.trainer, Label((Labelled(span, "normal"),), "", START_MS)))
        said = Prediction("a", bytes(32), None, (Verdict(span, None, 1.5),), START_MS)
        world.seal(chain.sign(chain.trainer, said))
        moved = (Measure("flow", 1.0, 0.5),)
        drift = Drift("pump", None, "psi", moved, 0, 9, "retrain", "", START_MS)
        world.seal(chain.sign(chain.trainer, drift))
        world.seal(chain.sign(chain.trainer, training_round()))
        chain.revoke(board.kid)
        chain.decide(SetParameters((("stagger_ms", 9),)))
        for kind, keys in {
            "alert": {"model", "score", "threshold", "pack", "time"},
            "enrol": {"device", "key", "owner", "type", "board", "channels", "time"},
            "revoke": {"subject", "reason", "time"},
            "incident": {"cause", "device", "sequence", "digest", "size", "detail", "time"},
            "release": {"name", "version", "bundle", "dataset", "metrics"},
            "propose": {"changes", "note", "until"},
            "approve": {"proposal"},
            "label": {"labels", "note", "time"},
            "prediction": {"name", "model", "source", "verdicts", "time"},
            "drift": {"device_type", "statistic", "measures", "action", "from", "until"},
            "training-round": {"run", "round", "before", "after", "updates", "privacy"},
            "test-report": {"firmware", "suite", "board", "counts", "tests", "report", "rig"},
        }.items():
            page = (await ok(http, "/v1/transactions", kind=kind)).json()
            (view,) = page["transactions"]
            assert keys <= view["body"].keys(), kind
            assert page["next"] is None

    async def test_a_listing_goes_on_page_by_page(self, http, world, chain):
        for _ in range(2):
            numbers = [chain.ledger.next_sequence(chain.gateway.kid) + i for i in range(3)]
            world.seal(*(chain.incident(sequence=number) for number in numbers))
        seen, before = [], None
        while True:
            parameters = {"kind": "incident", "limit": 2} | ({"before": before} if before else {})
            page = (await ok(http, "/v1/transactions", **parameters)).json()
            seen += [view["sequence"] for view in page["transactions"]]
            before = page["next"]
            if before is None:
                break
        assert seen == [6, 5, 4, 3, 2, 1]

    async def test_a_signers_transactions_are_listed_with_readings_counted(
        self, http, world, chain, board
    ):
        world.seal(*(chain.pack(board, number) for number in (1, 2, 3)))
        parameters = {"signer": board.kid.hex(), "limit": 2}
        page = (await ok(http, "/v1/transactions", **parameters)).json()
        assert [view["sequence"] for view in page["transactions"]] == [3, 2]
        assert page["transactions"][0]["body"]["readings"] == 2
        parameters["before"] = page["next"]
        page = (await ok(http, "/v1/transactions", **parameters)).json()
        assert [view["sequence"] for view in page["transactions"]] == [1]

    @pytest.mark.parametrize(
        ("parameters", "field"),
        [
            ({}, "kind"),
            ({"kind": "incident", "signer": "00" * 8}, "kind"),
            ({"kind": "pack"}, "kind"),
            ({"kind": "other"}, "kind"),
            ({"signer": "xyz"}, "signer"),
            ({"kind": "incident", "limit": 201}, "limit"),
            ({"kind": "incident", "before": "7"}, "before"),
            ({"kind": "incident", "before": "7."}, "before"),
            ({"kind": "incident", "before": "-1.2"}, "before"),
            ({"kind": "incident", "before": "1." + "9" * 36}, "before"),
            ({"kind": "incident", "before": "1" * 1000}, "before"),
            ({"signer": "00" * 8, "before": "1.2"}, "before"),
            ({"signer": "00" * 8, "before": "9" * 39}, "before"),
        ],
    )
    async def test_a_listing_that_cannot_be_is_refused(self, http, parameters, field):
        assert (await error(http, "/v1/transactions", 422, **parameters))["field"] == field

    @pytest.mark.parametrize("id_", ["00", "x" * 64, "00" * 33, "0 " * 32])
    async def test_an_id_that_is_none_is_refused(self, http, id_):
        for path in (f"/v1/transactions/{id_}", f"/v1/transactions/{id_}/raw", f"/v1/proofs/{id_}"):
            assert (await error(http, path, 422))["field"] == "id"

    async def test_an_unknown_id_is_not_found(self, http):
        for path in ("/v1/transactions/{}", "/v1/transactions/{}/raw", "/v1/proofs/{}"):
            assert (await error(http, path.format("00" * 32), 404))["field"] == "id"


class TestProofs:
    async def test_a_proof_verifies_with_the_founding_file_alone(self, http, world, chain, board):
        pack = chain.pack(board, 1)
        world.seal(pack)
        response = await ok(http, f"/v1/proofs/{pack.id.hex()}")
        parse_proof(response.content).verify(parse_founding(chain.founding.raw))
        assert pack.id.hex() in response.headers["content-disposition"]

    async def test_a_range_is_complete(self, http, world, chain, board):
        world.seal(chain.pack(board, 1), chain.pack(board, 2))
        world.seal(chain.pack(board, 3))
        kid = board.kid.hex()
        response = await ok(http, "/v1/proofs", signer=kid, first=1, last=3)
        proof = parse_proof(response.content)
        proof.verify(parse_founding(chain.founding.raw))
        assert [i.transaction.sequence for i in proof.subjects] == [1, 2, 3]
        assert f"{kid}-1-3" in response.headers["content-disposition"]

    @pytest.mark.parametrize(
        ("parameters", "status", "field"),
        [
            ({"first": 1, "last": 2}, 404, "last"),
            ({"first": 2, "last": 1}, 422, "last"),
            ({"first": 1, "last": 1025}, 422, "last"),
            ({"first": 0, "last": 1}, 422, "first"),
            ({"signer": "xyz", "first": 1, "last": 1}, 422, "signer"),
            ({"signer": "00" * 8, "first": 1, "last": 1}, 404, "last"),
        ],
    )
    async def test_a_range_that_cannot_be_is_refused(
        self, http, world, chain, board, parameters, status, field
    ):
        world.seal(chain.pack(board, 1))
        parameters = {"signer": board.kid.hex(), **parameters}
        assert (await error(http, "/v1/proofs", status, **parameters))["field"] == field

    async def test_an_enrolment_shows_its_standing(self, http, world, chain, board):
        world.seal(chain.pack(board, 1))
        response = await ok(http, f"/v1/devices/{board.kid.hex()}/proof")
        proof = parse_proof(response.content)
        proof.verify(parse_founding(chain.founding.raw))
        assert (proof.standing().status, proof.standing().next) == ("active", 2)
        assert (await error(http, f"/v1/devices/{'00' * 8}/proof", 404))["field"] == "kid"

    async def test_headers_can_be_followed_without_bodies(self, http, world, chain, board):
        for number in range(1, 4):
            world.seal(chain.pack(board, number))
        pages = []
        light = LightChain.at_founding(parse_founding(chain.founding.raw))
        while items := cbor2.loads(
            (await ok(http, "/v1/headers", **{"from": light.height + 1, "limit": 3})).content
        ):
            pages.append(len(items))
            for item in items:
                light = light.after(SealedHeader.decode(item))
        assert pages == [3, 1]
        assert light.head == chain.ledger.head.hash
        for first in (0, chain.ledger.height + 2):
            assert (await error(http, "/v1/headers", 422, **{"from": first}))["field"] == "from"

    async def test_what_waits_has_none_yet(self, http, chain, board):
        pack = chain.pack(board, 1)
        chain.admit(pack)
        assert "next block" in (await error(http, f"/v1/proofs/{pack.id.hex()}", 404))["remedy"]


class TestRegistry:
    async def test_members_are_listed_in_file_order(self, http, chain):
        members = (await ok(http, "/v1/members")).json()["members"]
        assert [member["name"] for member in members] == [m.name for m in chain.founding.members]
        operator = members[3]
        assert operator["roles"] == ["operator"]
        assert operator["key"] == chain.operator.public.xy.hex()
        assert (operator["status"], operator["next"]) == ("active", 2)

    async def test_a_device_is_shown_as_enrolled(self, http, board):
        device = (await ok(http, f"/v1/devices/{board.kid.hex()}")).json()
        assert device["type"] == DEVICE_TYPE
        assert device["owner"] == "operator"
        assert (device["status"], device["next"], device["enrolled_height"]) == ("active", 1, 1)
        assert device["channels"][0] == {
            "name": "pressure",
            "unit": "bar",
            "minimum": -1.0,
            "maximum": 10.0,
        }

    async def test_devices_are_listed_page_by_page(self, http, chain):
        boards = [SigningKey.from_secret(2000 + i) for i in range(4)]
        chain.enrol(*boards)
        seen, after = [], None
        while True:
            parameters = {"limit": 2} | ({"after": after} if after else {})
            page = (await ok(http, "/v1/devices", **parameters)).json()
            seen += [device["kid"] for device in page["devices"]]
            after = page["next"]
            if after is None:
                break
        assert seen == sorted(seen)
        assert len(seen) == 5

    async def test_a_revoked_device_is_still_shown(self, http, chain, board):
        chain.revoke(board.kid)
        device = (await ok(http, f"/v1/devices/{board.kid.hex()}")).json()
        assert device["status"] == "revoked"

    async def test_a_signer_gets_the_number_behind_what_waits(self, http, chain, board):
        chain.admit(chain.pack(board, 1), chain.pack(board, 2))
        signer = (await ok(http, f"/v1/signers/{board.kid.hex()}")).json()
        expected = {"kid": board.kid.hex(), "type": "device", "status": "active", "next": 3}
        assert signer == expected
        signer = (await ok(http, f"/v1/signers/{chain.operator.kid.hex()}")).json()
        assert (signer["type"], signer["next"]) == ("member", 2)

    @pytest.mark.parametrize("path", ["/v1/devices/{}", "/v1/signers/{}"])
    async def test_an_unknown_key_is_not_found(self, http, path):
        assert "enrol" in (await error(http, path.format("00" * 8), 404))["remedy"]
        assert (await error(http, path.format("00"), 422))["field"] == "kid"

    @pytest.mark.parametrize("limit", [0, 501])
    async def test_a_page_is_bounded(self, http, limit):
        body = await error(http, "/v1/devices", 422, limit=limit)
        assert body["remedy"] == "give a whole number from 1 to 500"

    async def test_releases_tell_whether_their_bundle_is_here(self, http, world, chain):
        release, data = chain.bundle()
        world.seal(release)
        (view,) = (await ok(http, "/v1/releases")).json()["releases"]
        assert (view["version"], view["size"], view["held"]) == (1, len(data), False)
        assert view["metrics"] == {"f1": 0.5}
        world.blobs.put(data)
        (view,) = (await ok(http, "/v1/releases")).json()["releases"]
        assert view["held"] is True


class TestRollouts:
    async def test_without_staged_releases_there_are_none(self, http, world, chain):
        release, _ = chain.bundle()
        world.seal(release)
        assert (await ok(http, "/v1/rollouts")).json() == {"offers": []}

    async def test_how_one_goes(self, http, world, chain, board):
        chain.stage_releases()
        release, data = chain.bundle(2, b"new")
        world.seal(release)
        (offer,) = (await ok(http, "/v1/rollouts")).json()["offers"]
        assert offer == {
            "device_type": DEVICE_TYPE,
            "stable": None,
            "back": None,
            "rollout": None,
        }
        rollout = chain.rollout(release, b"new")
        (offer,) = (await ok(http, "/v1/rollouts")).json()["offers"]
        view = offer["rollout"]
        assert (view["status"], view["proposer"], view["approver"]) == (
            "running",
            "trainer",
            "operator",
        )
        assert (view["release"]["version"], view["release"]["size"]) == (2, len(data))
        assert view["groups"][0]["size"] == 1
        path = f"/v1/rollouts/{rollout.id.hex()}/boards"
        (found,) = (await ok(http, path)).json()["boards"]
        assert (found["kid"], found["group"], found["state"]) == (board.kid.hex(), 1, "waiting")
        world.seal(chain.judged_pack(board, b"new"))
        (found,) = (await ok(http, path)).json()["boards"]
        assert (found["state"], found["verdicts"], found["cause"]) == ("done", 2, None)
        (offer,) = (await ok(http, "/v1/rollouts")).json()["offers"]
        assert (offer["rollout"]["status"], offer["stable"]["version"]) == ("finished", 2)
        for kind in ("rollout", "rollout-approve"):
            (shown,) = (await ok(http, "/v1/transactions", kind=kind)).json()["transactions"]
            assert shown["body"], kind

    async def test_boards_of_no_rollout_are_not_found(self, http):
        path = f"/v1/rollouts/{bytes(32).hex()}/boards"
        assert "/v1/rollouts" in (await error(http, path, 404))["remedy"]


class TestErrors:
    async def test_an_unknown_path_points_to_the_documentation(self, http):
        assert "/docs" in (await error(http, "/v1/nothing", 404))["remedy"]

    async def test_a_wrong_method_says_which_ones_there_are(self, http):
        response = await http.delete("/v1/status")
        assert response.status_code == 405
        assert response.headers["allow"] == "GET"
        assert response.json()["error"]["field"] == "path"

    async def test_a_damaged_database_is_an_answer_and_not_an_end(self, http, world, monkeypatch):
        from fog_node.errors import StoreError

        def fail():
            raise StoreError("ledger.sqlite3: disk is gone")

        monkeypatch.setattr(world.chain.ledger, "counts", fail)
        body = await error(http, "/v1/status", 503)
        assert body["field"] == "ledger"
        await ok(http, "/v1/healthz")

    async def test_a_defect_tells_nothing_of_the_inside(self, http, world, monkeypatch):
        def fail():
            raise RuntimeError("secret detail")

        monkeypatch.setattr(world.chain.ledger, "counts", fail)
        body = await error(http, "/v1/status", 500)
        assert "secret" not in str(body)


class TestDocumentation:
    async def test_the_page_needs_no_other_host(self, http):
        page = await ok(http, "/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        for path in ("/docs", "/docs/docs.css", "/docs/docs.js"):
            content = (await ok(http, path)).text
            assert "http://" not in content
            assert "https://" not in content
            assert "//cdn" not in content

    async def test_openapi_describes_every_route(self, http):
        description = (await ok(http, "/openapi.json")).json()
        assert description["info"]["version"] == "1.2.3"
        paths = set(description["paths"])
        assert {
            "/v1/status",
            "/v1/transactions/{id}/content",
            "/v1/healthz",
            "/v1/consortium",
            "/v1/proposals",
            "/v1/proposals/{id}",
            "/v1/founding",
            "/v1/blocks",
            "/v1/blocks/{height}",
            "/v1/blocks/{height}/raw",
            "/v1/stream",
            "/v1/events",
            "/v1/transactions",
            "/v1/transactions/{id}",
            "/v1/transactions/{id}/raw",
            "/v1/proofs/{id}",
            "/v1/proofs",
            "/v1/headers",
            "/v1/checkpoint",
            "/v1/devices/{kid}/proof",
            "/v1/devices",
            "/v1/devices/{kid}",
            "/v1/members",
            "/v1/signers/{kid}",
            "/v1/releases",
            "/v1/rollouts",
            "/v1/rollouts/{id}/boards",
            "/v1/blobs/{sha256}",
        } == paths
        for path, methods in description["paths"].items():
            for method, operation in methods.items():
                assert operation["description"], (path, method)
                for status in ("4XX", "5XX"):
                    assert list(operation["responses"][status]["content"]) == ["application/json"]
        limit = next(
            p
            for p in description["paths"]["/v1/blocks"]["get"]["parameters"]
            if p["name"] == "limit"
        )
        assert limit["schema"]["maximum"] == 100
        sent = description["paths"]["/v1/transactions"]["post"]["requestBody"]["content"]
        assert list(sent) == ["application/cose"]


def test_cbor2_reads_the_sequence_as_two_items(chain):
    stored = chain.ledger.block(1)
    assert len(cbor2.loads(stored[0])) == 2
    assert len(cbor2.loads(stored[1])) == 4
