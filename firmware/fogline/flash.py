"""A few small files in flash that are replaced whole or not at all."""

import os
from binascii import crc32

_ENOENT = 2
_EEXIST = 17
_CRC_BYTES = 4
_NEW = ".new"


class Flash:
    """The files of one directory, which is made if need be.

    All writing goes through `_write`, `_rename` and `_remove`: a test cuts the power there.
    """

    def __init__(self, directory):
        self._prefix = directory + "/" if directory else ""
        if directory:
            try:
                os.mkdir(directory)
            except OSError as error:
                if error.args[0] != _EEXIST:
                    raise

    def size(self, name):
        """Return the file's size in bytes, 0 if there is no such file."""
        try:
            return os.stat(self._prefix + name)[6]
        except OSError:
            return 0

    def open(self, name):
        """Open a file for reading bytes."""
        return open(self._prefix + name, "rb")

    def append(self, name, data):
        """Write `data` behind the file's end; it is in flash when this returns."""
        self._write(name, "ab", data)

    def write_whole(self, name, source, size, buffer):
        """Write the next `size` bytes of an open file as a new file, through `buffer`."""
        with open(self._prefix + name, "wb") as file:
            while size > 0:
                count = source.readinto(buffer[: min(size, len(buffer))])
                if not count:
                    return
                file.write(buffer[:count])
                size -= count

    def remove(self, name):
        """Remove the file if it is there."""
        try:
            self._remove(name)
        except OSError as error:
            if error.args[0] != _ENOENT:
                raise

    def save(self, name, data):
        """Replace what `load` returns by `data`; after a power cut it has the old or the new."""
        self.replace_whole(name, data + crc32(data).to_bytes(_CRC_BYTES, "big"))

    def replace_whole(self, name, data):
        """Replace the file's whole content by `data`, in one step where the file system can."""
        self._write(name + _NEW, "wb", data)
        try:
            self._rename(name + _NEW, name)
        except OSError as error:
            if error.args[0] != _EEXIST:
                raise
            # FAT does not rename over a file. A cut in between leaves the new one.
            self._remove(name)
            self._rename(name + _NEW, name)

    def load(self, name, max_bytes):
        """Return what `save` wrote last, None if there is nothing or nothing whole."""
        for path in (name, name + _NEW):
            try:
                with self.open(path) as file:
                    data = file.read(max_bytes + _CRC_BYTES + 1)
            except OSError:
                continue
            body, check = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
            if len(data) > _CRC_BYTES and crc32(body).to_bytes(_CRC_BYTES, "big") == check:
                return body
        return None

    def _write(self, name, mode, data):
        with open(self._prefix + name, mode) as file:
            file.write(data)
            file.flush()  # to flash: MicroPython syncs here

    def _rename(self, old, new):
        os.rename(self._prefix + old, self._prefix + new)

    def _remove(self, name):
        os.remove(self._prefix + name)
