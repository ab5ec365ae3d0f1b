/* Integer arithmetic of TensorFlow Lite Micro's reference kernels, exact to the last bit.
 * Right shifts of negative numbers are arithmetic, as on every compiler for these cores. */
#if defined(__STDC_HOSTED__) && __STDC_HOSTED__
#include <string.h>
#else
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);
#endif

#if defined(__GNUC__)
#define TFKD_INLINE static inline __attribute__((always_inline, unused))
#define TFKD_NOINLINE __attribute__((noinline, unused))
#define TFKD_ALIGNED __attribute__((aligned(4)))
#else
#define TFKD_INLINE static inline
#define TFKD_NOINLINE
#define TFKD_ALIGNED
#endif

/* A function that is assembly throughout; gcc must not think that it leaves registers alone. */
#if defined(__clang__)
#define TFKD_ASSEMBLY __attribute__((naked, noinline, unused)) static
#else
#define TFKD_ASSEMBLY __attribute__((naked, noinline, noipa, unused)) static
#endif

#if defined(__ARM_FEATURE_DSP) && __ARM_FEATURE_DSP && !defined(TFKD_PORTABLE)
#define TFKD_DSP 1
#else
#define TFKD_DSP 0
#endif

/* Cores with eight registers for everything, where a compiler spends its time on the stack. */
#if defined(__GNUC__) && defined(__thumb__) && !defined(__thumb2__) && !defined(TFKD_PORTABLE)
#define TFKD_THUMB1 1
#else
#define TFKD_THUMB1 0
#endif

/* Weights and shifts, where a kernel's text serves activations of several types. */
typedef int8_t tfkd_byte;

/* What a layer's numbers need; known when the code is generated, so that the compiler drops the rest. */
#define TFKD_ANY_SHIFT 1 /* shifts are exponents of any sign; else right shifts minus one */
#define TFKD_SIGNED 2    /* negative results survive the clamp, so their halves round away from zero */
#define TFKD_CLAMP 4     /* the output range is narrower than int8, or numbers pass the bounds of what saturates */
#define TFKD_WIDE 8      /* sums may pass the bounds of the fast forms */
#define TFKD_ONE_SHIFT 16 /* right shifts minus one lie in 3 to 9: sums may be shifted before, so that all get one after */
#define TFKD_BY_ROWS 32  /* depthwise: some of the layers by pairs of rows; some not */
#define TFKD_BY_PLANE 64

/* Whether sums may be multiplied times up to 256 and saturated. */
#define TFKD_FAST(flags) (!((flags) & (TFKD_ANY_SHIFT | TFKD_WIDE | TFKD_CLAMP)))

/* One load where the core can load from any address. */
TFKD_INLINE uint32_t tfkd_load4(const void *from) {
    uint32_t word;
#if defined(__GNUC__)
    __builtin_memcpy(&word, from, 4);
#else
    memcpy(&word, from, 4);
#endif
    return word;
}

TFKD_INLINE void tfkd_store4(void *to, uint32_t word) {
#if defined(__GNUC__)
    __builtin_memcpy(to, &word, 4);
#else
    memcpy(to, &word, 4);
#endif
}

TFKD_INLINE int32_t tfkd_divide(int32_t sum, int32_t count) {
#if defined(__thumb__) && !defined(__thumb2__)
    /* no division on this core: bit by bit, without a library */
    uint32_t rest = sum < 0 ? 0u - (uint32_t)sum : (uint32_t)sum, quotient = 0;
    for (int bit = 31; bit >= 0; bit--) {
        if ((rest >> bit) >= (uint32_t)count) {
            rest -= (uint32_t)count << bit;
            quotient |= (uint32_t)1 << bit;
        }
    }
    return sum < 0 ? -(int32_t)quotient : (int32_t)quotient;
#else
    return sum / count;
#endif
}

