"""Incidents: what was refused goes on the chain, but not as often as the sender likes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from fog_node.protocol.transactions import Incident

from .admission import Refusal, printable
from .limits import Buckets, Rate

# Per cause and claimed signer (or topic), so that one broken board does not fill the chain.
SOURCE_RATE = Rate(burst=4, per_s=1 / 60)
MAX_SOURCES = 4096
# Per cause, over all senders: signers can be invented, so this is what bounds the chain's
# growth. One cause cannot use up another's share.
CAUSE_RATE = Rate(burst=32, per_s=1 / 5)
MAX_CAUSES = 32


@dataclass
class IncidentCounts:
    """Since the start, by cause."""

    reported: Counter[str] = field(default_factory=Counter)
    suppressed: Counter[str] = field(default_factory=Counter)


class Incidents:
    """Decides which refusals are reported, and reports them."""

    def __init__(
        self,
        submit: Callable[[Incident], None],
        monotonic: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        """Prepare.

        Args:
            submit: signs an incident as this node's member and admits it.
            monotonic: a clock in s that never goes back.
            now_ms: ms since 1970.
        """
        self._submit = submit
        self._monotonic = monotonic
        self._now_ms = now_ms
        self._sources = Buckets(SOURCE_RATE, MAX_SOURCES)
        self._causes = Buckets(CAUSE_RATE, MAX_CAUSES)
        # Suppressed ones by source since its latest report; told with its next one.
        self._untold: OrderedDict[tuple[str, bytes | None], int] = OrderedDict()
        self.counts = IncidentCounts()

    def report(self, refusal: Refusal) -> bool:
        """Report a refusal, or count it where its share is used up.

        Returns:
            Whether it was reported.
        """
        source = (refusal.cause, refusal.device or refusal.message.claimed)
        now = self._monotonic()
        if not (self._sources.take(source, now) and self._causes.take(refusal.cause, now)):
            self.counts.suppressed[refusal.cause] += 1
            self._untold[source] = self._untold.get(source, 0) + 1
            self._untold.move_to_end(source)
            if len(self._untold) > MAX_SOURCES:
                self._untold.popitem(last=False)
            return False
        detail = refusal.detail
        if untold := self._untold.pop(source, 0):
            detail = f"after {untold} more like it: {detail}"
        self.counts.reported[refusal.cause] += 1
        self._submit(
            Incident(
                cause=refusal.cause,
                device=refusal.device,
                sequence=refusal.sequence,
                digest=refusal.digest,
                size=len(refusal.message.data),
                detail=printable(detail),
                time=self._now_ms(),
            )
        )
        return True
