/* SignalRfft and SignalIrfft of int16, with the bits of KISS FFT in 16-bit fixed point, which TensorFlow Lite Micro
 * uses: a real transform of 2^k values by a complex one of half as many, with stages of radix 4 and, for an odd power of
 * two, a first stage of radix 2. Each stage divides by its radix. Complex numbers are pairs of a real and an imaginary
 * part.
 *
 * The complex transform works in place on values in the order of reversed digits:
 *
 *   n = 8: stages of 2, then 4      position  0 1 2 3 4 5 6 7
 *                                   value     0 4 1 5 2 6 3 7 */
#include "arithmetic.h"

typedef struct {
    int32_t rows, length, size;        /* length: values of an input row of SignalRfft; size: complex values */
    const int16_t *turns, *half_turns; /* e^(-+2 pi i k / size), k < 3/4 size; e^(-+pi i ((k + 1) / size + 1/2)) */
} tfkd_fourier_params;

typedef struct {
    int32_t re, im;
} tfkd_complex;

/* x / 2^15, rounded. */
TFKD_INLINE int32_t tfkd_q15(int32_t x) { return (int16_t)((x + 0x4000) >> 15); }

/* A complex number / radix. */
TFKD_INLINE tfkd_complex tfkd_complex_part(int32_t re, int32_t im, int32_t radix) {
    const int32_t factor = 32767 / radix;
    const tfkd_complex result = {tfkd_q15((int16_t)re * factor), tfkd_q15((int16_t)im * factor)};
    return result;
}

TFKD_INLINE tfkd_complex tfkd_complex_product(tfkd_complex x, const int16_t *y) {
    const tfkd_complex result = {tfkd_q15(x.re * y[0] - x.im * y[1]), tfkd_q15(x.re * y[1] + x.im * y[0])};
    return result;
}

TFKD_INLINE void tfkd_complex_store(int16_t *to, int32_t re, int32_t im) {
    to[0] = (int16_t)re;
    to[1] = (int16_t)im;
}

/* Joins two transforms of one value. */
TFKD_INLINE void tfkd_fourier_pairs(int16_t *x, int32_t size) {
    for (; size; size -= 2, x += 4) {
        const tfkd_complex a = tfkd_complex_part(x[0], x[1], 2), b = tfkd_complex_part(x[2], x[3], 2);
        tfkd_complex_store(x, a.re + b.re, a.im + b.im);
        tfkd_complex_store(x + 2, a.re - b.re, a.im - b.im);
    }
}

/* Joins each four transforms of `part` values to one. */
TFKD_INLINE void tfkd_fourier_fours(const tfkd_fourier_params *p, int16_t *x, int32_t part, int sign) {
    const int32_t step = p->size / (4 * part) * 2; /* elements of `turns` */
    const int16_t *end = x + 2 * p->size;
    for (; x < end; x += 6 * part)
        for (int32_t k = 0; k < part; k++, x += 2) {
            int16_t *x1 = x + 2 * part, *x2 = x1 + 2 * part, *x3 = x2 + 2 * part;
            const tfkd_complex a = tfkd_complex_part(x[0], x[1], 4);
            tfkd_complex b = tfkd_complex_part(x1[0], x1[1], 4), c = tfkd_complex_part(x2[0], x2[1], 4);
            tfkd_complex d = tfkd_complex_part(x3[0], x3[1], 4);
            if (k) { /* the first turn changes no bit */
                b = tfkd_complex_product(b, p->turns + k * step);
                c = tfkd_complex_product(c, p->turns + 2 * k * step);
                d = tfkd_complex_product(d, p->turns + 3 * k * step);
            }
            const tfkd_complex sum = {b.re + d.re, b.im + d.im};
            const tfkd_complex difference = {sign * (b.re - d.re), sign * (b.im - d.im)};
            tfkd_complex_store(x, a.re + c.re + sum.re, a.im + c.im + sum.im);
            tfkd_complex_store(x1, a.re - c.re + difference.im, a.im - c.im - difference.re);
            tfkd_complex_store(x2, a.re + c.re - sum.re, a.im + c.im - sum.im);
            tfkd_complex_store(x3, a.re - c.re - difference.im, a.im - c.im + difference.re);
        }
}

