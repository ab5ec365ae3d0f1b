/* RESIZE_NEAREST_NEIGHBOR, int8 or int16, and RESIZE_BILINEAR, int8: the bits of TensorFlow Lite Micro's
 * reference_ops::ResizeNearestNeighbor and ResizeBilinearInteger. The source index of each output row and column is
 * computed when the code is generated.
 * TFKD_VALUE, the element type, is int8_t or int16_t (values_int8.h, values_int16.h); int16 has zero point 0.
 *
 *   input    [1, height, width, channels]
 *   output   [1, out height, out width, channels] */
#include "arithmetic.h"

typedef struct {
    const int32_t *rows, *columns; /* for each row, column of the output, its offset in the input, in elements */
    int32_t channels, out_height, out_width;
} TFKD_NAME(resize_nearest_params);

TFKD_INLINE void TFKD_NAME(resize_nearest)(const TFKD_NAME(resize_nearest_params) *p, const TFKD_VALUE *in,
                                           TFKD_VALUE *out, int flags) {
    (void)flags;
    for (int32_t y = 0; y < p->out_height; y++)
        for (int32_t x = 0; x < p->out_width; x++, out += p->channels)
            memcpy(out, in + p->rows[y] + p->columns[x], (size_t)p->channels * sizeof *out);
}

typedef struct {
    const int32_t *row_first, *row_second, *column_first, *column_second; /* offsets of the two neighbours */
    const int16_t *row_fraction, *column_fraction;                        /* weight of the second, in 1/1024 */
    int32_t channels, out_height, out_width;
} TFKD_NAME(resize_bilinear_params);

TFKD_INLINE void TFKD_NAME(resize_bilinear)(const TFKD_NAME(resize_bilinear_params) *p, const TFKD_VALUE *in,
                                            TFKD_VALUE *out, int flags) {
    (void)flags;
    for (int32_t y = 0; y < p->out_height; y++) {
        const TFKD_VALUE *upper = in + p->row_first[y], *lower = in + p->row_second[y];
        const int32_t down = p->row_fraction[y], up = 1024 - down;
        for (int32_t x = 0; x < p->out_width; x++) {
            const int32_t first = p->column_first[x], second = p->column_second[x];
            const int32_t right = p->column_fraction[x], left = 1024 - right;
            for (int32_t c = 0; c < p->channels; c++) {
                const int32_t before = upper[first + c] * up + lower[first + c] * down;
                const int32_t after = upper[second + c] * up + lower[second + c] * down;
                const int32_t sum = before * left + after * right;
                *out++ = (TFKD_VALUE)((sum + (sum > 0 ? 1 << 19 : -(1 << 19))) / (1 << 20));
            }
        }
    }
}
