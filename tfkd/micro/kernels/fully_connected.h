/* FULLY_CONNECTED int8: the bits of TensorFlow Lite Micro's reference_integer_ops::FullyConnected and
 * FullyConnectedPerChannel.
 *
 *   input    [rows, depth] int8
 *   weights  [channels, depth] int8, symmetric, one scale or one per channel
 *   output   [rows, channels] int8
 *
 * Eight channels, four pairs, are computed at a time. Their packed weights (see tfkd_second in arithmetic.h) are one
 * block; of each four values the weights lie in the order 0 2 1 3 (see arm_dsp.h):
 *
 *   block   values 0 2 1 3 of pair 0 | of pair 1 | of pair 2 | of pair 3 | values 4 6 5 7 of pair 0 | ...
 *
 * On cores with vectors the same block lies in another order, see arm_helium_fully_connected.h. */
#include "arithmetic.h"
#include "arm_dsp_fully_connected.h"
#include "arm_helium_fully_connected.h"
#include "arm_thumb1_fully_connected.h"
#include "packed_weights.h"

typedef struct {
    const int16_t *weights; /* [blocks, depth / 4 rounded up, 4 pairs of channels, 4 values] */
    const int32_t *bias;    /* the input's zero point is folded in */
    const int32_t *multiplier; /* one, or one per channel */
    const int8_t *shift;
    int32_t rows, depth, channels;
    int8_t per_channel, out_zero_point, least, most;
} tfkd_fully_connected_params;

#if TFKD_MVE
TFKD_INLINE void tfkd_fully_connected(const tfkd_fully_connected_params *p, const int8_t *in, int8_t *out, int flags) {
    const int32_t channels = p->channels, depth = p->depth, block = (depth + 3) / 4 * 8, step = p->per_channel;
    const int32_t *weights = (const int32_t *)(const void *)p->weights;
    for (int32_t row = 0; row < p->rows; row++, in += depth, out += channels)
        for (int32_t c = 0; c < channels; c += 4) {
            const mve_pred16_t some = vctp32q((uint32_t)(channels - c));
            int32x4_t x = tfkd_dot_4(in, weights + (c >> 3) * block + (c & 4), depth);
            x = vaddq_s32(x, vldrwq_z_s32(p->bias + c, some));
            int32x4_t multiplier = vdupq_n_s32(*p->multiplier), shift = vdupq_n_s32(*p->shift);
            if (step) multiplier = vldrwq_z_s32(p->multiplier + c, some), shift = vldrbq_z_s32(p->shift + c, some);
            x = tfkd_requantize_4(x, multiplier, tfkd_exponents(shift, flags), p->out_zero_point, p->least, p->most,
                                  flags);
            vstrbq_p_s32(out + c, x, some);
        }
}
#else
/* Adds the products of `count` values, one row of inputs, with one pair of channels of a block. sums: packed sum (with
 * TFKD_WIDE the second channel's sum), first channel's sum. */
TFKD_INLINE void tfkd_dot_pair(const int16_t *w, const int8_t *in, int32_t count, int32_t sums[2], int flags) {
    int32_t packed = sums[0], first = sums[1];
#if TFKD_DSP
    for (; flags & TFKD_WIDE && count >= 4; count -= 4, in += 4, w += 16) {
        const uint32_t x = tfkd_load4(in), xs[2] = {tfkd_even(x), tfkd_odd(x)};
        for (int32_t i = 0; i < 2; i++) {
            const uint32_t weights = (uint32_t)TFKD_WORD(w, i);
            first = tfkd_mac2(xs[i], tfkd_even(weights), first);
            /* (256 * second + first + 128) >> 8 = second */
            packed = tfkd_mac2(xs[i], tfkd_odd(tfkd_sum_of_halves(weights, 0x00800080u)), packed);
        }
    }
#endif
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
        int32_t c = 0;
#if TFKD_DSP && !defined(__OPTIMIZE_SIZE__)
        if (TFKD_FAST(flags) && !step && whole && whole == p->depth && *shift <= 20 && p->channels >= 8) {
            tfkd_blocks_params blocks = {in, in + whole, weights, bias, out, *multiplier, *shift,
                                         (int32_t)((uint32_t)(2 * zero_point + 1) << *shift), p->channels / 8};
            if (flags & TFKD_SIGNED) tfkd_blocks_signed(&blocks);
            else tfkd_blocks(&blocks);
            c = p->channels & ~7, out += c, bias += c, weights = blocks.weights;
        }
#endif
        for (; c < p->channels; c += 8, weights += block) {
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
#endif
