/* CONV_2D, int8. Input [h, w, c], output [h, w, c]. Two receptive fields at a time are widened to 16 bits, as columns
 * that take turns by two values, and multiplied with four output channels at a time. */
typedef struct {
    const int16_t *weights; /* [groups, blocks, depth / 2, 2 pairs of channels, 2]: see tfkd_second */
    const int32_t *bias;    /* the input's zero point is folded in */
    const int32_t *multiplier;
    const int8_t *shift;
    int16_t height, width, channels, out_height, out_width, out_channels;
    int16_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int16_t pad_top, pad_left;
    int16_t groups, group_channels, group_out_channels;
    int16_t depth; /* values of a receptive field and group, rounded up to a multiple of 8 */
    int8_t zero_point, out_zero_point, least, most;
} tfkd_convolution_params;

/* Where value k of a column lies. */
TFKD_INLINE int32_t tfkd_place(int32_t k, int flags) {
    if (flags & TFKD_SWAPPED) k = (k & ~3) | (k & 1) << 1 | (k >> 1 & 1);
    return (k >> 1) * 4 + (k & 1);
}

TFKD_INLINE int32_t tfkd_widen(int16_t *column, int32_t k, const int8_t *from, int32_t count, int flags) {
    const int32_t end = k + count;
#if TFKD_DSP
    if (!(flags & TFKD_SWAPPED) && (k & 1) && k < end) column[tfkd_place(k++, flags)] = *from++;
    for (int16_t *to = column + 2 * k; k + 4 <= end; k += 4, from += 4, to += 8) {
        const uint32_t word = tfkd_load4(from), even = tfkd_even(word), odd = tfkd_odd(word);
        if (flags & TFKD_SWAPPED) {
            tfkd_store4(to, even);
            tfkd_store4(to + 4, odd);
        } else {
            tfkd_store4(to, (even & 0xffffu) | (odd << 16));
            tfkd_store4(to + 4, (even >> 16) | (odd & 0xffff0000u));
        }
    }
#endif
    for (; k < end; k++) column[tfkd_place(k, flags)] = *from++;
    return k;
}

TFKD_INLINE int32_t tfkd_fill(int16_t *column, int32_t k, int16_t value, int32_t count) {
    for (const int32_t end = k + count; k < end; k++) column[(k >> 1) * 4 + (k & 1)] = value;
    return k;
}

/* One receptive field of one group, whose corner lies at (y, x), into a column. */
TFKD_INLINE void tfkd_column(const tfkd_convolution_params *p, const int8_t *in, int32_t y, int32_t x, int16_t *to,
                             int flags) {
    /* copies, as a compiler must think that the column may overwrite the parameters */
    const int32_t part = p->group_channels, height = p->height, width = p->width, columns = p->kernel_width;
    const int32_t dilation = p->dilation_width, next = p->dilation_height, channels = p->channels;
    const int32_t left = x < 0 ? -x : 0, over = x + columns - width;
    const int32_t first = left < columns ? left : columns, last = over > 0 ? columns - over : columns;
    const int16_t zero_point = p->zero_point;
    int32_t k = 0;
    for (const int32_t end = y + p->kernel_height * next; y < end; y += next) {
        if (y < 0 || y >= height) {
            k = tfkd_fill(to, k, zero_point, columns * part);
        } else if (dilation == 1 && part == channels) {
            if (first > 0) k = tfkd_fill(to, k, zero_point, first * part);
            if (last > first) k = tfkd_widen(to, k, in + (y * width + x + first) * part, (last - first) * part, flags);
            if (over > 0) k = tfkd_fill(to, k, zero_point, (columns - (last > first ? last : first)) * part);
        } else {
            for (int32_t kx = 0, at = x; kx < columns; kx++, at += dilation) {
                if (at < 0 || at >= width) k = tfkd_fill(to, k, zero_point, part);
                else k = tfkd_widen(to, k, in + (y * width + at) * channels, part, flags);
            }
        }
    }
}

