"""Which nodes a command talks to, and as whom: `--api` and `--as`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fog_node.client import UnreachableError
from tools.consortium import create
from tools.errors import UsageError
from tools.nodes import DEFAULT_API, Nodes

SECURE = "https://127.0.0.1:1"


@pytest.fixture
def founded(tmp_path):
    members = {"seoul": frozenset({"validator"}), "buyer": frozenset({"customer"})}
    return create(tmp_path / "ours", "test", members)


def test_without_options_it_is_this_machines_node() -> None:
    assert Nodes.of(None, None) == Nodes((DEFAULT_API,))
    assert Nodes.of(["http://localhost:1"], None).urls == ("http://localhost:1",)


def test_over_tls_somebody_must_ask() -> None:
    with pytest.raises(UsageError, match="give --as DIR"):
        Nodes.of([SECURE], None)


async def test_a_directory_of_the_consortium_is_enough(founded) -> None:
    nodes = Nodes.of([SECURE], founded.member_directory("buyer"))
    assert nodes.credentials.authority == founded.founding.authority
    async with nodes.client() as client:
        with pytest.raises(UnreachableError):
            await client.status()


def test_a_directory_that_was_handed_over_holds_the_founding_file(founded, tmp_path) -> None:
    own = tmp_path / "elsewhere" / "buyer"
    shutil.copytree(founded.member_directory("buyer"), own)
    with pytest.raises(UsageError, match=r"holds no founding\.cbor"):
        Nodes.of([SECURE], own)
    with pytest.raises(UsageError, match=r"--as /: holds no founding\.cbor"):
        Nodes.of([SECURE], Path("/"))
    shutil.copy(founded.founding_file, own)
    assert Nodes.of([SECURE], own).credentials.certificate == own / "tls.crt"


async def test_each_node_has_a_client_of_its_own() -> None:
    clients = Nodes(("http://localhost:1", "http://localhost:2")).clients()
    assert len(clients) == 2
    for client in clients:
        await client.__aexit__(None, None, None)
