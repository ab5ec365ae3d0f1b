/* ADD_N, int8, of two to four tensors of one scale and shape: the bits of TensorFlow Lite Micro's reference_ops::AddN,
 * which also subtracts the zero point once more. The interpreter multiplies each value by 2^20 / 2. */
#include "arithmetic.h"

typedef struct {
    int32_t multiplier, shift, count, tensors; /* tensors: how many of the four inputs are added */
    int16_t zero_point, out_zero_point;
} tfkd_add_n_params;

TFKD_INLINE void tfkd_add_n(const tfkd_add_n_params *p, const int8_t *in0, const int8_t *in1, const int8_t *in2,
                            const int8_t *in3, int8_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) {
        int32_t sum = in0[i] + in1[i] - (p->tensors + 1) * p->zero_point;
        if (p->tensors > 2) sum += in2[i];
        if (p->tensors > 3) sum += in3[i];
        sum = tfkd_multiply(sum * (1 << 19), p->multiplier, p->shift);
        out[i] = (int8_t)tfkd_around(sum, p->out_zero_point, -128, 127);
    }
}
