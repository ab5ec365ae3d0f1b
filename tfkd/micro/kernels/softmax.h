/* SOFTMAX, int8, over the last axis of [rows, depth]: the bits of TensorFlow Lite Micro's reference_ops::Softmax. The
 * output has scale 1/256 and zero point -128. */
#include "fixed_point.h"

typedef struct {
    const int32_t *exponential; /* [differences] exp(-difference) with 31 fraction bits; 0 for larger differences */
    int32_t differences, rows, depth;
} tfkd_softmax_params;

TFKD_INLINE void tfkd_softmax(const tfkd_softmax_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    for (int32_t row = 0; row < p->rows; row++, in += p->depth, out += p->depth) {
        int32_t most = -128, zeros = 0;
        uint32_t sum = 0;
        for (int32_t c = 0; c < p->depth; c++) most = in[c] > most ? in[c] : most;
        for (int32_t c = 0; c < p->depth; c++) {
            const int32_t difference = most - in[c];
            if (difference < p->differences) sum += (uint32_t)tfkd_divide_by_power(p->exponential[difference], 12);
        }
        while (!((sum << zeros) & 0x80000000u)) zeros++; /* ends: the largest input alone adds 2^19 */
        const int32_t scale = tfkd_reciprocal((int32_t)((sum << zeros) - 0x80000000u));
        for (int32_t c = 0; c < p->depth; c++) {
            const int32_t difference = most - in[c];
            int32_t result = 0;
            /* where more than 511 inputs are equal, each rounds to 0; TensorFlow Lite Micro aborts there */
            if (difference < p->differences && zeros >= 4)
                result = tfkd_divide_by_power(tfkd_high_mul(scale, p->exponential[difference]), 35 - zeros);
            out[c] = (int8_t)tfkd_clamp(result - 128, -128, 127);
        }
    }
}
