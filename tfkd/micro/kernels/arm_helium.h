/* What the kernels for cores with vectors (Helium, MVE: Cortex-M55, M85) share, as intrinsics of arm_mve.h.
 *
 * A vector holds 4 words, 8 halves or 16 bytes. Its first n lanes are loaded and stored under a predicate, vctp8q(n) or
 * vctp32q(n); lanes that are not loaded are 0. */
#include "arithmetic.h"

#if TFKD_MVE
/* In a loop of a few turns: keeps compilers from computing it with vectors, which takes longer. */
#define TFKD_FEW_TURNS __asm__ volatile("")

/* Four accumulators to outputs around 0, before the zero point is added: the bits of tfkd_multiply.
 *
 *   step                          instructions  result
 *   vshl                          2 (any shift) x * 2^shift where shift > 0
 *   vqrdmulh                      1             (x * multiplier + 2^30) >> 31: rounded once
 *   vand, vshr, vadd              3 (signed)    -1 where x and the shift are negative, so that halves round away from 0
 *   vrshl                         1             (x + 2^(n - 1)) >> n where shift = -n: rounded twice
 *
 * shift: exponents of two, all < 0 without TFKD_ANY_SHIFT. */
TFKD_INLINE int32x4_t tfkd_multiply_4(int32x4_t x, int32x4_t multiplier, int32x4_t shift, int flags) {
    if (flags & TFKD_ANY_SHIFT) {
        const int32x4_t none = vdupq_n_s32(0);
        x = vshlq_s32(x, vmaxq_s32(shift, none));
        shift = vminq_s32(shift, none);
    }
    x = vqrdmulhq_s32(x, multiplier);
    if (flags & (TFKD_SIGNED | TFKD_ANY_SHIFT)) x = vaddq_s32(x, vshrq_n_s32(vandq_s32(x, shift), 31));
    return vrshlq_s32(x, shift);
}

/* The same to int8 outputs, still in words. */
TFKD_INLINE int32x4_t tfkd_requantize_4(int32x4_t x, int32x4_t multiplier, int32x4_t shift, int32_t zero_point,
                                        int32_t least, int32_t most, int flags) {
    x = vaddq_n_s32(tfkd_multiply_4(x, multiplier, shift, flags), zero_point);
    return vminq_s32(vmaxq_s32(x, vdupq_n_s32(least)), vdupq_n_s32(most));
}

/* tfkd_one_product of four values, still in words. right: exponents, -3 or -11 */
TFKD_INLINE int32x4_t tfkd_one_product_4(int32x4_t x, int32x4_t multiplier, int32x4_t offset, int32x4_t right) {
    return vshlq_s32(vaddq_s32(vmulhq_s32(x, multiplier), offset), right);
}

/* Shifts as kernels take them (see TFKD_ANY_SHIFT) to exponents of two. */
TFKD_INLINE int32x4_t tfkd_exponents(int32x4_t shift, int flags) {
    return flags & TFKD_ANY_SHIFT ? shift : vmvnq_s32(shift); /* -shift - 1 */
}

TFKD_INLINE void tfkd_copy_bytes(int8_t *to, const int8_t *from, int32_t count) {
    for (; count > 0; count -= 16, to += 16, from += 16) {
        const mve_pred16_t some = vctp8q((uint32_t)count);
        vstrbq_p_s8(to, vldrbq_z_s8(from, some), some);
    }
}

TFKD_INLINE void tfkd_fill_bytes(int8_t *to, int8_t value, int32_t count) {
    const int8x16_t values = vdupq_n_s8(value);
    for (; count > 0; count -= 16, to += 16) vstrbq_p_s8(to, values, vctp8q((uint32_t)count));
}
#endif
