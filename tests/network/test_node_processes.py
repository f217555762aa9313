"""Fog nodes as processes: what is accepted stays, what is wrong stops the start or is refused."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import socket
import time
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from support.consortium import enrolment
from support.daemons import DEADLINE_S, Daemon, found, make_daemons, stop_all, until
from support.small_chain import bundle_of

from fog_node.client import ClientError
from fog_node.ledger import Ledger
from fog_node.network import certificates
from fog_node.protocol.governance import Approve, Propose, RemoveMember
from fog_node.protocol.transactions import Transaction, sign_transaction
from tools.consortium import Consortium, load_key
from tools.demo.processes import free_port

FIVE = ("seoul", "busan", "daegu", "jeju", "city")
ENROLMENTS = 30
KILLS = 3


async def standings(daemons: list[Daemon]) -> set[tuple[str, str]]:
    """Head and state root of each node."""
    statuses = await asyncio.gather(*(daemon.client.status() for daemon in daemons))
    return {(status.head, status.state_root) for status in statuses}


async def final_count(daemon: Daemon, kind: str) -> int:
    return (await daemon.client.status()).final.get(kind, 0)


async def has_final(daemon: Daemon, kind: str, count: int) -> bool:
    return await final_count(daemon, kind) == count


async def accept(daemon: Daemon, transaction: Transaction) -> None:
    """Submit until the node has accepted it: a killed node answers after its restart."""

    async def accepted() -> bool:
        try:
            await daemon.client.submit(transaction.raw)
        except ClientError:
            return False
        return True

    await until(accepted, f"{daemon.name} accepts number {transaction.sequence}")


async def test_what_was_accepted_is_final_once_whatever_is_killed(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    consortium = found(tmp_path / "c", FIVE)
    daemons = make_daemons(consortium, tmp_path)
    transactions = [enrolment(consortium, number + 1) for number in range(ENROLMENTS)]
    kills = sorted(rng.sample(range(1, ENROLMENTS), KILLS))
    victim = daemons[rng.randrange(len(daemons))]
    others = [daemon for daemon in daemons if daemon is not victim]
    try:
        await asyncio.gather(*(daemon.start() for daemon in daemons))
        restarting = None
        for number, transaction in enumerate(transactions):
            if number in kills:
                if restarting is not None:
                    await restarting
                await accept(victim, transaction)
                # It alone may know this one: the kill comes at once, or a moment later.
                await asyncio.sleep(rng.choice((0, rng.uniform(0, 0.4))))
                await victim.process.kill()
                restarting = asyncio.create_task(victim.start())
            else:
                await accept(rng.choice(others), transaction)
        assert restarting is not None
        await restarting

        async def all_final() -> bool:
            counts = await asyncio.gather(*(final_count(daemon, "enrol") for daemon in daemons))
            return counts == [ENROLMENTS] * len(daemons)

        await until(all_final, "all enrolments are final on all nodes")

        async def agree() -> bool:
            return len(await standings(daemons)) == 1

        await until(agree, "heads and state roots are equal")
        for daemon in (victim, others[0]):
            listed = [item async for item in daemon.client.all_transactions(kind="enrol")]
            assert sorted(item.id for item in listed) == sorted(t.id.hex() for t in transactions)
        assert len(await victim.client.devices()) == ENROLMENTS
    finally:
        await stop_all(daemons)


@pytest.fixture
async def lone(tmp_path):
    """A consortium of one validator, and its daemon, not started."""
    consortium = found(tmp_path / "c", ("seoul",))
    daemon = Daemon(consortium, "seoul", tmp_path / "n", {"seoul": free_port()})
    yield consortium, daemon
    await stop_all([daemon])


@pytest.fixture
async def three(tmp_path):
    """Three nodes that run, and their consortium."""
    consortium = found(tmp_path / "c", FIVE[:3])
    daemons = make_daemons(consortium, tmp_path)
    try:
        await asyncio.gather(*(daemon.start() for daemon in daemons))
        yield consortium, daemons
    finally:
        await stop_all(daemons)


async def test_sigterm_is_an_orderly_end_and_a_restart_goes_on_at_the_same_height(lone) -> None:
    consortium, daemon = lone
    await daemon.start()
    await accept(daemon, enrolment(consortium, 1))
    await until(lambda: has_final(daemon, "enrol", 1), "the enrolment is final")
    before = await daemon.client.status()
    assert await daemon.process.stop() == 0
    await daemon.start()
    after = await daemon.client.status()
    assert (after.height, after.head, after.state_root) == (
        before.height, before.head, before.state_root,
    )  # fmt: skip


def raw_exchange(port: int, data: bytes) -> bytes:
    """Send bytes and return what comes until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


