"""Runs first at every start: mounts the flash, after making it a file system if it is new."""

import vfs

import qemu

_flash = qemu.Flash()
try:
    vfs.mount(vfs.VfsLfs2(_flash, progsize=256), "/")
except OSError:
    vfs.VfsLfs2.mkfs(_flash, progsize=256)
    vfs.mount(vfs.VfsLfs2(_flash, progsize=256), "/")
