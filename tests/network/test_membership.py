"""A consortium of real daemons changes itself by vote, by the commands, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import pytest
from support.daemons import (
    DEADLINE_S,
    ROOT,
    Daemon,
    found,
    level,
    make_daemons,
    stop_all,
    until,
)

from fog_node.client import ClientError, RefusedError
from fog_node.protocol import senml
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import (
    Channel,
    Enrol,
    Incident,
    PackBody,
    Transaction,
    sign_transaction,
)
from tools import governance
from tools.consortium import Consortium, load_key
from tools.demo.processes import free_port
from tools.devices import enrolment as devices
from tools.governance import Wishes
from tools.nodes import Nodes

NAMES = ("seoul", "busan", "daegu")


async def fogline(*arguments: object) -> str:
    """What a command prints; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.cli", *map(str, arguments), cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE_S):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


class World:
    """A consortium, its daemons, and how its validators decide."""

    def __init__(self, consortium: Consortium, directory: Path) -> None:
        self.consortium = consortium
        self.directory = directory
        self.founding = ("--founding", consortium.founding_file)
        self.daemons = {daemon.name: daemon for daemon in make_daemons(consortium, directory)}
        self.keys = {name: consortium.member_directory(name) / "signing.key" for name in NAMES}

    async def decide(self, wishes: Wishes, by: tuple[str, ...] = ("seoul", "busan")) -> None:
        """Have the first propose and the others approve, each at its own node."""
        first, *others = by
        known = self.consortium.founding
        nodes = {name: Nodes((self.daemons[name].url,)) for name in by}
        keys = {name: load_key(self.keys[name]) for name in by}
        result = await governance.propose(nodes[first], known, keys[first], wishes, "", 1)
        proposal = result["proposal"]
        for name in others:
            await until(lambda n=name: self.knows(n, proposal), f"{name} knows the proposal")
            result = await governance.approve(nodes[name], known, keys[name], proposal[:16])
        assert result["outcome"] == "applied"
        await level(*(self.daemons[name] for name in by))

    async def decide_by_command(self, *options: object) -> None:
        """Do the same as people do it."""
        first, *others = ("seoul", "busan")
        result = self.directory / "result.json"
        await fogline(
            "consortium", "propose", *self.founding, "--key", self.keys[first],
            "--api", self.daemons[first].url, "--json", result, *options,
        )  # fmt: skip
        proposal = json.loads(result.read_text())["proposal"]
        for name in others:
            await until(lambda n=name: self.knows(n, proposal), f"{name} knows the proposal")
            await fogline(
                "consortium", "approve", proposal[:16], *self.founding, "--yes",
                "--key", self.keys[name], "--api", self.daemons[name].url, "--json", result,
            )  # fmt: skip
        assert json.loads(result.read_text())["outcome"] == "applied"
        await level(self.daemons[first], *(self.daemons[name] for name in others))

    async def knows(self, name: str, proposal: str) -> bool:
        listed = await self.daemons[name].client.proposals()
        return proposal in [item.id for item in listed.proposals]

    async def seals(self, *names: str) -> None:
        """A transaction of the first is final at all of them."""
        first = self.daemons[names[0]]
        key = load_key(self.keys[names[0]])
        body = Incident("malformed", None, None, bytes(32), 3, "", 1)
        number = (await first.client.signer(key.kid)).next
        transaction = sign_transaction(key, body, self.consortium.founding.chain_id, number)
        await first.client.submit(transaction.raw)

        async def is_final() -> bool:
            try:
                views = [
                    await self.daemons[name].client.transaction(transaction.id) for name in names
                ]
            except ClientError:
                return False
            return all(view.status == "final" for view in views)

        await until(is_final, f"{names} seal")

    def new_daemon(self, name: str, own: Path) -> Daemon:
        """A daemon of a member who has its directory elsewhere than the founders."""
        ports = {known: daemon.peer_port for known, daemon in self.daemons.items()}
        ports[name] = free_port()
        home = self.consortium.member_directory(name)
        if not home.exists():
            home.symlink_to(own, target_is_directory=True)
        daemon = Daemon(self.consortium, name, self.directory / f"node-{own.name}", ports)
        self.daemons[name] = daemon
        self.keys[name] = own / "signing.key"
        return daemon

    async def requested(self, name: str, out: Path) -> Path:
        """Keys, request and certificate of who is to be a member under this name."""
        await fogline("consortium", "request-membership", out, *self.founding, "--name", name)
        request = out / "request.json"
        await fogline(
            "consortium", "issue-certificate", "--consortium", self.consortium.directory,
            "--request", request, "--out", out,
        )  # fmt: skip
        return request


