/* GATHER and EMBEDDING_LOOKUP, int8 or int16, and other ops that move rows without a regular order: copies the rows
 * `at[0]`, `at[1]`, ... of each block [rows, inner] of the input. A row outside of the block, for which TensorFlow Lite
 * Micro reports an error or reads other memory, is the nearest one.
 * TFKD_VALUE, the element type, is int8_t or int16_t (values_int8.h, values_int16.h). */
#include "arithmetic.h"

typedef struct {
    int32_t outer, rows, inner; /* number of blocks, rows of a block, length of a row */
    int32_t count;              /* number of rows in `at` */
} TFKD_NAME(pick_params);

TFKD_INLINE void TFKD_NAME(pick)(const TFKD_NAME(pick_params) *p, const TFKD_VALUE *in,
                                        const int32_t *at, TFKD_VALUE *out, int flags) {
    (void)flags;
    for (int32_t block = 0; block < p->outer; block++, in += p->rows * p->inner)
        for (int32_t i = 0; i < p->count; i++, out += p->inner)
            memcpy(out, in + tfkd_clamp(at[i], 0, p->rows - 1) * p->inner, (size_t)p->inner * sizeof *out);
}
