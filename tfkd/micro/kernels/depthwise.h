/* DEPTHWISE_CONV_2D int8, also dilated: the bits of TensorFlow Lite Micro's
 * reference_integer_ops::DepthwiseConvPerChannel.
 *
 *   input    [1, height, width, channels] int8
 *   weights  [channels * channel multiplier, kernel height, kernel width] int8, symmetric, one scale per channel
 *   output   [1, out height, out width, channels * channel multiplier] int8
 *
 * One channel at a time is copied to a padded plane of int16 in the scratch buffer; or, on cores with the DSP extension
 * and for 3x3 kernels with stride 1 or 2, some rows of four channels (arm_dsp_depthwise.h); or, on cores with vectors and
 * for one output of each channel, some rows of 16 channels (arm_helium_depthwise.h). Rows of a channel are copied before
 * the outputs that may overwrite them, where the shapes are equal, are written. */
#include "arithmetic.h"
#include "arm_dsp_depthwise.h"
#include "arm_helium_depthwise.h"

typedef struct {
    const int8_t *weights;
    const int32_t *bias; /* the input's zero point is folded in; with TFKD_ONE_PRODUCT 256 times that */
    const int32_t *multiplier;
    const int8_t *shift; /* with TFKD_ONE_PRODUCT added to tfkd_usual_offset instead */
    int16_t height, width, channels, out_height, out_width, channel_multiplier;
    int16_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int16_t pad_top, pad_left, plane_height, plane_width; /* the padded plane; its width is even */
    int16_t row_pairs; /* pairs of rows of four channels that fit the scratch buffer; 0: that form does not apply */
    int8_t zero_point, out_zero_point, least, most;
} tfkd_depthwise_params;

/* All outputs of output channel c from its input channel's plane. */
TFKD_INLINE void tfkd_depthwise_any(const tfkd_depthwise_params *p, const int8_t *weights, const int16_t *plane,
                                    int8_t *out, int32_t c, int flags) {
    const int32_t step = p->channels * p->channel_multiplier;
    const int32_t bias = p->bias[c], multiplier = p->multiplier[c], shift = p->shift[c];
    /* local copies: the compiler must assume that a store to the output changes the parameters */
    const int32_t height = p->out_height, width = p->out_width, rows = p->kernel_height, columns = p->kernel_width;
    const int32_t next = p->stride_width, tap = p->dilation_width, row = p->dilation_height * p->plane_width;
    const int32_t zero_point = p->out_zero_point, least = p->least, most = p->most;
    const int32_t offset = tfkd_usual_offset(zero_point) + shift;
    for (int32_t y = 0; y < height; y++) {
        const int16_t *corner = plane + y * p->stride_height * p->plane_width;
        for (int32_t x = 0; x < width; x++, corner += next) {
            const int8_t *w = weights;
            int32_t sum = flags & TFKD_ONE_PRODUCT ? 0 : bias;
            for (int32_t ky = 0; ky < rows; ky++) {
                const int16_t *from = corner + ky * row;
                for (int32_t kx = 0; kx < columns; kx++, from += tap) sum += *from * *w++;
            }
            if (flags & TFKD_ONE_PRODUCT)
                *out = (int8_t)tfkd_one_product((int32_t)(256u * (uint32_t)sum + (uint32_t)bias), multiplier, offset,
                                                TFKD_SHIFT_OF_256);
            else *out = (int8_t)tfkd_requantize(sum, multiplier, shift, zero_point, least, most, flags);
            out += step;
        }
    }
}

/* Bytes of the scratch buffer. */
TFKD_INLINE int32_t tfkd_depthwise_bytes(const tfkd_depthwise_params *p) {
    const int32_t pairs = (p->plane_height + 1) / 2 < p->row_pairs ? (p->plane_height + 1) / 2 : p->row_pairs;
    return p->plane_width * (p->plane_height > 8 * pairs ? 2 * p->plane_height : 16 * pairs);
}

#if TFKD_DSP && !TFKD_MVE
/* An image as 3x3 kernels see it: its rows, or its columns where these are more, so that rows are longer. */
typedef struct {
    int32_t height, width;         /* of the input */
    int32_t out_height, out_width; /* of the output */
    int32_t pad_top, pad_left;     /* before the first row and value */
    int32_t row, pixel;            /* bytes from a row of the input, and from a value of a row, to the next */
    int32_t out_row, out_pixel;    /* the same in the output */
    int32_t plane_width, room;     /* values of a padded row; pairs of rows that the scratch buffer holds, at least 2 */
    int32_t by_columns;            /* 1: rows and columns are exchanged */
} tfkd_view;

