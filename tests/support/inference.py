"""A judge of images that needs no network, and a fog node's API over a chain in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from http import HTTPStatus
from types import SimpleNamespace

import numpy as np
from PIL import Image as Picture

from cloud.inference.judges import Judgement
from fog_node.client import RefusedError, UnreachableError
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.labels import Image
from fog_node.protocol.transactions import parse_transaction

KEY = SigningKey.from_secret(77)


class Brightness:
    """Bright images are `normal`, dark ones have a `defect`; the score is the mean."""

    name = "brightness"
    side = 16

    def __init__(self, sha256: bytes = b"m" * 32) -> None:
        self.sha256 = sha256
        self.asked = 0

    def judge(self, images):
        assert images.dtype == np.uint8
        assert images.shape[1:] == (self.side, self.side)
        self.asked += len(images)
        means = images.mean(axis=(1, 2)) / 255
        return [Judgement("normal" if m > 0.5 else "defect", float(m), m) for m in means]

    def picture(self, image, judgement):
        return Picture.new("RGB", (8, 8), (int(255 * judgement.grid), 0, 0))


class Node:
    """What a fog node's API says of one signer's transactions; `trouble` comes once each.

    Trouble is: `gone`, no answer and nothing done; `lost`, done, but the answer is lost.
    """

    def __init__(self) -> None:
        self.waiting: dict[int, bytes] = {}
        self.final: dict[int, bytes] = {}
        self.trouble: list[str] = []

    def seal(self) -> None:
        self.final |= self.waiting
        self.waiting.clear()

    def foreign(self, raw: bytes) -> None:
        """Somebody else's transaction with the same key is final."""
        self.final[parse_transaction(raw).sequence] = raw
        self.waiting.pop(parse_transaction(raw).sequence, None)

    async def signer(self, kid: bytes):
        self._answer()
        return SimpleNamespace(next=1 + max([0, *self.final, *self.waiting]))

    async def submit(self, raw: bytes):
        lost = self._answer()
        number = parse_transaction(raw).sequence
        held = self.final.get(number) or self.waiting.get(number)
        if held not in (None, raw):
            raise _refused(HTTPStatus.CONFLICT)
        if held is None:
            self.waiting[number] = raw
        if lost:
            raise UnreachableError({"http://node": "cut"})

    async def transaction(self, id_: bytes):
        self._answer()
        for status, kept in (("final", self.final), ("waiting", self.waiting)):
            if any(parse_transaction(raw).id == id_ for raw in kept.values()):
                return SimpleNamespace(status=status)
        raise _refused(HTTPStatus.NOT_FOUND)

    async def all_transactions(self, signer: bytes) -> AsyncGenerator[SimpleNamespace, None]:
        self._answer()
        listed = [("waiting", *item) for item in self.waiting.items()]
        listed += [("final", *item) for item in self.final.items()]
        for status, number, raw in sorted(listed, key=lambda item: -item[1]):
            id_ = parse_transaction(raw).id.hex()
            yield SimpleNamespace(sequence=number, status=status, id=id_)

    def _answer(self) -> bool:
        trouble = self.trouble.pop(0) if self.trouble else ""
        if trouble == "gone":
            raise UnreachableError({"http://node": "refused"})
        return trouble == "lost"

    def verdicts(self) -> list[bytes]:
        """SHA-256 of what final transactions judge, with repetitions."""
        bodies = [parse_transaction(raw).body for raw in self.final.values()]
        return [
            item.subject.sha256
            for body in bodies
            for item in body.verdicts
            if isinstance(item.subject, Image)
        ]


def _refused(status: HTTPStatus) -> RefusedError:
    return RefusedError("http://node", status, "transaction", "refused", "none")
