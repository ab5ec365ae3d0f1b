"""C that finds objects in the raw outputs of a model.

Each decoder computes what the decoder of its task in Python computes from the same integers, in float32 instead of
float64: probabilities agree within 1e-6. Nothing is allocated; results go to an array of the caller.
"""

from __future__ import annotations

from tfkd.errors import ModelError
from tfkd.micro.c_context import CTYPES
from tfkd.micro.emitter import Program
from tfkd.tasks import anchors

# Anchors in each cell of a detector.
_RATIOS = len(anchors.RATIOS)


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
    declaration, body = _DECODERS[decoder](program, CTYPES[tensor.dtype], shape)
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


def _grid(program: Program, value: str, shape: tuple[int, ...]) -> tuple[str, str]:
    """Centres of objects from the logits of cells, see `tfkd.tasks.grid`."""
    name = program.name
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


def _ssd(program: Program, value: str, shape: tuple[int, ...]) -> tuple[str, str]:
    """Boxes from the offsets and logits of anchors, see `tfkd.tasks.anchors`."""
    name, images = program.name, [one.tensor.shape[1:] for one in program.inputs if len(one.tensor.shape) == 4]
    strides = anchors.strides_of(images[0], shape[0]) if len(images) == 1 and len(shape) == 2 else None
    if strides is None or shape[1] < 5:
        raise _other_shape(
            "ssd",
            f"[anchors, 4 + classes] of one image, with the anchors of one of the strides {anchors.STRIDES}",
            shape,
        )
    layout, levels, first = anchors.of(*images[0][:2], strides), [], 0
    for stride in strides:
        rows, columns = (-(-side // stride) for side in images[0][:2])
        sizes = ", ".join(f"{{{wide!r}f, {high!r}f}}" for wide, high in layout[first : first + _RATIOS, 2:].tolist())
        levels.append(f"    {{{rows}, {columns}, {{{sizes}}}}}")
        first += rows * columns * _RATIOS
    declaration = f"""\
/* A box: its ends as shares of the width and height of the image, the class from 0, and its probability. */
typedef struct {{
    float left, top, right, bottom, score;
    int32_t label;
}} tfkd_{name}_box;

/* Finds the boxes whose probability is at least `threshold`, the most certain first: of boxes of a class that overlap
 * with an IoU above {anchors.NMS_IOU} the most certain. Writes at most `capacity` of them, and at most {anchors.MOST},
 * and returns their number. */
int tfkd_{name}_decode(const {value} *out, float threshold, tfkd_{name}_box *found, int capacity);"""
    body = f"""\
#define ANCHORS {shape[0]}
#define COLUMNS {shape[1]} /* four offsets, then the logits of the classes */

/* The anchors: rows and columns of cells of each level, and width and height of the anchors of a cell. */
static const struct {{
    int rows, columns;
    float sizes[{_RATIOS}][2];
}} LEVELS[] = {{
{("," + chr(10)).join(levels)}
}};

static float real({value} quantized) {{
    return (float)((int32_t)quantized - ZERO_POINT) * SCALE;
}}

/* The box of an anchor; it may exceed the image. */
static void set_box(const {value} *out, int anchor, tfkd_{name}_box *box) {{
    const {value} *offsets = out + anchor * COLUMNS;
    int level = 0, cell;
    float x, y, w, h;
    while (anchor >= LEVELS[level].rows * LEVELS[level].columns * {_RATIOS}) {{
        anchor -= LEVELS[level].rows * LEVELS[level].columns * {_RATIOS};
        level++;
    }}
    cell = anchor / {_RATIOS};
    w = LEVELS[level].sizes[anchor % {_RATIOS}][0];
    h = LEVELS[level].sizes[anchor % {_RATIOS}][1];
    x = ((float)(cell % LEVELS[level].columns) + 0.5f) / (float)LEVELS[level].columns;
    y = ((float)(cell / LEVELS[level].columns) + 0.5f) / (float)LEVELS[level].rows;
    x += {anchors.VARIANCES[0]}f * real(offsets[0]) * w;
    y += {anchors.VARIANCES[0]}f * real(offsets[1]) * h;
    w *= expf(fminf({anchors.VARIANCES[1]}f * real(offsets[2]), {anchors.LARGEST_EXPONENT}f));
    h *= expf(fminf({anchors.VARIANCES[1]}f * real(offsets[3]), {anchors.LARGEST_EXPONENT}f));
    box->left = x - w / 2.0f;
    box->top = y - h / 2.0f;
    box->right = x + w / 2.0f;
    box->bottom = y + h / 2.0f;
}}

static float overlap(const tfkd_{name}_box *a, const tfkd_{name}_box *b) {{
    const float across = fminf(a->right, b->right) - fmaxf(a->left, b->left);
    const float down = fminf(a->bottom, b->bottom) - fmaxf(a->top, b->top);
    const float common = fmaxf(across, 0.0f) * fmaxf(down, 0.0f);
    const float areas = (a->right - a->left) * (a->bottom - a->top) + (b->right - b->left) * (b->bottom - b->top);
    return common / (areas - common);
}}

static float within(float share) {{
    return fminf(fmaxf(share, 0.0f), 1.0f);
}}

int tfkd_{name}_decode(const {value} *out, float threshold, tfkd_{name}_box *found, int capacity) {{
    int32_t value = INT32_MAX, next;
    int count = 0, anchor, column, i;
    if (capacity > {anchors.MOST}) capacity = {anchors.MOST};
    /* One pass for each value that a logit has, from the largest on: nothing is sorted or stored. */
    for (;;) {{
        const float p = value == INT32_MAX ? 1.0f : 1.0f / (1.0f + expf(-(float)(value - ZERO_POINT) * SCALE));
        if (p < threshold || count >= capacity) break;
        next = INT32_MIN;
        for (anchor = 0; anchor < ANCHORS; anchor++) {{
            for (column = 4; column < COLUMNS; column++) {{
                const int32_t logit = out[anchor * COLUMNS + column];
                tfkd_{name}_box box;
                if (logit < value && logit > next) next = logit;
                if (logit != value || count >= capacity) continue;
                set_box(out, anchor, &box);
                box.label = column - 4;
                box.score = p;
                for (i = 0; i < count; i++) {{
                    if (found[i].label == box.label && overlap(&found[i], &box) > {anchors.NMS_IOU}f) break;
                }}
                if (i == count) found[count++] = box;
            }}
        }}
        if (next == INT32_MIN) break;
        value = next;
    }}
    for (i = 0; i < count; i++) {{
        found[i].left = within(found[i].left);
        found[i].top = within(found[i].top);
        found[i].right = within(found[i].right);
        found[i].bottom = within(found[i].bottom);
    }}
    return count;
}}
"""
    return declaration, body


_DECODERS = {"grid": _grid, "ssd": _ssd}
NAMES = tuple(_DECODERS)


def _other_shape(decoder: str, expected: str, shape: tuple[int, ...]) -> ModelError:
    return ModelError(
        f"export-c: the decoder {decoder} takes an output {expected}. Received: {list(shape)}. Leave the option out."
    )
