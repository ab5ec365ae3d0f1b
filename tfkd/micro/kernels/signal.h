/* Ops of a sound front end, with the bits of TensorFlow Lite Micro's signal library: SignalWindow, SignalFftAutoScale,
 * SignalEnergy, SignalFilterBank, SignalFilterBankSquareRoot, SignalFilterBankSpectralSubtraction, SignalPCAN and
 * SignalFilterBankLog.
 *
 * Samples are int16, a spectrum is pairs of real and imaginary parts, energies are uint32. A uint64 is two uint32, the
 * low half first, since the arena is aligned to 4 bytes. */
#include "fixed_point.h"

/* a * b as 64 bits. */
TFKD_INLINE uint64_t tfkd_long_product(uint32_t a, uint32_t b) {
#if defined(__thumb__) && !defined(__thumb2__)
    /* no 64-bit product on this core: see tfkd_high_mul */
    const uint32_t a_low = a & 0xffffu, a_high = a >> 16, b_low = b & 0xffffu, b_high = b >> 16;
    const uint32_t low = a_low * b_low, middle = a_high * b_low + (low >> 16);
    const uint32_t second = a_low * b_high + (middle & 0xffffu);
    const uint32_t high = a_high * b_high + (middle >> 16) + (second >> 16);
    return (uint64_t)high << 32 | (uint64_t)((second << 16) | (low & 0xffffu));
#else
    return (uint64_t)a * b;
#endif
}

/* The low 32 bits of x >> bits for 0 <= bits <= 63, without a shift of 64 bits, which Cortex-M0+ lacks. */
TFKD_INLINE uint32_t tfkd_long_shift(uint64_t x, int32_t bits) {
    const uint32_t low = (uint32_t)x, high = (uint32_t)(x >> 32);
    if (bits >= 32) return high >> (bits - 32);
    return bits ? low >> bits | high << (32 - bits) : low;
}

typedef struct {
    int32_t rows, size, shift;
    const int16_t *window;
} tfkd_signal_window_params;

/* in [rows, size] * window >> shift, saturated. */
TFKD_INLINE void tfkd_signal_window(const tfkd_signal_window_params *p, const int16_t *in, int16_t *out, int flags) {
    (void)flags;
    for (int32_t row = 0; row < p->rows; row++)
        for (int32_t i = 0; i < p->size; i++) {
            const int32_t x = *in++ * p->window[i] >> p->shift;
            *out++ = (int16_t)(x < INT16_MIN ? INT16_MIN : x > INT16_MAX ? INT16_MAX : x);
        }
}

typedef struct {
    int32_t count;
} tfkd_signal_count_params;

/* The bits by which all samples can be shifted to the left. As in the library, a largest absolute value of 32768
 * becomes -32768, below all samples that follow. */
TFKD_INLINE void tfkd_signal_scale_bits(const tfkd_signal_count_params *p, const int16_t *in, int32_t *out, int flags) {
    int16_t most = 0;
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) {
        if (in[i] > most)
            most = in[i];
        else if (-in[i] > most)
            most = (int16_t)-in[i];
    }
    *out = most > 0 ? tfkd_leading_zeros((uint32_t)most) - 17 : 0;
}

/* in * 2^bits, with one number of bits for all samples. */
TFKD_INLINE void tfkd_signal_scaled(const tfkd_signal_count_params *p, const int16_t *in, const int32_t *bits,
                                    int16_t *out, int flags) {
    const int32_t factor = 1 << (*bits & 15);
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) out[i] = (int16_t)(in[i] * factor);
}

typedef struct {
    int32_t count, start, end;
} tfkd_signal_energy_params;

/* Squared absolute values of the bins from start to end; 0 for others, which the library leaves as they were. */
TFKD_INLINE void tfkd_signal_energy(const tfkd_signal_energy_params *p, const int16_t *in, uint32_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) {
        const int32_t real = in[2 * i], imaginary = in[2 * i + 1];
        const uint32_t energy = (uint32_t)(real * real) + (uint32_t)(imaginary * imaginary);
        out[i] = p->start <= i && i < p->end ? energy : 0;
    }
}

typedef struct {
    int32_t channels;                /* one more than the filters: the first one is the left side of a filter only */
    const int16_t *starts, *widths;  /* of each channel, the first bin and the number of bins */
    const int16_t *places;           /* and where its weights start */
    const int16_t *rising, *falling; /* weights of a bin in the channel and in the next one */
} tfkd_signal_filter_bank_params;

/* x * weight modulo 2^64. */
TFKD_INLINE uint64_t tfkd_signal_weighted(uint32_t x, int16_t weight) {
    return tfkd_long_product(x, (uint32_t)weight) - ((uint64_t)(weight < 0 ? x : 0) << 32);
}

/* Sums of energies under triangles, of which each begins at the middle of the one before. */
TFKD_INLINE void tfkd_signal_filter_bank(const tfkd_signal_filter_bank_params *p, const uint32_t *in, uint32_t *out,
                                         int flags) {
    uint64_t sum = 0;
    (void)flags;
    for (int32_t channel = 0; channel < p->channels; channel++) {
        const uint32_t *x = in + p->starts[channel];
        const int16_t *up = p->rising + p->places[channel], *down = p->falling + p->places[channel];
        uint64_t next = 0;
        for (int32_t i = 0; i < p->widths[channel]; i++) {
            sum += tfkd_signal_weighted(x[i], up[i]);
            next += tfkd_signal_weighted(x[i], down[i]);
        }
        if (channel) {
            *out++ = (uint32_t)sum;
            *out++ = (uint32_t)(sum >> 32);
        }
        sum = next;
    }
}

