/* FULLY_CONNECTED, int8: input [rows, depth], output [rows, channels]. */
typedef struct {
    const int16_t *weights; /* [blocks, values / 4, 4 pairs of channels, 4 values in order 0 2 1 3]: see tfkd_second */
    const int32_t *bias;    /* the input's zero point is folded in */
    const int32_t *multiplier; /* one, or one a channel */
    const int8_t *shift;
    int32_t rows, depth, channels;
    int8_t per_channel, out_zero_point, least, most;
} tfkd_fully_connected_params;

#if TFKD_DSP
#define TFKD_DOT_PAIR(packed, first)                                                         \
    "ldrd r12, lr, [r1], #8\n"                                                               \
    "smlad " packed ", r10, r12, " packed "\n sxtb16 r12, r12\n"                             \
    "smlad " packed ", r11, lr, " packed "\n sxtb16 lr, lr\n"                                \
    "smlad " first ", r10, r12, " first "\n smlad " first ", r11, lr, " first "\n"
#define TFKD_DOT_4                                                                           \
    "ldr r12, [r0], #4\n sxtb16 r10, r12\n sxtb16 r11, r12, ror #8\n"                        \
    TFKD_DOT_PAIR("r2", "r3") TFKD_DOT_PAIR("r4", "r5")                                      \
    TFKD_DOT_PAIR("r6", "r7") TFKD_DOT_PAIR("r8", "r9")

/* One row times eight channels, over a multiple of 4 values. sums: for each pair the packed sum and the first's. */
TFKD_ASSEMBLY void tfkd_dot(const int8_t *in, const int16_t *weights, const int8_t *stop, int32_t sums[8]) {
    __asm__ volatile(
        "push {r2, r3, r4-r11, lr}\n"
        "movs r2, #0\n movs r3, #0\n movs r4, #0\n movs r5, #0\n movs r6, #0\n movs r7, #0\n"
        "mov r8, r2\n mov r9, r2\n"
        "ldr r12, [sp]\n subs r12, r12, r0\n beq 2f\n tst r12, #4\n bne 3f\n"
        "1:\n" TFKD_DOT_4 "3:\n" TFKD_DOT_4
        "ldr r12, [sp]\n cmp r0, r12\n bne 1b\n"
        "2:\n"
        "ldr r12, [sp, #4]\n stm r12, {r2-r9}\n"
        "pop {r2, r3, r4-r11, pc}\n");
}
#endif

#if TFKD_THUMB1
/* One row times one pair of channels, over a multiple of 4 values. sums: the packed sum and the first's. */
TFKD_ASSEMBLY void tfkd_row(const int8_t *in, const int16_t *weights, const int8_t *stop, int32_t sums[2]) {
    __asm__ volatile(
        ".syntax unified\n"
        "push {r4-r7, lr}\n mov r12, r2\n mov lr, r3\n movs r2, #0\n movs r3, #0\n cmp r0, r12\n beq 2f\n"
        "1:\n"
        ".irp at, 0, 1\n"
        "ldr r5, [r1, #4*\\at]\n ldrb r4, [r0, #\\at]\n sxtb r4, r4\n"
        "sxth r6, r5\n muls r6, r4, r6\n adds r2, r2, r6\n"
        "sxtb r6, r5\n muls r6, r4, r6\n adds r3, r3, r6\n"
        "asrs r5, r5, #16\n ldrb r4, [r0, #\\at+2]\n sxtb r4, r4\n"
        "sxtb r6, r5\n muls r6, r4, r6\n adds r3, r3, r6\n"
        "muls r5, r4, r5\n adds r2, r2, r5\n"
        ".endr\n"
        "adds r0, r0, #4\n adds r1, r1, #32\n cmp r0, r12\n bne 1b\n"
        "2:\n"
        "mov r4, lr\n stm r4!, {r2, r3}\n"
        "pop {r4-r7, pc}\n");
}
#endif

/* Adds the products of one pair of channels with four values. */
TFKD_INLINE void tfkd_dot_pair(const int16_t *w, const int8_t *in, int32_t count, int32_t sums[2], int flags) {
    int32_t packed = sums[0], first = sums[1];
    for (; count > 0; count -= 4, in += 4, w += 16) {
        const int32_t even = TFKD_WORD(w, 0), odd = TFKD_WORD(w, 1);
        const int32_t weights[4] = {(int16_t)even, (int16_t)odd, even >> 16, odd >> 16};
        for (int32_t i = 0; i < 4; i++) {
            if (i && i >= count) break;
            const int32_t weight = weights[i], low = (int8_t)weight, x = in[i];
            packed += x * (flags & TFKD_WIDE ? (int8_t)((weight - low) >> 8) : weight);
            first += x * low;
        }
    }
    sums[0] = packed, sums[1] = first;
}

TFKD_INLINE void tfkd_fully_connected(const tfkd_fully_connected_params *p, const int8_t *in, int8_t *out, int flags) {
    const int32_t zero_point = p->out_zero_point, least = p->least, most = p->most, step = p->per_channel;
    const int32_t whole = p->depth & ~3, block = ((p->depth + 3) / 4) * 16;
    for (int32_t row = 0; row < p->rows; row++, in += p->depth) {
        const int16_t *weights = p->weights;
        const int32_t *bias = p->bias, *end = bias + p->channels, *multiplier = p->multiplier;
        const int8_t *shift = p->shift;
        for (int32_t c = 0; c < p->channels; c += 8, weights += block) {
            int32_t sums[8];
            for (int i = 0; i < 8; i++) sums[i] = 0;
#if TFKD_DSP
            if (!(flags & TFKD_WIDE)) tfkd_dot(in, weights, in + whole, sums);
            else
#endif
                for (int32_t i = 0; i < 4 && c + 2 * i < p->channels; i++) {
#if TFKD_THUMB1
                    if (!(flags & TFKD_WIDE)) tfkd_row(in, weights + 4 * i, in + whole, sums + 2 * i);
                    else
#endif
                        tfkd_dot_pair(weights + 4 * i, in, whole, sums + 2 * i, flags);
                }
            if (whole < p->depth)
                for (int32_t i = 0; i < 4 && c + 2 * i < p->channels; i++)
                    tfkd_dot_pair(weights + 4 * whole + 4 * i, in + whole, p->depth - whole, sums + 2 * i, flags);
            for (const int32_t *sum = sums; sum < sums + 8 && bias < end; sum += 2) {
                *out++ = (int8_t)tfkd_output(sum, 0, *bias++, *multiplier, *shift, zero_point, least, most, flags);
                multiplier += step, shift += step;
                if (bias >= end) break;
                *out++ = (int8_t)tfkd_output(sum, 1, *bias++, *multiplier, *shift, zero_point, least, most, flags);
                multiplier += step, shift += step;
            }
        }
    }
}
