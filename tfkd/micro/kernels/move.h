/* Copies a block of int8 from one tensor into another: concatenation, split, slice, transposition, padding. */
typedef struct {
    int32_t size[5], from[5], to[5]; /* strides */
    int32_t first, to_first;         /* where the block starts */
} tfkd_move_params;

TFKD_INLINE void tfkd_move(const tfkd_move_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    for (int32_t a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++)
                for (int32_t d = 0; d < p->size[3]; d++) {
                    const int8_t *x = in + p->first + a * p->from[0] + b * p->from[1] + c * p->from[2] + d * p->from[3];
                    int8_t *y = out + p->to_first + a * p->to[0] + b * p->to[1] + c * p->to[2] + d * p->to[3];
                    if (p->from[4] == 1 && p->to[4] == 1) {
                        memcpy(y, x, (size_t)p->size[4] * sizeof *x);
                        continue;
                    }
                    for (int32_t e = 0; e < p->size[4]; e++, x += p->from[4], y += p->to[4]) *y = *x;
                }
}
