"""The shape that all drivers share.

A driver is a class `Driver(options, report)` with

- `channels`: tuple of `Channel`, in the order in which the device is enrolled;
- `open(position)`: start behind `position` (None: from the beginning); raises DriverError;
- `sample()`: the next `(time_ms, values)`: an integer of milliseconds since 1970 (UTC; a
  board's float could not hold it), or None for now, by the board's own clock; and for each
  channel a float, or None where the sensor gave nothing; or WAIT_MODEL: go on once a model is
  active; or None: there is nothing more;
- `sensors`: labels of the sensors that may fail on their own; `faults`: (label, code) of each
  that gave nothing at the last `sample`, which the pack then names;
- `position`: where the driver stands behind what `sample` last returned: a list of
  integers, which `open` takes. A sensor that cannot be read twice has an empty one;
- `close()`.
"""

from collections import namedtuple

# name (SenML), unit (UCUM), smallest and largest plausible value in that unit
Channel = namedtuple("Channel", ("name", "unit", "minimum", "maximum"))


class _Wait:
    def __repr__(self):
        return "WAIT_MODEL"


WAIT_MODEL = _Wait()