/* Values of a padded row of `outputs` 3x3 windows: an even number, for two outputs at a time. */
TFKD_INLINE int32_t tfkd_padded_width(int32_t outputs, int32_t stride) {
    const int32_t width = (outputs - 1) * stride + 3;
    return width + (width & 1) + (stride == 2 && outputs & 1 ? 2 : 0);
}

TFKD_BESIDE void tfkd_view_of(const tfkd_depthwise_params *p, tfkd_view *v) {
    const int32_t channels = p->channels, step = channels * p->channel_multiplier;
    const tfkd_view rows = {p->height, p->width, p->out_height, p->out_width, p->pad_top, p->pad_left,
                            p->width * channels, channels, p->out_width * step, step, p->plane_width, p->row_pairs, 0};
    const int32_t size = tfkd_padded_width(p->out_height, p->stride_height);
    const int32_t room = tfkd_depthwise_bytes(p) / (16 * size);
    *v = rows;
    if (p->channel_multiplier == 1 && p->out_height > 2 * p->out_width && room >= 2) {
        const tfkd_view columns = {p->width, p->height, p->out_width, p->out_height, p->pad_left, p->pad_top,
                                   channels, rows.row, step, rows.out_row, size, room, 1};
        *v = columns;
    }
}

/* Rows `row` and `row` + 1 of the padded plane, of the four channels that start at `in`, as a pair of rows. Rows
 * outside the image repeat the zero point. */
TFKD_INLINE void tfkd_gather_rows(const tfkd_view *v, const tfkd_gather_params *within, const int8_t *in, int32_t row,
                                  const uint32_t *padding, uint32_t *to) {
    const int32_t y = row - v->pad_top;
    const int above = y >= 0 && y < v->height, below = y + 1 >= 0 && y + 1 < v->height;
    const int8_t *upper = above ? in + y * v->row : (const int8_t *)padding;
    const int8_t *lower = below ? in + (y + 1) * v->row : (const int8_t *)padding;
    if (above && below) {
        tfkd_gather(upper, lower, to, within);
        return;
    }
    tfkd_gather_params edge = *within;
    if (!above) edge.step = 0;
    if (!below) edge.step2 = 0;
    tfkd_gather(upper, lower, to, &edge);
}

typedef struct {
    uint32_t words[8]; /* a type that compilers copy by `ldm` and `stm` */
} tfkd_eight;

/* 3x3 weights of some channels with rows and columns exchanged. */
TFKD_NOINLINE static void tfkd_exchange_axes(const int8_t *weights, int8_t *to, int32_t count) {
    for (; count > 0; count--, weights += 9, to += 9) {
        to[0] = weights[0], to[1] = weights[3], to[2] = weights[6];
        to[3] = weights[1], to[4] = weights[4], to[5] = weights[7];
        to[6] = weights[2], to[7] = weights[5], to[8] = weights[8];
    }
}

typedef void (*tfkd_rows_function)(const uint32_t *from, tfkd_rows_params *p);

/* 3x3 at stride 1 or 2, four channels at a time. The scratch buffer holds `room` pairs of rows; a step computes the
 * rows of outputs for which all pairs are there, and moves the last pair, which the next step needs, to the start.
 * compute, offset: the variant of tfkd_rows for the layer, and its parameter. */
