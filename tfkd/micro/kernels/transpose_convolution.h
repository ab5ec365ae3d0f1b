/* TRANSPOSE_CONV, int8 or int16 activations: the bits of TensorFlow Lite Micro's reference_integer_ops::TransposeConv,
 * which adds each input to all outputs that it reaches; here each output adds all inputs that reach it.
 * TFKD_VALUE, the element type, is int8_t or int16_t (values_int8.h, values_int16.h); int16 has zero point 0.
 *
 *   input    [1, height, width, channels]
 *   weights  [out channels, kernel height, kernel width, channels] int8, symmetric, one scale per channel
 *   output   [1, out height, out width, out channels]
 *
 * Needs sums_int8.h or sums_int16.h. */
#include "arithmetic.h"

typedef struct {
    const int8_t *weights;
    const TFKD_SUM(sum) *bias;
    const int32_t *multiplier;
    const int8_t *shift;
    int16_t height, width, channels, out_height, out_width, out_channels;
    int16_t kernel_height, kernel_width, stride_height, stride_width;
    /* the input row and the kernel row whose product is part of the output's first row; the same for columns */
    int16_t first_height, first_kernel_height, first_width, first_kernel_width;
    TFKD_VALUE zero_point, out_zero_point, least, most;
} TFKD_NAME(transpose_convolution_params);

TFKD_INLINE void TFKD_NAME(transpose_convolution)(const TFKD_NAME(transpose_convolution_params) *p,
                                                  const TFKD_VALUE *in, TFKD_VALUE *out, int flags) {
    const int32_t depth = p->channels, zero_point = p->zero_point, taps = p->kernel_height * p->kernel_width;
    int32_t row = p->first_height, row_kernel = p->first_kernel_height;
    for (int32_t oy = 0; oy < p->out_height; oy++) {
        int32_t column = p->first_width, column_kernel = p->first_kernel_width;
        for (int32_t ox = 0; ox < p->out_width; ox++) {
            for (int32_t c = 0; c < p->out_channels; c++) {
                TFKD_SUM(sum) sum = p->bias[c];
                for (int32_t ky = row_kernel, y = row; ky < p->kernel_height && y >= 0; ky += p->stride_height, y--) {
                    if (y >= p->height) continue;
                    for (int32_t kx = column_kernel, x = column; kx < p->kernel_width && x >= 0;
                         kx += p->stride_width, x--) {
                        if (x >= p->width) continue;
                        const TFKD_VALUE *from = in + (y * p->width + x) * depth;
                        const int8_t *weights = p->weights + (c * taps + ky * p->kernel_width + kx) * depth;
                        for (int32_t i = 0; i < depth; i++) sum += (from[i] - zero_point) * weights[i];
                    }
                }
                *out++ = (TFKD_VALUE)TFKD_SUM(requantize)(sum, p->multiplier[c], p->shift[c], p->out_zero_point,
                                                          p->least, p->most, flags);
            }
            if (++column_kernel == p->stride_width) column_kernel = 0, column++;
        }
        if (++row_kernel == p->stride_height) row_kernel = 0, row++;
    }
}
