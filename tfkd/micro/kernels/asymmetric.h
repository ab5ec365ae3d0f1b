/* CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED with int8 activations and int8 weights that have a zero point: the bits
 * of TensorFlow Lite Micro's reference_integer_ops::FullyConnected, and of LiteRT's reference_ops::Conv and DepthwiseConv
 * for uint8, whose values are those here plus 128. A fully connected layer is a 1x1 convolution; a depthwise one has
 * groups of one channel. Padding takes no part.
 *
 *   input    [1, height, width, channels]
 *   weights  [out channels, kernel height, kernel width, channels of a group]
 *   output   [1, out height, out width, out channels] */
#include "arithmetic.h"

typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    int32_t height, width, channels, out_height, out_width, out_channels;
    int32_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int32_t pad_top, pad_left, group_channels, group_out_channels, multiplier, shift;
    int16_t zero_point, weight_zero_point, out_zero_point, least, most;
} tfkd_asymmetric_params;

/* Sum of one output: y, x is the window's corner in the image, possibly outside; group: first channel that is read. */
TFKD_INLINE int32_t tfkd_asymmetric_sum(const tfkd_asymmetric_params *p, const int8_t *in, int32_t y, int32_t x,
                                        int32_t group, const int8_t *weights, int32_t sum) {
    const int32_t zero_point = p->zero_point, weight_zero_point = p->weight_zero_point, depth = p->group_channels;
    for (int32_t ky = 0; ky < p->kernel_height; ky++) {
        const int32_t row = y + ky * p->dilation_height;
        if (row < 0 || row >= p->height) continue;
        for (int32_t kx = 0; kx < p->kernel_width; kx++) {
            const int32_t column = x + kx * p->dilation_width;
            if (column < 0 || column >= p->width) continue;
            const int8_t *from = in + (row * p->width + column) * p->channels + group;
            const int8_t *w = weights + (ky * p->kernel_width + kx) * depth;
            for (const int8_t *end = w + depth; w < end;) sum += (*from++ - zero_point) * (*w++ - weight_zero_point);
        }
    }
    return sum;
}

TFKD_INLINE void tfkd_asymmetric(const tfkd_asymmetric_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    const int32_t taps = p->kernel_height * p->kernel_width * p->group_channels;
    for (int32_t oy = 0, y = -p->pad_top; oy < p->out_height; oy++, y += p->stride_height)
        for (int32_t ox = 0, x = -p->pad_left; ox < p->out_width; ox++, x += p->stride_width) {
            const int8_t *weights = p->weights;
            int32_t group = 0, left = p->group_out_channels;
            for (int32_t c = 0; c < p->out_channels; c++, weights += taps) {
                const int32_t sum = tfkd_asymmetric_sum(p, in, y, x, group, weights, p->bias[c]);
                const int32_t result = tfkd_multiply(sum, p->multiplier, p->shift);
                *out++ = (int8_t)tfkd_around(result, p->out_zero_point, p->least, p->most);
                if (--left == 0) left = p->group_out_channels, group += p->group_channels;
            }
        }
}
