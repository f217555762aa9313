"""Receipts: a board learns up to where its transactions are final, and where it stands."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection

from fog_node.ledger import Device, Ledger
from fog_node.protocol.block import Block
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.receipt import Receipt, encode_receipt, receipt_key
from fog_node.protocol.transactions import Clone, Enrol, ReinstateDevice, Revoke, Transaction

from .limits import Buckets, Rate

# Receipts that a board asks for, by saying that it is online or by repeating itself.
ASKED_RATE = Rate(burst=4, per_s=1)
# Boards that say they are here. Anyone can invent one, so the longest silent is forgotten.
MAX_PRESENT = 65536
MAX_AGREED_KEYS = 4096


class Receipts:
    """Writes receipts for the boards that are at this gateway."""

    def __init__(
        self,
        ledger: Ledger,
        key: SigningKey,
        send: Callable[[bytes, bytes], None],
        monotonic: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        """Prepare.

        Args:
            ledger: says what is final.
            key: of this gateway's member.
            send: takes a board's key id and its receipt.
            monotonic: a clock in s that never goes back.
            now_ms: ms since 1970.
        """
        self._ledger = ledger
        self._key = key
        self._send = send
        self._monotonic = monotonic
        self._now_ms = now_ms
        self._asked = Buckets(ASKED_RATE, MAX_PRESENT)
        # With what each said last, to tell it how old our answer can be.
        self._present: OrderedDict[bytes, bytes | None] = OrderedDict()
        self._agreed: OrderedDict[bytes, bytes] = OrderedDict()

    @property
    def present(self) -> int:
        """How many boards are at this gateway, as they say."""
        return len(self._present)

    def online(self, kid: bytes, nonce: bytes | None = None) -> None:
        """A board says that it is here. It may not be enrolled yet."""
        self.seen(kid)
        self._present[kid] = nonce
        self.asked(kid)

    def offline(self, kid: bytes) -> None:
        """A board has left, or its broker says so."""
        self._present.pop(kid, None)

    def seen(self, kid: bytes) -> None:
        """A board has sent something."""
        self._present.setdefault(kid, None)
        self._present.move_to_end(kid)
        if len(self._present) > MAX_PRESENT:
            self._present.popitem(last=False)

    def asked(self, kid: bytes) -> None:
        """Send a receipt because of what a board sent, but not too often."""
        device = self._ledger.snapshot.state.devices.get(kid)
        if device is not None and self._asked.take(kid, self._monotonic()):
            self._write(device)

    def committed(self, block: Block) -> None:
        """Send receipts to those whom the latest block concerns."""
        kids = dict.fromkeys(map(_concerned, block.transactions))
        devices = self._ledger.snapshot.state.devices
        for kid in kids:
            device = devices.get(kid)
            if device is not None and kid in self._present:
                self._write(device)

    def forget_presence(self, still_here: Collection[bytes] = ()) -> None:
        """Forget who is here but for `still_here`; the broker will say it of the others again."""
        for kid in [kid for kid in self._present if kid not in still_here]:
            del self._present[kid]

    def _write(self, device: Device) -> None:
        snapshot = self._ledger.snapshot
        receipt = Receipt(
            device=device.kid,
            next=device.next,
            height=snapshot.head.height,
            time=self._now_ms(),
            status=device.status,
            nonce=self._present.get(device.kid),
        )
        chain_id = self._ledger.founding.chain_id
        key = self._agreed_key(device, chain_id)
        self._send(device.kid, encode_receipt(receipt, key, self._key.kid, chain_id))

    def _agreed_key(self, device: Device, chain_id: bytes) -> bytes:
        key = self._agreed.get(device.kid)
        if key is None:
            key = receipt_key(self._key, device.key, self._key.kid, device.kid, chain_id)
            self._agreed[device.kid] = key
            if len(self._agreed) > MAX_AGREED_KEYS:
                self._agreed.popitem(last=False)
        else:
            self._agreed.move_to_end(device.kid)
        return key


def _concerned(transaction: Transaction) -> bytes:
    """Key id of the board that a transaction is of, or that it says something about."""
    match transaction.body:
        case Enrol() | Clone() | ReinstateDevice():
            return transaction.body.device
        case Revoke():
            return transaction.body.subject
    return transaction.signer
