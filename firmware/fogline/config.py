"""The board's settings: `board.json` in the flash root, read once.

{"chain_id": hex, "device_type": "water-circulation", "board": "unix",
 "enterprise_number": 32473,
 "gateways": [{"name": "seoul", "key": x||y hex}, ...],        in fail-over order
 "mqtt": {"host", "port", "tls", "ca": "ca.der" | null, "server_name" | null,
          "keepalive_s", "user" | null, "password" | null},    the last two optional
 or, in its place,
 "serial": {"port": "stdio" | "uart", "window_bytes", "keepalive_s", "interrupt",
            "uart": {"bus": "uart1", "baud"}},                 `uart` where port says so
 "wifi": {"ssid", "password", "country", "hostname"},          with mqtt, on a board with Wi-Fi;
                                                               the last two optional
 "release_keys": [x||y hex, ...],                              whose releases to trust
 "driver": {"name", ...},                                      see drivers/
 "pack_rows": 10, "rate_hz": 0,                                0: as fast as possible
 "outbox_bytes": 262144, "gateway_timeout_s": 10,
 "ntp": "pool.ntp.org" | null}                                 optional; see clock.py
"""

import json
import os
from collections import namedtuple

from . import board
from .checks import (
    check_choice,
    check_integer,
    check_list,
    check_map,
    check_number,
    check_text,
    dotted,
    hex_bytes,
)
from .errors import ConfigError

PATH = "board.json"
MAX_CONFIG_BYTES = 32 * 1024
MAX_GATEWAYS = 8
MAX_RELEASE_KEYS = 3
MAX_NAME_CHARS = 64
MAX_PACK_ROWS = 120
MAX_RATE_HZ = 1000
MIN_OUTBOX_BYTES = 48 * 1024  # two of the largest transactions
MAX_OUTBOX_BYTES = 1 << 30
MAX_TIMEOUT_S = 3600
CHAIN_ID_BYTES = 32
XY_BYTES = 64
# What a name may hold that becomes a level of an MQTT topic.
_TOPIC_CHARS = "abcdefghijklmnopqrstuvwxyz0123456789-"

# What a board may be sent before it answers. MicroPython's own input buffers hold 260 bytes (ESP32)
# and 512 (RP2), and two frames have to fit.
MIN_WINDOW_BYTES = 128
MAX_WINDOW_BYTES = 16 * 1024
MAX_KEEPALIVE_S = 300
MIN_BAUD = 9_600
MAX_BAUD = 5_000_000

_KEYS = (
    "chain_id",
    "device_type",
    "board",
    "enterprise_number",
    "gateways",
    "release_keys",
    "driver",
    "pack_rows",
    "rate_hz",
    "outbox_bytes",
    "gateway_timeout_s",
)
# Exactly one of them.
_LINKS = ("mqtt", "serial")
_OPTIONAL = ("wifi", "ntp")
_MQTT_KEYS = ("host", "port", "tls", "ca", "server_name", "keepalive_s")
_MQTT_OPTIONAL = ("user", "password")
_WIFI_KEYS = ("ssid", "password")
_WIFI_OPTIONAL = ("country", "hostname")
MIN_WIFI_PASSWORD_CHARS = 8  # IEEE 802.11's WPA passphrase: 8 to 63
MAX_WIFI_PASSWORD_CHARS = 63
MAX_SSID_BYTES = 32
MAX_HOSTNAME_CHARS = 32
_SERIAL_KEYS = ("port", "window_bytes", "keepalive_s", "interrupt")
_UART_KEYS = ("bus", "baud")

Gateway = namedtuple("Gateway", ("name", "xy"))
Mqtt = namedtuple("Mqtt", _MQTT_KEYS + _MQTT_OPTIONAL)
Wifi = namedtuple("Wifi", _WIFI_KEYS + _WIFI_OPTIONAL)
Serial = namedtuple("Serial", _SERIAL_KEYS + ("uart",))
SerialUart = namedtuple("SerialUart", _UART_KEYS)
Config = namedtuple("Config", _KEYS + _LINKS + _OPTIONAL)


