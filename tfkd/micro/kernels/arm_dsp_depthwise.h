/* DEPTHWISE_CONV_2D int8, 3x3 with stride 1 or 2, on cores with the DSP extension: the inner loops of depthwise.h.
 *
 * Four channels of the padded input are held as pairs of rows. Two columns x, x + 1 (x even) of one pair of rows and
 * four channels take 8 words; a word holds the upper row's value in its low half and the lower row's in its high half:
 *
 *   word      0   1     2   3     4   5     6   7
 *   channel   0   0     1   1     2   2     3   3
 *   column    x   x+1   x   x+1   x   x+1   x   x+1 */
#include "arithmetic.h"

#if TFKD_DSP
TFKD_STATIC_ASSERT(sizeof(void *) == 4, tfkd_dsp_depthwise_needs_32_bit_pointers);

/* Parameters of tfkd_gather: columns x, x + 1 are read two at a time; a single one may come before and after. */
typedef struct {
    int32_t step;  /* bytes from a column to the next in the upper row; 0 repeats one value */
    int32_t twos;  /* number of times two columns are read */
    int32_t first; /* 1: before them a single column, the second of its two */
    int32_t last;  /* 1: after them a single column, the first of its two */
    int32_t step2; /* as `step`, in the lower row */
} tfkd_gather_params;
TFKD_STATIC_ASSERT(sizeof(tfkd_gather_params) == 20, tfkd_gather_params_must_be_five_words);

/* One column of four channels: u and l are the bytes of the upper and the lower row.
 *
 *   instruction                        result, bytes from the lowest on
 *   pkhbt r6, r4, r8, lsl #16          u0 u1 l0 l1
 *   pkhtb r10, r8, r4, asr #16         u2 u3 l2 l3
 *   sxtb16 r4, r6                      channel 0: (u0, l0) as halves
 *   sxtb16 r6, r6, ror #8              channel 1: (u1, l1)
 *   sxtb16 r8, r10; r10, ror #8        channels 2 and 3 */
#define TFKD_GATHER_ONE(at)                                                                             \
    "ldr r4, [r0]\n ldr r8, [r1]\n pkhbt r6, r4, r8, lsl #16\n pkhtb r10, r8, r4, asr #16\n"            \
    "sxtb16 r4, r6\n sxtb16 r6, r6, ror #8\n sxtb16 r8, r10\n sxtb16 r10, r10, ror #8\n"                \
    "str r4, [r2, #" at "]\n str r6, [r2, #" at "+8]\n str r8, [r2, #" at "+16]\n str r10, [r2, #" at "+24]\n"

/* Pixels of two rows become a pair of rows.
 *
 *   register    content                          label  what
 *   r0, r1      addresses in upper, lower row           one single column (`first`)
 *   r2          address in the pair of rows      2:     two columns, 21 instructions; even registers hold
 *   r3, r12     step, step2                             column x, odd ones x + 1, so that `stm` stores the
 *   lr          twos left                               eight words in the order of the drawing above
 *   r4 - r11    values; `last` is kept at [sp]   3:     one single column (`last`) */
TFKD_ASSEMBLY void tfkd_gather(const int8_t *upper TFKD_UNUSED, const int8_t *lower TFKD_UNUSED,
                               uint32_t *to TFKD_UNUSED, const tfkd_gather_params *p TFKD_UNUSED) {
    __asm__ volatile(
        "push {r4-r11, lr}\n ldm r3, {r3, r9-r12}\n mov lr, r9\n push {r11}\n"
        "cmp r10, #0\n beq 1f\n" TFKD_GATHER_ONE("4") "add r0, r0, r3\n add r1, r1, r12\n adds r2, r2, #32\n"
        "1:\n cmp lr, #0\n beq 3f\n"
        "2:\n"
        "ldr r4, [r0]\n ldr r8, [r1]\n pkhbt r6, r4, r8, lsl #16\n pkhtb r10, r8, r4, asr #16\n"
        "ldr r5, [r0, r3]\n ldr r9, [r1, r12]\n pkhbt r7, r5, r9, lsl #16\n pkhtb r11, r9, r5, asr #16\n"
        "add r0, r0, r3, lsl #1\n add r1, r1, r12, lsl #1\n"
        "sxtb16 r4, r6\n sxtb16 r6, r6, ror #8\n sxtb16 r5, r7\n sxtb16 r7, r7, ror #8\n"
        "sxtb16 r8, r10\n sxtb16 r10, r10, ror #8\n sxtb16 r9, r11\n sxtb16 r11, r11, ror #8\n"
        "stm r2!, {r4-r11}\n subs lr, lr, #1\n bne 2b\n"
        "3:\n pop {r11}\n cmp r11, #0\n beq 4f\n" TFKD_GATHER_ONE("0")
        "4:\n pop {r4-r11, pc}\n");
}

