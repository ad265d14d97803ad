/* What products multiply: one float and LANES numbers, or, where the processor adds products of bf16 pairs into floats,
 * PAIR of each, side by side. */

#include "vectors.h"

#if defined(BF16) && defined(__AVX512BF16__)
#include <immintrin.h>
#define PAIR 2
typedef int32_t factor __attribute__((may_alias));
typedef __m512i weights;

static inline weights weighed(const number *panel) { return _mm512_loadu_si512(panel); }

static inline lanes plus(lanes sum, factor x, weights w) {
    return (lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(x), (__m512bh)w);
}

/* x (count), already rounded, in pairs of neighbours. */
static inline const factor *as_factors(long count, const number *x, factor *scratch) { return (const factor *)x; }

static inline __m256i rounded(const float *x) { return (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x)); }

/* x (count), in pairs of neighbours. */
static inline const factor *factors(long count, const float *x, factor *scratch) {
    number *out = (number *)scratch;
    long i = 0;
    for (; i + LANES <= count; i += LANES)
        _mm256_storeu_si256((__m256i *)(out + i), rounded(x + i));
    for (; i < count; i++)
        out[i] = narrow(x[i]);
    return scratch;
}

/* x (rows, columns), a multiple of LANES, in pairs of rows: (rows/PAIR, columns). */
static inline const factor *crossed(long rows, long columns, const float *x, factor *scratch) {
    for (long row = 0; row < rows; row += 2)
        for (long i = 0; i < columns; i += LANES) {
            const float *at = x + row * columns + i;
            __m512i one = _mm512_cvtepu16_epi32(rounded(at)), other = _mm512_cvtepu16_epi32(rounded(at + columns));
            _mm512_storeu_si512(scratch + row / 2 * columns + i, _mm512_or_si512(one, _mm512_slli_epi32(other, 16)));
        }
    return scratch;
}
#else
#define PAIR 1
typedef float factor;
typedef lanes weights;

static inline weights weighed(const number *panel) { return load(panel); }
static inline lanes plus(lanes sum, factor x, weights w) { return sum + x * w; }
static inline const factor *factors(long count, const float *x, factor *scratch) { return x; }
static inline const factor *crossed(long rows, long columns, const float *x, factor *scratch) { return x; }
#ifdef BF16
static inline const factor *as_factors(long count, const number *x, factor *scratch) {
#pragma omp simd
    for (long i = 0; i < count; i++)
        scratch[i] = widen(x[i]);
    return scratch;
}
#else
static inline const factor *as_factors(long count, const number *x, factor *scratch) { return x; }
#endif
#endif
