"""Reads the settings of `sensors.py`: which sensors there are, and how their channels are called.

Needed while the driver is made, and not afterwards.
"""

from fogline.checks import check_choice, check_list, check_map, check_text
from fogline.errors import ConfigError

from .base import Channel

NAMES = (
    "adxl345",
    "analog",
    "bh1750",
    "bme280",
    "elm327",
    "hcsr04",
    "ina219",
    "mfrc522",
    "mpu6050",
    "proximity",
    "pulse",
    "pzem004t",
)
MAX_SENSORS = 16
MAX_CHANNELS = 32
MAX_LABEL_CHARS = 26
MAX_NAME_CHARS = 32
_ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
# RFC 8428 section 4.5.1.
_NAME_CHARS = _ALPHANUMERIC + "-:./_"
_COMMON = ("label", "channels")
# What a pack has other records for.
_RESERVED = ("model/", "fault/", "clock/")


def found(options):
    """Return the arguments of each `sensors.Part`; raises ConfigError."""
    check_map("config.driver", options, ("name", "sensors"))
    check_list("config.driver.sensors", options["sensors"], 1, MAX_SENSORS)
    parts = []
    labels = []
    names = []
    for index, item in enumerate(options["sensors"]):
        where = f"config.driver.sensors[{index}]"
        part = _part(where, item)
        label, channels = part[0], part[-1]
        if label in labels:
            raise ConfigError(where + ".label", "is another sensor's; give each its own")
        for channel in channels:
            if channel.name in names:
                raise ConfigError(where + ".channels", channel.name + " is there twice")
            names.append(channel.name)
        labels.append(label)
        parts.append(part)
    if not 0 < len(names) <= MAX_CHANNELS:
        raise ConfigError("config.driver.sensors", f"have not 1 to {MAX_CHANNELS} channels")
    return parts


def _part(where, item):
    if not isinstance(item, dict):
        raise ConfigError(where, "is not a map")
    check_choice(where + ".name", item.get("name"), NAMES)
    module = __import__("drivers." + item["name"], None, None, ("Sensor",))
    kind = module.Sensor
    check_map(where, item, ("name",) + kind.REQUIRED, kind.OPTIONAL + _COMMON)
    label = item.get("label", item["name"])
    check_text(where + ".label", label, MAX_LABEL_CHARS, _NAME_CHARS)
    if label[0] not in _ALPHANUMERIC:
        raise ConfigError(where + ".label", "begins with neither letter nor digit")
    options = {key: item[key] for key in item if key != "name" and key not in _COMMON}
    sensor = kind(where, options)
    kept, channels = _named(where + ".channels", label, sensor, item.get("channels", {}))
    return label, sensor, item.get("bus"), kept, channels


def _named(where, label, sensor, names):
    """Give the sensor's channels the names that they have in a pack: which are kept, and those."""
    check_map(where, names, (), [channel.name for channel in sensor.channels])
    kept = []
    channels = []
    for index, channel in enumerate(sensor.channels):
        name = names.get(channel.name, label + "/" + channel.name)
        if name is None:
            continue
        at = where + "." + channel.name
        check_text(at, name, MAX_NAME_CHARS, _NAME_CHARS)
        if name[0] not in _ALPHANUMERIC or name.startswith(_RESERVED):
            raise ConfigError(at, name + " is no channel's name")
        kept.append(index)
        channels.append(Channel(name, channel.unit, channel.minimum, channel.maximum))
    return kept, channels
