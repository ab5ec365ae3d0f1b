/* Fixed-point arithmetic of TensorFlow Lite Micro's reference kernels, bit for bit.
 *
 * A real factor is multiplier * 2^(shift - 31), with the multiplier in [2^30, 2^31). The functions give the bits of
 * MultiplyByQuantizedMultiplier (tensorflow/lite/kernels/internal/common.h), which rounds twice: once in the
 * doubling high multiply, once in the right shift.
 * Right shifts of negative numbers must be arithmetic, as in every compiler for these cores. */
#include "platform.h"
#include "arm_dsp.h"

/* Properties of a layer, known when the code is generated, so that the compiler drops what is not needed.
 *
 *   flag              meaning
 *   TFKD_ANY_SHIFT    `shift` holds exponents of either sign; without it, the right shift minus 1, >= 0
 *   TFKD_SIGNED       negative results survive the clamp, so their halves must round away from zero
 *   TFKD_CLAMP        the output range is narrower than int8, or sums exceed the range in which `ssat` is exact
 *   TFKD_WIDE         sums may exceed 2^30, or two channels do not fit one packed sum
 *   TFKD_ONE_PRODUCT  convolutions: biases, multipliers and offsets are those of tfkd_one_product
 *   TFKD_BY_ROWS      depthwise: some of the layers use the form by pairs of rows
 *   TFKD_BY_PLANE     depthwise: some of the layers do not */
#define TFKD_ANY_SHIFT 1
#define TFKD_SIGNED 2
#define TFKD_CLAMP 4
#define TFKD_WIDE 8
#define TFKD_ONE_PRODUCT 16
#define TFKD_BY_ROWS 32
#define TFKD_BY_PLANE 64

/* Whether 256 times a sum fits 32 bits and `ssat` saturates the result correctly. */
#define TFKD_FAST(flags) (!((flags) & (TFKD_ANY_SHIFT | TFKD_WIDE | TFKD_CLAMP)))

/* sum / count, rounded towards zero; count > 0. */
TFKD_INLINE int32_t tfkd_divide(int32_t sum, int32_t count) {
#if defined(__thumb__) && !defined(__thumb2__)
    /* no division instruction on this core: long division, so that no library is needed */
    uint32_t rest = sum < 0 ? 0u - (uint32_t)sum : (uint32_t)sum, quotient = 0;
    for (int bit = 31; bit >= 0; bit--) {
        if ((rest >> bit) >= (uint32_t)count) {
            rest -= (uint32_t)count << bit;
            quotient |= (uint32_t)1 << bit;
        }
    }
    return sum < 0 ? -(int32_t)quotient : (int32_t)quotient;
#else
    return sum / count;
#endif
}

/* (a * b + 2^30) >> 31 for b >= 0: SaturatingRoundingDoublingHighMul. */
TFKD_INLINE int32_t tfkd_high_mul(int32_t a, int32_t b) {
#if defined(__thumb__) && !defined(__thumb2__)
    /* no 64-bit product on this core: four products of 16 bits
     *
     *   a * b = a_high * b_high * 2^32 + (a_high * b_low + a_low * b_high) * 2^16 + a_low * b_low */
    const int32_t a_high = a >> 16, b_high = b >> 16;
    const uint32_t a_low = (uint32_t)a & 0xffffu, b_low = (uint32_t)b & 0xffffu;
    const uint32_t low = a_low * b_low;
    const int32_t middle = a_high * (int32_t)b_low + (int32_t)(low >> 16);
    const uint32_t second = a_low * (uint32_t)b_high + ((uint32_t)middle & 0xffffu);
    const uint32_t high = (uint32_t)(a_high * b_high + (middle >> 16)) + (second >> 16);
    const uint32_t rest = ((second << 16) | (low & 0xffffu)) + 0x40000000u;
    return (int32_t)(((high + (rest < 0x40000000u)) << 1) | (rest >> 31));
#else
    return (int32_t)(((int64_t)a * b + 0x40000000) >> 31);
#endif
}

/* (a * b) >> 32 for b >= 0. */
TFKD_INLINE int32_t tfkd_high_word(int32_t a, int32_t b) {
#if defined(__thumb__) && !defined(__thumb2__)
    const int32_t a_high = a >> 16, b_high = b >> 16; /* as above */
    const uint32_t a_low = (uint32_t)a & 0xffffu, b_low = (uint32_t)b & 0xffffu;
    const int32_t middle = a_high * (int32_t)b_low + (int32_t)((a_low * b_low) >> 16);
    const uint32_t second = a_low * (uint32_t)b_high + ((uint32_t)middle & 0xffffu);
    return a_high * b_high + (middle >> 16) + (int32_t)(second >> 16);
#else
    return (int32_t)(((int64_t)a * b) >> 32);
#endif
}

/* tfkd_high_mul for |a| < 2^30. */
TFKD_INLINE int32_t tfkd_high_mul_small(int32_t a, int32_t b) {
#if TFKD_DSP
    return tfkd_high_mul_twice(a * 2, b);
#else
    return tfkd_high_mul(a, b);
#endif
}

/* x / 2^exponent, halves rounded away from zero: RoundingDivideByPOT. */
TFKD_INLINE int32_t tfkd_divide_by_power(int32_t x, int32_t exponent) {
    const int32_t mask = (int32_t)(((uint32_t)1 << exponent) - 1u);
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0));
}

