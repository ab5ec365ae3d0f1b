/* Comparisons of int32, with broadcasting: the bits of TensorFlow Lite Micro's ComparisonNoScaling. Each writes 1 or 0.
 *
 * Tensors have up to four dimensions, padded on the left with 1; strides count elements and are 0 along an axis of
 * size 1, which repeats its value. The parameter `flags` is the number of the op in binary.h. */
#include "binary.h"

typedef struct {
    int32_t size[4], stride1[4], stride2[4];
} tfkd_compare_int32_params;

TFKD_INLINE void tfkd_compare_int32(const tfkd_compare_int32_params *p, const int32_t *in1, const int32_t *in2,
                                    int8_t *out, int flags) {
    for (int32_t a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++) {
                const int32_t *x = in1 + a * p->stride1[0] + b * p->stride1[1] + c * p->stride1[2];
                const int32_t *y = in2 + a * p->stride2[0] + b * p->stride2[1] + c * p->stride2[2];
                for (int32_t d = 0; d < p->size[3]; d++, x += p->stride1[3], y += p->stride2[3])
                    *out++ = (int8_t)(flags == TFKD_EQUAL           ? *x == *y
                                      : flags == TFKD_NOT_EQUAL     ? *x != *y
                                      : flags == TFKD_GREATER       ? *x > *y
                                      : flags == TFKD_GREATER_EQUAL ? *x >= *y
                                      : flags == TFKD_LESS          ? *x < *y
                                                                    : *x <= *y);
            }
}
