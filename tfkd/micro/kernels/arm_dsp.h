/* Instructions of the Arm DSP extension as functions. Each takes one cycle on Cortex-M4.
 *
 * A word of two halves is written (high, low), a word of four bytes (b3, b2, b1, b0).
 *
 *   function            instruction          result
 *   tfkd_even           sxtb16 x             (b2, b0), each sign-extended to 16 bits
 *   tfkd_odd            sxtb16 x, ror #8     (b3, b1), each sign-extended to 16 bits
 *   tfkd_sum_of_halves  uadd16               sums of the high and of the low halves
 *   tfkd_mac2           smlad                sum + a.low * b.low + a.high * b.high
 *   tfkd_high_mul_twice smmulr               (a * b + 2^31) >> 32
 *   tfkd_saturate_8     ssat #8, asr #1      x >> 1, saturated to [-128, 127] */
#include "platform.h"

#if TFKD_DSP
TFKD_INLINE uint32_t tfkd_even(uint32_t bytes) {
    uint32_t result;
    __asm__("sxtb16 %0, %1" : "=r"(result) : "r"(bytes));
    return result;
}

TFKD_INLINE uint32_t tfkd_odd(uint32_t bytes) {
    uint32_t result;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(bytes));
    return result;
}

TFKD_INLINE uint32_t tfkd_sum_of_halves(uint32_t a, uint32_t b) {
    uint32_t result;
    __asm__("uadd16 %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

TFKD_INLINE int32_t tfkd_mac2(uint32_t a, uint32_t b, int32_t sum) {
    int32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

TFKD_INLINE int32_t tfkd_high_mul_twice(int32_t a, int32_t b) {
    int32_t result;
    __asm__("smmulr %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

TFKD_INLINE int32_t tfkd_saturate_8(int32_t x) {
    int32_t result;
    __asm__("ssat %0, #8, %1, asr #1" : "=r"(result) : "r"(x));
    return result;
}

/* Text for assembly: adds -1 to a negative x, so that the rounding shift that follows rounds halves away from zero; or
 * nothing, where negative results are clamped anyway. */
#define TFKD_ROUND_AWAY(x) "add " x ", " x ", " x ", asr #31\n"
#endif
