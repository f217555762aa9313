"""What drivers share that work through a script and can be read again: checks of both.

Real sensors can do neither, and their boards have no need of this.
"""

from fogline.errors import DriverError

MAX_SCRIPT_ITEMS = 256


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
