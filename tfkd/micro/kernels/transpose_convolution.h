/* TRANSPOSE_CONV, int8. Input [h, w, c], output [h, w, c]: each output value gathers what reaches it. */
typedef struct {
    const tfkd_byte *weights; /* [out channels, kernel height, kernel width, channels] */
    const tfkd_int8_sum *bias;
    const int32_t *multiplier;
    const tfkd_byte *shift;
    int16_t height, width, channels, out_height, out_width, out_channels;
    int16_t kernel_height, kernel_width, stride_height, stride_width;
    /* the input row and the kernel row that meet at the output's first row, the same for columns */
    int16_t first_height, first_kernel_height, first_width, first_kernel_width;
    int8_t zero_point, out_zero_point, least, most;
} tfkd_transpose_convolution_params;

TFKD_INLINE void tfkd_transpose_convolution(const tfkd_transpose_convolution_params *p, const int8_t *in, int8_t *out,
                                            int flags) {
    const int32_t depth = p->channels, zero_point = p->zero_point, taps = p->kernel_height * p->kernel_width;
    int32_t row = p->first_height, row_kernel = p->first_kernel_height;
    for (int32_t oy = 0; oy < p->out_height; oy++) {
        int32_t column = p->first_width, column_kernel = p->first_kernel_width;
        for (int32_t ox = 0; ox < p->out_width; ox++) {
            for (int32_t c = 0; c < p->out_channels; c++) {
                tfkd_int8_sum sum = p->bias[c];
                for (int32_t ky = row_kernel, y = row; ky < p->kernel_height && y >= 0; ky += p->stride_height, y--) {
                    if (y >= p->height) continue;
                    for (int32_t kx = column_kernel, x = column; kx < p->kernel_width && x >= 0;
                         kx += p->stride_width, x--) {
                        if (x >= p->width) continue;
                        const int8_t *from = in + (y * p->width + x) * depth;
                        const tfkd_byte *weights = p->weights + (c * taps + ky * p->kernel_width + kx) * depth;
                        for (int32_t i = 0; i < depth; i++) sum += (from[i] - zero_point) * weights[i];
                    }
                }
                *out++ = (int8_t)tfkd_int8_requantize(sum, p->multiplier[c], p->shift[c], p->out_zero_point, p->least,
                                                      p->most, flags);
            }
            if (++column_kernel == p->stride_width) column_kernel = 0, column++;
        }
        if (++row_kernel == p->stride_height) row_kernel = 0, row++;
    }
}
