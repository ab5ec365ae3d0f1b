/* Runs the functions of a firmware in QEMU's machine mps3-an547, one after the other, as the host asks for them.
 *
 * The memory of this file, which the model does not have:
 *
 *   address      what
 *   0x10000000   its code, where the core starts; left out of the counts
 *   0x6ff00000   struct mailbox, in memory that is shared with the host; above it the stack of this file
 *
 * The protection unit lets the model read and execute the flash, and read and write the RAM, of the board only. */
#include <stdint.h>

__attribute__((noreturn)) void tfkd_stop(void);

#define BOOT __attribute__((section(".boot"), used))
#define SET(address, value) (*(volatile uint32_t *)(address) = (value))

struct mailbox {
    uint32_t flash, flash_end, ram, ram_end; /* addresses, multiples of 32; the host writes them before the start */
    uint32_t request;                        /* the host adds 1 when `function` is to run */
    uint32_t function;                       /* its address */
    uint32_t answer;                         /* becomes equal to `request` when the function has ended */
    uint32_t fault, pc;                      /* cause of a fault (Configurable Fault Status), or 0; where */
    uint32_t stack;                          /* stack of this file while the function runs */
};
#define MAILBOX_AT 0x6ff00000
#define STACK_AT 0x6ff10000
#define MAILBOX ((volatile struct mailbox *)MAILBOX_AT)

/* Calls a function that ends by tfkd_stop, on a stack that starts at `top`. */
__attribute__((naked, noinline)) BOOT static void call(uint32_t function __attribute__((unused)),
                                                        uint32_t top __attribute__((unused))) {
    __asm__ volatile(
        "push {r4-r11, lr}\n movw r2, #0\n movt r2, #0x6ff0\n str sp, [r2, #36]\n"
        "mov sp, r1\n bx r0\n");
}

/* In the flash, within reach of a branch; where it appears in the log, the function has ended. */
__attribute__((naked, used)) void tfkd_stop(void) {
    __asm__ volatile("movw r2, #0\n movt r2, #0x6ff0\n ldr sp, [r2, #36]\n pop {r4-r11, pc}\n");
}

BOOT static void run(void) {
    for (;;) {
        uint32_t request;
        while ((request = MAILBOX->request) == MAILBOX->answer) {}
        __asm__ volatile("dmb" ::: "memory");
        call(MAILBOX->function, MAILBOX->ram_end);
        __asm__ volatile("dmb" ::: "memory");
        MAILBOX->answer = request;
    }
}

/* Tells the host of a fault, which ends the function. */
BOOT static void report(const uint32_t *frame) {
    MAILBOX->pc = (uint32_t)frame >= MAILBOX->ram && (uint32_t)frame < MAILBOX->ram_end ? frame[6] : 0;
    MAILBOX->fault = *(volatile uint32_t *)0xe000ed28 | 0x80000000u; /* not 0; the last one, as the host waits for it */
    SET(0xe000ed94, 0);
    tfkd_stop();
}

/* Below the stack of the function that called the program: tfkd_stop returns there. */
__attribute__((naked)) BOOT static void fault(void) {
    __asm__ volatile("mov r0, sp\n movw r1, #0x8000\n movt r1, #0x6ff0\n mov sp, r1\n b %c0" ::"i"(report));
}

BOOT static void protect(uint32_t region, uint32_t first, uint32_t end, uint32_t access) {
    SET(0xe000ed98, region);
    SET(0xe000ed9c, first | access); /* bit 0: no execution; bits 2, 1: 01 read and write, 11 read only */
    SET(0xe000eda0, ((end - 1) & ~31u) | 1);
}

BOOT static void start(void) {
    SET(0xe000ed88, 0xfu << 20); /* floating point and vectors */
    SET(0xe000edc0, 0x44);       /* normal memory */
    protect(0, 0x10000000, 0x10010000, 6);
    protect(1, MAILBOX_AT, STACK_AT, 3);
    protect(2, MAILBOX->flash, MAILBOX->flash_end, 6);
    protect(3, MAILBOX->ram, MAILBOX->ram_end, 3);
    SET(0xe000ed94, 1);
    SET(0xe000ed24, 7u << 16); /* faults of memory, bus and usage have their own handlers */
    __asm__ volatile("dsb\n isb");
    run();
}

__attribute__((section(".boot_vectors"), used)) static const uintptr_t vectors[] = {
    STACK_AT, (uintptr_t)start, (uintptr_t)fault, (uintptr_t)fault, (uintptr_t)fault, (uintptr_t)fault, (uintptr_t)fault};
