/* Sums of floats: MEAN, SUM, REDUCE_MAX, REDUCE_MIN, SOFTMAX and FULLY_CONNECTED. Values are added in the order in which
 * TensorFlow Lite Micro's reference kernels add them, so that the roundings are the same. */
#include "float_elementwise.h"

#define TFKD_FLOAT_MEAN 0
#define TFKD_FLOAT_SUM 1
#define TFKD_FLOAT_REDUCE_MAX 2
#define TFKD_FLOAT_REDUCE_MIN 3

typedef struct {
    int32_t kept[4], kept_stride[4], summed[4], summed_stride[4]; /* as in reduction.h */
    int32_t count;                                                /* values of each sum */
} tfkd_float_reduction_params;

typedef struct {
    int32_t rows, depth;
    float beta;
} tfkd_float_softmax_params;

typedef struct {
    int32_t rows, depth, channels;
    int8_t activation;
    const float *weights, *bias; /* weights [channels, depth] */
} tfkd_float_dense_params;

TFKD_INLINE float tfkd_float_reduced(const tfkd_float_reduction_params *p, const float *from, int flags) {
    const uint32_t largest = flags == TFKD_FLOAT_REDUCE_MAX ? 0xff7fffffu : 0x7f7fffffu; /* of either sign */
    float sum = flags < TFKD_FLOAT_REDUCE_MAX ? 0.0f : tfkd_float(largest);
    for (int32_t i = 0; i < p->summed[0]; i++)
        for (int32_t j = 0; j < p->summed[1]; j++)
            for (int32_t k = 0; k < p->summed[2]; k++) {
                const float *at = from + i * p->summed_stride[0] + j * p->summed_stride[1] + k * p->summed_stride[2];
                for (int32_t l = 0; l < p->summed[3]; l++, at += p->summed_stride[3]) {
                    if (flags < TFKD_FLOAT_REDUCE_MAX) sum += *at;
                    else if (flags == TFKD_FLOAT_REDUCE_MAX ? *at > sum : *at < sum) sum = *at;
                }
            }
    return flags == TFKD_FLOAT_MEAN ? sum / (float)p->count : sum;
}

TFKD_INLINE void tfkd_float_reduction(const tfkd_float_reduction_params *p, const float *in, float *out, int flags) {
    for (int32_t a = 0; a < p->kept[0]; a++)
        for (int32_t b = 0; b < p->kept[1]; b++)
            for (int32_t c = 0; c < p->kept[2]; c++)
                for (int32_t d = 0; d < p->kept[3]; d++)
                    *out++ = tfkd_float_reduced(p, in + a * p->kept_stride[0] + b * p->kept_stride[1] +
                                                       c * p->kept_stride[2] + d * p->kept_stride[3], flags);
}

TFKD_INLINE void tfkd_float_softmax(const tfkd_float_softmax_params *p, const float *in, float *out, int flags) {
    (void)flags;
    for (int32_t row = 0; row < p->rows; row++, in += p->depth, out += p->depth) {
        float most = in[0], sum = 0.0f;
        for (int32_t i = 1; i < p->depth; i++)
            if (in[i] > most) most = in[i];
        for (int32_t i = 0; i < p->depth; i++) {
            out[i] = tfkd_exp((in[i] - most) * p->beta);
            sum += out[i];
        }
        for (int32_t i = 0; i < p->depth; i++) out[i] = out[i] / sum;
    }
}

TFKD_INLINE void tfkd_float_dense(const tfkd_float_dense_params *p, const float *in, float *out, int flags) {
    (void)flags;
    for (int32_t row = 0; row < p->rows; row++, in += p->depth)
        for (int32_t c = 0; c < p->channels; c++) {
            const float *weights = p->weights + c * p->depth;
            float sum = 0.0f;
            for (int32_t i = 0; i < p->depth; i++) sum += tfkd_product(in[i], weights[i]);
            *out++ = tfkd_float_activation(sum + p->bias[c], p->activation);
        }
}
