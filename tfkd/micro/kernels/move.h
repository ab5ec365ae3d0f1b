/* Copies a block of up to five dimensions from one tensor to another: CONCATENATION, PACK, SPLIT, UNPACK,
 * SLICE, STRIDED_SLICE, REVERSE_V2, TILE, TRANSPOSE, PAD, PADV2, BROADCAST_TO, GATHER, MIRROR_PAD and others, int8,
 * int16 or int32: TFKD_VALUE is the element type (values_int8.h, values_int16.h, values_int32.h). */
#include "arithmetic.h"

typedef struct {
    int32_t size[5], from[5], to[5]; /* sizes of the block; strides in the input and the output, in elements */
    int32_t first, to_first;         /* index of the block's first element in the input and the output */
} TFKD_NAME(move_params);

TFKD_INLINE void TFKD_NAME(move)(const TFKD_NAME(move_params) *p, const TFKD_VALUE *in, TFKD_VALUE *out, int flags) {
    (void)flags;
    for (int32_t a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++)
                for (int32_t d = 0; d < p->size[3]; d++) {
                    const TFKD_VALUE *x =
                        in + p->first + a * p->from[0] + b * p->from[1] + c * p->from[2] + d * p->from[3];
                    TFKD_VALUE *y = out + p->to_first + a * p->to[0] + b * p->to[1] + c * p->to[2] + d * p->to[3];
                    if (p->from[4] == 1 && p->to[4] == 1) {
                        memcpy(y, x, (size_t)p->size[4] * sizeof *x);
                        continue;
                    }
                    for (int32_t e = 0; e < p->size[4]; e++, x += p->from[4], y += p->to[4]) *y = *x;
                }
}
