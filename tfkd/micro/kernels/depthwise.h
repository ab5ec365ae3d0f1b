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
    /* copies, as a compiler must think that the output may overwrite the parameters */
    const int32_t height = p->out_height, width = p->out_width, rows = p->kernel_height, columns = p->kernel_width;
    const int32_t next = p->stride_width, tap = p->dilation_width, row = p->dilation_height * p->plane_width;
    const int32_t zero_point = p->out_zero_point, least = p->least, most = p->most;
    for (int32_t y = 0; y < height; y++) {
        const int16_t *corner = plane + y * p->stride_height * p->plane_width;
        for (int32_t x = 0; x < width; x++, corner += next) {
            const int8_t *w = weights;
            int32_t sum = bias;
            for (int32_t ky = 0; ky < rows; ky++) {
                const int16_t *from = corner + ky * row;
                for (int32_t kx = 0; kx < columns; kx++, from += tap) sum += *from * *w++;
            }
            *out = (int8_t)tfkd_requantize(sum, multiplier, shift, zero_point, least, most, flags);
            out += step;
        }
    }
}

#if TFKD_DSP
TFKD_INLINE uint32_t tfkd_pair(int32_t low, int32_t high) {
    return ((uint32_t)low & 0xffffu) | ((uint32_t)high << 16);
}

TFKD_INLINE int8_t tfkd_depthwise_output(int32_t sum, int32_t multiplier, int32_t shift, int32_t zero_point,
                                         int32_t least, int32_t most, int flags) {
    return (int8_t)(TFKD_DOUBLED(flags) ? tfkd_requantize_twice(sum, multiplier, shift, zero_point, least, most, flags)
                                      : tfkd_requantize(sum, multiplier, shift, zero_point, least, most, flags));
}

/* Rows of 3x3 outputs; the weights and the bias are times two. */
typedef struct {
    const int16_t *end;                      /* of the first of three rows, for this row of outputs */
    int32_t bias, multiplier, shift, offset; /* offset: 2 * zero point + 1 */
    int8_t *out;
    int32_t step; /* from one output to the next */
    const int16_t *from;
    int32_t row, skip, next, out_skip, rows; /* bytes; skip and next: from a row's end to the next's start and end */
    uint32_t weights[6];
} tfkd_rows_params;

/* One row of the window at stride 2, for the output in r3; at stride 1, also for the next in r12. */
#define TFKD_ONE(at, low, high)                                                                            \
    "ldrd r10, r11, [" at "], #4\n smlad r3, r10, " low ", r3\n smlabt r3, r11, " high ", r3\n"
#define TFKD_TWO(at, low, high)                                                                            \
    TFKD_ONE(at, low, high) "smlatb r12, r10, " low ", r12\n smlad r12, r11, " high ", r12\n"
#define TFKD_TIMES(x) "smmulr " x ", " x ", r10\n"
#define TFKD_NARROW(x) "asr " x ", " x ", r10\n add " x ", " x ", r11\n ssat " x ", #8, " x ", asr #1\n"
#define TFKD_FOR_ONE(do) do("r3")
#define TFKD_FOR_TWO(do) do("r3") do("r12")
#define TFKD_ROWS(name, taps, each, sign, put)                                                             \
    TFKD_ASSEMBLY void name(tfkd_rows_params *p) {                                                         \
        __asm__ volatile(                                                                                  \
            "push {r4-r11, lr}\n mov lr, r0\n add r0, lr, #52\n ldm r0, {r4-r9}\n"                          \
            "ldrd r0, r1, [lr, #28]\n add r2, r0, r1, lsl #1\n add r1, r0, r1\n"                            \
            "1:\n ldr r3, [lr, #4]\n mov r12, r3\n"                                                        \
            taps("r0", "r4", "r5") taps("r1", "r6", "r7") taps("r2", "r8", "r9")                           \
            "ldr r10, [lr, #8]\n" each(TFKD_TIMES) each(sign)                                              \
            "ldrd r10, r11, [lr, #12]\n" each(TFKD_NARROW)                                                 \
            "ldrd r10, r11, [lr, #20]\n strb r3, [r10]\n" put "str r10, [lr, #20]\n"                   \
            "ldr r11, [lr]\n cmp r0, r11\n bne 1b\n"                                                       \
            "ldrd r3, r12, [lr, #36]\n add r0, r0, r3\n add r1, r1, r3\n add r2, r2, r3\n"                  \
            "add r11, r11, r12\n str r11, [lr]\n"                                                          \
            "ldrd r3, r12, [lr, #44]\n add r10, r10, r3\n str r10, [lr, #20]\n"                            \
            "subs r12, r12, #1\n str r12, [lr, #48]\n bne 1b\n pop {r4-r11, pc}\n");                       \
    }
