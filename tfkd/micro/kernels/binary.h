/* PRELU, SQUARED_DIFFERENCE, DIV and comparisons, int8 or int16, with broadcasting: the bits of TensorFlow Lite Micro's
 * BroadcastPrelu4DSlow, SquaredDifference, Div and ComparisonWithScaling. A comparison writes 1 or 0.
 * TFKD_VALUE, the element type, is int8_t or int16_t (values_int8.h, values_int16.h); int16 has zero point 0.
 *
 * Tensors have up to four dimensions, padded on the left with 1; strides count elements and are 0 along an axis of
 * size 1, which repeats its value. */
#include "fixed_point.h"

/* The ops, which the parameter `flags` selects. */
#define TFKD_PRELU 0
#define TFKD_SQUARED_DIFFERENCE 1
#define TFKD_DIV 2
#define TFKD_EQUAL 3
#define TFKD_NOT_EQUAL 4
#define TFKD_GREATER 5
#define TFKD_GREATER_EQUAL 6
#define TFKD_LESS 7
#define TFKD_LESS_EQUAL 8

typedef struct {
    int32_t size[4], stride1[4], stride2[4];
    int32_t multiplier1, multiplier2, out_multiplier; /* PRELU: of x >= 0 and of x * slope; DIV has the last one only */
    int32_t shift1, shift2, out_shift, left;          /* left: both operands are first multiplied by 2^left */
    int16_t zero_point1, zero_point2, out_zero_point, least, most;
} TFKD_NAME(binary_params);

/* x / y * multiplier * 2^(shift - 31). The interpreter's shifts are undefined where the quotient is tiny, 0 here; it
 * aborts where y = 0, which makes the quotient as large as possible here. */
TFKD_INLINE int32_t TFKD_NAME(quotient)(int32_t x, int32_t y, int32_t multiplier, int32_t shift) {
    if (y < 0) {
        x = -x;
        y = -y;
    }
    if (y == 0) return x < 0 ? -0x10000 : x > 0 ? 0x10000 : 0;
    const int32_t zeros = tfkd_leading_zeros((uint32_t)y), bits = tfkd_leading_zeros((uint32_t)(x < 0 ? ~x : x));
    const int32_t inverse = tfkd_reciprocal((int32_t)(((uint32_t)y << zeros) - 0x80000000u));
    const int32_t whole = tfkd_high_mul((int32_t)((uint32_t)x << (bits - 1)), inverse);
    const int32_t right = 31 - zeros + bits - 1 - shift;
    return right > 31 ? 0 : tfkd_divide_by_power(tfkd_high_mul(whole, multiplier), right);
}

TFKD_INLINE int32_t TFKD_NAME(binary_result)(const TFKD_NAME(binary_params) *p, int32_t x, int32_t y, int flags) {
    int32_t result;
    if (flags == TFKD_PRELU) {
        result = x < 0 ? tfkd_multiply(x * y, p->multiplier2, p->shift2) : tfkd_multiply(x, p->multiplier1, p->shift1);
    } else if (flags == TFKD_DIV) {
        result = TFKD_NAME(quotient)(x, y, p->out_multiplier, p->out_shift);
    } else {
        x = tfkd_multiply(x * (1 << p->left), p->multiplier1, p->shift1);
        y = tfkd_multiply(y * (1 << p->left), p->multiplier2, p->shift2);
        if (flags == TFKD_EQUAL) return x == y;
        if (flags == TFKD_NOT_EQUAL) return x != y;
        if (flags == TFKD_GREATER) return x > y;
        if (flags == TFKD_GREATER_EQUAL) return x >= y;
        if (flags == TFKD_LESS) return x < y;
        if (flags == TFKD_LESS_EQUAL) return x <= y;
        result = tfkd_multiply((x - y) * (x - y), p->out_multiplier, p->out_shift);
    }
    return tfkd_around(result, p->out_zero_point, p->least, p->most);
}

TFKD_INLINE void TFKD_NAME(binary)(const TFKD_NAME(binary_params) *p, const TFKD_VALUE *in1, const TFKD_VALUE *in2,
                                  TFKD_VALUE *out, int flags) {
    for (int32_t a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++) {
                const TFKD_VALUE *x = in1 + a * p->stride1[0] + b * p->stride1[1] + c * p->stride1[2];
                const TFKD_VALUE *y = in2 + a * p->stride2[0] + b * p->stride2[1] + c * p->stride2[2];
                for (int32_t d = 0; d < p->size[3]; d++, x += p->stride1[3], y += p->stride2[3])
                    *out++ = (TFKD_VALUE)TFKD_NAME(binary_result)(p, *x - p->zero_point1, *y - p->zero_point2, flags);
            }
}
