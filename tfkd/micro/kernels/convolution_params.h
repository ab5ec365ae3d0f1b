/* The parameters of CONV_2D int8, see convolution.h. */
#include "platform.h"

typedef struct {
    const int16_t *weights; /* [groups, pairs of channels, depth / 2, 2]: packed, see tfkd_second */
    /* [groups, pairs of channels, 7], for each pair of channels the words
     *   0  bias of the second channel; in the fast form packed, 256 * second + first
     *   1  bias of the first channel; both have the input's zero point folded in
     *   2  byte 0: shift of the first, byte 1: of the second channel; fast form: bit 31 marks a group's last whole pair
     *   3, 4  multipliers
     *   5, 6  fast form: what is added before the shift, see arm_dsp_convolution.h
     * With TFKD_ONE_PRODUCT the biases have what tfkd_one_product adds to a sum or 256 sums, and word 2 has bit 31 only */
    const int32_t *pairs;
    int16_t height, width, channels, out_height, out_width, out_channels;
    int16_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int16_t pad_top, pad_left;
    int16_t groups, group_channels, group_out_channels;
    int16_t depth; /* values of a receptive field in one group, rounded up to a multiple of 4 */
    int8_t zero_point, out_zero_point, least, most;
} tfkd_convolution_params;
