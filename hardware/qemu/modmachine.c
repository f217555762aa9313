// Included by extmod/modmachine.c.

#include "py/mphal.h"
#include "shared/timeutils/timeutils.h"

static void mp_machine_idle(void) {
    mp_event_wait_ms(1);
}

MP_NORETURN static void mp_machine_reset(void) {
    machine_reset_now(RESET_HARD);
    for (;;) {
    }
}

static mp_int_t mp_machine_reset_cause(void) {
    return machine_reset_cause_at_boot();
}

static mp_obj_t mp_machine_unique_id(void) {
    return mp_obj_new_bytes((const byte *)machine_kept->unique_id, sizeof(machine_kept->unique_id));
}

static mp_obj_t mp_machine_get_freq(void) {
    return mp_obj_new_int(machine_ticks_per_us * 1000000); // of what ticks_cpu counts
}

static void mp_machine_set_freq(size_t n_args, const mp_obj_t *args) {
    mp_raise_NotImplementedError(MP_ERROR_TEXT("QEMU has one frequency"));
}

static void mp_machine_lightsleep(size_t n_args, const mp_obj_t *args) {
    if (n_args == 0) {
        mp_event_wait_indefinite();
    } else {
        mp_hal_delay_ms(mp_obj_get_int(args[0]));
    }
}

MP_NORETURN static void mp_machine_deepsleep(size_t n_args, const mp_obj_t *args) {
    mp_machine_lightsleep(n_args, args);
    mp_machine_reset();
}

// RTC: the day's time, kept until the machine is reset.

static const mp_obj_base_t machine_rtc;

static mp_obj_t machine_rtc_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw,
    const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 0, 1, false);
    return MP_OBJ_FROM_PTR(&machine_rtc);
}

static mp_obj_t machine_rtc_datetime(size_t n_args, const mp_obj_t *args) {
    timeutils_struct_time_t tm;
    if (n_args == 1) {
        uint64_t us = mp_hal_time_ns() / 1000;
        timeutils_seconds_since_epoch_to_struct_time(us / 1000000, &tm);
        mp_obj_t fields[8] = {
            mp_obj_new_int(tm.tm_year), mp_obj_new_int(tm.tm_mon), mp_obj_new_int(tm.tm_mday),
            mp_obj_new_int(tm.tm_wday), mp_obj_new_int(tm.tm_hour), mp_obj_new_int(tm.tm_min),
            mp_obj_new_int(tm.tm_sec), mp_obj_new_int(us % 1000000),
        };
        return mp_obj_new_tuple(8, fields);
    }
    mp_obj_t *items;
    mp_obj_get_array_fixed_n(args[1], 8, &items);
    uint64_t seconds = timeutils_seconds_since_epoch(mp_obj_get_int(items[0]),
        mp_obj_get_int(items[1]), mp_obj_get_int(items[2]), mp_obj_get_int(items[4]),
        mp_obj_get_int(items[5]), mp_obj_get_int(items[6]));
    machine_epoch_us = (int64_t)(seconds * 1000000 + mp_obj_get_int(items[7]))
        - (int64_t)(machine_ticks() / machine_ticks_per_us);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(machine_rtc_datetime_obj, 1, 2, machine_rtc_datetime);

static const mp_rom_map_elem_t machine_rtc_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_datetime), MP_ROM_PTR(&machine_rtc_datetime_obj) },
};
static MP_DEFINE_CONST_DICT(machine_rtc_locals, machine_rtc_locals_table);

MP_DEFINE_CONST_OBJ_TYPE(
    machine_rtc_type,
    MP_QSTR_RTC,
    MP_TYPE_FLAG_NONE,
    make_new, machine_rtc_make_new,
    locals_dict, &machine_rtc_locals
    );

static const mp_obj_base_t machine_rtc = {&machine_rtc_type};

#define MICROPY_PY_MACHINE_EXTRA_GLOBALS \
    { MP_ROM_QSTR(MP_QSTR_RTC), MP_ROM_PTR(&machine_rtc_type) }, \
    { MP_ROM_QSTR(MP_QSTR_PWRON_RESET), MP_ROM_INT(RESET_POWER_ON) }, \
    { MP_ROM_QSTR(MP_QSTR_HARD_RESET), MP_ROM_INT(RESET_HARD) }, \
    { MP_ROM_QSTR(MP_QSTR_WDT_RESET), MP_ROM_INT(RESET_WATCHDOG) },
