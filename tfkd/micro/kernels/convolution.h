/* CONV_2D int8, also in groups and dilated: the bits of TensorFlow Lite Micro's reference_integer_ops::ConvPerChannel.
 *
 *   input    [1, height, width, channels] int8
 *   weights  [out channels, kernel height, kernel width, channels of a group] int8, symmetric, one scale per channel
 *   output   [1, out height, out width, out channels] int8
 *
 * Up to three receptive fields at a time are widened to 16 bits, as interleaved columns, and multiplied with two output
 * channels at a time. All inputs of a step are read before its outputs are written, pixel by pixel where there is one
 * group, so that the output may then overwrite what no later step reads: the rows above the next field, and in a 1x1
 * convolution with stride 1 the pixels before it.
 *
 * A column (`depth` values) in the scratch buffer, by index in int16; v: values, c: columns:
 *
 *   index    0  1    2  3    4  5    6  7    8  9    10 11    12 ...
 *   column   c0      c1      c2      c0      c1      c2       c0
 *   value    v0 v1   v0 v1   v0 v1   v2 v3   v2 v3   v2 v3    v4 ...
 *
 * The order of a field's values in its column: a run is a piece of the field whose values are contiguous in the input
 * (a row of the kernel, or one pixel where dilation or groups leave gaps). First come the whole fours of all runs, each
 * four in the order 0 2 1 3 (see arm_dsp.h), then the remaining 0 to 3 values of all runs. Example with 2 runs of 6:
 *
 *   run 0: a0 a1 a2 a3 a4 a5    run 1: b0 b1 b2 b3 b4 b5    column: a0 a2 a1 a3  b0 b2 b1 b3  a4 a5 b4 b5
 *
 * Cores with vectors have columns and weights of their own, see arm_helium_convolution.h. */
#include "arithmetic.h"
#include "arm_dsp_convolution.h"
#include "arm_helium_convolution.h"
#include "arm_thumb1_convolution.h"
#include "convolution_params.h"
#include "packed_weights.h"

#if !TFKD_MVE
/* Index of value k in a column; see the drawing above. */
TFKD_INLINE int32_t tfkd_place(int32_t k) { return (k >> 1) * 6 + (k & 1); }

/* Widens `count` contiguous values into a column: whole fours from value k on, the others from value `rest` on. */
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

/* The same with one value repeated: the padding. */
TFKD_INLINE void tfkd_fill(int16_t *column, int32_t k, int32_t rest, int16_t value, int32_t count) {
    for (int16_t *to = column + 3 * k; count >= 4; count -= 4, to += 12) to[0] = to[1] = to[6] = to[7] = value;
    for (; count > 0; count--, rest++) column[tfkd_place(rest)] = value;
}

/* Writes the receptive field of one group, whose corner is at (y, x) and may be outside the image, into a column. */
TFKD_BESIDE void tfkd_column(const tfkd_convolution_params *p, const int8_t *in, int32_t y, int32_t x, int16_t *to) {
    /* local copies: the compiler must assume that a store to the column changes the parameters */
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
            /* the run crosses the image's edge and pixels do not fill fours: value by value */
            for (int32_t i = 0, at = x * part; i < run; i++, at++) {
                const int32_t swapped = (i & ~3) | (i & 1) << 1 | (i >> 1 & 1);
                const int32_t place = tfkd_place(i < (run & ~3) ? k + swapped : rest + (i & 3));
                to[place] = at < 0 || at >= width * part ? zero_point : in[y * width * part + at];
            }
            k += run & ~3, rest += run & 3;
        }
    }
}

/* One column times a pair of channels, whose weights end at `stop`. sums: packed sum (with TFKD_WIDE the second
 * channel's sum), first channel's sum. */
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

/* Bias of the first (second = 0) or second channel of a pair. */
TFKD_INLINE int32_t tfkd_pair_bias(const int32_t *pair, int second, int flags) {
    if (!second) return pair[1];
    return TFKD_FAST(flags) ? tfkd_second(pair[0], pair[1]) : pair[0];
}

/* Shift of the first or second channel of a pair, as tfkd_requantize takes it. The fast form stores the second shift
 * plus 7. */
