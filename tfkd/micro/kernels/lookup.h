/* LOGISTIC, TANH, HARD_SWISH, RELU, RELU6, LEAKY_RELU, ELU, ABS, RSQRT and QUANTIZE, int8 to int8, as a table of all
 * 256 outputs; QUANTIZE also from uint8 and to uint8. The table is computed when the code is generated, with the
 * arithmetic of TensorFlow Lite Micro's reference kernels. */
#include "arithmetic.h"

typedef struct {
    const int8_t *table; /* [256] outputs of -128 .. 127, or of 0 .. 255; an output of uint8 as the int8 of its bits */
    int32_t count;
} tfkd_lookup_params;

TFKD_INLINE void tfkd_lookup(const tfkd_lookup_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) out[i] = p->table[in[i] + 128];
}

TFKD_INLINE void tfkd_lookup_signed(const tfkd_lookup_params *p, const uint8_t *in, int8_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) out[i] = p->table[in[i]];
}

TFKD_INLINE void tfkd_lookup_unsigned(const tfkd_lookup_params *p, const int8_t *in, uint8_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) out[i] = (uint8_t)p->table[in[i] + 128];
}
