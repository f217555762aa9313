// Included by extmod/modos.c: entropy, which QEMU's machines do not have, read from the host's.

#include "py/mphal.h"
#include "py/mperrno.h"
#include "py/runtime.h"

#define HOST_ENTROPY "/dev/urandom"
enum { SYS_OPEN = 0x01, SYS_CLOSE = 0x02, SYS_READ = 0x06, MODE_RB = 1 };

static mp_obj_t mp_os_urandom(mp_obj_t count_in) {
    mp_int_t count = mp_obj_get_int(count_in);
    vstr_t out;
    vstr_init_len(&out, count);
    uintptr_t open_args[3] = {(uintptr_t)HOST_ENTROPY, MODE_RB, sizeof(HOST_ENTROPY) - 1};
    intptr_t file = machine_semihosting(SYS_OPEN, open_args);
    if (file < 0) {
        mp_raise_OSError(MP_ENODEV);
    }
    uintptr_t read_args[3] = {(uintptr_t)file, (uintptr_t)out.buf, (uintptr_t)count};
    intptr_t missing = machine_semihosting(SYS_READ, read_args);
    uintptr_t close_args[1] = {(uintptr_t)file};
    machine_semihosting(SYS_CLOSE, close_args);
    if (missing) {
        mp_raise_OSError(MP_EIO); // less than asked for must not pass for random
    }
    return mp_obj_new_bytes_from_vstr(&out);
}
static MP_DEFINE_CONST_FUN_OBJ_1(mp_os_urandom_obj, mp_os_urandom);
