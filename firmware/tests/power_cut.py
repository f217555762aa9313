"""A simulated flash chip under littlefs or FAT whose power can be cut at any write."""

import vfs

BLOCK_BYTES = 4096
SECTOR_BYTES = 512
_EIO = 5


class PowerCut(Exception):  # noqa: N818 - an event, not an error
    """The power failed in the middle of a write or an erase."""


class Flash:
    """A block device for `vfs`.

    `cut` is the number of the write that will not complete; behind it the power is `off`, and
    what is written is gone. While it is `broken`, every access fails.
    """

    def __init__(self, kind, data=None):
        self._fat = kind is vfs.VfsFat
        self._kind = kind
        self._unit = SECTOR_BYTES if self._fat else BLOCK_BYTES
        self.data = bytearray(48 * BLOCK_BYTES if data is None else data)
        self.writes = 0
        self.cut = None
        self.off = False
        self.broken = False
        if data is None:
            kind.mkfs(self)

    def mount(self, path):
        """Mount the file system at `path`."""
        vfs.mount(self._kind(self), path)

    def restarted(self):
        """The chip after the power came back."""
        return Flash(self._kind, self.data)

    def readblocks(self, block, buffer, offset=0):
        if self.broken:
            return -_EIO
        at = block * self._unit + offset
        buffer[:] = memoryview(self.data)[at : at + len(buffer)]
        return 0

    def writeblocks(self, block, buffer, offset=0):
        return self._change(block * self._unit + offset, buffer)

    def ioctl(self, operation, argument):
        if operation == 4:
            return len(self.data) // self._unit
        if operation == 5:
            return self._unit
        if operation == 6 and not self._fat:
            return self._change(argument * self._unit, b"\xff" * self._unit)
        return 0

    def _change(self, at, new):
        if self.broken:
            return -_EIO
        if self.off:
            return 0
        self.writes += 1
        cut = self.writes == self.cut
        size = len(new) // 2 if cut else len(new)
        self.data[at : at + size] = memoryview(new)[:size]
        if cut:
            self.off = True
            raise PowerCut
        return 0
