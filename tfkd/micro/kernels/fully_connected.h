/* FULLY_CONNECTED, int8: input [rows, depth], output [rows, channels]. */
typedef struct {
    const int16_t *weights; /* [blocks of 4 channels, blocks of 4 values, 8]: see tfkd_second; values in order 0 2 1 3 */
    const int32_t *bias;    /* the input's zero point is folded in */
    const int32_t *multiplier; /* one, or one a channel */
    const int8_t *shift;
    int32_t rows, depth, channels;
    int8_t per_channel, out_zero_point, least, most;
} tfkd_fully_connected_params;

TFKD_INLINE void tfkd_fully_connected_4(const tfkd_fully_connected_params *p, const int16_t *weights, const int8_t *in,
                                        int32_t sums[4], int flags) {
    int32_t packed0 = 0, packed1 = 0, first0 = 0, first1 = 0, left = p->depth;
#if TFKD_DSP
    for (; !(flags & TFKD_WIDE) && left > 0; weights += 8, in += 4, left -= 4) {
        uint32_t word;
        if (left >= 4) {
            word = tfkd_load4(in);
        } else {
            word = 0;
            for (int32_t i = 0; i < left; i++) word |= (uint32_t)(uint8_t)in[i] << (8 * i);
        }
        const uint32_t even = tfkd_even(word), odd = tfkd_odd(word);
        uint32_t w = tfkd_load4(weights), low = tfkd_even(w);
        packed0 = tfkd_mac2(even, w, packed0);
        first0 = tfkd_mac2(even, low, first0);
        w = tfkd_load4(weights + 2), low = tfkd_even(w);
        packed0 = tfkd_mac2(odd, w, packed0);
        first0 = tfkd_mac2(odd, low, first0);
        w = tfkd_load4(weights + 4), low = tfkd_even(w);
        packed1 = tfkd_mac2(even, w, packed1);
        first1 = tfkd_mac2(even, low, first1);
        w = tfkd_load4(weights + 6), low = tfkd_even(w);
        packed1 = tfkd_mac2(odd, w, packed1);
        first1 = tfkd_mac2(odd, low, first1);
    }
#endif
    for (; left > 0; weights += 8, in += 4, left -= 4) {
        for (int32_t i = 0; i < 4 && i < left; i++) {
            const int32_t at = (i >> 1) + ((i & 1) << 1), x = in[i]; /* 0 2 1 3 */
            const int32_t w = weights[at], low = (int8_t)w, v = weights[4 + at], low1 = (int8_t)v;
            packed0 += x * (flags & TFKD_WIDE ? (int8_t)((w - low) >> 8) : w);
            packed1 += x * (flags & TFKD_WIDE ? (int8_t)((v - low1) >> 8) : v);
            first0 += x * low;
            first1 += x * low1;
        }
    }
    sums[0] = first0, sums[1] = flags & TFKD_WIDE ? packed0 : tfkd_second(packed0, first0);
    sums[2] = first1, sums[3] = flags & TFKD_WIDE ? packed1 : tfkd_second(packed1, first1);
}

TFKD_INLINE void tfkd_fully_connected(const tfkd_fully_connected_params *p, const int8_t *in, int8_t *out, int flags) {
    const int32_t block = ((p->depth + 3) / 4) * 8;
    for (int32_t row = 0; row < p->rows; row++, in += p->depth) {
        const int16_t *weights = p->weights;
        for (int32_t c = 0; c < p->channels; c += 4, weights += block) {
            int32_t sums[4];
            tfkd_fully_connected_4(p, weights, in, sums, flags);
            for (int32_t i = 0; i < 4 && c + i < p->channels; i++) {
                const int32_t at = p->per_channel ? c + i : 0;
                *out++ = (int8_t)tfkd_requantize(sums[i] + p->bias[c + i], p->multiplier[at], p->shift[at],
                                                 p->out_zero_point, p->least, p->most, flags);
            }
        }
    }
}
