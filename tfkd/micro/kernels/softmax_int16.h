/* SOFTMAX, int16, over the last axis of [rows, depth]: the bits of TensorFlow Lite Micro's reference_ops::SoftmaxInt16,
 * which interpolates linearly in tables of 513 values. */
#include "arithmetic.h"

typedef struct {
    const int16_t *exponential; /* [513] exp(x) for x in [-10, 0], 15 fraction bits */
    const int16_t *inverse;     /* [513] 1 / (1 + x) for x in [0, 1], 15 fraction bits */
    int32_t multiplier, shift, rows, depth;
} tfkd_softmax_int16_params;

/* Interpolates linearly in a table for int16 x. */
TFKD_INLINE int32_t tfkd_between(const int16_t *table, int32_t x) {
    const int32_t at = 256 + (x >> 7);
    return table[at] + (((table[at + 1] - table[at]) * (x & 0x7f) + 64) >> 7);
}

TFKD_INLINE void tfkd_softmax_int16(const tfkd_softmax_int16_params *p, const int16_t *in, int16_t *out, int flags) {
    (void)flags;
    for (int32_t row = 0; row < p->rows; row++, in += p->depth, out += p->depth) {
        int32_t most = -32768, zeros = 0, sum = 0;
        for (int32_t c = 0; c < p->depth; c++) most = in[c] > most ? in[c] : most;
        for (int32_t c = 0; c < p->depth; c++) {
            const int32_t x = tfkd_multiply(in[c] - most, p->multiplier, p->shift) + 32767;
            out[c] = (int16_t)tfkd_between(p->exponential, tfkd_clamp(x, -32768, 32767));
            sum += out[c];
        }
        while (!(((uint32_t)sum << zeros) & 0x80000000u)) zeros++; /* ends: the largest input adds almost 2^15 */
        const int32_t x = (int32_t)((((uint32_t)sum << (zeros - 1)) + (1u << 13)) >> 14) - (1 << 15) - (1 << 16);
        const int32_t scale = tfkd_between(p->inverse, tfkd_clamp(x, -32768, 32767)), shift = 31 - zeros;
        for (int32_t c = 0; c < p->depth; c++)
            out[c] = (int16_t)tfkd_clamp((out[c] * scale + (1 << (shift - 1))) >> shift, 0, 32767);
    }
}
