"""What a manifest may say: a network, its load, and the steps that perturb it.

Nodes are named `v1`, `v2`, ... (validators), `o1`, ... (observers) and `g1`, ... (members that
only are gateways); `broker` is the MQTT broker and `boards` where the boards are. `x1`, `x2`, ...
are distinct validators that the seed chooses. An unknown key or name is an error.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

BROKER = "broker"
BOARDS = "boards"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Network(_Table):
    """Who there is.

    Attributes:
        gateways: members that take in packs and do not vote; 0: the validators take them in.
        late: nodes that only a `start` step starts.
        clocks_s: by how much a node's clock is ahead of true time, in s, all the time.
    """

    validators: int = Field(ge=1, le=9)
    observers: int = Field(0, ge=0, le=4)
    gateways: int = Field(0, ge=0, le=4)
    quorum: Literal["majority", "two-thirds"] = "majority"
    block_interval_ms: int = Field(300, ge=200, le=2000)
    late: list[str] = []
    clocks_s: dict[str, int] = {}


class Load(_Table):
    """What boards and the operator send.

    Attributes:
        boards: how many.
        packs: of each board; all must become final.
        rows: readings per pack, each of all channels.
        pause_ms: a board measures its next pack after a pause from this range.
        gateway_timeout_s: after so long without a receipt a board turns to the next gateway.
        firmware: whether the boards run the real firmware, under MicroPython.
        enrolments: how many further boards the operator enrols meanwhile, through any node.
    """

    boards: int = Field(3, ge=1, le=32)
    packs: int = Field(30, ge=1, le=10_000)
    rows: int = Field(5, ge=1, le=60)
    pause_ms: list[int] = Field([50, 250], min_length=2, max_length=2)
    gateway_timeout_s: float = Field(4.0, ge=1, le=60, strict=False)
    firmware: bool = False
    enrolments: int = Field(10, ge=0, le=500)


class When(_Table):
    """What a step waits for; counts are from the end of the step before, `height` is absolute."""

    height: int | None = Field(None, ge=1)
    blocks: int | None = Field(None, ge=1)
    receipts: int | None = Field(None, ge=1)
    seconds: float | None = Field(None, ge=0, le=120, strict=False)

    @model_validator(mode="after")
    def _one(self) -> When:
        if len(self.model_fields_set) != 1:
            raise ValueError("when: give one of height, blocks, receipts, seconds")
        return self


class _Step(_Table):
    when: When | None = None


class Partition(_Step):
    """Cut all links between groups; who is in no group reaches everyone.

    `halves`: two groups of validators, as equal as can be, drawn by the seed. `single`: `x1`
    against all other nodes. `ring`: validators reach their two neighbours in the founding file's
    order, and the broker.
    """

    do: Literal["partition"]
    shape: Literal["groups", "halves", "single", "ring"] = "groups"
    groups: list[list[str]] = []


class OnNodes(_Step):
    """Do something to processes, to all of these at once.

    `kill`: SIGKILL. `stop`: SIGTERM, which must end in order. `start`. `restart`: stop, start.
    `pause`, `resume`: SIGSTOP, SIGCONT. `wipe`: stop, delete the data directory, start.
    `disconnect`: cut every link, the broker's too.
    """

    do: Literal["kill", "stop", "start", "restart", "pause", "resume", "wipe", "disconnect"]
    nodes: list[str] = Field(min_length=1)


class Rolling(_Step):
    """Restart these one after the other, with `blocks` new blocks between; empty: all nodes."""

    do: Literal["rolling"]
    nodes: list[str] = []
    blocks: int = Field(1, ge=1)


class Slow(_Step):
    """Make every link of these nodes slower, each way."""

    do: Literal["slow"]
    nodes: list[str] = Field(min_length=1)
    delay_ms: int = Field(ge=1, le=5000)


class Lossy(_Step):
    """Lose this share of the packets on every link of these nodes."""

    do: Literal["lossy"]
    nodes: list[str] = Field(min_length=1)
    loss: float = Field(gt=0, le=0.5)


class Heal(_Step):
    """Make all links good again."""

    do: Literal["heal"]


class Progress(_Step):
    """Wait until these nodes have so many more blocks, as a part with a quorum must."""

    do: Literal["progress"]
    nodes: list[str] = Field(min_length=1)
    blocks: int = Field(2, ge=1)


class Standstill(_Step):
    """Stay for so long, and see that these nodes lack a quorum and get no further."""

    do: Literal["standstill"]
    nodes: list[str] = Field(min_length=1)
    seconds: float = Field(ge=0.5, le=60, strict=False)


Step = Annotated[
    Partition | OnNodes | Rolling | Slow | Lossy | Heal | Progress | Standstill,
    Field(discriminator="do"),
]


class Expect(_Table):
    """What else than a clean ledger may be there at the end.

    Attributes:
        incidents: causes that must be on the ledger; any other is a failure.
    """

    incidents: list[str] = []


class Manifest(_Table):
    """One test network.

    Attributes:
        shows: what it shows, in one sentence.
        ci: whether it is part of every test run.
    """

    name: str
    shows: str
    ci: bool = False
    network: Network
    load: Load = Load()
    steps: list[Step]
    expect: Expect = Expect()

    @property
    def validators(self) -> tuple[str, ...]:
        """Names of the validators."""
        return tuple(f"v{i + 1}" for i in range(self.network.validators))

    @property
    def observers(self) -> tuple[str, ...]:
        """Names of the observers."""
        return tuple(f"o{i + 1}" for i in range(self.network.observers))

    @property
    def extra_gateways(self) -> tuple[str, ...]:
        """Names of the gateways that do not vote."""
        return tuple(f"g{i + 1}" for i in range(self.network.gateways))

    @property
    def gateways(self) -> tuple[str, ...]:
        """Names of the nodes that take in packs."""
        return self.extra_gateways or self.validators

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes."""
        return self.validators + self.observers + self.extra_gateways

    @model_validator(mode="after")
    def _known_names(self) -> Manifest:
        drawn = tuple(f"x{i + 1}" for i in range(self.network.validators))
        places = {*self.nodes, *drawn, BROKER, BOARDS}
        named = {*self.network.late, *self.network.clocks_s}
        for step in self.steps:
            named.update(getattr(step, "nodes", ()))
            named.update(name for group in getattr(step, "groups", ()) for name in group)
        if unknown := named - places:
            raise ValueError(f"{', '.join(sorted(unknown))}: not in this network")
        if wrong := {*self.network.late, *self.network.clocks_s} - set(self.nodes):
            raise ValueError(f"{', '.join(sorted(wrong))}: late and clocks_s take nodes by name")
        return self


def load(path: Path) -> Manifest:
    """Read a manifest; raises ValueError that names the file and the key."""
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
        return Manifest.model_validate({"name": path.stem, **value})
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: {where}: {first['msg']}") from error
