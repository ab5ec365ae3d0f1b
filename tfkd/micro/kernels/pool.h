/* AVERAGE_POOL_2D and MAX_POOL_2D, int8 or int16: the bits of TensorFlow Lite Micro's
 * reference_integer_ops::AveragePool and MaxPool. Padding takes no part: an average divides by the number of values
 * within the image.
 * TFKD_VALUE, the element type, is int8_t or int16_t (values_int8.h, values_int16.h); int16 has zero point 0.
 *
 *   input    [1, height, width, channels]
 *   output   [1, out height, out width, channels] */
#include "arithmetic.h"

typedef struct {
    int16_t height, width, channels, out_height, out_width;
    int16_t kernel_height, kernel_width, stride_height, stride_width, pad_top, pad_left;
    TFKD_VALUE least, most;
} TFKD_NAME(pool_params);

/* unsigned_values: 1 rounds halves of an average up, as if the values were unsigned, instead of away from 0. */
TFKD_INLINE void TFKD_NAME(pool)(const TFKD_NAME(pool_params) *p, const TFKD_VALUE *in, TFKD_VALUE *out, int average,
                                 int unsigned_values) {
    for (int32_t oy = 0; oy < p->out_height; oy++) {
        const int32_t y = oy * p->stride_height - p->pad_top;
        const int32_t top = y < 0 ? 0 : y, bottom = y + p->kernel_height < p->height ? y + p->kernel_height : p->height;
        for (int32_t ox = 0; ox < p->out_width; ox++) {
            const int32_t x = ox * p->stride_width - p->pad_left;
            const int32_t left = x < 0 ? 0 : x, right = x + p->kernel_width < p->width ? x + p->kernel_width : p->width;
            /* a shift, as clang turns count / 2 and -(count / 2) into a call of a division that Cortex-M0+ lacks */
            const int32_t count = (bottom - top) * (right - left), half = count >> 1;
            for (int32_t c = 0; c < p->channels; c++) {
                int32_t result = average ? 0 : TFKD_VALUE_MIN;
                for (int32_t iy = top; iy < bottom; iy++) {
                    const TFKD_VALUE *from = in + (iy * p->width + left) * p->channels + c;
                    for (int32_t ix = left; ix < right; ix++, from += p->channels) {
                        if (average) result += *from;
                        else if (*from > result) result = *from;
                    }
                }
                if (average && unsigned_values) result = tfkd_divide(result + 128 * count + half, count) - 128;
                else if (average) result = tfkd_divide(result > 0 ? result + half : result - half, count);
                *out++ = (TFKD_VALUE)tfkd_clamp(result, p->least, p->most);
            }
        }
    }
}

TFKD_INLINE void TFKD_NAME(average_pool)(const TFKD_NAME(pool_params) *p, const TFKD_VALUE *in, TFKD_VALUE *out,
                                         int flags) {
    TFKD_NAME(pool)(p, in, out, 1, flags);
}

TFKD_INLINE void TFKD_NAME(max_pool)(const TFKD_NAME(pool_params) *p, const TFKD_VALUE *in, TFKD_VALUE *out,
                                     int flags) {
    (void)flags;
    TFKD_NAME(pool)(p, in, out, 0, 0);
}
