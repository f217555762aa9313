"""The fog node's configuration: one TOML file, read once into frozen objects.

Every key is a field below with its meaning; `sample` writes a file that holds them all.
"""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from . import pow as proof_of_work
from .errors import ConfigurationError
from .gateway.serial_line import UsbId
from .small_files import read_small

MAX_CONFIG_BYTES = 256 * 1024
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A table of the file: frozen, and strict about keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NodeSection(Section):
    """Who this node is and where it keeps its data."""

    member: str = Field(description="name of the member in the founding file")
    founding: Path = Field(description="the consortium's founding file", strict=False)
    key: Path = Field(description="the member's signing key, PEM, mode 0600", strict=False)
    data_dir: Path = Field(
        description="ledger, mempool and blobs; only this process may write there", strict=False
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="how much the daemon tells on standard error"
    )


class PeerSection(Section):
    """The connections to the other nodes, over mutual TLS."""

    listen: str = Field("0.0.0.0:7420", description="address and port for other nodes")
    certificate: Path = Field(
        description="TLS certificate that the consortium's authority issued, PEM", strict=False
    )
    tls_key: Path = Field(description="private key of that certificate, PEM", strict=False)
    peers: dict[str, str] = Field(
        default_factory=dict, description="address and port of other nodes, by member name"
    )

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        split_address(value)
        return value

    @field_validator("peers")
    @classmethod
    def _peers(cls, value: dict[str, str]) -> dict[str, str]:
        for address in value.values():
            split_address(address)
        return value


class MqttSection(Section):
    """The gateway's connection to the MQTT broker; needs the member's role `gateway`."""

    enabled: bool = Field(True, description="whether this node takes in packs")
    broker: str = Field("localhost:8883", description="address and port of the broker")
    tls: bool = Field(True, description="whether to speak TLS with the broker")
    ca: Path | None = Field(
        None,
        description="certificate authority of the broker, PEM; unset: the consortium's own",
        strict=False,
    )
    username: str | None = Field(None, description="user name at the broker")
    password_file: Path | None = Field(
        None, description="file that holds the password at the broker", strict=False
    )

    @field_validator("broker")
    @classmethod
    def _broker(cls, value: str) -> str:
        split_address(value)
        return value


