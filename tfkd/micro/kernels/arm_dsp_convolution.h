/* CONV_2D int8 on cores with the DSP extension: the inner loops of convolution.h in assembly.
 *
 * Three receptive fields ("columns") are multiplied with two output channels at a time. The columns are interleaved by
 * words of two int16, and the weights of the two channels are packed (see tfkd_second in arithmetic.h):
 *
 *   columns, one word = two values   | c0: v0 v1 | c1: v0 v1 | c2: v0 v1 | c0: v2 v3 | c1: v2 v3 | c2: v2 v3 | ...
 *   weights, one word = two values   | w0 w1                             | w2 w3                             | ...
 *
 * The values of each four lie in the order 0 2 1 3, in which `sxtb16` delivers them. */
#include "arithmetic.h"

#if TFKD_DSP
TFKD_STATIC_ASSERT(sizeof(void *) == 4, tfkd_dsp_convolution_needs_32_bit_pointers);

/* Multiply-accumulate two values of three columns with one word of packed weights.
 *
 *   register      content
 *   r0            address in the columns, advanced by 12 bytes
 *   r2, r4, r6    packed sums of columns 0, 1, 2
 *   r3, r5, r7    first channel's sums of columns 0, 1, 2
 *   r8, r9, r10   two values of columns 0, 1, 2
 *   w             two packed weights; then the first channel's weights alone
 *
 *   step                    instructions  cycles on Cortex-M4
 *   load the values         1             4
 *   add to packed sums      3             3
 *   extract first weights   1             1
 *   add to first sums       3             3 */
#define TFKD_CONV_TWO_VALUES(w)                                                                         \
    "ldm r0!, {r8-r10}\n"                                                                               \
    "smlad r2, r8, " w ", r2\n smlad r4, r9, " w ", r4\n smlad r6, r10, " w ", r6\n"                    \
    "sxtb16 " w ", " w "\n"                                                                             \
    "smlad r3, r8, " w ", r3\n smlad r5, r9, " w ", r5\n smlad r7, r10, " w ", r7\n"

/* The same with four values: r1 is the address in the weights. 24 products in 25 cycles on Cortex-M4.
 * TFKD_CONV_FOUR_BYTES is the size of its machine code: 17 instructions of 4 bytes. */
#define TFKD_CONV_FOUR_VALUES "ldrd r11, r12, [r1], #8\n" TFKD_CONV_TWO_VALUES("r11") TFKD_CONV_TWO_VALUES("r12")
#define TFKD_CONV_FOUR_BYTES 68

/* Sums of three columns with one pair of channels, without biases; used where tfkd_pairs does not apply.
 *
 *   argument              register             sums
 *   columns               r0                   [0] packed, [1] first channel: column 0
 *   weights               r1                   [2], [3]: column 1
 *   stop (columns' end)   r2, then lr          [4], [5]: column 2
 *   sums                  r3, kept at [sp] */
TFKD_ASSEMBLY void tfkd_tile(const int16_t *columns TFKD_UNUSED, const int16_t *weights TFKD_UNUSED,
                             const int16_t *stop TFKD_UNUSED, int32_t sums[6] TFKD_UNUSED) {
    __asm__ volatile(
        "push {r3, r4-r11, lr}\n mov lr, r2\n"
        "movs r2, #0\n movs r3, #0\n movs r4, #0\n movs r5, #0\n movs r6, #0\n movs r7, #0\n"
        "1:\n" TFKD_CONV_FOUR_VALUES "cmp r0, lr\n bne 1b\n"
        "ldr r0, [sp]\n stm r0, {r2-r7}\n"
        "pop {r3, r4-r11, pc}\n");
}

