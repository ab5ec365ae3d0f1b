/* Functions of floats, with integers and the four operations of IEEE 754 only: no library is needed, and the bits are the
 * same on every core. Without a unit for floats or doubles the compiler's runtime computes these. */
#include "arithmetic.h"

TFKD_INLINE uint32_t tfkd_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

TFKD_INLINE float tfkd_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* A product that is rounded before it is added to a sum: compilers may fuse both on cores that can. */
TFKD_INLINE float tfkd_product(float x, float y) {
    volatile float product = x * y;
    return product;
}

/* The square root, rounded to nearest: 25 bits of the root of the mantissa, times 2^25, by long division; the last bit
 * rounds, since no root lies halfway between two floats. */
TFKD_INLINE float tfkd_sqrt(float x) {
    uint32_t bits = tfkd_bits(x);
    if (bits << 1 == 0 || bits >= 0x7f800000u) return bits << 1 == 0 || bits == 0x7f800000u ? x : tfkd_float(0x7fc00000u);
    int32_t exponent = (int32_t)(bits >> 23);
    uint32_t mantissa = bits & 0x7fffffu;
    if (exponent) mantissa |= 0x800000u;
    else
        for (exponent = 1; mantissa < 0x800000u; exponent--) mantissa <<= 1;
    exponent -= 127;
    if (exponent & 1) mantissa <<= 1, exponent--;
    uint64_t rest = (uint64_t)mantissa << 25, root = 0;
    for (uint64_t bit = (uint64_t)1 << 48; bit; bit >>= 2) {
        if (rest >= root + bit) {
            rest -= root + bit;
            root = (root >> 1) + bit;
        } else root >>= 1;
    }
    return tfkd_float((uint32_t)((exponent / 2 + 126) * 0x800000) + (uint32_t)((root + 1) >> 1));
}

/* e^x as the C libraries glibc, newlib and musl compute it, with a polynomial in doubles.
 *
 *   e^x = 2^(k / 32) * 2^(r / 32),    k = round(32 * x / ln 2),    |r| <= 1/2
 *
 * Entry i of the table: the bits of 2^(i / 32), minus i << 47, so that k << 47 adds the whole part to the exponent. */
TFKD_INLINE float tfkd_exp(float x) {
    static const uint64_t table[32] = {
        0x3ff0000000000000u, 0x3fefd9b0d3158574u, 0x3fefb5586cf9890fu, 0x3fef9301d0125b51u,
        0x3fef72b83c7d517bu, 0x3fef54873168b9aau, 0x3fef387a6e756238u, 0x3fef1e9df51fdee1u,
        0x3fef06fe0a31b715u, 0x3feef1a7373aa9cbu, 0x3feedea64c123422u, 0x3feece086061892du,
        0x3feebfdad5362a27u, 0x3feeb42b569d4f82u, 0x3feeab07dd485429u, 0x3feea47eb03a5585u,
        0x3feea09e667f3bcdu, 0x3fee9f75e8ec5f74u, 0x3feea11473eb0187u, 0x3feea589994cce13u,
        0x3feeace5422aa0dbu, 0x3feeb737b0cdc5e5u, 0x3feec49182a3f090u, 0x3feed503b23e255du,
        0x3feee89f995ad3adu, 0x3feeff76f2fb5e47u, 0x3fef199bdd85529cu, 0x3fef3720dcef9069u,
        0x3fef5818dcfba487u, 0x3fef7c97337b9b5fu, 0x3fefa4afa2a490dau, 0x3fefd0765b6e4540u};
    if (x != x) return x;
    if (x > 88.72283f) return tfkd_float(0x7f800000u);
    if (x < -103.97208f) return 0.0f;
    const double scaled = 46.16624130844683 * (double)x; /* 32 / ln 2 */
    const int32_t k = (int32_t)(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    const double r = scaled - (double)k;
    const uint64_t bits = table[k & 31] + ((uint64_t)(int64_t)k << 47);
    double power;
    memcpy(&power, &bits, 8);
    const double third = r * 1.6938359250920212e-06 + 2.3459809789509004e-4; /* (ln 2 / 32)^3 / 6, (ln 2 / 32)^2 / 2 */
    return (float)((third * (r * r) + (r * 0.021660849396613134 + 1.0)) * power);
}
