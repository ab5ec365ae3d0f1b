"""C that finds objects in the raw outputs of a model.

Each decoder computes what the decoder of its task in Python computes from the same integers, in float32 instead of
float64: probabilities agree within 1e-6. Nothing is allocated; results go to an array of the caller.
"""

from __future__ import annotations

from tfkd.errors import ModelError
from tfkd.micro.c_context import CTYPES
from tfkd.micro.emitter import Program


def files(program: Program, decoder: str) -> dict[str, str]:
    """The files `<name>_decode.h` and `<name>_decode.c`.

    Args:
        program: The program whose only output is decoded.
        decoder: One of `NAMES`.

    Raises:
        ModelError: The program has several outputs, or one of another shape or without a scale.
    """
    if len(program.outputs) != 1:
        raise ModelError(
            f"export-c: decode needs a model with one output. Received: {len(program.outputs)}. Leave the option out."
        )
    tensor = program.outputs[0].tensor
    if not tensor.scales:
        raise ModelError(
            f"export-c: decode needs an output with a scale. Received: {tensor.dtype} without one. Leave the option "
            "out."
        )
    shape = tuple(tensor.shape[1:])
    declaration, body = _DECODERS[decoder](program.name, CTYPES[tensor.dtype], shape)
    guard = f"TFKD_{program.name.upper()}_DECODE_H"
    header = (
        f'#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n\n#ifdef __cplusplus\nextern "C" {{\n#endif\n\n'
        f"{declaration}\n\n#ifdef __cplusplus\n}}\n#endif\n\n#endif\n"
    )
    source = (
        f'#include "{program.name}_decode.h"\n\n#include <math.h>\n\n'
        f"#define SCALE {tensor.scale!r}f\n#define ZERO_POINT ({tensor.zero_point})\n{body}"
    )
    return {f"{program.name}_decode.h": header, f"{program.name}_decode.c": source}


def _grid(name: str, value: str, shape: tuple[int, ...]) -> tuple[str, str]:
    """Centres of objects from the logits of cells, see `tfkd.tasks.grid`."""
    if len(shape) != 3 or shape[2] < 2:
        raise _other_shape("grid", "[rows, columns, 1 + classes]", shape)
    declaration = f"""\
/* The centre of an object: shares of the width and height of the image, the class from 0, and its probability. */
typedef struct {{
    float x, y, score;
    int32_t label;
}} tfkd_{name}_centre;

/* Finds the centres whose probability is at least `threshold`, the most certain first. A cell is a centre of a class if
 * none of its eight neighbours has a higher probability of that class. Writes at most `capacity` of them and returns
 * their number. */
int tfkd_{name}_decode(const {value} *out, float threshold, tfkd_{name}_centre *found, int capacity);"""
    body = f"""\
#define ROWS {shape[0]}
#define COLUMNS {shape[1]}
#define CHANNELS {shape[2]} /* channel 0 is the background */

/* The softmax of a cell at one channel. */
static float probability(const {value} *out, int row, int column, int channel) {{
    const {value} *cell = out + (row * COLUMNS + column) * CHANNELS;
    int32_t largest = cell[0];
    float sum = 0.0f;
    int c;
    for (c = 1; c < CHANNELS; c++) {{
        if (cell[c] > largest) largest = cell[c];
    }}
    for (c = 0; c < CHANNELS; c++) sum += expf((float)((int32_t)cell[c] - largest) * SCALE);
    return expf((float)((int32_t)cell[channel] - largest) * SCALE) / sum;
}}

/* Whether no neighbour has a higher probability p; of equal neighbours the first counts. */
static int is_peak(const {value} *out, int row, int column, int channel, float p) {{
    int down, right;
    for (down = -1; down <= 1; down++) {{
        for (right = -1; right <= 1; right++) {{
            const int r = row + down, c = column + right;
            float other;
            if ((down == 0 && right == 0) || r < 0 || c < 0 || r >= ROWS || c >= COLUMNS) continue;
            other = probability(out, r, c, channel);
            if (other > p) return 0;
            if (other >= p && (down < 0 || (down == 0 && right < 0))) return 0;
        }}
    }}
    return 1;
}}

int tfkd_{name}_decode(const {value} *out, float threshold, tfkd_{name}_centre *found, int capacity) {{
    int count = 0, row, column, channel;
    for (row = 0; row < ROWS; row++) {{
        for (column = 0; column < COLUMNS; column++) {{
            for (channel = 1; channel < CHANNELS; channel++) {{
                const float p = probability(out, row, column, channel);
                int place;
                if (p < threshold || !is_peak(out, row, column, channel, p)) continue;
                if (count == capacity && (count == 0 || p <= found[count - 1].score)) continue;
                if (count < capacity) count++;
                for (place = count - 1; place > 0 && found[place - 1].score < p; place--) {{
                    found[place] = found[place - 1];
                }}
                found[place].x = ((float)column + 0.5f) / (float)COLUMNS;
                found[place].y = ((float)row + 0.5f) / (float)ROWS;
                found[place].score = p;
                found[place].label = channel - 1;
            }}
        }}
    }}
    return count;
}}
"""
    return declaration, body


_DECODERS = {"grid": _grid}
NAMES = tuple(_DECODERS)


def _other_shape(decoder: str, expected: str, shape: tuple[int, ...]) -> ModelError:
    return ModelError(
        f"export-c: the decoder {decoder} takes an output {expected}. Received: {list(shape)}. Leave the option out."
    )
