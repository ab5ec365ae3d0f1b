/* DEPTHWISE_CONV_2D int8 on cores with vectors: the inner loops of depthwise.h.
 *
 * Some rows of the padded input are held for up to 16 channels, the lanes of a vector, pixel after pixel; behind them the
 * weights, tap after tap. Two products of 8 bits fit 16 bits, so that two taps are added before they are widened:
 *
 *   instruction                number  result for 16 channels and two taps
 *   vldrb                      4       values and weights
 *   vmullb, vmullt             4       products of even and of odd channels, 8 halves each
 *   vadd                       2       sums of both taps
 *   vmovlb, vmovlt, vadd       8       added to four sums of words
 *
 *   sum       0             1             2              3
 *   channels  0, 4, 8, 12   1, 5, 9, 13   2, 6, 10, 14   3, 7, 11, 15 */
#include "arm_helium.h"

#if TFKD_MVE
typedef struct {
    int32x4_t sums[4];
} tfkd_sixteen;

/* Adds products: bottom those of even, top those of odd channels. */
TFKD_INLINE void tfkd_add_products(tfkd_sixteen *to, int16x8_t bottom, int16x8_t top) {
    to->sums[0] = vaddq_s32(to->sums[0], vmovlbq_s16(bottom));
    to->sums[1] = vaddq_s32(to->sums[1], vmovlbq_s16(top));
    to->sums[2] = vaddq_s32(to->sums[2], vmovltq_s16(bottom));
    to->sums[3] = vaddq_s32(to->sums[3], vmovltq_s16(top));
}

TFKD_INLINE void tfkd_two_taps(tfkd_sixteen *to, const int8_t *first, const int8_t *weights, const int8_t *second,
                               const int8_t *more_weights) {
    int8x16_t x = vldrbq_s8(first), w = vldrbq_s8(weights);
    const int16x8_t bottom = vmullbq_int_s8(x, w), top = vmulltq_int_s8(x, w);
    x = vldrbq_s8(second), w = vldrbq_s8(more_weights);
    tfkd_add_products(to, vaddq_s16(bottom, vmullbq_int_s8(x, w)), vaddq_s16(top, vmulltq_int_s8(x, w)));
}

TFKD_INLINE void tfkd_one_tap(tfkd_sixteen *to, const int8_t *at, const int8_t *weights) {
    const int8x16_t x = vldrbq_s8(at), w = vldrbq_s8(weights);
    tfkd_add_products(to, vmullbq_int_s8(x, w), vmulltq_int_s8(x, w));
}

/* The products of all taps of one output pixel.
 *
 * step, row: bytes from a tap to the next one of a row, and to the row below; lanes: bytes from a weight to the next */
TFKD_INLINE void tfkd_taps(tfkd_sixteen *to, const int8_t *from, const int8_t *weights, int32_t rows, int32_t columns,
                           int32_t step, int32_t row, int32_t lanes) {
    for (int32_t y = 0; y < rows; y++, from += row) {
        const int8_t *at = from;
        for (int32_t x = columns; x > 1; x -= 2, at += 2 * step, weights += 2 * lanes)
            tfkd_two_taps(to, at, weights, at + step, weights + lanes);
        if (columns & 1) tfkd_one_tap(to, at, weights), weights += lanes;
    }
}

/* The same with 3 x 3 taps and 16 bytes to the next tap and weight. */
TFKD_INLINE void tfkd_taps_3x3(tfkd_sixteen *to, const int8_t *from, const int8_t *weights, int32_t row) {
    const int8_t *next = from + row, *last = next + row;
    tfkd_two_taps(to, from, weights, from + 16, weights + 16);
    tfkd_two_taps(to, from + 32, weights + 32, next, weights + 48);
    tfkd_two_taps(to, next + 16, weights + 64, next + 32, weights + 80);
    tfkd_two_taps(to, last, weights + 96, last + 16, weights + 112);
    tfkd_one_tap(to, last + 32, weights + 128);
}

/* Bias, multiplier and exponent of 16 channels, in the order of the sums above; with TFKD_ONE_PRODUCT the offset in the
 * place of the exponent. */
typedef struct {
    int32_t bias[16], multiplier[16], exponent[16];
} tfkd_scaling_16;

/* count: channels that are there. */
TFKD_INLINE void tfkd_scaling_of(tfkd_scaling_16 *to, const int32_t *bias, const int32_t *multiplier,
                                 const int8_t *shift, int32_t count, int32_t zero_point, int flags) {
    const uint32x4_t words = vshlq_n_u32(vidupq_n_u32(0, 4), 2), bytes = vidupq_n_u32(0, 4);
    for (int32_t i = 0; i < 4; i++) {
        const mve_pred16_t some = vctp32q((uint32_t)((count - i + 3) / 4));
        vstrwq_s32(to->bias + 4 * i, vldrwq_gather_offset_z_s32(bias + i, words, some));
        vstrwq_s32(to->multiplier + 4 * i, vldrwq_gather_offset_z_s32(multiplier + i, words, some));
        const int32x4_t shifts = vldrbq_gather_offset_z_s32(shift + i, bytes, some);
        if (flags & TFKD_ONE_PRODUCT)
            vstrwq_s32(to->exponent + 4 * i, vaddq_n_s32(shifts, tfkd_usual_offset(zero_point)));
        else vstrwq_s32(to->exponent + 4 * i, tfkd_exponents(shifts, flags));
    }
}

/* Sums of 16 channels to outputs. */
TFKD_INLINE int8x16_t tfkd_requantize_16(const tfkd_sixteen *x, const tfkd_scaling_16 *scaling, int32_t zero_point,
                                         int8_t least, int8_t most, int flags) {
    int32x4_t y[4];
    for (int32_t i = 0; i < 4; i++) {
        const int32x4_t multiplier = vldrwq_s32(scaling->multiplier + 4 * i);
        const int32x4_t exponent = vldrwq_s32(scaling->exponent + 4 * i);
        if (flags & TFKD_ONE_PRODUCT) {
            const int32x4_t bias = vldrwq_s32(scaling->bias + 4 * i), right = vdupq_n_s32(-TFKD_SHIFT_OF_256);
            y[i] = tfkd_one_product_4(vaddq_s32(vshlq_n_s32(x->sums[i], 8), bias), multiplier, exponent, right);
        } else y[i] = vaddq_n_s32(tfkd_multiply_4(x->sums[i], multiplier, exponent, flags), zero_point);
    }
    /* saturated to 16, then to 8 bits; the first half of a pair of instructions writes even, the other odd lanes */
    const int16x8_t even = vqmovntq_s32(vqmovnbq_s32(vdupq_n_s16(0), y[0]), y[2]);
    const int16x8_t odd = vqmovntq_s32(vqmovnbq_s32(vdupq_n_s16(0), y[1]), y[3]);
    const int8x16_t all = vqmovntq_s16(vqmovnbq_s16(vdupq_n_s8(0), even), odd);
    if (!(flags & TFKD_CLAMP)) return all;
    return vminq_s8(vmaxq_s8(all, vdupq_n_s8(least)), vdupq_n_s8(most));
}
#endif
