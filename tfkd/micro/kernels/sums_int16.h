/* Sums of products with int16 activations, and what comes of them: 64 bits, one rounding, zero points of 0. */
typedef int64_t tfkd_int16_sum;

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

TFKD_INLINE int32_t tfkd_int16_scale(int64_t sum, int32_t multiplier, int32_t shift) {
    return tfkd_rescale_long(sum, multiplier, shift);
}

TFKD_INLINE int32_t tfkd_int16_requantize(int64_t sum, int32_t multiplier, int32_t shift, int32_t zero_point,
                                          int32_t least, int32_t most, int flags) {
    (void)zero_point, (void)flags;
    return tfkd_clamp(tfkd_rescale_long(sum, multiplier, shift), least, most);
}
