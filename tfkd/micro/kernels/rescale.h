/* QUANTIZE between int8 and int16, and RELU, RELU6, LEAKY_RELU and ABS with int16, for which a table would be too
 * large: the bits of TensorFlow Lite Micro's reference_ops::Requantize, ReluQuantized, QuantizeLeakyRelu and
 * AbsEvalQuantized. Negative inputs have a factor of their own. */
#include "arithmetic.h"

typedef struct {
    int32_t multiplier, shift, negative_multiplier, negative_shift, count;
    int32_t zero_point, out_zero_point, least, most;
} tfkd_rescale_params;

TFKD_INLINE int32_t tfkd_rescaled(const tfkd_rescale_params *p, int32_t x, int flags) {
    x -= p->zero_point;
    if (flags && x < 0) x = -x;
    x = x < 0 ? tfkd_multiply(x, p->negative_multiplier, p->negative_shift) : tfkd_multiply(x, p->multiplier, p->shift);
    return tfkd_around(x, p->out_zero_point, p->least, p->most);
}

/* flags: 1 takes the absolute value first. */
TFKD_INLINE void tfkd_rescale(const tfkd_rescale_params *p, const int16_t *in, int16_t *out, int flags) {
    for (int32_t i = 0; i < p->count; i++) out[i] = (int16_t)tfkd_rescaled(p, in[i], flags);
}

TFKD_INLINE void tfkd_narrow(const tfkd_rescale_params *p, const int16_t *in, int8_t *out, int flags) {
    for (int32_t i = 0; i < p->count; i++) out[i] = (int8_t)tfkd_rescaled(p, in[i], flags);
}

TFKD_INLINE void tfkd_widened(const tfkd_rescale_params *p, const int8_t *in, int16_t *out, int flags) {
    for (int32_t i = 0; i < p->count; i++) out[i] = (int16_t)tfkd_rescaled(p, in[i], flags);
}
