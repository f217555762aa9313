"""What a round of learning across sites was made of: who took part, and which model became which.

Only hashes and counts are said here; updates and models stay with whoever trains.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from .cbor import decode, encode
from .errors import FormatError
from .keys import KID_BYTES
from .merkle import HASH_BYTES
from .validate import array, number, octets, text, text_map, time_ms, uint

# With the envelope it stays below what a transaction may have.
MAX_PAYLOAD_BYTES = 23 * 1024
RUN_BYTES = 16
MAX_NAME_CHARS = 64
MAX_SITES = 128
MAX_METRICS = 16
MAX_ROUND = 100_000
# Rows that a site may say it learned from.
MAX_EXAMPLES = 2**48


@dataclass(frozen=True)
class SiteUpdate:
    """What a site gave to a round.

    Attributes:
        site: its name in the federation.
        member: key id of the member whose fog node it is; None where the signer does not say.
        update: SHA-256 of the model that it sent, as SPEC.md says; None where updates were added
            up under masks, so that nobody has seen it.
        examples: rows that it learned from; None where that is kept private.
    """

    site: str
    member: bytes | None
    update: bytes | None
    examples: int | None


@dataclass(frozen=True)
class Privacy:
    """What has been spent of each machine's privacy up to and with this round.

    Attributes:
        noise: standard deviation of the noise, in clipping bounds.
        clip: bound of what a machine moves a step by, Euclidean norm.
        epsilon, delta: differential privacy of one machine's whole record.
    """

    noise: float
    clip: float
    epsilon: float
    delta: float


@dataclass(frozen=True)
class TrainingRound:
    """One round, the word of the trainer who signs it.

    Attributes:
        run: the training's own number, drawn at its start.
        round: from 1; those of one run follow one another by `before` and `after`.
        task: what is learned.
        strategy: how updates are put together.
        secure: whether updates were added up under masks.
        before, after: SHA-256 of the global model, as SPEC.md says.
        updates: of the sites that took part, by name.
        absent: names of sites that were away, or gave nothing of use.
        metrics: name to value, over all sites.
        privacy: None without noise.
        time: ms since 1970, of the round's end.
    """

    kind: ClassVar[str] = "training-round"
    run: bytes
    round: int
    task: str
    strategy: str
    secure: bool
    before: bytes
    after: bytes
    updates: tuple[SiteUpdate, ...]
    absent: tuple[str, ...]
    metrics: tuple[tuple[str, float], ...]
    privacy: Privacy | None
    time: int

    @property
    def members(self) -> frozenset[bytes]:
        """Key ids of the members that took part, as far as they are named."""
        return frozenset(one.member for one in self.updates if one.member is not None)

    @classmethod
    def decode(cls, payload: bytes) -> TrainingRound:
        """Parse; raises EncodingError, FormatError."""
        where = "training-round"
        names = {
            "run", "round", "task", "strategy", "secure", "before", "after", "updates", "absent",
            "metrics", "privacy", "time",
        }  # fmt: skip
        value = text_map(decode(payload, MAX_PAYLOAD_BYTES, where), names, where)
        if not isinstance(secure := value["secure"], bool):
            raise FormatError(f"{where}.secure", "is not true or false")
        updates = _updates(value["updates"], f"{where}.updates", is_masked=secure)
        absent = tuple(
            text(name, f"{where}.absent[{index}]", MAX_NAME_CHARS)
            for index, name in enumerate(
                array(value["absent"], f"{where}.absent", at_most=MAX_SITES)
            )
        )
        if not _is_rising(absent) or {one.site for one in updates} & set(absent):
            raise FormatError(
                f"{where}.absent", "are not in order of their names, or took part after all"
            )
        return cls(
            run=octets(value["run"], f"{where}.run", RUN_BYTES),
            round=uint(value["round"], f"{where}.round", MAX_ROUND, at_least=1),
            task=text(value["task"], f"{where}.task", MAX_NAME_CHARS),
            strategy=text(value["strategy"], f"{where}.strategy", MAX_NAME_CHARS),
            secure=secure,
            before=octets(value["before"], f"{where}.before", HASH_BYTES),
            after=octets(value["after"], f"{where}.after", HASH_BYTES),
            updates=updates,
            absent=absent,
            metrics=_metrics(value["metrics"], f"{where}.metrics"),
            privacy=_privacy(value["privacy"], f"{where}.privacy"),
            time=time_ms(value["time"], f"{where}.time"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        privacy = self.privacy
        return encode(
            {
                "run": self.run,
                "round": self.round,
                "task": self.task,
                "strategy": self.strategy,
                "secure": self.secure,
                "before": self.before,
                "after": self.after,
                "updates": [
                    [one.site, one.member, one.update, one.examples] for one in self.updates
                ],
                "absent": list(self.absent),
                "metrics": dict(self.metrics),
                "privacy": None
                if privacy is None
                else {
                    "noise": privacy.noise,
                    "clip": privacy.clip,
                    "epsilon": privacy.epsilon,
                    "delta": privacy.delta,
                },
                "time": self.time,
            }
        )


def _updates(value: Any, where: str, *, is_masked: bool) -> tuple[SiteUpdate, ...]:
    updates = []
    for index, item in enumerate(array(value, where, at_most=MAX_SITES)):
        field = f"{where}[{index}]"
        site, member, update, examples = array(item, field, length=4)
        if is_masked is not (update is None):
            raise FormatError(field, "has its update's hash, and only then, unless it is masked")
        updates.append(
            SiteUpdate(
                site=text(site, field, MAX_NAME_CHARS),
                member=None if member is None else octets(member, field, KID_BYTES),
                update=None if update is None else octets(update, field, HASH_BYTES),
                examples=None if examples is None else uint(examples, field, MAX_EXAMPLES),
            )
        )
    if not updates or not _is_rising(one.site for one in updates):
        raise FormatError(where, "are none, or not in order of their sites' names")
    return tuple(updates)


def _metrics(value: Any, where: str) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, dict) or len(value) > MAX_METRICS:
        raise FormatError(where, f"is not a map of at most {MAX_METRICS} entries")
    return tuple(
        (text(name, where, MAX_NAME_CHARS), number(one, f"{where}.{name}"))
        for name, one in value.items()
    )


def _privacy(value: Any, where: str) -> Privacy | None:
    if value is None:
        return None
    given = text_map(value, {"noise", "clip", "epsilon", "delta"}, where)
    found = {name: number(one, f"{where}.{name}") for name, one in given.items()}
    for name, one in found.items():
        if one <= 0 or (name == "delta" and one >= 1):
            raise FormatError(f"{where}.{name}", "is not above 0, or a delta not below 1")
    return Privacy(**found)


def _is_rising(names: Iterable[str]) -> bool:
    return all(one < other for one, other in pairwise(names))
