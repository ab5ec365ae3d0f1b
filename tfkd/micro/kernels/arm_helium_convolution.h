/* CONV_2D int8 on cores with vectors: what convolution.h is on others.
 *
 * Up to six receptive fields are bytes one after the other in the scratch buffer (`columns`), `depth` bytes each, and are
 * multiplied with four output channels at a time. The values of a column lie as those of the other cores (see
 * convolution.h), but whole fours in the order 0 1 2 3. The weights of two channels a, b, as TFKD_PACKED gives them:
 *
 *   byte      0            4            8            12           ...
 *   channel   a            b            a            b
 *   values    0 1 2 3      0 1 2 3      4 5 6 7      4 5 6 7 */
#include "arm_helium.h"
#include "convolution_params.h"
#include "packed_weights.h"

#if TFKD_MVE
/* Sums of three columns with the channels a and b. For each 16 values, 96 products:
 *
 *   instruction    number  what
 *   vld20, vld21   2       16 weights of each channel
 *   vldrb          3       16 values of each column
 *   vmladava       6       16 products each
 *
 * sums: a and b of the first column; those of the next ones follow at 4 and 8 */
TFKD_INLINE void tfkd_three_times_two(const int8_t *x, const int16_t *packed, int32_t depth, int32_t *sums) {
    const int8_t *y = x + depth, *z = y + depth;
    const int32_t *weights = (const int32_t *)(const void *)packed;
    int32_t xa = 0, xb = 0, ya = 0, yb = 0, za = 0, zb = 0;
    for (int32_t i = depth >> 4; i > 0; i--, weights += 8) {
        const int32x4x2_t both = vld2q_s32(weights);
        const int8x16_t a = vreinterpretq_s8_s32(both.val[0]), b = vreinterpretq_s8_s32(both.val[1]);
        int8x16_t values = vldrbq_s8(x);
        xa = vmladavaq_s8(xa, values, a), xb = vmladavaq_s8(xb, values, b), x += 16;
        values = vldrbq_s8(y);
        ya = vmladavaq_s8(ya, values, a), yb = vmladavaq_s8(yb, values, b), y += 16;
        values = vldrbq_s8(z);
        za = vmladavaq_s8(za, values, a), zb = vmladavaq_s8(zb, values, b), z += 16;
    }
    if (depth & 15) { /* a multiple of 4 */
        const mve_pred16_t some = vctp8q((uint32_t)depth & 15);
        const uint32x4_t at = vidupq_n_u32(0, 8);
        const int8x16_t a = vreinterpretq_s8_s32(vldrwq_gather_offset_z_s32(weights, at, some));
        const int8x16_t b = vreinterpretq_s8_s32(vldrwq_gather_offset_z_s32(weights + 1, at, some));
        int8x16_t values = vldrbq_z_s8(x, some);
        xa = vmladavaq_s8(xa, values, a), xb = vmladavaq_s8(xb, values, b);
        values = vldrbq_z_s8(y, some);
        ya = vmladavaq_s8(ya, values, a), yb = vmladavaq_s8(yb, values, b);
        values = vldrbq_z_s8(z, some);
        za = vmladavaq_s8(za, values, a), zb = vmladavaq_s8(zb, values, b);
    }
    sums[0] = xa, sums[1] = xb, sums[4] = ya, sums[5] = yb, sums[8] = za, sums[9] = zb;
}

/* Bias, multiplier and exponent of four channels, from two records of pairs (see tfkd_convolution_params); with
 * TFKD_ONE_PRODUCT the offset in the place of the exponent. */
typedef struct {
    int32x4_t bias, multiplier, exponent;
} tfkd_scaling_4;

/* count: channels that are there; the records of others are not read.
 *
 *   lane        0          1           2          3
 *   channel     a          b           next a     next b
 *   bias        word 1     word 0      word 8     word 7     fast form: (word 0 - word 1) >> 8 of b; one product:
 *                                                            word 0 - word 1
 *   multiplier  word 3     word 4      word 10    word 11
 *   shift       byte 8     byte 9      byte 36    byte 37    see tfkd_pair_shift
 *   offset      word 5     word 6      word 12    word 13 */