TFKD_NOINLINE static void tfkd_depthwise_3x3(const tfkd_depthwise_params *p, const int8_t *in, int8_t *out,
                                             uint32_t *plane, tfkd_rows_function compute, int32_t offset) {
    tfkd_view v;
    tfkd_view_of(p, &v);
    const int32_t channels = p->channels, times = p->channel_multiplier, stride = p->stride_width, room = v.room;
    const int32_t height = v.out_height, all = stride == 2 ? height : (height + 1) >> 1, size = v.plane_width * 4;
    const int32_t step = v.out_pixel, row = v.out_row, down = stride == 2 ? row : 2 * row;
    const int32_t twos = v.out_width >> 1, odd = v.out_width & 1, length = 32 * stride * twos;
    const uint32_t padding = ((uint32_t)p->zero_point & 0xffffu) | ((uint32_t)p->zero_point << 16);
    const uint32_t bytes = (uint32_t)(uint8_t)p->zero_point * 0x01010101u;
    const int32_t left = v.pad_left, count = tfkd_clamp(v.plane_width - left, 0, v.width);
    const int32_t alone = left & (count > 0); /* with odd padding the first column is the second of its two */
    const tfkd_gather_params within = {v.pixel, (count - alone) >> 1, alone, (count - alone) & 1, v.pixel};
    const tfkd_eight margin = {{padding, padding, padding, padding, padding, padding, padding, padding}};
    tfkd_eight *eights = (tfkd_eight *)(void *)plane;
    int8_t turned[36];
    for (int32_t i = 0; i < size / 8 * (room <= all ? room : all + 1); i++) eights[i] = margin;
    for (int32_t c = 0; c < channels; c += 4) {
        const int32_t first = c + 4 <= channels ? c : channels - 4;
        const int8_t *weights = p->weights + 9 * c * times;
        if (v.by_columns) tfkd_exchange_axes(weights, turned, first + 4 - c), weights = turned;
        for (int32_t done = 0, held = 0; done < all;) {
            for (; held < room && done + held <= all; held++)
                tfkd_gather_rows(&v, &within, in + first, 2 * (done + held), &bytes,
                                 plane + held * size + (left >> 1) * 8);
            const int32_t rows = held - 1, last = stride == 1 && (height & 1) && done + rows == all;
            for (int32_t i = c; i < first + 4; i = times == 1 ? first + 4 : i + 1) {
                const int32_t o = i * times;
                tfkd_rows_params these = {
                    length, out + done * down + o, stride == 2 ? 0 : row, step, odd ? step : 0,
                    rows, size * 4 - length - odd * 32 * stride, down - 2 * twos * step, last, size * 4,
                    p->bias + o, p->multiplier + o, p->shift + o, weights + 9 * (i - c) * times,
                    times == 1 ? first + 4 - c : times, offset, times == 1 ? 8 : 0};
                compute(plane + 2 * (i - first), &these);
            }
            done += rows;
            for (int32_t i = 0; i < size / 8 && done < all; i++) eights[i] = eights[rows * size / 8 + i];
            held = 1;
        }
    }
}
#endif

#if TFKD_MVE
/* Row `row` of the padded input of some channels, `lanes` bytes a pixel. */
TFKD_NOINLINE static void tfkd_padded_row(const tfkd_depthwise_params *p, const int8_t *in, int32_t row, int8_t *to,
                                          int32_t lanes, int32_t count) {
    const int32_t y = row - p->pad_top, channels = p->channels;
    const int32_t left = tfkd_clamp(p->pad_left, 0, p->plane_width) * lanes;
    const int32_t columns = tfkd_clamp(p->plane_width - p->pad_left, 0, p->width);
    if (y < 0 || y >= p->height) {
        tfkd_fill_bytes(to, p->zero_point, p->plane_width * lanes);
        return;
    }
    tfkd_fill_bytes(to, p->zero_point, left);
    tfkd_fill_bytes(to + left + columns * lanes, p->zero_point, p->plane_width * lanes - left - columns * lanes);
    in += y * p->width * channels, to += left;
    if (channels == lanes) {
        tfkd_copy_bytes(to, in, columns * lanes);
        return;
    }
    const mve_pred16_t some = vctp8q((uint32_t)count);
    for (int32_t x = 0; x < columns; x++, in += channels, to += lanes) vstrbq_p_s8(to, vldrbq_z_s8(in, some), some);
}

/* A row of outputs of some channels. */
TFKD_INLINE void tfkd_output_row(const tfkd_depthwise_params *p, const tfkd_scaling_16 *scaling, const int8_t *from,
                                 const int8_t *weights, int8_t *out, int32_t lanes, int32_t count, int flags) {
    const int32_t rows = p->kernel_height, columns = p->kernel_width, step = p->dilation_width * lanes;
    const int32_t row = p->dilation_height * p->plane_width * lanes, next = p->stride_width * lanes;
    const int32_t channels = p->channels, zero_point = p->out_zero_point;
    const int8_t least = p->least, most = p->most;
    const int usual = rows == 3 && columns == 3 && step == 16 && lanes == 16;
    const mve_pred16_t some = vctp8q((uint32_t)count);
    for (int32_t x = p->out_width; x > 0; x--, out += channels, from += next) {
        tfkd_sixteen sums;
        for (int32_t i = 0; i < 4; i++)
            sums.sums[i] = flags & TFKD_ONE_PRODUCT ? vdupq_n_s32(0) : vldrwq_s32(scaling->bias + 4 * i);
        if (usual) tfkd_taps_3x3(&sums, from, weights, row);
        else tfkd_taps(&sums, from, weights, rows, columns, step, row, lanes);
        vstrbq_p_s8(out, tfkd_requantize_16(&sums, scaling, zero_point, least, most, flags), some);
    }
}

