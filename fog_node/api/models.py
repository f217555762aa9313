"""What the API's JSON holds. Hashes and keys are hex, block hashes reversed as people see them.

Times are ISO 8601 in UTC; null after the year 9999. `fog_node.client` reads answers into
these, so this module imports nothing of the server.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """An answer; a client takes one with further keys, of a later version, as well."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Peer(Model):
    """A connection to another node."""

    name: str
    kid: str
    height: int | None = Field(description="of its latest final block; null if not told yet")
    points: float = Field(0.0, description="what it broke lately; 100 lead to a ban")
    shed: int = Field(0, description="its messages beyond its budget, not looked at")
    paused_s: float = Field(0.0, description="how long its connection was read more slowly")


class BannedPeer(Model):
    """A member that is not listened to for a while."""

    name: str | None = Field(description="null where it is no member any more")
    kid: str
    reason: str
    until: str | None = Field(description="when it may come again")
    times: int = Field(description="bans lately; each lasts twice as long as the one before")


class Blobs(Model):
    """The blob store."""

    count: int
    bytes: int


class Status(Model):
    """How a node is doing."""

    node: str = Field(description="member name of this node")
    consortium: str
    chain_id: str
    version: str = Field(description="of the software")
    height: int = Field(description="of the latest final block")
    head: str = Field(description="hash of the latest final block")
    head_time: str | None
    state_root: str
    round: int = Field(description="of the agreement on the next block")
    validators: int
    quorum: int
    peers: list[Peer]
    banned: list[BannedPeer] = Field([], description="members that are not listened to now")
    refused_connections: int = Field(0, description="from peers, since the start")
    waiting: int = Field(description="transactions that wait for a block")
    final: dict[str, int] = Field(description="final transactions by kind; `all` of them")
    devices: int
    blobs: Blobs
    payloads: Blobs | None = Field(
        None, description="contents of requests and responses; null if not told"
    )
    gateway: dict[str, Any] | None = Field(
        description="counters since the start; null without a gateway"
    )
    fork: str | None = Field(description="what stopped this ledger; null if nothing did")
    bodies_from: int = Field(
        1, description="height from which on bodies are kept here; older ones were pruned"
    )
    abstains_until: int | None = Field(
        None,
        description="up to this height this validator does not vote, since its ledger is new or "
        "was repaired; null where it does",
    )
    asks_before_voting: bool = Field(
        False,
        description="whether this validator's ledger is new, and it does not vote before others "
        "have said how far they are",
    )
    certificate_until: str | None = Field(
        None, description="when this node's TLS certificate ends; it needs another one before"
    )


class BlockSummary(Model):
    """A final block."""

    height: int
    hash: str
    previous: str
    time: str | None
    round: int = Field(description="for which it was mined")
    bits: int = Field(description="compact target")
    miner: str | None = Field(description="key id; null for block 0")
    miner_name: str | None
    transactions: int = Field(description="without the coinbase")
    size: int = Field(description="bytes")


class BlockPage(Model):
    """Blocks, lowest first."""

    blocks: list[BlockSummary]
    head: int = Field(description="height of the latest final block")


class Entry(Model):
    """A transaction's place in a list."""

    id: str
    kind: str
    signer: str
    sequence: int


class CertificateView(Model):
    """Who made a block final."""

    round: int
    voters: list[str]


class BlockView(BlockSummary):
    """A final block with what is in it."""

    merkle_root: str
    state_root: str
    nonce: int
    certificate: CertificateView
    contents: list[Entry]


class TransactionView(Model):
    """A transaction, waiting or final."""

    id: str
    kind: str
    signer: str = Field(description="key id")
    sequence: int
    dropped: int | None = Field(description="a board's watermark; null for members")
    size: int = Field(description="bytes")
    status: Literal["waiting", "final"]
    height: int | None = Field(description="of its block; null while it waits")
    index: int | None = Field(description="in its block, from 1; null while it waits")
    body: dict[str, Any] = Field(description="by kind, see fog_node/protocol/SPEC.md")


class TransactionPage(Model):
    """Transactions, latest first."""

    transactions: list[TransactionView]
    next: str | None = Field(description="`before` of the next page; null on the last one")


class ChannelView(Model):
    """One measured quantity and its plausible range."""

    name: str
    unit: str
    minimum: float
    maximum: float


class StartView(Model):
    """A start of a board whose time it told later, for packs that it made without time."""

    boot: int = Field(description="number of the start")
    time: str | None = Field(description="when it was")
    by: str | None = Field(description="who gave the time: key id of a gateway, ntp or own clock")
    pack: int = Field(description="number of the pack that says so; it holds for those before")


class DeviceView(Model):
    """An enrolled board."""

    kid: str
    key: str = Field(description="public key, x and y")
    owner: str
    type: str
    board: str
    status: str
    next: int = Field(description="number of its next transaction; all below are final")
    dropped: int = Field(description="it keeps nothing below this number any more")
    enrolled_height: int
    starts: list[StartView] = Field(description="latest ones, as told; see protocol/SPEC.md")
    channels: list[ChannelView]


