/* Sets a tensor to one value, before a smaller one is copied into it. */
typedef struct {
    int32_t count;
    int8_t value;
} tfkd_set_params;

TFKD_INLINE void tfkd_set(const tfkd_set_params *p, int8_t *out, int flags) {
    (void)flags;
    for (int32_t i = 0; i < p->count; i++) out[i] = p->value;
}
