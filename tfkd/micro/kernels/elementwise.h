/* MUL, MAXIMUM and MINIMUM, int8 or int16, with broadcasting: the bits of TensorFlow Lite Micro's
 * reference_integer_ops::Mul, reference_ops::BroadcastMul4DSlow and MaximumMinimumBroadcastSlow.
 * TFKD_VALUE, the element type, is int8_t or int16_t (values_int8.h, values_int16.h); int16 has zero point 0.
 *
 * Tensors have up to four dimensions, padded on the left with 1; strides count elements and are 0 along an axis of
 * size 1, which repeats its value. */
#include "arithmetic.h"

typedef struct {
    int32_t multiplier, shift;
    int32_t size[4], stride1[4], stride2[4];
    int16_t zero_point1, zero_point2, out_zero_point, least, most;
} TFKD_NAME(elementwise_params);

/* op: 0 multiplies, 1 takes the maximum, 2 the minimum. */
TFKD_INLINE void TFKD_NAME(elementwise)(const TFKD_NAME(elementwise_params) *p, const TFKD_VALUE *in1,
                                        const TFKD_VALUE *in2, TFKD_VALUE *out, int op) {
    for (int32_t a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++) {
                const TFKD_VALUE *x = in1 + a * p->stride1[0] + b * p->stride1[1] + c * p->stride1[2];
                const TFKD_VALUE *y = in2 + a * p->stride2[0] + b * p->stride2[1] + c * p->stride2[2];
                for (int32_t d = 0; d < p->size[3]; d++, x += p->stride1[3], y += p->stride2[3]) {
                    if (op == 0) {
                        const int32_t product = (*x - p->zero_point1) * (*y - p->zero_point2);
                        const int32_t result = tfkd_multiply(product, p->multiplier, p->shift) + p->out_zero_point;
                        *out++ = (TFKD_VALUE)tfkd_clamp(result, p->least, p->most);
                    } else {
                        *out++ = (op == 1) == (*x > *y) ? *x : *y;
                    }
                }
            }
}

TFKD_INLINE void TFKD_NAME(multiplication)(const TFKD_NAME(elementwise_params) *p, const TFKD_VALUE *in1,
                                           const TFKD_VALUE *in2, TFKD_VALUE *out, int flags) {
    (void)flags;
    TFKD_NAME(elementwise)(p, in1, in2, out, 0);
}

TFKD_INLINE void TFKD_NAME(maximum)(const TFKD_NAME(elementwise_params) *p, const TFKD_VALUE *in1,
                                    const TFKD_VALUE *in2, TFKD_VALUE *out, int flags) {
    (void)flags;
    TFKD_NAME(elementwise)(p, in1, in2, out, 1);
}

TFKD_INLINE void TFKD_NAME(minimum)(const TFKD_NAME(elementwise_params) *p, const TFKD_VALUE *in1,
                                    const TFKD_VALUE *in2, TFKD_VALUE *out, int flags) {
    (void)flags;
    TFKD_NAME(elementwise)(p, in1, in2, out, 2);
}
