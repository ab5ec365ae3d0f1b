/* Weights of two output channels, a and b, in 16 bits each: what convolution.h and fully_connected.h read.
 *
 * TFKD_PACKED takes four values of each channel and gives four words, on cores with vectors as bytes of one channel,
 * then of the other, elsewhere as pairs (see tfkd_second in arithmetic.h) in the order in which `sxtb16` widens a word:
 *
 *   word       0        1        2        3
 *   vectors    a0 a1    a2 a3    b0 b1    b2 b3     low byte, high byte
 *   elsewhere  a0, b0   a2, b2   a1, b1   a3, b3    256 * b + a */
#include "platform.h"

#define TFKD_TWO(low, high) ((int16_t)(256L * (high) + (low)))
#if TFKD_MVE
#define TFKD_PACKED(a0, a1, a2, a3, b0, b1, b2, b3)                                                     \
    TFKD_TWO((a0) & 255, a1), TFKD_TWO((a2) & 255, a3), TFKD_TWO((b0) & 255, b1), TFKD_TWO((b2) & 255, b3)
#else
#define TFKD_PACKED(a0, a1, a2, a3, b0, b1, b2, b3)                                                     \
    TFKD_TWO(a0, b0), TFKD_TWO(a2, b2), TFKD_TWO(a1, b1), TFKD_TWO(a3, b3)
#endif