/* Parameters of tfkd_rows and its variants: some rows of 3x3 outputs of some channels. The assembly updates `out`,
 * `bias`, `multiplier`, `shift`, `weights` and `channels` from one channel to the next. */
typedef struct {
    int32_t length;   /* bytes of a row's columns, without the single output at the end of an odd width */
    int8_t *out;
    int32_t below;    /* bytes from an output to the one below; 0 where the step has none below */
    int32_t step;     /* bytes from an output to the next */
    int32_t odd;      /* `step` where the width is odd: a single output ends each row; else 0 */
    int32_t rows;     /* rows of outputs, at stride 1 pairs of rows */
    int32_t skip;     /* bytes from the end of a row to the start of the next, in the pairs of rows */
    int32_t out_skip; /* the same in the output */
    int32_t last;     /* at stride 1, 1: the last pair of rows has one row of outputs only; else 0 */
    int32_t row;      /* bytes from a pair of rows to the next */
    const int32_t *bias, *multiplier;
    const int8_t *shift, *weights; /* shift: unless signed, the channel's part of the offset */
    int32_t channels;
    int32_t offset; /* of all channels; signed: 2 * zero point + 1, before the shift */
    int32_t advance; /* bytes from a channel to the next in the pairs of rows */
} tfkd_rows_params;
TFKD_STATIC_ASSERT(offsetof(tfkd_rows_params, last) == 32, tfkd_rows_params_must_begin_with_nine_words);
TFKD_STATIC_ASSERT(offsetof(tfkd_rows_params, row) == 36, tfkd_rows_params_row_must_be_at_36);
TFKD_STATIC_ASSERT(offsetof(tfkd_rows_params, bias) == 40, tfkd_rows_params_bias_must_be_at_40);
TFKD_STATIC_ASSERT(offsetof(tfkd_rows_params, shift) == 48, tfkd_rows_params_shift_must_be_at_48);
TFKD_STATIC_ASSERT(offsetof(tfkd_rows_params, channels) == 56, tfkd_rows_params_channels_must_be_at_56);
TFKD_STATIC_ASSERT(offsetof(tfkd_rows_params, advance) == 64, tfkd_rows_params_advance_must_be_at_64);

/* Requantization. r2: multiplier, r3: offset; then r2: shift. Weights are scaled beforehand (label 4), so that x is a
 * multiple of the sum:
 *
 *   variant       x           first step (DW_SCALE)              second step (DW_SHIFT)
 *   one product   256 * sum   (x * m >> 32) + offset             ssat, asr #11
 *   signed        2 * sum     (x * m + 2^31) >> 32,              >> shift, then ssat, asr #1
 *                             -1 if negative, + offset */
#define TFKD_DW_SCALE(x) "smmla " x ", " x ", r2, r3\n"
#define TFKD_DW_SCALE_SIGNED(x) "smmulr " x ", " x ", r2\n" TFKD_ROUND_AWAY(x) "add " x ", " x ", r3\n"
#define TFKD_DW_LOAD_SHIFT "ldr r2, [sp, #16]\n"
#define TFKD_DW_SHIFT(x) "ssat " x ", #8, " x ", asr #" TFKD_TEXT(TFKD_SHIFT_OF_256) "\n"
#define TFKD_DW_SHIFT_SIGNED(x) "asr " x ", " x ", r2\n ssat " x ", #8, " x ", asr #1\n"
#define TFKD_DW_EACH_OUTPUT(do) do("r10") do("r11") do("r12") do("lr")

/* Stride 1: 2 x 2 outputs from 4 x 4 values, 36 products in 24 instructions.
 *
 *             columns   x    x+1  x+2  x+3          outputs   x     x+1
 *   rows y, y+1         r2   r3   r2   r3           y         r10   r12
 *   rows y+2, y+3       r2   r3   r2   r3           y+1       r11   lr
 *
 *   kernel rows   0, 1 (low, high half)   r4, r5, r6: kernel columns 0, 1, 2
 *   kernel rows   1, 2 (low, high half)   r7, r8, r9: kernel columns 0, 1, 2
 *
 *   value rows    outputs of row y                          outputs of row y+1
 *   y, y+1        smlad with r4-r6: kernel rows 0 and 1     smlatb with r4-r6: row y+1 times kernel row 0
 *   y+2, y+3      smlabt with r7-r9: row y+2 times row 2    smlad with r7-r9: kernel rows 1 and 2
 *
 * TFKD_DW_LEFT multiplies columns x, x+1, adding to s0..s3; TFKD_DW_RIGHT columns x+2, x+3. one, two: the instructions
 * for the outputs of row y and y+1. */