@pytest.fixture
async def world(tmp_path):
    made = World(found(tmp_path / "c", NAMES), tmp_path)
    try:
        await asyncio.gather(*(daemon.start() for daemon in made.daemons.values()))
        yield made
    finally:
        await stop_all(list(made.daemons.values()))


async def voters(daemon: Daemon) -> list[str]:
    return (await daemon.client.consortium()).voters


async def has_voted(daemon: Daemon, kid: str) -> bool:
    """Whether one of the latest blocks bears this validator's vote."""
    height = (await daemon.client.status()).height
    for at in range(max(1, height - 3), height + 1):
        if kid in (await daemon.client.block(at)).certificate.voters:
            return True
    return False


async def test_a_consortium_changes_itself_and_goes_on(world, tmp_path) -> None:
    seoul = world.daemons["seoul"]

    # A fourth is added, which has followed before, and votes without a restart.
    own = tmp_path / "ulsan"
    request = await world.requested("ulsan", own)
    kid = load_key(own / "signing.key").kid.hex()
    ulsan = world.new_daemon("ulsan", own)
    await ulsan.start()
    assert (await ulsan.client.status()).height == 0
    await world.decide_by_command(
        "--add-member", f"ulsan=validator,gateway:{request}", "--note", "the fourth"
    )
    assert (await voters(seoul))[-1] == kid
    await until(lambda: follows(ulsan, seoul), "the new one has caught up")
    # Its ledger is new, and nobody can tell that its key is: it lets two blocks pass.
    while await holds_back(ulsan):
        await world.seals("ulsan", "seoul", "busan", "daegu")
    # Three of four are needed now, so with one of the founders away the new one decides.
    await world.daemons["daegu"].process.stop()
    await world.seals("ulsan", "seoul", "busan")
    assert await has_voted(seoul, kid)
    await world.daemons["daegu"].start()

    # A parameter changes while all run.
    everyone = ("seoul", "busan", "ulsan")
    await world.decide(Wishes(parameter=("stagger_ms=90", "heartbeat_ms=1000")), everyone)
    assert (await seoul.client.consortium()).parameters["stagger_ms"] == 90
    height = (await seoul.client.status()).height

    async def beats() -> bool:
        return (await seoul.client.status()).height >= height + 2

    await until(beats, "there are heartbeat blocks")

    # One has its key replaced: the node goes on under the new one after a restart.
    fresh = tmp_path / "busan-2"
    request = await world.requested("busan", fresh)
    await world.decide(Wishes(rotate_key=(f"busan={request}",)), everyone)
    old = world.daemons["busan"]
    assert old.process.running  # it has no vote any more, and has not crashed

    async def says_so() -> bool:
        return "only follows the chain from now on: [node] key: is" in old.log

    await until(says_so, "busan says that its key was replaced")
    await stop_all([old])
    del world.daemons["busan"]
    home = world.consortium.member_directory("busan")
    home.rename(home.with_name("busan-old"))
    busan = world.new_daemon("busan", fresh)
    await busan.start()
    await until(lambda: follows(busan, seoul), "busan has caught up under its new key")
    await world.seals("busan", "seoul", "ulsan")

    # One is removed while it runs, and the rest goes on without it.
    await world.decide(Wishes(remove_member=("daegu",)), ("seoul", "ulsan", "busan"))
    daegu = world.daemons["daegu"]
    await until(lambda: is_alone(daegu), "nobody talks to daegu any more")
    assert daegu.process.running
    assert len(await voters(seoul)) == 3
    await world.seals("seoul", "busan", "ulsan")

    # What a command shows of it all.
    result = tmp_path / "show.json"
    shown = await fogline("consortium", "show", "--api", seoul.url, "--json", result)
    assert "ulsan" in shown
    stand = json.loads(result.read_text())
    assert {m["name"]: m["status"] for m in stand["members"]}["daegu"] == "revoked"
    assert [p["outcome"] for p in stand["proposals"]] == ["applied"] * 4