/* (a * b + 2^30) >> 31 for b >= 0: the saturating rounding doubling high multiply. */
TFKD_INLINE int32_t tfkd_high_mul(int32_t a, int32_t b) {
#if defined(__thumb__) && !defined(__thumb2__)
    /* no 64-bit product here: four of 16 bits */
    const int32_t a_high = a >> 16, b_high = b >> 16;
    const uint32_t a_low = (uint32_t)a & 0xffffu, b_low = (uint32_t)b & 0xffffu;
    const uint32_t low = a_low * b_low;
    const int32_t middle = a_high * (int32_t)b_low + (int32_t)(low >> 16);
    const uint32_t second = a_low * (uint32_t)b_high + ((uint32_t)middle & 0xffffu);
    const uint32_t high = (uint32_t)(a_high * b_high + (middle >> 16)) + (second >> 16);
    const uint32_t rest = ((second << 16) | (low & 0xffffu)) + 0x40000000u;
    return (int32_t)(((high + (rest < 0x40000000u)) << 1) | (rest >> 31));
#else
    return (int32_t)(((int64_t)a * b + 0x40000000) >> 31);
#endif
}

/* The same for |a| < 2^30. */
TFKD_INLINE int32_t tfkd_high_mul_small(int32_t a, int32_t b) {
#if TFKD_DSP
    int32_t result;
    __asm__("smmulr %0, %1, %2" : "=r"(result) : "r"(a * 2), "r"(b));
    return result;
#else
    return tfkd_high_mul(a, b);
#endif
}

/* Divides by 2^exponent, halves away from zero. */
TFKD_INLINE int32_t tfkd_divide_by_power(int32_t x, int32_t exponent) {
    const int32_t mask = (int32_t)(((uint32_t)1 << exponent) - 1u);
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0));
}

/* x * multiplier * 2^(shift - 31), rounded twice. */
TFKD_INLINE int32_t tfkd_multiply(int32_t x, int32_t multiplier, int32_t shift) {
    if (shift > 0) return tfkd_high_mul((int32_t)((uint32_t)x << shift), multiplier);
    return tfkd_divide_by_power(tfkd_high_mul(x, multiplier), -shift);
}

TFKD_INLINE int32_t tfkd_clamp(int32_t x, int32_t least, int32_t most) {
    return x < least ? least : x > most ? most : x;
}

/* x / 2 as an int8 in the output's range. */
TFKD_INLINE int32_t tfkd_saturate_half(int32_t x, int32_t least, int32_t most, int flags) {
    if (flags & TFKD_CLAMP) return tfkd_clamp(x >> 1, least, most);
#if TFKD_DSP
    int32_t result;
    __asm__("ssat %0, #8, %1, asr #1" : "=r"(result) : "r"(x));
    return result;
#else
    return tfkd_clamp(x >> 1, -128, 127);
#endif
}

/* Adds the zero point to a result, within the limits; in this order no sum overflows. */
TFKD_INLINE int32_t tfkd_around(int32_t x, int32_t zero_point, int32_t least, int32_t most) {
    return tfkd_clamp(x, least - zero_point, most - zero_point) + zero_point;
}

/* An accumulator to an int8 output. */
TFKD_INLINE int32_t tfkd_requantize(int32_t sum, int32_t multiplier, int32_t shift, int32_t zero_point, int32_t least,
                                    int32_t most, int flags) {
    if (flags & TFKD_ANY_SHIFT) return tfkd_clamp(tfkd_multiply(sum, multiplier, shift) + zero_point, least, most);
    int32_t x = flags & TFKD_WIDE ? tfkd_high_mul(sum, multiplier) : tfkd_high_mul_small(sum, multiplier);
    if (flags & TFKD_SIGNED) x += x >> 31;
    return tfkd_saturate_half((x >> shift) + 2 * zero_point + 1, least, most, flags);
}

/* Whether kernels may hand over accumulators times two, which the multiplication takes without a shift. */
#define TFKD_DOUBLED(flags) (TFKD_DSP && !((flags) & (TFKD_ANY_SHIFT | TFKD_WIDE)))