class SerialSection(Section):
    """Boards on USB and UARTs of this machine; needs the member's role `gateway`."""

    ports: tuple[str, ...] = Field(
        (),
        description="devices, best by their names in /dev/serial/by-id, and socket://HOST:PORT",
        strict=False,
    )
    usb: tuple[str, ...] = Field(
        (),
        description="USB ids, VVVV:PPPP or VVVV:*: every serial port of such a device is served "
        'as it is plugged in; "303a:*" is Espressif, "2e8a:*" Raspberry Pi',
        strict=False,
    )
    baud: int = Field(
        115_200, ge=9_600, le=5_000_000, description="speed of ports that have one; USB has none"
    )

    @field_validator("ports")
    @classmethod
    def _ports(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for port in value:
            if port.startswith("socket://"):
                split_address(port.removeprefix("socket://"))
            elif not port.startswith("/"):
                raise ValueError(f"{port!r} is neither a device's path nor socket://HOST:PORT")
        return value

    @field_validator("usb")
    @classmethod
    def _usb(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            UsbId.parse(each)
        return value

    @property
    def is_used(self) -> bool:
        """Whether there is anything to serve."""
        return bool(self.ports or self.usb)


class ApiSection(Section):
    """The HTTP API. Members read what their roles open to them; what it takes in is signed."""

    listen: str = Field("127.0.0.1:7480", description="address and port")
    tls: bool = Field(
        False,
        description="whether to speak TLS, with the certificate of [peer], and to ask clients for "
        "theirs; without it, listen must be a loopback address, and who asks is the local operator",
    )

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        split_address(value)
        return value


class MiningSection(Section):
    """Proof of work; used where the member has the role `validator`."""

    kernel: str = Field(
        default_factory=proof_of_work.best,
        description="SHA-256 kernel; see `fogline bench pow` for those of this machine",
    )
    threads: int = Field(1, ge=1, le=256, description="how many threads mine; one per core at most")

    @field_validator("kernel")
    @classmethod
    def _kernel(cls, value: str) -> str:
        available = proof_of_work.kernels()
        if value not in available:
            raise ValueError(f"is not on this machine; choose one of {', '.join(available)}")
        return value


class StorageSection(Section):
    """How long the bodies of final blocks are kept; headers, index and state always are."""

    keep_days: int | None = Field(
        None, ge=1, le=36500, description="days after which a body goes; unset: all are kept"
    )
    archive: Path | None = Field(
        None,
        description="directory for Parquet files of what goes, with the original bytes",
        strict=False,
    )
    discard: bool = Field(False, description="whether bodies may go without an archive")

    @model_validator(mode="after")
    def _whereto(self) -> StorageSection:
        if self.keep_days is not None and self.archive is None and not self.discard:
            raise ValueError("keep_days: give archive a directory, or set discard to true")
        return self


class LimitSection(Section):
    """Bounds on what others can make this node hold."""

    mempool_transactions: int = Field(
        100_000, ge=100, le=10_000_000, description="transactions that wait to be sealed"
    )
    mempool_mib: int = Field(256, ge=1, le=65536, description="MiB of such transactions")
    blob_mib: int = Field(4096, ge=1, le=1024 * 1024, description="MiB of the blob store")
    payload_mib: int = Field(
        4096, ge=1, le=1024 * 1024, description="MiB of contents of requests and responses"
    )
    payload_member_mib: int = Field(
        256, ge=1, le=1024 * 1024, description="MiB of such contents of one member"
    )


class Config(Section):
    """A fog node's whole configuration."""

    node: NodeSection
    peer: PeerSection
    mqtt: MqttSection = Field(default_factory=MqttSection)
    serial: SerialSection = Field(default_factory=SerialSection)
    api: ApiSection = Field(default_factory=ApiSection)
    mining: MiningSection = Field(default_factory=MiningSection)
    storage: StorageSection = Field(default_factory=StorageSection)
    limits: LimitSection = Field(default_factory=LimitSection)


def split_address(value: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`; raises ValueError naming the form."""
    host, colon, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif any(character in host for character in "[]:"):
        raise ValueError(f"{value!r} is not HOST:PORT; an IPv6 address needs [brackets]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{value!r} is not HOST:PORT")
    return host, int(port)


def load(path: Path) -> Config:
    """Read a configuration file; relative paths in it are relative to the file.

    Raises:
        ConfigurationError: names the file, the section and key, and the remedy.
    """
    try:
        value = tomllib.loads(read_small(path, MAX_CONFIG_BYTES).decode())
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}; write one with: fogline fog init"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}; correct it there") from error
    try:
        config = Config.model_validate(value)
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {_explain(error)}") from error
    return _absolute(config, path.resolve().parent)


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    where = f"[{location[0]}] {'.'.join(location[1:])}".strip() if location else "file"
    if first["type"] == "extra_forbidden":
        known = Config.model_fields
        if len(location) == 1:
            return f"[{location[0]}] is an unknown section; the sections are {', '.join(known)}"
        section = known[location[0]].annotation
        keys = ", ".join(section.model_fields) if section else ""
        return f"{where}: is an unknown key; [{location[0]}] has {keys}"
    if first["type"] == "missing":
        return f"{where}: is missing; fogline fog init writes a file with every key"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}"


def _absolute(config: Config, base: Path) -> Config:
    def fix(section: Section) -> Section:
        changes: dict[str, Any] = {
            name: base / value
            for name in type(section).model_fields
            if isinstance(value := getattr(section, name), Path)
        }
        return section.model_copy(update=changes)

    return config.model_copy(
        update={name: fix(getattr(config, name)) for name in Config.model_fields}
    )


def sample(
    member: str,
    founding: Path,
    directory: Path,
    overrides: dict[str, dict[str, Any]] | None = None,
) -> str:
    """A configuration file with every key and its meaning.

    Args:
        member: the node's member name.
        founding: path of the founding file.
        directory: where the member's key and certificate are.
        overrides: values by section and key that differ from the defaults.
    """
    required: dict[str, dict[str, Any]] = {
        "node": {
            "member": member,
            "founding": founding,
            "key": directory / "signing.key",
            "data_dir": Path("/var/lib/fogline"),
        },
        "peer": {"certificate": directory / "tls.crt", "tls_key": directory / "tls.key"},
    }
    lines = ["# Configuration of a Fogline fog node. An unknown key stops the start.", ""]
    for name, section_field in Config.model_fields.items():
        section = section_field.annotation
        assert section is not None
        values = required.get(name, {}) | (overrides or {}).get(name, {})
        lines += [f"# {(section.__doc__ or '').strip().splitlines()[0]}", f"[{name}]"]
        for key, field in section.model_fields.items():
            lines.append(f"# {field.description}")
            value = values.get(key, field.get_default(call_default_factory=True))
            prefix = "# " if value is None else ""
            lines.append(f"{prefix}{key} = {_toml(value)}")
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if value is None:
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(each) for each in value)}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
