"""Stands for MicroPython's module `micropython`."""


def const(value):
    """Give the value: a constant is a variable here."""
    return value


def native(function):
    """Give the function: native code does what its source does."""
    return function


def viper(function):
    """Give a function that refuses to be called: pointers and machine words are not here."""

    def refuse(*_arguments):
        raise NotImplementedError(
            f"{function.__name__}: viper code needs MicroPython; say that the test needs viper"
        )

    return refuse


def pointer(name):
    """Give what stands for one of viper's types in annotations; it refuses to be called."""

    def refuse(self, *_arguments):
        raise NotImplementedError(f"{name} needs MicroPython; say that the test needs viper")

    return type(name, (), {"__new__": refuse})


def kbd_intr(character):
    """Take which byte interrupts a program: none does on a pipe."""


def opt_level(level=None):
    """Take the level; there is one."""
    return 0 if level is None else None
