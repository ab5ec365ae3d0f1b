/* DYNAMIC_UPDATE_SLICE at a computed place, int8 or int16, after move.h has copied the tensor: copies a block into it,
 * moved so that it lies inside.
 * TFKD_VALUE, the element type, is int8_t or int16_t (values_int8.h, values_int16.h). */
#include "arithmetic.h"

typedef struct {
    int32_t axes;                        /* how many of the five axes there are; the others have size 1 */
    int32_t size[5], stride[5], last[5]; /* of the block; of the tensor; the last place where the block fits */
} TFKD_NAME(update_params);

TFKD_INLINE void TFKD_NAME(update)(const TFKD_NAME(update_params) *p, const TFKD_VALUE *in, const int32_t *starts,
                                   TFKD_VALUE *out, int flags) {
    (void)flags;
    for (int32_t d = 0; d < p->axes; d++) out += tfkd_clamp(starts[d], 0, p->last[d]) * p->stride[d];
    for (int32_t a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++)
                for (int32_t d = 0; d < p->size[3]; d++) {
                    TFKD_VALUE *to = out + a * p->stride[0] + b * p->stride[1] + c * p->stride[2] + d * p->stride[3];
                    for (int32_t e = 0; e < p->size[4]; e++) to[e * p->stride[4]] = *in++;
                }
}
