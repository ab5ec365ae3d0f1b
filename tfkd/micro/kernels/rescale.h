/* QUANTIZE between int8, int16 and int32, and RELU, RELU6, LEAKY_RELU and ABS with int16, for which a table would be too
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

/* A kernel from one type to another. flags: 1 takes the absolute value first. */
#define TFKD_RESCALE(name, from, to)                                                                       \
    TFKD_INLINE void tfkd_##name(const tfkd_rescale_params *p, const from *in, to *out, int flags) {       \
        for (int32_t i = 0; i < p->count; i++) out[i] = (to)tfkd_rescaled(p, in[i], flags);                \
    }
TFKD_RESCALE(rescale, int16_t, int16_t)
TFKD_RESCALE(narrow, int16_t, int8_t)
TFKD_RESCALE(widened, int8_t, int16_t)
TFKD_RESCALE(widened_int32, int16_t, int32_t)
TFKD_RESCALE(widened_int8_int32, int8_t, int32_t)
TFKD_RESCALE(narrow_int32, int32_t, int16_t)
TFKD_RESCALE(narrow_int32_int8, int32_t, int8_t)