TFKD_INLINE int32_t tfkd_pair_shift(const int32_t *pair, int second, int flags) {
    const int32_t shift = (int8_t)(pair[2] >> 8 * second);
    return TFKD_FAST(flags) && second ? shift - 7 : shift;
}

/* An output of a pair of channels from its sums (see tfkd_column_times_pair). second: 0 or 1 */
TFKD_INLINE int32_t tfkd_pair_output(const tfkd_convolution_params *p, const int32_t *sums, int second,
                                     const int32_t *pair, int flags) {
    if (flags & TFKD_ONE_PRODUCT) {
        if (!second) return tfkd_one_product(sums[1] + pair[1], pair[3], pair[5], TFKD_SHIFT_OF_SUM);
        const uint32_t x = (uint32_t)sums[0] - (uint32_t)sums[1] + (uint32_t)pair[0] - (uint32_t)pair[1];
        return tfkd_one_product((int32_t)x, pair[4], pair[6], TFKD_SHIFT_OF_256);
    }
    return tfkd_output(sums, second, tfkd_pair_bias(pair, second, flags), pair[3 + second],
                       tfkd_pair_shift(pair, second, flags), p->out_zero_point, p->least, p->most, flags);
}

/* `count` columns times the channels of a group from channel c (even) on. */
TFKD_INLINE void tfkd_columns_times_weights(const tfkd_convolution_params *p, int32_t group, const int16_t *columns,
                                            int8_t *out, int32_t count, int32_t c, int flags) {
    const int32_t part = p->group_out_channels, depth = p->depth, step = p->out_channels, pairs = (part + 1) / 2;
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
                to[second] = (int8_t)tfkd_pair_output(p, sums + 2 * i, second, pair, flags);
    }
}

/* The receptive fields of a group that are still to be computed. */
typedef struct {
    const int8_t *in; /* first value of the group's channels */
    int16_t *columns;
    int32_t channel;     /* number of that channel */
    int32_t y, x;        /* corner of the next field; may be outside the image */
    int32_t end;         /* x behind the last field of a row */
    int32_t todo, pixel; /* number of fields; whether they are successive pixels without gaps */
#if TFKD_DSP
    int32_t far, deep; /* three fields whose first corner is at 0 .. far and 0 .. deep are within the image */
    int32_t above, below; /* first and last runs that are padding in all three columns already */
    tfkd_three_params three;
#endif
} tfkd_fields;

#if TFKD_DSP
/* Sets values first .. last - 1 of runs from .. to - 1 to the padding, in one column. */
TFKD_BESIDE void tfkd_pad(const tfkd_convolution_params *p, int16_t *column, int32_t first, int32_t last, int32_t from,
                          int32_t to) {
    const int32_t run = p->kernel_width * p->group_channels, fours = run & ~3;
    const int16_t value = p->zero_point;
    for (int32_t i = first; i < last; i++) {
        if (i >= fours) {
            for (int32_t r = from; r < to; r++)
                column[tfkd_place(p->kernel_height * fours + r * (run & 3) + (i & 3))] = value;
            continue;
        }
        int16_t *at = column + tfkd_place((i & ~3) | (i & 1) << 1 | (i >> 1 & 1)) + 3 * fours * from;
        if (i & 3 || last - i < 4) {
            for (int32_t r = from; r < to; r++, at += 3 * fours) *at = value;
        } else {
            for (int32_t r = from; r < to; r++, at += 3 * fours) at[0] = at[1] = at[6] = at[7] = value;
            i += 3;
        }
    }
}

/* Three successive receptive fields as columns, at the edges of the image: first with what lies in the input's memory
 * where their values would be, then with the padding. Returns 0, and changes nothing, where that would read outside of
 * the input, or where the fields differ in the rows that are padding. */
