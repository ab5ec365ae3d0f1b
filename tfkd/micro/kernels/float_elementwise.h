/* Floats value by value, and their conversion from and to quantized values: the bits of TensorFlow Lite Micro's
 * reference kernels. The parameter `flags` is one of these numbers. */
#include "float_math.h"

#define TFKD_FLOAT_ABS 0
#define TFKD_FLOAT_EXP 1
#define TFKD_FLOAT_LOGISTIC 2
#define TFKD_FLOAT_NEG 3
#define TFKD_FLOAT_RELU 4
#define TFKD_FLOAT_RELU6 5
#define TFKD_FLOAT_RSQRT 6
#define TFKD_FLOAT_SQRT 7
#define TFKD_FLOAT_SQUARE 8

#define TFKD_FLOAT_ADD 0
#define TFKD_FLOAT_DIV 1
#define TFKD_FLOAT_MAXIMUM 2
#define TFKD_FLOAT_MINIMUM 3
#define TFKD_FLOAT_MUL 4
#define TFKD_FLOAT_SQUARED_DIFFERENCE 5
#define TFKD_FLOAT_SUB 6

typedef struct {
    int32_t count;
} tfkd_float_values_params;

typedef struct {
    int32_t size[4], stride1[4], stride2[4]; /* as in whole_numbers.h */
    int8_t activation;                       /* see tfkd_float_activation */
} tfkd_float_pairs_params;

typedef struct {
    int32_t count;
    float scale;
    int32_t zero_point;
} tfkd_float_steps_params;

/* activation: the number of TensorFlow Lite's enum: 0 none, 1 RELU, 2 RELU_N1_TO_1, 3 RELU6. Where these have no limit,
 * the largest float is one: an infinite result becomes that number. */
TFKD_INLINE float tfkd_float_activation(float x, int32_t activation) {
    const float least = activation == 2 ? -1.0f : 0.0f, most = activation == 2 ? 1.0f : 6.0f;
    if (activation < 2 && tfkd_bits(x) << 1 == 0xff000000u) x = tfkd_float(tfkd_bits(x) - 1);
    if (activation == 0) return x;
    if (x < least) return least;
    return activation != 1 && x > most ? most : x;
}

TFKD_INLINE float tfkd_float_logistic(float x) {
    if (x > 16.619047164916992188f) return 1.0f;
    return x < -9.0f ? tfkd_exp(x) : 1.0f / (1.0f + tfkd_exp(-x));
}

TFKD_INLINE void tfkd_float_values(const tfkd_float_values_params *p, const float *in, float *out, int flags) {
    for (int32_t i = 0; i < p->count; i++) {
        const float x = in[i];
        switch (flags) {
            case TFKD_FLOAT_ABS: out[i] = tfkd_float(tfkd_bits(x) & 0x7fffffffu); break;
            case TFKD_FLOAT_EXP: out[i] = tfkd_exp(x); break;
            case TFKD_FLOAT_LOGISTIC: out[i] = tfkd_float_logistic(x); break;
            case TFKD_FLOAT_NEG: out[i] = -x; break;
            case TFKD_FLOAT_RELU: out[i] = x < 0 ? 0.0f : x; break; /* an infinite value stays so */
            case TFKD_FLOAT_RELU6: out[i] = tfkd_float_activation(x, 3); break;
            case TFKD_FLOAT_RSQRT: out[i] = 1.0f / tfkd_sqrt(x); break;
            case TFKD_FLOAT_SQRT: out[i] = tfkd_sqrt(x); break;
            default: out[i] = x * x;
        }
    }
}

TFKD_INLINE float tfkd_float_pair(float x, float y, int32_t activation, int flags) {
    switch (flags) {
        case TFKD_FLOAT_ADD: return tfkd_float_activation(x + y, activation);
        case TFKD_FLOAT_DIV: return tfkd_float_activation(x / y, activation);
        case TFKD_FLOAT_MAXIMUM: return x > y ? x : y;
        case TFKD_FLOAT_MINIMUM: return x < y ? x : y;
        case TFKD_FLOAT_MUL: return tfkd_float_activation(x * y, activation);
        case TFKD_FLOAT_SQUARED_DIFFERENCE: return (x - y) * (x - y);
        default: return tfkd_float_activation(x - y, activation);
    }
}

TFKD_INLINE void tfkd_float_pairs(const tfkd_float_pairs_params *p, const float *in1, const float *in2, float *out,
                                  int flags) {
    for (int32_t a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++) {
                const float *x = in1 + a * p->stride1[0] + b * p->stride1[1] + c * p->stride1[2];
                const float *y = in2 + a * p->stride2[0] + b * p->stride2[1] + c * p->stride2[2];
                for (int32_t d = 0; d < p->size[3]; d++, x += p->stride1[3], y += p->stride2[3])
                    *out++ = tfkd_float_pair(*x, *y, p->activation, flags);
            }
}
