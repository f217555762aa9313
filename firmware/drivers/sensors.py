"""Joins sensors to one driver: a row holds the channels of all of them.

    {"name": "sensors", "sensors": [
        {"name": "bme280", "label": "air", "bus": "i2c0"},
        {"name": "adxl345", "label": "pump", "bus": "i2c0", "channels": {"rms": "vibration"}},
        ...]}

`label` (usually the sensor's name) tells sensors apart, and is what a pack calls one that
fails. A channel is called `<label>/<quantity>` unless `channels` gives it another name, or
null, which leaves it out.

A sensor that cannot be set up or read, or that measures what none of its kind can, gives no
values and is named in `faults`; the others go on. It is set up anew after RETRY_MIN_MS, and
ever more seldom up to RETRY_MAX_MS, so that one which is plugged in again comes back.
"""

from time import ticks_add, ticks_diff, ticks_ms

from fogline import board
from fogline.errors import ConfigError, SensorFault

from .base import Channel
from .sensor import fault_of

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
RETRY_MIN_MS = 1000
RETRY_MAX_MS = 60_000
_ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
# RFC 8428 section 4.5.1.
_NAME_CHARS = _ALPHANUMERIC + "-:./_"
_COMMON = ("label", "channels")
# What a pack has other records for.
_RESERVED = ("model/", "fault/", "clock/")


class Driver:
    """See `base.py` for the shape. Sensors cannot be read twice: the position is empty."""

    position = []

    def __init__(self, options, report):
        from fogline.checks import check_list, check_map

        check_map("config.driver", options, ("name", "sensors"))
        check_list("config.driver.sensors", options["sensors"], 1, MAX_SENSORS)
        self._report = report
        self._parts = []
        channels = []
        for index, item in enumerate(options["sensors"]):
            where = f"config.driver.sensors[{index}]"
            part = _Part(where, item)
            if any(part.label == other.label for other in self._parts):
                raise ConfigError(where + ".label", "is another sensor's; give each its own")
            for channel in part.channels:
                if any(channel.name == other.name for other in channels):
                    raise ConfigError(where + ".channels", channel.name + " is there twice")
                channels.append(channel)
            self._parts.append(part)
        if not 0 < len(channels) <= MAX_CHANNELS:
            raise ConfigError("config.driver.sensors", f"have not 1 to {MAX_CHANNELS} channels")
        self.channels = tuple(channels)
        self.sensors = tuple(part.label for part in self._parts)
        self.faults = ()

    def open(self, position):
        """Set up what is there; a sensor that is not counts as failed."""
        for part in self._parts:
            part.open()

    def sample(self):
        """Return (None, values): the row is of now."""
        values = []
        faults = []
        for part in self._parts:
            before = part.fault
            values.extend(part.sample())
            if part.fault is not None:
                faults.append((part.label, part.fault))
            if part.fault != before:
                self._tell(part)
        self.faults = tuple(faults)
        return None, values

    def close(self):
        """Let go of all sensors."""
        for part in self._parts:
            part.close()

    def _tell(self, part):
        if part.fault is None:
            self._report("recovered", sensor=part.label)
        else:
            self._report("fault", sensor=part.label, code=part.fault, detail=part.detail)


class _Part:
    """One sensor: its channels' names, whether it works, and when it is tried again.

    Attributes:
        fault, detail: why it gives nothing, or None and what it said last.
    """

    def __init__(self, where, item):
        from fogline.checks import check_choice, check_map, check_text

        if not isinstance(item, dict):
            raise ConfigError(where, "is not a map")
        check_choice(where + ".name", item.get("name"), NAMES)
        module = __import__("drivers." + item["name"], None, None, ("Sensor",))
        kind = module.Sensor
        check_map(where, item, ("name",) + kind.REQUIRED, kind.OPTIONAL + _COMMON)
        self.label = item.get("label", item["name"])
        check_text(where + ".label", self.label, MAX_LABEL_CHARS, _NAME_CHARS)
        if self.label[0] not in _ALPHANUMERIC:
            raise ConfigError(where + ".label", "begins with neither letter nor digit")
        options = {key: item[key] for key in item if key != "name" and key not in _COMMON}
        self._sensor = kind(where, options)
        self._bus = item.get("bus")
        self.channels = self._named(where + ".channels", item.get("channels", {}))
        self.fault = None
        self.detail = ""
        self._is_open = False
        self._retry_ms = RETRY_MIN_MS
        self._due_ms = None

    def _named(self, where, names):
        """Give the sensor's channels the names that they have in a pack."""
        from fogline.checks import check_map, check_text

        check_map(where, names, (), [channel.name for channel in self._sensor.channels])
        self._kept = []
        channels = []
        for index, channel in enumerate(self._sensor.channels):
            name = names.get(channel.name, self.label + "/" + channel.name)
            if name is None:
                continue
            at = where + "." + channel.name
            check_text(at, name, MAX_NAME_CHARS, _NAME_CHARS)
            if name[0] not in _ALPHANUMERIC or name.startswith(_RESERVED):
                raise ConfigError(at, name + " is no channel's name")
            self._kept.append(index)
            channels.append(Channel(name, channel.unit, channel.minimum, channel.maximum))
        return channels

    def open(self):
        """Set the sensor up; says in `fault` when that fails."""
        if self.fault in ("bus", "timeout"):
            board.get("clear_i2c", self._bus)
        self._try(self._sensor.open)
        self._is_open = self.fault is None

    def sample(self):
        """Return a value or None for each channel."""
        nothing = [None] * len(self.channels)
        if not self._is_open:
            if self._due_ms is not None and ticks_diff(ticks_ms(), self._due_ms) < 0:
                return nothing
            self.open()
            if not self._is_open:
                return nothing
        values = self._try(self._sensor.sample)
        if values is None:
            return nothing
        self._retry_ms = RETRY_MIN_MS
        return self._plausible([values[index] for index in self._kept])

    def _plausible(self, values):
        for value, channel in zip(values, self.channels):
            # A NaN is not within bounds either.
            if value is not None and not channel.minimum <= value <= channel.maximum:
                self.fault, self.detail = "range", f"{channel.name} {value}"
                return [None] * len(values)
        return values

    def _try(self, work):
        """Return what the call gives, or None with `fault` set."""
        reopen = True
        try:
            result = work()
        except SensorFault as error:
            fault, detail, reopen = error.fault, error.detail, error.reopen
        except OSError as error:
            fault, detail = fault_of(error), "errno " + str(error.errno)
        except Exception as error:  # noqa: BLE001 - one driver's defect must not stop the others
            fault, detail = "defect", type(error).__name__
        else:
            self.fault = None
            return result
        self.fault, self.detail = fault, detail
        if reopen:
            self.close()
            self._due_ms = ticks_add(ticks_ms(), self._retry_ms)
            self._retry_ms = min(2 * self._retry_ms, RETRY_MAX_MS)
        return None

    def close(self):
        """Let go of the sensor, whatever state it is in."""
        self._is_open = False
        try:
            self._sensor.close()
        except Exception:  # noqa: BLE001 - it is gone already
            pass
