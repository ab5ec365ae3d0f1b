/* SVDF, int8 activations, int8 or int16 state: the bits of TensorFlow Lite Micro's EvalInt8SvdfReference and
 * EvalInt16SvdfReference.
 *
 *   input    [1, inputs] int8
 *   state    [units * rank, memory]: for each filter its last `memory` products with the input, read and written
 *   output   [1, units] int8: over `rank` filters, the sum of the state weighted by time */
#include "arithmetic.h"
#include "dot.h"

typedef struct {
    const int8_t *feature;       /* [units * rank, inputs] */
    const int32_t *feature_bias; /* [units * rank]: the input's zero point, folded */
    const int16_t *time;         /* [units * rank, memory] */
    const int32_t *bias;         /* [units] */
    int32_t inputs, units, rank, memory;
    int32_t state_multiplier, state_shift, multiplier, shift;
    int32_t least, most; /* range of the state */
    int16_t state_zero_point, out_zero_point;
} tfkd_svdf_params;

/* Product of one filter with the input, as a state. As in TensorFlow Lite Micro (October 2026) the zero point is added
 * after the clamp, and the result may wrap around. */
TFKD_INLINE int32_t tfkd_svdf_feature(const tfkd_svdf_params *p, const int8_t *feature, const int8_t *in,
                                      int32_t bias) {
    const int32_t sum = tfkd_dot_product(feature, in, p->inputs, bias);
    const int32_t result = tfkd_clamp(tfkd_multiply(sum, p->state_multiplier, p->state_shift), p->least, p->most);
    return result + p->state_zero_point;
}

TFKD_INLINE int8_t tfkd_svdf_output(const tfkd_svdf_params *p, int32_t sum) {
    return (int8_t)tfkd_around(tfkd_multiply(sum, p->multiplier, p->shift), p->out_zero_point, -128, 127);
}

#define TFKD_SVDF(name, type)                                                                                      \
    TFKD_INLINE void name(const tfkd_svdf_params *p, const int8_t *in, type *state, int8_t *out, int flags) {      \
        const int8_t *feature = p->feature;                                                                        \
        const int32_t *feature_bias = p->feature_bias;                                                             \
        const int16_t *time = p->time;                                                                             \
        (void)flags;                                                                                               \
        for (int32_t unit = 0; unit < p->units; unit++) {                                                          \
            int32_t sum = p->bias[unit];                                                                           \
            for (int32_t r = 0; r < p->rank; r++, feature += p->inputs, time += p->memory, state += p->memory) {   \
                for (int32_t i = 1; i < p->memory; i++) state[i - 1] = state[i];                                   \
                state[p->memory - 1] = (type)tfkd_svdf_feature(p, feature, in, *feature_bias++);                   \
                for (int32_t i = 0; i < p->memory; i++) sum += time[i] * (state[i] - p->state_zero_point);         \
            }                                                                                                      \
            *out++ = tfkd_svdf_output(p, sum);                                                                     \
        }                                                                                                          \
    }
TFKD_SVDF(tfkd_svdf, int8_t)
TFKD_SVDF(tfkd_svdf_wide, int16_t)
