/* MEAN and SUM, int8, over any axes. */
typedef struct {
    int32_t kept[4], kept_stride[4], summed[4], summed_stride[4];
    int32_t multiplier, shift, offset; /* the zero points of all summed values */
    int16_t out_zero_point;
} tfkd_reduction_params;

TFKD_INLINE void tfkd_reduction(const tfkd_reduction_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    for (int32_t a = 0; a < p->kept[0]; a++)
        for (int32_t b = 0; b < p->kept[1]; b++)
            for (int32_t c = 0; c < p->kept[2]; c++)
                for (int32_t d = 0; d < p->kept[3]; d++) {
                    const int8_t *from = in + a * p->kept_stride[0] + b * p->kept_stride[1] + c * p->kept_stride[2] +
                                         d * p->kept_stride[3];
                    int32_t sum = 0;
                    for (int32_t i = 0; i < p->summed[0]; i++)
                        for (int32_t j = 0; j < p->summed[1]; j++)
                            for (int32_t k = 0; k < p->summed[2]; k++) {
                                const int8_t *at = from + i * p->summed_stride[0] + j * p->summed_stride[1] +
                                                   k * p->summed_stride[2];
                                for (int32_t l = 0; l < p->summed[3]; l++, at += p->summed_stride[3]) sum += *at;
                            }
                    const int32_t result = tfkd_multiply(sum - p->offset, p->multiplier, p->shift);
                    *out++ = (int8_t)tfkd_clamp(result + p->out_zero_point, INT8_MIN, INT8_MAX);
                }
}
