/* CIRCULAR_BUFFER, int8: the output, a state, loses its first slot, and the input becomes its last one. */
#include "arithmetic.h"

typedef struct {
    int32_t kept, depth; /* values that move to the front; values of a slot */
} tfkd_circular_buffer_params;

TFKD_INLINE void tfkd_circular_buffer(const tfkd_circular_buffer_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->kept; i++) out[i] = out[i + p->depth];
    memcpy(out + p->kept, in, (size_t)p->depth);
}