#if TFKD_DSP
/* Eight values of both columns (r10, r11) times those of two pairs of channels (r12, lr), onto r2 to r9. */
#define TFKD_TILE_STEPS                                                                                    \
    ".rept 4\n"                                                                                            \
    "ldrd r10, r11, [r0], #8\n ldrd r12, lr, [r1], #8\n"                                                   \
    "smlad r2, r10, r12, r2\n smlad r4, r11, r12, r4\n sxtb16 r12, r12\n"                                  \
    "smlad r6, r10, lr, r6\n smlad r8, r11, lr, r8\n sxtb16 lr, lr\n"                                      \
    "smlad r3, r10, r12, r3\n smlad r5, r11, r12, r5\n smlad r7, r10, lr, r7\n smlad r9, r11, lr, r9\n"     \
    ".endr\n"
#endif

/* Two columns times four channels. sums: for each pair of channels and column, the packed sum and the first's. */
#if TFKD_DSP
TFKD_ASSEMBLY void tfkd_tile(const int16_t *columns, const int16_t *weights, const int16_t *stop, int32_t sums[8]) {
    __asm__ volatile(
        "push {r2, r3, r4-r11, lr}\n"
        "movs r2, #0\n movs r3, #0\n movs r4, #0\n movs r5, #0\n movs r6, #0\n movs r7, #0\n"
        "mov r8, r2\n mov r9, r2\n"
        "1:\n"
        TFKD_TILE_STEPS
        "ldr r12, [sp]\n cmp r0, r12\n bne 1b\n"
        "ldr r12, [sp, #4]\n stm r12, {r2-r9}\n"
        "pop {r2, r3, r4-r11, pc}\n");
}
#endif

#if TFKD_THUMB1
/* One column times one pair of channels. sums: the packed sum and the first's. */
TFKD_ASSEMBLY void tfkd_lane(const int16_t *column, const int16_t *weights, const int16_t *stop, int32_t sums[2]) {
    __asm__ volatile(
        ".syntax unified\n"
        "push {r4-r7, lr}\n mov r12, r2\n mov lr, r3\n movs r2, #0\n movs r3, #0\n"
        "1:\n"
        ".irp at, 0, 8, 16, 24\n"
        "ldr r4, [r0, #\\at]\n ldr r5, [r1, #\\at]\n sxth r7, r4\n"
        "sxth r6, r5\n muls r6, r7, r6\n adds r2, r2, r6\n"
        "sxtb r6, r5\n muls r6, r7, r6\n adds r3, r3, r6\n"
        "asrs r4, r4, #16\n asrs r5, r5, #16\n"
        "sxtb r6, r5\n muls r6, r4, r6\n adds r3, r3, r6\n"
        "muls r5, r4, r5\n adds r2, r2, r5\n"
        ".endr\n"
        "adds r0, r0, #32\n adds r1, r1, #32\n cmp r0, r12\n blo 1b\n"
        "mov r4, lr\n stm r4!, {r2, r3}\n"
        "pop {r4-r7, pc}\n");
}
#endif

TFKD_INLINE void tfkd_tile_portable(const int16_t *columns, const int16_t *weights, const int16_t *stop,
                                    int32_t sums[8], int flags) {
    for (int i = 0; i < 4; i++) {
        const int16_t *x = columns + 2 * (i & 1), *w = weights + 2 * (i >> 1);
        int32_t packed = 0, first = 0;
#if TFKD_THUMB1
        if (!(flags & TFKD_WIDE)) {
            tfkd_lane(x, w, stop, sums + 2 * i);
            continue;
        }
#endif
        do {
            const int32_t xs = TFKD_WORD(x, 0), ws = TFKD_WORD(w, 0);
            int32_t value = (int16_t)xs, weight = (int16_t)ws, low = (int8_t)weight;
            packed += value * (flags & TFKD_WIDE ? (int8_t)((weight - low) >> 8) : weight);
            first += value * low;
            value = xs >> 16, weight = ws >> 16, low = (int8_t)weight;
            packed += value * (flags & TFKD_WIDE ? (int8_t)((weight - low) >> 8) : weight);
            first += value * low;
            x += 4, w += 4;
        } while (x < stop);
        sums[2 * i] = packed, sums[2 * i + 1] = first;
    }
}

