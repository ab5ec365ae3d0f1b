/* Accumulators of products with int8 activations: 32 bits, rescaled with two roundings (tfkd_multiply). */
#include "arithmetic.h"

typedef int32_t tfkd_int8_sum;

TFKD_INLINE int32_t tfkd_int8_scale(int32_t sum, int32_t multiplier, int32_t shift) {
    return tfkd_multiply(sum, multiplier, shift);
}

TFKD_INLINE int32_t tfkd_int8_requantize(int32_t sum, int32_t multiplier, int32_t shift, int32_t zero_point,
                                         int32_t least, int32_t most, int flags) {
    return tfkd_requantize(sum, multiplier, shift, zero_point, least, most, flags);
}
