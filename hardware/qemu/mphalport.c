// The serial line, time and waiting, on top of virtual_machine.h.

#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "uart.h"

#define RING_BYTES (1024) // more than the REPL's paste window (256)

int64_t machine_epoch_us;

static uint8_t ring[RING_BYTES];
static volatile uint32_t ring_in, ring_out;

bool serial_room(void) {
    return ring_in - ring_out < RING_BYTES;
}

void serial_received(uint8_t byte) {
    if (byte == mp_interrupt_char) {
        mp_sched_keyboard_interrupt();
        return;
    }
    ring[ring_in % RING_BYTES] = byte;
    ring_in++;
}

uintptr_t mp_hal_stdio_poll(uintptr_t flags) {
    uintptr_t ready = flags & MP_STREAM_POLL_WR;
    if (ring_in != ring_out) {
        ready |= flags & MP_STREAM_POLL_RD;
    }
    return ready;
}

int mp_hal_stdin_rx_chr(void) {
    while (ring_in == ring_out) {
        mp_event_wait_indefinite();
    }
    int byte = ring[ring_out % RING_BYTES];
    ring_out++;
    machine_serial_irq_on();
    return byte;
}

mp_uint_t mp_hal_stdout_tx_strn(const char *text, size_t length) {
    uart_tx_strn(text, length);
    return length;
}

void machine_wait(int timeout_ms) {
    uint64_t until = 0;
    if (timeout_ms >= 0) {
        until = machine_ticks() + (uint64_t)timeout_ms * 1000 * machine_ticks_per_us;
    }
    // With interrupts off, so that none comes between the look and the sleep; it still wakes.
    uint32_t was = machine_irq_off();
    if (ring_in == ring_out && MP_STATE_VM(sched_state) == MP_SCHED_IDLE
        && MP_STATE_MAIN_THREAD(mp_pending_exception) == MP_OBJ_NULL) {
        machine_sleep(until, timeout_ms >= 0);
    }
    machine_irq_restore(was);
}

mp_uint_t mp_hal_ticks_us(void) {
    return machine_ticks() / machine_ticks_per_us;
}

mp_uint_t mp_hal_ticks_ms(void) {
    return machine_ticks() / machine_ticks_per_us / 1000;
}

mp_uint_t mp_hal_ticks_cpu(void) {
    return machine_ticks();
}

uint64_t mp_hal_time_ns(void) {
    return (machine_epoch_us + machine_ticks() / machine_ticks_per_us) * 1000;
}

void mp_hal_delay_us(mp_uint_t us) {
    uint64_t until = machine_ticks() + (uint64_t)us * machine_ticks_per_us;
    while (machine_ticks() < until) {
    }
}

void mp_hal_delay_ms(mp_uint_t ms) {
    uint64_t per_ms = 1000 * machine_ticks_per_us;
    uint64_t until = machine_ticks() + ms * per_ms;
    for (;;) {
        mp_event_handle_nowait();
        uint64_t now = machine_ticks();
        if (now >= until) {
            return;
        }
        // Bytes that wait must not keep a sleep awake, so this is not machine_wait.
        uint32_t was = machine_irq_off();
        if (MP_STATE_VM(sched_state) == MP_SCHED_IDLE
            && MP_STATE_MAIN_THREAD(mp_pending_exception) == MP_OBJ_NULL) {
            machine_sleep(until, true);
        }
        machine_irq_restore(was);
    }
}
