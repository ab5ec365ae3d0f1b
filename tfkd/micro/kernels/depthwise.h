/* DEPTHWISE_CONV_2D, int8: one channel at a time through a padded plane of 16 bits, or four through some of its rows, so
 * that the output may overwrite the input where the shapes agree. */
typedef struct {
    const int8_t *weights; /* [out channels, kernel height, kernel width] */
    const int32_t *bias;   /* the input's zero point is folded in */
    const int32_t *multiplier;
    const int8_t *shift;
    int16_t height, width, channels, out_height, out_width, channel_multiplier;
    int16_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int16_t pad_top, pad_left, plane_height, plane_width; /* of the padded plane; its width is even */
    int16_t row_pairs; /* pairs of the plane's rows, of four channels, for which there is room, or 0 where the form does not apply */
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
/* How pixels become pairs of rows: for each two columns, for each of four channels, two words of an upper and a lower
 * value. Before the columns that come in twos one may be alone, the second of its two, and one after them. */
typedef struct {
    int32_t step;              /* bytes between columns of the upper row; 0 repeats one value */
    int32_t twos, first, last; /* first, last: 1 where a column is alone */
    int32_t step2;             /* of the lower row */
} tfkd_gather_params;

#define TFKD_GATHER_ONE(at)                                                                                \
    "ldr r4, [r0]\n ldr r8, [r1]\n pkhbt r6, r4, r8, lsl #16\n pkhtb r10, r8, r4, asr #16\n"                \
    "sxtb16 r4, r6\n sxtb16 r6, r6, ror #8\n sxtb16 r8, r10\n sxtb16 r10, r10, ror #8\n"                    \
    "str r4, [r2, #" at "]\n str r6, [r2, #" at "+8]\n str r8, [r2, #" at "+16]\n str r10, [r2, #" at "+24]\n"
TFKD_ASSEMBLY void tfkd_gather(const int8_t *upper, const int8_t *lower, uint32_t *to, const tfkd_gather_params *p) {
    __asm__ volatile(
        "push {r4-r11, lr}\n ldm r3, {r3, r9-r12}\n mov lr, r9\n push {r11}\n"
        "cmp r10, #0\n beq 1f\n" TFKD_GATHER_ONE("4") "add r0, r0, r3\n add r1, r1, r12\n adds r2, r2, #32\n"
        "1:\n cmp lr, #0\n beq 3f\n"
        "2:\n"
        "ldr r4, [r0]\n ldr r8, [r1]\n pkhbt r6, r4, r8, lsl #16\n pkhtb r10, r8, r4, asr #16\n"
        "ldr r5, [r0, r3]\n ldr r9, [r1, r12]\n pkhbt r7, r5, r9, lsl #16\n pkhtb r11, r9, r5, asr #16\n"
        "add r0, r0, r3, lsl #1\n add r1, r1, r12, lsl #1\n"
        "sxtb16 r4, r6\n sxtb16 r6, r6, ror #8\n sxtb16 r5, r7\n sxtb16 r7, r7, ror #8\n"
        "sxtb16 r8, r10\n sxtb16 r10, r10, ror #8\n sxtb16 r9, r11\n sxtb16 r11, r11, ror #8\n"
        "stm r2!, {r4-r11}\n subs lr, lr, #1\n bne 2b\n"
        "3:\n pop {r11}\n cmp r11, #0\n beq 4f\n" TFKD_GATHER_ONE("0")
        "4:\n pop {r4-r11, pc}\n");
}

/* Row `row` of the plane and the next, of the four channels that start at `in`. */
TFKD_INLINE void tfkd_gather_rows(const tfkd_depthwise_params *p, const tfkd_gather_params *within, const int8_t *in,
                                  int32_t row, uint32_t *to) {
    const int32_t y = row - p->pad_top, bytes = p->width * within->step, height = p->height;
    const int above = y >= 0 && y < height, below = y + 1 >= 0 && y + 1 < height;
    const uint32_t padding = (uint32_t)(uint8_t)p->zero_point * 0x01010101u;
    const int8_t *upper = above ? in + y * bytes : (const int8_t *)&padding;
    const int8_t *lower = below ? in + (y + 1) * bytes : (const int8_t *)&padding;
    if (above && below) {
        tfkd_gather(upper, lower, to, within);
        return;
    }
    tfkd_gather_params edge = *within;
    if (!above) edge.step = 0;
    if (!below) edge.step2 = 0;
    tfkd_gather(upper, lower, to, &edge);
}

/* Rows of 3x3 outputs of some channels. What counts per channel goes on from one to the next. */
typedef struct {
    int32_t length; /* bytes of a row's columns, but for the last of an odd number of outputs */
    int8_t *out;
    int32_t below, step, odd; /* from an output to the one below, 0 at stride 2; to the next; the same for a last one alone */
    int32_t rows, skip, out_skip, last; /* bytes from a row's end to the next's start; 1: the last has none below */
    int32_t row;                        /* bytes from a pair of rows to the next */
    const int32_t *bias, *multiplier;
    const int8_t *shift, *weights;
    int32_t channels, offset, advance; /* 2 * zero point + 1; bytes from a channel's pairs of rows to the next's */
} tfkd_rows_params;

#define TFKD_SCALE(x) "smmla " x ", " x ", r2, r3\n"
#define TFKD_SCALE_SIGNED(x) "smmulr " x ", " x ", r2\n" TFKD_AWAY(x) "add " x ", " x ", r3\n"
#define TFKD_SHIFT(x) "asr " x ", " x ", r2\n ssat " x ", #8, " x ", asr #1\n"
#define TFKD_LOAD_SHIFT "ldr r2, [sp, #16]\n"
#define TFKD_SHIFT_ONE(x) "ssat " x ", #8, " x ", asr #11\n"
#define TFKD_FOUR(do) do("r10") do("r11") do("r12") do("lr")
/* Two columns in r2, r3 of an upper or lower pair of rows: one instruction multiplies two rows, the other one. */
#define TFKD_LEFT(one, two, w0, w1, s0, s1, s2, s3)                                                        \
    one " r10, r2, " w0 ", " s0 "\n " two " r11, r2, " w0 ", " s1 "\n"                                      \
    one " r12, r3, " w0 ", " s2 "\n " two " lr, r3, " w0 ", " s3 "\n"                                       \
    one " r10, r3, " w1 ", r10\n " two " r11, r3, " w1 ", r11\n"
#define TFKD_RIGHT(one, two, w1, w2)                                                                       \
    one " r10, r2, " w2 ", r10\n " two " r11, r2, " w2 ", r11\n"                                            \
    one " r12, r2, " w1 ", r12\n " two " lr, r2, " w1 ", lr\n"                                              \
    one " r12, r3, " w2 ", r12\n " two " lr, r3, " w2 ", lr\n"
#define TFKD_STRIDE1(scale, load, shift)                                                                          \
    "ldrd r2, r3, [r0], #32\n" TFKD_LEFT("smlad", "smlatb", "r4", "r5", "lr", "lr", "lr", "lr")             \
    "ldrd r2, r3, [r0]\n" TFKD_RIGHT("smlad", "smlatb", "r5", "r6")                                        \
    "ldrd r2, r3, [r1], #32\n" TFKD_LEFT("smlabt", "smlad", "r7", "r8", "r10", "r11", "r12", "lr")          \
    "ldrd r2, r3, [r1]\n" TFKD_RIGHT("smlabt", "smlad", "r8", "r9")                                        \
    "ldrd r2, r3, [sp, #8]\n" TFKD_FOUR(scale) load TFKD_FOUR(shift)                                         \
    "ldrd r2, r3, [sp, #24]\n strb lr, [r2, r3]\n strb r11, [r2]\n"                                        \
    "ldr lr, [sp, #20]\n strb r12, [lr, r3]\n strb r10, [lr]\n"                                            \
    "add r2, r2, r3, lsl #1\n add lr, lr, r3, lsl #1\n strd lr, r2, [sp, #20]\n"
/* Two outputs side by side, of two columns each and one of the next two. */
#define TFKD_SPARSE(one, at, w0, w1, w2, s0, s1)                                                           \
    "ldrd r2, r3, [" at "], #32\n " one " r10, r2, " w0 ", " s0 "\n " one " r10, r3, " w1 ", r10\n"          \
    "ldrd r2, r3, [" at "], #32\n " one " r10, r2, " w2 ", r10\n"                                           \
    one " r11, r2, " w0 ", " s1 "\n " one " r11, r3, " w1 ", r11\n"                                         \
    "ldr r2, [" at "]\n " one " r11, r2, " w2 ", r11\n"
#define TFKD_STRIDE2(scale, load, shift)                                                                          \
    TFKD_SPARSE("smlad", "r0", "r4", "r5", "r6", "lr", "lr")                                               \
    TFKD_SPARSE("smlabt", "r1", "r7", "r8", "r9", "r10", "r11")                                            \
    "ldrd r2, r3, [sp, #8]\n" scale("r10") scale("r11")                                                    \
    load shift("r10") shift("r11")                                                                         \
    "ldrd r2, r3, [sp, #24]\n strb r11, [r2, r3]\n strb r10, [r2]\n"                                       \
    "add r2, r2, r3, lsl #1\n str r2, [sp, #24]\n"
/* Weights w0 and w1 of three columns, which lie in the bytes of r7 to r9, times 256 as halves; or times two. */
#define TFKD_TAPS(first, second, w0, w1, w2)                                                               \
    "pkhbt " w1 ", " first ", " second ", lsl #16\n pkhtb " w2 ", " second ", " first ", asr #16\n"         \
    "lsl " w0 ", " w1 ", #8\n and " w1 ", " w1 ", #0xff00ff00\n and " w0 ", " w0 ", #0xff00ff00\n"          \
    "lsl " w2 ", " w2 ", #8\n and " w2 ", " w2 ", #0xff00ff00\n"
#define TFKD_TAPS_SIGNED(first, second, w0, w1, w2)                                                        \
    "pkhbt " w1 ", " first ", " second ", lsl #16\n pkhtb " w2 ", " second ", " first ", asr #16\n"         \
    "sxtb16 " w0 ", " w1 "\n sxtb16 " w1 ", " w1 ", ror #8\n sxtb16 " w2 ", " w2 "\n"                       \
    "sadd16 " w0 ", " w0 ", " w0 "\n sadd16 " w1 ", " w1 ", " w1 "\n sadd16 " w2 ", " w2 ", " w2 "\n"
/* For one shift of all channels each weight w has as many bits as its channel's shift is less; r12 masks what the lower
 * half loses to the upper. */
#define TFKD_TAP_ONE(w) "lsl " w ", " w ", lr\n and " w ", " w ", r12\n"
#define TFKD_TAPS_ONE(first, second, w0, w1, w2)                                                           \
    "pkhbt " w1 ", " first ", " second ", lsl #16\n pkhtb " w2 ", " second ", " first ", asr #16\n"         \
    "sxtb16 " w0 ", " w1 "\n sxtb16 " w1 ", " w1 ", ror #8\n sxtb16 " w2 ", " w2 "\n"                       \
    TFKD_TAP_ONE(w0) TFKD_TAP_ONE(w1) TFKD_TAP_ONE(w2)
#define TFKD_BITS_ONE                                                                                      \
    "rsb lr, r6, #11\n lsl r4, r4, lr\n movs r3, #1\n lsl r3, r3, lr\n lsl r10, r10, #10\n"               \
    "add r10, r10, r3, lsr #2\n movw r12, #0xffff\n mvn r3, r12\n lsl r3, r3, lr\n orr r12, r12, r3\n"
#define TFKD_BITS "adds r6, r6, #7\n lsl r10, r10, r6\n add r10, r10, #64\n lsl r4, r4, #8\n"
#define TFKD_BITS_SIGNED "lsl r10, r10, r6\n lsl r4, r4, #1\n"
/* On the stack: end of a row's columns, bias, multiplier, offset, shift; out, the one below, and from `step` to `last`;
 * length; `from` and p. */
#define TFKD_ROWS(name, twos, scale, load, shift, bits, taps, advance)                                               \
    TFKD_ASSEMBLY void name(const uint32_t *from, tfkd_rows_params *p) {                                   \
        __asm__ volatile(                                                                                  \
            "push {r0, r1, r4-r11, lr}\n sub sp, #56\n"                                                    \
            "4:\n ldrd r0, r1, [sp, #56]\n ldm r1, {r2-r10}\n"                                             \
            "add r11, r0, r2\n str r11, [sp]\n str r2, [sp, #52]\n"                                        \
            "add r11, r3, #1\n str r11, [r1, #4]\n add r4, r4, r3\n add r12, sp, #20\n stm r12, {r3-r10}\n" \
            "ldrd r2, r3, [r1, #40]\n ldr r4, [r2], #4\n ldr r5, [r3], #4\n strd r2, r3, [r1, #40]\n"       \
            "ldrd r2, r3, [r1, #48]\n ldrsb r6, [r2], #1\n ldr r7, [r3]\n ldr r8, [r3, #3]\n"              \
            "ldr r9, [r3, #5]\n adds r3, r3, #9\n strd r2, r3, [r1, #48]\n lsr r9, r9, #8\n"               \
            "ldrd r10, r11, [r1, #60]\n add r11, r0, r11\n str r11, [sp, #56]\n"                           \
            bits "strd r4, r5, [sp, #4]\n strd r10, r6, [sp, #12]\n"                                       \
            taps("r7", "r8", "r4", "r5", "r6") "mov r10, r8\n" taps("r10", "r9", "r7", "r8", "r11")        \
            "mov r9, r11\n ldr r1, [r1, #36]\n add r1, r0, r1\n"                                           \
            "0:\n ldr lr, [sp, #4]\n"                                                                      \
            "1:\n" twos(scale, load, shift) "ldm sp, {r2, lr}\n cmp r0, r2\n bne 1b\n"                      \
            "ldrd r2, r3, [sp, #28]\n eors r2, r2, r3\n str r2, [sp, #28]\n bne 2f\n"                       \
            "add r2, r0, #" advance "\n str r2, [sp]\n b 1b\n"                                             \
            "2:\n ldrd r2, r3, [sp, #36]\n subs r2, r2, #1\n beq 3f\n str r2, [sp, #36]\n"                  \
            "add r0, r0, r3\n add r1, r1, r3\n ldr r3, [sp, #52]\n add r3, r0, r3\n str r3, [sp]\n"         \
            "ldrd r10, r11, [sp, #20]\n ldrd r3, r12, [sp, #44]\n add r10, r10, r3\n add r11, r11, r3\n"    \
            "cmp r2, r12\n it eq\n moveq r11, r10\n strd r10, r11, [sp, #20]\n b 0b\n"                      \
            "3:\n ldr r1, [sp, #60]\n ldr r2, [r1, #56]\n subs r2, r2, #1\n str r2, [r1, #56]\n bne 4b\n"   \
            "add sp, #64\n pop {r4-r11, pc}\n");                                                           \
    }
#define TFKD_ROWS_OF(stride, name, advance)                                                                \
    TFKD_ROWS(name, stride, TFKD_SCALE, TFKD_LOAD_SHIFT, TFKD_SHIFT, TFKD_BITS, TFKD_TAPS, advance)        \
    TFKD_ROWS(name##_one_shift, stride, TFKD_SCALE, "", TFKD_SHIFT_ONE, TFKD_BITS_ONE, TFKD_TAPS_ONE, advance) \
    TFKD_ROWS(name##_signed, stride, TFKD_SCALE_SIGNED, TFKD_LOAD_SHIFT, TFKD_SHIFT, TFKD_BITS_SIGNED,     \
              TFKD_TAPS_SIGNED, advance)
TFKD_ROWS_OF(TFKD_STRIDE1, tfkd_rows, "32")
TFKD_ROWS_OF(TFKD_STRIDE2, tfkd_rows_stride2, "64")

typedef struct {
    uint32_t words[8]; /* copied at once */
} tfkd_eight;

/* 3x3 at stride 1 or 2, four channels at a time. */
TFKD_INLINE void tfkd_depthwise_3x3(const tfkd_depthwise_params *p, const int8_t *in, int8_t *out, uint32_t *plane,
                                    int flags) {
    const int32_t channels = p->channels, times = p->channel_multiplier, stride = p->stride_width, room = p->row_pairs;
    const int32_t height = p->out_height, all = stride == 2 ? height : (height + 1) >> 1, size = p->plane_width * 4;
    const int32_t step = channels * times, row = p->out_width * step, down = stride == 2 ? row : 2 * row;
    const int32_t twos = p->out_width >> 1, odd = p->out_width & 1, length = 32 * stride * twos;
    const uint32_t padding = ((uint32_t)p->zero_point & 0xffffu) | ((uint32_t)p->zero_point << 16);
    const int32_t left = p->pad_left, count = tfkd_clamp(p->plane_width - left, 0, p->width), alone = left & (count > 0);
    const tfkd_gather_params within = {channels, (count - alone) >> 1, alone, (count - alone) & 1, channels};
    const tfkd_eight margin = {{padding, padding, padding, padding, padding, padding, padding, padding}};
    tfkd_eight *eights = (tfkd_eight *)(void *)plane;
    for (int32_t i = 0; i < size / 8 * (room <= all ? room : all + 1); i++) eights[i] = margin;
    for (int32_t c = 0; c < channels; c += 4) {
        const int32_t first = c + 4 <= channels ? c : channels - 4;
        for (int32_t done = 0, held = 0; done < all;) {
            for (; held < room && done + held <= all; held++)
                tfkd_gather_rows(p, &within, in + first, 2 * (done + held), plane + held * size + (left >> 1) * 8);
            const int32_t rows = held - 1, last = stride == 1 && (height & 1) && done + rows == all;
            for (int32_t i = c; i < first + 4; i = times == 1 ? first + 4 : i + 1) {
                const int32_t o = i * times;
                tfkd_rows_params these = {
                    length, out + done * down + o, stride == 2 || (last && rows == 1) ? 0 : row, step, odd ? step : 0,
                    rows, size * 4 - length - odd * 32 * stride, down - 2 * twos * step, last, size * 4,
                    p->bias + o, p->multiplier + o, p->shift + o, p->weights + 9 * o,
                    times == 1 ? first + 4 - c : times, 2 * p->out_zero_point + 1, times == 1 ? 8 : 0};
                const uint32_t *from = plane + 2 * (i - first);
                if (flags & TFKD_SIGNED)
                    if (stride == 2) tfkd_rows_stride2_signed(from, &these);
                    else tfkd_rows_signed(from, &these);
                else if (flags & TFKD_ONE_SHIFT)
                    if (stride == 2) tfkd_rows_stride2_one_shift(from, &these);
                    else tfkd_rows_one_shift(from, &these);
                else if (stride == 2) tfkd_rows_stride2(from, &these);
                else tfkd_rows(from, &these);
            }
            done += rows;
            for (int32_t i = 0; i < size / 8 && done < all; i++) eights[i] = eights[rows * size / 8 + i];
            held = 1;
        }
    }
}
#endif

TFKD_INLINE void tfkd_depthwise(const tfkd_depthwise_params *p, const int8_t *in, int8_t *out, int16_t *plane,
                                int flags) {
#if TFKD_DSP
    if (TFKD_FAST(flags) && flags & TFKD_BY_ROWS && (!(flags & TFKD_BY_PLANE) || p->row_pairs)) {
        tfkd_depthwise_3x3(p, in, out, (uint32_t *)(void *)plane, flags);
        return;
    }
#endif
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
            tfkd_depthwise_any(p, p->weights + o * taps, plane, out + o, o, flags);
        }
    }
}
