/* CONV_2D, int8. Input [h, w, c], output [h, w, c], columns: two receptive fields widened to 16 bits. */
typedef struct {
    const int16_t *weights; /* [groups, channel pairs, depth], two channels in 16 bits */
    const int32_t *bias;    /* the input's zero point is folded in */
    const int32_t *multiplier;
    const int8_t *shift;
    int16_t height, width, channels, out_height, out_width, out_channels;
    int16_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int16_t pad_top, pad_left;
    int16_t groups, group_channels, group_out_channels;
    int16_t depth; /* values of a receptive field and group, rounded up to a multiple of 4 */
    int8_t zero_point, out_zero_point, least, most;
} tfkd_convolution_params;

TFKD_INLINE int16_t *tfkd_widen(int16_t *to, const int8_t *from, int32_t count) {
#if TFKD_DSP
    for (; count >= 4; count -= 4, from += 4) {
        const uint32_t word = tfkd_load4(from), even = tfkd_even(word), odd = tfkd_odd(word);
        const uint32_t first = (even & 0xffffu) | (odd << 16), second = (even >> 16) | (odd & 0xffff0000u);
        tfkd_store4(to, first);
        tfkd_store4(to + 2, second);
        to += 4;
    }
#endif
    for (; count > 0; count--) *to++ = *from++;
    return to;
}

TFKD_INLINE int16_t *tfkd_fill(int16_t *to, int16_t value, int32_t count) {
    for (; count > 0; count--) *to++ = value;
    return to;
}

/* One receptive field of one group, whose corner lies at (y, x), into a column. */
TFKD_INLINE void tfkd_column(const tfkd_convolution_params *p, const int8_t *in, int32_t y, int32_t x, int16_t *to) {
    const int32_t part = p->group_channels;
    if (p->kernel_height == 1 && p->kernel_width == 1) {
        tfkd_widen(to, in + (y * p->width + x) * p->channels, part);
        return;
    }
    for (int32_t ky = 0; ky < p->kernel_height; ky++, y += p->dilation_height) {
        if (y < 0 || y >= p->height) {
            to = tfkd_fill(to, p->zero_point, p->kernel_width * part);
        } else if (p->dilation_width == 1 && p->groups == 1) {
            const int32_t left = x < 0 ? -x : 0, over = x + p->kernel_width - p->width;
            const int32_t first = left < p->kernel_width ? left : p->kernel_width;
            const int32_t last = over > 0 ? p->kernel_width - over : p->kernel_width;
            to = tfkd_fill(to, p->zero_point, first * part);
            if (last > first) to = tfkd_widen(to, in + (y * p->width + x + first) * part, (last - first) * part);
            if (over > 0) to = tfkd_fill(to, p->zero_point, (p->kernel_width - (last > first ? last : first)) * part);
        } else {
            for (int32_t kx = 0, at = x; kx < p->kernel_width; kx++, at += p->dilation_width) {
                if (at < 0 || at >= p->width) to = tfkd_fill(to, p->zero_point, part);
                else to = tfkd_widen(to, in + (y * p->width + at) * p->channels, part);
            }
        }
    }
}

/* Two columns times all channels of a group; `both` is 0 when only the first column counts. */
TFKD_INLINE void tfkd_columns_times_weights(const tfkd_convolution_params *p, int32_t group, const int16_t *columns,
                                            int8_t *out, int both, int flags) {
    const int32_t part = p->group_out_channels, depth = p->depth;
    const int16_t *weights = p->weights + group * ((part + 1) / 2) * depth;
    int8_t *out2 = both ? out + p->out_channels : out;
    const int32_t zero_point = p->out_zero_point, least = p->least, most = p->most;
    for (int32_t c = group * part, end = c + part; c < end; c += 2) {
        const int16_t *x0 = columns, *x1 = columns + depth, *stop = x1;
        int32_t packed0 = 0, packed1 = 0, first0 = 0, first1 = 0;
#if TFKD_DSP
        if (!(flags & TFKD_WIDE)) do {
            const uint32_t w = tfkd_load4(weights), v = tfkd_load4(weights + 2);
            uint32_t low = tfkd_even(w), a = tfkd_load4(x0), b = tfkd_load4(x1);
            packed0 = tfkd_mac2(a, w, packed0);
            first0 = tfkd_mac2(a, low, first0);
            packed1 = tfkd_mac2(b, w, packed1);
            first1 = tfkd_mac2(b, low, first1);
            low = tfkd_even(v), a = tfkd_load4(x0 + 2), b = tfkd_load4(x1 + 2);
            packed0 = tfkd_mac2(a, v, packed0);
            first0 = tfkd_mac2(a, low, first0);
            packed1 = tfkd_mac2(b, v, packed1);
            first1 = tfkd_mac2(b, low, first1);
            weights += 4, x0 += 4, x1 += 4;
        } while (x0 != stop);
#endif
        while (x0 != stop) {
            const int32_t w = *weights++, low = (int8_t)w, a = *x0++, b = *x1++;
            const int32_t high = flags & TFKD_WIDE ? (int8_t)((w - low) >> 8) : w;
            packed0 += a * high;
            packed1 += b * high;
            first0 += a * low;
            first1 += b * low;
        }
        const int32_t bias = p->bias[c], multiplier = p->multiplier[c], shift = p->shift[c];
        const int32_t second0 = flags & TFKD_WIDE ? packed0 : tfkd_second(packed0, first0);
        const int32_t second1 = flags & TFKD_WIDE ? packed1 : tfkd_second(packed1, first1);
        *out2++ = (int8_t)tfkd_requantize(first1 + bias, multiplier, shift, zero_point, least, most, flags);
        *out++ = (int8_t)tfkd_requantize(first0 + bias, multiplier, shift, zero_point, least, most, flags);
        if (c + 1 < end) {
            const int32_t bias1 = p->bias[c + 1], multiplier1 = p->multiplier[c + 1], shift1 = p->shift[c + 1];
            *out2++ = (int8_t)tfkd_requantize(second1 + bias1, multiplier1, shift1, zero_point, least, most, flags);
            *out++ = (int8_t)tfkd_requantize(second0 + bias1, multiplier1, shift1, zero_point, least, most, flags);
        }
    }
}

TFKD_INLINE void tfkd_convolution(const tfkd_convolution_params *p, const int8_t *in, int8_t *out, int16_t *columns,
                                  int flags) {
    for (int32_t group = 0; group < p->groups; group++) {
        const int8_t *from = in + group * p->group_channels;
        int8_t *to = out + group * p->group_out_channels;
        int waiting = 0;
        tfkd_fill(columns, 0, 2 * p->depth); /* the places beyond a field's end stay 0 */
        for (int32_t y = 0; y < p->out_height; y++) {
            for (int32_t x = 0; x < p->out_width; x++) {
                tfkd_column(p, from, y * p->stride_height - p->pad_top, x * p->stride_width - p->pad_left,
                            columns + (waiting ? p->depth : 0));
                waiting = !waiting;
                if (!waiting) {
                    tfkd_columns_times_weights(p, group, columns, to, 1, flags);
                    to += 2 * p->out_channels;
                }
            }
        }
        if (waiting) tfkd_columns_times_weights(p, group, columns, to, 0, flags);
    }
}
