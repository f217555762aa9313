// A board's start: the heap, the flash, boot.py and main.py, the REPL; after a soft reset again.

#include "py/compile.h"
#include "py/gc.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stackctrl.h"
#include "shared/runtime/gchelper.h"
#include "shared/runtime/pyexec.h"

#include <stdlib.h>

#define STACK_LIMIT_BYTES (10240) // as MicroPython's own port; an ESP32's is 16 KiB, a Pico's 8

int main(int argc, char **argv) {
    machine_init();
    for (;;) {
        mp_stack_ctrl_init();
        mp_stack_set_limit(STACK_LIMIT_BYTES);
        uint32_t bytes = machine_kept->heap_bytes & ~15u;
        if (bytes == 0 || bytes > HEAP_MAX_BYTES) {
            bytes = HEAP_BYTES;
        }
        gc_init(machine_heap, machine_heap + bytes);
        mp_init();
        pyexec_frozen_module("_boot.py", false);
        int done = pyexec_file_if_exists("boot.py");
        if (!(done & PYEXEC_FORCED_EXIT) && pyexec_mode_kind == PYEXEC_MODE_FRIENDLY_REPL) {
            done = pyexec_file_if_exists("main.py");
        }
        while (!(done & PYEXEC_FORCED_EXIT)) {
            done = pyexec_mode_kind == PYEXEC_MODE_RAW_REPL ? pyexec_raw_repl()
                : pyexec_friendly_repl();
        }
        mp_printf(&mp_plat_print, "MPY: soft reboot\n");
        gc_sweep_all();
        mp_deinit();
    }
}

void gc_collect(void) {
    gc_collect_start();
    gc_helper_collect_regs_and_stack();
    gc_collect_end();
}

void nlr_jump_fail(void *value) {
    mp_printf(&mp_plat_print, "uncaught NLR\n");
    exit(1);
}
