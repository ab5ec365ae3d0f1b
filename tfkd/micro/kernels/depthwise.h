/* DEPTHWISE_CONV_2D, int8: one channel at a time through a padded plane of 16 bits, so that the output may overwrite the
 * input where the shapes agree. */
typedef struct {
    const int8_t *weights; /* [out channels, kernel height, kernel width] */
    const int32_t *bias;   /* the input's zero point is folded in */
    const int32_t *multiplier;
    const int8_t *shift;
    int16_t height, width, channels, out_height, out_width, channel_multiplier;
    int16_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int16_t pad_top, pad_left, plane_height, plane_width; /* of the padded plane; its width is even */
    int8_t zero_point, out_zero_point, least, most;
} tfkd_depthwise_params;

TFKD_INLINE void tfkd_depthwise_any(const tfkd_depthwise_params *p, const int8_t *weights, const int16_t *plane,
                                    int8_t *out, int32_t c, int flags) {
    const int32_t step = p->channels * p->channel_multiplier;
    const int32_t bias = p->bias[c], multiplier = p->multiplier[c], shift = p->shift[c];
    for (int32_t y = 0; y < p->out_height; y++) {
        for (int32_t x = 0; x < p->out_width; x++) {
            const int16_t *corner = plane + y * p->stride_height * p->plane_width + x * p->stride_width;
            const int8_t *w = weights;
            int32_t sum = bias;
            for (int32_t ky = 0; ky < p->kernel_height; ky++) {
                const int16_t *from = corner + ky * p->dilation_height * p->plane_width;
                for (int32_t kx = 0; kx < p->kernel_width; kx++, from += p->dilation_width) sum += *from * *w++;
            }
            *out = (int8_t)tfkd_requantize(sum, multiplier, shift, p->out_zero_point, p->least, p->most, flags);
            out += step;
        }
    }
}

#if TFKD_DSP
TFKD_INLINE uint32_t tfkd_pair(int32_t low, int32_t high) {
    return ((uint32_t)low & 0xffffu) | ((uint32_t)high << 16);
}

/* 3x3 without dilation, by pairs of neighbours in a row. */
TFKD_INLINE void tfkd_depthwise_3x3(const tfkd_depthwise_params *p, const int8_t *w, const int16_t *plane, int8_t *out,
                                    int32_t c, int flags) {
    const int32_t step = p->channels * p->channel_multiplier, row = p->plane_width;
    const int32_t bias = p->bias[c], multiplier = p->multiplier[c], shift = p->shift[c];
    const int32_t zero_point = p->out_zero_point, least = p->least, most = p->most;
    const uint32_t a01 = tfkd_pair(w[0], w[1]), a12 = tfkd_pair(w[1], w[2]);
    const uint32_t b01 = tfkd_pair(w[3], w[4]), b12 = tfkd_pair(w[4], w[5]);
    const uint32_t c01 = tfkd_pair(w[6], w[7]), c12 = tfkd_pair(w[7], w[8]);
    for (int32_t y = 0; y < p->out_height; y++) {
        const int16_t *from = plane + y * p->stride_height * row;
        int32_t x = p->out_width;
        if (p->stride_width == 1) {
            for (; x >= 2; x -= 2, from += 2) {
                uint32_t left = tfkd_load4(from), right = tfkd_load4(from + 2);
                int32_t sum = tfkd_mac_low_high(right, a12, tfkd_mac2(left, a01, bias));
                int32_t next = tfkd_mac2(right, a12, tfkd_mac_high_low(left, a01, bias));
                left = tfkd_load4(from + row), right = tfkd_load4(from + row + 2);
                sum = tfkd_mac_low_high(right, b12, tfkd_mac2(left, b01, sum));
                next = tfkd_mac2(right, b12, tfkd_mac_high_low(left, b01, next));
                left = tfkd_load4(from + 2 * row), right = tfkd_load4(from + 2 * row + 2);
                sum = tfkd_mac_low_high(right, c12, tfkd_mac2(left, c01, sum));
                next = tfkd_mac2(right, c12, tfkd_mac_high_low(left, c01, next));
                *out = (int8_t)tfkd_requantize(sum, multiplier, shift, zero_point, least, most, flags);
                out += step;
                *out = (int8_t)tfkd_requantize(next, multiplier, shift, zero_point, least, most, flags);
                out += step;
            }
        }
        for (; x > 0; x--, from += p->stride_width) {
            int32_t sum = tfkd_mac2(tfkd_load4(from), a01, bias) + from[2] * w[2];
            sum = tfkd_mac2(tfkd_load4(from + row), b01, sum) + from[row + 2] * w[5];
            sum = tfkd_mac2(tfkd_load4(from + 2 * row), c01, sum) + from[2 * row + 2] * w[8];
            *out = (int8_t)tfkd_requantize(sum, multiplier, shift, zero_point, least, most, flags);
            out += step;
        }
    }
}
#endif

TFKD_INLINE void tfkd_depthwise(const tfkd_depthwise_params *p, const int8_t *in, int8_t *out, int16_t *plane,
                                int flags) {
    const int32_t taps = p->kernel_height * p->kernel_width;
    for (int32_t i = 0; i < p->plane_height * p->plane_width; i++) plane[i] = p->zero_point;
    for (int32_t c = 0; c < p->channels; c++) {
        const int8_t *from = in + c;
        /* a plane may end before the input does, where the kernel never reaches its last rows */
        const int32_t rows = p->plane_height - p->pad_top < p->height ? p->plane_height - p->pad_top : p->height;
        const int32_t columns = p->plane_width - p->pad_left < p->width ? p->plane_width - p->pad_left : p->width;
        for (int32_t y = 0; y < rows; y++) {
            int16_t *to = plane + (y + p->pad_top) * p->plane_width + p->pad_left;
            const int8_t *at = from + y * p->width * p->channels;
            for (int32_t x = 0; x < columns; x++, at += p->channels) *to++ = *at;
        }
        for (int32_t m = 0; m < p->channel_multiplier; m++) {
            const int32_t o = c * p->channel_multiplier + m;
#if TFKD_DSP
            if (p->kernel_height == 3 && p->kernel_width == 3 && p->dilation_height == 1 && p->dilation_width == 1) {
                tfkd_depthwise_3x3(p, p->weights + o * taps, plane, out + o, o, flags);
                continue;
            }
#endif
            tfkd_depthwise_any(p, p->weights + o * taps, plane, out + o, o, flags);
        }
    }
}
