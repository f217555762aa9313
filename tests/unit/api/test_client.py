"""The client against a real server: every method, streams that go on, nodes that fail."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing

import httpx
import pytest
from support.small_chain import START_MS

from fog_node import client as module
from fog_node.api import following
from fog_node.api.feed import BlockFeed
from fog_node.api.times import iso
from fog_node.client import AnswerError, Client, ClientError, RefusedError, UnreachableError
from fog_node.protocol.block import parse_block
from fog_node.protocol.senml import Clock
from fog_node.protocol.votes import parse_certificate
from tools.demo.processes import free_port

DEADLINE_S = 60


@pytest.fixture
async def url(world):
    async with world.served() as url:
        yield url


@pytest.fixture
async def client(url):
    async with Client([url]) as client:
        yield client


def nowhere():
    """An address where nothing listens."""
    return f"http://127.0.0.1:{free_port()}"


async def take(stream, count):
    """The first items of a stream."""
    items = []
    async with asyncio.timeout(DEADLINE_S), aclosing(stream):
        async for item in stream:
            items.append(item)
            if len(items) == count:
                return items
    raise AssertionError("the stream ended")


class TestMethods:
    async def test_chain(self, client, world, chain):
        world.seal(chain.incident())
        assert (await client.status()).height == 2
        assert await client.founding() == chain.founding.raw
        assert [b.height for b in (await client.blocks(1, 5)).blocks] == [1, 2]
        assert (await client.blocks()).head == 2
        assert (await client.block(2)).contents[0].kind == "incident"

    async def test_transactions(self, client, world, chain, board):
        pack = chain.pack(board, 1)
        submitted = await client.submit(pack.raw)
        assert (submitted.id, submitted.status) == (pack.id.hex(), "admitted")
        assert (await client.transaction(pack.id)).status == "waiting"
        world.seal()
        assert (await client.transaction(pack.id)).status == "final"
        assert await client.raw_transaction(pack.id) == pack.raw
        assert (await client.transactions(signer=board.kid)).transactions[0].id == pack.id.hex()
        assert await client.proof(pack.id) == chain.ledger.prove(pack.id).encode()

    async def test_a_pack_without_time_is_corrected(self, client, world, chain, board):
        told = START_MS // 1000
        pack = chain.pack(board, 1, clock=Clock(-3, 17, 60_000, None))
        await client.submit(pack.raw)
        waiting = (await client.transaction(pack.id)).body
        assert waiting["time"] is None
        assert waiting["corrected"]["not_after"] is None
        world.seal()
        body = (await client.transaction(pack.id)).body
        assert body["time"] is None
        assert body["readings"][1] == {
            "time": None,
            "before_signature_s": 2,
            "name": "pressure",
            "unit": "bar",
            "value": 1.5,
        }
        assert body["clock"] == {"boot": 17, "up_ms": 60_000, "by": None}
        first, last = (chain.ledger.info(height).time for height in (1, 2))
        bounds = {"not_before": iso(first), "not_after": iso(last)}
        nobody = {"by": None, "start": None, "pack": None}
        assert body["corrected"] == nobody | bounds
        later = chain.pack(board, 2, dropped=2, clock=Clock(told, 17, 90_000, bytes(8)))
        world.seal(later)
        body = (await client.transaction(pack.id)).body
        assert body["time"] == iso(START_MS - 33_000)
        assert body["readings"][1]["time"] == iso(START_MS - 32_000)
        assert body["corrected"] == bounds | {
            "by": "00" * 8,
            "start": iso(START_MS - 90_000),
            "pack": 2,
        }
        body = (await client.transaction(later.id)).body
        assert (body["time"], body["corrected"]) == (iso(START_MS), None)
        # It was signed when the board knew that block 2 was final.
        third = chain.pack(board, 3, dropped=2, clock=Clock(-1, 18, 5, None))
        world.seal(third)
        (listed, *_) = (await client.transactions(signer=board.kid)).transactions
        assert listed.body["corrected"]["not_before"] == iso(last)
        start = (await client.device(board.kid)).starts[0]
        assert (start.boot, start.time, start.by) == (17, iso(START_MS - 90_000), "00" * 8)

    async def test_all_transactions_over_pages(self, client, world, chain):
        for _ in range(3):
            first = chain.ledger.next_sequence(chain.gateway.kid)
            world.seal(*(chain.incident(sequence=first + i) for i in range(40)))
        found = [view.sequence async for view in client.all_transactions(kind="incident")]
        assert found == list(range(120, 0, -1))

    async def test_registry(self, client, world, chain, board):
        assert [m.name for m in await client.members()][-1] == "trainer"
        assert [device.kid for device in await client.devices()] == [board.kid.hex()]
        assert (await client.device(board.kid)).status == "active"
        assert (await client.signer(chain.operator.kid)).next == 2
        assert await client.releases() == []

    async def test_blobs(self, client, chain):
        release, data = chain.bundle()
        await client.submit(release.raw)
        assert (await client.put_blob(data)).size == len(data)
        assert await client.get_blob(hashlib.sha256(data).digest()) == data

    async def test_a_refusal_tells_field_problem_and_remedy(self, client):
        with pytest.raises(RefusedError) as caught:
            await client.block(99)
        error = caught.value
        assert (error.status, error.field) == (422, "height")
        assert error.remedy == "give a height from 0 to 1"
        assert error.remedy in str(error)


class TestStream:
    async def test_it_begins_anywhere_and_goes_on_live(self, client, world, chain):
        world.seal(chain.incident())
        stream = client.stream(1)
        async with asyncio.timeout(DEADLINE_S), aclosing(stream):
            for height in (1, 2):
                sealed = await anext(stream)
                assert sealed.height == parse_block(sealed.block).height == height
                assert parse_certificate(sealed.certificate).height == height
            world.seal(chain.incident())
            assert (await anext(stream)).height == 3

    async def test_signs_of_life_are_no_blocks(self, client, world, chain, monkeypatch):
        monkeypatch.setattr(following, "KEEPALIVE_S", 0.01)
        stream = client.stream(2)
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.1)
        world.seal(chain.incident())
        async with asyncio.timeout(DEADLINE_S):
            assert (await waiting).height == 2
        await stream.aclose()

    async def test_large_blocks_arrive_whole(self, client, world, chain, board):
        packs = [chain.pack(board, n, rows=120) for n in range(1, 60)]
        sealed = world.seal(*packs)
        (got,) = await take(client.stream(2), 1)
        assert got.block == sealed.raw

    async def test_the_next_node_goes_on_where_the_first_one_fell_silent(self, world, chain):
        for _ in range(3):
            world.seal(chain.incident())
        async with world.served() as second:
            first = world.served(feed=BlockFeed(chain.ledger.height))
            url = await first.__aenter__()
            async with Client([url, second]) as client:
                stream = client.stream(1)
                async with asyncio.timeout(DEADLINE_S), aclosing(stream):
                    heights = [(await anext(stream)).height for _ in range(2)]
                    await first.__aexit__(None, None, None)
                    heights += [(await anext(stream)).height for _ in range(2)]
            assert heights == [1, 2, 3, 4]

    async def test_a_node_that_starts_late_is_waited_for(self, world, monkeypatch):
        monkeypatch.setattr(module, "RETRY_S", 0.01)
        address = nowhere()
        async with Client([address]) as client:
            waiting = asyncio.create_task(take(client.stream(1), 1))
            async with world.served(int(address.rpartition(":")[2])):
                assert [sealed.height for sealed in await waiting] == [1]

    async def test_patience_ends(self, monkeypatch):
        monkeypatch.setattr(module, "RETRY_S", 0.01)
        async with Client([nowhere(), nowhere()]) as client:
            with pytest.raises(UnreachableError) as caught:
                await take(client.stream(1, patience_s=0.05), 1)
        assert len(caught.value.reasons) == 2

    async def test_a_height_that_no_node_has_is_refused(self, client, monkeypatch):
        monkeypatch.setattr(module, "RETRY_S", 0.01)
        with pytest.raises(RefusedError, match="from 1 to 2"):
            await take(client.stream(50, patience_s=0.05), 1)

    async def test_events_are_for_people(self, client, world, chain):
        world.seal(chain.incident("tampered"))
        events = await take(client.events(1), 4)
        kinds = [(event.height, event.kind) for event in events]
        assert kinds == [(1, "block"), (1, "enrol"), (2, "block"), (2, "incident")]
        assert events[3].data["body"]["cause"] == "tampered"


class TestFailOver:
    async def test_the_next_node_is_asked(self, url):
        async with Client([nowhere(), url]) as client:
            assert (await client.status()).height == 1

    async def test_none_that_answers_is_an_error_that_names_all(self):
        addresses = [nowhere(), nowhere()]
        async with Client(addresses) as client:
            with pytest.raises(UnreachableError) as caught:
                await client.status()
        assert all(address in str(caught.value) for address in addresses)

    async def test_a_node_in_trouble_is_passed_over(self, url):
        async with _fake({"/v1/status": httpx.Response(503)}, url) as client:
            assert (await client.status()).height == 1

    @pytest.mark.parametrize(
        "addresses",
        [[], ["node:7480"], ["ftp://node"], ["http://"], [""], ["http://n:65536"], ["http://n:0"]],
    )
    async def test_what_is_no_address_is_refused_at_once(self, addresses):
        with pytest.raises(ClientError, match="give"):
            Client(addresses)


class TestPatience:
    """A node that has no room is asked again, later, and not by all at once."""

    @pytest.fixture(autouse=True)
    def _slept(self, monkeypatch):
        self.slept = []

        async def sleep(seconds):
            self.slept.append(seconds)

        monkeypatch.setattr(module.asyncio, "sleep", sleep)

    @staticmethod
    def _full(retry_after="7"):
        error = {"field": "mempool", "problem": "is full", "remedy": "send it again"}
        return httpx.Response(503, json={"error": error}, headers={"Retry-After": retry_after})

    def _client(self, answers, patience_s):
        transport = httpx.MockTransport(lambda request: next(answers))
        return Client(["http://fake"], transport=transport, patience_s=patience_s)

    async def test_it_waits_as_long_as_the_node_says_and_a_random_while_more(self):
        founding = httpx.Response(200, content=b"founding")
        answers = iter([self._full(), self._full(), self._full("soon"), founding])
        async with self._client(answers, 1000) as client:
            assert await client.founding() == b"founding"
        first, second, third = self.slept
        assert 7 <= first <= 7 + module.RETRY_S
        assert 7 <= second <= 7 + 2 * module.RETRY_S
        assert 0 <= third <= 4 * module.RETRY_S  # what is no number of seconds counts for nothing

    async def test_no_node_makes_it_wait_for_hours(self):
        answers = iter([self._full("999999"), httpx.Response(200, content=b"founding")])
        async with self._client(answers, 1000) as client:
            await client.founding()
        assert self.slept[0] <= module.MAX_RETRY_AFTER_S + module.RETRY_S

    async def test_patience_ends(self):
        answers = iter([self._full()] * 100)
        async with self._client(answers, 5) as client:
            with pytest.raises(UnreachableError, match="is full"):
                await client.founding()
        assert not self.slept

    async def test_a_refusal_is_final(self):
        error = {"field": "id", "problem": "is unknown", "remedy": "check it"}
        answers = iter([httpx.Response(404, json={"error": error})])
        async with self._client(answers, 1000) as client:
            with pytest.raises(RefusedError, match="unknown"):
                await client.founding()

    async def test_a_connection_that_was_closed_while_idle_is_no_failure(self):
        answers = iter([httpx.RemoteProtocolError("closed"), b"founding"])

        def answer(request):
            item = next(answers)
            if isinstance(item, Exception):
                raise item
            return httpx.Response(200, content=item)

        async with Client(["http://fake"], transport=httpx.MockTransport(answer)) as client:
            assert await client.founding() == b"founding"


class TestDistrust:
    @pytest.mark.parametrize(
        "body",
        [
            b"\x83",
            b"\xa0",
            b"\x82\x01",
            b"\x82\x5f",
            b"\x82\x5a\xff\xff\xff\xff",
            b"\x82\x41\x00\x61x",
            bytes(100),
        ],
    )
    async def test_a_stream_of_something_else_is_refused(self, body):
        responses = {"/v1/stream": httpx.Response(200, content=body)}
        async with _fake(responses) as client:
            with pytest.raises(AnswerError):
                await take(client.stream(1), 1)

    async def test_an_answer_of_another_release_is_named(self):
        responses = {"/v1/status": httpx.Response(200, json={"height": "x"})}
        async with _fake(responses) as client:
            with pytest.raises(AnswerError, match="releases"):
                await client.status()

    async def test_an_answer_without_an_end_is_cut(self, monkeypatch):
        monkeypatch.setattr(module, "MAX_FOUNDING_BYTES", 1000)
        responses = {"/v1/founding": httpx.Response(200, content=bytes(1001))}
        async with _fake(responses) as client:
            with pytest.raises(AnswerError, match="1000 bytes"):
                await client.founding()

    async def test_another_blob_is_not_taken(self):
        responses = {f"/v1/blobs/{'00' * 32}": httpx.Response(200, content=b"other")}
        async with _fake(responses) as client:
            with pytest.raises(AnswerError, match="something else"):
                await client.get_blob(bytes(32))

    async def test_an_unreadable_event_is_refused(self):
        content = b"event: block\nid: 1\ndata: {no json\n\n"
        async with _fake({"/v1/events": httpx.Response(200, content=content)}) as client:
            with pytest.raises(AnswerError, match="unreadable"):
                await take(client.events(1), 1)


def _fake(responses, *further):
    """A client whose first node answers with these; other addresses are real."""

    class Transport(httpx.AsyncBaseTransport):
        def __init__(self):
            self._real = httpx.AsyncHTTPTransport()

        async def handle_async_request(self, request):
            if request.url.host == "fake":
                return responses[request.url.path]
            return await self._real.handle_async_request(request)

        async def aclose(self):
            await self._real.aclose()

    return Client(["http://fake", *further], transport=Transport())
