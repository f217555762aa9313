"""Sensor drivers of the board: one file per sensor, all of the shape in `base.py`."""

NAMES = ("replay", "sensors", "testbed")


def create(options, report):
    """Make the driver that board.json's `driver` section names; it is not opened yet.

    Args:
        options: the section; `name` chooses the driver, the rest is the driver's own.
        report: function(event, **fields) for what the driver has to say meanwhile.

    Raises:
        ConfigError: no such driver, or an option is unknown, missing or out of range.
    """
    from fogline.checks import check_choice

    name = options.get("name")
    check_choice("config.driver.name", name, NAMES)
    module = __import__("drivers." + name, None, None, ("Driver",))
    return module.Driver(options, report)
