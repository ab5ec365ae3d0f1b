/* CAST between bool, int8, int16, int32 and uint32; a value that does not fit keeps its low bits. */
#include "arithmetic.h"

typedef struct {
    int32_t count;
} tfkd_cast_params;

/* flags: bytes of an input value, plus 8 times the bytes of an output value, plus 64 or 128 (or both) where the input
 * or the output is unsigned, which changes no bit. */
TFKD_INLINE void tfkd_cast(const tfkd_cast_params *p, const void *in, void *out, int flags) {
    const int from = flags & 7, to = flags >> 3 & 7;
    for (int32_t i = 0; i < p->count; i++) {
        const int32_t x = from == 1   ? ((const int8_t *)in)[i]
                          : from == 2 ? ((const int16_t *)in)[i]
                                      : ((const int32_t *)in)[i];
        if (to == 1) ((int8_t *)out)[i] = (int8_t)x;
        if (to == 2) ((int16_t *)out)[i] = (int16_t)x;
        if (to == 4) ((int32_t *)out)[i] = x;
    }
}
