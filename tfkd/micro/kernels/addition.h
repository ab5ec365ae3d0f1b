/* ADD and SUB, int8 or int16, with broadcasting: the bits of TensorFlow Lite Micro's reference_ops::Add,
 * BroadcastAdd4DSlow and the same of SUB.
 * TFKD_VALUE, the element type, is int8_t or int16_t (values_int8.h, values_int16.h); int16 has zero point 0.
 *
 * Tensors have up to four dimensions, padded on the left with 1; strides count elements and are 0 along an axis of
 * size 1, which repeats its value. Both operands are scaled to twice the larger of their scales, with
 * 20 (int8) or 15 (int16) more bits, added, and scaled to the output. */
#include "arithmetic.h"
#include "arm_dsp_addition.h"
#include "arm_helium.h"

typedef struct {
    int32_t multiplier1, multiplier2, out_multiplier;
    int32_t shift1, shift2, out_shift; /* right shifts, >= 0 */
    int32_t size[4], stride1[4], stride2[4];
    int16_t zero_point1, zero_point2, out_zero_point, least, most, sign; /* sign: 1 adds, -1 subtracts */
} TFKD_NAME(addition_params);

/* Flags: an operand's factor is exactly 1/2, as it has the larger scale; sums below the zero point are clamped. */
#define TFKD_FIRST_HALVES 1
#define TFKD_SECOND_HALVES 2
#define TFKD_CLAMPS_NEGATIVE 4

/* x * multiplier / 2^shift, rounded as in tfkd_multiply. half: 2^shift / 2; sign: -1 where shift > 0, else 0. */
TFKD_INLINE int32_t TFKD_NAME(scaled)(int32_t x, int32_t multiplier, int32_t shift, int32_t half, int32_t sign) {
    const int32_t product = tfkd_high_mul_small(x, multiplier);
    return (product + (sign & (product >> 31)) + half) >> shift;
}

