from collections.abc import Sequence
from typing import NewType

Channels = NewType("Channels", object)

def channels(listed: Sequence[tuple[str, str, float, float]], /) -> Channels: ...
def is_deterministic(data: bytes, /) -> bool: ...
def is_plausible(payload: bytes, channels: Channels, /) -> bool: ...
def read_pack(
    message: bytes, tables: dict[bytes, Channels] | None, /
) -> (
    tuple[
        bytes,
        bytes,
        int,
        int,
        bytes,
        bytes,
        int,
        int,
        int,
        int,
        tuple[int, int, bytes | int | None] | None,
        Channels | None,
    ]
    | None
): ...
def sig_structure(protected: bytes, chain_id: bytes, payload: bytes, /) -> bytes: ...
def to_der(signature: bytes, /) -> bytes | None: ...
