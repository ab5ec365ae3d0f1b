/* BATCH_MATMUL, int8 or int16: [batch, rows, depth] times [batch, depth, columns] gives [batch, rows, columns], with up
 * to three batch axes and broadcasting; the bits of TensorFlow Lite Micro's reference_ops::BatchMatMul.
 * TFKD_VALUE, the element type, is int8_t or int16_t (values_int8.h, values_int16.h); int16 has zero point 0.
 *
 * Strides count elements; those of batch axes are 0 along an axis of size 1, which repeats its matrix. Transposed
 * operands (adj_x, adj_y) differ in their strides only. Needs sums_int8.h or sums_int16.h. */
#include "arithmetic.h"

typedef struct {
    int32_t batch[3], stride1[3], stride2[3];
    int32_t rows, columns, depth;
    int32_t row1, depth1, depth2, column2; /* strides of the first and the second operand */
    int32_t multiplier, shift;
    int16_t zero_point1, zero_point2, out_zero_point;
} TFKD_NAME(batch_matmul_params);

TFKD_INLINE void TFKD_NAME(batch_matmul)(const TFKD_NAME(batch_matmul_params) *p, const TFKD_VALUE *in1,
                                         const TFKD_VALUE *in2, TFKD_VALUE *out, int flags) {
    const int32_t zero1 = p->zero_point1, zero2 = p->zero_point2;
    (void)flags;
    for (int32_t a = 0; a < p->batch[0]; a++)
        for (int32_t b = 0; b < p->batch[1]; b++)
            for (int32_t c = 0; c < p->batch[2]; c++) {
                const TFKD_VALUE *left = in1 + a * p->stride1[0] + b * p->stride1[1] + c * p->stride1[2];
                const TFKD_VALUE *right = in2 + a * p->stride2[0] + b * p->stride2[1] + c * p->stride2[2];
                for (int32_t i = 0; i < p->rows; i++)
                    for (int32_t j = 0; j < p->columns; j++) {
                        const TFKD_VALUE *x = left + i * p->row1, *y = right + j * p->column2;
                        TFKD_SUM(sum) sum = 0;
                        for (int32_t k = 0; k < p->depth; k++, x += p->depth1, y += p->depth2)
                            sum += (*x - zero1) * (*y - zero2);
                        const int32_t result = TFKD_SUM(scale)(sum, p->multiplier, p->shift);
                        *out++ = (TFKD_VALUE)tfkd_around(result, p->out_zero_point, TFKD_VALUE_MIN, TFKD_VALUE_MAX);
                    }
            }
}