TFKD_INLINE tfkd_scaling_4 tfkd_scaling(const int32_t *pair, int32_t count, int flags) {
    const mve_pred16_t some = vctp32q((uint32_t)count);
    const uint32x4_t biases = {4, 0, 32, 28}, multipliers = {12, 16, 40, 44}, shifts = {8, 9, 36, 37};
    tfkd_scaling_4 s;
    s.bias = vldrwq_gather_offset_z_s32(pair, biases, some);
    s.multiplier = vldrwq_gather_offset_z_s32(pair, multipliers, some);
    const int32x4_t shift = vldrbq_gather_offset_z_s32((const int8_t *)(const void *)pair, shifts, some);
    if (flags & TFKD_ONE_PRODUCT) {
        const uint32x4_t firsts = {4, 4, 32, 32}, offsets = {20, 24, 48, 52};
        const int32x4_t first = vldrwq_gather_offset_z_s32(pair, firsts, some), seconds = {0, -1, 0, -1};
        s.bias = vsubq_s32(s.bias, vandq_s32(first, seconds));
        s.exponent = vldrwq_gather_offset_z_s32(pair, offsets, some);
    } else if (TFKD_FAST(flags)) {
        /* no predicates: GCC 12 makes others of constant ones */
        const uint32x4_t firsts = {4, 4, 32, 32};
        const int32x4_t first = vldrwq_gather_offset_z_s32(pair, firsts, some), keep = {-1, 0, -1, 0};
        s.bias = vaddq_s32(vshrq_n_s32(vsubq_s32(s.bias, first), 8), vandq_s32(first, keep));
        const int32x4_t from = {-1, 6, -1, 6};
        s.exponent = vsubq_s32(from, shift);
    } else s.exponent = tfkd_exponents(shift, flags);
    return s;
}

/* Sums of four channels to outputs, still in words. */
TFKD_INLINE int32x4_t tfkd_pair_outputs(const tfkd_convolution_params *p, int32x4_t x, const tfkd_scaling_4 *s,
                                        int flags) {
    if (!(flags & TFKD_ONE_PRODUCT))
        return tfkd_requantize_4(vaddq_s32(x, s->bias), s->multiplier, s->exponent, p->out_zero_point, p->least,
                                 p->most, flags);
    const int32x4_t times = {0, 8, 0, 8};
    const int32x4_t right = {-TFKD_SHIFT_OF_SUM, -TFKD_SHIFT_OF_256, -TFKD_SHIFT_OF_SUM, -TFKD_SHIFT_OF_256};
    x = vaddq_s32(vshlq_s32(x, times), s->bias);
    x = tfkd_one_product_4(x, s->multiplier, s->exponent, right);
    return vminq_s32(vmaxq_s32(x, vdupq_n_s32(-128)), vdupq_n_s32(127));
}

/* Place in a column of value `at` of those that follow whole fours: in the order 0 2 1 3, in which TFKD_PACKED has their
 * weights. */
TFKD_INLINE int32_t tfkd_place_of(int32_t at) { return (at & ~3) | (at & 1) << 1 | (at >> 1 & 1); }

/* Values first .. last - 1 of a run of a field: whole fours from column[k] on, the others from column[rest] on, from the
 * input or, where `from` is 0, the padding. */
TFKD_INLINE void tfkd_part_of_run(int8_t *column, int32_t k, int32_t rest, int32_t fours, const int8_t *from,
                                  int8_t value, int32_t first, int32_t last) {
    if (first >= last) return;
    const int32_t middle = tfkd_clamp(fours, first, last);
    if (from) tfkd_copy_bytes(column + k + first, from + first, middle - first);
    else tfkd_fill_bytes(column + k + first, value, middle - first);
    for (int32_t i = middle, at = rest + middle - fours; i < last; i++, at++) {
        TFKD_FEW_TURNS;
        column[tfkd_place_of(at)] = from ? from[i] : value;
    }
}

