/* CUMSUM, int8, along one axis: the bits of TensorFlow Lite Micro's reference_ops::CumSum, which also subtracts the
 * zero point once more. The interpreter multiplies each value by 2^20 / 2. */
#include "arithmetic.h"

typedef struct {
    int32_t outer, depth, inner;   /* the input as [outer, depth, inner], with sums along the second axis */
    int32_t multiplier, shift;
    int16_t zero_point, out_zero_point;
    int8_t exclusive, reverse;     /* whether a sum leaves its own value out; whether sums start at the end */
} tfkd_cumulative_sum_params;

TFKD_INLINE void tfkd_cumulative_sum(const tfkd_cumulative_sum_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    for (int32_t row = 0; row < p->outer; row++)
        for (int32_t column = 0; column < p->inner; column++) {
            int32_t sum = -p->zero_point;
            for (int32_t d = 0; d < p->depth; d++) {
                const int32_t at = (row * p->depth + (p->reverse ? p->depth - 1 - d : d)) * p->inner + column;
                const int32_t before = sum;
                sum += in[at] - p->zero_point;
                const int32_t scaled =
                    tfkd_multiply((p->exclusive ? before : sum) * (1 << 19), p->multiplier, p->shift);
                out[at] = (int8_t)tfkd_around(scaled, p->out_zero_point, -128, 127);
            }
        }
}