TFKD_BESIDE int tfkd_three(const tfkd_convolution_params *p, tfkd_fields *f) {
    const int32_t part = p->group_channels, runs = p->kernel_height, dilation = p->dilation_height;
    const int32_t run = p->kernel_width * part, fours = run & ~3, row = p->width * p->channels;
    const int32_t most = p->width - p->kernel_width;
    int32_t y = f->y, x = f->x, above = 0, below = 0, at[3], xs[3];
    for (int32_t i = 0; i < 3; i++) {
        if (!i || x == -p->pad_left) {
            const int32_t over = y < 0 ? -y : 0, under = y + (runs - 1) * dilation + 1 - p->height;
            if (i && (over != above || (under > 0 ? under : 0) != below)) return 0;
            above = over, below = under > 0 ? under : 0;
        }
        xs[i] = x, at[i] = (y + above) * row + x * p->channels;
        x += p->stride_width;
        if (x == f->end) x = -p->pad_left, y += p->stride_height;
    }
    const int32_t inside = runs - above - below, span = (inside - 1) * dilation * row + run;
    if ((above | below) && (dilation > 1 || inside < 1 || (above & run & 1))) return 0;
    for (int32_t i = 0; i < 3; i++)
        if (at[i] + f->channel < 0 || at[i] + f->channel + span > p->height * row) return 0;
    const tfkd_three_params three = {
        at[1] - at[0], at[2] - at[0], (runs * fours + above * (run - 2 * fours)) * 6, run >> 2, run & 3,
        row * dilation - run, inside};
    tfkd_widen_three(f->columns + 3 * above * fours, f->in + at[0], &three);
    f->y = y, f->x = x;
    for (int32_t i = 0; i < 3; i++) {
        const int32_t over = xs[i] - most > 0 ? xs[i] - most : 0;
        const int32_t left = xs[i] < 0 ? (-xs[i] * part < run ? -xs[i] * part : run) : 0;
        const int32_t right = over * part < run ? over * part : run;
        int16_t *column = f->columns + 2 * i;
        if (left) tfkd_pad(p, column, 0, left, above, runs - below);
        if (right) tfkd_pad(p, column, run - right, run, above, runs - below);
        if (above != f->above) tfkd_pad(p, column, 0, run, 0, above);
        if (below != f->below) tfkd_pad(p, column, 0, run, runs - below, runs);
    }
    f->above = above, f->below = below;
    return 1;
}
#endif

#if TFKD_DSP
/* Number of times that the next three fields lie within the image and within one row of outputs, or are successive
 * pixels, so that they are widened as they are; sets where the first of them starts, and moves on behind them. */
TFKD_BESIDE int32_t tfkd_whole_threes(const tfkd_convolution_params *p, tfkd_fields *f, const int8_t **from) {
    int32_t times = f->todo / 3;
    *from = f->in;
    if (f->pixel) f->in += times * 3 * f->three.step;
    else {
        const int32_t right = p->stride_width, x = f->x;
        if (x < 0 || x > f->far || f->y < 0 || f->y > f->deep) return 0;
        const int32_t fit = (f->far - x) / (3 * right) + 1;
        if (times > fit) times = fit;
        *from += (f->y * p->width + x) * p->channels;
        f->x += 3 * times * right, f->above = f->below = 0;
        if (f->x == f->end) f->x = -p->pad_left, f->y += p->stride_height;
    }
    f->todo -= 3 * times;
    return times;
}

typedef void (*tfkd_pairs_function)(const tfkd_pairs_params *p);

/* Such fields times all channels, of which none is left over; `pairs->out` moves on by `out_step` after each three. */
TFKD_NOINLINE static void tfkd_times_pairs(const tfkd_fields *f, const int8_t *from, int32_t times,
                                           tfkd_pairs_params *pairs, int32_t out_step, tfkd_pairs_function compute) {
    const int32_t step = 3 * f->three.step;
    for (; times > 0; times--, from += step, pairs->out += out_step) {
        tfkd_widen_three(f->columns, from, &f->three);
        compute(pairs);
    }
}
#endif

/* The next up to three fields as columns; returns their number. */
TFKD_BESIDE int32_t tfkd_next_columns(const tfkd_convolution_params *p, tfkd_fields *f) {
    const int32_t count = f->todo < 3 ? f->todo : 3, step = p->channels * p->stride_width;
    f->todo -= 3;
#if TFKD_DSP
    if (count == 3 && f->far >= -2 * p->stride_width && tfkd_three(p, f)) return 3;
    f->above = f->below = 0;
#endif
    for (int32_t i = 0; i < count; i++) {
        if (f->pixel) {
            tfkd_widen(f->columns + 2 * i, 0, p->group_channels & ~3, f->in, p->group_channels);
            f->in += step;
            continue;
        }
        tfkd_column(p, f->in, f->y, f->x, f->columns + 2 * i);
        f->x += p->stride_width;
        if (f->x == f->end) f->x = -p->pad_left, f->y += p->stride_height;
    }
    return count;
}

