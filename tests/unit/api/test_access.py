"""Who may read what, over real TLS: the table of fog_node/api/README.md."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from contextlib import aclosing, suppress
from dataclasses import replace

import httpx
import pytest
from fastapi.routing import APIRoute
from support.member_tls import MemberTls
from support.rig_reports import CONTENT, rig_report
from support.small_chain import START_MS, SmallChain
from support.training_rounds import training_round

from fog_node.api import access, connections
from fog_node.api.app import create_app
from fog_node.api.server import ApiServer
from fog_node.client import Client, ClientError, RefusedError, UnreachableError
from fog_node.errors import ConfigurationError
from fog_node.network.certificates import SERVER_NAME, client_context
from fog_node.protocol.governance import RemoveMember
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.labels import Image, Label, Labelled, PackSpan, TimeSpan
from fog_node.protocol.predictions import Drift, Measure, Prediction, Thing, Verdict
from fog_node.protocol.requests import Content, Request, Response
from fog_node.protocol.rig_reports import ReportedBoard
from fog_node.protocol.training_rounds import SiteUpdate
from fog_node.protocol.transactions import Evidence
from fog_node.protocol.votes import PRECOMMIT, sign_vote

from .conftest import make_world

DEADLINE_S = 60
OTHERS = {
    "regulator": frozenset({"regulator"}),
    "foundry": frozenset({"provider"}),
    "forge": frozenset({"provider"}),
    "buyer": frozenset({"customer"}),
    "rival": frozenset({"customer"}),
}
CHAIN_READERS = ("seoul", "operator", "trainer", "regulator")
OTHER_READERS = ("foundry", "buyer")


class Consortium:
    """A chain on which each kind of content stands, and everybody's certificates."""

    def __init__(self, directory) -> None:
        self.tls = MemberTls(directory / "tls")
        self.chain = SmallChain(directory / "ledger", self.tls.authority, OTHERS)
        self.board = SigningKey.from_secret(1000)
        self.others_board = SigningKey.from_secret(1001)
        chain = self.chain
        chain.enrol(self.board, owner="foundry")
        chain.enrol(self.others_board, owner="forge")
        self.ours = chain.pack(self.board, 1)
        self.theirs = chain.pack(self.others_board, 1)
        chain.seal(self.ours, self.theirs)
        self.request = self.sign("buyer", self.asked("foundry", 1))
        self.open_request = self.sign("rival", self.asked(None, 2))
        chain.seal(self.request, self.open_request)
        self.response = self.sign("foundry", Response(self.request.id, "done", None, START_MS))
        chain.seal(self.response)
        votes = (
            sign_vote(chain.validators[2], 1, 0, PRECOMMIT, choice, chain.founding.chain_id)
            for choice in (None, bytes(32))
        )
        self.evidence = chain.sign(chain.gateway, Evidence(*votes))
        chain.seal(self.evidence)
        self.world = make_world(chain, directory)
        self._credentials = {}

    def asked(self, provider, number) -> Request:
        kid = None if provider is None else self.chain.others[provider].kid
        content = Content.of(b"housing %d" % number)
        return Request(kid, "casting", content, START_MS + 60_000, START_MS)

    def sign(self, name, body):
        return self.chain.sign(self.chain.others[name], body)

    def kid(self, name) -> bytes:
        return next(m.kid for m in self.chain.founding.members if m.name == name)

    def credentials(self, name):
        if name not in self._credentials:
            self._credentials[name] = self.tls.credentials(self.kid(name))
        return self._credentials[name]

    def served(self):
        return self.world.served(tls=self.tls.server(self.kid("seoul")))


@pytest.fixture
def consortium(tmp_path):
    consortium = Consortium(tmp_path)
    yield consortium
    consortium.chain.ledger.close()


@pytest.fixture
async def url(consortium):
    async with consortium.served() as url:
        yield url


@pytest.fixture
def client(consortium, url):
    """Give a client of the member with this name, or with these credentials."""
    opened = []

    def connect(name_or_credentials):
        credentials = name_or_credentials
        if isinstance(name_or_credentials, str):
            credentials = consortium.credentials(name_or_credentials)
        opened.append(Client([url], credentials=credentials))
        return opened[-1]

    return connect


async def refusal(awaitable) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        await awaitable
    assert caught.value.status == 403
    return caught.value