#define TFKD_DW_LEFT(one, two, w0, w1, s0, s1, s2, s3)                                                  \
    one " r10, r2, " w0 ", " s0 "\n " two " r11, r2, " w0 ", " s1 "\n"                                  \
    one " r12, r3, " w0 ", " s2 "\n " two " lr, r3, " w0 ", " s3 "\n"                                   \
    one " r10, r3, " w1 ", r10\n " two " r11, r3, " w1 ", r11\n"
#define TFKD_DW_RIGHT(one, two, w1, w2)                                                                 \
    one " r10, r2, " w2 ", r10\n " two " r11, r2, " w2 ", r11\n"                                        \
    one " r12, r2, " w1 ", r12\n " two " lr, r2, " w1 ", lr\n"                                          \
    one " r12, r3, " w2 ", r12\n " two " lr, r3, " w2 ", lr\n"
#define TFKD_DW_STRIDE1(scale, load, shift)                                                             \
    "ldrd r2, r3, [r0], #32\n" TFKD_DW_LEFT("smlad", "smlatb", "r4", "r5", "lr", "lr", "lr", "lr")      \
    "ldrd r2, r3, [r0]\n" TFKD_DW_RIGHT("smlad", "smlatb", "r5", "r6")                                  \
    "ldrd r2, r3, [r1], #32\n" TFKD_DW_LEFT("smlabt", "smlad", "r7", "r8", "r10", "r11", "r12", "lr")   \
    "ldrd r2, r3, [r1]\n" TFKD_DW_RIGHT("smlabt", "smlad", "r8", "r9")                                  \
    "ldrd r2, r3, [sp, #8]\n" TFKD_DW_EACH_OUTPUT(scale) load TFKD_DW_EACH_OUTPUT(shift)                \
    "ldrd r2, r3, [sp, #24]\n strb lr, [r2, r3]\n strb r11, [r2]\n"                                     \
    "ldr lr, [sp, #20]\n strb r12, [lr, r3]\n strb r10, [lr]\n"                                         \
    "add r2, r2, r3, lsl #1\n add lr, lr, r3, lsl #1\n strd lr, r2, [sp, #20]\n"

/* Stride 1, the row y alone: 1 x 2 outputs, 18 products in 12 instructions. r11: address of the output; lr: bias. */
#define TFKD_DW_LEFT_ALONE(one, w0, w1, s0, s2)                                                         \
    one " r10, r2, " w0 ", " s0 "\n " one " r12, r3, " w0 ", " s2 "\n " one " r10, r3, " w1 ", r10\n"
#define TFKD_DW_RIGHT_ALONE(one, w1, w2)                                                                \
    one " r10, r2, " w2 ", r10\n " one " r12, r2, " w1 ", r12\n " one " r12, r3, " w2 ", r12\n"
#define TFKD_DW_ALONE(scale, load, shift)                                                               \
    "ldrd r2, r3, [r0], #32\n" TFKD_DW_LEFT_ALONE("smlad", "r4", "r5", "lr", "lr")                      \
    "ldrd r2, r3, [r0]\n" TFKD_DW_RIGHT_ALONE("smlad", "r5", "r6")                                      \
    "ldrd r2, r3, [r1], #32\n" TFKD_DW_LEFT_ALONE("smlabt", "r7", "r8", "r10", "r12")                   \
    "ldrd r2, r3, [r1]\n" TFKD_DW_RIGHT_ALONE("smlabt", "r8", "r9")                                     \
    "ldrd r2, r3, [sp, #8]\n" scale("r10") scale("r12") load shift("r10") shift("r12")                  \
    "ldr r3, [sp, #28]\n strb r12, [r11, r3]\n strb r10, [r11]\n add r11, r11, r3, lsl #1\n"

/* The last row of outputs at stride 1, where it has none below (`last` equals the rows left); 28 instructions a step. */
#define TFKD_DW_LAST_ROW(scale, load, shift)                                                            \
    "ldr r2, [sp, #36]\n ldr r3, [sp, #48]\n cmp r2, r3\n bne 1f\n ldr r11, [sp, #20]\n"                \
    "5:\n" TFKD_DW_ALONE(scale, load, shift) "ldr r2, [sp]\n cmp r0, r2\n bne 5b\n"                    \
    "ldrd r2, r3, [sp, #28]\n eors r2, r2, r3\n str r2, [sp, #28]\n bne 3f\n"                           \
    "add r2, r0, #32\n str r2, [sp]\n b 5b\n"

