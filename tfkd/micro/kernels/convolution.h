/* CONV_2D, int8. Input [h, w, c], output [h, w, c]. Three receptive fields at a time are widened to 16 bits, as columns
 * that take turns by two values, and multiplied with two output channels at a time. All that is read of them is read
 * before their outputs are written, so that a pixel's output may overwrite the pixel. */
typedef struct {
    const int16_t *weights;  /* [groups, pairs of channels, depth / 2, 2]: see tfkd_second */
    const int32_t *pairs;    /* [groups, pairs of channels, 7]: see tfkd_pair_bias and tfkd_pair_shift; the first channel's
                              * multiplier and the second's; for the fast form what they add before the shift */
    int16_t height, width, channels, out_height, out_width, out_channels;
    int16_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int16_t pad_top, pad_left;
    int16_t groups, group_channels, group_out_channels;
    int16_t depth; /* values of a receptive field and group, rounded up to a multiple of 4 */
    int8_t zero_point, out_zero_point, least, most;
} tfkd_convolution_params;

/* Where value k of a column lies. */
TFKD_INLINE int32_t tfkd_place(int32_t k) { return (k >> 1) * 6 + (k & 1); }

/* A run of values that lie together: fours of them, each in the order 0 2 1 3, from value k of the column on, and the
 * last, of fewer than four, from value `rest` on. */
TFKD_INLINE void tfkd_widen(int16_t *column, int32_t k, int32_t rest, const int8_t *from, int32_t count) {
    for (int16_t *to = column + 3 * k; count >= 4; count -= 4, from += 4, to += 12) {
#if TFKD_DSP
        const uint32_t word = tfkd_load4(from);
        tfkd_store4(to, tfkd_even(word));
        tfkd_store4(to + 6, tfkd_odd(word));
#else
        to[0] = from[0], to[1] = from[2], to[6] = from[1], to[7] = from[3];
#endif
    }
    for (; count > 0; count--, rest++) column[tfkd_place(rest)] = *from++;
}

TFKD_INLINE void tfkd_fill(int16_t *column, int32_t k, int32_t rest, int16_t value, int32_t count) {
    for (int16_t *to = column + 3 * k; count >= 4; count -= 4, to += 12) to[0] = to[1] = to[6] = to[7] = value;
    for (; count > 0; count--, rest++) column[tfkd_place(rest)] = value;
}

/* One receptive field of one group, whose corner lies at (y, x), into a column. */
TFKD_NOINLINE static void tfkd_column(const tfkd_convolution_params *p, const int8_t *in, int32_t y, int32_t x, int16_t *to) {
    /* copies, as a compiler must think that the column may overwrite the parameters */
    const int32_t part = p->group_channels, height = p->height, width = p->width, columns = p->kernel_width;
    const int32_t dilation = p->dilation_width, next = p->dilation_height, channels = p->channels;
    const int together = dilation == 1 && part == channels, within = together && x >= 0 && x + columns <= width;
    const int32_t run = together ? columns * part : part, runs = p->kernel_height * (together ? 1 : columns);
    const int16_t zero_point = p->zero_point;
    int32_t k = 0, rest = runs * (run & ~3);
    for (const int32_t end = y + p->kernel_height * next; y < end; y += next) {
        const int inside = y >= 0 && y < height, whole = together && (within || !inside);
        if (whole || !together || !(part & 3)) {
            const int32_t size = whole ? run : part;
            for (int32_t i = whole ? 1 : columns, at = x; i > 0; i--, at += dilation) {
                if (inside && (whole || (at >= 0 && at < width)))
                    tfkd_widen(to, k, rest, in + (y * width + at) * channels, size);
                else tfkd_fill(to, k, rest, zero_point, size);
                k += size & ~3, rest += size & 3;
            }
        } else {
            for (int32_t i = 0, at = x * part; i < run; i++, at++) {
                const int32_t swapped = (i & ~3) | (i & 1) << 1 | (i >> 1 & 1);
                const int32_t place = tfkd_place(i < (run & ~3) ? k + swapped : rest + (i & 3));
                to[place] = at < 0 || at >= width * part ? zero_point : in[y * width * part + at];
            }
            k += run & ~3, rest += run & 3;
        }
    }
}

