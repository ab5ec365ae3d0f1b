/* BATCH_MATMUL, int8: [.., rows, depth] times [.., depth, columns]. Strides are 0 along an axis of size 1. */
typedef struct {
    int32_t batch[3], stride1[3], stride2[3];
    int32_t rows, columns, depth;
    int32_t row1, depth1, depth2, column2; /* from one value to the next */
    int32_t multiplier, shift;
    int16_t zero_point1, zero_point2, out_zero_point;
} tfkd_batch_matmul_params;

TFKD_INLINE void tfkd_batch_matmul(const tfkd_batch_matmul_params *p, const int8_t *in1, const int8_t *in2, int8_t *out,
                                   int flags) {
    const int32_t zero1 = p->zero_point1, zero2 = p->zero_point2;
    (void)flags;
    for (int32_t a = 0; a < p->batch[0]; a++)
        for (int32_t b = 0; b < p->batch[1]; b++)
            for (int32_t c = 0; c < p->batch[2]; c++) {
                const int8_t *left = in1 + a * p->stride1[0] + b * p->stride1[1] + c * p->stride1[2];
                const int8_t *right = in2 + a * p->stride2[0] + b * p->stride2[1] + c * p->stride2[2];
                for (int32_t i = 0; i < p->rows; i++)
                    for (int32_t j = 0; j < p->columns; j++) {
                        const int8_t *x = left + i * p->row1, *y = right + j * p->column2;
                        tfkd_int8_sum sum = 0;
                        for (int32_t k = 0; k < p->depth; k++, x += p->depth1, y += p->depth2)
                            sum += (*x - zero1) * (*y - zero2);
                        const int32_t result = tfkd_int8_scale(sum, p->multiplier, p->shift);
                        *out++ = (int8_t)tfkd_around(result, p->out_zero_point, INT8_MIN, INT8_MAX);
                    }
            }
}
