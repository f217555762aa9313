// Included by extmod/modos.c: entropy, which QEMU's machines do not have, read from the host's.

#include "py/mphal.h"
#include "py/mperrno.h"
#include "py/runtime.h"

#define HOST_ENTROPY "/dev/urandom"

static mp_obj_t mp_os_urandom(mp_obj_t count_in) {
    mp_int_t count = mp_obj_get_int(count_in);
    vstr_t out;
    vstr_init_len(&out, count);
    if (machine_host_read(HOST_ENTROPY, 0, out.buf, count) != count) {
        mp_raise_OSError(MP_EIO); // less than asked for must not pass for random
    }
    return mp_obj_new_bytes_from_vstr(&out);
}
static MP_DEFINE_CONST_FUN_OBJ_1(mp_os_urandom_obj, mp_os_urandom);
