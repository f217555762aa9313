"""Firmware over the air: what is built, what of it is signed, and what the command says."""

from __future__ import annotations

import asyncio
import shutil
from types import SimpleNamespace

import pytest
from support.small_chain import SmallChain

from fog_node.blobs import BlobStore
from fog_node.bundles import check_bundle, missing_bundles
from fog_node.errors import LedgerError
from fog_node.protocol.errors import ProofError
from fog_node.protocol.manifest import FirmwareManifest, parse_bundle
from fog_node.protocol.transactions import Release
from tools.boards import load_board
from tools.devices import update
from tools.devices.enrolment import parse_key
from tools.errors import ToolError, UsageError
from tools.firmware_files import FIRMWARE


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> SmallChain:
    return SmallChain(tmp_path_factory.mktemp("chain"))


def build(chain: SmallChain, board: str = "unix", **options) -> update.Update:
    return update.build(load_board(board), chain.operator, chain.founding, **options)


@pytest.mark.parametrize(("board", "suffix"), [("unix", ".py"), ("pico-w", ".mpy")])
def test_an_update_brings_our_packages_and_nothing_that_starts_the_board(chain, board, suffix):
    made = build(chain, board)
    manifest = parse_bundle(made.bundle).manifest
    assert isinstance(manifest, FirmwareManifest)
    paths = {file.path for file in manifest.files}
    assert {f"fogline/app{suffix}", f"fogline/p256{suffix}", f"drivers/__init__{suffix}"} <= paths
    assert {path.partition("/")[0] for path in paths} == {"fogline", "drivers"}
    assert {path[path.rindex(".") :] for path in paths} == {suffix}
    assert (manifest.mpy == 0) == (suffix == ".py")
    assert made.release.device_type == manifest.device_type
    assert manifest.device_type == "firmware/" + load_board(board).inference.board_class
    assert made.release.version == manifest.version == update.version_of(FIRMWARE) + 1
    assert made.as_dict()["files"] == len(paths)


def test_what_to_trust_and_what_must_run_are_signed(chain):
    key = chain.trainer.public
    made = build(chain, version=9, min_version=4, trust=(parse_key("--trust", key.xy.hex()),))
    manifest = parse_bundle(made.bundle).manifest
    assert (manifest.version, manifest.min_version, manifest.keys) == (9, 4, (key.xy,))
    with pytest.raises(UsageError, match="--trust"):
        parse_key("--trust", "00")
    with pytest.raises(ToolError, match=r"manifest\.min_version"):
        build(chain, version=3, min_version=3)


def test_firmware_is_the_operators_to_release_and_sign(chain, tmp_path):
    """A trainer releases models alone, and each bundle has the signatures of who may."""
    made = build(chain, version=2)
    with pytest.raises(LedgerError, match="needs the role operator"):
        chain.ledger.state.permit(chain.sign(chain.trainer, made.release))
    model, _ = chain.bundle()
    assert isinstance(model.body, Release)
    with pytest.raises(LedgerError, match="needs the role trainer"):
        chain.ledger.state.permit(chain.sign(chain.operator, model.body))
    chain.seal(chain.sign(chain.operator, made.release))
    state = chain.ledger.state
    assert missing_bundles(state, BlobStore(tmp_path / "blobs", 1_000_000)) == [made.release]
    check_bundle(made.bundle, made.release, state)
    by_trainer = update.build(load_board("unix"), chain.trainer, chain.founding, version=3)
    with pytest.raises(ProofError, match="may not release"):
        check_bundle(by_trainer.bundle, by_trainer.release, state)


@pytest.mark.parametrize(
    ("released", "next_one"),
    [
        ([], 2),  # boards were provisioned with 1
        ([("firmware/unix", 1)], 2),
        ([("firmware/unix", 3), ("firmware/unix", 2), ("firmware/thumb", 9), ("pump", 7)], 4),
    ],
)
def test_the_next_version_is_one_that_all_boards_take(released, next_one):
    assert update.version_of(FIRMWARE) == 1
    board = load_board("unix")
    assert board.inference.board_class == "unix"

    class Node:
        async def releases(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(device_type=kind, version=v) for kind, v in released]

    assert asyncio.run(update.next_version(Node(), board)) == next_one  # type: ignore[arg-type]


def test_firmware_without_a_number_names_the_remedy(chain, tmp_path):
    shutil.copytree(FIRMWARE / "fogline", tmp_path / "fogline")
    path = tmp_path / "fogline" / "__init__.py"
    path.write_text("VERSION = '1'\n")
    with pytest.raises(ToolError, match="VERSION_NUMBER"):
        build(chain, source=tmp_path)
    assert build(chain, source=tmp_path, version=5).release.version == 5
    with pytest.raises(ToolError, match="give the folder of our firmware"):
        update.version_of(tmp_path / "nowhere")