TFKD_INLINE void TFKD_NAME(addition)(const TFKD_NAME(addition_params) *p, const TFKD_VALUE *in1, const TFKD_VALUE *in2,
                                     TFKD_VALUE *out, int flags) {
    const int32_t left = sizeof(TFKD_VALUE) == 1 ? 1 << 20 : 1 << 15;
    const int32_t multiplier1 = p->multiplier1, multiplier2 = p->multiplier2, out_multiplier = p->out_multiplier;
    const int32_t shift1 = p->shift1, shift2 = p->shift2, out_shift = p->out_shift;
    /* unsigned: a shift may be 31 */
    const int32_t half1 = (int32_t)((uint32_t)1 << shift1 >> 1), half2 = (int32_t)((uint32_t)1 << shift2 >> 1);
    const int32_t out_half = (int32_t)((uint32_t)1 << out_shift >> 1);
    const int32_t sign1 = -(shift1 > 0), sign2 = -(shift2 > 0), out_sign = -(out_shift > 0);
    const int32_t zero1 = p->zero_point1, zero2 = p->zero_point2, least = p->least, most = p->most;
    const int32_t step1 = p->stride1[3], step2 = p->stride2[3], zero = p->out_zero_point, subtract = p->sign < 0;
#if TFKD_MVE
    /* int8 without broadcasting, four values at a time; shifts as exponents, of which one is never positive */
    if (sizeof(TFKD_VALUE) == 1 && step1 == 1 && step2 == 1 && p->size[0] * p->size[1] * p->size[2] == 1) {
        const int8_t *a = (const int8_t *)(const void *)in1, *b = (const int8_t *)(const void *)in2;
        const int32x4_t right1 = vdupq_n_s32(-shift1), right2 = vdupq_n_s32(-shift2), right = vdupq_n_s32(-out_shift);
        const int32x4_t factor1 = vdupq_n_s32(multiplier1), factor2 = vdupq_n_s32(multiplier2);
        const int32x4_t factor = vdupq_n_s32(out_multiplier), low = vdupq_n_s32(least), high = vdupq_n_s32(most);
        int8_t *to = (int8_t *)(void *)out;
        for (int32_t count = p->size[3]; count > 0; count -= 4, a += 4, b += 4, to += 4) {
            const mve_pred16_t some = vctp32q((uint32_t)count);
            int32x4_t x = vsubq_n_s32(vldrbq_z_s32(a, some), zero1), y = vsubq_n_s32(vldrbq_z_s32(b, some), zero2);
            if (flags & TFKD_FIRST_HALVES) x = vshlq_n_s32(x, 19);
            else x = tfkd_multiply_4(vshlq_n_s32(x, 20), factor1, right1, TFKD_SIGNED);
            if (flags & TFKD_SECOND_HALVES) y = vshlq_n_s32(y, 19);
            else y = tfkd_multiply_4(vshlq_n_s32(y, 20), factor2, right2, TFKD_SIGNED);
            x = tfkd_multiply_4(subtract ? vsubq_s32(x, y) : vaddq_s32(x, y), factor, right, TFKD_SIGNED);
            vstrbq_p_s32(to, vminq_s32(vmaxq_s32(vaddq_n_s32(x, zero), low), high), some);
        }
        return;
    }
#elif TFKD_DSP
    /* int8 without broadcasting, with the full output range; the operand that does not halve needs a shift */
    const int32_t first = flags & TFKD_FIRST_HALVES, both = first && flags & TFKD_SECOND_HALVES;
    const int32_t scaled_shift = first ? shift2 : shift1;
    const int flat = step1 == 1 && step2 == 1 && p->size[0] * p->size[1] * p->size[2] == 1;
    if (sizeof(TFKD_VALUE) == 1 && flags & 3 && flat && !subtract && least == -128 && most == 127 && out_shift > 0 &&
        out_shift <= 22 && (both || scaled_shift > 0)) {
        const int8_t *in[2] = {(const int8_t *)(const void *)in1, (const int8_t *)(const void *)in2};
        const int32_t halved_zero = both ? zero1 + zero2 : first ? zero1 : zero2;
        const tfkd_add_params add = {
            in[!first], in[!!first], (int8_t *)(void *)out, (const int8_t *)(void *)out + p->size[3],
            halved_zero * -(1 << 20), (first ? zero2 : zero1) * -(1 << 21), first ? multiplier2 : multiplier1,
            first ? half2 : half1, scaled_shift, out_multiplier, out_half + zero * (1 << out_shift), out_shift};
        if (flags & TFKD_CLAMPS_NEGATIVE && both) tfkd_add_halves(&add);
        else if (flags & TFKD_CLAMPS_NEGATIVE) tfkd_add(&add);
        else if (both) tfkd_add_halves_signed(&add);
        else tfkd_add_signed(&add);
        return;
    }
#endif
    for (int32_t a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++) {
                const TFKD_VALUE *x = in1 + a * p->stride1[0] + b * p->stride1[1] + c * p->stride1[2];
                const TFKD_VALUE *y = in2 + a * p->stride2[0] + b * p->stride2[1] + c * p->stride2[2];
                for (const TFKD_VALUE *end = out + p->size[3]; out < end; x += step1, y += step2) {
                    int32_t first = *x - zero1, second = *y - zero2;
                    first = flags & TFKD_FIRST_HALVES
                                ? first * (left / 2)
                                : TFKD_NAME(scaled)(first * left, multiplier1, shift1, half1, sign1);
                    second = flags & TFKD_SECOND_HALVES
                                 ? second * (left / 2)
                                 : TFKD_NAME(scaled)(second * left, multiplier2, shift2, half2, sign2);
                    const int32_t sum = subtract ? first - second : first + second;
                    const int32_t result = TFKD_NAME(scaled)(sum, out_multiplier, out_shift, out_half, out_sign) + zero;
                    *out++ = (TFKD_VALUE)tfkd_clamp(result, least, most);
                }
            }
}
