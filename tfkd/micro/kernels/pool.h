/* AVERAGE_POOL_2D and MAX_POOL_2D, int8 or int16: the bits of TensorFlow Lite Micro's
 * reference_integer_ops::AveragePool and MaxPool. Padding takes no part: an average divides by the number of values
 * within the image.
 * TFKD_VALUE, the element type, is int8_t or int16_t (values_int8.h, values_int16.h); int16 has zero point 0.
 *
 *   input    [1, height, width, channels]
 *   output   [1, out height, out width, channels] */
#include "arithmetic.h"
#include "arm_helium.h"

typedef struct {
    int16_t height, width, channels, out_height, out_width;
    int16_t kernel_height, kernel_width, stride_height, stride_width, pad_top, pad_left;
    TFKD_VALUE least, most;
} TFKD_NAME(pool_params);

/* sum / count; half: half of the count. unsigned_values: 1 rounds halves of an average up, as if the values were unsigned,
 * instead of away from 0. */
TFKD_INLINE int32_t TFKD_NAME(mean)(int32_t sum, int32_t count, int32_t half, int unsigned_values) {
    if (unsigned_values) return tfkd_divide(sum + 128 * count + half, count) - 128;
    return tfkd_divide(sum > 0 ? sum + half : sum - half, count);
}

/* unsigned_values: see above. */
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
            int32_t c = 0;
#if TFKD_MVE
            /* int8: the largest values of 16 channels, or the sums of four */
            for (; sizeof(TFKD_VALUE) == 1 && c < p->channels; c += average ? 4 : 16) {
                const int8_t *from = (const int8_t *)(const void *)in + (top * p->width + left) * p->channels + c;
                const uint32_t rest = (uint32_t)(p->channels - c);
                const mve_pred16_t words = vctp32q(rest), bytes = vctp8q(rest);
                const int32_t skip = (p->width - right + left) * p->channels;
                int32x4_t sums = vdupq_n_s32(0);
                int8x16_t largest = vdupq_n_s8(-128);
                for (int32_t iy = top; iy < bottom; iy++, from += skip)
                    for (int32_t ix = left; ix < right; ix++, from += p->channels) {
                        if (average) sums = vaddq_s32(sums, vldrbq_z_s32(from, words));
                        else largest = vmaxq_s8(largest, vldrbq_z_s8(from, bytes));
                    }
                int8_t *to = (int8_t *)(void *)out + c;
                if (average) {
                    int32_t each[4];
                    vstrwq_s32(each, sums);
                    for (int32_t i = 0; i < 4; i++) each[i] = TFKD_NAME(mean)(each[i], count, half, unsigned_values);
                    const int32x4_t low = vdupq_n_s32(p->least), high = vdupq_n_s32(p->most);
                    vstrbq_p_s32(to, vminq_s32(vmaxq_s32(vldrwq_s32(each), low), high), words);
                } else {
                    largest = vminq_s8(vmaxq_s8(largest, vdupq_n_s8((int8_t)p->least)), vdupq_n_s8((int8_t)p->most));
                    vstrbq_p_s8(to, largest, bytes);
                }
            }
            if (c) out += p->channels;
#endif
            for (; c < p->channels; c++) {
                int32_t result = average ? 0 : TFKD_VALUE_MIN;
                for (int32_t iy = top; iy < bottom; iy++) {
                    const TFKD_VALUE *from = in + (iy * p->width + left) * p->channels + c;
                    for (int32_t ix = left; ix < right; ix++, from += p->channels) {
                        if (average) result += *from;
                        else if (*from > result) result = *from;
                    }
                }
                if (average) result = TFKD_NAME(mean)(result, count, half, unsigned_values);
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
