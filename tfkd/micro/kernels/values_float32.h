/* Type of the values in the kernel header that follows, one that uses TFKD_VALUE: float, for kernels that only move
 * values. TFKD_NAME(move) is `tfkd_move_float32`. */
#undef TFKD_VALUE
#undef TFKD_NAME
#undef TFKD_SUM
#define TFKD_VALUE float
#define TFKD_NAME(name) tfkd_##name##_float32
