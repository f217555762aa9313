// Beside MicroPython's hardware layer: what this port keeps across soft resets.

#include <stdint.h>
#include "shared/runtime/interrupt_char.h"

// Microseconds since 1970 at tick 0; 0 until someone has set the clock.
extern int64_t machine_epoch_us;
