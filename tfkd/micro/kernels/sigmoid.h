/* LOGISTIC and TANH, int16: the bits of TensorFlow Lite Micro's reference_integer_ops::Logistic and Tanh, which
 * interpolate linearly between 256 values of sigmoid(i / 24), a table of uint16 with 16 fraction bits. */
#include "arithmetic.h"

/* Sigmoid of x / (3 * 2^12), as int16 with 15 fraction bits. */
TFKD_INLINE int32_t tfkd_sigmoid(const uint16_t *table, int32_t x) {
    const uint32_t size = x < 0 ? 0u - (uint32_t)x : (uint32_t)x, at = size >> 9;
    uint32_t result = 0x7fffu << 10;
    if (at < 255) result = ((uint32_t)table[at] << 9) + (size & 0x1ffu) * (uint32_t)(table[at + 1] - table[at]);
    return (int32_t)((x >= 0 ? result + (1u << 9) : (1u << 25) - result + (1u << 9) - 1u) >> 10);
}

/* Hyperbolic tangent of x / (3 * 2^12), as int16 with 15 fraction bits: 2 * sigmoid(2x) - 1. */
TFKD_INLINE int32_t tfkd_tanh(const uint16_t *table, int32_t x) {
    const uint32_t size = x < 0 ? 0u - (uint32_t)x : (uint32_t)x, at = size >> 8;
    int32_t result = 0xffff << 8;
    if (at < 255) result = (table[at] << 8) + (int32_t)(size & 0xffu) * (table[at + 1] - table[at]);
    result = x >= 0 ? result - (1 << 23) + (1 << 7) : -result + (1 << 23) + (1 << 7) - 1;
    return result >> 8;
}

typedef struct {
    const uint16_t *table;
    int32_t multiplier, shift, count; /* multiplier / 2^shift scales inputs to 3 * 2^12 steps per unit */
} tfkd_curve_params;

TFKD_INLINE void tfkd_logistic_int16(const tfkd_curve_params *p, const int16_t *in, int16_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++)
        out[i] = (int16_t)tfkd_sigmoid(p->table, (in[i] * p->multiplier + ((1 << p->shift) >> 1)) >> p->shift);
}

TFKD_INLINE void tfkd_tanh_int16(const tfkd_curve_params *p, const int16_t *in, int16_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++)
        out[i] = (int16_t)tfkd_tanh(p->table, (in[i] * p->multiplier + ((1 << p->shift) >> 1)) >> p->shift);
}
