/* What the kernels need of the compiler and the core: C99 or C++ with one of gcc, clang or any other compiler.
 *
 * Macros that a user may define: TFKD_PORTABLE turns all assembly off, with the same outputs. TFKD_WEIGHTS stands behind
 * the name of each constant array: __attribute__((section(".external_flash"))) places the weights of all models, and
 * TFKD_<NAME>_WEIGHTS those of one. */
#if defined(__has_include)
#if !__has_include(<string.h>) /* a compiler without a C library */
#define TFKD_NO_STRING
#endif
#endif
#if defined(__STDC_HOSTED__) && __STDC_HOSTED__ && !defined(TFKD_NO_STRING)
#include <string.h>
#else
#ifdef __cplusplus
extern "C" {
#endif
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);
#ifdef __cplusplus
}
#endif
#endif

#ifndef TFKD_WEIGHTS
#define TFKD_WEIGHTS
#endif

#if defined(__GNUC__)
#define TFKD_INLINE static inline __attribute__((always_inline, unused))
#define TFKD_NOINLINE __attribute__((noinline, unused))
#define TFKD_ALIGNED __attribute__((aligned(4)))
#else
#define TFKD_INLINE static inline
#define TFKD_NOINLINE
#define TFKD_ALIGNED
#endif

/* A function whose body is assembly only. noipa: gcc must assume that it changes every register that a call may. */
#if defined(__clang__)
#define TFKD_ASSEMBLY __attribute__((naked, noinline, unused)) static
#else
#define TFKD_ASSEMBLY __attribute__((naked, noinline, noipa, unused)) static
#endif

/* A parameter that only assembly uses. */
#define TFKD_UNUSED __attribute__((unused))

/* C99 has no _Static_assert: an array type of size -1 is an error. */
#define TFKD_STATIC_ASSERT(condition, name) typedef char name[(condition) ? 1 : -1]

/* A macro's value as a string, for assembly. */
#define TFKD_TEXT_OF(value) #value
#define TFKD_TEXT(macro) TFKD_TEXT_OF(macro)

/* 1 on cores with the DSP extension (Cortex-M4, M7, M33, ...): kernels use arm_dsp*.h. */
#if defined(__ARM_FEATURE_DSP) && __ARM_FEATURE_DSP && !defined(TFKD_PORTABLE)
#define TFKD_DSP 1
#else
#define TFKD_DSP 0
#endif

/* 1 on cores with vectors of integers (Helium, MVE: Cortex-M55, M85): kernels use arm_helium*.h. */
#if defined(__ARM_FEATURE_MVE) && __ARM_FEATURE_MVE && !defined(TFKD_PORTABLE)
#define TFKD_MVE 1
#include <arm_mve.h>
#else
#define TFKD_MVE 0
#endif

/* A kernel. Where gcc 12 optimizes for size, it keeps most vectors on the stack: kernels with vectors take -O2 then. */
#if defined(__OPTIMIZE_SIZE__) && defined(__GNUC__) && !defined(__clang__) && TFKD_MVE
#define TFKD_KERNEL __attribute__((noinline, unused, optimize("O2")))
#else
#define TFKD_KERNEL TFKD_NOINLINE
#endif

/* 1 on cores with Thumb-1 (Cortex-M0, M0+): kernels use arm_thumb1*.h. Only eight registers take part in arithmetic
 * there, and compilers spill most sums to the stack. */
#if defined(__GNUC__) && defined(__thumb__) && !defined(__thumb2__) && !defined(TFKD_PORTABLE)
#define TFKD_THUMB1 1
#else
#define TFKD_THUMB1 0
#endif

/* A function that prepares the work of assembly: small rather than fast. */
#if TFKD_DSP && defined(__clang__)
#define TFKD_BESIDE __attribute__((minsize, noinline, unused)) static
#else
#define TFKD_BESIDE TFKD_NOINLINE static
#endif

/* Four bytes at any address; one instruction where the core supports unaligned access. */
TFKD_INLINE uint32_t tfkd_load4(const void *from) {
    uint32_t word;
#if defined(__GNUC__)
    __builtin_memcpy(&word, from, 4);
#else
    memcpy(&word, from, 4);
#endif
    return word;
}

TFKD_INLINE void tfkd_store4(void *to, uint32_t word) {
#if defined(__GNUC__)
    __builtin_memcpy(to, &word, 4);
#else
    memcpy(to, &word, 4);
#endif
}

/* Word i of an int16 array that is aligned to 4 bytes: element 2 * i in the low half, 2 * i + 1 in the high half. */
#if defined(__GNUC__)
typedef uint32_t __attribute__((may_alias)) tfkd_word;
#define TFKD_WORD(from, i) ((int32_t)((const tfkd_word *)(const void *)(from))[i])
#else
#define TFKD_WORD(from, i) ((int32_t)tfkd_load4((const int16_t *)(from) + 2 * (i)))
#endif
