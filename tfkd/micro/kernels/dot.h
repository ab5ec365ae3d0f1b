#include "arithmetic.h"

/* sum + a[0] * b[0] + ... + a[count - 1] * b[count - 1]. */
TFKD_INLINE int32_t tfkd_dot_product(const int8_t *a, const int8_t *b, int32_t count, int32_t sum) {
    const int8_t *end = a + count;
#if TFKD_DSP
    for (; end - a >= 4; a += 4, b += 4) {
        const uint32_t x = tfkd_load4(a), y = tfkd_load4(b);
        sum = tfkd_mac2(tfkd_odd(x), tfkd_odd(y), tfkd_mac2(tfkd_even(x), tfkd_even(y), sum));
    }
#endif
    while (a < end) sum += *a++ * *b++;
    return sum;
}
