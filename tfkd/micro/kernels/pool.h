/* AVERAGE_POOL_2D and MAX_POOL_2D, int8: padding does not count. */
typedef struct {
    int16_t height, width, channels, out_height, out_width;
    int16_t kernel_height, kernel_width, stride_height, stride_width, pad_top, pad_left;
    int8_t least, most;
} tfkd_pool_params;

TFKD_INLINE void tfkd_pool(const tfkd_pool_params *p, const int8_t *in, int8_t *out, int average) {
    for (int32_t oy = 0; oy < p->out_height; oy++) {
        const int32_t y = oy * p->stride_height - p->pad_top;
        const int32_t top = y < 0 ? 0 : y, bottom = y + p->kernel_height < p->height ? y + p->kernel_height : p->height;
        for (int32_t ox = 0; ox < p->out_width; ox++) {
            const int32_t x = ox * p->stride_width - p->pad_left;
            const int32_t left = x < 0 ? 0 : x, right = x + p->kernel_width < p->width ? x + p->kernel_width : p->width;
            /* half by a shift: from count / 2 and -(count / 2) clang makes a division by 2 or -2, which M0+ has not */
            const int32_t count = (bottom - top) * (right - left), half = count >> 1;
            for (int32_t c = 0; c < p->channels; c++) {
                int32_t result = average ? 0 : INT8_MIN;
                for (int32_t iy = top; iy < bottom; iy++) {
                    const int8_t *from = in + (iy * p->width + left) * p->channels + c;
                    for (int32_t ix = left; ix < right; ix++, from += p->channels) {
                        if (average) result += *from;
                        else if (*from > result) result = *from;
                    }
                }
                if (average) result = tfkd_divide(result > 0 ? result + half : result - half, count);
                *out++ = (int8_t)tfkd_clamp(result, p->least, p->most);
            }
        }
    }
}

TFKD_INLINE void tfkd_average_pool(const tfkd_pool_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    tfkd_pool(p, in, out, 1);
}

TFKD_INLINE void tfkd_max_pool(const tfkd_pool_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    tfkd_pool(p, in, out, 0);
}
