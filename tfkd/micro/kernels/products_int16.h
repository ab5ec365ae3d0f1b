/* CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED with int16 activations, int8 weights and zero points of 0: the bits of
 * TensorFlow Lite Micro's reference_integer_ops::ConvPerChannel, DepthwiseConvPerChannel and FullyConnected. A fully
 * connected layer is a 1x1 convolution; a depthwise one has groups of one channel.
 *
 *   input    [1, height, width, channels] int16
 *   weights  [out channels, kernel height, kernel width, channels of a group] int8, symmetric
 *   output   [1, out height, out width, out channels] int16 */
#include "arithmetic.h"
#include "sums_int16.h"

typedef struct {
    const int8_t *weights;
    const int64_t *bias;
    const int32_t *multiplier;
    const int8_t *shift;
    int32_t height, width, channels, out_height, out_width, out_channels;
    int32_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int32_t pad_top, pad_left, group_channels, group_out_channels;
    int16_t least, most;
} tfkd_products_params;

/* Flags:
 *   TFKD_LONG_SUMS      sums need more than 32 bits
 *   TFKD_TWO_ROUNDINGS  the bias has 32 bits: TensorFlow Lite Micro then rescales with tfkd_multiply
 *   TFKD_FOURS          the channels of a group are a multiple of 4, each four of weights in the order 0 2 1 3 */
#define TFKD_LONG_SUMS 1
#define TFKD_TWO_ROUNDINGS 2
#define TFKD_FOURS 4

/* Adds the products of `count` contiguous values to a sum. */
TFKD_INLINE int32_t tfkd_products_piece(const int16_t *x, const int8_t *weights, int32_t count, int32_t sum,
                                        int flags) {
    const int8_t *end = weights + count;
    if (flags & TFKD_FOURS) {
        for (; weights < end; weights += 4, x += 4) {
#if TFKD_DSP
            const uint32_t word = tfkd_load4(weights);
            sum = tfkd_mac2(tfkd_load4(x + 2), tfkd_odd(word), tfkd_mac2(tfkd_load4(x), tfkd_even(word), sum));
#else
            sum += x[0] * weights[0] + x[1] * weights[2];
            sum += x[2] * weights[1] + x[3] * weights[3];
#endif
        }
    }
    while (weights < end) sum += *x++ * *weights++;
    return sum;
}

typedef struct {
    int32_t first, last; /* kernel rows or columns first .. last - 1 are within the image */
} tfkd_reach;

TFKD_INLINE tfkd_reach tfkd_products_reach(int32_t start, int32_t kernel, int32_t dilation, int32_t size) {
    tfkd_reach reach = {0, kernel};
    while (reach.first < kernel && start + reach.first * dilation < 0) reach.first++;
    while (reach.last > reach.first && start + (reach.last - 1) * dilation >= size) reach.last--;
    return reach;
}

/* Sum of one output. at: index of the kernel's corner in the input, possibly outside; only kernel rows and columns
 * within the image are read. */
TFKD_INLINE int64_t tfkd_products_sum(const tfkd_products_params *p, const int16_t *in, int32_t at,
                                      const int8_t *weights, tfkd_reach rows, tfkd_reach columns, int64_t bias,
                                      int flags) {
    const int32_t depth = p->group_channels, step = p->dilation_width * p->channels;
    const int32_t count = columns.last - columns.first;
    int64_t sum = bias;
    int32_t small = (int32_t)bias;
    for (int32_t ky = rows.first; ky < rows.last; ky++) {
        const int16_t *from = in + (at + ky * p->dilation_height * p->width * p->channels + columns.first * step);
        const int8_t *w = weights + (ky * p->kernel_width + columns.first) * depth;
        if (flags & TFKD_LONG_SUMS) {
            for (const int8_t *end = w + count * depth; w < end; from += step - depth)
                for (int32_t i = 0; i < depth; i++) sum += *from++ * *w++;
        } else if (step == depth) {
            small = tfkd_products_piece(from, w, count * depth, small, flags);
        } else if (depth == 1) {
            for (const int8_t *end = w + count; w < end; from += step) small += *from * *w++;
        } else {
            for (int32_t kx = 0; kx < count; kx++, from += step, w += depth)
                small = tfkd_products_piece(from, w, depth, small, flags);
        }
    }
    return flags & TFKD_LONG_SUMS ? sum : small;
}

TFKD_INLINE void tfkd_products(const tfkd_products_params *p, const int16_t *in, int16_t *out, int flags) {
    const int32_t taps = p->kernel_height * p->kernel_width * p->group_channels;
    for (int32_t oy = 0, y = -p->pad_top; oy < p->out_height; oy++, y += p->stride_height) {
        const tfkd_reach rows = tfkd_products_reach(y, p->kernel_height, p->dilation_height, p->height);
        for (int32_t ox = 0, x = -p->pad_left; ox < p->out_width; ox++, x += p->stride_width) {
            const tfkd_reach columns = tfkd_products_reach(x, p->kernel_width, p->dilation_width, p->width);
            const int8_t *weights = p->weights;
            int32_t at = (y * p->width + x) * p->channels, left = p->group_out_channels;
            for (int32_t c = 0; c < p->out_channels; c++, weights += taps) {
                const int64_t sum = tfkd_products_sum(p, in, at, weights, rows, columns, p->bias[c], flags);
                const int32_t result = flags & TFKD_TWO_ROUNDINGS
                                           ? tfkd_multiply((int32_t)sum, p->multiplier[c], p->shift[c])
                                           : tfkd_rescale_long(sum, p->multiplier[c], p->shift[c]);
                *out++ = (int16_t)tfkd_clamp(result, p->least, p->most);
                if (--left == 0) left = p->group_out_channels, at += p->group_channels;
            }
        }
    }
}
