/* The firmware around a model: an emulator writes the inputs into the arena, starts at `tfkd_start`, stops at
 * `tfkd_stop` and reads the outputs. In QEMU, qemu_boot.c starts it and has `tfkd_stop`. */
#include <stddef.h>
#include TFKD_HEADER

#if defined(__clang__)
#define NO_BUILTIN __attribute__((no_builtin, used))
#else
#define NO_BUILTIN __attribute__((used, optimize("no-tree-loop-distribute-patterns")))
#endif

NO_BUILTIN void *memcpy(void *to, const void *from, size_t count) {
    unsigned char *a = to;
    const unsigned char *b = from;
    if (!(((uintptr_t)a | (uintptr_t)b) & 3))
        for (; count >= 4; count -= 4, a += 4, b += 4) *(uint32_t *)(void *)a = *(const uint32_t *)(const void *)b;
    while (count--) *a++ = *b++;
    return to;
}

NO_BUILTIN void *memset(void *to, int value, size_t count) {
    unsigned char *a = to;
    while (count--) *a++ = (unsigned char)value;
    return to;
}

/* What a compiler for this ABI may call in their place. */
NO_BUILTIN void __aeabi_memcpy(void *to, const void *from, size_t count) { memcpy(to, from, count); }
NO_BUILTIN void __aeabi_memcpy4(void *to, const void *from, size_t count) { memcpy(to, from, count); }
NO_BUILTIN void __aeabi_memclr(void *to, size_t count) { memset(to, 0, count); }
NO_BUILTIN void __aeabi_memclr4(void *to, size_t count) { memset(to, 0, count); }
NO_BUILTIN void __aeabi_memset(void *to, size_t count, int value) { memset(to, value, count); }

TFKD_CTX tfkd_context; /* inputs and outputs lie in its arena */
volatile int tfkd_status = -1;

#ifdef TFKD_QEMU
__attribute__((noreturn)) void tfkd_stop(void);
#else
__attribute__((noinline, used)) void tfkd_stop(void) {
    for (;;) __asm__ volatile("");
}
#endif

#ifdef TFKD_SOUND
/* A part of a sound to the features, run on its own as the decoder is; the last part of an input copies them. */
TFKD_SOUND tfkd_sound;
TFKD_IN_VALUE tfkd_features[TFKD_IN_SIZE];
int16_t tfkd_samples[TFKD_PART];
volatile int32_t tfkd_count, tfkd_is_last;

__attribute__((noinline, used)) void tfkd_listen(void) {
    tfkd_status = TFKD_SOUND_ADD(&tfkd_sound, tfkd_samples, tfkd_count, tfkd_features);
    if (tfkd_is_last) memcpy((int8_t *)(void *)&tfkd_context + TFKD_IN_AT, tfkd_features, sizeof tfkd_features);
    tfkd_stop();
}
#endif

#if TFKD_SINGLE
/* What a firmware does with the output of a classifier, run on its own, so that its cost stands beside the model's. */
__attribute__((noinline, used)) void tfkd_decode(void) {
    const TFKD_OUT_VALUE *out = (const TFKD_OUT_VALUE *)(void *)((int8_t *)(void *)&tfkd_context + TFKD_OUT_AT);
    int best = 0, i;
    for (i = 1; i < TFKD_OUT_SIZE; i++)
        if (out[i] > out[best]) best = i;
    tfkd_status = best;
    tfkd_stop();
}
#endif

#if TFKD_STATEFUL
volatile int32_t tfkd_is_continued; /* whether the input is a further chunk of a sequence */
#endif

__attribute__((noinline, used)) void tfkd_start(void) {
    int8_t *arena = (int8_t *)(void *)&tfkd_context;
#if TFKD_STATEFUL
    if (!tfkd_is_continued) TFKD_RESET(&tfkd_context); /* no state passes from one sample to the next */
#endif
#if TFKD_SINGLE
    const TFKD_IN_VALUE *in = (const TFKD_IN_VALUE *)(void *)(arena + TFKD_IN_AT);
    tfkd_status = TFKD_RUN(&tfkd_context, in, (TFKD_OUT_VALUE *)(void *)(arena + TFKD_OUT_AT));
#else
    static const int in_at[] = {TFKD_IN_AT}, out_at[] = {TFKD_OUT_AT};
    const TFKD_IN_VALUE *in[sizeof in_at / sizeof *in_at];
    TFKD_OUT_VALUE *out[sizeof out_at / sizeof *out_at];
    for (size_t i = 0; i < sizeof in / sizeof *in; i++) in[i] = (const TFKD_IN_VALUE *)(void *)(arena + in_at[i]);
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) out[i] = (TFKD_OUT_VALUE *)(void *)(arena + out_at[i]);
    tfkd_status = TFKD_RUN(&tfkd_context, in, out);
#endif
    tfkd_stop();
}
