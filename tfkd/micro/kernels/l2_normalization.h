/* L2_NORMALIZATION, int8, over the last axis of [rows, depth]: the bits of TensorFlow Lite Micro's
 * reference_integer_ops::L2Normalization. The output has scale 1/128 and zero point 0. */
#include "fixed_point.h"

typedef struct {
    int32_t rows, depth, zero_point;
} tfkd_l2_normalization_params;

TFKD_INLINE void tfkd_l2_normalization(const tfkd_l2_normalization_params *p, const int8_t *in, int8_t *out,
                                       int flags) {
    (void)flags;
    for (int32_t row = 0; row < p->rows; row++, in += p->depth, out += p->depth) {
        int32_t squares = 0, shift;
        for (int32_t c = 0; c < p->depth; c++) squares += (in[c] - p->zero_point) * (in[c] - p->zero_point);
        const int32_t multiplier = tfkd_inverse_sqrt(squares, &shift);
        for (int32_t c = 0; c < p->depth; c++) {
            const int32_t result = tfkd_multiply(in[c] - p->zero_point, multiplier, shift + 7);
            out[c] = (int8_t)tfkd_clamp(result, -128, 127);
        }
    }
}
