/* LOGICAL_AND, LOGICAL_OR and LOGICAL_NOT of bool, with broadcasting: the bits of TensorFlow Lite Micro.
 *
 * Tensors have up to four dimensions, padded on the left with 1; strides count elements and are 0 along an axis of
 * size 1, which repeats its value. LOGICAL_NOT reads its operand twice. */
#include "arithmetic.h"

/* The ops, which the parameter `flags` selects. */
#define TFKD_LOGICAL_AND 0
#define TFKD_LOGICAL_OR 1
#define TFKD_LOGICAL_NOT 2

typedef struct {
    int32_t size[4], stride1[4], stride2[4];
} tfkd_logical_params;

TFKD_INLINE void tfkd_logical(const tfkd_logical_params *p, const int8_t *in1, const int8_t *in2, int8_t *out,
                              int flags) {
    for (int32_t a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++) {
                const int8_t *x = in1 + a * p->stride1[0] + b * p->stride1[1] + c * p->stride1[2];
                const int8_t *y = in2 + a * p->stride2[0] + b * p->stride2[1] + c * p->stride2[2];
                for (int32_t d = 0; d < p->size[3]; d++, x += p->stride1[3], y += p->stride2[3])
                    *out++ = (int8_t)(flags == TFKD_LOGICAL_AND ? *x && *y : flags == TFKD_LOGICAL_OR ? *x || *y : !*x);
            }
}
