/* Functions of gemmlowp's and TensorFlow Lite's fixed-point numbers that some kernels compute for each row or value:
 * the reciprocal and the inverse square root. */
#include "arithmetic.h"

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

/* Number of zero bits before the first one; 32 for 0. Compilers would turn a loop over single bits into a call of their
 * library on cores without an instruction for it. */
TFKD_INLINE int32_t tfkd_leading_zeros(uint32_t x) {
    int32_t zeros = 0;
    if (!x) return 32;
    for (int32_t step = 16; step; step /= 2) {
        if (!(x >> (32 - step))) {
            x <<= step;
            zeros += step;
        }
    }
    return zeros;
}

/* The inverse square root of x >= 0 as multiplier * 2^(*shift - 31), and of 0 as that of 1:
 * GetInvSqrtQuantizedMultiplierExp. Five Newton steps, y = 3/2 * y - x/2 * y^3, with 28 fraction bits, start at 1. */
TFKD_INLINE int32_t tfkd_inverse_sqrt(int32_t x, int32_t *shift) {
    int32_t right = 11, y = 1 << 28;
    *shift = 0;
    if (x <= 1) return 0x7fffffff;
    for (; x >= 1 << 29; x /= 4) right++;
    const int32_t pairs = (tfkd_leading_zeros((uint32_t)x) - 1) / 2 - 1;
    x = (int32_t)((uint32_t)x << (2 * pairs)) >> 1;
    const int32_t half = tfkd_divide_by_power(x, 1);
    for (int i = 0; i < 5; i++) {
        const int32_t cube = tfkd_saturating_double(tfkd_high_mul(tfkd_high_mul(y, y), y), 6);
        y = tfkd_saturating_double(tfkd_high_mul((1 << 28) + (1 << 27), y) - tfkd_high_mul(half, cube), 3);
    }
    y = tfkd_high_mul(y, 1518500250); /* times sqrt(1/2) */
    right -= pairs;
    if (right < 0) return (int32_t)((uint32_t)y << -right);
    *shift = -right;
    return y;
}
