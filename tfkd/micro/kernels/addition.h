/* ADD and SUB, int8, with broadcasting: strides are 0 along an axis of size 1. */
typedef struct {
    int32_t multiplier1, multiplier2, out_multiplier;
    int32_t shift1, shift2, out_shift; /* right shifts */
    int32_t size[4], stride1[4], stride2[4];
    int16_t zero_point1, zero_point2, out_zero_point, least, most, sign; /* sign: 1 adds, -1 subtracts */
} tfkd_addition_params;

TFKD_INLINE void tfkd_addition(const tfkd_addition_params *p, const int8_t *in1, const int8_t *in2, int8_t *out,
                               int flags) {
    const int32_t multiplier1 = p->multiplier1, multiplier2 = p->multiplier2, out_multiplier = p->out_multiplier;
    (void)flags;
    for (int32_t a = 0; a < p->size[0]; a++)
        for (int32_t b = 0; b < p->size[1]; b++)
            for (int32_t c = 0; c < p->size[2]; c++) {
                const int8_t *x = in1 + a * p->stride1[0] + b * p->stride1[1] + c * p->stride1[2];
                const int8_t *y = in2 + a * p->stride2[0] + b * p->stride2[1] + c * p->stride2[2];
                for (int32_t d = 0; d < p->size[3]; d++, x += p->stride1[3], y += p->stride2[3]) {
                    const int32_t first = tfkd_divide_by_power(
                        tfkd_high_mul_small((*x - p->zero_point1) * (1 << 20), multiplier1), p->shift1);
                    const int32_t second = tfkd_divide_by_power(
                        tfkd_high_mul_small((*y - p->zero_point2) * (1 << 20), multiplier2), p->shift2) * p->sign;
                    const int32_t sum =
                        tfkd_divide_by_power(tfkd_high_mul_small(first + second, out_multiplier), p->out_shift);
                    *out++ = (int8_t)tfkd_clamp(sum + p->out_zero_point, p->least, p->most);
                }
            }
}