/* Parameters of tfkd_pairs. The assembly loads all eight words at once and keeps the first seven on its stack. */
typedef struct {
    const int16_t *columns, *stop; /* start and end of the three columns */
    int32_t skip;                  /* TFKD_CONV_SKIP(depth): bytes of unrolled code to jump over */
    const int32_t *pairs;          /* [pairs of channels, 7], see convolution.h; the sign of word 2 marks the last */
    int8_t *out;                   /* first column's output of the first channel */
    int32_t step, step2;           /* bytes to the second and third column's outputs; 0 for columns that are not used */
    const int16_t *weights;
} tfkd_pairs_params;
TFKD_STATIC_ASSERT(sizeof(tfkd_pairs_params) == 32, tfkd_pairs_params_must_be_eight_words);
TFKD_STATIC_ASSERT(offsetof(tfkd_pairs_params, weights) == 28, tfkd_pairs_params_weights_must_be_last);

/* Requantization in tfkd_pairs. x is a sum with its bias; the output replaces it.
 *
 *   register   content
 *   r0         signed: right shift, byte 0 for the first channel, then byte 1 for the second
 *   r10, r11   multiplier of the first, the second channel
 *   r12, lr    offset of the first, the second channel; signed: (2 * zero point + 1) << shift
 *
 *   variant       first channel, x = A                             second channel, x = 256 * B
 *   one product   (A * m >> 32) + offset, >> 3                     (256B * m >> 32) + offset, >> 11
 *   signed        (2A * m + 2^31) >> 32, -1 if negative,           2B = 256B >> 7, then as the first channel
 *                 + offset, >> shift + 1
 *
 * `ssat ..., asr #` saturates to int8 as well; of the signed shift, it is the last bit. */
#define TFKD_CONV_FIRST(x)                                                                              \
    "smmla " x ", " x ", r10, r12\n ssat " x ", #8, " x ", asr #" TFKD_TEXT(TFKD_SHIFT_OF_SUM) "\n"
#define TFKD_CONV_SECOND(x)                                                                             \
    "smmla " x ", " x ", r11, lr\n ssat " x ", #8, " x ", asr #" TFKD_TEXT(TFKD_SHIFT_OF_256) "\n"
#define TFKD_CONV_SATURATE(x) "asr " x ", " x ", r0\n ssat " x ", #8, " x ", asr #1\n"
#define TFKD_CONV_ADD_SIGNED(x, offset) TFKD_ROUND_AWAY(x) "add " x ", " x ", " offset "\n" TFKD_CONV_SATURATE(x)
#define TFKD_CONV_FIRST_SIGNED(x) "lsl " x ", " x ", #1\n smmulr " x ", " x ", r10\n" TFKD_CONV_ADD_SIGNED(x, "r12")
#define TFKD_CONV_SECOND_SIGNED(x) "asr " x ", " x ", #7\n smmulr " x ", " x ", r11\n" TFKD_CONV_ADD_SIGNED(x, "lr")
/* The signed second channel works on 2B, not on 256B: its shift and offset have 7 bits less than stored. */
#define TFKD_CONV_SECOND_SIGNED_BITS "subs r0, r0, #7\n asr lr, lr, #7\n"

/* The loop over a column is unrolled. Its first four values are multiplied before it, together with the biases; of the
 * rest, `(depth / 4 - 1) % steps` fours come first, by a jump into the unrolled code.
 *
 *   depth / 4 - 1        jump over                             TFKD_CONV_SKIP
 *   0                    all steps: no value is left           steps * 68
 *   n, n % steps == 0    nothing                               0
 *   n, otherwise         steps - n % steps                     (-n mod steps) * 68 */
#ifdef __OPTIMIZE_SIZE__
#define TFKD_CONV_STEPS 2
#else
#define TFKD_CONV_STEPS 16
#endif
#define TFKD_CONV_SKIP(depth)                                                                           \
    (((depth) > 4 ? ((4 - (depth)) / 4) & (TFKD_CONV_STEPS - 1) : TFKD_CONV_STEPS) * TFKD_CONV_FOUR_BYTES)
TFKD_STATIC_ASSERT((TFKD_CONV_STEPS & (TFKD_CONV_STEPS - 1)) == 0, tfkd_conv_steps_must_be_a_power_of_two);