async def test_a_daemon_goes_on_after_nonsense_on_its_ports(lone) -> None:
    consortium, target = lone
    await target.start()
    rng = random.Random(3)
    for data in (
        rng.randbytes(5000),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + bytes(99),
    ):
        await asyncio.to_thread(raw_exchange, target.peer_port, data)
    api_port = httpx.URL(target.url).port
    assert api_port is not None
    answer = await asyncio.to_thread(raw_exchange, api_port, rng.randbytes(5000))
    assert not answer.startswith(b"HTTP/1.1 2")
    async with httpx.AsyncClient(base_url=target.url, timeout=DEADLINE_S) as http:
        for method, path in (
            ("GET", "/v1/blocks/999999999"), ("GET", "/v1/blocks?from=-1"),
            ("GET", "/v1/blocks?limit=100000000"), ("GET", "/v1/nothing"),
            ("POST", "/v1/transactions"), ("GET", "/v1/proofs/zz"), ("DELETE", "/v1/status"),
        ):  # fmt: skip
            refused = await http.request(method, path)
            assert 400 <= refused.status_code < 500, path
            error = refused.json()["error"]
            assert error["problem"], path
            assert error["remedy"], path
    await accept(target, enrolment(consortium, 1))
    await until(lambda: has_final(target, "enrol", 1), "the enrolment is final")


async def test_a_bundle_put_at_one_node_reaches_the_others(three) -> None:
    consortium, daemons = three
    trainer = consortium.signing_key("trainer")
    chain_id = consortium.founding.chain_id
    body, data = bundle_of(trainer, chain_id, payload=os.urandom(700_000))
    await accept(daemons[0], sign_transaction(trainer, body, chain_id, 1))
    await daemons[0].client.put_blob(data)

    async def everywhere() -> bool:
        statuses = await asyncio.gather(*(daemon.client.status() for daemon in daemons))
        return [status.blobs.count for status in statuses] == [1, 1, 1]

    await until(everywhere, "every node holds the bundle")
    for daemon in daemons:
        assert await daemon.client.get_blob(body.bundle) == data


async def test_a_member_that_is_removed_loses_its_connections(three) -> None:
    consortium, daemons = three
    outcast = consortium.signing_key("daegu").kid

    async def connected() -> bool:
        return [len((await d.client.status()).peers) for d in daemons] == [2, 2, 2]

    await until(connected, "all are connected")
    chain_id = consortium.founding.chain_id
    until_ms = time.time_ns() // 1_000_000 + 3_600_000
    body = Propose((RemoveMember(outcast),), "left the consortium", until_ms)
    proposal = sign_transaction(consortium.signing_key("seoul"), body, chain_id, 1)
    await accept(daemons[0], proposal)
    await until(lambda: has_final(daemons[1], "propose", 1), "the proposal is final")
    approval = Approve(proposal.id)
    await accept(
        daemons[1], sign_transaction(consortium.signing_key("busan"), approval, chain_id, 1)
    )

    async def apart() -> bool:
        names = [{p.name for p in (await d.client.status()).peers} for d in daemons[:2]]
        return names == [{"busan"}, {"seoul"}]

    await until(apart, "only the two that are left are connected")


# What stops a start


