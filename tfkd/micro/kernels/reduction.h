/* MEAN, SUM, REDUCE_MAX, REDUCE_MIN and REDUCE_ALL, int8 or int16, over any axes: the bits of TensorFlow Lite Micro's
 * reference_ops::QuantizedMeanOrSum and ReduceGeneric. The factor 1 / count of MEAN is part of the multiplier.
 * Neighbouring axes that are both kept or both reduced are one axis here.
 * TFKD_VALUE, the element type, is int8_t or int16_t (values_int8.h, values_int16.h); int16 has zero point 0. */
#include "arithmetic.h"

/* What the parameter `flags` selects; REDUCE_ALL is the smallest of values that are 0 or 1. */
#define TFKD_REDUCE_SUM 0
#define TFKD_REDUCE_MAX 1
#define TFKD_REDUCE_MIN 2

typedef struct {
    int32_t kept[4], kept_stride[4], summed[4], summed_stride[4]; /* sizes and strides of the input's axes */
    int32_t multiplier, shift, offset; /* offset: zero point times the number of summed values */
    int16_t out_zero_point;
} TFKD_NAME(reduction_params);

TFKD_INLINE void TFKD_NAME(reduction)(const TFKD_NAME(reduction_params) *p, const TFKD_VALUE *in, TFKD_VALUE *out,
                                      int flags) {
    for (int32_t a = 0; a < p->kept[0]; a++)
        for (int32_t b = 0; b < p->kept[1]; b++)
            for (int32_t c = 0; c < p->kept[2]; c++)
                for (int32_t d = 0; d < p->kept[3]; d++) {
                    const TFKD_VALUE *from = in + a * p->kept_stride[0] + b * p->kept_stride[1] +
                                             c * p->kept_stride[2] + d * p->kept_stride[3];
                    int32_t sum = flags == TFKD_REDUCE_SUM ? 0 : *from;
                    for (int32_t i = 0; i < p->summed[0]; i++)
                        for (int32_t j = 0; j < p->summed[1]; j++)
                            for (int32_t k = 0; k < p->summed[2]; k++) {
                                const TFKD_VALUE *at = from + i * p->summed_stride[0] + j * p->summed_stride[1] +
                                                       k * p->summed_stride[2];
                                for (int32_t l = 0; l < p->summed[3]; l++, at += p->summed_stride[3]) {
                                    if (flags == TFKD_REDUCE_SUM) sum += *at;
                                    if (flags == TFKD_REDUCE_MAX && *at > sum) sum = *at;
                                    if (flags == TFKD_REDUCE_MIN && *at < sum) sum = *at;
                                }
                            }
                    if (flags != TFKD_REDUCE_SUM) {
                        *out++ = (TFKD_VALUE)sum;
                        continue;
                    }
                    const int32_t result = tfkd_multiply(sum - p->offset, p->multiplier, p->shift);
                    *out++ = (TFKD_VALUE)tfkd_clamp(result + p->out_zero_point, TFKD_VALUE_MIN, TFKD_VALUE_MAX);
                }
}