#if TFKD_DSP
/* Four values of three columns (r8 to r10) times those of a pair of channels (r11, r12), onto r2 to r7: for each column
 * the packed sum and the first channel's. In 68 bytes, of which an entry skips some. */
#define TFKD_TRIPLE(w)                                                                                     \
    "ldm r0!, {r8-r10}\n"                                                                                  \
    "smlad r2, r8, " w ", r2\n smlad r4, r9, " w ", r4\n smlad r6, r10, " w ", r6\n sxtb16 " w ", " w "\n"  \
    "smlad r3, r8, " w ", r3\n smlad r5, r9, " w ", r5\n smlad r7, r10, " w ", r7\n"
#define TFKD_FOUR "ldrd r11, r12, [r1], #8\n" TFKD_TRIPLE("r11") TFKD_TRIPLE("r12")
#define TFKD_FOUR_BYTES 68

/* Three columns times a pair of channels. */
TFKD_ASSEMBLY void tfkd_tile(const int16_t *columns, const int16_t *weights, const int16_t *stop, int32_t sums[6]) {
    __asm__ volatile(
        "push {r3, r4-r11, lr}\n mov lr, r2\n"
        "movs r2, #0\n movs r3, #0\n movs r4, #0\n movs r5, #0\n movs r6, #0\n movs r7, #0\n"
        "1:\n" TFKD_FOUR "cmp r0, lr\n bne 1b\n"
        "ldr r0, [sp]\n stm r0, {r2-r7}\n"
        "pop {r3, r4-r11, pc}\n");
}

/* Pairs of channels in three columns, from their biases to their outputs. */
typedef struct {
    const int16_t *columns, *stop; /* the columns' end */
    int32_t skip;                  /* bytes of the unrolled steps that come before the second four values */
    const int32_t *pairs;          /* of the layer, from the group's first on */
    int8_t *out;
    int32_t step, step2; /* from the first column's output to the second's and third's; 0 for those that do not count */
    const int16_t *weights;
} tfkd_pairs_params;

/* Of the first channel twice the sum is multiplied, of the second 256 times the sum, whose high half so has 7 bits more.
 * Signed: see TFKD_AWAY. */
#define TFKD_NARROW(x) "asr " x ", " x ", r0\n ssat " x ", #8, " x ", asr #1\n"
#define TFKD_FIRST_ONE_SHIFT(x) "lsl " x ", " x ", r0\n smmla " x ", " x ", r10, r12\n ssat " x ", #8, " x ", asr #11\n"
#define TFKD_FIRST(x) "lsl " x ", " x ", #1\n smmlar " x ", " x ", r10, r12\n" TFKD_NARROW(x)
#define TFKD_SECOND(x) "smmla " x ", " x ", r11, lr\n" TFKD_NARROW(x)
#define TFKD_ADD(x, offset) TFKD_AWAY(x) "add " x ", " x ", " offset "\n" TFKD_NARROW(x)
#define TFKD_FIRST_SIGNED(x) "lsl " x ", " x ", #1\n smmulr " x ", " x ", r10\n" TFKD_ADD(x, "r12")
#define TFKD_SECOND_SIGNED(x) "asr " x ", " x ", #7\n smmulr " x ", " x ", r11\n" TFKD_ADD(x, "lr")
#define TFKD_LESS_BITS "subs r0, r0, #7\n asr lr, lr, #7\n"
#ifdef __OPTIMIZE_SIZE__
#define TFKD_STEPS 2
#define TFKD_REPEATED ".rept 2\n"
#else
#define TFKD_STEPS 16
#define TFKD_REPEATED ".rept 16\n"
#endif
#define TFKD_SKIP(depth)                                                                                   \
    (((depth) > 4 ? ((4 - (depth)) / 4) & (TFKD_STEPS - 1) : TFKD_STEPS) * TFKD_FOUR_BYTES)