#if TFKD_DSP
/* Blocks of four channels in both columns, from their sums to their outputs. */
typedef struct {
    const int16_t *stop; /* the columns' end */
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    int32_t offset; /* 2 * zero point + 1 */
    int8_t *out, *out2;
    const int16_t *columns, *weights;
    int32_t blocks;
} tfkd_blocks_params;

/* bias + 2 * sum of channel i in both columns, times its multiplier; the shifts of all four lie in r12. */
#define TFKD_SCALE(left, right, twice, sign)                                                               \
    "ldr r0, [r10], #4\n ldr r1, [r11], #4\n lsls r0, r0, #1\n"                                            \
    "add " left ", r0, " left ", " twice "\n add " right ", r0, " right ", " twice "\n"                     \
    "smmulr " left ", " left ", r1\n smmulr " right ", " right ", r1\n" sign(left) sign(right)              \
    "asr " left ", " left ", r12\n asr " right ", " right ", r12\n"                                         \
    "add " left ", " left ", lr\n add " right ", " right ", lr\n"                                           \
    "ssat " left ", #8, " left ", asr #1\n ssat " right ", #8, " right ", asr #1\n"
#define TFKD_BLOCKS(name, sign)                                                                            \
    TFKD_ASSEMBLY void name(tfkd_blocks_params *p) {                                                       \
        __asm__ volatile(                                                                                  \
            "ldr r1, [r0]\n push {r0, r1, r4-r11, lr}\n mov r12, r0\n"                                     \
            "0:\n ldrd r0, r1, [r12, #28]\n"                                                              \
            "movs r2, #0\n movs r3, #0\n movs r4, #0\n movs r5, #0\n movs r6, #0\n movs r7, #0\n"          \
            "mov r8, r2\n mov r9, r2\n"                                                                    \
            "1:\n" TFKD_TILE_STEPS "ldr r12, [sp, #4]\n cmp r0, r12\n bne 1b\n"                            \
            "ldr r0, [sp]\n str r1, [r0, #32]\n ldrd r10, r11, [r0, #4]\n"                                 \
            "ldrd r1, lr, [r0, #12]\n ldr r12, [r1], #4\n str r1, [r0, #12]\n"                             \
            "subs r2, r2, r3\n subs r4, r4, r5\n subs r6, r6, r7\n sub r8, r8, r9\n"                        \
            TFKD_SCALE("r3", "r5", "lsl #1", sign) "lsr r12, r12, #8\n"                                    \
            TFKD_SCALE("r2", "r4", "asr #7", sign) "lsr r12, r12, #8\n"                                    \
            TFKD_SCALE("r7", "r9", "lsl #1", sign) "lsr r12, r12, #8\n"                                    \
            TFKD_SCALE("r6", "r8", "asr #7", sign)                                                         \
            "bfi r3, r2, #8, #8\n bfi r3, r7, #16, #8\n bfi r3, r6, #24, #8\n"                             \
            "bfi r5, r4, #8, #8\n bfi r5, r9, #16, #8\n bfi r5, r8, #24, #8\n"                             \
            "ldr r12, [sp]\n strd r10, r11, [r12, #4]\n ldrd r10, r11, [r12, #20]\n"                       \
            "str r5, [r11], #4\n str r3, [r10], #4\n strd r10, r11, [r12, #20]\n"                          \
            "ldr r0, [r12, #36]\n subs r0, r0, #1\n str r0, [r12, #36]\n bne 0b\n"                         \
            "add sp, #8\n pop {r4-r11, pc}\n");                                                           \
    }
TFKD_BLOCKS(tfkd_blocks, TFKD_AS_IS)
TFKD_BLOCKS(tfkd_blocks_signed, TFKD_AWAY)
#endif

