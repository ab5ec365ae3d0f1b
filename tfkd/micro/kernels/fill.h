/* Sets all `count` elements of a tensor to one value; part of PAD and PADV2, before move.h copies the input into it.
 * TFKD_VALUE, the element type, is int8_t or int16_t (values_int8.h, values_int16.h); int16 has zero point 0. */
#include "arithmetic.h"

typedef struct {
    int32_t count;
    TFKD_VALUE value;
} TFKD_NAME(set_params);

TFKD_INLINE void TFKD_NAME(set)(const TFKD_NAME(set_params) *p, TFKD_VALUE *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) out[i] = p->value;
}