def load(path=PATH):
    """Read and check the settings; raises ConfigError that names the setting at fault."""
    try:
        # As many bytes as there are: MicroPython makes room for all that it is asked to read.
        size = os.stat(path)[6]
        with open(path, "rb") as file:
            data = file.read(min(size, MAX_CONFIG_BYTES + 1))
    except OSError:
        raise ConfigError("config.file", path + " cannot be read; provision the board") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError("config.file", f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        value = json.loads(data)
    except ValueError:
        raise ConfigError("config.file", path + " is not JSON") from None
    return parse(value)


def parse(value):
    """Check the decoded settings; returns a Config."""
    check_map("config", value, _KEYS, _LINKS + _OPTIONAL)
    if ("mqtt" in value) == ("serial" in value):
        raise ConfigError("config.mqtt", "or config.serial: give one of them, and not both")
    check_text("config.device_type", value["device_type"], MAX_NAME_CHARS, _TOPIC_CHARS)
    board.select(value["board"])
    check_integer("config.enterprise_number", value["enterprise_number"], 1, (1 << 32) - 1)
    check_list("config.release_keys", value["release_keys"], 0, MAX_RELEASE_KEYS)
    check_integer("config.pack_rows", value["pack_rows"], 1, MAX_PACK_ROWS)
    check_number("config.rate_hz", value["rate_hz"], 0, MAX_RATE_HZ)
    check_integer("config.outbox_bytes", value["outbox_bytes"], MIN_OUTBOX_BYTES, MAX_OUTBOX_BYTES)
    check_number("config.gateway_timeout_s", value["gateway_timeout_s"], 1, MAX_TIMEOUT_S)
    if value.get("ntp") is not None:
        check_text("config.ntp", value["ntp"], 253)
        if "serial" in value:
            raise ConfigError("config.ntp", "needs a network, not a serial line")
    if not isinstance(value["driver"], dict):
        raise ConfigError("config.driver", "is not a map")
    return Config(
        chain_id=hex_bytes("config.chain_id", value["chain_id"], CHAIN_ID_BYTES),
        device_type=value["device_type"],
        board=value["board"],
        enterprise_number=value["enterprise_number"],
        gateways=_gateways(value["gateways"]),
        mqtt=_mqtt(value["mqtt"]) if "mqtt" in value else None,
        serial=_serial(value["serial"]) if "serial" in value else None,
        wifi=_wifi(value),
        release_keys=tuple(
            hex_bytes(f"config.release_keys[{index}]", key, XY_BYTES)
            for index, key in enumerate(value["release_keys"])
        ),
        driver=value["driver"],
        pack_rows=value["pack_rows"],
        rate_hz=value["rate_hz"],
        outbox_bytes=value["outbox_bytes"],
        gateway_timeout_s=value["gateway_timeout_s"],
        ntp=value.get("ntp"),
    )


def _gateways(value):
    check_list("config.gateways", value, 1, MAX_GATEWAYS)
    gateways = []
    for index, item in enumerate(value):
        where = f"config.gateways[{index}]"
        check_map(where, item, ("name", "key"))
        check_text(dotted(where, "name"), item["name"], MAX_NAME_CHARS, _TOPIC_CHARS)
        gateway = Gateway(item["name"], hex_bytes(dotted(where, "key"), item["key"], XY_BYTES))
        if any(gateway.name == other.name or gateway.xy == other.xy for other in gateways):
            raise ConfigError(where, "has the name or key of another gateway")
        gateways.append(gateway)
    return tuple(gateways)


def _mqtt(value):
    where = "config.mqtt"
    check_map(where, value, _MQTT_KEYS, _MQTT_OPTIONAL)
    mqtt = Mqtt(**{key: value.get(key) for key in _MQTT_KEYS + _MQTT_OPTIONAL})
    check_text(dotted(where, "host"), mqtt.host, 253)
    check_integer(dotted(where, "port"), mqtt.port, 1, 65535)
    if mqtt.tls is not True and mqtt.tls is not False:
        raise ConfigError(dotted(where, "tls"), "is not true or false")
    check_integer(dotted(where, "keepalive_s"), mqtt.keepalive_s, 1, 65535)
    for key in ("ca", "server_name", "user", "password"):
        if getattr(mqtt, key) is not None:
            check_text(f"{where}.{key}", getattr(mqtt, key), 255)
    if mqtt.password is not None and mqtt.user is None:
        raise ConfigError(
            dotted(where, "user"), "is missing: MQTT 3.1.1 has no password without it"
        )
    for key in ("ca", "server_name"):
        if mqtt.tls and getattr(mqtt, key) is None:
            raise ConfigError(f"{where}.{key}", "is missing: TLS always checks the broker")
        if not mqtt.tls and getattr(mqtt, key) is not None:
            raise ConfigError(f"{where}.{key}", "is set, but tls is false")
    return mqtt


def _wifi(config):
    """Read the section; it is there exactly where a board needs it for MQTT."""
    where = "config.wifi"
    needed = board.has_wifi and "mqtt" in config
    if needed != ("wifi" in config):
        remedy = "is missing: this board reaches the broker by Wi-Fi"
        raise ConfigError(where, remedy if needed else "is for mqtt on a board with Wi-Fi alone")
    if not needed:
        return None
    value = config["wifi"]
    check_map(where, value, _WIFI_KEYS, _WIFI_OPTIONAL)
    check_text(dotted(where, "ssid"), value["ssid"], MAX_SSID_BYTES)
    if value["password"] is not None:  # null: an open network
        check_text(dotted(where, "password"), value["password"], MAX_WIFI_PASSWORD_CHARS)
        if len(value["password"]) < MIN_WIFI_PASSWORD_CHARS:
            raise ConfigError(dotted(where, "password"), "has less than 8 characters")
    if value.get("country") is not None:
        check_text(dotted(where, "country"), value["country"], 2, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    if value.get("hostname") is not None:
        check_text(dotted(where, "hostname"), value["hostname"], MAX_HOSTNAME_CHARS, _TOPIC_CHARS)
    return Wifi(**{key: value.get(key) for key in _WIFI_KEYS + _WIFI_OPTIONAL})


def _serial(value):
    where = "config.serial"
    check_map(where, value, _SERIAL_KEYS, ("uart",))
    check_choice(dotted(where, "port"), value["port"], ("stdio", "uart"))
    check_integer(
        dotted(where, "window_bytes"), value["window_bytes"], MIN_WINDOW_BYTES, MAX_WINDOW_BYTES
    )
    check_integer(dotted(where, "keepalive_s"), value["keepalive_s"], 1, MAX_KEEPALIVE_S)
    if value["interrupt"] is not True and value["interrupt"] is not False:
        raise ConfigError(dotted(where, "interrupt"), "is not true or false")
    if ("uart" in value) != (value["port"] == "uart"):
        raise ConfigError(dotted(where, "uart"), "goes with port uart, and only with it")
    uart = None
    if "uart" in value:
        uart = value["uart"]
        check_map(dotted(where, "uart"), uart, _UART_KEYS)
        check_integer(dotted(dotted(where, "uart"), "baud"), uart["baud"], MIN_BAUD, MAX_BAUD)
        board.claim(dotted(dotted(where, "uart"), "bus"), "uart", uart["bus"])
        uart = SerialUart(**uart)
    return Serial(uart=uart, **{key: value[key] for key in _SERIAL_KEYS})
