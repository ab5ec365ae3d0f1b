/* CONV_2D int8 on cores with Thumb-1 (Cortex-M0, M0+): the inner loop of convolution.h in assembly. */
#include "arithmetic.h"

#if TFKD_THUMB1
/* Multiply-accumulate of pairs of values at offsets `at` (in words): 16 instructions for 4 products.
 *
 *   register   content
 *   r0         address in the column; its words are 12 bytes apart, as three columns are interleaved
 *   r1         address in the packed weights; words are 4 bytes apart
 *   r2, r3     packed sum, first channel's sum
 *   r4, r5     two values; two packed weights (see tfkd_second in arithmetic.h)
 *   r6, r7     product; the first value */
#define TFKD_LANE_VALUES(at)                                                                            \
    ".irp at, " at "\n"                                                                                 \
    "ldr r4, [r0, #12*\\at]\n ldr r5, [r1, #4*\\at]\n sxth r7, r4\n"                                     \
    "sxth r6, r5\n muls r6, r7, r6\n adds r2, r2, r6\n sxtb r6, r5\n muls r6, r7, r6\n adds r3, r3, r6\n" \
    "asrs r4, r4, #16\n asrs r5, r5, #16\n"                                                             \
    "sxtb r6, r5\n muls r6, r4, r6\n adds r3, r3, r6\n muls r5, r4, r5\n adds r2, r2, r5\n"             \
    ".endr\n"

/* One column times one pair of channels, whose weights end at `stop`. sums: packed sum, first channel's sum.
 *
 *   register   content          label  what
 *   r12        stop                    r4 = bytes of weights; bit 3 is set where the number of fours is odd
 *   lr         sums                    then r0 and r1 go back by one four, and the loop is entered at 2:
 *                               1:     the first four of each eight values
 *                               2:     the second four; on to the next eight */
TFKD_ASSEMBLY void tfkd_lane(const int16_t *column TFKD_UNUSED, const int16_t *weights TFKD_UNUSED,
                             const int16_t *stop TFKD_UNUSED, int32_t sums[2] TFKD_UNUSED) {
    __asm__ volatile(
        ".syntax unified\n"
        "push {r4-r7, lr}\n mov r12, r2\n mov lr, r3\n subs r4, r2, r1\n movs r2, #0\n movs r3, #0\n"
        "lsls r4, r4, #28\n bpl 1f\n subs r0, r0, #24\n subs r1, r1, #8\n b 2f\n"
        "1:\n" TFKD_LANE_VALUES("0, 1") "2:\n" TFKD_LANE_VALUES("2, 3")
        "adds r0, r0, #48\n adds r1, r1, #16\n cmp r1, r12\n blo 1b\n"
        "mov r4, lr\n stm r4!, {r2, r3}\n"
        "pop {r4-r7, pc}\n");
}
#endif
