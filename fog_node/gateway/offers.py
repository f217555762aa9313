"""Staged releases: tells each board of the one that its rollout has come to, and seals refusals.

What a board is to run follows from the ledger's state alone, so all gateways offer it the same. A
board that is here says which model it runs; whoever runs what it is to run is left alone.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from fog_node.blobs import BlobError, BlobStore
from fog_node.ledger import Ledger, Offered, OfferRecord
from fog_node.protocol.cbor import encode
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.manifest import parse_bundle
from fog_node.protocol.rollouts import MODEL_ID_BYTES, RolloutReport
from fog_node.protocol.transactions import Release

from .statuses import BUNDLE_ID_BYTES, Status, Update

log = logging.getLogger(__name__)

MAX_BOARDS = 65536
# A board that still runs something else is told again so much later, when it says that it is here.
AGAIN_S = 600.0
# Boards that are told at once when a group begins; the others follow with the next blocks.
MAX_AT_ONCE = 512
# Bundles whose model is remembered.
MAX_MODELS = 64


@dataclass
class _Present:
    """A board that is here: the model that it runs, and what it was told last."""

    model: bytes | None
    told: bytes = b""
    told_s: float = 0.0
    reported: bytes = b""


class Offers:
    """Offers to boards that are here; call it in the event loop."""

    def __init__(
        self,
        ledger: Ledger,
        blobs: BlobStore,
        send: Callable[[bytes, bytes], None],
        report: Callable[[RolloutReport], None],
        monotonic: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        """Prepare.

        Args:
            ledger: knows the rollouts.
            blobs: holds the bundles.
            send: takes a board's key id and an announcement for it.
            report: seals what a board said, as this gateway.
            monotonic: a clock in s that never goes back.
            now_ms: ms since 1970.
        """
        self._ledger = ledger
        self._blobs = blobs
        self._send = send
        self._report = report
        self._monotonic = monotonic
        self._now_ms = now_ms
        self._present: OrderedDict[bytes, _Present] = OrderedDict()
        self._seen: dict[str, OfferRecord] = {}
        self._due: OrderedDict[bytes, None] = OrderedDict()
        self._models: OrderedDict[bytes, bytes] = OrderedDict()

    def here(self, board: bytes, status: Status) -> None:
        """A board says that it is here."""
        if board not in self._ledger.state.devices:
            return
        present = self._present.setdefault(board, _Present(status.model))
        present.model = status.model
        if len(self._present) > MAX_BOARDS:
            self._present.popitem(last=False)
        if status.update is not None:
            self._take_update(board, present, status.update)
        self._offer(board)

    def gone(self, board: bytes) -> None:
        """It is not here any more; when it is back, it is told again."""
        self._present.pop(board, None)
        self._due.pop(board, None)

    def forget(self, kept: tuple[bytes, ...]) -> None:
        """None is here but these."""
        for board in set(self._present).difference(kept):
            self.gone(board)

    def refresh(self) -> None:
        """Tell boards what is new for them: after a block, and when a bundle has arrived."""
        state = self._ledger.state
        changed = {
            name
            for name, offer in state.offers.items()
            if _stage(offer) != _stage(self._seen.get(name))
        }
        self._seen = dict(state.offers)
        if changed:
            for board in self._present:
                device = state.devices.get(board)
                if device is not None and device.type in changed:
                    self._due[board] = None
        for _ in range(min(len(self._due), MAX_AT_ONCE)):
            self._offer(self._due.popitem(last=False)[0])

    def bundle_arrived(self) -> None:
        """A bundle was stored: boards may be waiting for it."""
        self._seen.clear()
        self.refresh()

    def _offer(self, board: bytes) -> None:
        state = self._ledger.state
        device, present = state.devices.get(board), self._present.get(board)
        if device is None or present is None or device.status != "active":
            return
        offer, offered = state.offers.get(device.type), state.offered(device)
        # What all boards of a type are to run is announced to all of them.
        if offer is None or offered is None or offered == offer.stable:
            return
        model = self._model_of(offered)
        now_s = self._monotonic()
        is_told = present.told == offered.bundle and now_s - present.told_s < AGAIN_S
        if model is None or model == present.model or is_told:
            return
        present.told, present.told_s = offered.bundle, now_s
        self._send(board, announcement(offered))

    def _take_update(self, board: bytes, present: _Present, update: Update) -> None:
        """Seal what the board says of its rollout's release, once; of others it is nothing."""
        state = self._ledger.state
        device, record = state.devices.get(board), state.rollout_boards.get(board)
        offer = None if device is None else state.offers.get(device.type)
        if device is None or record is None or offer is None or offer.rollout is None:
            return
        rollout = offer.rollout
        if (
            device.status != "active"
            or not rollout.is_offered
            or record.group > rollout.group
            or record.state in ("failed", "returned")
            or rollout.release.bundle[:BUNDLE_ID_BYTES] != update.bundle
            or present.reported == rollout.id
        ):
            return
        present.reported = rollout.id
        self._report(
            RolloutReport(rollout.id, board, update.outcome, update.reason, self._now_ms())
        )

    def _model_of(self, offered: Offered) -> bytes | None:
        """Return the id of a bundle's model; None where the bundle is not here."""
        known = self._models.get(offered.bundle)
        if known is not None:
            return known
        if not self._blobs.has(offered.bundle):
            return None
        try:
            manifest = parse_bundle(self._blobs.get(offered.bundle)).manifest
        except (BlobError, ProtocolError) as error:
            log.warning("gateway: %s %d: %s", offered.name, offered.version, error)
            return None
        model = manifest.payload_sha256[:MODEL_ID_BYTES]
        self._models[offered.bundle] = model
        if len(self._models) > MAX_MODELS:
            self._models.popitem(last=False)
        return model


def announcement(release: Release | Offered) -> bytes:
    """What boards are told of a release."""
    return encode(
        {
            "bundle": release.bundle,
            "size": release.size,
            "name": release.name,
            "version": release.version,
        }
    )


def _stage(offer: OfferRecord | None) -> object:
    """What of an offer decides which board gets what."""
    if offer is None:
        return None
    rollout = offer.rollout
    stage = None if rollout is None else (rollout.id, rollout.is_offered, rollout.group)
    return offer.stable, offer.back, stage
