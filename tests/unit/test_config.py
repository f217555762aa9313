"""The node's configuration file: all of it comes back, and what is wrong is named."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from fog_node import config
from fog_node import pow as proof_of_work
from fog_node.config import Config
from fog_node.errors import ConfigurationError

MINIMAL = """
[node]
member = "seoul"
founding = "founding.cbor"
key = "keys/signing.key"
data_dir = "data"
[peer]
certificate = "keys/tls.crt"
tls_key = "/etc/fogline/tls.key"
"""
# Every key, none of them with its default.
VALUES = {
    "node": {
        "member": "busan",
        "founding": Path("/etc/fogline/founding.cbor"),
        "key": Path('/etc/fog "line"/back\\slash.key'),
        "data_dir": Path("/srv/fogline"),
        "log_level": "debug",
    },
    "peer": {
        "listen": "[::1]:7000",
        "certificate": Path("/etc/fogline/a.crt"),
        "tls_key": Path("/etc/fogline/a.key"),
        "peers": {"seoul": "seoul.example:7420", "city-hall": "[fe80::1]:1"},
    },
    "mqtt": {
        "enabled": False,
        "broker": "broker.example:8884",
        "tls": False,
        "ca": Path("/etc/ssl/broker.pem"),
        "username": "fög",
        "password_file": Path("/etc/fogline/password"),
    },
    "serial": {
        "ports": ("/dev/serial/by-id/usb-pump", "socket://127.0.0.1:4000"),
        "usb": ("303a:1001", "2E8A:*"),
        "baud": 921_600,
    },
    "api": {"listen": "0.0.0.0:80", "tls": True},
    "mining": {"kernel": "python", "threads": 3},
    "storage": {"keep_days": 90, "archive": Path("/mnt/archive"), "discard": True},
    "limits": {
        "mempool_transactions": 200,
        "mempool_mib": 2,
        "blob_mib": 3,
        "payload_mib": 4,
        "payload_member_mib": 5,
    },
}


@pytest.fixture
def write(tmp_path):
    """Write a configuration file; returns its path."""

    def make(text: str | bytes) -> Path:
        path = tmp_path / "fog.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def plain(loaded: Config) -> dict:
    return {name: dict(getattr(loaded, name)) for name in Config.model_fields}


def test_every_key_of_a_sample_comes_back(write) -> None:
    for name, section in Config.model_fields.items():
        values, model = VALUES[name], section.annotation
        assert values.keys() == model.model_fields.keys()
        for key, field in model.model_fields.items():
            assert values[key] != field.get_default(call_default_factory=True), (name, key)
    text = config.sample("seoul", Path("/f"), Path("/keys"), VALUES)
    assert plain(config.load(write(text))) == VALUES


def test_a_sample_says_the_meaning_of_every_key() -> None:
    text = config.sample("seoul", Path("/f"), Path("/keys"))
    for name, section in Config.model_fields.items():
        part = text.partition(f"\n[{name}]\n")[2].partition("\n[")[0]
        for key, field in section.annotation.model_fields.items():
            assert field.description
            assert re.search(
                rf"^# {re.escape(field.description)}\n(# )?{key} = ", part, re.MULTILINE
            ), key


def test_a_sample_holds_the_defaults(write) -> None:
    text = config.sample("seoul", Path("/f"), Path("/keys"))
    loaded = config.load(write(text))
    shortest = config.load(write(MINIMAL))
    for name in ("mqtt", "serial", "api", "mining", "limits"):
        assert getattr(loaded, name) == getattr(shortest, name)
    assert loaded.peer.listen == shortest.peer.listen
    assert loaded.mining.kernel == proof_of_work.best()
    assert tomllib.loads(text)["peer"]["tls_key"] == "/keys/tls.key"


def test_paths_are_relative_to_the_file(write, monkeypatch) -> None:
    path = write(MINIMAL + '[mqtt]\nca = "broker.pem"')
    monkeypatch.chdir(path.parent)
    loaded = config.load(Path(path.name))
    assert loaded.node.founding == path.parent / "founding.cbor"
    assert loaded.node.key == path.parent / "keys/signing.key"
    assert loaded.node.data_dir == path.parent / "data"
    assert loaded.peer.tls_key == Path("/etc/fogline/tls.key")
    assert loaded.mqtt.ca == path.parent / "broker.pem"
    assert loaded.mqtt.password_file is None


def test_a_loaded_configuration_stays_as_it_is(write) -> None:
    loaded = config.load(write(MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        loaded.node.member = "busan"


REFUSED = {
    "unknown key": (
        MINIMAL + "certifcate = 1",
        "[peer] certifcate: is an unknown key; [peer] has listen, certificate, tls_key, peers",
    ),
    "unknown section": (
        MINIMAL + "[mine]\nthreads = 1",
        "[mine] is an unknown section; the sections are node, peer, mqtt, serial, api, mining",
    ),
    "missing key": (
        MINIMAL.replace('key = "keys/signing.key"', "", 1),
        "[node] key: is missing; fogline fog init writes a file with every key",
    ),
    "missing section": ("", "[node]: is missing; fogline fog init writes"),
    "text for a number": (
        MINIMAL + '[mining]\nthreads = "2"',
        "[mining] threads: Input should be a valid integer",
    ),
    "number for a truth": (
        MINIMAL + "[mqtt]\nenabled = 1",
        "[mqtt] enabled: Input should be a valid boolean",
    ),
    "truth for a number": (
        MINIMAL + "[mining]\nthreads = true",
        "[mining] threads: Input should be a valid integer",
    ),
    "number for a path": (
        MINIMAL.replace('"data"', "5"),
        "[node] data_dir: Input is not a valid path",
    ),
    "number for a section": ("node = 1", "[node]: Input should be a valid dictionary"),
    "too few": (MINIMAL + "[mining]\nthreads = 0", "[mining] threads: Input should be greater"),
    "too many": (
        MINIMAL + "[limits]\nblob_mib = 9999999",
        "[limits] blob_mib: Input should be less than or equal to 1048576",
    ),
    "no such level": (
        MINIMAL.replace("[peer]", 'log_level = "loud"\n[peer]'),
        "[node] log_level: Input should be 'debug', 'info', 'warning' or 'error'",
    ),
    "kernel of another machine": (
        MINIMAL + '[mining]\nkernel = "quantum"',
        "[mining] kernel: is not on this machine; choose one of "
        + ", ".join(proof_of_work.kernels()),
    ),
    "serial port": (
        MINIMAL + '[serial]\nports = ["COM3"]',
        "[serial] ports: 'COM3' is neither a device's path nor socket://HOST:PORT",
    ),
    "serial address": (
        MINIMAL + '[serial]\nports = ["socket://bench"]',
        "[serial] ports: 'bench' is not HOST:PORT",
    ),
    "USB id": (
        MINIMAL + '[serial]\nusb = ["303a"]',
        "[serial] usb: '303a' is not VVVV:PPPP or VVVV:*, in hex digits",
    ),
    "peer address": (
        MINIMAL + 'peers = { busan = "busan.example" }',
        "[peer] peers: 'busan.example' is not HOST:PORT",
    ),
}


@pytest.mark.parametrize(("text", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_named(write, text, why) -> None:
    path = write(text)
    with pytest.raises(ConfigurationError) as refused:
        config.load(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: {why}")
    assert "\n" not in message


@pytest.mark.parametrize("key", ["[peer] listen", "[mqtt] broker", "[api] listen"])
@pytest.mark.parametrize(
    "address",
    ["", "7420", ":7420", "host", "host:", "host:x", "host:65536", "host:-1", "[::1:1", "::1:1"],
)
def test_an_address_that_is_none_is_named(write, key, address) -> None:
    section, name = key.split()
    text = MINIMAL if section == "[peer]" else f"{MINIMAL}{section}\n"
    with pytest.raises(ConfigurationError, match=re.escape(key)):
        config.load(write(f'{text}{name} = "{address}"'))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("fog.example:65535", ("fog.example", 65535)),
        ("[2001:db8::1]:7420", ("2001:db8::1", 7420)),
    ],
)
def test_addresses(text, address) -> None:
    assert config.split_address(text) == address


def test_a_file_that_is_not_there_is_named_with_the_remedy(tmp_path) -> None:
    path = tmp_path / "fog.toml"
    with pytest.raises(ConfigurationError) as refused:
        config.load(path)
    assert str(refused.value) == (
        f"{path}: No such file or directory; write one with: fogline fog init"
    )


@pytest.mark.parametrize("data", [b"[node", b"\xff\xfe", b"member = seoul"])
def test_what_is_not_toml_is_named(write, data) -> None:
    path = write(data)
    with pytest.raises(ConfigurationError, match=re.escape(f"{path}: is not TOML: ")):
        config.load(path)


def test_a_file_that_is_too_large_is_not_read(write) -> None:
    path = write(MINIMAL + "#" * config.MAX_CONFIG_BYTES)
    with pytest.raises(ConfigurationError, match=r"is larger than 262144 bytes; write one with"):
        config.load(path)
