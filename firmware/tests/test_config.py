"""board.json: what is taken, and that each refusal names the setting."""

import json
import os

from fogline import config
from fogline.errors import ConfigError

GATEWAY = {"name": "seoul", "key": "ab" * 64}
MQTT = {
    "host": "127.0.0.1",
    "port": 8883,
    "tls": True,
    "ca": "ca.der",
    "server_name": "broker.test",
    "keepalive_s": 30,
}
SERIAL = {"port": "stdio", "window_bytes": 240, "keepalive_s": 5, "interrupt": True}
UART = {"bus": "uart1", "baud": 115200}
GOOD = {
    "chain_id": "01" * 32,
    "device_type": "water-circulation",
    "board": "unix",
    "enterprise_number": 32473,
    "gateways": [GATEWAY, {"name": "busan-2", "key": "cd" * 64}],
    "mqtt": MQTT,
    "release_keys": ["ef" * 64],
    "driver": {"name": "testbed", "seed": 1, "script": [{"rows": 1, "fault": None}]},
    "pack_rows": 10,
    "rate_hz": 0,
    "outbox_bytes": 262144,
    "gateway_timeout_s": 10,
}


def changed(**changes):
    value = dict(GOOD)
    value.update(changes)
    return value


def changed_mqtt(**changes):
    value = dict(MQTT)
    value.update(changes)
    return changed(mqtt=value)


def over_serial(**changes):
    value = changed(serial=dict(SERIAL))
    del value["mqtt"]
    value["serial"].update(changes)
    if "uart" in changes:
        value["board"] = "esp32-devkit"
    return value


def refused_setting(value):
    try:
        config.parse(value)
    except ConfigError as error:
        return error.code
    raise AssertionError("taken")


def test_takes_a_good_configuration():
    parsed = config.parse(GOOD)
    assert parsed.chain_id == b"\x01" * 32
    assert [gateway.name for gateway in parsed.gateways] == ["seoul", "busan-2"]
    assert parsed.gateways[1].xy == b"\xcd" * 64
    assert parsed.release_keys == (b"\xef" * 64,)
    assert parsed.mqtt.port == 8883
    assert parsed.mqtt.user is None


def test_takes_plain_mqtt_with_user_and_password():
    value = changed_mqtt(tls=False, ca=None, server_name=None, user="u", password="p")
    assert config.parse(value).mqtt.password == "p"


def test_an_ntp_server_may_be_named():
    assert config.parse(GOOD).ntp is None
    assert config.parse(changed(ntp=None)).ntp is None
    assert config.parse(changed(ntp="pool.ntp.org")).ntp == "pool.ntp.org"
    for wrong in ("", 5, "h" * 254):
        assert refused_setting(changed(ntp=wrong)) == "config.ntp"
    serial = over_serial()
    serial["ntp"] = "pool.ntp.org"
    assert refused_setting(serial) == "config.ntp"


def test_takes_a_serial_line_in_place_of_mqtt():
    parsed = config.parse(over_serial())
    assert parsed.mqtt is None
    assert parsed.serial.window_bytes == 240
    assert parsed.serial.uart is None
    parsed = config.parse(over_serial(port="uart", uart=UART))
    assert parsed.serial.uart == ("uart1", 115200)


def test_names_what_is_wrong_with_the_serial_line():
    both = over_serial()
    both["mqtt"] = MQTT
    assert refused_setting(both) == "config.mqtt"
    for key in SERIAL:
        value = over_serial()
        del value["serial"][key]
        assert refused_setting(value) == "config.serial." + key
    for changes, setting in (
        ({"port": "/dev/ttyUSB0"}, "port"),
        ({"window_bytes": 127}, "window_bytes"),
        ({"window_bytes": 16385}, "window_bytes"),
        ({"keepalive_s": 0}, "keepalive_s"),
        ({"interrupt": 1}, "interrupt"),
        ({"uart": UART}, "uart"),
        ({"port": "uart"}, "uart"),
        ({"parity": "even"}, "parity"),
    ):
        assert refused_setting(over_serial(**changes)) == "config.serial." + setting, changes
    for key in UART:
        value = dict(UART)
        del value[key]
        assert refused_setting(over_serial(port="uart", uart=value)) == "config.serial.uart." + key
        value[key] = 1
        assert refused_setting(over_serial(port="uart", uart=value)) == "config.serial.uart." + key


def test_a_serial_line_needs_a_uart_that_the_board_has():
    value = over_serial(port="uart", uart=UART)
    value["board"] = "unix"
    assert refused_setting(value) == "config.serial.uart.bus"


