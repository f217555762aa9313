# What both boards have beyond MicroPython's own.
MICROPY_VFS_LFS2 = 1
MICROPY_VFS_FAT = 1
FROZEN_MANIFEST = "include('\$$(MPY_DIR)/extmod/asyncio'); freeze('.', ('_boot.py', 'hil_counter.py'))"
SRC_C += modqemu.c shared/timeutils/timeutils.c
