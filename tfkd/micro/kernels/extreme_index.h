/* ARG_MAX and ARG_MIN, int8, along one axis: the index of the first largest or smallest value. */
#include "arithmetic.h"

typedef struct {
    int32_t outer, depth, inner; /* the input as [outer, depth, inner], with indices along the second axis */
} tfkd_extreme_index_params;

/* flags: 0 for the largest value, 1 for the smallest. */
TFKD_INLINE void tfkd_extreme_index(const tfkd_extreme_index_params *p, const int8_t *in, int32_t *out, int flags) {
    for (int32_t row = 0; row < p->outer; row++, in += p->depth * p->inner)
        for (int32_t column = 0; column < p->inner; column++) {
            const int8_t *from = in + column;
            int32_t best = 0;
            for (int32_t d = 1; d < p->depth; d++)
                if (flags ? from[d * p->inner] < from[best * p->inner] : from[d * p->inner] > from[best * p->inner])
                    best = d;
            *out++ = best;
        }
}
