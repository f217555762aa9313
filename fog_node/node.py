"""Puts the parts of a fog node together: ledger, agreement, peers, gateway, blobs, API."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import logging
import signal
import time
from collections import OrderedDict
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from fog_node import garbage
from fog_node.agreement import Agreement
from fog_node.api.access import CHAIN_ROLES
from fog_node.api.feed import BlockFeed
from fog_node.api.server import ApiServer
from fog_node.api.services import BannedCondition, Condition, PeerCondition, Services
from fog_node.archive import ArchiveError, ArchiveWriter
from fog_node.blob_fetcher import BlobFetcher
from fog_node.blobs import BlobStore
from fog_node.config import Config, MqttSection, split_address
from fog_node.errors import ConfigurationError, ConflictError, DiskFullError
from fog_node.full_disk import when_there_is_room
from fog_node.gateway.gateway import Gateway, GatewayParts
from fog_node.gateway.mqtt import Broker, broker_context
from fog_node.gateway.serial_line import SerialSettings, UsbId
from fog_node.identity import check_member, check_secret, load_founding, load_key
from fog_node.ledger import Admission, Ledger
from fog_node.ledger.mempool import Limits
from fog_node.miner import Miner
from fog_node.network import certificates, peers, wire
from fog_node.network.certificates import PeerCertificate
from fog_node.network.peers import Peer, PeerNetwork
from fog_node.network.score import Offence
from fog_node.payloads import Payload, PayloadStore, payload_of
from fog_node.protocol.block import Block
from fog_node.protocol.merkle import leaf_hash
from fog_node.protocol.transactions import Body, Clone, Transaction
from fog_node.protocol.votes import Certificate
from fog_node.retelling import AGAIN_S, Retelling
from fog_node.small_files import read_small
from fog_node.submissions import Submissions

log = logging.getLogger(__name__)

MIB = 1024 * 1024
# Own transactions (incidents, evidence) that wait to be signed; a further one is dropped,
# logged, and counts as suppressed.
MAX_OWN_WAITING = 1024
FETCH_INTERVAL_S = 1.0
PRUNE_INTERVAL_S = 6 * 3600.0
DAY_MS = 24 * 3600 * 1000
# How long before its end a certificate is spoken of.
CERTIFICATE_WARNING = dt.timedelta(days=30)
# Pairs of messages of cloned keys that were reported once.
MAX_CLONES_SAID = 1024
# Waiting transactions that a node gets when it connects. The others are here, and are sealed from
# here; more would not fit in what may wait for a slow peer.
MAX_SYNC_BYTES = peers.MAX_OUTGOING_BYTES // 2


class Node:
    """One fog node, from its configuration to its end; `run` it once."""

    def __init__(self, config: Config) -> None:
        """Read keys and founding file and open the ledger; nothing listens yet.

        Raises:
            ConfigurationError: a file or an address cannot be used.
            StoreError: the data directory cannot be used.
        """
        self.config = config
        self.founding = load_founding(config.node.founding)
        self.key = load_key(config.node.key)
        self.name = config.node.member
        peer = config.peer
        now = dt.datetime.now(dt.UTC)
        authority = self.founding.authority
        certificate = certificates.check_certificate(peer.certificate, authority, self.key.kid, now)
        self._certificate_until = certificate.not_valid_after_utc
        check_secret(peer.tls_key, f"[peer] tls_key {peer.tls_key}")
        files = (peer.certificate, peer.tls_key)
        self._server_context = certificates.server_context(authority, *files)
        contexts = (self._server_context, certificates.client_context(authority, *files))
        addresses = {
            name: split_address(address)
            for name, address in peer.peers.items()
            if name != self.name
        }
        data = config.node.data_dir
        limits = config.limits
        archive = config.storage.archive
        self._archive = None if archive is None else ArchiveWriter(archive)
        self.ledger = Ledger.open(
            data / "ledger",
            self.founding,
            Limits(count=limits.mempool_transactions, total_bytes=limits.mempool_mib * MIB),
        )
        try:
            self._standing = check_member(self.ledger.state, self.name, self.key)
        except ConfigurationError:
            self.ledger.close()
            raise
        self._blobs = BlobStore(data / "blobs", limits.blob_mib * MIB)
        self._payloads = PayloadStore(
            data / "payloads", limits.payload_mib * MIB, limits.payload_member_mib * MIB
        )
        self._fetcher = BlobFetcher(self.ledger, self._blobs, self._payloads)
        self._miner = Miner(config.mining.kernel, config.mining.threads)
        self._agreement = Agreement(
            self.ledger,
            self.key,
            self._miner,
            self._committed,
            self._submit_own,
        )
        self._network = PeerNetwork(
            self.key.kid,
            wire.Hello(wire.PROTOCOL_VERSION, self.founding.chain_id, self.name),
            contexts,
            addresses,
            self,
            self,
            self._agreement.status,
        )
        self._agreement.connect(self._network)
        self._feed = BlockFeed(self.ledger.height)
        self._submissions = Submissions(self.ledger.admit, self._admitted)
        self._wanted = asyncio.Event()
        self._own: asyncio.Queue[Body] = asyncio.Queue(MAX_OWN_WAITING)
        self._cloned: OrderedDict[tuple[bytes, int], None] = OrderedDict()
        self._retelling = Retelling(self.ledger.has)
        has_boards = config.mqtt.enabled or config.serial.is_used
        self._gateway = self._make_gateway(config.mqtt) if has_boards else None

    async def run(self, stopped: asyncio.Event) -> None:
        """Serve until `stopped` is set.

        Raises:
            ConfigurationError: an address cannot be listened on.
            ForkError, StoreError: the ledger must not, or cannot, go on.
        """
        try:
            await self._serve(stopped)
        finally:
            await self._network.stop()
            self._miner.close()
            self.ledger.close()
        log.info("%s: stopped at height %d", self.name, self.ledger.height)

    async def _serve(self, stopped: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        tls = self._server_context if self.config.api.tls else None
        api = ApiServer(self._services(), *split_address(self.config.api.listen), tls)
        await self._network.start(*split_address(self.config.peer.listen))
        tasks: list[Coroutine[Any, Any, None]] = [
            self._agreement.run(),
            self._sign_own(),
            self._tell_again(),
            self._submissions.run(),
            self._fetch_bundles(),
            self._prune(),
            self._watch_certificate(),
            api.run(),
        ]
        if self._gateway is not None:
            tasks.append(self._gateway.run())
        self._warn_of_limits()
        log.info(
            "%s: height %d, API on port %d, peers on port %d",
            self.name,
            self.ledger.height,
            api.port,
            self._network.port,
        )
        running = [asyncio.create_task(task) for task in tasks]
        waiter = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait([waiter, *running], return_when=asyncio.FIRST_COMPLETED)
        finally:
            # The gateway ends only when what it has taken in is written.
            for task in (waiter, *running):
                task.cancel()
            results = await asyncio.gather(waiter, *running, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    # What the peers' connections call

    def peer_joined(self, peer: Peer) -> None:
        """Pass on what waits here: the peer may not have been there when it came."""
        for batch in _batches(self._waiting_to_pass_on()):
            peer.send(wire.Transactions(batch))

    def _waiting_to_pass_on(self) -> Iterator[bytes]:
        left = MAX_SYNC_BYTES
        for raw in self.ledger.waiting_bytes():
            if (left := left - len(raw)) < 0:
                return
            yield raw

    def peer_left(self, peer: Peer) -> None:
        """Note it; the network dials again by itself."""
        log.info("peer %s: gone", peer.name)

    async def peer_message(self, peer: Peer, message: wire.Message) -> None:
        """Sort a message to who deals with it."""
        match message:
            case wire.Transactions():
                await self._take_transactions(peer, message.raw)
            case wire.GetBlob():
                peer.send(await asyncio.to_thread(self._fetcher.answer, message))
            case wire.Blob():
                if self._fetcher.take(peer, message):
                    self._stored()
            case _:
                await self._agreement.take(peer, message)

    async def _take_transactions(self, peer: Peer, raw: Sequence[bytes]) -> None:
        """Admit what a peer passes on; ProtocolError, for what no honest node passes on."""
        results = await asyncio.to_thread(self._admit_passed_on, raw)
        refused = [result.error for result in results if result.error is not None]
        for result in results:
            if isinstance(result.error, ConflictError):
                self._report_clone(result.transaction, result.error.existing)
        # Full says nothing of the peer: its blocks and votes must come through all the more.
        costly = [error for error in refused if error.cause != "full"]
        if costly:
            log.debug("peer %s: passes on what is refused here: %s", peer.name, costly[0])
        peer.useless(len(costly), sum(result.status == "final" for result in results))
        for error in costly:
            if error.cause == "bad_signature":  # it would have been refused there as well
                peer.offend(Offence.FORGED_TRANSACTION, f"passes on a forgery: {error}")
        if any(result.status == "admitted" for result in results):
            self._agreement.work_changed()

    def _admit_passed_on(self, raw: Sequence[bytes]) -> list[Admission]:
        new = [item for item in raw if not self.ledger.has(leaf_hash(item))]
        return self.ledger.admit(
            [self.ledger.parse_transaction(item) for item in new], durable=False
        )

    def authorise(self, certificate: PeerCertificate, dialled: bool) -> str | None:
        """The name of a member who may connect.

        A key that is unknown here may have been added by blocks that are not here yet. Whom
        our operator has us call is then believed to be who the authority's certificate says:
        its blocks are checked all the same.
        """
        state = self.ledger.state
        if certificate.serial in state.revoked_certificates:
            return None
        member = state.members.get(certificate.kid)
        if member is not None:
            # Peers get the whole chain.
            may = member.status != "revoked" and CHAIN_ROLES & member.roles
            return member.name if may else None
        is_retired = certificate.kid in state.membership.retired
        return certificate.name if dialled and not is_retired else None

    def kid_of(self, name: str) -> bytes | None:
        """Key id of the member with this name."""
        member = self.ledger.state.member_named(name)
        return None if member is None else member.kid

    # What the parts tell the node

    def _committed(self, block: Block, certificate: Certificate) -> None:
        log.info(
            "block %d: %d transactions, round %d, %d votes",
            block.height,
            len(block.transactions),
            certificate.round,
            len(certificate.votes),
        )
        if self._gateway is not None:
            self._gateway.committed(block)
        for transaction in block.transactions:
            if (payload := payload_of(transaction)) is not None:
                self._want(payload)
        self._network.drop_unauthorised()
        self._look_at_standing()
        self._feed.announce(block.height)

    def _look_at_standing(self) -> None:
        """Say in the log where a vote has changed whether this node is a member's."""
        try:
            standing = check_member(self.ledger.state, self.name, self.key)
        except ConfigurationError as error:  # its key was replaced
            standing = str(error)
        if standing is not None and standing != self._standing:
            log.warning("%s: only follows the chain from now on: %s", self.name, standing)
        self._standing = standing

    def _admitted(self, transactions: Sequence[Transaction]) -> None:
        """Pass on what was admitted here."""
        for batch in _batches(item.raw for item in transactions):
            self._network.broadcast(wire.Transactions(batch))
        self._retelling.told(transactions, time.monotonic())
        self._agreement.work_changed()

    async def _tell_again(self) -> None:
        while True:
            await asyncio.sleep(AGAIN_S)
            for batch in _batches(self._retelling.due(time.monotonic())):
                self._network.broadcast(wire.Transactions(batch))

    def _submit_own(self, body: Body) -> None:
        try:
            self._own.put_nowait(body)
        except asyncio.QueueFull:
            log.warning("own transactions: %d wait, a %s is dropped", MAX_OWN_WAITING, body.kind)

    async def _submit(self, transaction: Transaction) -> Admission:
        """Admit what came over the API."""
        result = await self._submissions.submit(transaction)
        if isinstance(result.error, ConflictError):
            self._report_clone(transaction, result.error.existing)
        return result

    def _report_clone(self, one: Transaction, other: Transaction) -> None:
        """Two messages of one board with one number: have it quarantined, if we may say so."""
        state = self.ledger.state
        device, member = state.devices.get(one.signer), state.members.get(self.key.kid)
        if device is None or device.status != "active" or one.sequence <= device.disputed:
            return
        if member is None or "gateway" not in member.roles:
            return  # who passed them on has seen it, too
        said = (device.kid, one.sequence)
        if said in self._cloned:
            return
        self._cloned[said] = None
        if len(self._cloned) > MAX_CLONES_SAID:
            self._cloned.popitem(last=False)
        log.error("board %s: signed two messages number %d", device.kid.hex(), one.sequence)
        self._submit_own(Clone.of(one, other))

    def _warn_of_limits(self) -> None:
        """Say in the log what this node cannot do, as its member stands on the chain."""
        if self._standing is not None:
            log.warning("%s: only follows the chain for now: %s", self.name, self._standing)
        member = self.ledger.state.members.get(self.key.kid)
        if member is not None and not CHAIN_ROLES & member.roles:
            log.warning(
                "%s: has none of the roles %s that may run a node; peers refuse it",
                self.name,
                ", ".join(sorted(CHAIN_ROLES)),
            )

    async def _sign_own(self) -> None:
        while True:
            bodies = [await self._own.get()]
            while not self._own.empty():
                bodies.append(self._own.get_nowait())
            results = await when_there_is_room(
                partial(asyncio.to_thread, self.ledger.submit, self.key, bodies)
            )
            for result in results:
                if result.status == "refused":
                    log.error("own transaction: refused: %s", result.error)
            self._admitted([r.transaction for r in results if r.status == "admitted"])

    async def _fetch_bundles(self) -> None:
        while True:
            self._fetcher.poke(self._network.peers)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), FETCH_INTERVAL_S)
            self._wanted.clear()

    def _want(self, payload: Payload) -> None:
        """Fetch a payload now; from any thread."""
        if self._fetcher.want(payload):
            self._loop.call_soon_threadsafe(self._wanted.set)

    async def _prune(self) -> None:
        """Let go of old bodies now and then, where the configuration says so."""
        storage = self.config.storage
        while storage.keep_days is not None:
            before_ms = time.time_ns() // 1_000_000 - storage.keep_days * DAY_MS
            try:
                done = await asyncio.to_thread(self.ledger.prune, before_ms, self._archive)
            except (DiskFullError, ArchiveError) as error:
                log.error("pruning: put off: %s", error)  # noqa: TRY400 - expected
            else:
                if done.blocks:
                    log.info("pruning: bodies below block %d are gone", done.below)
            await asyncio.sleep(PRUNE_INTERVAL_S)
        await asyncio.Event().wait()

    async def _watch_certificate(self) -> None:
        """Say in the log, each day, that this node needs another certificate before long."""
        while True:
            left = self._certificate_until - dt.datetime.now(dt.UTC)
            if left < CERTIFICATE_WARNING:
                log.warning(
                    "[peer] certificate %s: ends at %s, and nobody connects then; have the "
                    "authority issue another one (fogline consortium issue-certificate), and "
                    "restart this node with it",
                    self.config.peer.certificate,
                    self._certificate_until.isoformat(),
                )
            await asyncio.sleep(dt.timedelta(days=1).total_seconds())

    def _stored(self) -> None:
        if self._gateway is not None:
            self._gateway.bundle_arrived()

    # Parts

    def _make_gateway(self, section: MqttSection) -> Gateway:
        member = self.ledger.state.members.get(self.key.kid)
        if member is not None and "gateway" not in member.roles:
            where = "[mqtt] enabled" if section.enabled else "[serial] ports and usb"
            raise ConfigurationError(
                f"{where}: {self.name} has not the role gateway; take them out (enabled: false), "
                "or have the validators decide on it: fogline consortium propose --set-roles"
            )
        serial = self.config.serial
        parts = GatewayParts(
            name=self.name,
            key=self.key,
            ledger=self.ledger,
            blobs=self._blobs,
            quarantine=self.config.node.data_dir / "quarantine",
            submit=self._submit_own,
            admitted=self._admitted,
            cloned=self._report_clone,
            is_current=self._agreement.is_current,
        )
        ports = SerialSettings(serial.ports, tuple(map(UsbId.parse, serial.usb)), serial.baud)
        return Gateway(parts, self._broker(section) if section.enabled else None, serial=ports)

    def _broker(self, section: MqttSection) -> Broker:
        host, port = split_address(section.broker)
        context = broker_context(section.ca, self.founding.authority) if section.tls else None
        password = None
        if section.password_file is not None:
            try:
                password = read_small(section.password_file).decode().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"[mqtt] password_file {section.password_file}: cannot be read ({error})"
                ) from error
        return Broker(host, port, context, section.username, password)

    def _services(self) -> Services:
        return Services(
            member=self.name,
            version=version("fogline"),
            ledger=self.ledger,
            blobs=self._blobs,
            payloads=self._payloads,
            feed=self._feed,
            submit=self._submit,
            stored=self._stored,
            want=self._want,
            condition=self._condition,
        )

    def _condition(self) -> Condition:
        now = time.monotonic()  # the event loop's clock; this is asked from threads
        scores = self._network.scores
        connected = tuple(
            PeerCondition(
                peer.name,
                peer.kid,
                peer.status.height - 1 if peer.status else None,
                scores.points(peer.kid, now),
                scores.of(peer.kid, now).shed,
                scores.of(peer.kid, now).paused_s,
            )
            for peer in self._network.peers
        )
        banned = tuple(
            BannedCondition(ban.kid, ban.reason, ban.until - now, ban.times)
            for ban in scores.banned(now)
        )
        counts = dataclasses.asdict(self._gateway.counts()) if self._gateway else None
        refused = self._network.refused
        ends = round(self._certificate_until.timestamp() * 1000)
        return Condition(self._agreement.round, connected, counts, banned, refused, ends)


def _batches(items: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Cut transactions into messages of a bounded size."""
    batch: list[bytes] = []
    size = 0
    for raw in items:
        if len(batch) == wire.MAX_TRANSACTIONS or size + len(raw) > wire.MAX_TRANSACTIONS_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(raw)
        size += len(raw)
    if batch:
        yield batch


async def run_node(config: Config) -> None:
    """Run a node until SIGTERM or SIGINT; raises FogNodeError when it has to stop."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    node = Node(config)
    garbage.relax()
    await node.run(stopped)
