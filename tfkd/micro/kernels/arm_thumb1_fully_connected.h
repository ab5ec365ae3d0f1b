/* FULLY_CONNECTED int8 on cores with Thumb-1 (Cortex-M0, M0+): the inner loop of fully_connected.h in assembly. */
#include "arithmetic.h"

#if TFKD_THUMB1
/* One row of inputs, a multiple of 4 values up to `stop`, times one pair of channels. sums: packed sum, first channel's
 * sum (see tfkd_second in arithmetic.h).
 *
 *   register   content                                        r12   stop
 *   r0         address in the inputs                          lr    sums
 *   r1         address in the weights; a block interleaves four pairs of channels, so fours are 32 bytes apart
 *   r2, r3     packed sum, first channel's sum
 *   r4         one value
 *   r5         two packed weights, of values 0 and 2 (at = 0) or 1 and 3 (at = 1)
 *   r6         weight, then product
 *
 * 34 instructions for four values (`.irp` repeats 17 for each of two words of weights) and 4 for the loop. */
TFKD_ASSEMBLY void tfkd_row(const int8_t *in TFKD_UNUSED, const int16_t *weights TFKD_UNUSED,
                            const int8_t *stop TFKD_UNUSED, int32_t sums[2] TFKD_UNUSED) {
    __asm__ volatile(
        ".syntax unified\n"
        "push {r4-r7, lr}\n mov r12, r2\n mov lr, r3\n movs r2, #0\n movs r3, #0\n cmp r0, r12\n beq 2f\n"
        "1:\n"
        ".irp at, 0, 1\n"
        "ldr r5, [r1, #4*\\at]\n ldrb r4, [r0, #\\at]\n sxtb r4, r4\n"
        "sxth r6, r5\n muls r6, r4, r6\n adds r2, r2, r6\n"
        "sxtb r6, r5\n muls r6, r4, r6\n adds r3, r3, r6\n"
        "asrs r5, r5, #16\n ldrb r4, [r0, #\\at+2]\n sxtb r4, r4\n"
        "sxtb r6, r5\n muls r6, r4, r6\n adds r3, r3, r6\n"
        "muls r5, r4, r5\n adds r2, r2, r5\n"
        ".endr\n"
        "adds r0, r0, #4\n adds r1, r1, #32\n cmp r0, r12\n bne 1b\n"
        "2:\n"
        "mov r4, lr\n stm r4!, {r2, r3}\n"
        "pop {r4-r7, pc}\n");
}
#endif
