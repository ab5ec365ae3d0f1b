/* A chain of layers that are computed by rows, so that no intermediate tensor is held as a whole. In each turn a layer
 * computes only the rows that the next layer needs for its own rows. Of an intermediate tensor, the input of one layer
 * and the output of the one before, only the rows that are still needed are kept, at the start of its buffer (`slab`):
 *
 *   rows of the tensor   0 ... top-1   top ... first-1   first ... end-1   end ...
 *                        dropped       kept              computed now      not yet computed
 *   position in slab                   0, 1, ...         first - top, ... */
#include "arithmetic.h"

typedef struct {
    int16_t stride, reach, pad; /* rows between windows, rows of a window (dilation included), padding at the top */
    int16_t height;             /* rows of the whole input */
    int32_t row, slab;          /* bytes per row of the input; offset of the input in the arena */
} tfkd_window;

typedef struct {
    int32_t in, out;         /* offsets of the rows that are read and written, in bytes */
    int16_t first, end;      /* rows first .. end - 1 are to be computed */
    int16_t top;             /* first row of the input that is kept */
    int16_t height, pad_top; /* parameters of the layer's kernel for these rows */
} tfkd_turn;

/* Sets which rows each layer has to compute, from the last layer back to the first, so that the last has its rows up to
 * `end`; moves the rows that are kept to the start of their buffers. */
TFKD_INLINE void tfkd_pull(const tfkd_window *windows, tfkd_turn *turns, int32_t last, int32_t end, int8_t *arena) {
    turns[last].first = turns[last].end;
    turns[last].end = (int16_t)end;
    turns[last].out = turns[last].first * windows[last + 1].row;
    for (int32_t i = last; i >= 0; i--) {
        const tfkd_window *w = windows + i;
        tfkd_turn *turn = turns + i, *from = i ? turn - 1 : 0;
        if (from) from->first = from->end;
        if (turn->first == turn->end) continue;
        const int32_t corner = turn->first * w->stride - w->pad, top = corner < 0 ? 0 : corner;
        int32_t stop = (turn->end - 1) * w->stride - w->pad + w->reach;
        if (!from || stop > w->height) stop = w->height;
        turn->pad_top = (int16_t)(top - corner);
        turn->height = (int16_t)(stop - top);
        turn->in = from ? 0 : top * w->row;
        if (from) {
            int8_t *slab = arena + w->slab;
            const int32_t kept = (from->end - top) * w->row, by = (top - turn->top) * w->row;
            for (int32_t at = 0; by > 0 && at < kept; at += by)
                memcpy(slab + at, slab + at + by, (size_t)(kept - at < by ? kept - at : by));
            if (top > from->first) from->first = (int16_t)top; /* a stride may skip rows */
            from->end = (int16_t)stop;
            from->out = (from->first - top) * w->row;
        }
        turn->top = (int16_t)top;
    }
}
