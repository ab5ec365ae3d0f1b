/* Type of the activations in the kernel header that follows, one that uses TFKD_VALUE: int8.
 * TFKD_NAME(pool) is `tfkd_pool`; sums of products are those of sums_int8.h. */
#undef TFKD_VALUE
#undef TFKD_VALUE_MIN
#undef TFKD_VALUE_MAX
#undef TFKD_NAME
#undef TFKD_SUM
#define TFKD_VALUE int8_t
#define TFKD_VALUE_MIN INT8_MIN
#define TFKD_VALUE_MAX INT8_MAX
#define TFKD_NAME(name) tfkd_##name
#define TFKD_SUM(name) tfkd_int8_##name
