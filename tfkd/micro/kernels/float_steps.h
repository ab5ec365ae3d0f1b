/* QUANTIZE and DEQUANTIZE inside a model: the bits of TensorFlow Lite Micro's AffineQuantize and Dequantize.
 * TFKD_VALUE, the quantized type, is int8_t or int16_t (values_int8.h, values_int16.h). */
#include "float_elementwise.h"

TFKD_INLINE void TFKD_NAME(float_quantize)(const tfkd_float_steps_params *p, const float *in, TFKD_VALUE *out,
                                           int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) {
        float steps = in[i] / p->scale;
        if (!(steps > -131072.0f)) steps = -131072.0f; /* and what is no number */
        if (steps > 131072.0f) steps = 131072.0f;
        int32_t whole = (int32_t)steps;
        const float rest = steps - (float)whole;
        whole += (rest >= 0.5f) - (rest <= -0.5f); /* halves away from 0 */
        out[i] = (TFKD_VALUE)tfkd_clamp(whole + p->zero_point, TFKD_VALUE_MIN, TFKD_VALUE_MAX);
    }
}

TFKD_INLINE void TFKD_NAME(float_dequantize)(const tfkd_float_steps_params *p, const TFKD_VALUE *in, float *out,
                                             int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) out[i] = p->scale * (float)(in[i] - p->zero_point);
}