/* Stride 2: two outputs side by side, r10 from columns x, x+1, x+2 and r11 from x+2, x+3, x+4. `at` is the address in
 * rows y, y+1 (smlad: kernel rows 0 and 1), then in rows y+2, y+3 (smlabt: kernel row 2). */
#define TFKD_DW_SPARSE(one, at, w0, w1, w2, s0, s1)                                                     \
    "ldrd r2, r3, [" at "], #32\n " one " r10, r2, " w0 ", " s0 "\n " one " r10, r3, " w1 ", r10\n"     \
    "ldrd r2, r3, [" at "], #32\n " one " r10, r2, " w2 ", r10\n"                                       \
    one " r11, r2, " w0 ", " s1 "\n " one " r11, r3, " w1 ", r11\n"                                     \
    "ldr r2, [" at "]\n " one " r11, r2, " w2 ", r11\n"
#define TFKD_DW_STRIDE2(scale, load, shift)                                                             \
    TFKD_DW_SPARSE("smlad", "r0", "r4", "r5", "r6", "lr", "lr")                                         \
    TFKD_DW_SPARSE("smlabt", "r1", "r7", "r8", "r9", "r10", "r11")                                      \
    "ldrd r2, r3, [sp, #8]\n" scale("r10") scale("r11")                                                 \
    load shift("r10") shift("r11")                                                                      \
    "ldrd r2, r3, [sp, #24]\n strb r11, [r2, r3]\n strb r10, [r2]\n"                                    \
    "add r2, r2, r3, lsl #1\n str r2, [sp, #24]\n"

/* Weights of two kernel rows (`first`, `second`: registers with three bytes each) as halves, scaled: w0, w1, w2 for
 * kernel columns 0, 1, 2, the first row in the low half.
 *
 *   variant       factor   how
 *   one product   256      each byte is moved into the upper byte of its half
 *   signed        2        sign extension, then x + x */
#define TFKD_DW_WEIGHTS(first, second, w0, w1, w2)                                                      \
    "pkhbt " w1 ", " first ", " second ", lsl #16\n pkhtb " w2 ", " second ", " first ", asr #16\n"     \
    "lsl " w0 ", " w1 ", #8\n and " w1 ", " w1 ", #0xff00ff00\n and " w0 ", " w0 ", #0xff00ff00\n"      \
    "lsl " w2 ", " w2 ", #8\n and " w2 ", " w2 ", #0xff00ff00\n"
#define TFKD_DW_WEIGHTS_SIGNED(first, second, w0, w1, w2)                                               \
    "pkhbt " w1 ", " first ", " second ", lsl #16\n pkhtb " w2 ", " second ", " first ", asr #16\n"     \
    "sxtb16 " w0 ", " w1 "\n sxtb16 " w1 ", " w1 ", ror #8\n sxtb16 " w2 ", " w2 "\n"                   \
    "sadd16 " w0 ", " w0 ", " w0 "\n sadd16 " w1 ", " w1 ", " w1 "\n sadd16 " w2 ", " w2 ", " w2 "\n"

/* The offset (r10) of a channel from that of all and the channel's part or shift (r6); signed also the bias (r4), scaled
 * like its weights. */
#define TFKD_DW_BITS "add r10, r10, r6\n"
#define TFKD_DW_BITS_SIGNED "lsl r10, r10, r6\n lsl r4, r4, #1\n"

/* Rows of outputs of some channels.
 *
 *   stack                               register       content in the loops
 *   [sp]      end of the row's columns  r0, r1         addresses in the pairs of rows y, y+1 and y+2, y+3
 *   [sp,4]    bias, scaled              r2, r3         values, then operands of the requantization
 *   [sp,8]    multiplier                r4 - r9        weights, see TFKD_DW_STRIDE1
 *   [sp,12]   offset, scaled            r10 - r12, lr  sums, then outputs; lr enters a step with the bias
 *   [sp,16]   shift
 *   [sp,20]   address of the output     [sp,36]  rows left       [sp,52]  length
 *   [sp,24]   the one below             [sp,40]  skip            [sp,56]  start of the channel's columns
 *   [sp,28]   step    [sp,32]  odd      [sp,44]  out_skip        [sp,60]  p
 *                                       [sp,48]  last
 *
 *   label   what
 *   4:      next channel: load its bias, multiplier, shift and nine weights; scale them; advance the pointers in p
 *   0:      next row of outputs
 *   1:      one step of `outputs` (stride 1: 2 x 2 outputs, 49 instructions; stride 2: two outputs, 31);
 *           repeat to the row's end; then step ^= odd: where that gives 0, once more for the single output of an odd
 *           width (both outputs of the step go to the same address, the valid one last), up to `advance` bytes further
 *   5:      at stride 1 instead of 1:, one step of a last row that has none below
 *   2:      on to the next row
 *   3:      repeat for the remaining channels */