#define TFKD_PUT_ONE "add r10, r10, r11\n"
#define TFKD_PUT_TWO "strb r12, [r10, r11]\n add r10, r10, r11, lsl #1\n"
TFKD_ROWS(tfkd_rows_stride2, TFKD_ONE, TFKD_FOR_ONE, TFKD_AS_IS, TFKD_PUT_ONE)
TFKD_ROWS(tfkd_rows_stride2_signed, TFKD_ONE, TFKD_FOR_ONE, TFKD_AWAY, TFKD_PUT_ONE)
TFKD_ROWS(tfkd_rows, TFKD_TWO, TFKD_FOR_TWO, TFKD_AS_IS, TFKD_PUT_TWO)
TFKD_ROWS(tfkd_rows_signed, TFKD_TWO, TFKD_FOR_TWO, TFKD_AWAY, TFKD_PUT_TWO)

/* 3x3 without dilation, by pairs of neighbours in a row. */
TFKD_INLINE void tfkd_depthwise_3x3(const tfkd_depthwise_params *p, const int8_t *w, const int16_t *plane, int8_t *out,
                                    int32_t c, int flags) {
    const int32_t step = p->channels * p->channel_multiplier, row = p->plane_width, times = TFKD_DOUBLED(flags) ? 2 : 1;
    const int32_t bias = times * p->bias[c], multiplier = p->multiplier[c], shift = p->shift[c];
    const int32_t zero_point = p->out_zero_point, least = p->least, most = p->most;
    const uint32_t a01 = tfkd_pair(times * w[0], times * w[1]), a12 = tfkd_pair(times * w[1], times * w[2]);
    const uint32_t b01 = tfkd_pair(times * w[3], times * w[4]), b12 = tfkd_pair(times * w[4], times * w[5]);
    const uint32_t c01 = tfkd_pair(times * w[6], times * w[7]), c12 = tfkd_pair(times * w[7], times * w[8]);
    const int32_t height = p->out_height, width = p->out_width, next_row = p->stride_height * row;
    const int32_t stride = p->stride_width;
    int32_t done = 0; /* outputs of each row, by the faster form */
    if (TFKD_DOUBLED(flags) && !(flags & TFKD_CLAMP) && (stride == 2 || (stride == 1 && width >= 2))) {
        done = stride == 2 ? width : width & ~1;
        const int32_t count = done * stride;
        tfkd_rows_params rows = {plane + count, bias, multiplier, shift, 2 * zero_point + 1, out, step, plane,
                                 2 * row, 2 * (next_row - count), 2 * next_row, (width - done) * step, height,
                                 {a01, a12, b01, b12, c01, c12}};
        if (stride == 2 && flags & TFKD_SIGNED) tfkd_rows_stride2_signed(&rows);
        else if (stride == 2) tfkd_rows_stride2(&rows);
        else if (flags & TFKD_SIGNED) tfkd_rows_signed(&rows);
        else tfkd_rows(&rows);
        if (done == width) return;
    }
    for (int32_t y = 0; y < height; y++, plane += next_row) {
        const int16_t *from = plane + done * stride;
        int32_t x = width - done;
        out += done * step;
        if (stride == 1) {
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
                *out = tfkd_depthwise_output(sum, multiplier, shift, zero_point, least, most, flags);
                out += step;
                *out = tfkd_depthwise_output(next, multiplier, shift, zero_point, least, most, flags);
                out += step;
            }
        }
        for (; x > 0; x--, from += stride) {
            int32_t sum = tfkd_mac_low_high(tfkd_load4(from + 2), a12, tfkd_mac2(tfkd_load4(from), a01, bias));
            sum = tfkd_mac2(tfkd_load4(from + row), b01, sum);
            sum = tfkd_mac_low_high(tfkd_load4(from + row + 2), b12, sum);
            sum = tfkd_mac2(tfkd_load4(from + 2 * row), c01, sum);
            sum = tfkd_mac_low_high(tfkd_load4(from + 2 * row + 2), c12, sum);
            *out = tfkd_depthwise_output(sum, multiplier, shift, zero_point, least, most, flags);
            out += step;
        }
    }
}
#endif

TFKD_INLINE void tfkd_depthwise(const tfkd_depthwise_params *p, const int8_t *in, int8_t *out, int16_t *plane,
                                int flags) {
    const int32_t taps = p->kernel_height * p->kernel_width, step = p->channels;
    for (int32_t i = 0; i < p->plane_height * p->plane_width; i++) plane[i] = p->zero_point;
    /* a plane may end before the input does, where the kernel never reaches its last rows */
    const int32_t rows = tfkd_clamp(p->plane_height - p->pad_top, 0, p->height);
    const int32_t columns = tfkd_clamp(p->plane_width - p->pad_left, 0, p->width);
    const int32_t skip = (p->width - columns) * step, over = p->plane_width - columns, channels = p->channels;
    int16_t *corner = plane + p->pad_top * p->plane_width + p->pad_left;
    for (int32_t c = 0; c < channels; c++) {
        const int8_t *at = in + c;
        int16_t *to = corner;
        for (int32_t y = rows; y > 0; y--, at += skip, to += over) {
            int32_t x = columns;
            for (; x >= 4; x -= 4, at += 4 * step, to += 4)
                to[0] = at[0], to[1] = at[step], to[2] = at[2 * step], to[3] = at[3 * step];
            for (; x > 0; x--, at += step) *to++ = *at;
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
