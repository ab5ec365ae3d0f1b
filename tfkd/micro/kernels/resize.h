/* RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR, int8. Where values come from is known when the code is generated. */
typedef struct {
    const int32_t *rows, *columns; /* for each of the output's, where it starts in the input */
    int32_t channels, out_height, out_width;
} tfkd_resize_nearest_params;

TFKD_INLINE void tfkd_resize_nearest(const tfkd_resize_nearest_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    for (int32_t y = 0; y < p->out_height; y++)
        for (int32_t x = 0; x < p->out_width; x++, out += p->channels)
            memcpy(out, in + p->rows[y] + p->columns[x], (size_t)p->channels * sizeof *out);
}

typedef struct {
    const int32_t *row_first, *row_second, *column_first, *column_second; /* where the two neighbours start */
    const int16_t *row_fraction, *column_fraction;                        /* of the second, in 1/1024 */
    int32_t channels, out_height, out_width;
} tfkd_resize_bilinear_params;

TFKD_INLINE void tfkd_resize_bilinear(const tfkd_resize_bilinear_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    for (int32_t y = 0; y < p->out_height; y++) {
        const int8_t *upper = in + p->row_first[y], *lower = in + p->row_second[y];
        const int32_t down = p->row_fraction[y], up = 1024 - down;
        for (int32_t x = 0; x < p->out_width; x++) {
            const int32_t first = p->column_first[x], second = p->column_second[x];
            const int32_t right = p->column_fraction[x], left = 1024 - right;
            for (int32_t c = 0; c < p->channels; c++) {
                const int32_t before = upper[first + c] * up + lower[first + c] * down;
                const int32_t after = upper[second + c] * up + lower[second + c] * down;
                const int32_t sum = before * left + after * right;
                *out++ = (int8_t)((sum + (sum > 0 ? 1 << 19 : -(1 << 19))) / (1 << 20));
            }
        }
    }
}
