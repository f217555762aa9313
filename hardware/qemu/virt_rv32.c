// QEMU's virt with a 32-bit RISC-V: CLINT, PLIC, a 16550 and the finisher of SiFive's test device.

#include "py/mphal.h"

#if defined(QEMU_SOC_VIRT)

#define WINDOW (0x80800000) // behind what the linker script uses; needs -m 16M
#define MTIMECMP ((volatile uint32_t *)0x02004000)
#define MTIME ((volatile uint32_t *)0x0200bff8)
#define PLIC_PRIORITY(irq) (*(volatile uint32_t *)(0x0c000000 + 4 * (irq)))
#define PLIC_ENABLE (*(volatile uint32_t *)0x0c002000)
#define PLIC_THRESHOLD (*(volatile uint32_t *)0x0c200000)
#define PLIC_CLAIM (*(volatile uint32_t *)0x0c200004)
#define IRQ_UART (10)
#define UART_DATA (*(volatile uint8_t *)0x10000000)
#define UART_IER (*(volatile uint8_t *)0x10000001)
#define UART_FCR (*(volatile uint8_t *)0x10000002)
#define UART_LSR (*(volatile uint8_t *)0x10000005)
#define FINISHER (*(volatile uint32_t *)0x00100000)
#define FINISHER_RESET (0x7777)
#define MSTATUS_MIE (8)
#define MIE_TIMER (1 << 7)
#define MIE_EXTERNAL (1 << 11)
#define INTERRUPT (0x80000000u)
#define NEVER (~(uint64_t)0)

volatile struct kept *const machine_kept = (struct kept *)WINDOW;
uint8_t *const machine_flash = (uint8_t *)WINDOW + KEPT_BYTES;
uint8_t *const machine_heap = (uint8_t *)WINDOW + 0x200000;
const uint32_t machine_ticks_per_us = 10; // mtime runs at 10 MHz

static int boot_cause;
static uint64_t wake_at = NEVER;
static uint64_t bark_at = NEVER;

// MicroPython's own: says what went wrong and ends QEMU.
void mtvec_exception(void);

static void set_mtimecmp(void) {
    uint64_t at = wake_at < bark_at ? wake_at : bark_at;
    MTIMECMP[1] = 0xffffffff;
    MTIMECMP[0] = (uint32_t)at;
    MTIMECMP[1] = (uint32_t)(at >> 32);
}

static void take_serial(void) {
    while (UART_LSR & 1) {
        if (!serial_room()) {
            UART_IER = 0; // QEMU keeps what follows until there is room
            return;
        }
        serial_received(UART_DATA);
    }
}

void machine_serial_irq_on(void) {
    uint32_t was = machine_irq_off();
    if (!(UART_IER & 1)) {
        UART_IER = 1;
        take_serial();
    }
    machine_irq_restore(was);
}

__attribute__((interrupt("machine"), aligned(4))) static void trap(void) {
    uint32_t cause;
    __asm volatile ("csrr %0, mcause" : "=r" (cause));
    if (cause == (INTERRUPT | 11)) {
        uint32_t irq = PLIC_CLAIM;
        if (irq == IRQ_UART) {
            take_serial();
        }
        if (irq) {
            PLIC_CLAIM = irq;
        }
    } else if (cause == (INTERRUPT | 7)) {
        if (machine_ticks() >= bark_at) {
            machine_reset_now(RESET_WATCHDOG);
        }
        wake_at = NEVER;
        set_mtimecmp();
    } else {
        mtvec_exception();
    }
}

void machine_init(void) {
    uint32_t magic = machine_kept->reset_magic;
    boot_cause = (magic & 0xffffff00) == RESET_MAGIC ? magic & 0xff : RESET_POWER_ON;
    machine_kept->reset_magic = 0;

    __asm volatile ("csrci mstatus, 8");
    __asm volatile ("csrw mtvec, %0" : : "r" (trap));
    wake_at = bark_at = NEVER; // a reset leaves the timer's registers as they were
    set_mtimecmp();
    UART_FCR = 1;
    UART_IER = 1;
    PLIC_PRIORITY(IRQ_UART) = 1;
    PLIC_THRESHOLD = 0;
    PLIC_ENABLE = 1 << IRQ_UART;
    __asm volatile ("csrw mie, %0" : : "r" (MIE_TIMER | MIE_EXTERNAL));
    __asm volatile ("csrsi mstatus, 8");
}

uint64_t machine_ticks(void) {
    uint32_t high, low;
    do {
        high = MTIME[1];
        low = MTIME[0];
    } while (high != MTIME[1]);
    return (uint64_t)high << 32 | low;
}

void machine_sleep(uint64_t until, bool limited) {
    wake_at = limited ? until : NEVER;
    set_mtimecmp();
    __asm volatile ("wfi");
}

void machine_watchdog(uint64_t at) {
    uint32_t was = machine_irq_off();
    bark_at = at ? at : NEVER;
    set_mtimecmp();
    machine_irq_restore(was);
}

void machine_reset_now(int cause) {
    machine_kept->reset_magic = RESET_MAGIC + cause;
    FINISHER = FINISHER_RESET;
    for (;;) {
    }
}

int machine_reset_cause_at_boot(void) {
    return boot_cause;
}

uint32_t machine_irq_off(void) {
    uint32_t was;
    __asm volatile ("csrrci %0, mstatus, 8" : "=r" (was) : : "memory");
    return was & MSTATUS_MIE;
}

void machine_irq_restore(uint32_t was) {
    __asm volatile ("csrs mstatus, %0" : : "r" (was & MSTATUS_MIE) : "memory");
}

intptr_t machine_semihosting(int operation, const void *arguments) {
    register intptr_t a0 __asm("a0") = operation;
    register const void *a1 __asm("a1") = arguments;
    __asm volatile (
        ".option push            \n"
        ".option norvc           \n" // the three instructions stand in one page, uncompressed
        ".balign 16              \n"
        "slli zero, zero, 0x1f   \n"
        "ebreak                  \n"
        "srai zero, zero, 7      \n"
        ".option pop             \n"
        : "+r" (a0) : "r" (a1) : "memory");
    return a0;
}

#endif
