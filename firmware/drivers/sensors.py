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
from fogline.errors import SensorFault
from fogline.modules import forget

from .sensor import fault_of

RETRY_MIN_MS = 1000
RETRY_MAX_MS = 60_000


class Driver:
    """See `base.py` for the shape. Sensors cannot be read twice: the position is empty."""

    position = []

    def __init__(self, options, report):
        from . import sensors_setup

        self._report = report
        try:
            self._parts = [Part(*found) for found in sensors_setup.found(options)]
        finally:
            forget("drivers.sensors_setup")
        self.channels = tuple(channel for part in self._parts for channel in part.channels)
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


class Part:
    """One sensor, whether it works, and when it is tried again.

    Args:
        label: what it is called.
        sensor: its Sensor.
        bus: the I2C bus that it hangs on, or None.
        kept: which of the sensor's channels go into a row.
        channels: those, named as in a pack.

    Attributes:
        fault, detail: why it gives nothing, or None and what it said last.
    """

    def __init__(self, label, sensor, bus, kept, channels):
        self.label = label
        self._sensor = sensor
        self._bus = bus
        self._kept = kept
        self.channels = channels
        self.fault = None
        self.detail = ""
        self._is_open = False
        self._retry_ms = RETRY_MIN_MS
        self._due_ms = None

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
