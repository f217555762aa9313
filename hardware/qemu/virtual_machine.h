// What the port needs of QEMU's machine; one implementation for each: mps2_an385.c, virt_rv32.c.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A window of RAM that outlives resets, and runs of QEMU where a file backs it. Its first page is
// for what a chip keeps outside its flash (struct kept), the rest is the flash.
#define KEPT_BYTES (4096)
#define FLASH_BYTES (1408 * 1024) // what MicroPython leaves to files on a Raspberry Pi Pico
#define FLASH_BLOCK_BYTES (4096)

struct kept {
    uint32_t reset_magic; // RESET_MAGIC + cause, written just before a reset
    uint32_t heap_bytes;  // these two are written by whoever makes the file; 0: HEAP_BYTES
    uint8_t unique_id[8];
};

// MicroPython's own port has as much. More than a board has is for tests that need it.
#define HEAP_BYTES (143360)
#define HEAP_MAX_BYTES (4 * 1024 * 1024)

#define RESET_MAGIC (0x466f6700)
enum { RESET_POWER_ON = 1, RESET_HARD = 2, RESET_WATCHDOG = 3 };

extern volatile struct kept *const machine_kept;
extern uint8_t *const machine_flash;
extern uint8_t *const machine_heap;

// A counter of the machine's virtual time: ticks since start, and how many a microsecond has.
uint64_t machine_ticks(void);
extern const uint32_t machine_ticks_per_us;

void machine_init(void);
void machine_reset_now(int cause);
int machine_reset_cause_at_boot(void);

// Interrupts off; gives what machine_irq_restore wants.
uint32_t machine_irq_off(void);
void machine_irq_restore(uint32_t was);

// Sleep until an interrupt, or for so many milliseconds (-1: no limit) where nothing waits.
void machine_wait(int timeout_ms);
// Called by machine_wait with interrupts off: set the wake-up timer and stop until an interrupt.
void machine_sleep(uint64_t until_ticks, bool limited);
// Reset the machine when so many ticks have come; 0: never.
void machine_watchdog(uint64_t at_ticks);

// From the serial line's interrupt. False when there is no room: leave the byte where it is.
bool serial_room(void);
void serial_received(uint8_t byte);
// From where bytes are taken out: let the interrupt come again.
void machine_serial_irq_on(void);

// A call of the host by semihosting (ARM DUI 0203).
intptr_t machine_semihosting(int operation, const void *arguments);

// Read from a file of the host; gives how many bytes came, -1 where there is no such file.
intptr_t machine_host_read(const char *path, uint32_t offset, void *to, size_t length);
