/* SELECT_V2, int8 or int16, with broadcasting: out = condition ? x : y.
 * TFKD_VALUE, the element type, is int8_t or int16_t (values_int8.h, values_int16.h).
 *
 * Tensors have up to four dimensions, padded on the left with 1; strides count elements and are 0 along an axis of
 * size 1, which repeats its value. */
#include "arithmetic.h"

typedef struct {
    int32_t size[4], stride1[4], stride2[4], stride3[4]; /* strides of the condition, of x and of y */
} TFKD_NAME(select_params);

TFKD_INLINE void TFKD_NAME(select)(const TFKD_NAME(select_params) *p, const int8_t *condition, const TFKD_VALUE *in1,
                                   const TFKD_VALUE *in2, TFKD_VALUE *out, int flags) {
    (void)flags;
    for (int32_t a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++)
                for (int32_t d = 0; d < p->size[3]; d++) {
                    const int32_t i = a * p->stride1[0] + b * p->stride1[1] + c * p->stride1[2] + d * p->stride1[3];
                    const int32_t j = a * p->stride2[0] + b * p->stride2[1] + c * p->stride2[2] + d * p->stride2[3];
                    const int32_t k = a * p->stride3[0] + b * p->stride3[1] + c * p->stride3[2] + d * p->stride3[3];
                    *out++ = condition[i] ? in1[j] : in2[k];
                }
}