#define TFKD_PAIRS(name, first, bits, second)                                                              \
    TFKD_ASSEMBLY void name(const tfkd_pairs_params *p) {                                                  \
        __asm__ volatile(                                                                                  \
            "push {r4-r11, lr}\n ldm r0, {r1-r8}\n sub sp, #28\n stm sp, {r1-r7}\n"                            \
            "mov r1, r8\n mov r8, r4\n mov r9, r5\n"                                                       \
            "0:\n ldm r8!, {r2, r3}\n strd r8, r9, [sp, #12]\n"                                            \
            "ldrd r0, lr, [sp]\n ldrd r11, r12, [r1], #8\n ldm r0!, {r8-r10}\n"                            \
            "smlad r4, r9, r11, r2\n smlad r6, r10, r11, r2\n smlad r2, r8, r11, r2\n sxtb16 r11, r11\n"    \
            "smlad r5, r9, r11, r3\n smlad r7, r10, r11, r3\n smlad r3, r8, r11, r3\n"                      \
            TFKD_TRIPLE("r12") "ldr r12, [sp, #8]\n add pc, r12\n nop\n"                                   \
            "1:\n" TFKD_REPEATED TFKD_FOUR ".endr\n cmp r0, lr\n bne 1b\n"                                 \
            "ldrd r8, r9, [sp, #12]\n ldm r8!, {r0, r10-r12, lr}\n"                                        \
            "subs r2, r2, r3\n subs r4, r4, r5\n subs r6, r6, r7\n"                                        \
            first("r3") first("r5") first("r7") "asrs r0, r0, #8\n" bits                                   \
            second("r2") second("r4") second("r6")                                                         \
            "ldrd r10, r11, [sp, #20]\n"                                                                   \
            "bfi r7, r6, #8, #8\n strh r7, [r9, r11]\n bfi r5, r4, #8, #8\n strh r5, [r9, r10]\n"           \
            "bfi r3, r2, #8, #8\n strh r3, [r9], #2\n"                                                     \
            "cmp r0, #0\n bge 0b\n"                                                                        \
            "add sp, #28\n pop {r4-r11, pc}\n");                                                           \
    }
TFKD_PAIRS(tfkd_pairs_one_shift, TFKD_FIRST_ONE_SHIFT, "", TFKD_SECOND)
TFKD_PAIRS(tfkd_pairs, TFKD_FIRST, "", TFKD_SECOND)
TFKD_PAIRS(tfkd_pairs_signed, TFKD_FIRST_SIGNED, TFKD_LESS_BITS, TFKD_SECOND_SIGNED)
#endif

#if TFKD_THUMB1
#define TFKD_LANE_FOUR(at)                                                                                 \
    ".irp at, " at "\n"                                                                                    \
    "ldr r4, [r0, #12*\\at]\n ldr r5, [r1, #4*\\at]\n sxth r7, r4\n"                                        \
    "sxth r6, r5\n muls r6, r7, r6\n adds r2, r2, r6\n sxtb r6, r5\n muls r6, r7, r6\n adds r3, r3, r6\n"   \
    "asrs r4, r4, #16\n asrs r5, r5, #16\n"                                                                \
    "sxtb r6, r5\n muls r6, r4, r6\n adds r3, r3, r6\n muls r5, r4, r5\n adds r2, r2, r5\n"                \
    ".endr\n"
/* One column times one pair of channels, whose weights end at `stop`. sums: the packed sum and the first's. */
TFKD_ASSEMBLY void tfkd_lane(const int16_t *column, const int16_t *weights, const int16_t *stop, int32_t sums[2]) {
    __asm__ volatile(
        ".syntax unified\n"
        "push {r4-r7, lr}\n mov r12, r2\n mov lr, r3\n subs r4, r2, r1\n movs r2, #0\n movs r3, #0\n"
        "lsls r4, r4, #28\n bpl 1f\n subs r0, r0, #24\n subs r1, r1, #8\n b 2f\n"
        "1:\n" TFKD_LANE_FOUR("0, 1") "2:\n" TFKD_LANE_FOUR("2, 3")
        "adds r0, r0, #48\n adds r1, r1, #16\n cmp r1, r12\n blo 1b\n"
        "mov r4, lr\n stm r4!, {r2, r3}\n"
        "pop {r4-r7, pc}\n");
}
#endif

/* A column times a pair of channels, whose weights end at `stop`. sums: the packed sum and the first's. */
TFKD_INLINE void tfkd_column_times_pair(const int16_t *x, const int16_t *w, const int16_t *stop, int32_t sums[2],
                                        int flags) {
    int32_t packed = 0, first = 0;
#if TFKD_THUMB1
    if (!(flags & TFKD_WIDE)) {
        tfkd_lane(x, w, stop, sums);
        return;
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
        x += 6, w += 2;
    } while (w < stop);
    sums[0] = packed, sums[1] = first;
}