/* All pairs of channels of three columns, from biases to outputs.
 *
 *   stack            register            in the loop over values   in the requantization
 *   [sp]     columns r0                  address in the columns    shifts
 *   [sp,4]   stop    r1                  address in the weights    the same
 *   [sp,8]   skip    r2, r4, r6          packed sums               second channel: sum, then output
 *   [sp,12]  pairs   r3, r5, r7          first channel's sums      first channel: sum, then output
 *   [sp,16]  out     r8, r9, r10         values of three columns   pairs, out, first multiplier; later step in r10
 *   [sp,20]  step    r11, r12            packed weights            second multiplier, first offset; later step2 in r11
 *   [sp,24]  step2   lr                  stop                      second offset
 *
 *   label   what                                                                        instructions
 *           save registers, copy the parameters to the stack                            7
 *   0:      next pair: load biases, multiply the first four values, jump into 1:        23 a pair
 *   1:      unrolled: four values of three columns; repeat until r0 == stop             17 a step (25 cycles on M4)
 *   2:      load shifts, multipliers, offsets; requantize six sums; merge two channels  28 a pair (signed 54)
 *           into 16 bits; store column 2, 1, 0, so that an unused column (step 0) is
 *           overwritten by the next; repeat until the sign of the shifts is set
 *
 * `add pc, r12` jumps to its own address + 4 + r12: it and the `nop` are 2 bytes each, so r12 = 0 jumps to label 1.
 * `.if` stops the assembler when the unrolled code does not have the size that TFKD_CONV_SKIP assumes. */
#define TFKD_CONV_PAIRS(name, first, second_bits, second)                                               \
    TFKD_ASSEMBLY void name(const tfkd_pairs_params *p TFKD_UNUSED) {                                   \
        __asm__ volatile(                                                                               \
            "push {r4-r11, lr}\n ldm r0, {r1-r8}\n sub sp, #28\n stm sp, {r1-r7}\n"                     \
            "mov r1, r8\n mov r8, r4\n mov r9, r5\n"                                                    \
            "0:\n"                                                                                      \
            "ldm r8!, {r2, r3}\n strd r8, r9, [sp, #12]\n"                                              \
            "ldrd r0, lr, [sp]\n ldrd r11, r12, [r1], #8\n ldm r0!, {r8-r10}\n"                         \
            "smlad r4, r9, r11, r2\n smlad r6, r10, r11, r2\n smlad r2, r8, r11, r2\n"                  \
            "sxtb16 r11, r11\n"                                                                         \
            "smlad r5, r9, r11, r3\n smlad r7, r10, r11, r3\n smlad r3, r8, r11, r3\n"                  \
            TFKD_CONV_TWO_VALUES("r12")                                                                 \
            "ldr r12, [sp, #8]\n add pc, r12\n nop\n"                                                   \
            "1:\n"                                                                                      \
            ".rept " TFKD_TEXT(TFKD_CONV_STEPS) "\n" TFKD_CONV_FOUR_VALUES ".endr\n"                    \
            "2:\n"                                                                                      \
            ".if (2b - 1b) != " TFKD_TEXT(TFKD_CONV_STEPS) " * " TFKD_TEXT(TFKD_CONV_FOUR_BYTES) "\n"    \
            ".error \"TFKD_CONV_FOUR_BYTES is not the size of one unrolled step\"\n"                    \
            ".endif\n"                                                                                  \
            "cmp r0, lr\n bne 1b\n"                                                                     \
            "ldrd r8, r9, [sp, #12]\n ldm r8!, {r0, r10-r12, lr}\n"                                     \
            "subs r2, r2, r3\n subs r4, r4, r5\n subs r6, r6, r7\n"                                     \
            first("r3") first("r5") first("r7") "asrs r0, r0, #8\n" second_bits                         \
            second("r2") second("r4") second("r6")                                                      \
            "ldrd r10, r11, [sp, #20]\n"                                                                \
            "bfi r7, r6, #8, #8\n strh r7, [r9, r11]\n"                                                 \
            "bfi r5, r4, #8, #8\n strh r5, [r9, r10]\n"                                                 \
            "bfi r3, r2, #8, #8\n strh r3, [r9], #2\n"                                                  \
            "bpl 0b\n"                                                                                  \
            "add sp, #28\n pop {r4-r11, pc}\n");                                                        \
    }