#define TFKD_DW_ROWS(name, outputs, last_row, scale, load, shift, bits, weights, advance)               \
    TFKD_ASSEMBLY void name(const uint32_t *from TFKD_UNUSED, tfkd_rows_params *p TFKD_UNUSED) {        \
        __asm__ volatile(                                                                               \
            "push {r0, r1, r4-r11, lr}\n sub sp, #56\n"                                                 \
            "4:\n ldrd r0, r1, [sp, #56]\n ldm r1, {r2-r10}\n"                                          \
            "add r11, r0, r2\n str r11, [sp]\n str r2, [sp, #52]\n"                                     \
            "add r11, r3, #1\n str r11, [r1, #4]\n add r4, r4, r3\n"                                    \
            "add r12, sp, #20\n stm r12, {r3-r10}\n"                                                    \
            "ldrd r2, r3, [r1, #40]\n ldr r4, [r2], #4\n ldr r5, [r3], #4\n strd r2, r3, [r1, #40]\n"   \
            "ldrd r2, r3, [r1, #48]\n ldrsb r6, [r2], #1\n ldr r7, [r3]\n ldr r8, [r3, #3]\n"           \
            "ldr r9, [r3, #5]\n adds r3, r3, #9\n strd r2, r3, [r1, #48]\n lsr r9, r9, #8\n"            \
            "ldrd r10, r11, [r1, #60]\n add r11, r0, r11\n str r11, [sp, #56]\n"                        \
            bits "strd r4, r5, [sp, #4]\n strd r10, r6, [sp, #12]\n"                                    \
            weights("r7", "r8", "r4", "r5", "r6")                                                       \
            "mov r10, r8\n" weights("r10", "r9", "r7", "r8", "r11") "mov r9, r11\n"                     \
            "ldr r1, [r1, #36]\n add r1, r0, r1\n"                                                      \
            "0:\n ldr lr, [sp, #4]\n" last_row(scale, load, shift)                                      \
            "1:\n" outputs(scale, load, shift) "ldm sp, {r2, lr}\n cmp r0, r2\n bne 1b\n"               \
            "ldrd r2, r3, [sp, #28]\n eors r2, r2, r3\n str r2, [sp, #28]\n bne 2f\n"                   \
            "add r2, r0, #" advance "\n str r2, [sp]\n b 1b\n"                                          \
            "2:\n ldrd r2, r3, [sp, #36]\n subs r2, r2, #1\n beq 3f\n str r2, [sp, #36]\n"              \
            "add r0, r0, r3\n add r1, r1, r3\n ldr r3, [sp, #52]\n add r3, r0, r3\n str r3, [sp]\n"     \
            "ldrd r10, r11, [sp, #20]\n ldr r3, [sp, #44]\n add r10, r10, r3\n add r11, r11, r3\n"       \
            "strd r10, r11, [sp, #20]\n b 0b\n"                                                         \
            "3:\n ldr r1, [sp, #60]\n ldr r2, [r1, #56]\n subs r2, r2, #1\n str r2, [r1, #56]\n bne 4b\n" \
            "add sp, #64\n pop {r4-r11, pc}\n");                                                        \
    }
#define TFKD_DW_VARIANTS(name, outputs, last_row, advance)                                              \
    TFKD_DW_ROWS(name, outputs, last_row, TFKD_DW_SCALE, "", TFKD_DW_SHIFT, TFKD_DW_BITS,               \
                 TFKD_DW_WEIGHTS, advance)                                                              \
    TFKD_DW_ROWS(name##_signed, outputs, last_row, TFKD_DW_SCALE_SIGNED, TFKD_DW_LOAD_SHIFT,            \
                 TFKD_DW_SHIFT_SIGNED, TFKD_DW_BITS_SIGNED, TFKD_DW_WEIGHTS_SIGNED, advance)
TFKD_DW_VARIANTS(tfkd_rows, TFKD_DW_STRIDE1, TFKD_DW_LAST_ROW, "32")
#define TFKD_DW_NO_LAST_ROW(scale, load, shift)
TFKD_DW_VARIANTS(tfkd_rows_stride2, TFKD_DW_STRIDE2, TFKD_DW_NO_LAST_ROW, "64")
#endif