/* A pair's biases, with the input's zero point folded in: the first's is word 1. */
TFKD_INLINE int32_t tfkd_pair_bias(const int32_t *pair, int second, int flags) {
    if (!second) return pair[1];
    return TFKD_FAST(flags) ? tfkd_second(pair[0], pair[1]) : pair[0];
}

/* A pair's shifts: bytes 0 and 1 of word 2, whose sign ends a group's pairs. In the fast form the second is larger by 7,
 * and with one shift of all the first is a shift to the left before. */
TFKD_INLINE int32_t tfkd_pair_shift(const int32_t *pair, int second, int flags) {
    const int32_t shift = (int8_t)(pair[2] >> 8 * second);
    if (!TFKD_FAST(flags)) return shift;
    return second ? shift - 7 : flags & TFKD_ONE_SHIFT ? 11 - shift : shift;
}

/* `count` columns times the channels of a group from channel c, an even one, on. */
TFKD_INLINE void tfkd_columns_times_weights(const tfkd_convolution_params *p, int32_t group, const int16_t *columns,
                                            int8_t *out, int32_t count, int32_t c, int flags) {
    const int32_t part = p->group_out_channels, depth = p->depth, zero_point = p->out_zero_point;
    const int32_t least = p->least, most = p->most, step = p->out_channels, pairs = (part + 1) / 2;
    const int16_t *weights = p->weights + (group * pairs + c / 2) * depth;
    const int32_t *pair = p->pairs + (group * pairs + c / 2) * 7;
    for (; c < part; c += 2, weights += depth, pair += 7) {
        int32_t sums[6];
#if TFKD_DSP
        if (!(flags & TFKD_WIDE)) tfkd_tile(columns, weights, columns + 3 * depth, sums);
        else
#endif
            for (int32_t i = 0; i < count; i++)
                tfkd_column_times_pair(columns + 2 * i, weights, weights + depth, sums + 2 * i, flags);
        int8_t *to = out + c;
        for (int32_t i = 0; i < count; i++, to += step)
            for (int second = 0; second < 2 && c + second < part; second++)
                to[second] = (int8_t)tfkd_output(sums + 2 * i, second, tfkd_pair_bias(pair, second, flags),
                                                 pair[3 + second], tfkd_pair_shift(pair, second, flags), zero_point,
                                                 least, most, flags);
    }
}

#if TFKD_DSP
/* How three receptive fields within the image become columns. */
typedef struct {
    int32_t step, rest_at;           /* bytes between the fields; from the columns to their last values, less than four a run */
    int32_t fours, rest, next, runs; /* of a run; bytes from its end to the next one's start; runs of a field */
} tfkd_three_params;

TFKD_ASSEMBLY void tfkd_widen_three(int16_t *columns, const int8_t *from, const tfkd_three_params *p) {
    __asm__ volatile(
        "push {r4-r11, lr}\n ldm r2, {r2-r7}\n push {r4-r7}\n"
        "add r12, r1, r2\n add lr, r12, r2\n add r11, r0, r3\n movs r3, #8\n"
        "1:\n ldr r10, [sp]\n cmp r10, #0\n beq 3f\n"
        "2:\n ldr r4, [r1], #4\n ldr r5, [r12], #4\n ldr r6, [lr], #4\n"
        "sxtb16 r7, r4, ror #8\n sxtb16 r8, r5, ror #8\n sxtb16 r9, r6, ror #8\n"
        "sxtb16 r4, r4\n sxtb16 r5, r5\n sxtb16 r6, r6\n"
        "stm r0!, {r4-r9}\n subs r10, r10, #1\n bne 2b\n"
        "3:\n ldr r10, [sp, #4]\n cmp r10, #0\n beq 5f\n"
        "4:\n ldrsb r4, [r1], #1\n ldrsb r5, [r12], #1\n ldrsb r6, [lr], #1\n"
        "strh r4, [r11]\n strh r5, [r11, #4]\n strh r6, [r11, #8]\n"
        "eor r3, r3, #8\n add r11, r11, r3\n adds r11, r11, #2\n subs r10, r10, #1\n bne 4b\n"
        "5:\n ldrd r4, r5, [sp, #8]\n add r1, r1, r4\n add r12, r12, r4\n add lr, lr, r4\n"
        "subs r5, r5, #1\n str r5, [sp, #12]\n bne 1b\n"
        "add sp, #16\n pop {r4-r11, pc}\n");
}
#endif