/* x * multiplier * 2^(shift - 31), rounded twice: MultiplyByQuantizedMultiplier. */
TFKD_INLINE int32_t tfkd_multiply(int32_t x, int32_t multiplier, int32_t shift) {
    if (shift > 0) return tfkd_high_mul((int32_t)((uint32_t)x << shift), multiplier);
    return tfkd_divide_by_power(tfkd_high_mul(x, multiplier), -shift);
}

TFKD_INLINE int32_t tfkd_clamp(int32_t x, int32_t least, int32_t most) {
    return x < least ? least : x > most ? most : x;
}

/* x >> 1, clamped to the output range. */
TFKD_INLINE int32_t tfkd_saturate_half(int32_t x, int32_t least, int32_t most, int flags) {
    if (flags & TFKD_CLAMP) return tfkd_clamp(x >> 1, least, most);
#if TFKD_DSP
    return tfkd_saturate_8(x);
#else
    return tfkd_clamp(x >> 1, -128, 127);
#endif
}

/* x + zero_point, clamped. The clamp comes first, so that the sum cannot overflow. */
TFKD_INLINE int32_t tfkd_around(int32_t x, int32_t zero_point, int32_t least, int32_t most) {
    return tfkd_clamp(x, least - zero_point, most - zero_point) + zero_point;
}

/* An int32 accumulator to an int8 output. Without TFKD_ANY_SHIFT `shift` is the right shift minus 1, and the rounding
 * half is added together with twice the zero point before the last bit is shifted out. */
TFKD_INLINE int32_t tfkd_requantize(int32_t sum, int32_t multiplier, int32_t shift, int32_t zero_point, int32_t least,
                                    int32_t most, int flags) {
    if (flags & TFKD_ANY_SHIFT) return tfkd_clamp(tfkd_multiply(sum, multiplier, shift) + zero_point, least, most);
    int32_t x = flags & TFKD_WIDE ? tfkd_high_mul(sum, multiplier) : tfkd_high_mul_small(sum, multiplier);
    if (flags & TFKD_SIGNED) x += x >> 31;
    return tfkd_saturate_half((x >> shift) + 2 * zero_point + 1, least, most, flags);
}

/* Right shifts of tfkd_one_product: x is a sum with its bias, or 256 times that. */
#define TFKD_SHIFT_OF_SUM 3
#define TFKD_SHIFT_OF_256 11

/* An output from one product with numbers that were found when the code was generated, for which it has the bits of
 * tfkd_requantize. */
TFKD_INLINE int32_t tfkd_one_product(int32_t x, int32_t multiplier, int32_t offset, int32_t shift) {
    return tfkd_clamp((tfkd_high_word(x, multiplier) + offset) >> shift, -128, 127);
}

/* Offset of tfkd_one_product for 256 times a sum: the zero point and one half. */
TFKD_INLINE int32_t tfkd_usual_offset(int32_t zero_point) {
    return (2 * zero_point + 1) * (1 << (TFKD_SHIFT_OF_256 - 1));
}

/* Whether kernels pass twice the accumulator, which saves the shift before `smmulr`. */
#define TFKD_DOUBLED(flags) (TFKD_DSP && !((flags) & (TFKD_ANY_SHIFT | TFKD_WIDE)))

/* tfkd_requantize of twice / 2. */
TFKD_INLINE int32_t tfkd_requantize_twice(int32_t twice, int32_t multiplier, int32_t shift, int32_t zero_point,
                                          int32_t least, int32_t most, int flags) {
#if TFKD_DSP
    int32_t x = tfkd_high_mul_twice(twice, multiplier);
    if (flags & TFKD_SIGNED) x += x >> 31;
    return tfkd_saturate_half((x >> shift) + 2 * zero_point + 1, least, most, flags);
#else
    return tfkd_requantize(twice / 2, multiplier, shift, zero_point, least, most, flags);
#endif
}

/* Packed weights: the int8 weights a and b of two output channels share one int16, 256 * b + a.
 *
 *   packed sum   sum of x * (256 * b + a) = 256 * B + A       B, A: the sums of the second and the first channel
 *   first sum    sum of x * a             = A                 a is the packed weight's low byte, sign-extended
 *   second sum   (packed sum - first sum) / 256 = B
 *
 * So one load and one sign extension serve two channels. TFKD_WIDE marks layers where 256 * B + A exceeds 32 bits. */
TFKD_INLINE int32_t tfkd_second(int32_t packed, int32_t first) {
    return (int32_t)((uint32_t)packed - (uint32_t)first) >> 8;
}

/* The output of one of two channels that share packed weights. sums: packed sum (with TFKD_WIDE the second sum itself),
 * first sum; second: 0 for the first channel, 1 for the second. */
TFKD_INLINE int32_t tfkd_output(const int32_t sums[2], int second, int32_t bias, int32_t multiplier, int32_t shift,
                                int32_t zero_point, int32_t least, int32_t most, int flags) {
    if (TFKD_DOUBLED(flags)) {
        const int32_t difference = (int32_t)((uint32_t)sums[0] - (uint32_t)sums[1]);
        const int32_t twice = 2 * bias + (second ? difference >> 7 : 2 * sums[1]);
        return tfkd_requantize_twice(twice, multiplier, shift, zero_point, least, most, flags);
    }
    int32_t sum = sums[1];
    if (second) sum = flags & TFKD_WIDE ? sums[0] : tfkd_second(sums[0], sums[1]);
    return tfkd_requantize(sum + bias, multiplier, shift, zero_point, least, most, flags);
}
