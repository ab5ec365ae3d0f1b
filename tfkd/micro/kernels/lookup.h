/* Any op of one int8 to one int8, as a table made from its exact formula. */
typedef struct {
    const int8_t *table; /* for -128 .. 127 */
    int32_t count;
} tfkd_lookup_params;

TFKD_INLINE void tfkd_lookup(const tfkd_lookup_params *p, const int8_t *in, int8_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) out[i] = p->table[in[i] + 128];
}