TFKD_INLINE int32_t tfkd_requantize_twice(int32_t twice, int32_t multiplier, int32_t shift, int32_t zero_point,
                                          int32_t least, int32_t most, int flags) {
#if TFKD_DSP
    int32_t x;
    __asm__("smmulr %0, %1, %2" : "=r"(x) : "r"(twice), "r"(multiplier));
    if (flags & TFKD_SIGNED) x += x >> 31;
    return tfkd_saturate_half((x >> shift) + 2 * zero_point + 1, least, most, flags);
#else
    return tfkd_requantize(twice / 2, multiplier, shift, zero_point, least, most, flags);
#endif
}

#if TFKD_DSP
/* bytes 0 and 2 as two signed halves */
TFKD_INLINE uint32_t tfkd_even(uint32_t bytes) {
    uint32_t result;
    __asm__("sxtb16 %0, %1" : "=r"(result) : "r"(bytes));
    return result;
}
/* bytes 1 and 3 */
TFKD_INLINE uint32_t tfkd_odd(uint32_t bytes) {
    uint32_t result;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(bytes));
    return result;
}
TFKD_INLINE int32_t tfkd_mac2(uint32_t a, uint32_t b, int32_t sum) {
    int32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}
TFKD_INLINE int32_t tfkd_mac_low(uint32_t a, uint32_t b, int32_t sum) {
    int32_t result;
    __asm__("smlabb %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}
/* low half of a, high half of b */
TFKD_INLINE int32_t tfkd_mac_low_high(uint32_t a, uint32_t b, int32_t sum) {
    int32_t result;
    __asm__("smlabt %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}
TFKD_INLINE int32_t tfkd_mac_high_low(uint32_t a, uint32_t b, int32_t sum) {
    int32_t result;
    __asm__("smlatb %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}
TFKD_INLINE int32_t tfkd_mac_high(uint32_t a, uint32_t b, int32_t sum) {
    int32_t result;
    __asm__("smlatt %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}
#endif

/* In assembly: halves of negative values round away from zero, or nothing where those are clamped. */
#define TFKD_AWAY(x) "add " x ", " x ", " x ", asr #31\n"
#define TFKD_AS_IS(x)

/* Two values of 16 bits at an address that is a multiple of 4, the first in the low half. */
#if defined(__GNUC__)
typedef uint32_t __attribute__((may_alias)) tfkd_word;
#define TFKD_WORD(from, i) ((int32_t)((const tfkd_word *)(const void *)(from))[i])
#else
#define TFKD_WORD(from, i) ((int32_t)tfkd_load4((const int16_t *)(from) + 2 * (i)))
#endif

/* Two weights a and b lie in 16 bits as 256 * b + a. A sum of products with them is 256 * B + A; a second sum with the
 * low bytes alone gives A. So one load and one sign extension serve two output channels. */
TFKD_INLINE int32_t tfkd_second(int32_t packed, int32_t first) {
    return (int32_t)((uint32_t)packed - (uint32_t)first) >> 8;
}

/* The output of the first of two channels that share 16 bits, or of the second. */
TFKD_INLINE int32_t tfkd_output(const int32_t sums[2], int second, int32_t bias, int32_t multiplier, int32_t shift,
                                int32_t zero_point, int32_t least, int32_t most, int flags) {
    if (TFKD_DOUBLED(flags)) {
        const int32_t difference = (int32_t)((uint32_t)sums[0] - (uint32_t)sums[1]);
        const int32_t twice = 2 * bias + (second ? difference >> 7 : 2 * sums[1]);
        return tfkd_requantize_twice(twice, multiplier, shift, zero_point, least, most, flags);
    }
    int32_t sum = sums[1];
    if (second) sum = flags & TFKD_WIDE ? sums[0] : tfkd_second(sums[0], sums[1]);
    return tfkd_requantize(sum + bias, multiplier, shift, zero_point, least, most, flags);
}