@pytest.mark.parametrize("name", [*CHAIN_READERS, *OTHER_READERS])
async def test_everybody_reads_public_facts(consortium, client, name):
    async with client(name) as asked:
        assert await asked.founding() == consortium.chain.founding.raw
        assert (await asked.blocks(1)).head == consortium.chain.ledger.height
        assert len(await asked.members()) == len(consortium.chain.founding.members)
        assert (await asked.signer(consortium.kid("buyer"))).next == 2
        assert (await asked.transaction(consortium.evidence.id)).kind == "evidence"
        assert await asked.proof(consortium.evidence.id)


@pytest.mark.parametrize("name", CHAIN_READERS)
async def test_some_roles_read_the_chain(consortium, client, name):
    async with client(name) as asked:
        assert (await asked.block(3)).contents
        assert (await asked.transaction(consortium.theirs.id)).kind == "pack"
        assert (await asked.transaction(consortium.request.id)).kind == "request"
        assert await asked.proof(consortium.response.id)
        assert len(await asked.devices()) == 2
        assert await asked.releases() == []
        assert (await asked.status()).peers
        async with asyncio.timeout(DEADLINE_S), aclosing(asked.stream(1)) as blocks:
            assert (await anext(blocks)).height == 1


@pytest.mark.parametrize("name", OTHER_READERS)
async def test_others_do_not(consortium, client, name):
    async with client(name) as asked:
        for answer in (
            asked.block(3),
            asked.transaction(consortium.theirs.id),
            asked.raw_transaction(consortium.theirs.id),
            asked.proof(consortium.theirs.id),
            asked.device(consortium.others_board.kid),
            asked.releases(),
            asked.get_blob(bytes(32)),
            anext(asked.stream(1)),
            anext(asked.events(1)),
        ):
            error = await refusal(answer)
            assert "regulator" in error.remedy
        status = await asked.status()
        assert (status.peers, status.gateway) == ([], None)


async def test_an_owner_reads_its_devices_and_what_they_signed(consortium, client):
    async with client("foundry") as asked:
        assert [d.owner for d in await asked.devices()] == ["foundry"]
        assert (await asked.device(consortium.board.kid)).owner == "foundry"
        assert await asked.proof(consortium.ours.id)
        listed = await asked.transactions(signer=consortium.board.kid)
        assert [view.id for view in listed.transactions] == [consortium.ours.id.hex()]
        assert not (await asked.transactions(signer=consortium.others_board.kid)).transactions
        enrolled = (await asked.transactions(kind="enrol")).transactions
        assert [view.body["owner"] for view in enrolled] == ["foundry"]


async def test_a_test_report_is_open_to_the_boards_owner(consortium, client):
    """With the file beside the chain; and to who reads the chain."""
    board = ReportedBoard("bench/1", "Raspberry Pi Pico W", consortium.board.kid)
    of_board = consortium.chain.sign(consortium.chain.operator, rig_report(board=board))
    consortium.world.seal(of_board)
    of_none = consortium.chain.sign(consortium.chain.operator, rig_report())
    consortium.world.seal(of_none)
    sha256 = Content.of(CONTENT).sha256
    async with client("operator") as operator:
        for report in (of_board, of_none):
            assert (await operator.put_content(report.id, CONTENT)).size == len(CONTENT)
    async with client("foundry") as owner:
        listed = (await owner.transactions(kind="test-report")).transactions
        assert [view.id for view in listed] == [of_board.id.hex()]
        assert await owner.content(of_board.id, sha256) == CONTENT
        assert await owner.proof(of_board.id)
        await refusal(owner.transaction(of_none.id))
        await refusal(owner.put_content(of_board.id, CONTENT))
    async with client("seoul") as validator:
        assert await validator.content(of_none.id, sha256) == CONTENT
    for name in ("forge", "buyer"):
        async with client(name) as other:
            await refusal(other.content(of_board.id, sha256))