/* Writes the receptive field of one group, whose corner is at (y, x) and may be outside the image, into a column. */
TFKD_KERNEL static void tfkd_field(const tfkd_convolution_params *p, const int8_t *in, int32_t y, int32_t x,
                                     int8_t *to) {
    const int32_t part = p->group_channels, height = p->height, width = p->width, channels = p->channels;
    const int together = p->dilation_width == 1 && part == channels;
    const int32_t pieces = together ? 1 : p->kernel_width, wide = together ? p->kernel_width : 1, run = wide * part;
    const int32_t fours = run & ~3, dilation = p->dilation_width, next = p->dilation_height;
    const int8_t zero_point = p->zero_point;
    int32_t k = 0, rest = p->kernel_height * pieces * fours;
    if (together && x >= 0 && x + wide <= width && y >= 0 && y + (p->kernel_height - 1) * next < height) {
        const int8_t *from = in + (y * width + x) * channels;
        for (int32_t i = p->kernel_height; i > 0; i--, from += next * width * channels, k += fours) {
            tfkd_copy_bytes(to + k, from, fours);
            for (int32_t j = fours; j < run; j++, rest++) {
                TFKD_FEW_TURNS;
                to[tfkd_place_of(rest)] = from[j];
            }
        }
        return;
    }
    for (const int32_t end = y + p->kernel_height * next; y < end; y += next)
        for (int32_t i = 0, at = x; i < pieces; i++, at += dilation) {
            const int inside = y >= 0 && y < height;
            const int32_t first = inside ? tfkd_clamp(-at, 0, wide) * part : run;
            const int32_t last = inside ? tfkd_clamp(width - at, 0, wide) * part : run;
            const int8_t *from = in + (y * width + at) * channels;
            if (first == 0 && last == run && fours == run) tfkd_copy_bytes(to + k, from, run);
            else {
                tfkd_part_of_run(to, k, rest, fours, 0, zero_point, 0, first);
                tfkd_part_of_run(to, k, rest, fours, from, zero_point, first, last);
                tfkd_part_of_run(to, k, rest, fours, 0, zero_point, first > last ? first : last, run);
            }
            k += fours, rest += run - fours;
        }
}

/* The next up to six fields times the channels of a group. */
TFKD_INLINE void tfkd_columns_times_weights(const tfkd_convolution_params *p, int32_t group, const int8_t *columns,
                                            int8_t *out, int32_t count, int flags) {
    const int32_t part = p->group_out_channels, depth = p->depth, step = p->out_channels, pairs = (part + 1) / 2;
    const int16_t *weights = p->weights + group * pairs * depth;
    const int32_t *pair = p->pairs + group * pairs * 7;
    for (int32_t c = 0; c < part; c += 4, weights += 2 * depth, pair += 14) {
        int32_t sums[24]; /* four of each column */
        for (int32_t i = 0; i < count; i += 3) {
            tfkd_three_times_two(columns + i * depth, weights, depth, sums + 4 * i);
            tfkd_three_times_two(columns + i * depth, weights + (c + 2 < part ? depth : 0), depth, sums + 4 * i + 2);
        }
        const tfkd_scaling_4 scaling = tfkd_scaling(pair, part - c, flags);
        const mve_pred16_t some = vctp32q((uint32_t)(part - c));
        int8_t *to = out + c;
        for (int32_t i = 0; i < count; i++, to += step) {
            vstrbq_p_s32(to, tfkd_pair_outputs(p, vldrwq_s32(sums + 4 * i), &scaling, flags), some);
        }
    }
}

TFKD_INLINE void tfkd_convolution(const tfkd_convolution_params *p, const int8_t *in, int8_t *out, int16_t *scratch,
                                  int flags) {
    const int32_t part = p->group_channels, depth = p->depth, right = p->stride_width, down = p->stride_height;
    const int32_t end = p->out_width * right - p->pad_left, step = p->channels * right;
    const int pixel = p->kernel_height == 1 && p->kernel_width == 1 && !p->pad_top && !p->pad_left &&
                      p->width * down == p->out_width * right && (p->out_height - 1) * down < p->height &&
                      (p->out_width - 1) * right < p->width; /* fields are successive pixels without gaps */
    int8_t *columns = (int8_t *)(void *)scratch;
    for (int32_t group = 0; group < p->groups; group++) {
        const int8_t *from = in + group * part;
        int8_t *to = out + group * p->group_out_channels;
        int32_t y = -p->pad_top, x = -p->pad_left;
        for (int32_t todo = p->out_height * p->out_width; todo > 0; todo -= 6, to += 6 * p->out_channels) {
            const int32_t count = todo < 6 ? todo : 6;
            if (pixel && part == depth && step == depth) {
                tfkd_copy_bytes(columns, from, count * depth), from += count * step;
            } else
                for (int32_t i = 0; i < count; i++) {
                    if (pixel) {
                        tfkd_part_of_run(columns + i * depth, 0, part & ~3, part & ~3, from, 0, 0, part), from += step;
                        continue;
                    }
                    tfkd_field(p, from, y, x, columns + i * depth);
                    x += right;
                    if (x == end) x = -p->pad_left, y += down;
                }
            tfkd_columns_times_weights(p, group, columns, to, count, flags);
        }
    }
}
#endif
