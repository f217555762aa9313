"""Headers of the Bitcoin chain: their hashes are known, and so are the nonces that meet them."""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class RealBlock:
    """A block's header fields, hashes as they are shown (reversed)."""

    height: int
    previous: str
    merkle_root: str
    time: int
    bits: int
    nonce: int
    hash: str

    @property
    def header(self) -> bytes:
        return (
            struct.pack("<I", 1)
            + bytes.fromhex(self.previous)[::-1]
            + bytes.fromhex(self.merkle_root)[::-1]
            + struct.pack("<III", self.time, self.bits, self.nonce)
        )

    @property
    def target(self) -> int:
        return (self.bits & 0xFFFFFF) << 8 * ((self.bits >> 24) - 3)


BLOCKS = [
    RealBlock(
        0,
        "0000000000000000000000000000000000000000000000000000000000000000",
        "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b",
        1231006505,
        0x1D00FFFF,
        2083236893,
        "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
    ),
    RealBlock(
        1,
        "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
        "0e3e2357e806b6cdb1f70b54c3a3a17b6714ee1f0e68bebb44a74b1efd512098",
        1231469665,
        0x1D00FFFF,
        2573394689,
        "00000000839a8e6886ab5951d76f411475428afc90947ee320161bbf18eb6048",
    ),
    RealBlock(
        170,
        "000000002a22cfee1f2c846adbd12b3e183d4f97683f85dad08a79780a84bd55",
        "7dac2c5666815c17a3b36427de37bb9d2e2c5ccec3f8633eb91a4205cb4c10ff",
        1231731025,
        0x1D00FFFF,
        1889418792,
        "00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee",
    ),
    RealBlock(
        100_000,
        "000000000002d01c1fccc21636b607dfd930d31d01c3a62104612a1719011250",
        "f3e94742aca4b5ef85488dc37c06c3282295ffec960994b2c0d5ac2a25a95766",
        1293623863,
        0x1B04864C,
        274148111,
        "000000000003ba27aa200b1cecaad478d2b00432346c3f1f3986da1afd33e506",
    ),
    RealBlock(
        125_552,
        "00000000000008a3a41b85b8b29ad444def299fee21793cd8b9e567eab02cd81",
        "2b12fcf1b09288fcaff797d71e950e71ae42b91e8bdb2304758dfcffc2b620e3",
        1305998791,
        0x1A44B9F2,
        2504433986,
        "00000000000000001e8d6829a8a21adc5d38d0a473b144b6765798e61f98bd1d",
    ),
]