/* The complex transform; sign: 1 forwards, -1 backwards. */
TFKD_INLINE void tfkd_fourier_complex(const tfkd_fourier_params *p, int16_t *x, int sign) {
    int32_t part = (p->size & 0x55555555) ? 1 : 2;
    if (part == 2) tfkd_fourier_pairs(x, p->size);
    for (; part < p->size; part *= 4) tfkd_fourier_fours(p, x, part, sign);
}

/* The value at the position after that of value `at`: adds 1 to the last digit and carries towards the first one. */
TFKD_INLINE int32_t tfkd_fourier_next(int32_t at, int32_t size) {
    int32_t digit = (size & 0x55555555) ? 3 * (size >> 2) : size >> 1; /* all bits of the last digit */
    while (digit && (at & digit) == digit) {
        at -= digit;
        digit = digit == size >> 1 ? 3 * (size >> 3) : digit >> 2;
    }
    return at + (digit & -digit);
}

/* SignalRfft: [rows, length] padded with zeros to 2 * size values, to [rows, size + 1] complex values. */
TFKD_INLINE void tfkd_fourier_forwards(const tfkd_fourier_params *p, const int16_t *in, int16_t *out, int flags) {
    const int32_t size = p->size;
    (void)flags;
    for (int32_t row = 0; row < p->rows; row++, in += p->length, out += 2 * size + 2) {
        for (int32_t i = 0, at = 0; i < size; i++, at = tfkd_fourier_next(at, size))
            tfkd_complex_store(out + 2 * i, 2 * at < p->length ? in[2 * at] : 0,
                               2 * at + 1 < p->length ? in[2 * at + 1] : 0);
        tfkd_fourier_complex(p, out, 1);
        const tfkd_complex first = tfkd_complex_part(out[0], out[1], 2);
        tfkd_complex_store(out, first.re + first.im, 0);
        tfkd_complex_store(out + 2 * size, first.re - first.im, 0);
        for (int32_t k = 1; k <= size / 2; k++) {
            int16_t *low = out + 2 * k, *high = out + 2 * (size - k);
            const tfkd_complex x = tfkd_complex_part(low[0], low[1], 2), y = tfkd_complex_part(high[0], -high[1], 2);
            const tfkd_complex sum = {x.re + y.re, x.im + y.im}, difference = {x.re - y.re, x.im - y.im};
            const tfkd_complex turned = tfkd_complex_product(difference, p->half_turns + 2 * (k - 1));
            tfkd_complex_store(low, (sum.re + turned.re) >> 1, (sum.im + turned.im) >> 1);
            tfkd_complex_store(high, (sum.re - turned.re) >> 1, (turned.im - sum.im) >> 1);
        }
    }
}

/* SignalIrfft: [rows, size + 1] complex values to [rows, 2 * size]. */
TFKD_INLINE void tfkd_fourier_backwards(const tfkd_fourier_params *p, const int16_t *in, int16_t *out, int flags) {
    const int32_t size = p->size;
    (void)flags;
    for (int32_t row = 0; row < p->rows; row++, in += 2 * size + 2, out += 2 * size) {
        const tfkd_complex first = tfkd_complex_part(in[0] + in[2 * size], in[0] - in[2 * size], 2);
        tfkd_complex_store(out, first.re, first.im);
        for (int32_t i = 1, at = 0; i < size; i++) {
            at = tfkd_fourier_next(at, size);
            const int32_t k = 2 * at < size ? at : size - at;
            const int16_t *low = in + 2 * k, *high = in + 2 * (size - k);
            const tfkd_complex x = tfkd_complex_part(low[0], low[1], 2), y = tfkd_complex_part(high[0], -high[1], 2);
            const tfkd_complex sum = {x.re + y.re, x.im + y.im}, difference = {x.re - y.re, x.im - y.im};
            const tfkd_complex turned = tfkd_complex_product(difference, p->half_turns + 2 * (k - 1));
            if (k == at)
                tfkd_complex_store(out + 2 * i, sum.re + turned.re, sum.im + turned.im);
            else
                tfkd_complex_store(out + 2 * i, sum.re - turned.re, turned.im - sum.im);
        }
        tfkd_fourier_complex(p, out, -1);
    }
}