async def test_labels_are_open_to_the_boards_owner(consortium, client):
    """Where they are of its boards alone; images are nobody's board."""
    chain, ours, others = consortium.chain, consortium.board.kid, consortium.others_board.kid
    listed = [
        [TimeSpan(ours, 0, 9), PackSpan(ours, 1, 1)],
        [TimeSpan(ours, 0, 9), TimeSpan(others, 0, 9)],
        [TimeSpan(ours, 0, 9), Image(bytes(32))],
        [Image(bytes(32))],
    ]
    made = []
    for targets in listed:
        body = Label(tuple(Labelled(target, "normal") for target in targets), "", START_MS)
        made.append(chain.sign(chain.trainer, body))
        consortium.world.seal(made[-1])
    async with client("foundry") as owner:
        views = (await owner.transactions(kind="label")).transactions
        assert [view.id for view in views] == [made[0].id.hex()]
        first, second = views[0].body["labels"]
        assert first == {
            "device": ours.hex(),
            "from": "1970-01-01T00:00:00.000Z",
            "until": "1970-01-01T00:00:00.009Z",
            "value": "normal",
        }
        assert second == {"device": ours.hex(), "first": 1, "last": 1, "value": "normal"}
        for hidden in made[1:]:
            await refusal(owner.transaction(hidden.id))
    async with client("operator") as operator:
        assert len((await operator.transactions(kind="label")).transactions) == len(made)


async def test_predictions_are_open_to_the_boards_owner(consortium, client):
    """As labels are; drift is of all boards of a type, and for who reads the chain."""
    chain, ours = consortium.chain, consortium.board.kid
    made = []
    for subjects in ((TimeSpan(ours, 0, 9),), (TimeSpan(ours, 0, 9), Thing("unit 7"))):
        verdicts = tuple(Verdict(subject, None, 0.5) for subject in subjects)
        body = Prediction("castings", bytes(32), None, verdicts, START_MS)
        made.append(chain.sign(chain.trainer, body))
        consortium.world.seal(made[-1])
    drift = Drift("pump", None, "psi", (Measure("flow", 1, 0.25),), 0, 9, "none", "", START_MS)
    consortium.world.seal(chain.sign(chain.trainer, drift))
    async with client("foundry") as owner:
        views = (await owner.transactions(kind="prediction")).transactions
        assert [view.id for view in views] == [made[0].id.hex()]
        assert (await owner.transactions(kind="drift")).transactions == []
    async with client("operator") as operator:
        assert len((await operator.transactions(kind="prediction")).transactions) == len(made)
        (view,) = (await operator.transactions(kind="drift")).transactions
        assert view.body["measures"] == [
            {"name": "flow", "value": 1.0, "limit": 0.25, "moved": True}
        ]


async def test_a_training_round_is_open_to_who_took_part(consortium, client):
    took = SiteUpdate("forge", consortium.kid("forge"), bytes(32), 100)
    of_forge = consortium.chain.sign(consortium.chain.trainer, training_round(updates=(took,)))
    consortium.world.seal(of_forge)
    of_none = consortium.chain.sign(consortium.chain.trainer, training_round(round=2))
    consortium.world.seal(of_none)
    async with client("forge") as site:
        listed = (await site.transactions(kind="training-round")).transactions
        assert [view.id for view in listed] == [of_forge.id.hex()]
        assert await site.proof(of_forge.id)
        await refusal(site.transaction(of_none.id))
    async with client("seoul") as validator:
        assert await validator.transaction(of_none.id)
    async with client("buyer") as other:
        await refusal(other.transaction(of_forge.id))


async def test_a_request_is_open_to_its_parties(consortium, client):
    request, answer, to_any = (
        consortium.request.id,
        consortium.response.id,
        consortium.open_request.id,
    )
    async with client("buyer") as buyer:
        assert await buyer.raw_transaction(request) == consortium.request.raw
        assert (await buyer.transaction(answer)).body["outcome"] == "done"
        await refusal(buyer.transaction(to_any))
    async with client("foundry") as provider:
        assert (await provider.transaction(request)).body["service"] == "casting"
        assert (await provider.transaction(to_any)).body["provider"] is None
    async with client("forge") as provider:
        await refusal(provider.transaction(request))
        await refusal(provider.transaction(answer))
        listed = (await provider.transactions(kind="request")).transactions
        assert [view.id for view in listed] == [to_any.hex()]
    async with client("rival") as customer:
        await refusal(customer.proof(answer))


async def test_a_waiting_request_is_open_to_its_parties(consortium, client):
    waiting = consortium.sign("buyer", consortium.asked("forge", 3))
    async with client("buyer") as buyer:
        assert (await buyer.submit(waiting.raw)).status == "admitted"
        assert (await buyer.transaction(waiting.id)).status == "waiting"
    async with client("forge") as provider:
        assert (await provider.transaction(waiting.id)).status == "waiting"
    async with client("rival") as customer:
        await refusal(customer.transaction(waiting.id))


