"""Checks of settings: each raises ConfigError that names the setting, dotted, and the remedy."""

from .errors import ConfigError


def dotted(where, key):
    """Return the dotted name of a setting within another."""
    return where + "." + key


def check_map(where, value, required, optional=()):
    """Refuse what is not a map with these keys."""
    if not isinstance(value, dict):
        raise ConfigError(where, "is not a map")
    for key in required:
        if key not in value:
            raise ConfigError(f"{where}.{key}", "is missing")
    for key in value:
        if key not in required and key not in optional:
            known = ", ".join(tuple(required) + tuple(optional))
            raise ConfigError(f"{where}.{key}", "is unknown; known are " + known)


def check_list(where, value, least, most):
    """Refuse what is not a list of `least` to `most` items."""
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise ConfigError(where, f"is not a list of {least} to {most} items")


def check_integer(where, value, least, most):
    """Refuse what is not an integer from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(where, f"is {value!r}, not an integer from {least} to {most}")


def check_number(where, value, least, most):
    """Refuse what is not a number from `least` to `most`."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        raise ConfigError(where, f"is {value!r}, not a number from {least} to {most}")


def check_text(where, value, most, chars=None):
    """Refuse what is not text of 1 to `most` characters, all of them among `chars`."""
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise ConfigError(where, f"is not text of 1 to {most} characters")
    if chars is not None and any(char not in chars for char in value):
        raise ConfigError(where, f"may hold only {chars}")


def check_choice(where, value, choices):
    """Refuse what is not one of `choices`."""
    if value not in choices:
        known = ", ".join(str(choice) for choice in choices)
        raise ConfigError(where, f"is {value!r}, choose from {known}")


def hex_bytes(where, value, length):
    """Return the `length` bytes that `value` holds as hex digits."""
    try:
        data = bytes.fromhex(value)
    except (TypeError, ValueError):
        data = b""
    if len(data) != length:
        raise ConfigError(where, f"is not {2 * length} hex digits")
    return data
