"""The ledger of one node: final blocks, the state they make, and what waits for the next.

Any method may be called from any thread. `head`, `state`, `snapshot` and the questions about
waiting transactions return at once; `admit(durable=True)`, `submit`, `commit` and `save_*`
wait for the disk and `validate` and `template` compute for long, so an asyncio program calls
those in a worker thread. A State or BlockInfo that was handed out never changes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from fog_node.errors import (
    ConflictError,
    DamagedError,
    DiskFullError,
    ForkError,
    LedgerError,
    PrunedError,
    StoreError,
)
from fog_node.protocol.block import Block, Header, parse_block
from fog_node.protocol.checkpoint import Checkpoint
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.proof import MAX_SUBJECTS, Proof
from fog_node.protocol.sealed_header import LightChain, SealedHeader
from fog_node.protocol.transactions import (
    Body,
    Clone,
    Enrol,
    Revoke,
    Transaction,
    parse_transaction,
    read_pack,
    sign_transaction,
)
from fog_node.protocol.validators import ValidatorSet
from fog_node.protocol.votes import Certificate, Vote

from .chain import BlockInfo
from .checkpoints import make_checkpoint
from .consensus_messages import HeightSetting, Lock
from .mempool import Limits, Mempool
from .proofs import Located, ProofMaker
from .pruning import Archive, Progress, Pruned, prune
from .records import Device
from .state import State
from .store import Fork, Place, Store
from .stored_block import PrunedBlock, StoredBlock, read_block, read_sealed
from .stored_chain import StoredChain
from .template import BLOCK_OVERHEAD_BYTES, make_template
from .validation import (
    apply_transactions,
    check_header,
    check_transaction,
    earliest_time,
    spacing,
)
from .verifier import Verifier

# States of blocks that were validated but are not final: a few proposals compete.
MAX_VALIDATED = 8


@dataclass(frozen=True)
class Snapshot:
    """A final block and the state after it."""

    head: BlockInfo
    state: State


class Admission(NamedTuple):
    """What became of a transaction that was offered.

    Attributes:
        status: `admitted` now; `waiting` before already, or `final`, with these very bytes;
            `refused`.
        error: why it was refused; a ConflictError holds the other transaction.
    """

    transaction: Transaction
    status: Literal["admitted", "waiting", "final", "refused"]
    error: LedgerError | None = None


@dataclass(frozen=True)
class Committed:
    """What a final block changed here.

    Attributes:
        info: the block.
        evicted: ids of waiting transactions that can no longer become final: their signer
            was revoked, another with their number is final, or the state now forbids them.
    """

    info: BlockInfo
    evicted: tuple[bytes, ...] = ()


class Ledger:
    """See the module's docstring; made by `Ledger.open`."""

    def __init__(self, founding: Founding, store: Store, limits: Limits | None = None) -> None:
        """Take up what the store holds; `open` is the usual way."""
        self.founding = founding
        self._store = store
        self._verifier = Verifier(founding.chain_id)
        self._genesis = BlockInfo.of_genesis(founding)
        self._pool = Mempool(limits)
        self._validated: OrderedDict[tuple[bytes, bytes], State] = OrderedDict()
        # Guards pool, snapshot and validated states; never held while the disk is written.
        self._lock = threading.Lock()
        # Held by whoever changes the database, so that it and the pool go together.
        self._writing = threading.Lock()
        # Held from asking for a number until it is used.
        self._signing = threading.Lock()
        self._snapshot = self._load()
        self._tables = {kid: d.table.prepared for kid, d in self.state.devices.items()}
        self._fork = self._load_fork()
        self._load_pending()

    @classmethod
    def open(cls, directory: Path, founding: Founding, limits: Limits | None = None) -> Ledger:
        """Open the ledger in a data directory, or begin one.

        Raises:
            StoreError: in use by another process, damaged, of another ledger or release.
        """
        store = Store(directory, founding.chain_id)
        try:
            return cls(founding, store, limits)
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        """Close the database; the ledger is of no use afterwards."""
        with self._writing:
            self._store.close()

    # What is final

    @property
    def snapshot(self) -> Snapshot:
        """Head and state that belong together."""
        return self._snapshot

    @property
    def head(self) -> BlockInfo:
        """The latest final block; the genesis at first."""
        return self._snapshot.head

    @property
    def height(self) -> int:
        """Height of the latest final block."""
        return self._snapshot.head.height

    @property
    def state(self) -> State:
        """The state after the latest final block."""
        return self._snapshot.state

    @property
    def fork(self) -> ForkError | None:
        """What stops this ledger for good: a second certified block at one height."""
        return ForkError(*self._fork) if self._fork else None

    def forks(self) -> list[Fork]:
        """Certified blocks that we hold beside our own."""
        return self._store.forks()

    def block(self, height: int) -> tuple[bytes, bytes] | None:
        """Bytes of the block at this height, from 1, and of its certificate."""
        found = self._store.block(height)
        if found is None and 0 < height <= self._store.meta.base:
            raise PrunedError(height)
        return found

    def info(self, height: int) -> BlockInfo | None:
        """Return the block at this height, from 0."""
        return self._genesis if height == 0 else self._store.info(height)

    def info_by_hash(self, block_hash: bytes) -> BlockInfo | None:
        """Return the block with this hash, in internal byte order."""
        if block_hash == self._genesis.hash:
            return self._genesis
        return self._store.info_by_hash(block_hash)

    def infos(self, first: int, last: int) -> list[BlockInfo]:
        """Return the blocks from height `first` to `last`, both included, lowest first."""
        return self._store.infos(first, last)

    def find(self, transaction_id: bytes) -> Place | None:
        """Where a final transaction is, and its bytes."""
        return self._store.find(transaction_id)

    def find_sequence(self, signer: bytes, sequence: int) -> Place | None:
        """Where the final transaction of this signer and number is, and its bytes."""
        return self._store.find_sequence(signer, sequence)

    def list_kind(
        self, kind: str, before: tuple[int, int] | None = None, limit: int = 100
    ) -> list[Place]:
        """Return final transactions of one kind but `pack`, latest first, below (height, index)."""
        return self._store.list_kind(kind, before, limit)

    def list_signer(
        self, signer: bytes, before: int | None = None, limit: int = 100
    ) -> list[Place]:
        """Return final transactions of one signer, latest first, with numbers under `before`."""
        return self._store.list_signer(signer, before, limit)

    def validator_set_at(self, height: int) -> ValidatorSet:
        """Return who votes, or voted, on the block at this height, from 1 to the next one."""
        return self._store.validator_set(height) or self.founding.validator_set

    def handovers(self, last: int) -> list[int]:
        """Heights up to `last` of the blocks after which another set votes, lowest first."""
        return self._store.handovers(last)

    def counts(self) -> dict[str, int]:
        """How many final transactions there are of each kind but packs, and in all (`all`)."""
        return self._store.count_kinds()

    # Proofs

    def prove(self, transaction_id: bytes) -> Proof | None:
        """Return the proof of a final transaction; None where it is not final here."""
        place = self._store.find(transaction_id)
        if place is None:
            return None
        at = Located(place.height, place.index)
        return ProofMaker(self).transaction(transaction_id, place.signer, at)

    def prove_range(self, signer: bytes, first: int, last: int) -> Proof | None:
        """Return the proof of all that a signer numbered `first` to `last`, at least 1.

        None where not all of them are final here. At most MAX_SUBJECTS of them.
        """
        if not 1 <= first <= last < first + MAX_SUBJECTS:
            raise ValueError(f"first, last: {first}, {last} are not 1 to {MAX_SUBJECTS} numbers")
        places: list[Located] = []
        for number in range(first, last + 1):
            spot = self._store.spot(signer, number)
            if spot is None:
                gap = self._gap_over(signer, number)
                if gap is None:
                    return None
                spot = (gap.height, gap.index)
            if not places or places[-1] != Located(*spot):
                places.append(Located(*spot))
        return ProofMaker(self).range(signer, first, last, places)

    def prove_enrolment(self, device: bytes) -> Proof | None:
        """Return the proof of a device's enrolment and of how it stands now; None if unknown."""
        snapshot = self._snapshot
        record = snapshot.state.devices.get(device)
        if record is None:
            return None
        at, signer = self._enrolment(record)
        return ProofMaker(self).enrolment(
            device,
            signer,
            at,
            snapshot.head.height,
            snapshot.state.prove(record),
        )

    def introduction(self, kid: bytes) -> tuple[Located, bytes] | None:
        """Where a key came in that the founding file lacks, and who signed that: a ProofSource."""
        state = self.state
        device = state.devices.get(kid)
        if device is not None:
            return self._enrolment(device)
        member = state.membership.members.get(kid) or state.membership.retired.get(kid)
        if member is None or not member.introduced:
            return None
        place = self._store.find(member.introduced)
        if place is None:
            raise self._missing(f"ids: the proposal of {kid.hex()}")
        return Located(place.height, place.index), place.signer

    def _enrolment(self, device: Device) -> tuple[Located, bytes]:
        place = self._store.find(device.enrolment_id)
        if place is None:
            raise self._missing(f"ids: the enrolment of {device.kid.hex()}")
        return Located(place.height, place.index), place.signer

    def _missing(self, what: str) -> StoreError:
        """Return the error for what is nowhere: lost, or from before the checkpoint."""
        joined = self._store.meta.joined
        return PrunedError(joined) if joined else self._store.damaged(f"{what} is missing")

    def sealed_header(self, height: int) -> SealedHeader:
        """Return a final block without its transactions; raises StoreError."""
        return read_sealed(self._store, height, self.validator_set_at(height + 1))

    def stored_block(self, height: int) -> StoredBlock | PrunedBlock:
        """Return a final block, parsed but for its transactions; raises StoreError."""
        return self._stored(height)

    # Joining and forgetting

    def checkpoint(self) -> Checkpoint:
        """Return what a new node can begin with, as of the latest block; raises StoreError."""
        with self._writing:  # no block comes between two reads
            return make_checkpoint(self._store, self.founding)

    @property
    def pruned(self) -> int:
        """Bodies of the blocks below this height are no longer here."""
        return self._store.meta.pruned

    def light_chain(self) -> LightChain:
        """Return how far headers are known that were checked: at least to the head."""
        snapshot = self._snapshot
        try:
            ahead = self._store.ahead_chain()
        except DamagedError:
            self._store.drop_ahead()  # they can be had again
            ahead = None
        if ahead is not None and ahead.height > snapshot.head.height:
            return ahead
        head = snapshot.head
        voters = self.validator_set_at(head.height + 1)
        chain_id = self.founding.chain_id
        return LightChain(chain_id, head.height, head.hash, head.time, head.state, voters)

    def save_ahead(self, headers: Sequence[SealedHeader], chain: LightChain) -> None:
        """Keep checked headers of blocks whose bodies are still to come."""
        self._store.save_ahead(headers, chain)

    def ahead(self, height: int) -> SealedHeader | None:
        """Return the checked header of a block whose body is still to come."""
        return self._store.ahead(height)

    @property
    def base(self) -> int:
        """Nothing at all is here of the blocks from 1 up to this height."""
        return self._store.meta.base

    def prune(
        self, before_ms: int, archive: Archive | None, progress: Progress | None = None
    ) -> Pruned:
        """Drop the bodies of blocks that are older than a time; see `pruning`."""
        return prune(self._store, before_ms, archive, progress)

    # What waits

    @property
    def waiting(self) -> int:
        """How many transactions wait."""
        return len(self._pool)

    def has(self, transaction_id: bytes) -> bool:
        """Whether a transaction waits here."""
        return self._pool.has(transaction_id)

    def get_waiting(self, transaction_id: bytes) -> Transaction | None:
        """Return a waiting transaction."""
        return self._pool.get(transaction_id)

    def waiting_bytes(self) -> list[bytes]:
        """Bytes of all that wait here, to pass on to a node that was away."""
        with self._lock:
            return self._pool.raw()

    def transaction_at(self, signer: bytes, sequence: int) -> Transaction | None:
        """Return the transaction of this signer and number, be it waiting or final.

        None also where it was pruned.
        """
        waiting = self._pool.at(signer, sequence)
        if waiting is not None:
            return waiting
        place = None
        with suppress(PrunedError):
            place = self._store.find_sequence(signer, sequence)
        return None if place is None else parse_transaction(place.raw)

    def next_sequence(self, signer: bytes) -> int:
        """Return the number that the signer's next transaction must have, behind those waiting."""
        with self._lock:
            return self._pool.next_sequence(signer, self._snapshot.state)

    def work_available(self, now_ms: int) -> bool:
        """Whether there is something to seal: a transaction, or a heartbeat that is due."""
        with self._lock:
            head, state = self._snapshot.head, self._snapshot.state
            heartbeat_ms = state.parameters.heartbeat_ms
            if heartbeat_ms and now_ms - head.time >= heartbeat_ms:
                return True
            return self._pool.is_ready(state)

    def admit(self, transactions: Sequence[Transaction], durable: bool = True) -> list[Admission]:
        """Check transactions and let them wait for a block.

        Args:
            transactions: parsed; in one call, as one write to the disk serves them all.
            durable: whether those admitted must be on this node's disk when this returns.
                The node that took them in says so; the others got them from it.

        Returns:
            One result per transaction, in order.

        Raises:
            StoreError: none of them was admitted; also a ForkError.
        """
        self._check_whole()
        snapshot = self._snapshot
        checked = [self._check(transaction) for transaction in transactions]
        with self._writing if durable else nullcontext():
            with self._lock:
                if self._snapshot is not snapshot:  # a block came meanwhile
                    checked = [self._check(transaction) for transaction in transactions]
                results = [
                    known or self._take(transaction)
                    for transaction, known in zip(transactions, checked, strict=True)
                ]
            if durable:
                self._keep(results)
        return results

    def keep(self, results: Sequence[Admission]) -> None:
        """Put on this node's disk what `admit(durable=False)` let wait and still waits.

        For who can go on with other work meanwhile: `admit` does the same by itself.

        Raises:
            StoreError: none of them waits any longer.
        """
        with self._writing:
            self._keep(results)

    def submit(self, key: SigningKey, bodies: Sequence[Body]) -> list[Admission]:
        """Sign these as the member's next transactions and admit them, durably.

        Calls take turns, so that no number is used twice by this process.

        Raises:
            StoreError: none of them was admitted; also a ForkError.
        """
        with self._signing:
            first = self.next_sequence(key.kid)
            return self.admit(
                [
                    sign_transaction(key, body, self.founding.chain_id, sequence)
                    for sequence, body in enumerate(bodies, start=first)
                ]
            )

    # The next block

    def height_setting(self) -> HeightSetting:
        """Return what the chain says about the next height, for the consensus."""
        snapshot = self._snapshot
        state = snapshot.state
        blocks = spacing(state)
        return HeightSetting(
            height=snapshot.head.height + 1,
            parent=snapshot.head.hash,
            validators=tuple(member.kid for member in state.validators),
            quorum=state.quorum,
            suspended=state.suspended,
            recent_miners=StoredChain(snapshot.head, self._genesis, self._store).miners(blocks),
            spacing=blocks,
            abstains=self.asking or snapshot.head.height < self.abstain,
        )

    def earliest_ms(self) -> int:
        """Least time that the next block may have, in ms since 1970."""
        snapshot = self._snapshot
        return earliest_time(snapshot.head, snapshot.state.parameters.rest_ms)

    def template(self, key: SigningKey, round_: int, now_ms: int) -> Block:
        """Make a block of what waits; its nonce is 0 and still to be mined.

        Args:
            key: of the validator that mines it.
            round_: to mine it for.
            now_ms: our clock; the block's time is at least `earliest_ms`.

        Raises:
            LedgerError: `not_eligible`.
            ForkError: this ledger stands still.
        """
        self._check_whole()
        with self._lock:
            snapshot = self._snapshot
            limits = snapshot.state.parameters
            candidates = self._pool.candidates(
                snapshot.state,
                limits.max_block_bytes - BLOCK_OVERHEAD_BYTES,
                limits.max_block_transactions,
            )
        chain = StoredChain(snapshot.head, self._genesis, self._store)
        block, after = make_template(key, round_, now_ms, chain, snapshot.state, candidates)
        self._remember(block.header, after)
        return block

    def parse_transaction(self, data: bytes) -> Transaction:
        """Parse a transaction, readings being held against their device's channels at once.

        Raises:
            ProtocolError: it is not as the formats say.
        """
        return parse_transaction(data, self._tables)

    def read_pack(self, data: bytes) -> Transaction | None:
        """Do the same for a pack; None for anything else."""
        return read_pack(data, self._tables)

    def parse_block(self, data: bytes) -> Block:
        """Parse a block, taking what waits here as parsed already; raises ProtocolError."""
        limit = self.state.parameters.max_block_bytes
        return parse_block(data, limit, self._pool.get, self.parse_transaction)

    def validate(self, block: Block, now_ms: int | None) -> None:
        """Check that a block may follow on the head, all but the votes.

        Args:
            block: as parsed.
            now_ms: our clock for a block to vote on; None for a certified one.

        Raises:
            LedgerError: `block`; the message names the field.
        """
        self._state_after(block, self._snapshot, now_ms)

    def commit(self, block: Block, certificate: Certificate) -> Committed:
        """Make a block final, on disk when this returns; one that is final already is let be.

        Raises:
            LedgerError: `block` or `certificate`; nothing has changed.
            ForkError: another block is final at this height and this one is certified too.
                Both are kept, and the ledger takes nothing more.
            StoreError: nothing has changed.
        """
        with self._writing:
            self._check_whole()
            snapshot = self._snapshot
            if block.height <= snapshot.head.height:
                return self._commit_again(block, certificate)
            after = self._state_after(block, snapshot, None)
            self._check_certificate(block, certificate, snapshot.state.validator_set)
            ids = [transaction.id for transaction in block.transactions]
            handover = None
            if block.coinbase.next != block.coinbase.validators:
                handover = after.validator_set
            info = self._store.commit(block, certificate, after.changes(), ids, handover)
            with self._lock:
                self._snapshot = Snapshot(info, after)
                self._add_tables(block)
                self._validated.clear()
                self._pool.remove(ids)
                evicted = self._obsolete(block)
                on_disk = [item for item in evicted if self._pool.is_durable(item)]
                self._pool.remove(evicted)
            if on_disk:
                # The block is final; where there is no room, the next start drops these.
                with suppress(DiskFullError):
                    self._store.remove_pending(on_disk)
            return Committed(info, tuple(evicted))

    # What this validator has promised

    def save_vote(self, vote: Vote) -> None:
        """Keep an own vote; only when this returns may it be sent.

        Raises:
            StoreError: it is not on disk, or contradicts one that is; never send it.
        """
        self._check_whole()
        self._store.save_vote(vote)

    def save_lock(self, lock: Lock) -> None:
        """Keep what this validator is locked on; on disk when this returns."""
        self._check_whole()
        self._store.save_lock(lock)

    @property
    def abstain(self) -> int:
        """Up to this height this validator must not vote: how it voted there is lost."""
        return self._store.meta.abstain

    @property
    def asking(self) -> bool:
        """Whether this validator must not vote: it has not heard yet how far the others are."""
        return self._store.meta.asking

    def stop_asking(self, abstain: int) -> None:
        """Let this validator vote above a height, and see `height_setting` change."""
        self._store.stop_asking(abstain)

    def saved(self) -> tuple[list[Vote], Lock | None]:
        """Own votes and lock of the next height, to take up the agreement after a start."""
        height = self.height + 1
        return self._store.votes(height), self._store.lock(height)

    # Beneath

    def _load(self) -> Snapshot:
        head = self._store.head()
        if head is None:
            state = State.at_founding(self.founding)
            state.root()
            return Snapshot(self._genesis, state)
        try:
            coinbase = self._stored(head.height).coinbase
            state = State.from_entries(self.founding, self._store.state_entries(), head.time)
        except ProtocolError as error:
            raise self._store.damaged(f"block {head.height}: {error}") from error
        if state.root() != coinbase.state:
            raise self._store.damaged(f"state: is not the one after block {head.height}")
        return Snapshot(head, state)

    def _load_fork(self) -> tuple[int, tuple[bytes, bytes]] | None:
        for fork in self._store.forks():
            ours = self._store.info(fork.height)
            if ours is not None:
                return fork.height, (ours.hash, fork.hash)
        return None

    def _load_pending(self) -> None:
        """Take up the waiting transactions, and drop those that can no longer become final."""
        stale = []
        for transaction_id, raw in self._store.pending():
            try:
                transaction = self.parse_transaction(raw)
            except ProtocolError as error:
                raise self._store.damaged(f"mempool: {error}") from error
            # It was verified before it was written, and the id shows that it is the same.
            self._verifier.remember(transaction_id)
            if self._check(transaction) or self._take(transaction).status != "admitted":
                stale.append(transaction_id)
        self._pool.mark_durable(self._pool.ids())
        if stale:
            self._store.remove_pending(stale)

    def _add_tables(self, block: Block) -> None:
        devices = self._snapshot.state.devices
        for transaction in block.transactions:
            body = transaction.body
            if isinstance(body, Enrol):
                self._tables[body.device] = devices[body.device].table.prepared

    def _stored(self, height: int) -> StoredBlock | PrunedBlock:
        return read_block(self._store, height)

    def _check_whole(self) -> None:
        if (fork := self.fork) is not None:
            raise fork

    def _check(self, transaction: Transaction) -> Admission | None:
        """Return what can be said of a transaction before it is taken in; None where it may be."""
        if self._pool.has(transaction.id):
            return Admission(transaction, "waiting")
        snapshot = self._snapshot
        try:
            if transaction.sequence < snapshot.state.next_sequence(transaction.signer):
                return self._check_final(transaction, snapshot.state)
            check_transaction(transaction, snapshot.state, snapshot.head.height + 1, self._verifier)
        except LedgerError as error:
            return Admission(transaction, "refused", error)
        return None

    def _check_final(self, transaction: Transaction, state: State) -> Admission:
        signer, sequence = transaction.signer, transaction.sequence
        spot = self._store.spot(signer, sequence)
        if spot is None:
            if (gap := self._gap_over(signer, sequence)) is not None:
                raise LedgerError(
                    "sequence",
                    f"transaction.sequence: {sequence} was given up as lost by the signer's "
                    f"number {gap.sequence}",
                )
            if self._store.meta.joined:
                raise LedgerError(
                    "sequence",
                    f"transaction.sequence: {sequence} became final before the checkpoint that "
                    "this node began with; ask a node that keeps all",
                )
            raise self._store.damaged(f"runs: number {sequence} of {signer.hex()} is missing")
        if self._store.has_id_at(transaction.id, spot):
            return Admission(transaction, "final")
        self._verifier.verify(transaction, state.trusted_signer(transaction).key, state)
        try:
            place = self._store.find_sequence(signer, sequence)
        except PrunedError as error:
            raise LedgerError(
                "sequence",
                f"transaction.sequence: {sequence} is final in block {error.height} as something "
                "else, which was pruned here; ask a node that keeps all",
            ) from error
        assert place is not None  # there is a spot
        if place.id == transaction.id:
            return Admission(transaction, "final")
        raise ConflictError(
            f"transaction.sequence: {signer.hex()} has signed something else as number "
            f"{sequence}, final in block {place.height}",
            parse_transaction(place.raw),
        )

    def _gap_over(self, signer: bytes, sequence: int) -> Place | None:
        """Return the signer's final gap that gave up this number; LedgerError where pruned."""
        try:
            following = self._store.first_above(signer, sequence)
        except PrunedError as error:
            raise LedgerError(
                "sequence",
                f"transaction.sequence: what became of {sequence} was pruned here with block "
                f"{error.height}; ask a node that keeps all",
            ) from error
        if following is None or following.kind != "gap":
            return None
        return following if parse_transaction(following.raw).first <= sequence else None

    def _take(self, transaction: Transaction) -> Admission:
        try:
            is_new = self._pool.add(transaction)
        except LedgerError as error:
            return Admission(transaction, "refused", error)
        return Admission(transaction, "admitted" if is_new else "waiting")

    def _keep(self, results: Sequence[Admission]) -> None:
        """Write those that wait and are not on disk yet; on failure none was admitted."""
        rows = {
            result.transaction.id: result.transaction.raw
            for result in results
            if result.status in ("admitted", "waiting")
            and self._pool.is_volatile(result.transaction.id)
        }
        if not rows:
            return
        try:
            self._store.add_pending(rows.items())
        except StoreError:
            with self._lock:
                self._pool.remove(
                    item.transaction.id for item in results if item.status == "admitted"
                )
            raise
        with self._lock:
            self._pool.mark_durable(rows)

    def _remember(self, header: Header, after: State) -> None:
        """Keep the state after a block; the Merkle root stands for all that makes it."""
        with self._lock:
            self._validated[header.previous, header.merkle_root] = after
            while len(self._validated) > MAX_VALIDATED:
                self._validated.popitem(last=False)

    def _state_after(self, block: Block, snapshot: Snapshot, now_ms: int | None) -> State:
        chain = StoredChain(snapshot.head, self._genesis, self._store)
        check_header(block, chain, snapshot.state, self._verifier, now_ms)
        with self._lock:
            after = self._validated.get((block.header.previous, block.header.merkle_root))
        if after is None:
            after = apply_transactions(block, snapshot.state, self._verifier)
            self._remember(block.header, after)
        return after

    def _check_certificate(
        self, block: Block, certificate: Certificate, voters: ValidatorSet
    ) -> None:
        if (certificate.block_hash, certificate.height) != (block.hash, block.height):
            raise LedgerError("certificate", "certificate: is for another block")
        if certificate.round < block.coinbase.round:
            raise LedgerError("certificate", "certificate.round: is before the block was mined")
        try:
            voters.verify(certificate, self.founding.chain_id)
        except ProtocolError as error:
            raise LedgerError("certificate", str(error)) from error

    def _commit_again(self, block: Block, certificate: Certificate) -> Committed:
        ours = self.info(block.height)
        if ours is None:
            if block.height <= self.base:
                raise PrunedError(block.height)
            raise self._store.damaged(f"block {block.height}: is missing")
        if ours.hash == block.hash:
            return Committed(ours)
        self._check_certificate(block, certificate, self.validator_set_at(block.height))
        self._store.save_fork(block, certificate)
        self._fork = (block.height, (ours.hash, block.hash))
        raise ForkError(*self._fork)

    def _obsolete(self, block: Block) -> list[bytes]:
        """Ids of waiting transactions that the state after `block` rules out for good."""
        head, state = self._snapshot.head, self._snapshot.state
        found: dict[bytes, None] = {}
        for signer in {transaction.signer for transaction in block.transactions}:
            found.update(dict.fromkeys(self._pool.waiting_of(signer, state.next_sequence(signer))))
        for transaction in block.transactions:
            if isinstance(transaction.body, Revoke):
                found.update(dict.fromkeys(self._pool.waiting_of(transaction.body.subject)))
            elif isinstance(transaction.body, Clone):
                found.update(dict.fromkeys(self._pool.waiting_of(transaction.body.device)))
        if any(transaction.kind in ("propose", "approve") for transaction in block.transactions):
            for signer in self._pool.signers():
                record = state.signer(signer)
                if record is None or record.status == "revoked":  # removed, or its key replaced
                    found.update(dict.fromkeys(self._pool.waiting_of(signer)))
        # What a member signs depends on more than its own record; a device's does not.
        for kid, member in state.members.items():
            waiting = self._pool.at(kid, member.next)
            if waiting is None or waiting.id in found:
                continue
            try:
                state.check(waiting, head.height + 1)
            except LedgerError:
                found[waiting.id] = None
        return list(found)
