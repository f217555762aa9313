// Included by extmod/machine_wdt.c. As on real boards, a watchdog once started cannot be stopped.

#include "py/mphal.h"
#include "py/runtime.h"

#define WDT_MAX_MS (120000)

typedef struct _machine_wdt_obj_t {
    mp_obj_base_t base;
    uint32_t timeout_ms;
} machine_wdt_obj_t;

static machine_wdt_obj_t machine_wdt = {{&machine_wdt_type}, 0};

static void mp_machine_wdt_feed(machine_wdt_obj_t *self) {
    machine_watchdog(machine_ticks() + (uint64_t)self->timeout_ms * 1000 * machine_ticks_per_us);
}

static machine_wdt_obj_t *mp_machine_wdt_make_new_instance(mp_int_t id, mp_int_t timeout_ms) {
    if (id != 0) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("WDT(%d) doesn't exist"), (int)id);
    }
    if (timeout_ms < 1 || timeout_ms > WDT_MAX_MS) {
        mp_raise_ValueError(MP_ERROR_TEXT("timeout out of range"));
    }
    machine_wdt.timeout_ms = timeout_ms;
    mp_machine_wdt_feed(&machine_wdt);
    return &machine_wdt;
}
