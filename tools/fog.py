"""What `fogline fog init` writes: a configuration with every key, and a systemd unit."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fog_node import config
from fog_node.network import certificates

from .consortium import FOUNDING_FILE, load_founding, write_file
from .errors import UsageError

CONFIG_FILE = "fog.toml"
UNIT_FILE = "fogline-fog.service"
SERVICE_USER = "fogline"
DATA_DIR = Path("/var/lib/fogline")

_UNIT = """\
# Fogline fog node. Install:
#   sudo useradd --system --home-dir {data_dir} --shell /usr/sbin/nologin {user}
#   sudo cp {unit} /etc/systemd/system/ && sudo systemctl enable --now {service}
[Unit]
Description=Fogline fog node of {member}
Wants=network-online.target time-sync.target
After=network-online.target time-sync.target

[Service]
Type=exec
User={user}
Group={user}
ExecStart={command}
# The daemon closes its ledger in order on SIGTERM; a kill loses nothing that was receipted.
KillSignal=SIGTERM
TimeoutStopSec=30
Restart=always
RestartSec=2
StateDirectory=fogline
StateDirectoryMode=0700
UMask=0077
# The system is read-only but for the state directory.
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={data_dir}
PrivateTmp=true
# No devices but serial ports, for boards on USB.
DevicePolicy=closed
DeviceAllow=char-ttyACM rw
DeviceAllow=char-ttyUSB rw
DeviceAllow=char-ttyAMA rw
DeviceAllow=char-ttyS rw
SupplementaryGroups=dialout
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectKernelLogs=true
ProtectControlGroups=true
ProtectClock=true
ProtectHostname=true
ProtectProc=invisible
NoNewPrivileges=true
RestrictSUIDSGID=true
RestrictRealtime=true
RestrictNamespaces=true
LockPersonality=true
MemoryDenyWriteExecute=true
CapabilityBoundingSet=
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallArchitectures=native
# What is not listed fails with an error. @resources stays: mining lowers its own priority.
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
LimitNOFILE=4096

[Install]
WantedBy=multi-user.target
"""


def overrides(
    peers: Sequence[str], broker: str | None, api_tls: str | None = None
) -> dict[str, dict[str, Any]]:
    """Configuration values from `NAME=HOST:PORT` and `HOST:PORT`; raises UsageError."""
    values: dict[str, dict[str, Any]] = {}
    for text in peers:
        name, _, address = text.partition("=")
        _check_address("--peer", address)
        values.setdefault("peer", {}).setdefault("peers", {})[name] = address
    if broker is not None:
        _check_address("--broker", broker)
        values["mqtt"] = {"broker": broker}
    if api_tls is not None:
        _check_address("--api-tls", api_tls)
        values["api"] = {"listen": api_tls, "tls": True}
    return values


def _check_address(option: str, address: str) -> None:
    try:
        config.split_address(address)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def init(
    out: Path,
    member: str,
    founding: Path,
    keys: Path,
    *,
    data_dir: Path = DATA_DIR,
    overrides: dict[str, dict[str, Any]] | None = None,
) -> tuple[Path, Path]:
    """Write fog.toml and the systemd unit into `out`; returns their paths.

    Args:
        out: directory for the two files, which must not exist yet.
        member: which member's node this is; in the founding file, or named by its certificate.
        founding: the founding file, or the directory that holds it.
        keys: directory with the member's signing.key, tls.key and tls.crt.
        data_dir: where the daemon keeps its ledger.
        overrides: configuration values by section and key.

    Raises:
        ToolError: a file exists, or the founding file cannot be read.
        UsageError: the member is not in the founding file, nor has it a certificate.
    """
    if founding.is_dir():
        founding = founding / FOUNDING_FILE
    roles = {m.name: m.roles for m in load_founding(founding).members}
    # Who was added by vote later is not in it, but has a certificate of the authority.
    if member not in roles and certificates.name_in(keys / "tls.crt") != member:
        raise UsageError(
            f"--member {member}: is not in {founding}, which lists {', '.join(roles)}, and "
            f"{keys / 'tls.crt'} is no certificate for it"
        )
    values = {**(overrides or {})}
    data_dir = data_dir.resolve()  # systemd takes no relative paths
    if "gateway" not in roles.get(member, {"gateway"}):  # it takes in no packs
        values["mqtt"] = {"enabled": False, **values.get("mqtt", {})}
    values["node"] = {"data_dir": data_dir, **values.get("node", {})}
    configuration = out / CONFIG_FILE
    unit = out / UNIT_FILE
    text = config.sample(member, founding.resolve(), keys.resolve(), values)
    command = [str(Path(sys.executable).with_name("fogline")), "fog", "run"]
    command += ["--config", str(configuration.resolve())]
    write_file(configuration, text.encode())
    write_file(
        unit,
        _UNIT.format(
            user=SERVICE_USER,
            data_dir=data_dir,
            unit=unit.resolve(),
            service=UNIT_FILE,
            member=member,
            command=shlex.join(command),
        ).encode(),
    )
    return configuration, unit
