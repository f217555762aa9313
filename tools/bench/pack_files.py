"""Packs that are signed before a run, as files of frames ready to be sent to peers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from fog_node.network import wire
from fog_node.protocol.keys import SigningKey

from .workload import Board

# Packs in one frame: so many come to a fog node together from a busy gateway.
FRAME_PACKS = 64
_HEAD = struct.Struct(">II")


@dataclass(frozen=True)
class Order:
    """What to sign.

    Attributes:
        keys: secrets of the boards, PEM.
        packs: how many, in whole frames, the boards taking turns.
        readings: in each.
    """

    keys: tuple[bytes, ...]
    packs: int
    readings: int
    enterprise_number: int
    chain_id: bytes


def sign_files(orders: list[Order], paths: list[Path]) -> None:
    """Sign each order into its file, in processes of their own."""
    # A fresh interpreter: this one has threads, which a fork would not take along.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        list(pool.map(sign_file, orders, paths))


def sign_file(order: Order, path: Path) -> None:
    """Sign one order: per frame its length and the number of its packs, then the frame."""
    boards = [Board(SigningKey.from_pem(pem)) for pem in order.keys]
    with path.open("wb") as file:
        for first in range(0, order.packs, FRAME_PACKS):
            packs = [
                boards[index % len(boards)].sign_pack(
                    order.readings, order.enterprise_number, order.chain_id
                )
                for index in range(first, first + FRAME_PACKS)
            ]
            frame = wire.encode_message(wire.Transactions(packs))
            file.write(_HEAD.pack(len(frame), len(packs)) + frame)


def read_file(path: Path) -> Iterator[tuple[int, bytes]]:
    """Read frames one by one: number of packs, and the frame."""
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            length, packs = _HEAD.unpack(head)
            yield packs, file.read(length)


def packs_in(frame: bytes) -> list[bytes]:
    """Bytes of the packs in a frame."""
    message = wire.parse_message(frame[wire.LENGTH.size :])
    assert isinstance(message, wire.Transactions)
    return message.raw
