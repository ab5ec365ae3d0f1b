/* Accumulators of products with int16 activations: 64 bits, of which 48 are used, and zero points of 0. Rescaling
 * rounds once, with the upper 16 bits of the multiplier: MultiplyByQuantizedMultiplier for int64 in TensorFlow Lite
 * Micro. */
#include "arithmetic.h"

typedef int64_t tfkd_int16_sum;

/* sum * multiplier / 2^(15 - shift), halves rounded up, for |sum| < 2^47 and a multiplier below 2^15, without products
 * of 64 bits, which Cortex-M0+ lacks:
 *
 *   sum * multiplier = high * 2^32 + middle * 2^16 + (first & 0xffff) */
TFKD_INLINE int32_t tfkd_rescale_long(int64_t sum, int32_t multiplier, int32_t shift) {
    const uint32_t low = (uint32_t)sum, scale = (uint32_t)multiplier, first = (low & 0xffffu) * scale;
    const int32_t high = (int32_t)(sum >> 32) * multiplier;
    const uint32_t middle = (low >> 16) * scale + (first >> 16);
    const int32_t right = -1 - shift;
    if (right <= 0) {
        const uint32_t rest = ((first & 0xffffu) + (1u << (15 + right))) >> (16 + right);
        return (int32_t)(((uint32_t)high << (16 - right)) + (middle << -right) + rest);
    }
    if (right <= 16) return (int32_t)(((uint32_t)high << (16 - right)) + ((middle + (1u << (right - 1))) >> right));
    return (high + (int32_t)(middle >> 16) + (1 << (right - 17))) >> (right - 16);
}

TFKD_INLINE int32_t tfkd_int16_scale(int64_t sum, int32_t multiplier, int32_t shift) {
    return tfkd_rescale_long(sum, multiplier, shift);
}

TFKD_INLINE int32_t tfkd_int16_requantize(int64_t sum, int32_t multiplier, int32_t shift, int32_t zero_point,
                                          int32_t least, int32_t most, int flags) {
    (void)zero_point, (void)flags;
    return tfkd_clamp(tfkd_rescale_long(sum, multiplier, shift), least, most);
}
