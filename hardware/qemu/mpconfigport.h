// What our builds for QEMU have beyond MicroPython's own port: the parts that the official images
// for ESP32 and RP2 have too and the firmware uses. Features that cost heap are left as they are.

#include "ports/qemu/mpconfigport.h"

#undef MICROPY_PY_SELECT
#undef MICROPY_PY_TIME
#undef MICROPY_PY_ASYNCIO
#undef MICROPY_PY_SYS_STDIO_BUFFER
#undef MICROPY_PY_MACHINE_INCLUDEFILE

#define MICROPY_PY_SELECT               (1)
#define MICROPY_PY_ASYNCIO              (1)
#define MICROPY_PY_SYS_STDIO_BUFFER     (1)
#define MICROPY_KBD_EXCEPTION           (1)
#define MICROPY_USE_INTERNAL_ERRNO      (1)
#define MICROPY_ENABLE_SCHEDULER        (1)
#define MICROPY_SCHEDULER_DEPTH         (8)

#define MICROPY_EPOCH_IS_1970           (1)
#define MICROPY_PY_TIME                 (1)
#define MICROPY_PY_TIME_GMTIME_LOCALTIME_MKTIME (1)
#define MICROPY_PY_TIME_TIME_TIME_NS    (1)
#define MICROPY_PY_TIME_INCLUDEFILE     "ports/fogline/modtime.c"

#define MICROPY_PY_OS_INCLUDEFILE       "ports/fogline/modos.c"
#define MICROPY_PY_OS_UNAME             (1)
#define MICROPY_PY_OS_SYNC              (1)
#define MICROPY_PY_OS_URANDOM           (1)

#define MICROPY_PY_MACHINE_INCLUDEFILE  "ports/fogline/modmachine.c"
#define MICROPY_PY_MACHINE_BARE_METAL_FUNCS (1)
#define MICROPY_PY_MACHINE_WDT          (1)
#define MICROPY_PY_MACHINE_WDT_INCLUDEFILE "ports/fogline/machine_wdt.c"

#define MICROPY_FATFS_ENABLE_LFN        (2)
#define MICROPY_FATFS_LFN_CODE_PAGE     437
#define MICROPY_FATFS_RPATH             (2)
#define MICROPY_FATFS_MAX_SS            (4096)
#define MICROPY_FATFS_NORTC             (1)

#define MICROPY_INTERNAL_WFE(TIMEOUT_MS) machine_wait((TIMEOUT_MS))

#define MICROPY_BEGIN_ATOMIC_SECTION()  machine_irq_off()
#define MICROPY_END_ATOMIC_SECTION(was) machine_irq_restore(was)
#define MICROPY_PY_MACHINE_DISABLE_IRQ_ENABLE_IRQ (1)

#include "ports/fogline/virtual_machine.h"
