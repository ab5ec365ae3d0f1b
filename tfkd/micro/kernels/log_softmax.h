/* LOG_SOFTMAX, int8, over the last axis of [rows, depth]: the bits of TensorFlow Lite Micro's
 * reference_ops::LogSoftmaxQuantized. The output has scale 1/16 and zero point 127. */
#include "fixed_point.h"

typedef struct {
    const int32_t *exponential; /* [differences] exp(-difference) with 31 fraction bits; 0 for larger differences */
    int32_t differences, rows, depth;
    int32_t multiplier, shift;                 /* of a difference, to 26 fraction bits */
    int32_t inverse_multiplier, inverse_shift; /* of a number with 26 fraction bits, to a difference */
} tfkd_log_softmax_params;

/* log(x) with 26 fraction bits of x >= 1 with 19: log_x_for_x_greater_than_or_equal_to_1. x = 2^power * r, where r is
 * near 2^(-1/4); log(r) is a quotient of polynomials. Of two pairs of power and r that are half an octave apart, the
 * larger power and the smaller r are taken. */
TFKD_INLINE int32_t tfkd_log(int32_t x) {
    const int32_t sqrt_half = 1518500250, quarter = 1 << 23, fourth_root_half = 1805811301;
    const int32_t zeros1 = tfkd_leading_zeros((uint32_t)x);
    const int32_t zeros2 = tfkd_leading_zeros((uint32_t)tfkd_high_mul(x, sqrt_half)) - 1;
    const int32_t r1 = tfkd_saturating_double(tfkd_high_mul(tfkd_saturating_double(x, zeros1 - 1), sqrt_half), 1);
    const int32_t r2 = tfkd_saturating_double(x, zeros2);
    const int32_t power1 = (12 - zeros1) * (1 << 25) + quarter, power2 = (12 - zeros2) * (1 << 25) - quarter;
    const int32_t r = r1 < r2 ? r1 : r2, power = power1 > power2 ? power1 : power2;
    const int32_t p = (int32_t)(((uint32_t)r + (uint32_t)fourth_root_half + 1) >> 1), q = 2 * (r - fourth_root_half);
    const int32_t square = q < 0 ? tfkd_high_mul(-q, -q) : tfkd_high_mul(q, q);
    const int32_t numerator = tfkd_high_mul(q, r) + tfkd_high_mul(tfkd_high_mul(q, square), 117049297);
    const int32_t denominator =
        tfkd_high_mul(p, 1057819769 + q + tfkd_high_mul(square, 127690142)) + tfkd_high_mul(q, 638450708);
    const int32_t fraction = tfkd_high_mul(tfkd_divide_by_power(numerator, 6), tfkd_reciprocal(denominator));
    return tfkd_saturating_double(tfkd_high_mul(power, 1488522236) + fraction, 1); /* times log(2) */
}

TFKD_INLINE void tfkd_log_softmax(const tfkd_log_softmax_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    for (int32_t row = 0; row < p->rows; row++, in += p->depth, out += p->depth) {
        int32_t most = -128, sum = 0;
        for (int32_t c = 0; c < p->depth; c++) most = in[c] > most ? in[c] : most;
        for (int32_t c = 0; c < p->depth; c++) {
            const int32_t difference = most - in[c];
            if (difference < p->differences) sum += tfkd_divide_by_power(p->exponential[difference], 12);
        }
        const int32_t log = tfkd_log(sum), limit = p->differences;
        const int32_t reach = -tfkd_multiply(log - 0x7fffffff - 1, p->inverse_multiplier, p->inverse_shift);
        for (int32_t c = 0; c < p->depth; c++) {
            const int32_t difference = most - in[c];
            int32_t result = -128;
            if (difference < limit && difference < reach) {
                const int32_t scaled = tfkd_multiply(-difference, p->multiplier, p->shift);
                result = tfkd_divide_by_power((int32_t)((uint32_t)scaled - (uint32_t)log), 22) + 127;
            }
            out[c] = (int8_t)tfkd_clamp(result, -128, 127);
        }
    }
}
