/* FULLY_CONNECTED int8 on cores with the DSP extension: the inner loop of fully_connected.h in assembly. */
#include "arithmetic.h"

#if TFKD_DSP
TFKD_STATIC_ASSERT(sizeof(void *) == 4, tfkd_dsp_fully_connected_needs_32_bit_pointers);

/* Multiply-accumulate four values with one pair of channels, whose packed weights (see tfkd_second in arithmetic.h) lie
 * in the order 0 2 1 3: r12 gets weights 0 and 2, lr weights 1 and 3.
 *
 *   r10, r11   values 0 and 2, values 1 and 3
 *   packed     register of the packed sum
 *   first      register of the first channel's sum */
#define TFKD_FC_PAIR(packed, first)                                                                     \
    "ldrd r12, lr, [r1], #8\n"                                                                          \
    "smlad " packed ", r10, r12, " packed "\n sxtb16 r12, r12\n"                                        \
    "smlad " packed ", r11, lr, " packed "\n sxtb16 lr, lr\n"                                           \
    "smlad " first ", r10, r12, " first "\n smlad " first ", r11, lr, " first "\n"

/* The same with four pairs of channels: 32 products in 31 instructions, 40 cycles on Cortex-M4. */
#define TFKD_FC_FOUR_VALUES                                                                             \
    "ldr r12, [r0], #4\n sxtb16 r10, r12\n sxtb16 r11, r12, ror #8\n"                                   \
    TFKD_FC_PAIR("r2", "r3") TFKD_FC_PAIR("r4", "r5") TFKD_FC_PAIR("r6", "r7") TFKD_FC_PAIR("r8", "r9")

/* One row of inputs, a multiple of 4 values up to `stop`, times eight channels.
 *
 *   register         content                           stack
 *   r0, r1           addresses in inputs, weights      [sp]    stop
 *   r2, r4, r6, r8   packed sums of pairs 0 .. 3       [sp,4]  sums
 *   r3, r5, r7, r9   first channels' sums
 *
 *   label   what
 *           no values: to 2:; an odd number of fours: enter at 3:
 *   1:, 3:  four values each; repeat until r0 == stop
 *   2:      store the eight sums */
TFKD_ASSEMBLY void tfkd_dot(const int8_t *in TFKD_UNUSED, const int16_t *weights TFKD_UNUSED,
                            const int8_t *stop TFKD_UNUSED, int32_t sums[8] TFKD_UNUSED) {
    __asm__ volatile(
        "push {r2, r3, r4-r11, lr}\n"
        "movs r2, #0\n movs r3, #0\n movs r4, #0\n movs r5, #0\n movs r6, #0\n movs r7, #0\n"
        "mov r8, r2\n mov r9, r2\n"
        "ldr r12, [sp]\n subs r12, r12, r0\n beq 2f\n tst r12, #4\n bne 3f\n"
        "1:\n" TFKD_FC_FOUR_VALUES "3:\n" TFKD_FC_FOUR_VALUES
        "ldr r12, [sp]\n cmp r0, r12\n bne 1b\n"
        "2:\n"
        "ldr r12, [sp, #4]\n stm r12, {r2-r9}\n"
        "pop {r2, r3, r4-r11, pc}\n");
}
#endif