/* Two columns times all channels of a group; `both` is 0 when only the first column counts. */
TFKD_INLINE void tfkd_columns_times_weights(const tfkd_convolution_params *p, int32_t group, const int16_t *columns,
                                            int8_t *out, int both, int flags) {
    const int32_t part = p->group_out_channels, depth = p->depth, zero_point = p->out_zero_point;
    const int32_t least = p->least, most = p->most;
    const int16_t *weights = p->weights + group * ((part + 3) / 4) * 2 * depth, *stop = columns + 2 * depth;
    const int32_t *bias = p->bias + group * part, *multiplier = p->multiplier + group * part;
    const int8_t *shift = p->shift + group * part, *end = shift + part;
    int8_t *out2 = both ? out + p->out_channels : out;
#if TFKD_DSP
    if (TFKD_DOUBLED(flags) && !(flags & TFKD_CLAMP) && part >= 4) {
        tfkd_blocks_params blocks = {stop, bias, multiplier, shift, 2 * zero_point + 1, out, out2, columns, weights,
                                     part / 4};
        if (flags & TFKD_SIGNED) tfkd_blocks_signed(&blocks);
        else tfkd_blocks(&blocks);
        weights = blocks.weights, bias = blocks.bias, multiplier = blocks.multiplier, shift = blocks.shift;
        out = blocks.out, out2 = blocks.out2;
    }
#endif
    for (; shift < end; weights += 2 * depth) {
        int32_t sums[8];
#if TFKD_DSP
        if (!(flags & TFKD_WIDE)) tfkd_tile(columns, weights, stop, sums);
        else
#endif
            tfkd_tile_portable(columns, weights, stop, sums, flags);
        for (const int32_t *sum = sums; sum < sums + 8 && shift < end; sum += 4) {
            /* where one column counts, the second's result is written first and then overwritten */
            *out2++ = (int8_t)tfkd_output(sum + 2, 0, *bias, *multiplier, *shift, zero_point, least, most, flags);
            *out++ = (int8_t)tfkd_output(sum, 0, *bias++, *multiplier++, *shift++, zero_point, least, most, flags);
            if (shift >= end) break;
            *out2++ = (int8_t)tfkd_output(sum + 2, 1, *bias, *multiplier, *shift, zero_point, least, most, flags);
            *out++ = (int8_t)tfkd_output(sum, 1, *bias++, *multiplier++, *shift++, zero_point, least, most, flags);
        }
    }
}

TFKD_INLINE void tfkd_convolution(const tfkd_convolution_params *p, const int8_t *in, int8_t *out, int16_t *columns,
                                  int flags) {
    const int32_t height = p->out_height, width = p->out_width, down = p->stride_height, right = p->stride_width;
    const int32_t top = p->pad_top, left = p->pad_left, row = p->width * p->channels * down, step = p->channels * right;
    const int32_t part = p->group_channels, out_channels = p->out_channels, groups = p->groups;
    /* no window, and so no padding beside one pixel: then a column is just that pixel */
    const int pixel = p->kernel_height == 1 && p->kernel_width == 1 && !top && !left &&
                      (height - 1) * down < p->height && (width - 1) * right < p->width;
    for (int32_t group = 0; group < groups; group++) {
        const int8_t *from = in + group * part;
        int8_t *to = out + group * p->group_out_channels;
        int waiting = 0;
        memset(columns, 0, (size_t)p->depth * 4); /* the places beyond a field's end stay 0 */
        for (int32_t y = 0; y < height; y++) {
            const int8_t *at = from + y * row;
            for (int32_t x = 0; x < width; x++, at += step) {
                int16_t *column = columns + (waiting ? 2 : 0);
                if (pixel) tfkd_widen(column, 0, at, part, flags);
                else tfkd_column(p, from, y * down - top, x * right - left, column, flags);
                waiting = !waiting;
                if (!waiting) {
                    tfkd_columns_times_weights(p, group, columns, to, 1, flags);
                    to += 2 * out_channels;
                }
            }
        }
        if (waiting) tfkd_columns_times_weights(p, group, columns, to, 0, flags);
    }
}