/* The fields of a group from its first channel on. */
TFKD_BESIDE void tfkd_first_fields(const tfkd_convolution_params *p, const int8_t *in, int32_t group, int16_t *columns,
                                   tfkd_fields *f) {
    const int32_t part = p->group_channels, down = p->stride_height;
    const int32_t right = p->stride_width, height = p->out_height, width = p->out_width;
    f->channel = group * part, f->in = in + f->channel, f->columns = columns;
    f->y = -p->pad_top, f->x = -p->pad_left, f->end = width * right - p->pad_left, f->todo = height * width;
    f->pixel = p->kernel_height == 1 && p->kernel_width == 1 && !p->pad_top && !p->pad_left &&
               p->width * down == width * right && (height - 1) * down < p->height && (width - 1) * right < p->width;
#if TFKD_DSP
    const int32_t together = p->kernel_width == 1 || (p->dilation_width == 1 && part == p->channels);
    const int32_t run = p->kernel_width * part, reach = (p->kernel_height - 1) * p->dilation_height;
    f->far = together ? p->width - p->kernel_width - 2 * right : -0x40000000; /* none */
    f->deep = p->height - 1 - reach, f->above = f->below = 0;
    f->three.step = p->channels * right, f->three.step2 = 2 * f->three.step;
    f->three.rest_at = p->kernel_height * (run & ~3) * 6, f->three.fours = run >> 2, f->three.rest = run & 3;
    f->three.next = p->width * p->channels * p->dilation_height - run, f->three.runs = p->kernel_height;
#endif
    memset(columns, 0, (size_t)p->depth * 6); /* values that fill up a field to `depth` stay 0 */
}

TFKD_INLINE void tfkd_convolution(const tfkd_convolution_params *p, const int8_t *in, int8_t *out, int16_t *columns,
                                  int flags) {
    const int32_t out_channels = p->out_channels, group_out = p->group_out_channels;
    const int32_t whole = TFKD_DSP && TFKD_FAST(flags) ? group_out / 2 : 0; /* pairs of channels of the fast form */
    for (int32_t group = 0; group < p->groups; group++) {
        int8_t *to = out + group * group_out;
        tfkd_fields fields;
        tfkd_first_fields(p, in, group, columns, &fields);
#if TFKD_DSP
        const int32_t first = group * ((group_out + 1) / 2);
        const int8_t *from = in;
        const tfkd_pairs_function compute = flags & TFKD_ONE_PRODUCT ? tfkd_pairs : tfkd_pairs_signed;
        tfkd_pairs_params pairs = {columns, columns + 3 * p->depth, TFKD_CONV_SKIP(p->depth), p->pairs + first * 7,
                                   to, out_channels, 2 * out_channels, p->weights + first * p->depth};
#endif
        while (fields.todo > 0) {
            int32_t times = 0; /* threes of fields that are widened as they are */
#if TFKD_DSP
            times = tfkd_whole_threes(p, &fields, &from);
            pairs.out = to;
            if (whole && times && 2 * whole == group_out) {
                tfkd_times_pairs(&fields, from, times, &pairs, 3 * out_channels, compute);
                to = pairs.out;
                continue;
            }
#endif
            const int32_t count = times ? 3 : tfkd_next_columns(p, &fields);
            do {
#if TFKD_DSP
                if (times) tfkd_widen_three(columns, from, &fields.three), from += 3 * fields.three.step;
                if (whole) {
                    pairs.out = to;
                    if (count < 3) pairs.step2 = 0, pairs.step = count < 2 ? 0 : out_channels;
                    compute(&pairs);
                }
#endif
                if (2 * whole < group_out) tfkd_columns_times_weights(p, group, columns, to, count, 2 * whole, flags);
                to += 3 * out_channels;
            } while (--times > 0);
        }
    }
}
#endif
