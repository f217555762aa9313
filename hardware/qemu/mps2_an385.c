// QEMU's mps2-an385: a Cortex-M3 with Arm's CMSDK peripherals (Arm DAI 0385, DDI 0479).

#include "py/mphal.h"

#if defined(QEMU_SOC_MPS2)

#include <string.h>

#define PSRAM (0x21000000) // 16 MiB that the linker script leaves alone
#define IRQ_UART0_RX (0)
#define IRQ_TIMER0 (8)
#define IRQ_TIMER1 (9)
#define IRQ_DUALTIMER (10)
#define VECTORS (16 + 32)

volatile struct kept *const machine_kept = (struct kept *)PSRAM;
uint8_t *const machine_flash = (uint8_t *)PSRAM + KEPT_BYTES;
uint8_t *const machine_heap = (uint8_t *)0x20000000; // SSRAM2 and 3, 4 MiB
const uint32_t machine_ticks_per_us = 25; // the peripherals' clock is 25 MHz

struct timer {
    volatile uint32_t ctrl, value, reload, intstatus;
};
#define TIMER0 ((struct timer *)0x40000000) // runs for ever
#define TIMER1 ((struct timer *)0x40001000) // wakes the processor
#define TIMER_EN_IRQ (1 | 8)

struct dual_timer {
    volatile uint32_t load, value, control, intclr;
};
#define DUAL ((struct dual_timer *)0x40002000) // the watchdog
#define DUAL_ONCE_32_IRQ (0x80 | 0x20 | 2 | 1)

struct uart {
    volatile uint32_t data, state, ctrl, intstatus;
};
#define UART0 ((struct uart *)0x40004000)
#define UART_RX_FULL (2)
#define UART_TX_RX (1 | 2)
#define UART_RX_IRQ (8)

#define NVIC_ISER (*(volatile uint32_t *)0xe000e100)
#define NVIC_ICPR (*(volatile uint32_t *)0xe000e280)
#define SCB_VTOR (*(volatile uint32_t *)0xe000ed08)
#define SCB_AIRCR (*(volatile uint32_t *)0xe000ed0c)
#define AIRCR_RESET (0x05fa0004)

extern const uint32_t isr_vector[16];
static uint32_t vectors[VECTORS] __attribute__((aligned(256)));
static volatile uint32_t rounds; // how often TIMER0 has come round
static int boot_cause;

static void timer0_irq(void) {
    TIMER0->intstatus = 1;
    rounds++;
}

static void timer1_irq(void) {
    TIMER1->ctrl = 0;
    TIMER1->intstatus = 1;
}

static void dual_irq(void) {
    machine_reset_now(RESET_WATCHDOG);
}

static void uart_irq(void) {
    UART0->intstatus = 2;
    while (UART0->state & UART_RX_FULL) {
        if (!serial_room()) {
            UART0->ctrl = UART_TX_RX; // QEMU keeps what follows until there is room
            return;
        }
        serial_received(UART0->data);
    }
}

void machine_serial_irq_on(void) {
    uint32_t was = machine_irq_off();
    if (!(UART0->ctrl & UART_RX_IRQ)) {
        UART0->ctrl = UART_TX_RX | UART_RX_IRQ;
        uart_irq();
    }
    machine_irq_restore(was);
}

static void unexpected_irq(void) {
    machine_reset_now(RESET_HARD);
}

void machine_init(void) {
    uint32_t magic = machine_kept->reset_magic;
    boot_cause = (magic & 0xffffff00) == RESET_MAGIC ? magic & 0xff : RESET_POWER_ON;
    machine_kept->reset_magic = 0;

    memcpy(vectors, isr_vector, 16 * sizeof(uint32_t));
    for (int i = 16; i < VECTORS; i++) {
        vectors[i] = (uint32_t)unexpected_irq;
    }
    vectors[16 + IRQ_UART0_RX] = (uint32_t)uart_irq;
    vectors[16 + IRQ_TIMER0] = (uint32_t)timer0_irq;
    vectors[16 + IRQ_TIMER1] = (uint32_t)timer1_irq;
    vectors[16 + IRQ_DUALTIMER] = (uint32_t)dual_irq;
    SCB_VTOR = (uint32_t)vectors;

    TIMER0->reload = 0xffffffff;
    TIMER0->value = 0xffffffff;
    TIMER0->ctrl = TIMER_EN_IRQ;
    UART0->ctrl = UART_TX_RX | UART_RX_IRQ;
    NVIC_ISER = 1 << IRQ_UART0_RX | 1 << IRQ_TIMER0 | 1 << IRQ_TIMER1 | 1 << IRQ_DUALTIMER;
    uart_irq(); // what came before its interrupt was on
}

uint64_t machine_ticks(void) {
    uint32_t was = machine_irq_off();
    uint32_t low = ~TIMER0->value;
    uint32_t high = rounds;
    if (TIMER0->intstatus & 1) { // came round, and its interrupt has not been
        low = ~TIMER0->value;
        high++;
    }
    machine_irq_restore(was);
    return (uint64_t)high << 32 | low;
}

void machine_sleep(uint64_t until, bool limited) {
    if (limited) {
        uint64_t now = machine_ticks();
        if (until <= now) {
            return;
        }
        uint64_t left = until - now;
        TIMER1->ctrl = 0;
        TIMER1->intstatus = 1;
        NVIC_ICPR = 1 << IRQ_TIMER1;
        TIMER1->reload = TIMER1->value = left > 0xffffffff ? 0xffffffff : left;
        TIMER1->ctrl = TIMER_EN_IRQ;
    }
    __asm volatile ("wfi");
}

void machine_watchdog(uint64_t at) {
    DUAL->control = 0;
    if (at) {
        uint64_t now = machine_ticks();
        uint64_t left = at > now ? at - now : 1;
        DUAL->load = left > 0xffffffff ? 0xffffffff : left;
        DUAL->control = DUAL_ONCE_32_IRQ;
    }
}

void machine_reset_now(int cause) {
    machine_kept->reset_magic = RESET_MAGIC + cause;
    SCB_AIRCR = AIRCR_RESET;
    for (;;) {
    }
}

int machine_reset_cause_at_boot(void) {
    return boot_cause;
}

uint32_t machine_irq_off(void) {
    uint32_t was;
    __asm volatile ("mrs %0, primask\n cpsid i" : "=r" (was) : : "memory");
    return was;
}

void machine_irq_restore(uint32_t was) {
    __asm volatile ("msr primask, %0" : : "r" (was) : "memory");
}

intptr_t machine_semihosting(int operation, const void *arguments) {
    register intptr_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = arguments;
    __asm volatile ("bkpt 0xab" : "+r" (r0) : "r" (r1) : "memory");
    return r0;
}

#endif
