/* Type of the values in the kernel header that follows, one that uses TFKD_VALUE: int32, for kernels that only move
 * values. TFKD_NAME(move) is `tfkd_move_int32`. */
#undef TFKD_VALUE
#undef TFKD_VALUE_MIN
#undef TFKD_VALUE_MAX
#undef TFKD_NAME
#undef TFKD_SUM
#define TFKD_VALUE int32_t
#define TFKD_VALUE_MIN INT32_MIN
#define TFKD_VALUE_MAX INT32_MAX
#define TFKD_NAME(name) tfkd_##name##_int32