TFKD_CONV_PAIRS(tfkd_pairs, TFKD_CONV_FIRST, "", TFKD_CONV_SECOND)
TFKD_CONV_PAIRS(tfkd_pairs_signed, TFKD_CONV_FIRST_SIGNED, TFKD_CONV_SECOND_SIGNED_BITS, TFKD_CONV_SECOND_SIGNED)

/* Parameters of tfkd_widen_three: how three receptive fields become columns. A run is a piece of a field whose values
 * are contiguous in the input: a row of the kernel. */
typedef struct {
    int32_t step, step2; /* bytes from the first field to the second and to the third */
    int32_t rest_at;     /* bytes from where the fours go to where the values go that do not fill a four */
    int32_t fours;   /* fours per run */
    int32_t rest;    /* other values per run, 0 to 3 */
    int32_t next;    /* bytes from the end of a run to the start of the next */
    int32_t runs;    /* runs per field */
} tfkd_three_params;
TFKD_STATIC_ASSERT(sizeof(tfkd_three_params) == 28, tfkd_three_params_must_be_seven_words);

/* Four values of each field, in the order 0 2 1 3. */
#define TFKD_WIDEN_FOUR                                                                                 \
    "ldr r4, [r1], #4\n ldr r5, [r12], #4\n ldr r6, [lr], #4\n"                                         \
    "sxtb16 r7, r4, ror #8\n sxtb16 r8, r5, ror #8\n sxtb16 r9, r6, ror #8\n"                           \
    "sxtb16 r4, r4\n sxtb16 r5, r5\n sxtb16 r6, r6\n stm r0!, {r4-r9}\n"

/* Three receptive fields widened to 16 bits.
 *
 *   register      content                                     stack
 *   r0            where the next four values go               [sp]     fours
 *   r1, r12, lr   addresses in fields 0, 1, 2                 [sp,4]   rest
 *   r2            runs left                                   [sp,8]   next
 *   r3            0 or 8: the place after an odd value is
 *                 8 bytes further, beyond the other columns   label  what
 *   r4 - r9       values                                      1:     next run; an odd number of fours: to 6:
 *   r10           fours or values left                        2:, 6: four values of each field, 10 instructions
 *   r11           where the next single value goes            4:     one value of each field
 *                                                             5:     on to the next run */
TFKD_ASSEMBLY void tfkd_widen_three(int16_t *columns TFKD_UNUSED, const int8_t *from TFKD_UNUSED,
                                    const tfkd_three_params *p TFKD_UNUSED) {
    __asm__ volatile(
        "push {r4-r11, lr}\n ldm r2, {r2-r8}\n push {r5-r7}\n"
        "add r12, r1, r2\n add lr, r1, r3\n add r11, r0, r4\n mov r2, r8\n movs r3, #8\n"
        "1:\n ldr r10, [sp]\n lsrs r4, r10, #1\n bcs 6f\n beq 3f\n"
        "2:\n" TFKD_WIDEN_FOUR "6:\n" TFKD_WIDEN_FOUR "subs r10, r10, #2\n bgt 2b\n"
        "3:\n ldr r10, [sp, #4]\n cmp r10, #0\n beq 5f\n"
        "4:\n ldrsb r4, [r1], #1\n ldrsb r5, [r12], #1\n ldrsb r6, [lr], #1\n"
        "strh r4, [r11]\n strh r5, [r11, #4]\n strh r6, [r11, #8]\n"
        "eor r3, r3, #8\n add r11, r11, r3\n adds r11, r11, #2\n subs r10, r10, #1\n bne 4b\n"
        "5:\n subs r2, r2, #1\n beq 7f\n"
        "ldr r4, [sp, #8]\n add r1, r1, r4\n add r12, r12, r4\n add lr, lr, r4\n b 1b\n"
        "7:\n add sp, #12\n pop {r4-r11, pc}\n");
}
#endif