def ending(consortium: Consortium, days: int) -> bytes:
    """A certificate of the member seoul that ends so many days from now, PEM."""
    now = dt.datetime.now(dt.UTC)
    authority = x509.load_der_x509_certificate(consortium.founding.authority)
    certificate = certificates.issue(
        authority,
        load_key(consortium.directory / "authority" / "ca.key"),
        load_key(consortium.member_directory("seoul") / "tls.key"),
        "seoul",
        now - dt.timedelta(days=3),
        member=consortium.signing_key("seoul").kid,
        days=3 + days,
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


async def refusal(daemon: Daemon) -> str:
    """The one line with which a daemon refuses to start."""
    code, output = await daemon.run_to_end()
    assert code == 1, output
    lines = [line for line in output.splitlines() if line.startswith("refused: ")]
    assert len(lines) == 1, output
    assert "Traceback" not in output
    return lines[0]


async def test_an_unknown_key_stops_the_start(lone) -> None:
    _, daemon = lone
    daemon.config.write_text(daemon.config.read_text().replace("threads", "treads"))
    line = await refusal(daemon)
    assert str(daemon.config) in line
    assert "[mining] treads: is an unknown key; [mining] has kernel, threads" in line


async def test_the_data_directory_of_another_chain_stops_the_start(lone, tmp_path) -> None:
    _, daemon = lone
    other = found(tmp_path / "other", ("seoul",))
    Ledger.open(daemon.data / "ledger", other.founding).close()
    line = await refusal(daemon)
    assert "use the founding file it was made with, or another data directory" in line


async def test_an_expired_certificate_stops_the_start(lone) -> None:
    consortium, daemon = lone
    path = consortium.member_directory("seoul") / "tls.crt"
    path.write_bytes(ending(consortium, -1))
    line = await refusal(daemon)
    assert f"[peer] certificate {path}: expired at" in line
    assert "fogline consortium issue-certificate" in line


async def test_a_certificate_that_ends_soon_is_spoken_of(lone) -> None:
    consortium, daemon = lone
    path = consortium.member_directory("seoul") / "tls.crt"
    path.write_bytes(ending(consortium, 29))
    await daemon.start()

    async def says_so() -> bool:
        return f"WARNING fog_node.node: [peer] certificate {path}: ends at" in daemon.log

    await until(says_so, "the log says that the certificate ends")
    status = await daemon.client.status()
    assert status.certificate_until is not None
    left = dt.datetime.fromisoformat(status.certificate_until) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=28) < left <= dt.timedelta(days=29)


@pytest.mark.parametrize(("file", "key"), [("signing.key", "[node] key"), ("tls.key", "[peer]")])
async def test_a_key_that_others_may_read_stops_the_start(lone, file, key) -> None:
    consortium, daemon = lone
    path = consortium.member_directory("seoul") / file
    path.chmod(0o640)
    line = await refusal(daemon)
    assert key in line
    assert f"others may read it (mode 640); run: chmod 600 {path}" in line


@pytest.mark.parametrize("section", ["peer", "api"])
async def test_a_port_in_use_stops_the_start(tmp_path, section) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon = Daemon(
            found(tmp_path / "c", ("seoul",)), "seoul", tmp_path / "n", {"seoul": free_port()},
            **{section: {"listen": f"127.0.0.1:{port}"}},
        )  # fmt: skip
        line = await refusal(daemon)
    assert f"[{section}] listen 127.0.0.1:{port}: " in line
    assert "ddress already in use; free the port or choose another" in line


async def test_a_directory_that_another_process_uses_stops_the_start(lone) -> None:
    consortium, daemon = lone
    ledger = Ledger.open(daemon.data / "ledger", consortium.founding)
    try:
        line = await refusal(daemon)
    finally:
        ledger.close()
    assert str(daemon.data) in line


async def test_a_member_without_the_role_gateway_cannot_take_in_packs(tmp_path) -> None:
    consortium = found(tmp_path / "c", ("seoul",))
    daemon = Daemon(
        consortium, "operator", tmp_path / "n", {"operator": free_port()}, mqtt={"enabled": True}
    )
    line = await refusal(daemon)
    assert "[mqtt] enabled: operator has not the role gateway" in line
