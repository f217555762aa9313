// The module `qemu`: the flash as a block device, the machine's ticks in full, files of the host.

#include <string.h>

#include "py/mphal.h"
#include "py/mperrno.h"
#include "py/runtime.h"
#include "extmod/vfs.h"

static const mp_obj_base_t flash;

static mp_obj_t flash_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw,
    const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 0, 0, false);
    return MP_OBJ_FROM_PTR(&flash);
}

// The place in flash of `length` bytes at an offset in a block; refuses what lies outside.
static uint8_t *place(size_t n_args, const mp_obj_t *args, size_t length) {
    uint64_t at = (uint64_t)mp_obj_get_int(args[1]) * FLASH_BLOCK_BYTES;
    if (n_args == 4) {
        at += mp_obj_get_int(args[3]);
    }
    if (at > FLASH_BYTES || length > FLASH_BYTES - at) {
        mp_raise_OSError(MP_EINVAL);
    }
    return machine_flash + at;
}

static mp_obj_t flash_readblocks(size_t n_args, const mp_obj_t *args) {
    mp_buffer_info_t to;
    mp_get_buffer_raise(args[2], &to, MP_BUFFER_WRITE);
    memcpy(to.buf, place(n_args, args, to.len), to.len);
    return MP_OBJ_NEW_SMALL_INT(0);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(flash_readblocks_obj, 3, 4, flash_readblocks);

static mp_obj_t flash_writeblocks(size_t n_args, const mp_obj_t *args) {
    mp_buffer_info_t from;
    mp_get_buffer_raise(args[2], &from, MP_BUFFER_READ);
    uint8_t *to = place(n_args, args, from.len);
    if (n_args == 3) {
        memset(to, 0xff, from.len); // the simple protocol erases by itself
    }
    for (size_t i = 0; i < from.len; i++) {
        to[i] &= ((const uint8_t *)from.buf)[i]; // flash only clears bits
    }
    return MP_OBJ_NEW_SMALL_INT(0);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(flash_writeblocks_obj, 3, 4, flash_writeblocks);

static mp_obj_t flash_ioctl(mp_obj_t self, mp_obj_t command, mp_obj_t arg) {
    switch (mp_obj_get_int(command)) {
        case MP_BLOCKDEV_IOCTL_INIT:
        case MP_BLOCKDEV_IOCTL_DEINIT:
        case MP_BLOCKDEV_IOCTL_SYNC:
            return MP_OBJ_NEW_SMALL_INT(0);
        case MP_BLOCKDEV_IOCTL_BLOCK_COUNT:
            return MP_OBJ_NEW_SMALL_INT(FLASH_BYTES / FLASH_BLOCK_BYTES);
        case MP_BLOCKDEV_IOCTL_BLOCK_SIZE:
            return MP_OBJ_NEW_SMALL_INT(FLASH_BLOCK_BYTES);
        case MP_BLOCKDEV_IOCTL_BLOCK_ERASE: {
            mp_obj_t args[2] = {self, arg};
            memset(place(2, args, FLASH_BLOCK_BYTES), 0xff, FLASH_BLOCK_BYTES);
            return MP_OBJ_NEW_SMALL_INT(0);
        }
        default:
            return mp_const_none;
    }
}
static MP_DEFINE_CONST_FUN_OBJ_3(flash_ioctl_obj, flash_ioctl);

static const mp_rom_map_elem_t flash_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_readblocks), MP_ROM_PTR(&flash_readblocks_obj) },
    { MP_ROM_QSTR(MP_QSTR_writeblocks), MP_ROM_PTR(&flash_writeblocks_obj) },
    { MP_ROM_QSTR(MP_QSTR_ioctl), MP_ROM_PTR(&flash_ioctl_obj) },
};
static MP_DEFINE_CONST_DICT(flash_locals, flash_locals_table);

static MP_DEFINE_CONST_OBJ_TYPE(
    flash_type,
    MP_QSTR_Flash,
    MP_TYPE_FLAG_NONE,
    make_new, flash_make_new,
    locals_dict, &flash_locals
    );

static const mp_obj_base_t flash = {&flash_type};

static mp_obj_t qemu_ticks(void) {
    return mp_obj_new_int_from_ull(machine_ticks());
}
static MP_DEFINE_CONST_FUN_OBJ_0(qemu_ticks_obj, qemu_ticks);

enum { SYS_OPEN = 0x01, SYS_CLOSE = 0x02, SYS_READ = 0x06, SYS_SEEK = 0x0a, MODE_RB = 1 };

intptr_t machine_host_read(const char *path, uint32_t offset, void *to, size_t length) {
    uintptr_t open_args[3] = {(uintptr_t)path, MODE_RB, strlen(path)};
    intptr_t file = machine_semihosting(SYS_OPEN, open_args);
    if (file < 0) {
        return -1;
    }
    uintptr_t seek_args[2] = {(uintptr_t)file, offset};
    intptr_t missing = length;
    if (offset == 0 || machine_semihosting(SYS_SEEK, seek_args) == 0) {
        uintptr_t read_args[3] = {(uintptr_t)file, (uintptr_t)to, length};
        missing = machine_semihosting(SYS_READ, read_args);
    }
    uintptr_t close_args[1] = {(uintptr_t)file};
    machine_semihosting(SYS_CLOSE, close_args);
    return length - missing;
}

// host_read(path, offset, buffer): how many bytes of the host's file came into the buffer.
static mp_obj_t qemu_host_read(mp_obj_t path, mp_obj_t offset, mp_obj_t buffer) {
    mp_buffer_info_t to;
    mp_get_buffer_raise(buffer, &to, MP_BUFFER_WRITE);
    intptr_t count = machine_host_read(mp_obj_str_get_str(path), mp_obj_get_int(offset), to.buf,
        to.len);
    if (count < 0) {
        mp_raise_OSError(MP_ENOENT);
    }
    return mp_obj_new_int(count);
}
static MP_DEFINE_CONST_FUN_OBJ_3(qemu_host_read_obj, qemu_host_read);

static const mp_rom_map_elem_t qemu_globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_qemu) },
    { MP_ROM_QSTR(MP_QSTR_Flash), MP_ROM_PTR(&flash_type) },
    { MP_ROM_QSTR(MP_QSTR_host_read), MP_ROM_PTR(&qemu_host_read_obj) },
    { MP_ROM_QSTR(MP_QSTR_ticks), MP_ROM_PTR(&qemu_ticks_obj) },
};
static MP_DEFINE_CONST_DICT(qemu_globals, qemu_globals_table);

const mp_obj_module_t qemu_module = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&qemu_globals,
};

MP_REGISTER_MODULE(MP_QSTR_qemu, qemu_module);