def test_wifi_is_there_exactly_where_a_board_needs_it():
    wifi = {"ssid": "hall 3", "password": "correct horse"}
    assert config.parse(changed(board="pico-w", wifi=wifi)).wifi.country is None
    more = {"ssid": "s", "password": None, "country": "KR", "hostname": "pump-7"}
    assert config.parse(changed(board="esp32-s3", wifi=more)).wifi.hostname == "pump-7"
    assert config.parse(GOOD).wifi is None
    assert refused_setting(changed(board="pico-w")) == "config.wifi"
    assert refused_setting(changed(wifi=wifi)) == "config.wifi"
    value = over_serial()
    value["board"] = "pico-w"
    assert config.parse(value).wifi is None
    value["wifi"] = wifi
    assert refused_setting(value) == "config.wifi"
    for changes, setting in (
        ({"ssid": ""}, ".ssid"),
        ({"ssid": "x" * 33}, ".ssid"),
        ({"password": "short"}, ".password"),
        ({"password": "x" * 64}, ".password"),
        ({"country": "Korea"}, ".country"),
        ({"hostname": "pump 7"}, ".hostname"),
        ({"bssid": "x"}, ".bssid"),
    ):
        value = dict(wifi)
        value.update(changes)
        assert refused_setting(changed(board="pico-w", wifi=value)) == "config.wifi" + setting


def test_names_each_missing_key():
    for key in GOOD:
        value = dict(GOOD)
        del value[key]
        assert refused_setting(value) == "config." + key
    for key in MQTT:
        value = dict(MQTT)
        del value[key]
        assert refused_setting(changed(mqtt=value)) == "config.mqtt." + key


def test_names_unknown_keys():
    assert refused_setting(changed(pack_row=1)) == "config.pack_row"
    assert refused_setting(changed_mqtt(verify=False)) == "config.mqtt.verify"
    extra = dict(GATEWAY)
    extra["port"] = 1
    assert refused_setting(changed(gateways=[extra])) == "config.gateways[0].port"


def test_names_values_out_of_range():
    for key, value in (
        ("chain_id", "01" * 31),
        ("chain_id", "zz" * 32),
        ("chain_id", 5),
        ("device_type", ""),
        ("device_type", "water/+"),
        ("board", "abacus"),
        ("enterprise_number", 0),
        ("enterprise_number", True),
        ("gateways", []),
        ("gateways", [GATEWAY] * 9),
        ("pack_rows", 0),
        ("pack_rows", 121),
        ("pack_rows", 1.5),
        ("rate_hz", -1),
        ("rate_hz", "10"),
        ("outbox_bytes", 1000),
        ("gateway_timeout_s", 0),
        ("release_keys", ["ef" * 64] * 4),
        ("driver", "replay"),
    ):
        assert refused_setting(changed(**{key: value})) == "config." + key, (key, value)


def test_names_the_gateway_at_fault():
    assert refused_setting(changed(gateways=[GATEWAY, GATEWAY])) == "config.gateways[1]"
    bad = {"name": "Seoul", "key": "ab" * 64}
    assert refused_setting(changed(gateways=[bad])) == "config.gateways[0].name"
    bad = {"name": "seoul", "key": "ab"}
    assert refused_setting(changed(gateways=[bad])) == "config.gateways[0].key"


def test_tls_is_never_without_a_check():
    assert refused_setting(changed_mqtt(ca=None)) == "config.mqtt.ca"
    assert refused_setting(changed_mqtt(server_name=None)) == "config.mqtt.server_name"
    assert refused_setting(changed_mqtt(tls=False)) == "config.mqtt.ca"
    assert refused_setting(changed_mqtt(tls=0)) == "config.mqtt.tls"
    assert refused_setting(changed_mqtt(password="p")) == "config.mqtt.user"


def test_reads_the_file():
    path = "test_config.json"
    try:
        with open(path, "w") as file:
            file.write(json.dumps(GOOD))
        assert config.load(path) == config.parse(GOOD)
        for text in ("", "{", "[]", "{} x", " " * (config.MAX_CONFIG_BYTES + 1)):
            with open(path, "w") as file:
                file.write(text)
            try:
                config.load(path)
            except ConfigError as error:
                assert error.code in ("config.file", "config")
            else:
                raise AssertionError("taken: " + text[:9])
    finally:
        os.remove(path)
    try:
        config.load("absent.json")
    except ConfigError as error:
        assert error.code == "config.file"
    else:
        raise AssertionError("taken")
