/* MUL, MAXIMUM and MINIMUM, int8, with broadcasting: strides are 0 along an axis of size 1. */
typedef struct {
    int32_t multiplier, shift;
    int32_t size[4], stride1[4], stride2[4];
    int16_t zero_point1, zero_point2, out_zero_point, least, most;
} tfkd_elementwise_params;

TFKD_INLINE void tfkd_elementwise(const tfkd_elementwise_params *p, const int8_t *in1, const int8_t *in2, int8_t *out,
                                  int which) {
    for (int32_t a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++) {
                const int8_t *x = in1 + a * p->stride1[0] + b * p->stride1[1] + c * p->stride1[2];
                const int8_t *y = in2 + a * p->stride2[0] + b * p->stride2[1] + c * p->stride2[2];
                for (int32_t d = 0; d < p->size[3]; d++, x += p->stride1[3], y += p->stride2[3]) {
                    if (which == 0) {
                        const int32_t product = (*x - p->zero_point1) * (*y - p->zero_point2);
                        const int32_t result = tfkd_multiply(product, p->multiplier, p->shift) + p->out_zero_point;
                        *out++ = (int8_t)tfkd_clamp(result, p->least, p->most);
                    } else {
                        *out++ = (which == 1) == (*x > *y) ? *x : *y;
                    }
                }
            }
}

TFKD_INLINE void tfkd_multiplication(const tfkd_elementwise_params *p, const int8_t *in1, const int8_t *in2,
                                     int8_t *out, int flags) {
    (void)flags;
    tfkd_elementwise(p, in1, in2, out, 0);
}

TFKD_INLINE void tfkd_maximum(const tfkd_elementwise_params *p, const int8_t *in1, const int8_t *in2, int8_t *out,
                              int flags) {
    (void)flags;
    tfkd_elementwise(p, in1, in2, out, 1);
}

TFKD_INLINE void tfkd_minimum(const tfkd_elementwise_params *p, const int8_t *in1, const int8_t *in2, int8_t *out,
                              int flags) {
    (void)flags;
    tfkd_elementwise(p, in1, in2, out, 2);
}