/* Up to 16 channels at a time, as many as the scratch buffer has room for: the rows that a row of outputs reads, or
 * more, and the weights of more than nine taps. Returns 0, and does nothing, where four channels are too many.
 *
 * Rows are read before the outputs that may overwrite them are written. */
TFKD_INLINE int tfkd_depthwise_16(const tfkd_depthwise_params *p, const int8_t *in, int8_t *out, int8_t *plane,
                                  int flags) {
    const int32_t taps = p->kernel_height * p->kernel_width, reach = (p->kernel_height - 1) * p->dilation_height + 1;
    const int32_t bytes = tfkd_depthwise_bytes(p), channels = p->channels, apart = taps > 9 ? taps : 0;
    int8_t nine[9 * 16 + 16];
    int32_t lanes = 16;
    /* the last load of fewer than 16 lanes exceeds them */
    while (lanes > 2 && lanes * (reach * p->plane_width + apart) + 16 - lanes > bytes) lanes /= 2;
    if (lanes < 4 || p->channel_multiplier > 1) return 0;
    const int32_t row = lanes * p->plane_width, most = (bytes - lanes * apart - 16 + lanes) / row;
    const int32_t room = most < p->plane_height ? most : p->plane_height;
    int8_t *weights = apart ? plane + room * row : nine;
    for (int32_t c = 0; c < channels; c += lanes) {
        const int32_t count = channels - c < lanes ? channels - c : lanes;
        tfkd_scaling_16 scaling;
        tfkd_scaling_of(&scaling, p->bias + c, p->multiplier + c, p->shift + c, count, p->out_zero_point, flags);
        for (int32_t i = 0; i < count; i++)
            for (int32_t tap = 0; tap < taps; tap++) {
                TFKD_FEW_TURNS;
                weights[tap * lanes + i] = p->weights[(c + i) * taps + tap];
            }
        for (int32_t y = 0, top = 0, held = 0; y < p->out_height;) {
            for (; held < room && top + held < p->plane_height; held++)
                tfkd_padded_row(p, in + c, top + held, plane + held * row, lanes, count);
            for (; y < p->out_height && y * p->stride_height + reach <= top + held; y++)
                tfkd_output_row(p, &scaling, plane + (y * p->stride_height - top) * row, weights,
                                out + y * p->out_width * channels + c, lanes, count, flags);
            const int32_t gone = y * p->stride_height - top; /* rows that no further output reads */
            held = held > gone ? held - gone : 0, top += gone;
            if (y < p->out_height) tfkd_copy_bytes(plane, plane + gone * row, held * row);
        }
    }
    return 1;
}
#endif

TFKD_INLINE void tfkd_depthwise(const tfkd_depthwise_params *p, const int8_t *in, int8_t *out, int16_t *plane,
                                int flags) {
#if TFKD_MVE
    if (tfkd_depthwise_16(p, in, out, (int8_t *)(void *)plane, flags)) return;
#endif
#if TFKD_DSP && !TFKD_MVE
    if (TFKD_FAST(flags) && flags & TFKD_BY_ROWS && (!(flags & TFKD_BY_PLANE) || p->row_pairs)) {
        const int two = p->stride_width == 2;
        const int32_t zero_point = p->out_zero_point;
        uint32_t *const pairs = (uint32_t *)(void *)plane;
        if (flags & TFKD_ONE_PRODUCT)
            tfkd_depthwise_3x3(p, in, out, pairs, two ? tfkd_rows_stride2 : tfkd_rows, tfkd_usual_offset(zero_point));
        else
            tfkd_depthwise_3x3(p, in, out, pairs, two ? tfkd_rows_stride2_signed : tfkd_rows_signed,
                               2 * zero_point + 1);
        return;
    }
#endif
    const int32_t taps = p->kernel_height * p->kernel_width, step = p->channels;
    for (int32_t i = 0; i < p->plane_height * p->plane_width; i++) plane[i] = p->zero_point;
    /* the plane is smaller than the padded input where the kernel never reaches the last rows or columns */
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