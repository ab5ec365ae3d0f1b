/* ADD int8 on cores with the DSP extension: the inner loop of addition.h in assembly. */
#include "arithmetic.h"

#if TFKD_DSP
TFKD_STATIC_ASSERT(sizeof(void *) == 4, tfkd_dsp_addition_needs_32_bit_pointers);

/* Parameters of tfkd_add. The assembly loads all twelve words at once, into r0 - r11. */
typedef struct {
    const int8_t *halved, *scaled; /* the operand of the larger scale, whose factor is 1/2, and the other one */
    int8_t *out;
    const int8_t *end;     /* end of the output, behind at least one value */
    int32_t halved_offset; /* -2^20 * zero point; in tfkd_add_halves of both */
    int32_t scaled_offset; /* -2^21 * zero point */
    int32_t multiplier, half, shift; /* factor of the other one; half: 2^shift / 2; shift > 0 */
    int32_t out_multiplier;
    int32_t out_offset; /* 2^out_shift / 2 + 2^out_shift * zero point */
    int32_t out_shift;  /* > 0 */
} tfkd_add_params;
TFKD_STATIC_ASSERT(sizeof(tfkd_add_params) == 48, tfkd_add_params_must_be_twelve_words);

/* One value. Twice the sum of the scaled operands, as `smmulr` takes it:
 *
 *   register   content
 *   r0 - r11   the parameters in their order; r0, r1, r2 advance
 *   r12        value of the halved operand: 2 * 2^19 * (x - zero point); then the sum
 *   lr         value of the other one: 2 * 2^20 * (y - zero point), times its factor */
#define TFKD_ADD_LOAD "ldrsb r12, [r0], #1\n ldrsb lr, [r1], #1\n add r12, r4, r12, lsl #20\n"
#define TFKD_ADD_OTHER                                                                                  \
    "add lr, r5, lr, lsl #21\n smmulr lr, lr, r6\n" TFKD_ROUND_AWAY("lr")                               \
    "add lr, lr, r7\n asr lr, lr, r8\n add r12, r12, lr, lsl #1\n"
#define TFKD_ADD_OTHER_HALVES "add r12, r12, lr, lsl #20\n"
#define TFKD_ADD_STORE "asr r12, r12, r11\n ssat r12, #8, r12\n strb r12, [r2], #1\n"
#define TFKD_ADD_SCALE "smmlar r12, r12, r9, r10\n" TFKD_ADD_STORE
#define TFKD_ADD_SCALE_SIGNED                                                                           \
    "smmulr r12, r12, r9\n" TFKD_ROUND_AWAY("r12") "add r12, r12, r10\n" TFKD_ADD_STORE

/* All values: one by one at label 4:, until a multiple of TFKD_ADD_STEPS is left for the unrolled loop at label 1:.
 *
 *   variant   instructions of a value
 *   default   13: sums below the zero point are clamped, so that they need no rounding away from zero
 *   signed    15
 *   halves    both factors are 1/2: 9, signed 11 */
#ifdef __OPTIMIZE_SIZE__
#define TFKD_ADD_STEPS 2
#else
#define TFKD_ADD_STEPS 8
#endif
#define TFKD_ADD_ALL(name, other, scale)                                                                \
    TFKD_ASSEMBLY void name(const tfkd_add_params *p TFKD_UNUSED) {                                     \
        __asm__ volatile(                                                                               \
            "push {r4-r11, lr}\n ldm r0, {r0-r11}\n"                                                   \
            "4:\n subs r12, r3, r2\n tst r12, #" TFKD_TEXT(TFKD_ADD_STEPS) " - 1\n beq 5f\n"            \
            TFKD_ADD_LOAD other scale "b 4b\n"                                                          \
            "5:\n cmp r2, r3\n beq 3f\n"                                                               \
            "1:\n .rept " TFKD_TEXT(TFKD_ADD_STEPS) "\n" TFKD_ADD_LOAD other scale ".endr\n"            \
            "cmp r2, r3\n bne 1b\n"                                                                     \
            "3:\n"                                                                                      \
            "pop {r4-r11, pc}\n");                                                                      \
    }
TFKD_ADD_ALL(tfkd_add, TFKD_ADD_OTHER, TFKD_ADD_SCALE)
TFKD_ADD_ALL(tfkd_add_signed, TFKD_ADD_OTHER, TFKD_ADD_SCALE_SIGNED)
TFKD_ADD_ALL(tfkd_add_halves, TFKD_ADD_OTHER_HALVES, TFKD_ADD_SCALE)
TFKD_ADD_ALL(tfkd_add_halves_signed, TFKD_ADD_OTHER_HALVES, TFKD_ADD_SCALE_SIGNED)
#endif