async def test_a_response_to_a_request_of_somebody_else_is_no_answer(consortium, client):
    """Naming a request that asks another provider does not open the response to its customer."""
    false = consortium.sign("forge", Response(consortium.request.id, "done", None, START_MS))
    consortium.world.seal(false)
    async with client("buyer") as buyer:
        await refusal(buyer.transaction(false.id))


async def test_a_range_is_open_only_whole(consortium, client):
    """Of what one provider signed, a customer has the proof of what concerns it, and no more."""
    other = consortium.sign("foundry", Response(consortium.open_request.id, "done", None, START_MS))
    consortium.world.seal(other)
    kid = consortium.kid("foundry")
    async with client("buyer") as buyer:
        assert await buyer.range_proof(kid, 1, 1)
        await refusal(buyer.range_proof(kid, 1, 2))
    async with client("foundry") as provider:
        assert await provider.range_proof(kid, 1, 2)


class TestContents:
    """Of requests and responses, from the chain or from beside it."""

    DATA = bytes(range(256)) * 400  # more than the chain carries

    @pytest.fixture
    def large(self, consortium):
        """A final request whose content lies beside the chain."""
        asked = consortium.asked("foundry", 3)
        request = consortium.sign("buyer", replace(asked, content=Content.of(self.DATA)))
        consortium.world.seal(request)
        return request

    async def test_what_the_chain_carries(self, consortium, client):
        content = Content.of(b"housing 1")
        for name in ("buyer", "foundry", "regulator"):
            async with client(name) as asked:
                got = await asked.content(consortium.request.id, content.sha256)
                assert got == b"housing 1"

    async def test_what_lies_beside_it(self, consortium, client, large):
        sha256 = Content.of(self.DATA).sha256
        async with client("buyer") as buyer, client("foundry") as provider:
            with pytest.raises(RefusedError, match="ask again in a moment"):
                await provider.content(large.id, sha256)
            assert [payload.owner for payload in consortium.world.wanted] == [large.signer]
            assert (await buyer.put_content(large.id, self.DATA)).size == len(self.DATA)
            assert (await buyer.put_content(large.id, self.DATA)).sha256 == sha256.hex()
            assert await provider.content(large.id, sha256) == self.DATA
        async with client("regulator") as regulator:
            assert await regulator.content(large.id, sha256) == self.DATA
        async with client("rival") as rival, client("seoul") as validator:
            await refusal(rival.content(large.id, sha256))
            await refusal(validator.content(large.id, sha256))

    async def test_only_the_signer_sends_it_and_only_what_it_named(self, client, large):
        async with client("foundry") as provider:
            await refusal(provider.put_content(large.id, self.DATA))
        async with client("buyer") as buyer:
            for wrong in (self.DATA[:-1], self.DATA[:-1] + b"x"):
                with pytest.raises(RefusedError) as caught:
                    await buyer.put_content(large.id, wrong)
                assert (caught.value.status, caught.value.field) == (422, "content")
            with pytest.raises(RefusedError) as caught:
                await buyer.put_content(large.id, self.DATA + b"x")
            assert caught.value.status == 413

    async def test_nothing_is_kept_that_the_chain_does_not_name(self, consortium, client):
        async with client("buyer") as buyer:
            with pytest.raises(RefusedError) as caught:
                await buyer.put_content(consortium.request.id, b"housing 1")
            assert caught.value.status == 409
            with pytest.raises(RefusedError) as caught:
                await buyer.put_content(bytes(32), b"housing 1")
            assert caught.value.status == 404
            with pytest.raises(RefusedError, match="carries nothing"):
                await buyer.content(consortium.response.id, bytes(32))

    async def test_a_member_has_its_own_room(self, consortium, client):
        async with client("buyer") as buyer, client("rival") as rival:
            for asked, name, number, has_room in (
                (buyer, "buyer", 4, True),
                (buyer, "buyer", 5, False),  # its 200,000 bytes are used up
                (rival, "rival", 6, True),
            ):
                data = bytes([number]) * 140_000
                body = replace(consortium.asked("foundry", number), content=Content.of(data))
                request = consortium.sign(name, body)
                consortium.world.seal(request)
                if has_room:
                    await asked.put_content(request.id, data)
                    continue
                with pytest.raises(UnreachableError, match="payload_member_mib"):
                    await asked.put_content(request.id, data)


