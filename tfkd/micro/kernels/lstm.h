/* UNIDIRECTIONAL_SEQUENCE_LSTM, int8 activations and weights, int16 cell state: the bits of TensorFlow Lite Micro's
 * micro/kernels/unidirectional_sequence_lstm.cc.
 *
 *   input    [1, steps, inputs] int8
 *   hidden   [units] int8, cell [units] int16: state, read and written
 *   output   [1, steps, units] int8
 *
 * Per step and unit, with gates input, forget, cell, output:
 *   cell = forget * cell + input * cell gate, clipped;  output = output gate * tanh(cell) */
#include "arithmetic.h"
#include "dot.h"
#include "sigmoid.h"

typedef struct {
    const int8_t *weights;        /* [units, 4 gates, inputs + units] */
    const int32_t *bias;          /* [units, 4 gates, 2]: for the input, for the hidden state; zero points folded in */
    const uint16_t *sigmoid;      /* [256] sigmoid(i / 24) with 16 fraction bits */
    int32_t multiplier[8], shift[8]; /* [4 gates, 2], as for bias */
    int32_t forget_multiplier, forget_shift, input_multiplier, input_shift, out_multiplier, out_shift;
    int32_t steps, inputs, units;
    int32_t tanh_multiplier, tanh_shift; /* factor from the cell state to the argument of tfkd_tanh */
    int16_t clip, out_zero_point; /* clip: largest magnitude of the cell state, 0 for none */
} tfkd_lstm_params;

TFKD_INLINE int32_t tfkd_lstm_short(int32_t x) { return tfkd_clamp(x, -32768, 32767); }

/* Dot product of a row of weights with values, rescaled to 16 bits. */
TFKD_INLINE int32_t tfkd_lstm_product(const int8_t *weights, const int8_t *values, int32_t count, int32_t sum,
                                      int32_t multiplier, int32_t shift) {
    return tfkd_lstm_short(tfkd_multiply(tfkd_dot_product(weights, values, count, sum), multiplier, shift));
}

TFKD_INLINE void tfkd_lstm(const tfkd_lstm_params *p, const int8_t *in, int8_t *hidden, int16_t *cell, int8_t *out,
                           int flags) {
    const int8_t *last = hidden; /* output of the previous step */
    (void)flags;
    for (int32_t step = 0; step < p->steps; step++, in += p->inputs, last = out, out += p->units) {
        const int8_t *weights = p->weights;
        const int32_t *bias = p->bias;
        for (int32_t unit = 0; unit < p->units; unit++) {
            int32_t gates[4];
            for (int32_t g = 0; g < 4; g++, bias += 2) {
                const int32_t first = tfkd_lstm_product(weights, in, p->inputs, bias[0], p->multiplier[2 * g],
                                                        p->shift[2 * g]);
                weights += p->inputs;
                const int32_t second = tfkd_lstm_product(weights, last, p->units, bias[1], p->multiplier[2 * g + 1],
                                                         p->shift[2 * g + 1]);
                weights += p->units;
                const int32_t sum = 3 * tfkd_lstm_short(first + second);
                gates[g] = g == 2 ? tfkd_tanh(p->sigmoid, sum) : tfkd_sigmoid(p->sigmoid, sum);
            }
            const int32_t kept = tfkd_lstm_short(tfkd_multiply(gates[1] * cell[unit], p->forget_multiplier,
                                                               p->forget_shift));
            const int32_t added = tfkd_lstm_short(tfkd_multiply(gates[0] * gates[2], p->input_multiplier,
                                                                p->input_shift));
            int32_t state = tfkd_lstm_short(kept + added);
            if (p->clip > 0) state = tfkd_clamp(state, -p->clip, p->clip);
            cell[unit] = (int16_t)state;
            state = (state * p->tanh_multiplier + ((1 << p->tanh_shift) >> 1)) >> p->tanh_shift;
            const int32_t product = tfkd_tanh(p->sigmoid, state) * gates[3];
            const int32_t result = tfkd_multiply(product, p->out_multiplier, p->out_shift);
            out[unit] = (int8_t)tfkd_around(result, p->out_zero_point, -128, 127);
        }
    }
    memcpy(hidden, last, (size_t)p->units);
}
