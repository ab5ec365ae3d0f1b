/* FULLY_CONNECTED int8 on cores with vectors: the inner loops of fully_connected.h.
 *
 * A block of weights, as TFKD_PACKED gives it: channels c .. c + 7 and four values each are 32 bytes, so that 16 values of
 * one channel are four words, 32 bytes apart:
 *
 *   byte      0            4            8            ...   28           32           36
 *   channel   c            c + 1        c + 2              c + 7        c            c + 1
 *   values    0 1 2 3      0 1 2 3      0 1 2 3            0 1 2 3      4 5 6 7      4 5 6 7 */
#include "arm_helium.h"
#include "packed_weights.h"

#if TFKD_MVE
/* Sums of four channels over one row of `depth` values. For each 16 values and four channels:
 *
 *   instruction      number  what
 *   vldrb            1       16 values
 *   vldrw, gather    4       16 weights of each channel
 *   vmladava         4       16 products, added to the sum of each channel
 *   vadd             1       the next weights */
TFKD_INLINE int32x4_t tfkd_dot_4(const int8_t *in, const int32_t *weights, int32_t depth) {
    int32_t a = 0, b = 0, c = 0, d = 0;
    uint32x4_t at = vidupq_n_u32(0, 8);
    at = vshlq_n_u32(at, 2); /* 0, 32, 64, 96 */
    for (int32_t i = depth >> 4; i > 0; i--, in += 16) {
        const int8x16_t x = vldrbq_s8(in);
        a = vmladavaq_s8(a, x, vreinterpretq_s8_s32(vldrwq_gather_offset_s32(weights, at)));
        b = vmladavaq_s8(b, x, vreinterpretq_s8_s32(vldrwq_gather_offset_s32(weights + 1, at)));
        c = vmladavaq_s8(c, x, vreinterpretq_s8_s32(vldrwq_gather_offset_s32(weights + 2, at)));
        d = vmladavaq_s8(d, x, vreinterpretq_s8_s32(vldrwq_gather_offset_s32(weights + 3, at)));
        at = vaddq_n_u32(at, 128);
    }
    if (depth & 15) {
        const int8x16_t x = vldrbq_z_s8(in, vctp8q((uint32_t)depth & 15));
        const mve_pred16_t some = vctp32q((((uint32_t)depth & 15) + 3) >> 2);
        a = vmladavaq_s8(a, x, vreinterpretq_s8_s32(vldrwq_gather_offset_z_s32(weights, at, some)));
        b = vmladavaq_s8(b, x, vreinterpretq_s8_s32(vldrwq_gather_offset_z_s32(weights + 1, at, some)));
        c = vmladavaq_s8(c, x, vreinterpretq_s8_s32(vldrwq_gather_offset_z_s32(weights + 2, at, some)));
        d = vmladavaq_s8(d, x, vreinterpretq_s8_s32(vldrwq_gather_offset_z_s32(weights + 3, at, some)));
    }
    const int32x4_t sums = {a, b, c, d};
    return sums;
}
#endif
