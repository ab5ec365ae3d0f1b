/* Comparisons of int32, and LOGICAL_AND, LOGICAL_OR and LOGICAL_NOT of bool, with broadcasting: the bits of TensorFlow
 * Lite Micro. Each writes 1 or 0. LOGICAL_NOT reads its operand twice.
 *
 * Tensors have up to four dimensions, padded on the left with 1; strides count elements and are 0 along an axis of
 * size 1, which repeats its value. The parameter `flags` is the number of a comparison in binary.h, or one of these. */
#include "binary.h"

#define TFKD_LOGICAL_AND 9
#define TFKD_LOGICAL_OR 10
#define TFKD_LOGICAL_NOT 11

typedef struct {
    int32_t size[4], stride1[4], stride2[4];
} tfkd_condition_params;

TFKD_INLINE int tfkd_holds(int32_t x, int32_t y, int flags) {
    switch (flags) {
        case TFKD_EQUAL: return x == y;
        case TFKD_NOT_EQUAL: return x != y;
        case TFKD_GREATER: return x > y;
        case TFKD_GREATER_EQUAL: return x >= y;
        case TFKD_LESS: return x < y;
        case TFKD_LESS_EQUAL: return x <= y;
        case TFKD_LOGICAL_AND: return x && y;
        case TFKD_LOGICAL_OR: return x || y;
        default: return !x;
    }
}

TFKD_INLINE void tfkd_condition(const tfkd_condition_params *p, const void *in1, const void *in2, int8_t *out,
                                int flags) {
    const int is_logical = flags >= TFKD_LOGICAL_AND;
    for (int32_t i = 0, a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++)
                for (int32_t d = 0; d < p->size[3]; d++) {
                    const int32_t j = a * p->stride1[0] + b * p->stride1[1] + c * p->stride1[2] + d * p->stride1[3];
                    const int32_t k = a * p->stride2[0] + b * p->stride2[1] + c * p->stride2[2] + d * p->stride2[3];
                    const int32_t x = is_logical ? ((const int8_t *)in1)[j] : ((const int32_t *)in1)[j];
                    const int32_t y = is_logical ? ((const int8_t *)in2)[k] : ((const int32_t *)in2)[k];
                    out[i++] = (int8_t)tfkd_holds(x, y, flags);
                }
}
