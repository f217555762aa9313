"""Firmware over the air: our files for a class of boards as a signed bundle, and its release."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fog_node.client import Client
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import PublicKey, SigningKey
from fog_node.protocol.manifest import (
    FIRMWARE_PREFIX,
    FirmwareFile,
    FirmwareManifest,
    encode_bundle,
    sign_manifest,
)
from fog_node.protocol.merkle import EMPTY_ROOT
from fog_node.protocol.transactions import DatasetReference, Release
from tools.boards import Board
from tools.devices.compiler import updates
from tools.errors import ToolError
from tools.firmware_files import FIRMWARE
from tools.submit import submit

__all__ = ["Update", "build", "publish"]

NAME = "fogline"
FINAL_TIMEOUT_S = 60.0
POLL_S = 0.2
_VERSION = re.compile(r"^VERSION_NUMBER = (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Update:
    """A bundle and the transaction that releases it."""

    release: Release
    bundle: bytes = field(repr=False)
    files: int

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return {
            "name": self.release.name,
            "version": self.release.version,
            "for": self.release.device_type,
            "files": self.files,
            "bytes": self.release.size,
            "bundle": self.release.bundle.hex(),
        }


def version_of(firmware: Path) -> int:
    """VERSION_NUMBER of the firmware in a folder; raises ToolError."""
    path = firmware / "fogline" / "__init__.py"
    try:
        found = _VERSION.search(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"{path}: cannot be read; give the folder of our firmware") from error
    if found is None:
        raise ToolError(f"{path}: has no line VERSION_NUMBER = ...; add it, or give --version")
    return int(found[1])


async def next_version(client: Client, board: Board, source: Path = FIRMWARE) -> int:
    """The lowest version that all boards of a class take: above what they can run now.

    That is what was released for them, or the VERSION_NUMBER that they were provisioned with.

    Raises:
        ToolError: the firmware has no VERSION_NUMBER. ClientError: no node answers.
    """
    kind = _device_type(board)
    released = [r.version for r in await client.releases() if r.device_type == kind]
    return max([version_of(source), *released]) + 1


def build(
    board: Board,
    key: SigningKey,
    founding: Founding,
    *,
    version: int | None = None,
    min_version: int = 0,
    trust: Sequence[PublicKey] = (),
    source: Path = FIRMWARE,
) -> Update:
    """Compile the firmware for a board's class and sign it; nothing is sent.

    Args:
        board: of which all boards of the class are.
        key: of a member who is operator, and whose releases the boards trust.
        founding: of the consortium.
        version: above what the boards run; None: one above the firmware's VERSION_NUMBER.
        min_version: boards below it do not take it.
        trust: whose releases the boards trust once they have confirmed it; none: as before.
        source: folder of the firmware.

    Raises:
        ToolError: it cannot be compiled, or is not as the format wants it.
    """
    number = version_of(source) + 1 if version is None else version
    mpy, files = updates(board.mpy.arch, source)
    payload = b"".join(files.values())
    now_ms = time.time_ns() // 1_000_000
    kind = _device_type(board)
    manifest = FirmwareManifest(
        name=NAME,
        version=number,
        min_version=min_version,
        device_type=kind,
        payload_sha256=hashlib.sha256(payload).digest(),
        payload_size=len(payload),
        mpy=mpy,
        files=tuple(
            FirmwareFile(path, len(data), hashlib.sha256(data).digest())
            for path, data in files.items()
        ),
        keys=tuple(public.xy for public in trust),
        time=now_ms,
    )
    try:
        signed = sign_manifest(key, manifest, founding.chain_id)
        bundle = encode_bundle([signed], payload)
    except ProtocolError as error:
        raise ToolError(f"{source}: {error}") from error
    release = Release(
        name=NAME,
        version=number,
        device_type=kind,
        manifest=hashlib.sha256(signed).digest(),
        bundle=hashlib.sha256(bundle).digest(),
        size=len(bundle),
        metrics=(),
        dataset=DatasetReference(EMPTY_ROOT, 0, 0, 0),
        time=now_ms,
    )
    return Update(release, bundle, len(files))


async def publish(client: Client, update: Update, key: SigningKey, founding: Founding) -> None:
    """Put it on the chain and its bundle on the nodes; returns when boards can have it.

    Raises:
        ToolError: refused, or not final after FINAL_TIMEOUT_S.
        ClientError: no node answers.
    """
    release = update.release
    await submit(client, key, release, founding, wait=False)
    # Nodes take a bundle only after the transaction that names it.
    await client.put_blob(update.bundle)
    try:
        async with asyncio.timeout(FINAL_TIMEOUT_S):
            while not await _is_final(client, release):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise ToolError(
            f"firmware {release.version}: is not final after {FINAL_TIMEOUT_S:.0f} s; it may still "
            "become final: see `fogline fog status` whether blocks are made"
        ) from error


def _device_type(board: Board) -> str:
    """Under which firmware of a board's class is released."""
    return FIRMWARE_PREFIX + board.inference.board_class


async def _is_final(client: Client, release: Release) -> bool:
    return any(known.bundle == release.bundle.hex() for known in await client.releases())
