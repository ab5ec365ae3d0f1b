/* SOFTMAX, int8, over the last axis of [rows, depth]: the bits of TensorFlow Lite Micro's reference_ops::Softmax. The
 * output has scale 1/256 and zero point -128. */
#include "arithmetic.h"

typedef struct {
    const int32_t *exponential; /* [differences] exp(-difference) with 31 fraction bits; 0 for larger differences */
    int32_t differences, rows, depth;
} tfkd_softmax_params;

/* x * 2^times, saturated to int32: SaturatingRoundingMultiplyByPOT of gemmlowp. */
TFKD_INLINE int32_t tfkd_saturating_double(int32_t x, int32_t times) {
    const int32_t limit = (int32_t)(0x7fffffffu >> times);
    return x > limit ? 0x7fffffff : x < -limit ? -0x7fffffff - 1 : (int32_t)((uint32_t)x << times);
}

/* 1 / (1 + x) for x in [0, 1), 31 fraction bits: one_over_one_plus_x_for_x_in_0_1 of gemmlowp. Three Newton steps for
 * the inverse of d = (1 + x) / 2, starting at 48/17 - 32/17 * d. */
TFKD_INLINE int32_t tfkd_reciprocal(int32_t x) {
    const int32_t half = (int32_t)(((uint32_t)x + 0x80000000u) >> 1);
    int32_t guess = 1515870810 + tfkd_high_mul(-1010580540, half);
    for (int i = 0; i < 3; i++) {
        const int32_t rest = 0x20000000 - tfkd_high_mul(half, guess);
        guess += tfkd_saturating_double(tfkd_high_mul(rest, guess), 2);
    }
    return tfkd_saturating_double(guess, 1);
}

TFKD_INLINE void tfkd_softmax(const tfkd_softmax_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    for (int32_t row = 0; row < p->rows; row++, in += p->depth, out += p->depth) {
        int32_t most = -128, zeros = 0;
        uint32_t sum = 0;
        for (int32_t c = 0; c < p->depth; c++) most = in[c] > most ? in[c] : most;
        for (int32_t c = 0; c < p->depth; c++) {
            const int32_t difference = most - in[c];
            if (difference < p->differences) sum += (uint32_t)tfkd_divide_by_power(p->exponential[difference], 12);
        }
        while (!((sum << zeros) & 0x80000000u)) zeros++; /* ends: the largest input alone adds 2^19 */
        const int32_t scale = tfkd_reciprocal((int32_t)((sum << zeros) - 0x80000000u));
        for (int32_t c = 0; c < p->depth; c++) {
            const int32_t difference = most - in[c];
            int32_t result = 0;
            /* where more than 511 inputs are equal, each rounds to 0; TensorFlow Lite Micro aborts there */
            if (difference < p->differences && zeros >= 4)
                result = tfkd_divide_by_power(tfkd_high_mul(scale, p->exponential[difference]), 35 - zeros);
            out[c] = (int8_t)tfkd_clamp(result - 128, -128, 127);
        }
    }
}
