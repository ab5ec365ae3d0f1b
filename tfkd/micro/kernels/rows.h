/* A chain of layers that run by rows in turn. Each computes the rows that the next one's windows need; of its input only
 * the rows that windows still need are kept, from the slab's start on. */
typedef struct {
    int16_t stride, reach, pad, height; /* of the windows; of the whole input */
    int32_t row, slab;                  /* bytes of a row of the input; where the input lies in the arena */
} tfkd_window;

typedef struct {
    int32_t in, out;                          /* bytes to the rows that are read and written */
    int16_t first, end, top, height, pad_top; /* rows to compute; the first row kept of the input; what kernels take */
} tfkd_turn;

/* What each layer has to compute so that the last has its rows up to `end`. */
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
            if (top > from->first) from->first = (int16_t)top; /* strides may pass over rows */
            from->end = (int16_t)stop;
            from->out = (from->first - top) * w->row;
        }
        turn->top = (int16_t)top;
    }
}