class TestCertificates:
    async def test_none(self, url):
        with pytest.raises(ClientError, match="give yours"):
            Client([url])
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        async with httpx.AsyncClient(verify=context, trust_env=False) as stranger:
            with pytest.raises(httpx.HTTPError):
                await stranger.get(f"{url}/v1/healthz")

    async def test_of_another_authority(self, consortium, client, url, tmp_path):
        other = MemberTls(tmp_path / "other").credentials(consortium.kid("seoul"))
        theirs = replace(other, authority=consortium.tls.authority)
        with pytest.raises(ConfigurationError, match="not issued by the authority"):
            client(theirs)
        await self._is_refused(theirs, url)
        async with client(other) as asked:  # to whom our node is the stranger
            with pytest.raises(UnreachableError, match="no certificate of this consortium"):
                await asked.status()

    async def test_expired(self, consortium, client, url):
        expired = consortium.tls.credentials(consortium.kid("seoul"), expired=True)
        with pytest.raises(ConfigurationError, match="expired at"):
            client(expired)
        await self._is_refused(expired, url)

    @staticmethod
    async def _is_refused(credentials, url):
        """By the node, where nothing looks at the certificate before."""
        context = client_context(credentials.authority, credentials.certificate, credentials.key)
        async with httpx.AsyncClient(verify=context, trust_env=False) as stranger:
            with pytest.raises(httpx.HTTPError):
                await stranger.get(f"{url}/v1/healthz", extensions={"sni_hostname": SERVER_NAME})

    async def test_that_expires_while_connected(self, consortium):
        state = consortium.chain.ledger.state
        now = dt.datetime.now(dt.UTC)
        certificate = access.Certificate(consortium.kid("seoul"), 1, now)
        with pytest.raises(access.RequestError, match="expired"):
            access.reader_of(certificate, state, now)
        earlier = now - dt.timedelta(seconds=1)
        assert access.reader_of(certificate, state, earlier).name == "seoul"

    async def test_that_names_no_member(self, consortium, client):
        async with client(consortium.tls.credentials(None)) as asked:
            error = await refusal(asked.founding())
        assert (error.field, error.problem) == ("certificate", "names no member")

    async def test_of_who_is_no_member(self, consortium, client):
        async with client(consortium.tls.credentials(bytes(8))) as asked:
            assert "no member" in (await refusal(asked.status())).problem

    async def test_of_a_revoked_member_at_once(self, consortium, client):
        async with client("trainer") as asked, asyncio.timeout(DEADLINE_S):
            async with aclosing(asked.stream(1)) as blocks:
                height = 0
                while height < consortium.chain.ledger.height:
                    height = (await anext(blocks)).height
                block = consortium.chain.decide(RemoveMember(consortium.kid("trainer")))
                consortium.world.feed.announce(block.height)
                with pytest.raises(RefusedError, match="revoked"):
                    await anext(blocks)
            await refusal(asked.founding())

    async def test_whose_key_is_another_one(self, consortium, url):
        mine, other = consortium.credentials("buyer"), consortium.credentials("rival")
        with pytest.raises(ConfigurationError, match="TLS certificate"):
            Client([url], credentials=replace(mine, key=other.key))

    async def test_are_not_sent_in_the_clear(self, url, consortium):
        plain = url.replace("https", "http")
        async with Client([plain], credentials=consortium.credentials("buyer")) as asked:
            with pytest.raises(UnreachableError):
                await asked.status()

    async def test_are_of_no_use_without_tls(self, consortium):
        async with consortium.world.served() as url:
            secure = url.replace("http", "https")
            async with Client([secure], credentials=consortium.credentials("buyer")) as asked:
                with pytest.raises(UnreachableError, match="no TLS"):
                    await asked.status()

    async def test_leave_no_connection_open_when_a_handshake_is_given_up(self, consortium):
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.setblocking(False)
            url = f"https://127.0.0.1:{silent.getsockname()[1]}"
            async with Client([url], credentials=consortium.credentials("buyer")) as asked:
                asking = asyncio.create_task(asked.status())
                async with asyncio.timeout(DEADLINE_S):
                    accepted, _ = await loop.sock_accept(silent)
                    with accepted:
                        assert await loop.sock_recv(accepted, 1)  # it has begun
                        asking.cancel()
                        with pytest.raises(asyncio.CancelledError):
                            await asking
                        while await loop.sock_recv(accepted, 1 << 16):
                            pass


