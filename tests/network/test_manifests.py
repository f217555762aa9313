"""Networks of real processes, perturbed as manifests/*.toml say: nothing is lost, nothing forks."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from support.nets import namespaces
from support.nets.links import Links
from support.nets.manifest import load
from support.nets.run import run

HERE = Path(__file__).parent


async def test_network(net_run, pytestconfig, tmp_path) -> None:
    manifest, way = net_run
    await run(manifest, pytestconfig.net_seed, way, tmp_path)
    gc.collect()  # what was left open is said here, and not in a test that left nothing behind


def test_a_network_keeps_its_number_until_its_namespaces_are_gone(
    pytestconfig, monkeypatch
) -> None:
    """Networks of other test processes begin while this one ends, each with a free number."""
    if pytestconfig.net_way != "namespaces":
        pytest.skip("no network namespaces here: the header says why")
    network = namespaces.Namespaces(Links(0), ["v1", "v2"])
    number = network.hosts()[0].split(".")[2]
    removed = []

    def remove(*arguments: str) -> None:
        with pytest.raises(OSError, match="busy"):
            namespaces._open_device(f"fogtest{number}")
        removed.append(arguments)
        ip(*arguments)

    ip = namespaces._ip
    monkeypatch.setattr(namespaces, "_ip", remove)
    network._remove()
    assert sorted(removed) == [("netns", "del", f"fogtest{number}-{v}") for v in ("v1", "v2")]
    os.close(namespaces._open_device(f"fogtest{number}"))


def test_the_readme_has_every_manifest() -> None:
    readme = (HERE / "README.md").read_text()
    for manifest in map(load, sorted((HERE / "manifests").glob("*.toml"))):
        row = f"| {manifest.name} | {'yes' if manifest.ci else ''} | {manifest.shows} |"
        assert row in readme


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (('"x1"', '"v9"'), "v9: not in this network"),
        (('shape = "halves"', 'shap = "halves"'), "Extra inputs are not permitted"),
        (('do = "heal"', 'do = "wish"'), "'wish'"),
        (("height = 4", "height = 4, blocks = 2"), "give one of height, blocks"),
        (("validators = 5", 'validators = "5"'), "valid integer"),
        (("[network]", "[network"), "is not TOML"),
    ],
)
def test_a_wrong_manifest_is_named_with_its_mistake(tmp_path, change, problem) -> None:
    text = (HERE / "manifests" / "halves.toml").read_text()
    assert change[0] in text
    path = tmp_path / "wrong.toml"
    path.write_text(text.replace(*change))
    with pytest.raises(ValueError, match=problem) as caught:
        load(path)
    assert str(path) in str(caught.value)
