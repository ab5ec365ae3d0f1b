/* SignalFramer, SignalStacker, SignalDelay and SignalOverlapAdd of int16: ops that keep samples between runs.
 *
 * Framer and Stacker put what arrives behind what is kept. Where that fills a frame, its first values are the output,
 * and a step of them is dropped. Where it does not, the output is 0 and not valid; TensorFlow Lite Micro leaves it as
 * it was. */
#include "arithmetic.h"

typedef struct {
    int32_t outer, frames;      /* independent signals, and frames that one run adds to each */
    int32_t added, size, step;  /* values that a frame adds, its length, and values that it drops */
    int32_t repeated, capacity; /* times that the very first values are repeated; most values that are kept */
} tfkd_frames_params;

/* Values that are kept before a run and the repetitions of the first ones; `kept` is -1 before the first run. */
TFKD_INLINE int32_t tfkd_frames_before(const tfkd_frames_params *p, int32_t kept) {
    return kept < 0 ? p->repeated * p->added : kept;
}

/* Whether all frames of this run are valid: whether the first one is. Runs before the frames, which change `kept`. */
TFKD_INLINE void tfkd_frames_valid(const tfkd_frames_params *p, int32_t *kept, int8_t *out, int flags) {
    (void)flags;
    *out = tfkd_frames_before(p, *kept) + p->added >= p->size;
}

TFKD_INLINE void tfkd_frames(const tfkd_frames_params *p, const int16_t *in, int32_t *kept, int16_t *buffer,
                             int16_t *out, int flags) {
    const int32_t first = *kept;
    (void)flags;
    for (int32_t row = 0; row < p->outer; row++, buffer += p->capacity) {
        int32_t count = tfkd_frames_before(p, first);
        for (int32_t i = 0; first < 0 && i < count; i += p->added)
            memcpy(buffer + i, in, (size_t)p->added * sizeof *in);
        for (int32_t frame = 0; frame < p->frames; frame++, in += p->added, out += p->size) {
            memcpy(buffer + count, in, (size_t)p->added * sizeof *in);
            count += p->added;
            if (count < p->size) {
                memset(out, 0, (size_t)p->size * sizeof *out);
                continue;
            }
            memcpy(out, buffer, (size_t)p->size * sizeof *out);
            count -= p->step;
            for (int32_t i = 0; i < count; i++) buffer[i] = buffer[i + p->step];
        }
        *kept = count;
    }
}

typedef struct {
    int32_t outer, size, length; /* independent signals, their values in a run, and values by which they are delayed */
} tfkd_delay_params;

TFKD_INLINE void tfkd_delay(const tfkd_delay_params *p, const int16_t *in, int16_t *kept, int16_t *out, int flags) {
    (void)flags;
    for (int32_t row = 0; row < p->outer; row++, in += p->size, out += p->size, kept += p->length) {
        const int32_t old = p->length < p->size ? p->length : p->size;
        memcpy(out, kept, (size_t)old * sizeof *out);
        memcpy(out + old, in, (size_t)(p->size - old) * sizeof *out);
        for (int32_t i = old; i < p->length; i++) kept[i - old] = kept[i];
        memcpy(kept + p->length - old, in + p->size - old, (size_t)old * sizeof *kept);
    }
}

typedef struct {
    int32_t outer, frames, size, step; /* step: values that are complete after a frame */
} tfkd_overlap_add_params;

TFKD_INLINE void tfkd_overlap_add(const tfkd_overlap_add_params *p, const int16_t *in, int16_t *kept, int16_t *out,
                                  int flags) {
    (void)flags;
    for (int32_t row = 0; row < p->outer; row++, kept += p->size)
        for (int32_t frame = 0; frame < p->frames; frame++, in += p->size) {
            for (int32_t i = 0; i < p->size; i++) {
                const int32_t sum = in[i] + kept[i];
                const int16_t value = (int16_t)(sum < INT16_MIN ? INT16_MIN : sum > INT16_MAX ? INT16_MAX : sum);
                if (i < p->step)
                    *out++ = value;
                else
                    kept[i - p->step] = value;
            }
            memset(kept + p->size - p->step, 0, (size_t)p->step * sizeof *kept);
        }
}
