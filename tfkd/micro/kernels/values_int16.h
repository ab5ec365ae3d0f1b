/* Type of the activations in the kernel header that follows, one that uses TFKD_VALUE: int16.
 * TFKD_NAME(pool) is `tfkd_pool_int16`; sums of products are those of sums_int16.h. */
#undef TFKD_VALUE
#undef TFKD_VALUE_MIN
#undef TFKD_VALUE_MAX
#undef TFKD_NAME
#undef TFKD_SUM
#define TFKD_VALUE int16_t
#define TFKD_VALUE_MIN INT16_MIN
#define TFKD_VALUE_MAX INT16_MAX
#define TFKD_NAME(name) tfkd_##name##_int16
#define TFKD_SUM(name) tfkd_int16_##name