def test_every_route_says_who_may_read(consortium):
    for route in create_app(consortium.world.services()).routes:
        if isinstance(route, APIRoute):
            calls = {dependency.call for dependency in route.dependant.dependencies}
            assert calls & {access._any_reader, access._chain_reader}, route.path


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_tls_only_this_machine_is_listened_to(consortium, host):
    with pytest.raises(ConfigurationError, match="set tls = true"):
        ApiServer(consortium.world.services(), host, 0)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7480", 200),
        ("[::1]:7480", 200),
        ("localhost", 200),
        ("evil.example:7480", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.0.2.1", 403),
        ("", 403),
    ],
)
async def test_without_tls_a_name_that_leads_here_is_refused(consortium, host, status):
    """A page in a browser could have its own name lead to 127.0.0.1, and read what it likes."""
    async with (
        consortium.world.served() as url,
        httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as http,
    ):
        answer = await http.get(f"{url}/v1/status", headers={"Host": host})
        assert answer.status_code == status
        if status == 403:
            assert answer.json()["error"]["field"] == "Host"


class TestConnections:
    async def test_many_more_than_there_are_places_for_are_served(self, consortium, monkeypatch):
        monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
        monkeypatch.setattr(connections, "FAREWELL_TIMEOUT_S", 0.05)
        credentials = consortium.credentials("buyer")
        async with consortium.served() as url, asyncio.timeout(DEADLINE_S):

            async def ask():
                # Each keeps its connection until all have asked: idle ones must make room.
                asked = Client([url], timeout_s=DEADLINE_S, credentials=credentials)
                assert (await asked.signer(consortium.kid("buyer"))).next == 2
                return asked

            clients = await asyncio.gather(*(ask() for _ in range(20)))
            for asked in clients:  # and who lost its connection gets a new one
                assert (await asked.signer(consortium.kid("buyer"))).next == 2
                await asked.__aexit__(None, None, None)

    @pytest.mark.parametrize("tls", [True, False])
    @pytest.mark.parametrize("sent", [b"", b"GET /v1/healthz HTTP/1.1\r\nHost: a"])
    async def test_who_says_nothing_is_cut_off(self, consortium, monkeypatch, tls, sent):
        monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.1)
        monkeypatch.setattr(connections, "HANDSHAKE_TIMEOUT_S", 0.1)
        monkeypatch.setattr(connections, "MAX_CONNECTIONS", 1)
        context = consortium.tls.server(consortium.kid("seoul")) if tls else None
        async with consortium.world.served(tls=context) as url, asyncio.timeout(DEADLINE_S):
            port = int(url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            # Its place is free again, if only for those who are as quick.
            mine = consortium.credentials("buyer") if tls else None
            async with Client([url], credentials=mine, patience_s=DEADLINE_S) as asked:
                assert (await asked.status()).height == consortium.chain.ledger.height

    async def test_handshakes_that_stall_do_not_keep_others_out(self, consortium, monkeypatch):
        monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
        monkeypatch.setattr(connections, "CROWDED_HANDSHAKE_S", 0.1)
        monkeypatch.setattr(connections, "MAKE_ROOM_S", 0.05)
        async with consortium.served() as url, asyncio.timeout(DEADLINE_S):
            port = int(url.rpartition(":")[2])
            stalled = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
            mine = consortium.credentials("buyer")
            async with Client([url], credentials=mine, patience_s=DEADLINE_S) as asked:
                assert (await asked.signer(consortium.kid("buyer"))).next == 2
            for _, writer in stalled:
                writer.close()

    async def test_a_member_does_not_take_all_places(self, consortium, monkeypatch):
        monkeypatch.setattr(connections, "MAX_MEMBER_CONNECTIONS", 2)
        mine = consortium.credentials("rival")
        async with consortium.served() as url, asyncio.timeout(DEADLINE_S):
            clients = [Client([url], credentials=mine) for _ in range(3)]
            for asked in clients[:2]:
                await asked.status()  # and keeps its connection
            with pytest.raises(UnreachableError):
                await clients[2].status()
            async with Client([url], credentials=consortium.credentials("buyer")) as other:
                assert (await other.status()).height
            await clients[0].__aexit__(None, None, None)
            while True:
                with suppress(UnreachableError):
                    assert (await clients[2].status()).height
                    break
                await asyncio.sleep(0.02)
            for asked in clients[1:]:
                await asked.__aexit__(None, None, None)
