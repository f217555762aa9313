"""A switch that says whether something is there: inductive, capacitive, optical, a reed contact.

Industrial ones (EN 60947-5-2) switch 10 to 30 V: behind an optocoupler, see hardware/wiring. NPN
ones pull the pin low when something is there, which is `active: "low"` with `pull: "up"`.
"""

from time import sleep_us

from fogline import board

from .base import Channel

READINGS = 5
PAUSE_US = 200


class Sensor:
    """See `sensor.py` for the shape."""

    REQUIRED = ("pin",)
    OPTIONAL = ("pull", "active")
    channels = (Channel("present", "1", 0.0, 1.0),)

    def __init__(self, where, options):
        from fogline.checks import check_choice

        self._pin_name = options["pin"]
        board.claim(where + ".pin", "pin", self._pin_name)
        self._pull = options.get("pull", "up")
        check_choice(where + ".pull", self._pull, (None, "up", "down"))
        active = options.get("active", "low")
        check_choice(where + ".active", active, ("low", "high"))
        self._level = 1 if active == "high" else 0

    def open(self):
        """Get the pin."""
        self._pin = board.get("pin", self._pin_name, self._pull)

    def sample(self):
        """Return [1.0 or 0.0]: what most of five readings say, since contacts bounce."""
        found = 0
        for _ in range(READINGS):
            if self._pin.value() == self._level:
                found += 1
            sleep_us(PAUSE_US)
        return [1.0 if found > READINGS // 2 else 0.0]

    def close(self):
        """Nothing has to be let go."""