class DevicePage(Model):
    """Devices in order of their key ids."""

    devices: list[DeviceView]
    next: str | None = Field(description="`after` of the next page; null on the last one")


class MemberView(Model):
    """A member of the consortium."""

    kid: str
    key: str = Field(description="public key, x and y")
    name: str
    roles: list[str]
    status: str
    next: int = Field(description="number of its next transaction; all below are final")


class Members(Model):
    """All members, removed ones included."""

    members: list[MemberView]


class ConsortiumView(Model):
    """What holds in the consortium after the latest block."""

    name: str
    height: int = Field(description="of the latest block")
    quorum_rule: str
    quorum: int = Field(description="votes that make a block final; approvals that decide")
    validators: int = Field(description="that the quorum is counted of, suspended ones included")
    voters: list[str] = Field(description="key ids of those whose votes count, in their order")
    parameters: dict[str, int]
    revoked_certificates: list[str] = Field(description="serial numbers, hex")


class ProposalView(Model):
    """A proposal, and how it stands."""

    id: str = Field(description="of its transaction")
    proposer: str
    opened: int = Field(description="height of its block")
    until: str | None = Field(description="undecided after this it expires")
    note: str
    changes: list[dict[str, Any]]
    outcome: str = Field(description="open, applied, failed, expired, withdrawn or void")
    closed: int | None = Field(description="height of the block that decided it")
    approvals: list[str] = Field(description="who is for it, by name")
    missing: int = Field(description="how many approvals of voters it still takes")


class Proposals(Model):
    """Open proposals, then the latest closed ones."""

    quorum: int
    proposals: list[ProposalView]


class SignerView(Model):
    """Who may sign next, and with which number."""

    kid: str
    type: Literal["member", "device"]
    status: str
    next: int = Field(description="to sign with now: behind those that wait here")


class LabelsView(Model):
    """Whose labels were followed in a training."""

    root: str
    count: int


class QueryView(Model):
    """How the transactions of a data set were chosen."""

    height: int
    devices: list[str] | None
    since: str | None
    until: str | None
    labels: LabelsView | None


class DatasetView(Model):
    """What a model was trained on."""

    root: str
    count: int
    first: int
    last: int
    query: QueryView | None = None


class ReleaseView(Model):
    """The latest release of one name for one device type."""

    name: str
    version: int
    device_type: str
    manifest: str
    bundle: str
    size: int
    metrics: dict[str, float]
    dataset: DatasetView
    time: str | None
    height: int
    held: bool = Field(description="whether this node holds the bundle")


class Releases(Model):
    """The latest release for each name and device type."""

    releases: list[ReleaseView]


class OfferedView(Model):
    """A release that boards may be offered."""

    name: str
    version: int
    bundle: str
    size: int
    transaction: str = Field(description="id of its release")


class RolloutGroupView(Model):
    """A group of a rollout, and how it does."""

    percent: int | None = Field(description="of all boards, those of groups before included")
    boards: list[str] = Field(description="key ids, where the group names them")
    success: int = Field(description="percent that must have done well for the next to begin")
    errors: int = Field(description="percent whose failure stops the rollout")
    size: int | None = Field(description="boards in it; null before the approval")
    done: int
    failed: int
    since: str | None = Field(description="when it began")


class RolloutView(Model):
    """A rollout, and how it stands."""

    id: str = Field(description="of its transaction")
    status: str = Field(description="proposed, running, paused, finished, stopped or withdrawn")
    reason: str
    proposer: str
    approver: str | None
    release: OfferedView
    back: OfferedView | None
    model: str
    group: int = Field(description="number of the latest group that has begun; 0 for none")
    groups: list[RolloutGroupView]
    verdicts: int
    soak_s: int
    anomalies: int
    silent_s: int
    note: str


class OfferView(Model):
    """What the boards of a device type are offered."""

    device_type: str
    stable: OfferedView | None = Field(description="what all boards may run")
    back: OfferedView | None = Field(description="for those that run what was rolled back")
    rollout: RolloutView | None = Field(description="the present or latest one")


class Offers(Model):
    """Offers, in order of the device types."""

    offers: list[OfferView]


class RolloutBoardView(Model):
    """How a board does in its device type's latest rollout."""

    kid: str
    group: int
    state: str = Field(description="waiting, trying, done, failed or returned")
    cause: str | None = Field(description="refused, rolled-back, silent or anomalies")
    verdicts: int
    anomalies: int
    since: str | None = Field(description="block of its first pack under the new model")
    heard: str | None = Field(description="block of its latest transaction that counted")


class RolloutBoards(Model):
    """A page of boards."""

    boards: list[RolloutBoardView]
    next: str | None = Field(description="`after` of the next page; null on the last")


class Submitted(Model):
    """What became of a transaction that was sent in."""

    id: str
    status: Literal["admitted", "waiting", "final"]


class Stored(Model):
    """A blob that is held now."""

    sha256: str
    size: int


class Health(Model):
    """Whether the node works."""

    ok: bool


class Problem(Model):
    """What is wrong with a request."""

    field: str
    problem: str
    remedy: str


class ErrorView(Model):
    """The body of every answer that is an error."""

    error: Problem
