/* CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED with int16 activations, int8 weights and zero points of 0. */
typedef struct {
    const int8_t *weights; /* [out channels, kernel height, kernel width, channels of a group] */
    const int64_t *bias;
    const int32_t *multiplier;
    const int8_t *shift;
    int32_t height, width, channels, out_height, out_width, out_channels;
    int32_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int32_t pad_top, pad_left, group_channels, group_out_channels;
    int16_t least, most;
} tfkd_products_params;

#define TFKD_LONG 1  /* sums need more than 32 bits */
#define TFKD_TWICE 2 /* multipliers of 31 bits and two roundings, as where the bias has 32 bits */

/* sum * multiplier / 2^(15 - shift), halves up, for a multiplier of 15 bits and a sum of 48; without 64 bit products. */
TFKD_INLINE int32_t tfkd_rescale_long(int64_t sum, int32_t multiplier, int32_t shift) {
    const uint32_t low = (uint32_t)sum, scale = (uint32_t)multiplier, first = (low & 0xffffu) * scale;
    const int32_t high = (int32_t)(sum >> 32) * multiplier;
    const uint32_t middle = (low >> 16) * scale + (first >> 16);
    /* now the product is high * 2^32 + middle * 2^16 + the low half of first */
    const int32_t right = -1 - shift;
    if (right <= 0) {
        const uint32_t rest = ((first & 0xffffu) + (1u << (15 + right))) >> (16 + right);
        return (int32_t)(((uint32_t)high << (16 - right)) + (middle << -right) + rest);
    }
    if (right <= 16) return (int32_t)(((uint32_t)high << (16 - right)) + ((middle + (1u << (right - 1))) >> right));
    return (high + (int32_t)(middle >> 16) + (1 << (right - 17))) >> (right - 16);
}

TFKD_INLINE int64_t tfkd_products_sum(const tfkd_products_params *p, const int16_t *in, const int8_t *weights, int32_t y,
                                      int32_t x, int64_t bias, int flags) {
    const int32_t depth = p->group_channels;
    int64_t sum = bias;
    int32_t small = (int32_t)bias;
    for (int32_t ky = 0; ky < p->kernel_height; ky++) {
        const int32_t row = y + ky * p->dilation_height;
        for (int32_t kx = 0; kx < p->kernel_width; kx++, weights += depth) {
            const int32_t column = x + kx * p->dilation_width;
            if (row < 0 || row >= p->height || column < 0 || column >= p->width) continue;
            const int16_t *from = in + (row * p->width + column) * p->channels;
            for (int32_t i = 0; i < depth; i++) {
                if (flags & TFKD_LONG) sum += from[i] * weights[i];
                else small += from[i] * weights[i];
            }
        }
    }
    return flags & TFKD_LONG ? sum : small;
}

TFKD_INLINE void tfkd_products(const tfkd_products_params *p, const int16_t *in, int16_t *out, int flags) {
    const int32_t taps = p->kernel_height * p->kernel_width * p->group_channels;
    for (int32_t oy = 0; oy < p->out_height; oy++)
        for (int32_t ox = 0; ox < p->out_width; ox++) {
            const int32_t y = oy * p->stride_height - p->pad_top, x = ox * p->stride_width - p->pad_left;
            const int8_t *weights = p->weights;
            for (int32_t c = 0, group = 0, left = p->group_out_channels; c < p->out_channels; c++, weights += taps) {
                const int64_t sum = tfkd_products_sum(p, in + group, weights, y, x, p->bias[c], flags);
                const int32_t result = flags & TFKD_TWICE
                                           ? tfkd_multiply((int32_t)sum, p->multiplier[c], p->shift[c])
                                           : tfkd_rescale_long(sum, p->multiplier[c], p->shift[c]);
                *out++ = (int16_t)tfkd_clamp(result, p->least, p->most);
                if (--left == 0) left = p->group_out_channels, group += p->group_channels;
            }
        }
}
