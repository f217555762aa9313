"""What `fogline fog init` writes: a configuration that loads, and a unit that is locked down."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fog_node import config
from tools import consortium, fog
from tools.errors import ToolError, UsageError


@pytest.fixture
def founded(tmp_path):
    return consortium.create(tmp_path / "c", "ours", {"seoul": consortium.VALIDATOR_ROLES})


@pytest.fixture
def written(founded, tmp_path):
    """The two files of a node of seoul."""
    keys = founded.member_directory("seoul")
    return fog.init(tmp_path / "etc", "seoul", founded.founding_file, keys)


def directives(unit: Path) -> dict[str, list[tuple[str, str]]]:
    """Keys and values by section; a key may come more than once, as systemd has it."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            current.append((key, value))
    return sections


def test_the_configuration_loads_and_names_the_members_files(founded, written) -> None:
    loaded = config.load(written[0])
    keys = founded.member_directory("seoul")
    assert loaded.node.member == "seoul"
    assert loaded.node.founding == founded.founding_file
    assert loaded.node.key == keys / "signing.key"
    assert loaded.peer.certificate == keys / "tls.crt"
    assert loaded.peer.tls_key == keys / "tls.key"
    assert loaded.node.data_dir == fog.DATA_DIR
    for path in (loaded.node.key, loaded.peer.certificate, loaded.peer.tls_key):
        assert path.is_file()


def test_who_is_no_gateway_asks_for_no_broker(tmp_path) -> None:
    members = {"seoul": consortium.VALIDATOR_ROLES, "law": frozenset({"regulator"})}
    founded = consortium.create(tmp_path / "c", "ours", members)
    for name in members:
        keys = founded.member_directory(name)
        path, _ = fog.init(tmp_path / name, name, founded.founding_file, keys)
        assert config.load(path).mqtt.enabled is (name == "seoul")


def test_the_configuration_holds_every_key_with_its_meaning(written) -> None:
    lines = written[0].read_text().splitlines()
    for name, section in config.Config.model_fields.items():
        start = lines.index(f"[{name}]")
        for key, field in section.annotation.model_fields.items():
            at = lines.index(f"# {field.description}", start)
            assert lines[at + 1].removeprefix("# ").startswith(f"{key} = ")


def test_the_unit_runs_the_daemon_with_this_configuration(written) -> None:
    configuration, unit = written
    service = dict(directives(unit)["Service"])
    command = shlex.split(service["ExecStart"])
    assert command[1:] == ["fog", "run", "--config", str(configuration.resolve())]
    assert Path(command[0]) == Path(sys.executable).with_name("fogline")
    assert service["Restart"] == "always"
    assert service["KillSignal"] == "SIGTERM"


def test_the_unit_has_a_user_of_its_own_and_a_read_only_system(written) -> None:
    service = dict(directives(written[1])["Service"])
    assert service["User"] == service["Group"] == fog.SERVICE_USER != "root"
    assert service["ProtectSystem"] == "strict"
    assert service["ReadWritePaths"] == str(config.load(written[0]).node.data_dir)
    assert service["CapabilityBoundingSet"] == ""
    for name in ("NoNewPrivileges", "PrivateTmp", "MemoryDenyWriteExecute"):
        assert service[name] == "true"
    assert service["DevicePolicy"] == "closed"
    assert ("DeviceAllow", "char-ttyACM rw") in directives(written[1])["Service"]
    assert {"AF_INET", "AF_INET6"} <= set(service["RestrictAddressFamilies"].split())


def test_a_data_directory_that_is_relative_becomes_whole(founded, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    keys = founded.member_directory("seoul")
    configuration, unit = fog.init(
        Path("etc"), "seoul", founded.directory, keys, data_dir=Path("data")
    )
    assert config.load(configuration).node.data_dir == tmp_path / "data"
    assert ("ReadWritePaths", str(tmp_path / "data")) in directives(unit)["Service"]


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not on this machine")
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_systemd_takes_the_unit(written) -> None:
    _, unit = written
    command = dict(directives(unit)["Service"])["ExecStart"]
    # The program is where the package is installed, which need not be where tests run.
    unit.write_text(unit.read_text().replace(command, "/bin/true " + command))
    run = systemd_analyze("verify", "--man=no", str(unit))
    complaints = [line for line in run.stderr.splitlines() if unit.name in line]
    assert complaints == []
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("call", ["setpriority", "fsync", "flock", "clone", "sched_yield"])
def test_the_unit_lets_the_daemon_call_what_it_calls(written, call) -> None:
    filters = [
        value for key, value in directives(written[1])["Service"] if key == "SystemCallFilter"
    ]
    allowed: set[str] = set()
    for value in filters:
        groups = [expand(group) for group in value.removeprefix("~").split()]
        members = set().union(*groups)
        allowed = allowed - members if value.startswith("~") else allowed | members
    assert call in allowed


def expand(group: str) -> set[str]:
    """The system calls of a group, those of the groups in it too."""
    listed = systemd_analyze("syscall-filter", group).stdout.splitlines()
    words = [line.strip() for line in listed[1:] if line.strip() and "#" not in line]
    return set().union(*(expand(word) if word.startswith("@") else {word} for word in words))


def test_nothing_is_overwritten(founded, written) -> None:
    before = written[0].read_text()
    with pytest.raises(ToolError, match=r"fog\.toml: exists; move it away first"):
        fog.init(
            written[0].parent, "seoul", founded.founding_file, founded.member_directory("seoul")
        )
    assert written[0].read_text() == before


def test_a_stranger_gets_no_node(founded, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"--member tokyo: is not in .*, which lists seoul"):
        fog.init(tmp_path / "etc", "tokyo", founded.founding_file, tmp_path)
    assert not (tmp_path / "etc").exists()


def test_peers_and_broker_go_into_the_configuration() -> None:
    values = fog.overrides(
        ["busan=fog2.example:7420", "jeju=[::1]:1"], "broker.example:8883", "[::]:7480"
    )
    assert values == {
        "api": {"listen": "[::]:7480", "tls": True},
        "peer": {"peers": {"busan": "fog2.example:7420", "jeju": "[::1]:1"}},
        "mqtt": {"broker": "broker.example:8883"},
    }


@pytest.mark.parametrize(
    ("peers", "broker", "api", "option"),
    [
        (["busan"], None, None, "--peer"),
        (["busan=fog2"], None, None, "--peer"),
        ([], "here", None, "--broker"),
        ([], None, "everywhere", "--api-tls"),
    ],
)
def test_an_address_that_is_none_is_refused(
    peers: list[str], broker: str | None, api: str | None, option: str
) -> None:
    with pytest.raises(UsageError, match=f"{option}: .* is not HOST:PORT"):
        fog.overrides(peers, broker, api)
