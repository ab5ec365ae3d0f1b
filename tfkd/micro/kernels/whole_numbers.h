/* ADD, SUB, MUL, DIV, MAXIMUM and MINIMUM of int32 without a scale, with broadcasting. Sums, differences and products
 * keep their low 32 bits; DIV rounds towards zero.
 *
 * Tensors have up to four dimensions, padded on the left with 1; strides count elements and are 0 along an axis of
 * size 1, which repeats its value. The parameter `flags` is one of these numbers. */
#include "arithmetic.h"

#define TFKD_WHOLE_ADD 0
#define TFKD_WHOLE_SUB 1
#define TFKD_WHOLE_MUL 2
#define TFKD_WHOLE_DIV 3
#define TFKD_WHOLE_MAXIMUM 4
#define TFKD_WHOLE_MINIMUM 5

typedef struct {
    int32_t size[4], stride1[4], stride2[4];
} tfkd_whole_numbers_params;

/* x / y. The interpreter ends its program where y = 0; here the quotient is then as large as possible. */
TFKD_INLINE int32_t tfkd_whole_quotient(int32_t x, int32_t y) {
    if (y == 0) return x < 0 ? INT32_MIN : INT32_MAX;
    if (y == INT32_MIN) return x == INT32_MIN;
    if (y == -1) return (int32_t)(0u - (uint32_t)x);
    return y < 0 ? -tfkd_divide(x, -y) : tfkd_divide(x, y);
}

TFKD_INLINE int32_t tfkd_whole_result(int32_t x, int32_t y, int flags) {
    switch (flags) {
        case TFKD_WHOLE_ADD: return (int32_t)((uint32_t)x + (uint32_t)y);
        case TFKD_WHOLE_SUB: return (int32_t)((uint32_t)x - (uint32_t)y);
        case TFKD_WHOLE_MUL: return (int32_t)((uint32_t)x * (uint32_t)y);
        case TFKD_WHOLE_DIV: return tfkd_whole_quotient(x, y);
        case TFKD_WHOLE_MAXIMUM: return x > y ? x : y;
        default: return x < y ? x : y;
    }
}

TFKD_INLINE void tfkd_whole_numbers(const tfkd_whole_numbers_params *p, const int32_t *in1, const int32_t *in2,
                                    int32_t *out, int flags) {
    for (int32_t a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++) {
                const int32_t *x = in1 + a * p->stride1[0] + b * p->stride1[1] + c * p->stride1[2];
                const int32_t *y = in2 + a * p->stride2[0] + b * p->stride2[1] + c * p->stride2[2];
                for (int32_t d = 0; d < p->size[3]; d++, x += p->stride1[3], y += p->stride2[3])
                    *out++ = tfkd_whole_result(*x, *y, flags);
            }
}
