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

/* Code for size does without tfkd_blocks. */
#ifndef __OPTIMIZE_SIZE__
/* Parameters of tfkd_blocks. The assembly updates `weights`, `bias`, `out` and `blocks`. */
typedef struct {
    const int8_t *in, *stop; /* start and end of a row of inputs, a multiple of 4 values, at least 4 */
    const int16_t *weights;
    const int32_t *bias;
    int8_t *out;
    int32_t multiplier, shift; /* of all channels */
    int32_t offset;            /* (2 * zero point + 1) << shift */
    int32_t blocks;            /* of eight channels, at least 1 */
} tfkd_blocks_params;
TFKD_STATIC_ASSERT(offsetof(tfkd_blocks_params, weights) == 8, tfkd_blocks_params_weights_must_be_at_8);
TFKD_STATIC_ASSERT(offsetof(tfkd_blocks_params, bias) == 12, tfkd_blocks_params_bias_must_be_at_12);
TFKD_STATIC_ASSERT(offsetof(tfkd_blocks_params, blocks) == 32, tfkd_blocks_params_blocks_must_be_at_32);

/* Requantization of twice a sum x without its bias: (2 * (sum + bias) * multiplier + 2^31) >> 32, + offset, >> shift;
 * signed: -1 is added to negative products before the offset. The last bit is shifted out by `ssat`.
 *
 *   r0, r1     addresses of the next bias and output     r12   bias
 *   r10, r11   multiplier, shift                         lr    offset */
#define TFKD_FC_SCALE(x) "smmlar " x ", " x ", r10, lr\n"
#define TFKD_FC_SCALE_SIGNED(x) "smmulr " x ", " x ", r10\n" TFKD_ROUND_AWAY(x) "add " x ", " x ", lr\n"
#define TFKD_FC_OUTPUT(scale, x)                                                                        \
    "ldr r12, [r0], #4\n add " x ", " x ", r12, lsl #1\n" scale(x)                                       \
    "asr " x ", " x ", r11\n ssat " x ", #8, " x ", asr #1\n strb " x ", [r1], #1\n"
#define TFKD_FC_OUTPUTS(scale, packed, first)                                                           \
    "subs " packed ", " packed ", " first "\n lsl " first ", " first ", #1\n asr " packed ", " packed ", #7\n" \
    TFKD_FC_OUTPUT(scale, first) TFKD_FC_OUTPUT(scale, packed)

/* One row of inputs times blocks of eight channels, from inputs to outputs.
 *
 *   register         in the loop over values         in the requantization     stack
 *   r0, r1           addresses in inputs, weights    see TFKD_FC_SCALE         [sp]    p
 *   r2, r4, r6, r8   packed sums of pairs 0 .. 3     twice the second sum      [sp,4]  stop
 *   r3, r5, r7, r9   first channels' sums            twice the first sum
 *   r10, r11         four values                     see TFKD_FC_SCALE
 *
 *   label   what
 *   0:      next block; an odd number of fours: enter at 3:
 *   1:, 3:  four values each; repeat until r0 == stop
 *           requantize and store eight outputs, 60 instructions (signed 76); repeat for the remaining blocks */
#define TFKD_FC_BLOCKS(name, scale)                                                                     \
    TFKD_ASSEMBLY void name(tfkd_blocks_params *p TFKD_UNUSED) {                                        \
        __asm__ volatile(                                                                               \
            "push {r4-r11, lr}\n ldrd r2, r1, [r0, #4]\n push {r0, r2}\n"                               \
            "0:\n ldrd r12, lr, [sp]\n ldr r0, [r12]\n"                                                 \
            "movs r2, #0\n movs r3, #0\n movs r4, #0\n movs r5, #0\n movs r6, #0\n movs r7, #0\n"       \
            "mov r8, r2\n mov r9, r2\n"                                                                 \
            "subs r12, lr, r0\n tst r12, #4\n bne 3f\n"                                                 \
            "1:\n" TFKD_FC_FOUR_VALUES "3:\n" TFKD_FC_FOUR_VALUES                                       \
            "ldr r12, [sp, #4]\n cmp r0, r12\n bne 1b\n"                                                \
            "ldr r12, [sp]\n str r1, [r12, #8]\n add r12, r12, #12\n ldm r12, {r0, r1, r10, r11, lr}\n" \
            TFKD_FC_OUTPUTS(scale, "r2", "r3") TFKD_FC_OUTPUTS(scale, "r4", "r5")                       \
            TFKD_FC_OUTPUTS(scale, "r6", "r7") TFKD_FC_OUTPUTS(scale, "r8", "r9")                       \
            "ldr r12, [sp]\n strd r0, r1, [r12, #12]\n ldr r1, [r12, #8]\n ldr r0, [r12, #32]\n"        \
            "subs r0, r0, #1\n str r0, [r12, #32]\n bne 0b\n"                                           \
            "add sp, #8\n pop {r4-r11, pc}\n");                                                         \
    }
TFKD_FC_BLOCKS(tfkd_blocks, TFKD_FC_SCALE)
TFKD_FC_BLOCKS(tfkd_blocks_signed, TFKD_FC_SCALE_SIGNED)
#endif
#endif