async def follows(daemon: Daemon, other: Daemon) -> bool:
    status, theirs = await asyncio.gather(daemon.client.status(), other.client.status())
    return status.height >= theirs.height > 0


async def holds_back(daemon: Daemon) -> bool:
    status = await daemon.client.status()
    return status.asks_before_voting or status.abstains_until is not None


async def is_alone(daemon: Daemon) -> bool:
    return not (await daemon.client.status()).peers


async def test_a_revoked_certificate_opens_no_connection(world, tmp_path) -> None:
    """The member gets another one for the same key, and is back."""
    seoul, daegu = world.daemons["seoul"], world.daemons["daegu"]

    async def sees(count: int) -> bool:
        return len((await seoul.client.status()).peers) == count

    await until(lambda: sees(2), "all are connected")
    own = world.consortium.member_directory("daegu")
    await world.decide(Wishes(revoke_certificate=(str(own / "tls.crt"),)))
    await until(lambda: sees(1), "daegu is cut off")
    assert SigningKey.from_pem(world.keys["daegu"].read_bytes()).kid.hex() in await voters(seoul)
    await daegu.process.stop()
    for name in ("tls.key", "tls.crt"):
        (own / name).unlink()
    await fogline(
        "consortium", "issue-certificate", "--consortium", world.consortium.directory,
        "--name", "daegu", "--out", own,
    )  # fmt: skip
    await daegu.start()
    await until(lambda: sees(2), "daegu is back with a new certificate")
    await world.seals("daegu", "seoul", "busan")


async def test_a_copied_key_is_quarantined_until_an_operator_has_looked(world) -> None:
    """Two messages with one number come in at two nodes; neither needs to be asked."""
    seoul, busan = world.daemons["seoul"], world.daemons["busan"]
    chain_id = world.consortium.founding.chain_id
    operator = world.consortium.signing_key("operator")
    board = SigningKey.from_secret(99)
    channels = (Channel("flow", "L/min", 0.0, 200.0),)
    enrol = Enrol(board.public, "operator", "pump", "unix", channels, 1)
    await seoul.client.submit(sign_transaction(operator, enrol, chain_id, 1).raw)

    async def stands(status: str) -> bool:
        try:
            views = [await d.client.device(board.kid) for d in world.daemons.values()]
        except ClientError:
            return False
        return all(view.status == status for view in views)

    await until(lambda: stands("active"), "the board is enrolled")
    first, second = (pack(board, 1, value, chain_id) for value in (1.0, 2.0))
    await seoul.client.submit(first.raw)
    with contextlib.suppress(RefusedError):  # where the other one is there already
        await busan.client.submit(second.raw)
    await until(lambda: stands("quarantined"), "the board is quarantined everywhere")
    with pytest.raises(RefusedError, match="two hold the key"):
        await seoul.client.submit(pack(board, 2, 3.0, chain_id).raw)
    await devices.reinstate(
        Nodes((seoul.url,)), world.consortium.founding, operator, board.kid.hex(), "it was found"
    )
    await until(lambda: stands("active"), "the board is trusted again")
    number = (await seoul.client.device(board.kid)).next
    await seoul.client.submit(pack(board, number, 4.0, chain_id).raw)

    async def goes_on() -> bool:
        return (await busan.client.device(board.kid)).next == number + 1

    await until(goes_on, "the board goes on")


def pack(board: SigningKey, number: int, value: float, chain_id: bytes) -> Transaction:
    payload = senml.encode_pack(32473, board.kid, 1_700_000_000, [(0, [("flow", "L/min", value)])])
    return sign_transaction(board, PackBody.decode(payload), chain_id, number, 0)
