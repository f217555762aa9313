"""The shape that all drivers share, and what more than one of them needs.

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

from fogline.errors import DriverError

MAX_SCRIPT_ITEMS = 256

# name (SenML), unit (UCUM), smallest and largest plausible value in that unit
Channel = namedtuple("Channel", ("name", "unit", "minimum", "maximum"))


class _Wait:
    def __repr__(self):
        return "WAIT_MODEL"


WAIT_MODEL = _Wait()


def check_script(script, required, optional):
    """Check the list of a driver's work: maps with these keys, or {"wait": "model"}."""
    from fogline.checks import check_choice, check_list, check_map, dotted

    where = "config.driver.script"
    check_list(where, script, 1, MAX_SCRIPT_ITEMS)
    for index, item in enumerate(script):
        at = f"{where}[{index}]"
        if isinstance(item, dict) and "wait" in item:
            check_map(at, item, ("wait",))
            check_choice(dotted(at, "wait"), item["wait"], ("model",))
        else:
            check_map(at, item, required, optional)


def check_position(position, length):
    """Refuse a stored position that is not `length` integers of 0 and above."""
    good = isinstance(position, list) and len(position) == length
    if not good or not all(isinstance(item, int) and item >= 0 for item in position):
        raise DriverError("driver.position", "is not one of this driver")
