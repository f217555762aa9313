"""Stands for MicroPython's module `vfs`, whose file systems CPython cannot mount."""


def _refuse(*_arguments, **_settings):
    raise NotImplementedError("vfs needs MicroPython; say that the test needs littlefs")


class VfsLfs2:
    """Littlefs: not here."""

    __new__ = _refuse
    mkfs = _refuse


class VfsFat:
    """FAT: not here."""

    __new__ = _refuse
    mkfs = _refuse


mount = umount = _refuse
