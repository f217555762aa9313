"""A simulated flash chip under littlefs or FAT whose power can be cut at any write or erase."""

import gc

import vfs
from support import Random

BLOCK_BYTES = 4096
SECTOR_BYTES = 512
_EIO = 5


class PowerCut(Exception):  # noqa: N818 - an event, not an error
    """The power failed in the middle of a write or an erase."""


# What the operation in whose middle the power fails leaves behind: nothing of it, its first half,
# some of its bits (an erase that was cut short leaves any), or all of it.
MODES = ("none", "half", "torn", "all")


class Flash:
    """A block device for `vfs`.

    `cut` is the number of the operation that will not complete, `mode` what it leaves; behind it
    the power is `off`, and what is written is gone. While it is `broken`, every access fails.
    """

    def __init__(self, kind, data=None, blocks=48, **options):
        self._fat = kind is vfs.VfsFat
        self._kind = kind
        self._options = options  # of the file system, the same for its whole life
        self._unit = SECTOR_BYTES if self._fat else BLOCK_BYTES
        gc.collect()  # there is not much memory, and this wants it in one piece
        self.hold(bytearray(blocks * BLOCK_BYTES if data is None else data))
        self.writes = 0
        self.cut = None
        self.mode = "half"
        self.off = False
        self.broken = False
        if data is None:
            kind.mkfs(self, **options)

    def hold(self, data):
        """Have this bytearray for the chip's content."""
        self.data = data
        self._view = memoryview(data)  # made once: littlefs reads a great deal

    def mount(self, path):
        """Mount the file system at `path`."""
        vfs.mount(self._kind(self, **self._options), path)

    def restarted(self):
        """The chip after the power came back."""
        return Flash(self._kind, self.data, **self._options)

    def readblocks(self, block, buffer, offset=0):
        if self.broken:
            return -_EIO
        at = block * self._unit + offset
        buffer[:] = self._view[at : at + len(buffer)]
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
        if self.writes == self.cut:
            self._leave(at, new)
            self.off = True
            raise PowerCut
        self.data[at : at + len(new)] = new
        return 0

    def _leave(self, at, new):
        size = len(new) // 2 if self.mode == "half" else len(new)
        if self.mode in ("half", "all"):
            self.data[at : at + size] = memoryview(new)[:size]
        elif self.mode == "torn":
            random = Random(1 + self.writes)
            for index in range(size):
                mask = random.below(256)
                old = self.data[at + index]
                self.data[at + index] = old & mask | new[index] & ~mask & 0xFF