/* The square root, rounded; as in the library, at most 2^16 - 1 for numbers below 2^32. */
TFKD_INLINE uint32_t tfkd_signal_root(uint64_t x) {
    const uint32_t most = x >> 32 ? 0xffffffffu : 0xffffu;
    uint64_t root = 0, bit = (uint64_t)1 << 62;
    while (bit > x) bit >>= 2;
    for (; bit; bit >>= 2) {
        const uint64_t tried = root + bit;
        root >>= 1;
        if (x >= tried) {
            x -= tried;
            root += bit;
        }
    }
    return (uint32_t)root + (x > root && root < most);
}

TFKD_INLINE void tfkd_signal_square_root(const tfkd_signal_count_params *p, const uint32_t *in, const int32_t *bits,
                                         uint32_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++)
        out[i] = tfkd_signal_root((uint64_t)in[2 * i + 1] << 32 | in[2 * i]) >> (*bits & 31);
}

typedef struct {
    int32_t count, up, bits, clamping; /* up: fraction bits of the noise; bits: those of the factors */
    uint32_t smoothing[2], kept[2];    /* factors of new energies and of the noise, of even and of odd channels */
} tfkd_signal_noise_params;

/* The noise of each channel, a smoothed energy with fraction bits. */
TFKD_INLINE void tfkd_signal_noise(const tfkd_signal_noise_params *p, const uint32_t *in, uint32_t *noise,
                                   uint32_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) {
        const uint32_t x = in[i] << p->up;
        const uint64_t sum = tfkd_long_product(x, p->smoothing[i & 1]) + tfkd_long_product(noise[i], p->kept[i & 1]);
        const uint32_t smooth = tfkd_long_shift(sum, p->bits);
        out[i] = noise[i] = p->clamping && smooth > x ? x : smooth;
    }
}

typedef struct {
    int32_t count, up, bits;
    uint32_t remaining; /* least part of an energy that remains, with `bits` fraction bits */
} tfkd_signal_subtraction_params;

TFKD_INLINE void tfkd_signal_subtraction(const tfkd_signal_subtraction_params *p, const uint32_t *in,
                                         const uint32_t *noise, uint32_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) {
        const uint32_t x = in[i] << p->up;
        const uint32_t least = tfkd_long_shift(tfkd_long_product(in[i], p->remaining), p->bits);
        const uint32_t rest = (x - (noise[i] < x ? noise[i] : x)) >> p->up;
        out[i] = rest > least ? rest : least;
    }
}

typedef struct {
    int32_t count, shift;
    const int16_t *gains;
} tfkd_signal_pcan_params;

/* A function of the noise, given at 0, 1 and 2 and by a parabola for each power of two above: value at the start,
 * slope, curvature. */
TFKD_INLINE uint32_t tfkd_signal_gain(uint32_t x, const int16_t *gains) {
    if (x <= 2) return (uint32_t)gains[x];
    const int32_t length = 32 - tfkd_leading_zeros(x);
    const int16_t *parabola = gains + 4 * length - 6;
    const int32_t part = (int32_t)((length < 11 ? x << (11 - length) : x >> (length - 11)) & 0x3ff);
    int32_t result = (parabola[2] * part >> 5) + (int32_t)((uint32_t)parabola[1] << 5);
    result = (int32_t)((uint32_t)result * (uint32_t)part + 0x4000u) >> 15;
    return (uint32_t)(int16_t)(result + parabola[0]);
}

/* Per-channel gain by the noise, then x^2 / 4 below 2 and x - 1 above: x with 12 fraction bits, the result with 6. */
TFKD_INLINE void tfkd_signal_pcan(const tfkd_signal_pcan_params *p, const uint32_t *in, const uint32_t *noise,
                                  uint32_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) {
        const uint32_t gain = tfkd_signal_gain(noise[i], p->gains);
        const uint32_t x = tfkd_long_shift(tfkd_long_product(in[i], gain), p->shift);
        out[i] = x < 0x2000u ? x * x >> 20 : (x >> 6) - 64;
    }
}

typedef struct {
    int32_t count, up;
    uint32_t scale;
    const uint16_t *bend; /* 2^16 (log2(1 + i / 128) - i / 128) for i = 0 ... 128 */
} tfkd_signal_log_params;

/* scale * ln(x * 2^up), at most 32767; 0 where x * 2^up is at most 1. */
TFKD_INLINE void tfkd_signal_log(const tfkd_signal_log_params *p, const uint32_t *in, int16_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) {
        const uint32_t x = in[i] << p->up;
        out[i] = 0;
        if (x < 2) continue;
        const int32_t zeros = tfkd_leading_zeros(x);
        const uint32_t part = x << zeros << 1 >> 16, at = part >> 9; /* 16 bits behind the leading one */
        const int32_t rise = p->bend[at + 1] - p->bend[at];
        const int32_t bent = (int32_t)part + p->bend[at] + (rise * (int32_t)(part & 0x1ff) >> 16);
        const uint32_t log2 = ((uint32_t)(31 - zeros) << 16) + (uint32_t)bent;
        const uint32_t ln = (uint32_t)((tfkd_long_product(45426, log2) + 0x8000u) >> 16); /* 2^16 ln 2 */
        const uint32_t scaled = (p->scale * ln + 0x8000u) >> 16;
        out[i] = (int16_t)(scaled < INT16_MAX ? scaled : INT16_MAX);
    }
}