TFKD_INLINE void tfkd_convolution(const tfkd_convolution_params *p, const int8_t *in, int8_t *out, int16_t *columns,
                                  int flags) {
    const int32_t down = p->stride_height, right = p->stride_width, top = p->pad_top, left = p->pad_left;
    const int32_t row = p->width * p->channels, step = p->channels * right;
    const int32_t part = p->group_channels, out_channels = p->out_channels, groups = p->groups;
    int32_t height = p->out_height, width = p->out_width;
    /* no window, and so no padding beside one pixel: then a column is just that pixel */
    const int pixel = p->kernel_height == 1 && p->kernel_width == 1 && !top && !left &&
                      (height - 1) * down < p->height && (width - 1) * right < p->width;
    if (pixel && row * down == width * step) width *= height, height = 1;
#if TFKD_DSP
    /* outputs of a row whose fields lie within the image's width, and their values in three columns */
    const int together = p->kernel_width == 1 || (p->dilation_width == 1 && part == p->channels);
    const int32_t run = p->kernel_width * part, most = p->width - p->kernel_width + left;
    const int32_t begin = (left + right - 1) / right, end = pixel ? width : most < 0 ? 0 : most / right + 1;
    const int32_t stop = !together ? 0 : end < width ? end : width, reach = (p->kernel_height - 1) * p->dilation_height;
    const tfkd_three_params three = {step, p->kernel_height * (run & ~3) * 6, run >> 2, run & 3,
                                     row * p->dilation_height - run, p->kernel_height};
#endif
    const int32_t group_out = p->group_out_channels;
    const int32_t whole = TFKD_DSP && TFKD_FAST(flags) ? group_out / 2 : 0; /* pairs of the fast form */
    for (int32_t group = 0; group < groups; group++) {
        const int8_t *from = in + group * part;
        int8_t *to = out + group * group_out;
        int32_t waiting = 0;
#if TFKD_DSP
        const int32_t first = group * ((group_out + 1) / 2);
        tfkd_pairs_params pairs = {columns, columns + 3 * p->depth, TFKD_SKIP(p->depth), p->pairs + first * 7,
                                   to, out_channels, 2 * out_channels, p->weights + first * p->depth};
#endif
        memset(columns, 0, (size_t)p->depth * 6); /* the places beyond a field's end stay 0 */
        for (int32_t y = 0; y < height; y++) {
            const int32_t corner = y * down - top, at = corner * row - left * p->channels;
#if TFKD_DSP
            const int32_t far = corner >= 0 && corner + reach < p->height ? stop - 2 : 0;
#endif
            for (int32_t x = 0; x < width; x++) {
#if TFKD_DSP
                if (!waiting && x >= begin && x < far) {
                    tfkd_widen_three(columns, from + at + x * step, &three);
                    waiting = 3, x += 2;
                } else
#endif
                if (pixel) tfkd_widen(columns + 2 * waiting++, 0, part & ~3, from + at + x * step, part);
                else tfkd_column(p, from, corner, x * right - left, columns + 2 * waiting++);
                if (waiting < 3 && (x < width - 1 || y < height - 1)) continue;
#if TFKD_DSP
                if (whole) {
                    pairs.out = to;
                    if (waiting < 3) pairs.step2 = 0, pairs.step = waiting < 2 ? 0 : out_channels;
                    if (flags & TFKD_SIGNED) tfkd_pairs_signed(&pairs);
                    else if (flags & TFKD_ONE_SHIFT) tfkd_pairs_one_shift(&pairs);
                    else tfkd_pairs(&pairs);
                }
#endif
                if (2 * whole < group_out) tfkd_columns_times_weights(p, group, columns, to, waiting, 2 * whole, flags);
                to += waiting * out_channels, waiting = 0;
            }
        }
    }
}
